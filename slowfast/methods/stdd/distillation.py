"""Distillation of frozen CLIP into the tuned model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.methods.stdd.text_head import ClassText
from slowfast.models.clip.model import CLIP
from slowfast.models.similarity import class_logits, mean_cosine_distance, unit_norm

RESIDUAL_WEIGHT = 0.1
"""Share of the projector in the student embedding (FROSTER)."""


def residual_projector(embed_dim: int) -> nn.Sequential:
    """Two linear layers around a GELU, the last one zero, so that distillation starts at the embedding itself.

    Args:
        embed_dim: width of the joint space, E.

    Returns:
        A module (..., E) -> (..., E).

    Source: FROSTER (ICLR 2024), residual feature distillation.
    """
    first, last = (nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(2))
    nn.init.kaiming_normal_(first.weight)
    nn.init.zeros_(last.weight)
    return nn.Sequential(first, nn.GELU(), last)


def student_embedding(embedding: Tensor, projector: nn.Module) -> Tensor:
    """Add the projector's residual, (..., E) unit norm -> (..., E)."""
    return embedding + RESIDUAL_WEIGHT * projector(embedding)


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """What a training forward of the tuned model has computed."""

    frames: Tensor
    """Normalised frames, (B, 3, T, H, W)."""
    video: Tensor
    """Frame embeddings, unit norm, (B, T, E)."""
    text: ClassText
    logits: Tensor
    """Scores, (B, K)."""
    scale: Tensor
    """Factor of the cosine, scalar."""


class Distillation(ABC):
    """A term of the loss that compares the tuned model with a frozen CLIP.

    Args:
        ratio: weight of the term, >= 0.
    """

    projects_frames: ClassVar[bool] = False
    """Whether the projector of frame embeddings (projector_v) takes part."""
    projects_text: ClassVar[bool] = False
    """Whether there is a projector of class embeddings (projector_t)."""
    tunes_text: ClassVar[bool] = False
    """Whether the text tower trains."""

    def __init__(self, *, ratio: float) -> None:
        self.ratio = ratio

    @property
    def active(self) -> bool:
        """Whether there is anything to compute, and so a teacher to keep."""
        return self.ratio > 0

    @abstractmethod
    def losses(
        self, student: Student, *, teacher: CLIP, projector_v: nn.Module, projector_t: nn.Module | None
    ) -> dict[str, Tensor]:
        """Compute the terms.

        Args:
            student: the tuned model's forward.
            teacher: frozen CLIP.
            projector_v: residual projector of frame embeddings.
            projector_t: residual projector of class embeddings, None unless `projects_text`.

        Returns:
            The terms by name, weight applied.
        """


class FrameDistillation(Distillation):
    """Keeps frame embeddings near those of frozen CLIP; gradients reach the model and the projector.

    Source: STDD (AAAI 2025), distillation loss: ratio * (1 - mean cosine).
    """

    projects_frames: ClassVar[bool] = True

    def losses(
        self, student: Student, *, teacher: CLIP, projector_v: nn.Module, projector_t: nn.Module | None
    ) -> dict[str, Tensor]:
        """Compare the frames of one batch."""
        del projector_t
        target = frozen_frames(teacher, student.frames)
        projected = student_embedding(student.video, projector_v)
        return {"distillation": self.ratio * mean_cosine_distance(projected, target)}


class ConstantDistillation(Distillation):
    """The published code's distillation, whose term is a constant.

    It is left out together with the teacher's forward, which gives the same gradients.
    """

    @property
    def active(self) -> bool:
        """Never."""
        return False

    def losses(
        self, student: Student, *, teacher: CLIP, projector_v: nn.Module, projector_t: nn.Module | None
    ) -> dict[str, Tensor]:
        """No term."""
        del student, teacher, projector_v, projector_t
        return {}


class FrameTextDistillation(FrameDistillation):
    """Keeps frame embeddings and the embeddings of a tuned text tower near those of frozen CLIP.

    Source: FROSTER (ICLR 2024).
    """

    projects_text: ClassVar[bool] = True
    tunes_text: ClassVar[bool] = True

    def losses(
        self, student: Student, *, teacher: CLIP, projector_v: nn.Module, projector_t: nn.Module | None
    ) -> dict[str, Tensor]:
        """Compare the frames of one batch and the texts of all classes."""
        assert projector_t is not None
        assert student.text.raw is not None
        terms = super().losses(student, teacher=teacher, projector_v=projector_v, projector_t=None)
        projected = student_embedding(student.text.features, projector_t)
        return terms | {"text_distillation": self.ratio * mean_cosine_distance(projected, student.text.raw)}


class LogitDistillation(Distillation):
    """Keeps class probabilities near those that frozen CLIP's frames get from the same classifier.

    Source: published code of Open-VCLIP: KL divergence at temperature 1, over the number of scores B * K.
    """

    def losses(
        self, student: Student, *, teacher: CLIP, projector_v: nn.Module, projector_t: nn.Module | None
    ) -> dict[str, Tensor]:
        """Compare the scores of one batch."""
        del projector_v, projector_t
        with torch.no_grad():
            raw, text = frozen_frames(teacher, student.frames), student.text
            target = class_logits(raw, text.features, student.scale, text.mask)
        divergence = F.kl_div(
            torch.log_softmax(student.logits, dim=-1),
            torch.log_softmax(target, dim=-1),
            reduction="sum",
            log_target=True,
        )
        return {"distillation": self.ratio * divergence / student.logits.numel()}


def frozen_frames(teacher: CLIP, frames: Tensor) -> Tensor:
    """Frame embeddings of frozen CLIP, unit norm, without gradient, (B, 3, T, H, W) -> (B, T, E)."""
    with torch.no_grad():
        return unit_norm(teacher.encode_video(frames))
