"""Figures of merit as pure functions of scores and labels."""

from __future__ import annotations

import torch
from torch import Tensor


def topk_accuracy(logits: Tensor, label: Tensor, *, k: int) -> float:
    """Share of videos whose label is among the k best classes.

    Args:
        logits: scores, (V, K).
        label: class numbers, (V,).
        k: how many classes count; more than K means K.

    Returns:
        Percent, [0, 100]; 0 if there is no video.
    """
    return 100.0 * topk_correct(logits, label, k=k).double().mean().item() if len(label) else 0.0


def topk_correct(logits: Tensor, label: Tensor, *, k: int) -> Tensor:
    """Whether each label is among the k best classes, (V, K) and (V,) -> bool (V,)."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == label[:, None]).any(dim=1)


def mean_class_accuracy(logits: Tensor, label: Tensor) -> float:
    """Top-1 accuracy averaged over the classes that occur.

    Args:
        logits: scores, (V, K).
        label: class numbers, (V,).

    Returns:
        Percent, [0, 100]; 0 if there is no video.
    """
    if not len(label):
        return 0.0
    correct = topk_correct(logits, label, k=1).double()
    per_class = [correct[label == number].mean() for number in label.unique()]
    return 100.0 * torch.stack(per_class).mean().item()


def confusion_matrix(logits: Tensor, label: Tensor) -> Tensor:
    """Count videos by true class (row) and best-scored class (column), (V, K) and (V,) -> int64 (K, K)."""
    num_classes = logits.shape[1]
    cells = label * num_classes + logits.argmax(dim=1)
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)
