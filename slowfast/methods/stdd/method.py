"""STDD: CLIP with space-time cross attention, prompt-set text and distillation from frozen CLIP.

The plain baseline, the other temporal modules, Open-VCLIP and FROSTER are configurations of this method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.explanation import Explanation, looking
from slowfast.methods.stdd.distillation import Distillation, Student, frozen_frames, residual_projector
from slowfast.methods.stdd.text_head import TextHead
from slowfast.methods.tower_views import patch_views
from slowfast.models.build import freeze
from slowfast.models.clip.experts import record_routing, routing_penalty, take_routing
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.vision import VisionTransformer
from slowfast.models.losses import Loss
from slowfast.models.names import hoist
from slowfast.models.similarity import class_logits, unit_norm
from slowfast.text.text_bank import TextBank


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutingLoss:
    """Weighs how a mixture of experts spreads its tokens (MODEL.RECORD_ROUTING)."""

    target: float
    """Wanted share of the block's own feed-forward part, in [0, 1]."""
    factor: float
    """Weight of the term, >= 0."""
    kind: Literal["mse", "hinge"]
    classification_ratio: float
    """Weight of the classification loss beside it, >= 0."""


class STDD(Method):
    """The tuned CLIP, its class embeddings and, optionally, a frozen CLIP to distil from or to ensemble with.

    Args:
        clip: the model to tune; its text tower is frozen unless the distillation tunes it.
        text: where the class embeddings come from.
        loss: classification loss, (B, K) and (B,) or (B, K) -> scalar.
        raw_model: frozen CLIP; needed by an active distillation and by an ensemble.
        distillation: a term of the loss against frozen CLIP, or None.
        ensemble_ratio: share of frozen CLIP's scores in evaluation, in [0, 1].
        routing: loss of the mixtures of experts, or None.
        pixel_mean: mean of the training images, RGB, in [0, 1].
        pixel_std: their standard deviation.

    Source: STDD (AAAI 2025); README.md beside this file maps equations to functions.
    """

    transient_prefixes = ("raw_model.",)
    optional_prefixes = ("projector_v.", "projector_t.")

    def __init__(
        self,
        clip: CLIP,
        *,
        text: TextHead,
        loss: Loss,
        raw_model: CLIP | None = None,
        distillation: Distillation | None = None,
        ensemble_ratio: float = 0.0,
        routing: RoutingLoss | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.model = clip
        self.text = text
        hoist(self, "text")
        self.loss = loss
        self.distillation = distillation if distillation is not None and distillation.active else None
        self.ensemble_ratio = ensemble_ratio
        self.raw_model = raw_model
        if self.raw_model is not None:
            freeze(self.raw_model)
        # Official checkpoints always carry this projector, so it exists even where nothing trains it.
        self.projector_v = residual_projector(clip.sizes.embed_dim)
        projects_frames = self.distillation is not None and self.distillation.projects_frames
        self.projector_v.requires_grad_(requires_grad=projects_frames)
        projects_text = self.distillation is not None and self.distillation.projects_text
        self.projector_t = residual_projector(clip.sizes.embed_dim) if projects_text else None
        tunes_text = distillation is not None and distillation.tunes_text  # also where its weight is 0
        for parameter in clip.text_parameters():
            parameter.requires_grad = tunes_text
        self.routing = routing
        if routing is not None:
            record_routing(clip)

    def train(self, mode: bool = True) -> STDD:
        """Switch the mode of everything but frozen CLIP, which stays in evaluation mode."""
        super().train(mode)
        if self.raw_model is not None:
            self.raw_model.eval()
        return self

    def set_label_set(self, label_set: LabelSet, bank: TextBank) -> None:
        """Choose the classes to score.

        Raises:
            ValueError: if the bank has another number of rows than there are classes.
        """
        if len(bank) != len(label_set):
            raise ValueError(f"text features have {len(bank)} rows, but the label set has {len(label_set)} classes")
        self.text.set_bank(bank, self.model)

    def training_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch and compute its losses; frames (B, 3, T, H, W) -> logits (B, K)."""
        frames = self.normalise(batch.frames)
        video, text = unit_norm(self.model.encode_video(frames)), self.text(self.model)
        scale = self.model.logit_scale.exp()
        logits = class_logits(video, text.features, scale, text.mask)
        losses = {"classification": self.loss(logits, batch.target)}
        if self.routing is not None:
            losses = self._with_routing(losses, self.routing)
        if self.distillation is not None:
            assert self.raw_model is not None
            losses |= self.distillation.losses(
                Student(frames=frames, video=video, text=text, logits=logits, scale=scale),
                teacher=self.raw_model,
                projector_v=self.projector_v,
                projector_t=self.projector_t,
            )
        return MethodOutput(logits, losses, {"logit_scale": scale.detach()})

    def _with_routing(self, losses: dict[str, Tensor], routing: RoutingLoss) -> dict[str, Tensor]:
        penalty = routing_penalty(take_routing(self.model), target=routing.target, kind=routing.kind)
        return {
            "classification": routing.classification_ratio * losses["classification"],
            "routing": routing.factor * penalty,
        }

    def eval_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch; frames (B, 3, T, H, W) -> logits (B, K)."""
        frames = self.normalise(batch.frames)
        text, scale = self.text(self.model), self.model.logit_scale.exp()
        logits = class_logits(unit_norm(self.model.encode_video(frames)), text.features, scale, text.mask)
        if self.ensemble_ratio > 0:
            assert self.raw_model is not None
            raw = class_logits(frozen_frames(self.raw_model, frames), text.features, scale, text.mask)
            logits = self.ensemble_ratio * raw + (1 - self.ensemble_ratio) * logits
        return MethodOutput(logits, {}, {})

    def frame_features(self, batch: VideoBatch) -> Tensor:
        """Embed the frames of clips, (B, T, E)."""
        return self.model.encode_video(self.normalise(batch.frames))

    def explain(self, batch: VideoBatch) -> list[Explanation]:
        """Look at the blocks of the tuned tower: attention to the patches, and which of them the mask keeps.

        Raises:
            ValueError: if the image tower is a ResNet.
        """
        tower = self.model.visual
        if not isinstance(tower, VisionTransformer):
            raise ValueError("DEMO.EXPLAIN: True, but a ResNet image tower has no patches to show; allowed: False")
        with looking(self):
            views = patch_views(tower, self.normalise(batch.frames))
        return [Explanation(patches=clip) for clip in views]
