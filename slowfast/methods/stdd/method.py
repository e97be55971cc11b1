"""STDD: CLIP with space-time cross attention, prompt-set text and distillation from frozen CLIP.

The plain baseline and the other temporal modules are configurations of this method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.stdd.distillation import FrameDistillation, residual_projector
from slowfast.models.build import freeze
from slowfast.models.clip.model import CLIP
from slowfast.models.losses import Loss
from slowfast.models.similarity import class_logits, unit_norm
from slowfast.text.text_bank import TextBank


class STDD(Method):
    """The tuned CLIP, a fixed text classifier and, optionally, a frozen CLIP as teacher.

    Args:
        clip: the model to tune; its text tower is frozen, since the classifier is computed once.
        loss: classification loss, (B, K) and (B,) -> scalar.
        teacher: frozen CLIP, or None without distillation.
        distillation: the distillation term, or None.
        pixel_mean: mean of the training images, RGB, in [0, 1].
        pixel_std: their standard deviation.

    Source: STDD (AAAI 2025); README.md beside this file maps equations to functions.
    """

    transient_prefixes: ClassVar[tuple[str, ...]] = ("raw_model.",)
    optional_prefixes: ClassVar[tuple[str, ...]] = ("projector_v.",)
    text_features: Tensor

    def __init__(
        self,
        clip: CLIP,
        *,
        loss: Loss,
        teacher: CLIP | None,
        distillation: FrameDistillation | None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.model = clip
        self.loss = loss
        self.distillation = distillation if distillation is not None and distillation.active else None
        self.raw_model = teacher if self.distillation is not None else None
        if self.raw_model is not None:
            freeze(self.raw_model)
        # Official checkpoints always carry the projector, so it exists even where nothing trains it.
        self.projector_v = residual_projector(clip.sizes.embed_dim)
        self.projector_v.requires_grad_(requires_grad=self.distillation is not None)
        for parameter in clip.text_parameters():
            parameter.requires_grad = False
        self.register_buffer("text_features", torch.empty(0, clip.sizes.embed_dim), persistent=False)

    def train(self, mode: bool = True) -> STDD:
        """Switch the mode of everything but the teacher, which stays in evaluation mode."""
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
        self.text_features = bank.features.to(self.text_features.device)

    def training_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch and compute its losses; frames (B, 3, T, H, W) -> logits (B, K)."""
        frames = self.normalise(batch.frames)
        video = unit_norm(self.model.encode_video(frames))
        logits = self._logits(video)
        losses = {"classification": self.loss(logits, batch.label)}
        if self.distillation is not None:
            assert self.raw_model is not None
            losses |= self.distillation.losses(video, frames, projector=self.projector_v, teacher=self.raw_model)
        return MethodOutput(logits, losses, {"logit_scale": self.model.logit_scale.detach().exp()})

    def eval_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch; frames (B, 3, T, H, W) -> logits (B, K)."""
        video = unit_norm(self.model.encode_video(self.normalise(batch.frames)))
        return MethodOutput(self._logits(video), {}, {})

    def _logits(self, video: Tensor) -> Tensor:
        return class_logits(video, self.text_features, self.model.logit_scale.exp())
