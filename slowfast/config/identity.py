"""What a configuration says of the numbers: which keys matter to them, and in which keys two runs differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.legacy import inert_defaults
from slowfast.config.node import CfgNode, ConfigError
from slowfast.config.redaction import redact

_NO_MATTER = {
    "OUTPUT_DIR": "",
    "NUM_GPUS": 0,
    "NUM_SHARDS": 1,
    "SHARD_ID": 0,
    "DIST_BACKEND": "nccl",
    "DIST_TIMEOUT_MINUTES": 30.0,
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "DATA_LOADER.NUM_WORKERS": 0,
    "DATA_LOADER.TIMEOUT_SECONDS": 900,
    "DATA.CACHE_DIR": "",
    "DATA.CACHE_GB": 0.0,
    "MODEL.CLIP_CACHE_DIR": "",
    "MODEL.CLIP_ALLOW_TORCHSCRIPT": False,
    "DATA.ALLOW_ABSOLUTE_PATHS": False,
    "SPLITS.LABEL_DB": "label_db",
    "EPISODES.MEMO_GB": 0.0,
    "DATA.TEXT_AUG_FEATURE_FILE": "",
    "OST.DES_SPATIAL": "",
    "OST.DES_TEMPORAL": "",
    "OST.DES_CLASSES": "",
    "TRAIN.CUSTOM_LOAD_FILE": None,
    "TEST.CUSTOM_LOAD_FILE": None,
}
"""Keys that change nothing about the numbers, but for rounding: a run that continues may do so elsewhere.

Of files the content counts, and whoever compares hashes compares that too.
"""

_NOT_OF_TRAINING = (
    "TEST.",
    "DEMO.",
    "AVERAGE.",
    "TENSORBOARD.",
    "VAL_MODE",
    "TASK",
    "DETERMINISTIC",
    "PROTOCOL",
    "SPLITS.",
    "EPISODES.BENCHMARK",
    "EPISODES.WAY_TEST",
    "EPISODES.SHOT_TEST",
    "EPISODES.QUERY_TEST",
    "EPISODES.NUM_VAL",
    "EPISODES.NUM_TEST",
    "EPISODES.SEED",
    "EPISODES.VAL",
    "EPISODES.HEAD",
    "EPISODES.TEST_FRAMES",
    "CLIP_FSAR.EVAL_TEXT",
    "CLIP_FSAR.COMBINE",
    "CLIP_FSAR.TEXT_COFF",
    "TRAIN_FILE",
    "VAL_FILE",
    "TEST_FILE",
    "DATA_LOADER.",
    "DATA.USE_OFFSET_SAMPLING",
    "DATA.PATH_TO_DATA_DIR",
    "DATA.PATH_PREFIX",
    "DATA.INDEX_LABEL_MAPPING_FILE",
    "DATA.MAX_BAD_FRACTION",
    "DATA.TEST_CROP_SIZE",
    "DATA.ENSEMBLE_METHOD",
    "DATA.REVERSE_FRAMES",
    "MODEL.NUM_CLASSES",
    "MODEL.CLIP_WEIGHTS",
    "MODEL.TEMPORAL_SHUFFLE_EVAL",
    "MODEL.USE_CHECKPOINT",
    "MODEL.STATIC_GRAPH",
    "MODEL.ENSEMBLE_",
    "TRAIN.COMPILE",
    "TRAIN.ENABLE",
    "TRAIN.EVAL_PERIOD",
    "TRAIN.CHECKPOINT_",
    "TRAIN.KEEP_LAST_",
    "TRAIN.KEEP_BEST",
    "TRAIN.AUTO_RESUME",
    "TRAIN.FORCE_RESUME",
    "TRAIN.CUSTOM_LOAD",
    "TRAIN.CLIP_ORI_PATH",
    "TRAIN.NONFINITE_BUDGET",
    "TRAIN.KILL_LOSS_EXPLOSION_FACTOR",
)
"""Beginnings of further keys that change nothing about a training: where its files lie, what is reported, kept, tested.

