"""Attention of the frames of a video to themselves and to context tokens that all its frames share.

Every query sees the tokens of its own frame and the K context tokens of its video under one softmax. In two parts, the
keys and values of the context are never copied to the frames: one kernel attends within each frame, another lets all
queries of the video attend to the context at once, and the logarithms of their normalisers (lse) merge both,

    out = out_local + w * (out_context - out_local),    w = sigmoid(lse_context + bias - lse_local).

The gradient of each part is that of its kernel, given the merged output and normaliser: a flash kernel computes the
probabilities of its own keys as exp(score - lse), whatever other keys are counted in lse. So does ring attention (Liu
et al., 2023), which PyTorch has for several devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from slowfast.models.similarity import at_least_fp32

Way = Literal["auto", "parts", "joined"]
"""How to compute: in two parts; with the context copied behind the keys of every frame; or what suits the device."""


@dataclass(frozen=True, slots=True)
class Context:
    """Keys and values of the context tokens, and how much they count."""

    keys: Tensor
    """(B, K, heads, 64)."""
    values: Tensor
    """(B, K, heads, 64)."""
    bias: Tensor | None
    """Added to the scores of the context, (heads,); None for nothing."""


def context_attention(q: Tensor, k: Tensor, v: Tensor, context: Context, *, way: Way = "auto") -> Tensor:
    """Attend from every token to its own frame and to the context.

    Args:
        q: queries, (B, T, L, heads, 64).
        k: keys of the frames, (B, T, N, heads, 64).
        v: values of the frames, same shape.
        context: of the videos.
        way: "auto" computes in parts on a CPU; elsewhere the kernels that "parts" calls were not tried.

    Returns:
        (B, T, L, heads, 64).

    Raises:
        ValueError: if "parts" is asked for where there are no kernels for it.
    """
    if way == "joined" or (way == "auto" and q.device.type != "cpu"):
        return joined_attention(q, k, v, context)
    output: Tensor = _PartsAttention.apply(q, k, v, context.keys, context.values, context.bias)
    return output


def joined_attention(q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
    """The same with the context copied behind the keys and values of every frame, by PyTorch's public function."""
    num_frames, num_keys, num_context = q.shape[1], k.shape[2], context.keys.shape[1]

    def behind(own: Tensor, shared: Tensor) -> Tensor:
        copies = shared[:, None].expand(-1, num_frames, -1, -1, -1)
        return torch.cat((own, copies), dim=2).flatten(0, 1).transpose(1, 2)

    mask = None
    if context.bias is not None:
        bias = context.bias.to(q.dtype)
        mask = torch.cat((bias.new_zeros(len(bias), num_keys), bias[:, None].expand(-1, num_context)), dim=1)
        mask = mask[None, :, None].expand(q.shape[0] * num_frames, -1, q.shape[2], -1)
    attended = F.scaled_dot_product_attention(
        q.flatten(0, 1).transpose(1, 2), behind(k, context.keys), behind(v, context.values), attn_mask=mask
    )
    return attended.transpose(1, 2).unflatten(0, q.shape[:2])


