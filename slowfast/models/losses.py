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
    """Cross entropy averaged over the batch, (B, K) and (B,) or weights (B, K) -> scalar, nats."""
    return F.cross_entropy(logits, target)


def bce_logit(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of every class on its own, averaged over samples and classes.

    Args:
        logits: scores, (B, K).
        target: class numbers, (B,), or weights in [0, 1], (B, K).

    Returns:
        Scalar, nats.
    """
    return F.binary_cross_entropy_with_logits(logits, class_weights(logits, target))


def mse(logits: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the scores to the target weights, averaged over samples and classes.

    Args:
        logits: scores, (B, K).
        target: class numbers, (B,), or weights, (B, K).

    Returns:
        Scalar.
    """
    return F.mse_loss(logits, class_weights(logits, target))


def nce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Divergence of the predicted distribution from the softmax of ten times the target.

    Args:
        logits: scores, (B, K).
        target: class numbers, (B,), or weights, (B, K).

    Returns:
        Scalar, nats: the mean over samples and classes times B, as published, so the sum over samples over K.

    Source: published code of Open-VCLIP, which STDD inherits.
    """
    wanted = torch.softmax(_NCE_SHARPNESS * class_weights(logits, target), dim=-1)
    return F.kl_div(torch.log_softmax(logits, dim=-1), wanted, reduction="sum") / logits.shape[-1]


_NCE_SHARPNESS = 10.0


def class_weights(logits: Tensor, target: Tensor) -> Tensor:
    """Class numbers as one-hot rows, (B,) -> (B, K) of the logits' dtype; weights (B, K) as they are."""
    if target.ndim == 1:
        return F.one_hot(target, logits.shape[-1]).to(logits.dtype)
    return target


def contrastive_divergence(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Divergence of in-batch matching, from videos to texts and back, in which videos of one class match each other.

    The wanted distribution of a row is the softmax of ten times 1 where labels are equal and 0 elsewhere: nearly
    uniform over the texts of the row's class.

    Args:
        logits: score of each video with the text of each video's class, (G, G).
        label: classes of the videos, (G,).

    Returns:
        From videos to texts and from texts to videos: each a sum over classes and a mean over rows, nats.

    Source: OST (CVPR 2024), as in ActionCLIP (2021).
    """
    same = (label[:, None] == label).to(logits.dtype)
    wanted = torch.softmax(_NCE_SHARPNESS * same, dim=-1)

    def divergence(scores: Tensor) -> Tensor:
        return F.kl_div(torch.log_softmax(scores, dim=-1), wanted, reduction="batchmean")

    return divergence(logits), divergence(logits.T)


LOSSES: dict[str, str] = {
    "cross_entropy": "slowfast.models.losses:cross_entropy",
    "soft_cross_entropy": "slowfast.models.losses:soft_cross_entropy",
    "bce_logit": "slowfast.models.losses:bce_logit",
    "mse": "slowfast.models.losses:mse",
    "nce_loss": "slowfast.models.losses:nce_loss",
}
"""MODEL.LOSS_FUNC -> loss function."""
