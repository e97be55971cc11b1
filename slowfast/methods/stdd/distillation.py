"""Distillation of frozen CLIP's frame embeddings into the tuned model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slowfast.methods.stdd.config import DistillationMode
from slowfast.models.clip.model import CLIP
from slowfast.models.similarity import mean_cosine_distance, unit_norm

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


def student_embedding(video: Tensor, projector: nn.Module) -> Tensor:
    """Add the projector's residual, (B, T, E) unit norm -> (B, T, E)."""
    return video + RESIDUAL_WEIGHT * projector(video)


class FrameDistillation:
    """Keeps the tuned model's frame embeddings near those of a frozen CLIP.

    Args:
        mode: "intended" trains the model and the projector through the term. "published" reproduces the official
            code, where the term is a constant: it is left out together with the teacher's forward, which gives the
            same gradients.
        ratio: weight of the term.
    """

    def __init__(self, *, mode: DistillationMode, ratio: float) -> None:
        self.active = mode == "intended" and ratio > 0
        self.ratio = ratio

    def losses(self, video: Tensor, frames: Tensor, *, projector: nn.Module, teacher: CLIP) -> dict[str, Tensor]:
        """Compute the loss term.

        Args:
            video: the tuned model's frame embeddings, unit norm, (B, T, E).
            frames: the frames they come from, normalised, (B, 3, T, H, W).
            projector: residual projector.
            teacher: frozen CLIP.

        Returns:
            The term under its name, weight applied.

        Source: STDD (AAAI 2025), distillation loss: ratio * (1 - mean cosine).
        """
        with torch.no_grad():
            target = unit_norm(teacher.encode_video(frames))
        return {"distillation": self.ratio * mean_cosine_distance(student_embedding(video, projector), target)}
