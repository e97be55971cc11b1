"""Scores of a split: collect them per view, gather them over processes, merge the views of each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from slowfast.utils.distributed import all_gather_objects

Merge = Literal["sum", "max"]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Merged scores of the videos of a split, in the order of its csv."""

    video_id: Tensor
    """Rows of the csv, (V,), int64, increasing."""
    logits: Tensor
    """Scores merged over views, (V, K), fp32."""
    label: Tensor
    """Class numbers, (V,), int64."""
    num_expected: int
    """Videos that the split lists."""
    bad: tuple[str, ...] = ()
    """One line for each video that could not be decoded."""


@dataclass(frozen=True)
class PredictionCollector:
    """Collects the scores of single views on the CPU."""

    video_id: list[Tensor] = field(default_factory=list)
    view: list[Tensor] = field(default_factory=list)
    label: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def add(self, *, video_id: Tensor, view: Tensor, label: Tensor, logits: Tensor) -> None:
        """Add the scores of N views: video_id, view, label (N,), logits (N, K)."""
        for name, value in (("video_id", video_id), ("view", view), ("label", label), ("logits", logits.float())):
            getattr(self, name).append(value.cpu())

    def merge(self, *, num_expected: int, num_classes: int, method: Merge = "sum") -> Predictions:
        """Gather the scores of all processes and merge the views of each video.

        The result does not depend on how views were spread over batches and processes: they are sorted first.

        Args:
            num_expected: videos that the split lists.
            num_classes: K.
            method: "sum" of the logits, or their element-wise "max" (DATA.ENSEMBLE_METHOD).

        Returns:
            The same predictions on every process.

        Raises:
            ValueError: if the method is unknown.
        """
        if method not in ("sum", "max"):
            raise ValueError(f"DATA.ENSEMBLE_METHOD: unknown value {method!r}; allowed: sum, max")
        own = (
            _join(self.video_id, torch.long),
            _join(self.view, torch.long),
            _join(self.label, torch.long),
            torch.cat(self.logits) if self.logits else torch.empty(0, num_classes),
            list(self.bad),
        )
        gathered = all_gather_objects(own)
        video_id = torch.cat([part[0] for part in gathered])
        view = torch.cat([part[1] for part in gathered])
        label = torch.cat([part[2] for part in gathered])
        logits = torch.cat([part[3] for part in gathered])
        order = torch.argsort(video_id * (int(view.max()) + 1 if len(view) else 1) + view)
        unique, slot = torch.unique(video_id[order], return_inverse=True)
        merged = torch.zeros(len(unique), num_classes)
        rows = slot[:, None].expand(-1, num_classes)
        if method == "sum":
            merged.scatter_add_(0, rows, logits[order])
        else:
            merged.scatter_reduce_(0, rows, logits[order], reduce="amax", include_self=False)
        video_label = torch.zeros(len(unique), dtype=torch.long).scatter_(0, slot, label[order])
        return Predictions(
            video_id=unique,
            logits=merged,
            label=video_label,
            num_expected=num_expected,
            bad=tuple(sorted({line for part in gathered for line in part[4]})),
        )


def _join(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat(list(tensors)) if tensors else torch.empty(0, dtype=dtype)