class Kernel(Protocol):
    """Attention that also returns the logarithm of its normaliser, and its gradient; tensors are (N, heads, L, 64)."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Output, and lse (N, heads, L), at least fp32."""

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, keys and values where out and lse count these keys and others."""


class CpuKernel:
    """PyTorch's flash attention on a CPU."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Output, and lse (N, heads, L)."""
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        return out, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, keys and values."""
        operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        dq, dk, dv = operator(grad, q, k, v, out, lse, 0.0, False)
        return dq, dk, dv


class PlainKernel:
    """Products of matrices and a softmax: where operations are counted, on the meta device, and to compare with."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Output, and lse (N, heads, L)."""
        scores = at_least_fp32(q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        lse = scores.logsumexp(dim=-1)
        return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, keys and values."""
        scale = q.shape[-1] ** -0.5
        weights = (at_least_fp32(q @ k.transpose(-1, -2)) * scale - lse[..., None]).exp()
        dv = weights.to(v.dtype).transpose(-1, -2) @ grad
        delta = (at_least_fp32(grad) * at_least_fp32(out)).sum(dim=-1, keepdim=True)
        dscores = (weights * (at_least_fp32(grad @ v.transpose(-1, -2)) - delta) * scale).to(q.dtype)
        return dscores @ k, dscores.transpose(-1, -2) @ q, dv


KERNELS: dict[str, Kernel] = {"cpu": CpuKernel(), "meta": PlainKernel()}
"""Device -> kernels that return their normalisers."""


class _PartsAttention(torch.autograd.Function):
    """See the head of the file."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (PyTorch's context)
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context_k: Tensor,
        context_v: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """(B, T, L, heads, 64) and so on -> (B, T, L, heads, 64)."""
        kernel = _kernel(q.device)
        frames = [_per_frame(x) for x in (q, k, v)]
        shared = [x.transpose(1, 2) for x in (context_k, context_v)]
        out, lse = kernel.forward(*frames)
        out_context, lse_context = kernel.forward(_per_video(q), *shared)
        # (B, T, L, heads), the order in which both kernels leave their output in memory
        lse = lse.transpose(1, 2).unflatten(0, q.shape[:2])
        lse_context = lse_context.transpose(1, 2).unflatten(1, q.shape[1:3])
        if bias is not None:
            lse_context = lse_context + bias.to(lse_context.dtype)
        out = out.transpose(1, 2).unflatten(0, q.shape[:2])
        out_context = out_context.transpose(1, 2).unflatten(1, q.shape[1:3])
        share = torch.sigmoid(lse_context - lse)[..., None]
        merged = torch.lerp(out, out_context, share.to(out.dtype))
        # What the share of the context depends on beside the scores: kept for the gradient of the bias alone.
        beside = (None, None) if bias is None else (out_context, share)
        ctx.save_for_backward(q, k, v, context_k, context_v, bias, merged, torch.logaddexp(lse, lse_context), *beside)
        return merged

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of all inputs."""
        q, k, v, context_k, context_v, bias, merged, lse, out_context, share = ctx.saved_tensors
        kernel = _kernel(q.device)
        dq, dk, dv = kernel.backward(
            _per_frame(grad),
            _per_frame(q),
            _per_frame(k),
            _per_frame(v),
            _per_frame(merged),
            lse.flatten(0, 1).transpose(1, 2),
        )
        lse_context = lse.flatten(1, 2).transpose(1, 2)  # (B, heads, T L)
        dbias = None
        if bias is not None:
            lse_context = lse_context - bias.to(lse.dtype)[:, None]
            gain = at_least_fp32(grad) * (at_least_fp32(out_context) - at_least_fp32(merged))
            dbias = (gain.sum(dim=-1) * share.squeeze(-1)).sum(dim=(0, 1, 2)).to(bias.dtype)
        dq_context, dk_context, dv_context = kernel.backward(
            _per_video(grad),
            _per_video(q),
            context_k.transpose(1, 2),
            context_v.transpose(1, 2),
            _per_video(merged),
            lse_context,
        )
        dq = dq.transpose(1, 2).unflatten(0, q.shape[:2])
        dq = dq + dq_context.transpose(1, 2).unflatten(1, q.shape[1:3])
        dk, dv = (x.transpose(1, 2).unflatten(0, q.shape[:2]) for x in (dk, dv))
        return dq, dk, dv, dk_context.transpose(1, 2), dv_context.transpose(1, 2), dbias


def _kernel(device: torch.device) -> Kernel:
    if device.type not in KERNELS:
        raise ValueError(f"TC_CLIP.CONTEXT_ATTENTION: 'parts' has no kernels for {device.type}; allowed: auto, joined")
    return KERNELS[device.type]


def _per_frame(x: Tensor) -> Tensor:
    """A batch of frames, (B, T, L, heads, 64) -> (B T, heads, L, 64)."""
    return x.flatten(0, 1).transpose(1, 2)


def _per_video(x: Tensor) -> Tensor:
    """All tokens of a video in one sequence, (B, T, L, heads, 64) -> (B, heads, T L, 64)."""
    return x.flatten(1, 2).transpose(1, 2)
