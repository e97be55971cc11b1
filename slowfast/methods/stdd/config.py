"""Options of STDD, read from the configuration once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slowfast.config.node import CfgNode
from slowfast.config.shared import ClipOptions, clip_options

FIXED_TYPES: dict[str, str | None] = {"BasicClipVideo": None}
"""MODEL.MODEL_NAME -> the temporal module that the name implies, whatever MODEL.TEMPORAL_MODELING_TYPE says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StddConfig(ClipOptions):
    """Options of STDD beside those of its temporal module."""

    temporal_modeling_type: str | None
    distillation: str | None
    """Entry of DISTILLATIONS, or None."""
    distillation_ratio: float
    """Weight of the distillation terms, >= 0."""
    ensemble_ratio: float
    """Share of frozen CLIP's scores in evaluation, in [0, 1]."""
    text_feature_file: str | None
    """File of prompt features, or None for the classifier made from templates."""
    rephrased: bool
    """Whether class names are rephrased, "Name: sentence", which fills the templates in FROSTER's way."""
    tune_head: bool
    """Learn the class embeddings themselves."""
    num_context: int
    """Learned context vectors before the class names; 0 for none."""
    num_experts: int
    expert_layers: tuple[int, ...]
    routing_type: Literal["patch-level", "image-level"]
    record_routing: bool
    """Add the routing loss, whose numbers follow."""
    routing_target: float
    routing_factor: float
    routing_kind: Literal["mse", "hinge"]
    classification_ratio: float

    def __post_init__(self) -> None:
        ClipOptions.__post_init__(self)
        if self.distillation_ratio < 0:
            raise ValueError(f"MODEL.DISTILLATION_RATIO: {self.distillation_ratio} is negative")
        if not 0 <= self.ensemble_ratio <= 1:
            raise ValueError(f"MODEL.ENSEMBLE_RAWMODEL_RATIO: {self.ensemble_ratio} is outside [0, 1]")

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> StddConfig:
        """Pick STDD's keys out of the configuration."""
        model, data = cfg.MODEL, cfg.DATA
        distil = model.KEEP_RAW_MODEL and model.RAW_MODEL_DISTILLATION
        ensemble = model.KEEP_RAW_MODEL and model.ENSEMBLE_PRED
        return cls(
            **clip_options(cfg),
            temporal_modeling_type=FIXED_TYPES.get(model.MODEL_NAME, model.TEMPORAL_MODELING_TYPE),
            distillation=model.DISTILLATION_MODE if distil else None,
            distillation_ratio=model.DISTILLATION_RATIO,
            ensemble_ratio=model.ENSEMBLE_RAWMODEL_RATIO if ensemble else 0.0,
            text_feature_file=data.TEXT_AUG_FEATURE_FILE if data.TEXT_AUG else None,
            # Also where distillation is off, as in a test: the text is that of the training.
            rephrased=model.DISTILLATION_MODE == "froster",
            tune_head=cfg.TUNE_HEAD,
            num_context=model.PROMPT_NUM if model.TEXT_PROMPT else 0,
            num_experts=model.NUM_EXPERTS,
            expert_layers=tuple(model.EXPERT_INSERT_LAYERS),
            routing_type=model.ROUTING_TYPE,
            record_routing=model.RECORD_ROUTING,
            routing_target=model.ROUTING_FREQUENCE_CONSTRAIN,
            routing_factor=model.ROUTING_FREQ_CONS_FACTOR,
            routing_kind=model.LOSS_FREQ_TYPE,
            classification_ratio=model.CLS_LOSS_RATIO,
        )
