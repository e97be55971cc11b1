"""Scores of classes for videos: how similar frame embeddings are to text embeddings."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.nn import functional as F


def class_logits(video: Tensor, text: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
    """Score every class for every video, in fp32 even under autocast.

    At a scale of 100, bf16 would round logits to eighths.

    Args:
        video: frame embeddings, (B, T, E), unit norm.
        text: one embedding per class, (K, E), or one per prompt and class, (K, P, E), unit norm.
        scale: factor of the cosine, scalar > 0.
        mask: which prompts a class has, (K, P) bool; None for all of them.

    Returns:
        Logits, (B, K).

    Raises:
        ValueError: if the embeddings differ in width, text has another number of axes, or mask another shape.
    """
    if video.shape[-1] != text.shape[-1]:
        raise ValueError(f"video embeddings have width {video.shape[-1]}, text embeddings {text.shape[-1]}")
    if text.ndim not in (2, 3):
        raise ValueError(f"text embeddings have shape {tuple(text.shape)}; expected (K, E) or (K, P, E)")
    if mask is not None and mask.shape != text.shape[:-1]:
        raise ValueError(f"the mask of prompts has shape {tuple(mask.shape)}, the prompts {tuple(text.shape[:-1])}")
    with without_autocast(video.device.type):
        return (
            frame_mean_logits(video, text, scale) if text.ndim == 2 else frame_prompt_logits(video, text, scale, mask)
        )


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """A context that computes in the tensors' own dtypes, whatever autocast is on outside."""
    if device_type in _AUTOCAST_DEVICES:
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


# Asked once: a compiled tower has no break here then, which older versions of PyTorch would make of the question.
_AUTOCAST_DEVICES = frozenset(
    name for name in ("cpu", "cuda", "mps", "xpu", "hpu", "xla") if torch.amp.is_autocast_available(name)
)


def unit_norm(x: Tensor) -> Tensor:
    """Divide each vector of the last axis by its length, in at least fp32, (..., E) -> (..., E)."""
    x = at_least_fp32(x)
    return x / x.norm(dim=-1, keepdim=True)


def at_least_fp32(x: Tensor) -> Tensor:
    """Widen half precision to fp32; fp32 and fp64 stay as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def frame_mean_logits(video: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Score each class by the mean over frames of the cosine with the class's embedding.

    Args:
        video: frame embeddings, (B, T, E), unit norm.
        text: class embeddings, (K, E), unit norm.
        scale: factor of the cosine, scalar.

    Returns:
        Logits, (B, K).

    Source: CLIP's zero-shot rule applied per frame.
    """
    return scale * (video @ text.T).mean(dim=1)


def frame_prompt_logits(video: Tensor, text: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
    """Score each class by the mean of its best frame-to-prompt matches, both ways.

    With S the scaled cosines: ``(mean_j max_t S + mean_t max_j S) / 2``, where j runs over the class's own prompts.

    Args:
        video: frame embeddings, (B, T, E), unit norm.
        text: prompt embeddings, (K, P, E), unit norm; finite also where the mask is off.
        scale: factor of the cosine, scalar.
        mask: which prompts a class has, at least one, (K, P) bool; None for all of them.

    Returns:
        Logits, (B, K).

    Source: STDD (AAAI 2025), text augmentation.
    """
    scores = scale * torch.einsum("bte,kpe->btkp", video, text)
    best_frame = scores.amax(dim=1)  # (B, K, P)
    if mask is None:
        per_prompt = best_frame.mean(dim=-1)
    else:
        per_prompt = best_frame.masked_fill(~mask, 0).sum(dim=-1) / mask.sum(dim=-1)
        scores = scores.masked_fill(~mask, -torch.inf)
    return 0.5 * (per_prompt + scores.amax(dim=-1).mean(dim=1))


def pooled_logits(video: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Score each class by the cosine of its embedding with that of the whole video, in at least fp32.

    Args:
        video: one embedding per video, (B, E), unit norm.
        text: one embedding per class, (K, E) or (1, K, E), or one per video and class, (B, K, E), unit norm.
        scale: factor of the cosine, scalar > 0.

    Returns:
        Logits, (B, K).

    Source: ViFi-CLIP (CVPR 2023) and TC-CLIP (ECCV 2024), whose videos are means over frames.
    """
    with without_autocast(video.device.type):
        cosines = video @ text.T if text.ndim == 2 else torch.einsum("be,bke->bk", video, text)
        return scale * cosines


def offset_cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosines of all pairs of vectors, with 0.01 added to the product of their lengths, in at least fp32.

    The offset draws cosines of short vectors towards zero, and gives a vector of zeros a cosine and a gradient.

    Args:
        x: vectors of any length, (..., N, D).
        y: vectors of any length, (..., M, D); leading axes broadcast.

    Returns:
        (..., N, M), between -1 and 1.

    Source: CLIP-FSAR (IJCV 2023).
    """
    with without_autocast(x.device.type):
        x, y = at_least_fp32(x), at_least_fp32(y)
        lengths = x.norm(dim=-1)[..., :, None] * y.norm(dim=-1)[..., None, :]  # (..., N, M)
        return x @ y.transpose(-2, -1) / (lengths + 0.01)


def mean_cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the mean cosine between matching vectors.

    Args:
        student: vectors, (..., E).
        teacher: vectors, (..., E).

    Returns:
        Scalar in [0, 2].

    Source: FROSTER (ICLR 2024), feature distillation; STDD uses it on frame embeddings.
    """
    return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1).mean()
