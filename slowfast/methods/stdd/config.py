"""Options of STDD, read from the configuration once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slowfast.config.node import CfgNode

DistillationMode = Literal["intended", "published"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StddConfig:
    """Options of STDD beside those of its temporal module."""

    arch: str
    """MODEL.ARCH: a published CLIP, or "custom" for the sizes of the file in clip_weights."""
    clip_weights: str
    """MODEL.CLIP_WEIGHTS: a file, "random", or "" for the published archive of arch."""
    clip_cache_dir: str
    temporal_modeling_type: str | None
    loss_func: str
    distil: bool
    """Whether frozen CLIP is kept as a teacher."""
    distillation_mode: DistillationMode
    distillation_ratio: float
    """Weight of the distillation term, >= 0."""
    text_feature_file: str | None
    """File of prompt features, or None for the classifier made from templates."""
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    compile: bool
    seed: int

    def __post_init__(self) -> None:
        if self.distillation_mode not in ("intended", "published"):
            raise ValueError(
                f"MODEL.DISTILLATION_MODE: unknown value {self.distillation_mode!r}; allowed: intended, published"
            )
        if self.distillation_ratio < 0:
            raise ValueError(f"MODEL.DISTILLATION_RATIO: {self.distillation_ratio} is negative")
        for key, values in (("DATA.MEAN", self.pixel_mean), ("DATA.STD", self.pixel_std)):
            if len(values) != 3:
                raise ValueError(f"{key}: has {len(values)} values; expected 3 (red, green, blue)")

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> StddConfig:
        """Pick STDD's keys out of the configuration."""
        model, data = cfg.MODEL, cfg.DATA
        return cls(
            arch=model.ARCH,
            clip_weights=model.CLIP_WEIGHTS,
            clip_cache_dir=model.CLIP_CACHE_DIR,
            temporal_modeling_type=model.TEMPORAL_MODELING_TYPE,
            loss_func=model.LOSS_FUNC,
            distil=model.KEEP_RAW_MODEL and model.RAW_MODEL_DISTILLATION,
            distillation_mode=model.DISTILLATION_MODE,
            distillation_ratio=model.DISTILLATION_RATIO,
            text_feature_file=data.TEXT_AUG_FEATURE_FILE if data.TEXT_AUG else None,
            pixel_mean=tuple(data.MEAN),
            pixel_std=tuple(data.STD),
            compile=cfg.TRAIN.COMPILE,
            seed=cfg.RNG_SEED,
        )
