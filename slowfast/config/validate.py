"""Checks of values and of keys against each other, all before a run touches a file or a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from slowfast.config.legacy import REMOVED
from slowfast.config.node import MAX_INTEGER, CfgNode, ConfigError, one_of
from slowfast.config.paths import escape_of, is_plain_name
from slowfast.config.shown import shown
from slowfast.config.values import (
    ARCH_GRIDS,
    CLIP_IMAGE_SIZE,
    DECODING_BACKENDS,
    EPISODE_PROTOCOLS,
    LOOSE_PROTOCOLS,
    OPTIONAL_NUMBERS,
    OPTIONAL_PATHS,
    REFUSED,
    RESNETS,
    AllowedValues,
    Lists,
    is_count,
    is_number,
)


def check(cfg: CfgNode, *, allowed: AllowedValues) -> None:
    """Check every value of a tree.

    Args:
        cfg: a tree as :func:`slowfast.config.defaults.get_cfg` makes it.
        allowed: what single keys may hold.

    Raises:
        ConfigError: naming the first key whose value is not allowed, what it is, and what is.
    """
    leaves = cfg.leaves()
    for key, entry in REMOVED.items():
        if leaves[key] != entry.value:
            raise ConfigError(
                f"{key}: {shown(leaves[key])} is not supported, this key {entry.reason}; {_only(entry.value)}"
            )
    for key, refused in REFUSED.items():
        if leaves[key] in refused:
            names = ", ".join(map(repr, allowed.choices[key]))
            raise ConfigError(f"{key}: {shown(leaves[key])} {refused[leaves[key]]}; allowed: {names}")
    _check_decoder(cfg.DATA.DECODING_BACKEND)
    for key, choices in allowed.choices.items():
        _check_choice(key, leaves[key], choices)
    for key, (low, high) in allowed.ranges.items():
        if not low <= leaves[key] <= (float("inf") if high is None else high):
            bounds = f"allowed: at least {low}" if high is None else f"allowed: from {low} to {high}"
            raise ConfigError(f"{key}: {shown(leaves[key])} is out of range; {bounds}")
    _check_optional(leaves)
    _check_lists(leaves, allowed.lists)
    for key, value in leaves.items():
        for part in value if isinstance(value, list | tuple) else (value,):
            _check_plain(key, part)
    for rule in (
        _check_machines,
        _check_names,
        _check_protocol,
        _check_episodes,
        _check_data,
        _check_architecture,
        _check_block,
        _check_text,
        _check_weights,
        _check_training,
        _check_solver,
    ):
        rule(cfg)


def _check_plain(key: str, value: object) -> None:
    """Refuse what no key can mean."""
    if isinstance(value, float) and not math.isfinite(value) and key not in REMOVED:
        raise ConfigError(f"{key}: {value!r} is no number to compute with; allowed: finite numbers")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ConfigError(f"{key}: {shown(value)} is out of range; allowed: integers of 64 bits")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{key}: {shown(value)} holds a NUL character")


def _only(value: object) -> str:
    return f"allowed: {shown(value)}"


def _check_choice(key: str, value: object, choices: Sequence[Any]) -> None:
    # Equality alone would let True pass for 1.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return
    raise ConfigError(f"{key}: unknown value {shown(value)}{one_of(value, choices)}")


def _check_decoder(name: str) -> None:
    if name == "torchvision":
        raise ConfigError(
            "DATA.DECODING_BACKEND: 'torchvision' is not supported, its video reader was removed from torchvision; "
            f"allowed: {', '.join(map(repr, DECODING_BACKENDS))}"
        )
    _check_choice("DATA.DECODING_BACKEND", name, DECODING_BACKENDS)


def _check_optional(leaves: dict[str, Any]) -> None:
    for key in OPTIONAL_PATHS:
        if not isinstance(leaves[key], str | None):
            raise ConfigError(f"{key}: expected a path or None, found {shown(leaves[key])}")
    for key in OPTIONAL_NUMBERS:
        if leaves[key] is not None and not (is_number(leaves[key]) and leaves[key] > 0):
            raise ConfigError(f"{key}: expected a number > 0 or None, found {shown(leaves[key])}")


def _check_lists(leaves: dict[str, Any], lists: Lists) -> None:
    for key, (is_valid, lengths, expected) in lists.items():
        value = leaves[key]
        if (lengths is not None and len(value) not in lengths) or not all(map(is_valid, value)):
            raise ConfigError(f"{key}: expected {expected}, found {shown(value)}")
    scales = leaves["MODEL.TEMPORAL_SCALE"]
    if not scales or not all(map(is_count, scales)):
        raise ConfigError(f"MODEL.TEMPORAL_SCALE: expected one or more integers >= 1, found {scales!r}")


def _check_machines(cfg: CfgNode) -> None:
    for phase in ("TRAIN", "TEST"):
        if cfg.NUM_GPUS and cfg[phase].BATCH_SIZE % cfg.NUM_GPUS:
            raise ConfigError(
                f"{phase}.BATCH_SIZE: {cfg[phase].BATCH_SIZE} is not a multiple of NUM_GPUS, which is {cfg.NUM_GPUS}"
            )
    if cfg.SHARD_ID >= cfg.NUM_SHARDS:
        raise ConfigError(f"SHARD_ID: {cfg.SHARD_ID} must be below NUM_SHARDS, which is {cfg.NUM_SHARDS}")
    views = cfg.TEST.NUM_ENSEMBLE_VIEWS
    if views < 1 and views != -1:
        raise ConfigError(f"TEST.NUM_ENSEMBLE_VIEWS: {views} is out of range; allowed: at least 1, or -1 for a series")


def _check_names(cfg: CfgNode) -> None:
    """What a run writes stays in OUTPUT_DIR, and a dataset in SPLITS.LABEL_DB, whatever a file calls them."""
    for key, name, folder in (
        ("TEST.SAVE_RESULTS_PATH", cfg.TEST.SAVE_RESULTS_PATH, "OUTPUT_DIR"),
        ("TENSORBOARD.LOG_DIR", cfg.TENSORBOARD.LOG_DIR, "OUTPUT_DIR"),
        ("SPLITS.DATASET", cfg.SPLITS.DATASET, "SPLITS.LABEL_DB"),
        ("SPLITS.SOURCE", cfg.SPLITS.SOURCE, "SPLITS.LABEL_DB"),
    ):
        if reason := escape_of(name):
            raise ConfigError(f"{key}: {name!r} {reason}; allowed: a name inside {folder}")
    if cfg.TASK and not is_plain_name(cfg.TASK):
        raise ConfigError(f"TASK: {cfg.TASK!r} begins the names of checkpoints; allowed: a name without separators")


def _check_protocol(cfg: CfgNode) -> None:
    if cfg.PROTOCOL not in LOOSE_PROTOCOLS and not cfg.SPLITS.DATASET:
        raise ConfigError(
            f"SPLITS.DATASET: is empty, but PROTOCOL is {cfg.PROTOCOL!r}; name a folder of SPLITS.LABEL_DB, as ucf101"
        )


def _check_episodes(cfg: CfgNode) -> None:
    """Refuse what means nothing to episodes, and episodes where nothing reads them."""
    episodes = cfg.EPISODES
    if reason := escape_of(episodes.BENCHMARK):
        raise ConfigError(
            f"EPISODES.BENCHMARK: {episodes.BENCHMARK!r} {reason}; allowed: a name inside SPLITS.LABEL_DB"
        )
    if cfg.PROTOCOL not in EPISODE_PROTOCOLS:
        if episodes.TRAIN:
            names = ", ".join(map(repr, EPISODE_PROTOCOLS))
            raise ConfigError(f"EPISODES.TRAIN: True, but PROTOCOL is {cfg.PROTOCOL!r}; allowed: PROTOCOL {names}")
        return
    if episodes.WAY_TEST == 1:
        raise ConfigError(
            "EPISODES.WAY_TEST: 1 leaves nothing to tell apart; allowed: 0 for EPISODES.WAY, or 2 and more"
        )
    single = {"TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1} if cfg.TEST.ENABLE else {}
    trained = {"MIXUP.ENABLE": False, "AUG.NUM_SAMPLE": 1} if cfg.TRAIN.ENABLE and episodes.TRAIN else {}
    leaves = cfg.leaves()
    for key, value in {**single, **trained}.items():
        if leaves[key] != value:
            raise ConfigError(f"{key}: {leaves[key]!r}, but PROTOCOL is {cfg.PROTOCOL!r}; allowed: {value!r}")
    if cfg.TEST.ENABLE and tuple(cfg.TEST.NUM_TEMPORAL_CLIPS) not in ((), (1,)):
        raise ConfigError(
            f"TEST.NUM_TEMPORAL_CLIPS: {shown(cfg.TEST.NUM_TEMPORAL_CLIPS)}, but PROTOCOL is {cfg.PROTOCOL!r}; "
            "allowed: [] or [1]"
        )


def _check_data(cfg: CfgNode) -> None:
    data = cfg.DATA
    if not data.PATH_LABEL_SEPARATOR:
        raise ConfigError("DATA.PATH_LABEL_SEPARATOR: is empty; allowed: one or more characters such as ','")
    for key in ("TRAIN_JITTER_SCALES", "TRAIN_JITTER_SCALES_RELATIVE", "TRAIN_JITTER_ASPECT_RELATIVE"):
        if list(data[key]) != sorted(data[key]):
            raise ConfigError(f"DATA.{key}: the lower end comes first, found {data[key]!r}")
    if len(data.TRAIN_JITTER_SCALES_RELATIVE) != len(data.TRAIN_JITTER_ASPECT_RELATIVE):
        raise ConfigError(
            "DATA.TRAIN_JITTER_SCALES_RELATIVE: set it together with DATA.TRAIN_JITTER_ASPECT_RELATIVE, or neither"
        )
    if data.TRAIN_CROP_SCALES and data.TRAIN_JITTER_SCALES_RELATIVE:
        raise ConfigError(
            "DATA.TRAIN_CROP_SCALES: choose it or DATA.TRAIN_JITTER_SCALES_RELATIVE; allowed beside it: []"
        )
    if data.SQUASH:
        _check_square(cfg)
    crops = {"TRAIN": data.TRAIN_CROP_SIZE if cfg.TRAIN.ENABLE else 0}
    crops["TEST"] = data.TEST_CROP_SIZE if cfg.TEST.ENABLE and cfg.TEST.NUM_SPATIAL_CROPS == 1 else 0
    for phase, crop in crops.items():
        if data.TRAIN_JITTER_SCALES[0] < crop:
            raise ConfigError(
                f"DATA.TRAIN_JITTER_SCALES: a short side of {data.TRAIN_JITTER_SCALES[0]} pixels is less than "
                f"DATA.{phase}_CROP_SIZE, which is {crop}"
            )
    if data.TEXT_AUG and not data.TEXT_AUG_FEATURE_FILE:
        raise ConfigError("DATA.TEXT_AUG_FEATURE_FILE: is empty, but DATA.TEXT_AUG is True; name a file (K, n, E)")


def _check_square(cfg: CfgNode) -> None:
    """Refuse crops that do not start from the short side, and those along the long one."""
    for key in ("TRAIN_CROP_SCALES", "TRAIN_JITTER_SCALES_RELATIVE"):
        if cfg.DATA[key]:
            raise ConfigError(f"DATA.SQUASH: choose it or DATA.{key}; allowed beside it: []")
    if cfg.TEST.NUM_SPATIAL_CROPS != 1:
        raise ConfigError(
            f"TEST.NUM_SPATIAL_CROPS: {cfg.TEST.NUM_SPATIAL_CROPS} crops lie along the long side, and DATA.SQUASH True "
            "leaves none; allowed: 1"
        )


def _check_architecture(cfg: CfgNode) -> None:
    model = cfg.MODEL
    if model.ARCH == "custom":
        if model.CLIP_WEIGHTS in ("", "random"):
            raise ConfigError(
                f"MODEL.CLIP_WEIGHTS: {model.CLIP_WEIGHTS!r} gives no sizes for MODEL.ARCH 'custom'; allowed: a file"
            )
        return
    _check_choice("MODEL.ARCH", model.ARCH, (*ARCH_GRIDS, *RESNETS, "custom"))
    if model.ARCH in RESNETS:
        _check_resnet(cfg)
    if model.CLIP_WEIGHTS not in ("", "random"):
        return
    for phase in ("TRAIN", "TEST"):
        size = cfg.DATA[f"{phase}_CROP_SIZE"]
        if cfg[phase].ENABLE and size != CLIP_IMAGE_SIZE:
            raise ConfigError(
                f"DATA.{phase}_CROP_SIZE: {size} does not fit MODEL.ARCH {model.ARCH!r}; allowed: {CLIP_IMAGE_SIZE}"
            )


def _check_resnet(cfg: CfgNode) -> None:
    """Refuse, before any file is read, what needs the blocks of a ViT."""
    for key, allowed in (
        ("MODEL.TEMPORAL_MODELING_TYPE", None),
        ("MODEL.NUM_EXPERTS", 0),
        ("MODEL.USE_CHECKPOINT", False),
        ("TRAIN.LINEAR_CONNECT_CLIMB", False),
    ):
        value = cfg.leaves()[key]
        if value != allowed:
            raise ConfigError(
                f"{key}: {value!r} needs a ViT, and MODEL.ARCH is {cfg.MODEL.ARCH!r}; allowed: {allowed!r}"
            )


def _check_block(cfg: CfgNode) -> None:
    model = cfg.MODEL
    if model.MASK_STRIDE[0] != 1:
        raise ConfigError(f"MODEL.MASK_STRIDE: the first number, in time, must be 1, found {model.MASK_STRIDE!r}")
    known_grid = model.ARCH in ARCH_GRIDS and model.CLIP_WEIGHTS in ("", "random")
    if model.TEMPORAL_MODELING_TYPE != "stcross_attend" or not known_grid:
        return
    grid = ARCH_GRIDS[model.ARCH]
    if any(grid % stride for stride in model.MASK_STRIDE[1:]):
        divisors = [number for number in range(1, grid + 1) if grid % number == 0]
        raise ConfigError(
            f"MODEL.MASK_STRIDE: {model.MASK_STRIDE!r} does not divide the {grid}x{grid} patches of MODEL.ARCH "
            f"{model.ARCH!r}; allowed for rows and columns: {divisors}"
        )


def _check_text(cfg: CfgNode) -> None:
    """One source of the classifier at a time."""
    model = cfg.MODEL
    froster = model.RAW_MODEL_DISTILLATION and model.DISTILLATION_MODE == "froster"
    if model.TEXT_PROMPT and (cfg.TUNE_HEAD or cfg.DATA.TEXT_AUG):
        other = "TUNE_HEAD" if cfg.TUNE_HEAD else "DATA.TEXT_AUG"
        raise ConfigError(f"MODEL.TEXT_PROMPT: True makes the classifier from learned context; set {other} False")
    for key, switch in (
        ("TUNE_HEAD", cfg.TUNE_HEAD),
        ("MODEL.TEXT_PROMPT", model.TEXT_PROMPT),
        ("DATA.TEXT_AUG", cfg.DATA.TEXT_AUG),
    ):
        if froster and switch:
            raise ConfigError(f"MODEL.DISTILLATION_MODE: 'froster' trains the text tower; set {key} False")


def _check_weights(cfg: CfgNode) -> None:
    for key in ("RAW_MODEL_DISTILLATION", "ENSEMBLE_PRED"):
        if cfg.MODEL[key] and not cfg.MODEL.KEEP_RAW_MODEL:
            raise ConfigError(f"MODEL.{key}: True needs the frozen CLIP; set MODEL.KEEP_RAW_MODEL True")
    for phase in ("TRAIN", "TEST"):
        if cfg[phase].ENABLE and cfg[phase].CUSTOM_LOAD and not cfg[phase].CUSTOM_LOAD_FILE:
            raise ConfigError(f"{phase}.CUSTOM_LOAD_FILE: is empty, but {phase}.CUSTOM_LOAD is True; name a file")
    test = cfg.TEST
    if test.PATCHING_MODEL and test.PATCHING_RATIOS:
        raise ConfigError(
            f"TEST.PATCHING_RATIOS: {shown(test.PATCHING_RATIOS)} and TEST.PATCHING_MODEL True both mix raw CLIP in; "
            "set PATCHING_MODEL False, or PATCHING_RATIOS []"
        )
    if len({f"{ratio:g}" for ratio in test.PATCHING_RATIOS}) != len(test.PATCHING_RATIOS):
        raise ConfigError(f"TEST.PATCHING_RATIOS: {shown(test.PATCHING_RATIOS)} names a share twice")
    if not (test.ENABLE and test.PATCHING_MODEL):
        return
    if test.CUSTOM_LOAD and not test.CLIP_ORI_PATH:
        raise ConfigError("TEST.CLIP_ORI_PATH: is empty, but TEST.PATCHING_MODEL is True; name the raw CLIP archive")
    if test.CHECKPOINT_FILE_PATH and not test.CUSTOM_LOAD:
        raise ConfigError(
            "TEST.PATCHING_MODEL: True mixes CLIP into TEST.CUSTOM_LOAD_FILE, not into TEST.CHECKPOINT_FILE_PATH; "
            "set TEST.CUSTOM_LOAD True"
        )


def _check_training(cfg: CfgNode) -> None:
    train, model, mixup = cfg.TRAIN, cfg.MODEL, cfg.MIXUP
    if train.KEEP_BEST and train.EVAL_PERIOD % train.CHECKPOINT_PERIOD:
        raise ConfigError(
            f"TRAIN.KEEP_BEST: True needs a checkpoint of every validated epoch, but TRAIN.EVAL_PERIOD "
            f"{train.EVAL_PERIOD} is not a multiple of TRAIN.CHECKPOINT_PERIOD {train.CHECKPOINT_PERIOD}"
        )
    if train.LINEAR_CONNECT_CLIMB and train.LINEAR_CONNECT_SAMPLE_L >= train.LINEAR_CONNECT_SAMPLE_R:
        raise ConfigError(
            f"TRAIN.LINEAR_CONNECT_SAMPLE_L: {train.LINEAR_CONNECT_SAMPLE_L} must be below "
            f"TRAIN.LINEAR_CONNECT_SAMPLE_R, which is {train.LINEAR_CONNECT_SAMPLE_R}"
        )
    if train.LINEAR_CONNECT_CLIMB and train.LINEAR_CONNECT_LOSS_RATIO == 0:
        raise ConfigError(
            "TRAIN.LINEAR_CONNECT_LOSS_RATIO: 0 leaves nothing of TRAIN.LINEAR_CONNECT_CLIMB; allowed: above 0"
        )
    if mixup.ENABLE and mixup.ALPHA == 0 and mixup.CUTMIX_ALPHA == 0:
        raise ConfigError("MIXUP.ALPHA: is 0 and MIXUP.CUTMIX_ALPHA too; one of them must be above 0 to mix anything")
    if mixup.ENABLE and mixup.LABEL_SMOOTH_VALUE == 1:
        raise ConfigError("MIXUP.LABEL_SMOOTH_VALUE: 1 leaves nothing of the labels; allowed: at least 0, below 1")
    if cfg.AUG.ENABLE and cfg.AUG.RE_SPLIT and cfg.AUG.NUM_SAMPLE == 1:
        raise ConfigError(
            "AUG.RE_SPLIT: True keeps the first crop whole, and AUG.NUM_SAMPLE 1 makes no other; set it to 2"
        )
    if cfg.AUG.FRAME_JITTER[3] > 0.5:
        raise ConfigError(f"AUG.FRAME_JITTER: a hue of {cfg.AUG.FRAME_JITTER[3]} turns; allowed: at most 0.5")
    if mixup.GROUP_SIZE == 1:
        raise ConfigError("MIXUP.GROUP_SIZE: 1 leaves a clip nothing to mix with; allowed: 0, or 2 and more")
    if mixup.ENABLE and max(1, cfg.NUM_GPUS) >= train.BATCH_SIZE * cfg.AUG.NUM_SAMPLE:
        raise ConfigError(
            f"TRAIN.BATCH_SIZE: {train.BATCH_SIZE} leaves MIXUP nothing to mix a clip with; allowed: above 1"
        )
    if len(set(model.EXPERT_INSERT_LAYERS)) != len(model.EXPERT_INSERT_LAYERS):
        raise ConfigError(f"MODEL.EXPERT_INSERT_LAYERS: {model.EXPERT_INSERT_LAYERS!r} names a block twice")
    if model.RECORD_ROUTING and not model.NUM_EXPERTS:
        raise ConfigError("MODEL.RECORD_ROUTING: True needs experts to route between; set MODEL.NUM_EXPERTS")


def _check_solver(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    if solver.LR_POLICY == "cosine_shared_end":
        for key, off in (("COSINE_AFTER_WARMUP", False), ("COSINE_RESTART_EPOCH", 0)):
            if solver[key]:
                raise ConfigError(f"SOLVER.{key}: {solver[key]} belongs to SOLVER.LR_POLICY 'cosine'; allowed: {off}")
    if solver.LR_POLICY in ("cosine", "cosine_shared_end"):
        if solver.COSINE_END_LR >= solver.BASE_LR:
            raise ConfigError(
                f"SOLVER.COSINE_END_LR: {solver.COSINE_END_LR} must be below SOLVER.BASE_LR, which is {solver.BASE_LR}"
            )
        return
    steps, rates = list(solver.STEPS), solver.LRS
    if not steps or len(steps) != len(rates) or steps[0] != 0 or sorted(set(steps)) != steps:
        raise ConfigError(
            f"SOLVER.STEPS: {steps!r} must start at 0, increase, and have one entry for each of SOLVER.LRS {rates!r}"
        )
