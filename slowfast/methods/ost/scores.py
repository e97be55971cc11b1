"""OST's score of a class: cosines of frames and descriptors, pooled and along a transport plan."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from slowfast.methods.ost.config import Solver
from slowfast.models.alignment import SinkhornOptions, sinkhorn
from slowfast.models.similarity import without_autocast

Matcher = Callable[[Tensor], Tensor]
"""Cosines (..., T, N) -> weight of each, a constant without gradient, that broadcasts to (..., T, N)."""


def frame_cosines(video: Tensor, text: Tensor) -> Tensor:
    """Compare frames with descriptors, all in one product.

    Args:
        video: frames, unit norm, (B, T, E).
        text: descriptors, unit norm, (S, K, N, E).

    Returns:
        Cosines, (S, B, K, T, N).
    """
    with without_autocast(video.device.type):
        product = video.flatten(0, 1) @ text.flatten(0, 2).T
    cosines = product.unflatten(1, text.shape[:3]).unflatten(0, video.shape[:2])  # (B, T, S, K, N)
    return cosines.permute(2, 0, 3, 1, 4)


def make_matcher(solver: Solver, options: SinkhornOptions) -> Matcher:
    """Choose how frames are matched: by a plan that is added to the uniform one of pooling, or by the latter alone.

    Pooling means of frames and of descriptors is weighing all their cosines alike, with 1 / (T N).
    """

    def uniform(cosines: Tensor) -> Tensor:
        return cosines.new_tensor(1 / (cosines.shape[-2] * cosines.shape[-1]))

    matchers: dict[Solver, Matcher] = {
        "sinkhorn": lambda cosines: uniform(cosines) + sinkhorn(cosines, options).plan,
        "uniform": lambda cosines: 2 * uniform(cosines),
        "none": uniform,
    }
    return matchers[solver]


def descriptor_logits(cosines: Tensor, scale: Tensor, matcher: Matcher) -> Tensor:
    """Score each class by the weighted cosines of its descriptors, averaged over kinds.

    Args:
        cosines: of frames and descriptors, (S, B, K, T, N).
        scale: factor of the cosine, scalar > 0.
        matcher: gives their weights.

    Returns:
        Logits, (B, K).

    Source: OST (CVPR 2024), optimal descriptor solver. Pooled and transported scores are added, so that logits are
    twice as large as CLIP's.
    """
    with without_autocast(cosines.device.type):
        weights = matcher(cosines.detach())
        return scale * (weights * cosines).sum(dim=(-2, -1)).mean(dim=0)
