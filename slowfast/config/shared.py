"""What every method reads of the configuration: its CLIP, its pixels, its seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slowfast.config.node import CfgNode
from slowfast.config.values import EPISODE_PROTOCOLS

STDD_KEYS: dict[str, Any] = {
    "MODEL.TEMPORAL_MODELING_TYPE": None,
    "MODEL.RAW_MODEL_DISTILLATION": False,
    "MODEL.ENSEMBLE_PRED": False,
    "MODEL.TEXT_PROMPT": False,
    "MODEL.NUM_EXPERTS": 0,
    "DATA.TEXT_AUG": False,
    "TUNE_HEAD": False,
}
"""Keys of STDD that would change another method's model, and the value under which they do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOptions:
    """Options that methods have in common; those of a method follow them."""

    arch: str
    """MODEL.ARCH: a published CLIP, or "custom" for the sizes of the file in clip_weights."""
    clip_weights: str
    """MODEL.CLIP_WEIGHTS: a file, "random", or "" for the published archive of arch."""
    clip_cache_dir: str
    clip_allow_torchscript: bool
    """MODEL.CLIP_ALLOW_TORCHSCRIPT: read an archive that is none of the published ones."""
    activation: Literal["auto", "quick_gelu", "gelu"]
    """MODEL.CLIP_ACTIVATION: "auto" takes what the weight file says."""
    loss_func: str
    recompute: bool
    """Compute the inside of the blocks again in the backward pass instead of keeping it."""
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    compile: bool
    seed: int

    def __post_init__(self) -> None:
        for key, values in (("DATA.MEAN", self.pixel_mean), ("DATA.STD", self.pixel_std)):
            if len(values) != 3:
                raise ValueError(f"{key}: has {len(values)} values; expected 3 (red, green, blue)")


def clip_options(cfg: CfgNode) -> dict[str, Any]:
    """Pick the options that methods have in common, by the names of `ClipOptions`."""
    model, data = cfg.MODEL, cfg.DATA
    return {
        "arch": model.ARCH,
        "clip_weights": model.CLIP_WEIGHTS,
        "clip_cache_dir": model.CLIP_CACHE_DIR,
        "clip_allow_torchscript": model.CLIP_ALLOW_TORCHSCRIPT,
        "activation": model.CLIP_ACTIVATION,
        "loss_func": model.LOSS_FUNC,
        "recompute": model.USE_CHECKPOINT,
        "pixel_mean": tuple(data.MEAN),
        "pixel_std": tuple(data.STD),
        "compile": cfg.TRAIN.COMPILE,
        "seed": cfg.RNG_SEED,
    }


def scores_episodes(cfg: CfgNode) -> bool:
    """Whether tests are of episodes, not of single videos."""
    return cfg.PROTOCOL in EPISODE_PROTOCOLS


def refuse_foreign(cfg: CfgNode, foreign: Mapping[str, Any]) -> None:
    """Refuse keys that would change the model under another method, and would do nothing under this one.

    Args:
        cfg: the configuration.
        foreign: key -> the value under which it changes nothing.

    Raises:
        ValueError: naming the first key with another value.
    """
    leaves = cfg.leaves()
    for key, value in foreign.items():
        if leaves[key] != value:
            raise ValueError(f"{key}: {leaves[key]!r} does nothing under METHOD {cfg.METHOD!r}; allowed: {value!r}")
