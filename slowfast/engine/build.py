"""From the configuration to the engine's own objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

from slowfast.config.identity import cfg_to_yaml, changed_training_keys, changed_validation_keys
from slowfast.config.node import CfgNode, ConfigError
from slowfast.config.shown import shown
from slowfast.datasets.inputs import inputs_sha256
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import Split
from slowfast.engine.average import patch_state
from slowfast.engine.best_checkpoint import find_tested
from slowfast.engine.checkpoint import Checkpoint, check_activation, read_checkpoint
from slowfast.engine.checkpoint_files import best_path
from slowfast.engine.interpolated_step import (
    InterpolatedWeightStep,
    InterpolationConfig,
    RawClip,
    clip_parameters,
    clip_tensors,
)
from slowfast.engine.launch import LaunchPlan, ProcessContext
from slowfast.engine.licenses import binding_licenses, tell_licenses
from slowfast.engine.lr_policy import LrSchedule
from slowfast.engine.optim import DEFAULT_KEYWORD, OptimizerConfig, make_optimizer
from slowfast.engine.precision import choose_precision
from slowfast.engine.step import PlainStep, Step, StepConfig
from slowfast.engine.tested_weights import TestWeights, load_into
from slowfast.engine.train_config import TrainConfig
from slowfast.methods.base import Method
from slowfast.models.clip.experts import experts_like_clip
from slowfast.models.clip.layouts import CLIP_PREFIX
from slowfast.models.clip.weights import read_clip
from slowfast.models.episode_heads import EpisodeHead, OtamHead, PrototypeHead
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

# `mt_adamw` named the multi-tensor AdamW before it became AdamW's default; old YAMLs keep loading.
_OPTIMIZER_ALIASES = {"mt_adamw": "adamw"}


def build_lr_schedule(cfg: CfgNode) -> LrSchedule:
    """Read the learning-rate schedule from the SOLVER keys.

    Args:
        cfg: the resolved configuration.
    """
    solver = cfg.SOLVER
    return LrSchedule(
        base_lr=solver.BASE_LR,
        max_epoch=solver.MAX_EPOCH,
        policy=solver.LR_POLICY,
        cosine_end_lr=solver.COSINE_END_LR,
        warmup_epochs=solver.WARMUP_EPOCHS,
        warmup_start_lr=solver.WARMUP_START_LR,
        cosine_after_warmup=solver.COSINE_AFTER_WARMUP,
        cosine_restart_epoch=solver.COSINE_RESTART_EPOCH,
        steps=tuple(solver.STEPS),
        lrs=tuple(solver.LRS),
    )


def build_optimizer(cfg: CfgNode, method: Method) -> torch.optim.Optimizer:
    """Build the optimiser of the SOLVER keys over a method's trainable parameters.

    The factors of the MODEL keys and those that the method asks for multiply each other.

    Args:
        cfg: the resolved configuration.
        method: the unwrapped method; parameters of a factor 0 are frozen.
    """
    solver = cfg.SOLVER
    if solver.LAYER_DECAY != 1.0:
        raise ValueError(f"SOLVER.LAYER_DECAY: {solver.LAYER_DECAY} matches no name of a CLIP model; allowed: 1.0")
    config = OptimizerConfig(
        method=_OPTIMIZER_ALIASES.get(solver.OPTIMIZING_METHOD, solver.OPTIMIZING_METHOD),
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        bn_weight_decay=cfg.BN.WEIGHT_DECAY,
        zero_wd_1d=solver.ZERO_WD_1D_PARAM,
        factors=_learning_rate_factors(cfg),
        prefix_factors=method.learning_rate_factors,
        momentum=solver.MOMENTUM,
        dampening=solver.DAMPENING,
        nesterov=solver.NESTEROV,
        betas=(solver.BETAS[0], solver.BETAS[1]),
    )
    return make_optimizer(method.named_parameters(), config, batch_norm_names=method.undecayed_names)


def _learning_rate_factors(cfg: CfgNode) -> dict[str, float] | None:
    """Factor per keyword, or None where no key asks for any; ROUTING alone does not, as published."""
    model = cfg.MODEL
    factors = {
        "message": model.FINETUNE_FACTOR,
        "stadapt": model.ADAPT_FINETUNE_FACTOR,
        "mlp": model.MLP_FINETUNE_FACTOR,
        "experts": model.EXPERT_FINETUNE_FACTOR,
        DEFAULT_KEYWORD: model.DEFAULT_FINETUNE_FACTOR,
    }
    if all(factor == 1.0 for factor in factors.values()):
        return None
    return {**factors, "routing": model.ROUTING_FINETUNE_FACTOR}


def build_episode_head(cfg: CfgNode, method: Method, label_set: LabelSet) -> EpisodeHead:
    """Build what EPISODES.HEAD names: the comparison of queries with supports.

    Args:
        cfg: the resolved configuration.
        method: the unwrapped method, which may have a head of its own.
        label_set: classes of the videos.

    Raises:
        ValueError: if the method has none.
    """
    heads: dict[str, Callable[[], EpisodeHead]] = {
        "own": lambda: method.episode_head(label_set),
        "prototype": PrototypeHead,
        "otam": lambda: OtamHead(smoothing=cfg.EPISODES.SMOOTHING),
    }
    return heads[cfg.EPISODES.HEAD]()


def build_step(
    cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer, *, device: torch.device
) -> tuple[Step, torch.amp.GradScaler]:
    """Build the object that moves the parameters by one batch.

    Args:
        cfg: the resolved configuration.
        model: the method, or its DistributedDataParallel wrapper. Where TRAIN.LINEAR_CONNECT_CLIMB needs raw CLIP and
            TRAIN.CLIP_ORI_PATH names none, it is what the method holds now: load checkpoints afterwards.
        optimizer: over the method's parameters.
        device: where the method lies.

    Returns:
        The step, and its gradient scaler, whose state belongs into checkpoints.

    Raises:
        ValueError: if raw CLIP is needed and its file does not fit.
    """
    precision = choose_precision(device, mixed=cfg.TRAIN.MIXED_PRECISION, amp_dtype=cfg.TRAIN.AMP_DTYPE)
    scaler = precision.make_scaler()
    config = StepConfig(
        accumulation_steps=cfg.TRAIN.ACCUMULATION_STEPS,
        max_grad_norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
        max_grad_value=cfg.SOLVER.CLIP_GRAD_VAL,
    )
    logger.info("Computing in %s on %s", precision.dtype or torch.float32, device)
    plain = PlainStep(model, optimizer=optimizer, scaler=scaler, precision=precision, config=config)
    if not cfg.TRAIN.LINEAR_CONNECT_CLIMB:
        return plain, scaler
    interpolation = InterpolationConfig(
        loss_ratio=cfg.TRAIN.LINEAR_CONNECT_LOSS_RATIO,
        sample_low=cfg.TRAIN.LINEAR_CONNECT_SAMPLE_L,
        sample_high=cfg.TRAIN.LINEAR_CONNECT_SAMPLE_R,
    )
    method = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    raw_clip = _raw_clip(cfg, method)
    return InterpolatedWeightStep(plain, raw_clip=raw_clip, config=interpolation), scaler


def build_launch_plan(cfg: CfgNode, *, init_method: str) -> LaunchPlan:
    """Which processes to start, and how they meet.

    Raises:
        ValueError: if the machine lacks the devices.
    """
    return LaunchPlan(
        num_gpus=cfg.NUM_GPUS,
        num_shards=cfg.NUM_SHARDS,
        shard_id=cfg.SHARD_ID,
        backend=cfg.DIST_BACKEND,
        init_method=init_method,
        timeout=timedelta(minutes=cfg.DIST_TIMEOUT_MINUTES),
    )


def build_train_config(
    cfg: CfgNode, *, inputs_sha256: str, computed: Mapping[str, str | int], license_: str = ""
) -> TrainConfig:
    """Numbers of a training run.

    Args:
        cfg: the resolved configuration.
        inputs_sha256: hash of what the run reads.
        computed: what `how_computed` says.
        license_: licence of the weights that the run starts from, "" where none is known.
    """
    train = cfg.TRAIN
    return TrainConfig(
        max_epoch=cfg.SOLVER.MAX_EPOCH,
        log_period=cfg.LOG_PERIOD,
        eval_period=train.EVAL_PERIOD,
        checkpoint_period=train.CHECKPOINT_PERIOD,
        checkpoint_steps=train.CHECKPOINT_STEPS,
        checkpoint_minutes=train.CHECKPOINT_MINUTES,
        keep_last_checkpoints=train.KEEP_LAST_CHECKPOINTS,
        keep_best=train.KEEP_BEST,
        keep_last_within_epoch=train.KEEP_LAST_WITHIN_EPOCH,
        output_dir=Path(cfg.OUTPUT_DIR),
        task=cfg.TASK,
        seed=cfg.RNG_SEED,
        max_bad_fraction=cfg.DATA.MAX_BAD_FRACTION,
        nonfinite_budget=train.NONFINITE_BUDGET,
        loss_explosion_factor=train.KILL_LOSS_EXPLOSION_FACTOR,
        config_text=cfg_to_yaml(cfg),
        inputs_sha256=inputs_sha256,
        computed=computed,
        license_=license_,
        dist_timeout=timedelta(minutes=cfg.DIST_TIMEOUT_MINUTES),
    )


def how_computed(cfg: CfgNode, context: ProcessContext) -> dict[str, str | int]:
    """What the machine adds to the configuration: the type that `auto` stands for, and the number of processes."""
    train = cfg.TRAIN
    dtype = choose_precision(context.device, mixed=train.MIXED_PRECISION, amp_dtype=train.AMP_DTYPE).dtype
    return {"dtype": str(dtype or torch.float32).removeprefix("torch."), "processes": context.world_size}


def training_inputs(cfg: CfgNode, split: Split, *, texts: Sequence[str | Path] = ()) -> str:
    """Hash of what a training depends on besides its configuration: its list, class names, texts and frozen weights.

    What it merely starts from is not among them: a checkpoint holds what became of that.

    Args:
        cfg: the resolved configuration.
        split: what is trained on.
        texts: files that the method reads about the classes.
    """
    raw_clip = cfg.TRAIN.CLIP_ORI_PATH if cfg.TRAIN.LINEAR_CONNECT_CLIMB else ""
    # Without texts as with one that is no file, so that checkpoints made before there were several go on.
    return inputs_sha256([split], [cfg.MODEL.CLIP_WEIGHTS, raw_clip, *(texts or [""])])


def refuse_other_training(
    cfg: CfgNode, checkpoint: Checkpoint, *, inputs_sha256: str, computed: Mapping[str, str | int]
) -> None:
    """Refuse to go on from a checkpoint of another training, unless TRAIN.FORCE_RESUME.

    Args:
        cfg: the resolved configuration of this run.
        checkpoint: what it would go on from; files of other projects say too little to be compared.
        inputs_sha256: hash of what this run reads.
        computed: how this run computes.

    Raises:
        ValueError: naming the keys that differ, and their values.
    """
    if not checkpoint.is_ours or not checkpoint.cfg:
        return
    try:
        changed = changed_training_keys(checkpoint.cfg, cfg)
    except ConfigError as error:
        raise ValueError(f"{checkpoint.path}: its configuration cannot be read: {error}") from error
    reasons = [f"{key} was {then!r}, is {now!r}" for key, (then, now) in changed.items()]
    if checkpoint.inputs_sha256 and checkpoint.inputs_sha256 != inputs_sha256:
        reasons.append("the training list, its class names, text features or CLIP weights have another content")
    # Pairs of MIXUP are those of a process; so are parts of a batch that the processes do not divide.
    counts = cfg.MIXUP.ENABLE or cfg.TRAIN.ACCUMULATION_STEPS > 1
    for name in ("dtype", "processes") if counts else ("dtype",):
        then = checkpoint.computed.get(name, computed[name])
        if then != computed[name]:
            reasons.append(f"{name} was {shown(then)}, is {computed[name]!r} here")
    if not reasons:
        return
    text = f"{checkpoint.path}: is of another training: {'; '.join(reasons)}"
    if not cfg.TRAIN.FORCE_RESUME:
        raise ValueError(
            f"{text}. Set them back, take another OUTPUT_DIR, or go on all the same with TRAIN.FORCE_RESUME True"
        )
    logger.warning("%s; going on all the same (TRAIN.FORCE_RESUME)", text)


def refuse_other_validation(cfg: CfgNode, checkpoint: Checkpoint) -> None:
    """Refuse to go on choosing the best epoch among errors that were not found in the same way.

    Args:
        cfg: the resolved configuration of this run.
        checkpoint: of OUTPUT_DIR, whose log has the errors.

    Raises:
        ValueError: naming the keys that differ, and their values.
    """
    if not (cfg.TRAIN.KEEP_BEST and checkpoint.is_ours and checkpoint.cfg):
        return
    changed = changed_validation_keys(checkpoint.cfg, cfg)
    if changed:
        text = "; ".join(f"{key} was {then!r}, is {now!r}" for key, (then, now) in changed.items())
        raise ValueError(
            f"{checkpoint.path}: TRAIN.KEEP_BEST cannot compare epochs that were validated in different ways: {text}. "
            "Set them back, take another OUTPUT_DIR, or, to test what was trained, TRAIN.ENABLE False"
        )


def _raw_clip(cfg: CfgNode, method: nn.Module) -> RawClip:
    """Raw CLIP of TRAIN.CLIP_ORI_PATH, or the one that the method was built from."""
    source = cfg.TRAIN.CLIP_ORI_PATH
    if not source:
        logger.info("TRAIN.LINEAR_CONNECT_CLIMB: raw CLIP is the CLIP that the model was built from")
        return RawClip(method, clip_parameters(method), source="TRAIN.LINEAR_CONNECT_CLIMB")
    weights = _named_clip(cfg, method, key="TRAIN.CLIP_ORI_PATH", source=source)
    return RawClip(method, weights, source=f"TRAIN.CLIP_ORI_PATH: {source}")


def _named_clip(cfg: CfgNode, method: nn.Module, *, key: str, source: str) -> dict[str, Tensor]:
    """Read the raw CLIP that a key names, for a method with the same activation.

    Raises:
        ValueError: naming the key, if it is not usable.
    """
    try:
        clip = read_clip(
            source,
            cache_dir=cfg.MODEL.CLIP_CACHE_DIR or None,
            allow_torchscript=cfg.MODEL.CLIP_ALLOW_TORCHSCRIPT,
        )
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    check_activation(method, clip.activation, source=f"{key}: {source}")
    return clip.state


def read_named_checkpoint(cfg: CfgNode, source: str | Path) -> Checkpoint:
    """Read a checkpoint as the configuration wants its names and its container.

    Raises:
        ValueError: if the file is missing, damaged, something else, or not allowed.
    """
    return read_checkpoint(
        source,
        clear_name_patterns=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN,
        allow_torchscript=cfg.MODEL.CLIP_ALLOW_TORCHSCRIPT,
    )


def load_test_weights(cfg: CfgNode, method: Method) -> Path | None:
    """Load the weights that a test scores into a method; of several TEST.PATCHING_RATIOS, those of the first.

    Returns:
        The file, or None for CLIP as it was built.

    Raises:
        ValueError: if the file is not usable.
    """
    weights = read_test_weights(cfg, method)
    if weights.ratios:
        weights.load(weights.ratios[0])
    return weights.path


def read_test_weights(cfg: CfgNode, method: Method) -> TestWeights:
    """Read the weights that a test scores, and load them unless raw CLIP is to be mixed in by TEST.PATCHING_RATIOS.

    The order is the published one: TEST.CUSTOM_LOAD_FILE if TEST.CUSTOM_LOAD, mixed with raw CLIP if
    TEST.PATCHING_MODEL; else TEST.CHECKPOINT_FILE_PATH, the last checkpoint of OUTPUT_DIR or, with TRAIN.KEEP_BEST, the
    best, TRAIN.CHECKPOINT_FILE_PATH, and CLIP as it was built.

    Args:
        cfg: the resolved configuration.
        method: as it was built: where TEST.PATCHING_RATIOS needs raw CLIP and TEST.CLIP_ORI_PATH names none, it is
            what the method holds now.

    Raises:
        ValueError: if the file is not usable.
    """
    test, source = cfg.TEST, None
    if test.CUSTOM_LOAD:
        source = test.CUSTOM_LOAD_FILE
    else:
        if test.CUSTOM_LOAD_FILE:
            logger.warning("TEST.CUSTOM_LOAD_FILE has no effect without TEST.CUSTOM_LOAD True: it is not read")
        if test.PATCHING_MODEL:
            logger.warning("TEST.PATCHING_MODEL has no effect without TEST.CUSTOM_LOAD: no raw CLIP is mixed in")
        source = (
            test.CHECKPOINT_FILE_PATH
            or find_tested(cfg.OUTPUT_DIR, task=cfg.TASK, best=cfg.TRAIN.KEEP_BEST)
            or cfg.TRAIN.CHECKPOINT_FILE_PATH
        )
    if not source:
        if method.needs_weights:
            raise ValueError(
                f"{method.needs_weights} where no weights are named, and OUTPUT_DIR holds none; allowed: "
                "TEST.CHECKPOINT_FILE_PATH, or TEST.CUSTOM_LOAD_FILE with TEST.CUSTOM_LOAD True"
            )
        logger.info("Testing CLIP as it was built: no checkpoint is named, and OUTPUT_DIR holds none")
        if test.PATCHING_RATIOS:
            logger.warning("TEST.PATCHING_RATIOS has no effect: there are no weights to mix raw CLIP into")
        tell_licenses(binding_licenses([cfg.MODEL.CLIP_WEIGHTS]))
        return TestWeights(method=method, path=None)
    checkpoint = read_named_checkpoint(cfg, source)
    if Path(source).name == best_path(cfg.OUTPUT_DIR, task=cfg.TASK).name and checkpoint.epoch is not None:
        logger.info("%s is the checkpoint of epoch %d", source, checkpoint.epoch + 1)
    state = checkpoint.model_state
    mixes = bool(test.PATCHING_RATIOS) or (test.CUSTOM_LOAD and test.PATCHING_MODEL)
    clips = [cfg.MODEL.CLIP_WEIGHTS, test.CLIP_ORI_PATH if mixes else None]
    tell_licenses({str(source): checkpoint.license, **binding_licenses(clips)})
    if test.PATCHING_RATIOS:
        clip = _clip_to_mix(cfg, method)
        return TestWeights(
            method=method,
            path=Path(source),
            ratios=tuple(test.PATCHING_RATIOS),
            state=state,
            clip=clip | experts_like_clip(clip, [name.removeprefix(CLIP_PREFIX) for name in state]),
            activation=checkpoint.activation,
        )
    if test.CUSTOM_LOAD and test.PATCHING_MODEL:
        clip = _named_clip(cfg, method, key="TEST.CLIP_ORI_PATH", source=test.CLIP_ORI_PATH)
        clip |= experts_like_clip(clip, [name.removeprefix(CLIP_PREFIX) for name in state])
        state = patch_state(clip, state, ratio=test.PATCHING_RATIO)
        logger.info("Mixed raw CLIP into the weights, ratio %s", test.PATCHING_RATIO)
    load_into(method, state, source=source, activation=checkpoint.activation)
    return TestWeights(method=method, path=Path(source))


def _clip_to_mix(cfg: CfgNode, method: Method) -> dict[str, Tensor]:
    """Raw CLIP of TEST.CLIP_ORI_PATH, or the one that the method was built from, in the memory of the CPU."""
    source = cfg.TEST.CLIP_ORI_PATH
    if source:
        return _named_clip(cfg, method, key="TEST.CLIP_ORI_PATH", source=source)
    logger.info("TEST.PATCHING_RATIOS: raw CLIP is the CLIP that the model was built from")
    own = clip_tensors(method, source="TEST.PATCHING_RATIOS")
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in own.items()}