The content of the files counts all the same, as a hash beside the configuration (`engine.build.training_inputs`).
"""


_OF_VALIDATION = (
    "PROTOCOL",
    "VAL_FILE",
    "EPISODES.BENCHMARK",
    "EPISODES.WAY_TEST",
    "EPISODES.SHOT_TEST",
    "EPISODES.QUERY_TEST",
    "EPISODES.NUM_VAL",
    "EPISODES.SEED",
    "EPISODES.VAL",
    "EPISODES.HEAD",
    "CLIP_FSAR.EVAL_TEXT",
    "CLIP_FSAR.COMBINE",
    "CLIP_FSAR.TEXT_COFF",
)
"""Keys that say what a training is validated on and how, so that errors under other values are not comparable."""


def cfg_to_yaml(cfg: CfgNode) -> str:
    """Write a configuration as YAML; loading the text gives the same configuration, but for secrets in its values."""
    values = _without_secrets(cfg.to_dict())
    return str(yaml.dump(values, Dumper=_ConfigDumper, sort_keys=True, width=10**6, allow_unicode=True))


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 - a tree of plain values
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(inner) for inner in value]
    return value


class _ConfigDumper(yaml.SafeDumper):
    """Writes sections as blocks and each list on the line of its key."""


def _inline(dumper: yaml.SafeDumper, values: Any) -> yaml.Node:  # noqa: ANN401 - a list or a tuple
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_ConfigDumper.add_representer(list, _inline)
_ConfigDumper.add_representer(tuple, _inline)


def cfg_hash(cfg: CfgNode) -> str:
    """Return the sha256, in hexadecimal, of a configuration's YAML text; equal trees have equal hashes."""
    return hashlib.sha256(cfg_to_yaml(cfg).encode("utf-8")).hexdigest()


def numbers_config(cfg: CfgNode) -> CfgNode:
    """Return a copy of a configuration in which the keys that say where and how fast it runs have fixed values."""
    changed = cfg.clone()
    changed.defrost()
    for key, value in _NO_MATTER.items():
        changed.merge_from_list([key, value])
    return changed


def numbers_hash(cfg: CfgNode) -> str:
    """Return the hash of a configuration without the keys that say where and how fast it runs."""
    return cfg_hash(numbers_config(cfg))


def training_config(cfg: CfgNode) -> CfgNode:
    """Return a copy in which only what a training depends on is as in `cfg`; the batch is that of all machines."""
    changed = numbers_config(cfg)
    changed.TRAIN.BATCH_SIZE = cfg.TRAIN.BATCH_SIZE * cfg.NUM_SHARDS
    inert = inert_defaults()
    for key, value in get_cfg().leaves().items():
        if key.startswith(_NOT_OF_TRAINING) or key in inert:
            changed.merge_from_list([key, value])
    return changed


def changed_training_keys(recorded: str, cfg: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Compare a run with the configuration that a checkpoint holds.

    Args:
        recorded: YAML text, as `cfg_to_yaml` writes it; keys that do not exist any more are passed over.
        cfg: the configuration of this run.

    Returns:
        The keys that would make it another training: key -> (value then, value now).

    Raises:
        ConfigError: if the text is not a configuration.
    """
    then, now = (training_config(each).leaves() for each in (config_of_text(recorded), cfg))
    return {key: (then[key], now[key]) for key in now if then[key] != now[key]}


def changed_validation_keys(recorded: str, cfg: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Compare how two runs validate, as `changed_training_keys` compares how they train."""
    then, now = (each.leaves() for each in (config_of_text(recorded), cfg))
    return {key: (then[key], now[key]) for key in _OF_VALIDATION if then[key] != now[key]}


def config_of_text(text: str) -> CfgNode:
    """Read the configuration that a file of ours holds; keys that do not exist any more are passed over.

    Args:
        text: YAML, as `cfg_to_yaml` writes it.

    Raises:
        ConfigError: if the text is not a configuration.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"expected a mapping of keys to values, found {type(values).__name__}")
    cfg = get_cfg()
    known = cfg.leaves()
    cfg.merge_from_other_cfg(_select(values, lambda key: key in known))
    return assert_and_infer_cfg(cfg)


def _select(values: Mapping[str, Any], wanted: Callable[[str], bool], prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested mapping whose dotted names are wanted."""
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            chosen[name] = _select(value, wanted, f"{prefix}{name}.")
        elif wanted(f"{prefix}{name}"):
            chosen[name] = value
    return {name: value for name, value in chosen.items() if value != {}}
