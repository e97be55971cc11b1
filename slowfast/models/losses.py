"""Classification losses by the name that MODEL.LOSS_FUNC gives them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def soft_cross_entropy(logits: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross entropy against class numbers or against a distribution over classes.

    Args:
        logits: scores, (B, K).
        target: class numbers, (B,), or weights, (B, K); weights are taken as they are, not normalised.
        reduction: "mean" over the batch or "none".

    Returns:
        Scalar, or (B,) without reduction; nats.

    Raises:
        ValueError: if reduction is unknown.
    """
    if target.ndim == 1:
        loss = F.cross_entropy(logits, target, reduction="none")
    else:
        loss = -(target * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
    if reduction == "mean":
        return loss.mean()
    if reduction == "none":
        return loss
    raise ValueError(f"reduction: unknown value {reduction!r}; allowed: mean, none")


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy averaged over the batch, (B, K) and (B,) -> scalar, nats."""
    return F.cross_entropy(logits, target)


LOSSES: dict[str, str] = {
    "cross_entropy": "slowfast.models.losses:cross_entropy",
    "soft_cross_entropy": "slowfast.models.losses:soft_cross_entropy",
}
"""MODEL.LOSS_FUNC -> loss function."""
