"""Open-VCLIP's block: the attention of a frame also sees the tokens of its neighbours in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from slowfast.models.clip.arch import HEAD_WIDTH, ClipSizes
from slowfast.models.clip.class_attention import attention_shares, class_query_and_keys
from slowfast.models.clip.layers import ResidualBlock


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpandViewOptions:
    """Options of the block; each is the MODEL key of the same name in upper case."""

    expand_view_masked: bool = False
    """Whether neighbours outside the clip are left out of the softmax; else they take part as zeros, as published."""


def frame_windows(x: Tensor, reach: int) -> Tensor:
    """Join the tokens of each frame with those of its neighbours, zeros outside the clip.

    The only copy is that of the frames between the zeros; the windows are overlapping views of it.

    Args:
        x: tokens of the frames, (T, L, ...).
        reach: neighbours on either side, frames.

    Returns:
        Tokens of frames t - reach to t + reach in order of time, (T, (2 * reach + 1) * L, ...).
    """
    padded = F.pad(x, (0, 0) * (x.ndim - 1) + (reach, reach))
    return padded.unfold(0, 2 * reach + 1, 1).movedim(-1, 1).flatten(1, 2)


class FrameWindows(torch.autograd.Function):
    """``frame_windows`` with a gradient that adds up whole frames, faster than that of overlapping views."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int) -> Tensor:  # noqa: ANN401 (PyTorch's context)
        """(T, L, ...) -> (T, (2 * reach + 1) * L, ...)."""
        ctx.reach = reach
        return frame_windows(x, reach)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """(T, (2 * reach + 1) * L, ...) -> (T, L, ...)."""
        reach, num_frames = ctx.reach, grad.shape[0]
        windows = grad.unflatten(1, (2 * reach + 1, -1))  # (T, 2 * reach + 1, L, ...)
        total = windows[:, reach].clone()
        for distance in range(1, min(reach, num_frames - 1) + 1):
            total[:-distance] += windows[distance:, reach - distance]
            total[distance:] += windows[:-distance, reach + distance]
        return total, None


class ExpandTemporalViewBlock(ResidualBlock):
    """CLIP's block whose keys and values are those of a frame and its neighbours; it has no further parameters.

    Source: Open-VCLIP (ICML 2023); zero keys as in the published code.
    """

    Options = ExpandViewOptions
    options_class: ClassVar[type] = ExpandViewOptions
    reach: ClassVar[int] = 1
    """Neighbours on either side, frames."""

    def __init__(self, sizes: ClipSizes, options: ExpandViewOptions) -> None:
        super().__init__(sizes.vision_width)
        self.options = options

    def heads(self, tokens: Tensor) -> Tensor:
        """Gather the heads of all videos on one axis, (T, L, B, D) -> (T, B * heads, L, 64)."""
        return tokens.unflatten(-1, (self.attn.num_heads, HEAD_WIDTH)).flatten(2, 3).transpose(1, 2)

    def attend(self, x: Tensor) -> Tensor:
        """Attend from each frame to itself and its neighbours, (B, T, L, D) -> (B, T, L, D)."""
        qkv = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        # Frames are the kernel's batch axis and videos lie among the heads, so that the windows, which overlap in
        # memory, are an ordinary strided tensor.
        q, k, v = qkv.movedim(0, 2).chunk(3, dim=-1)  # (T, L, B, D)
        k, v = FrameWindows.apply(k, self.reach), FrameWindows.apply(v, self.reach)
        mask = None
        if self.options.expand_view_masked:
            inside = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device)
            mask = frame_windows(inside, self.reach)[:, None, None]  # (T, 1, 1, keys)
        attended = F.scaled_dot_product_attention(self.heads(q), self.heads(k), self.heads(v), attn_mask=mask)
        attended = attended.transpose(1, 2).unflatten(2, (-1, self.attn.num_heads)).flatten(3)  # (T, L, B, D)
        return self.attn.out_proj(attended).movedim(2, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of whole videos, (B, T, L, D) -> (B, T, L, D)."""
        x = x + self.attend(self.ln_1(x))
        return x + self.feed_forward(self.ln_2(x))

    def class_attention(self, x: Tensor) -> Tensor:
        """The part of the class token's attention that stays in its own frame, (B, T, L, D) -> (B, T, L - 1)."""
        query, keys = class_query_and_keys(self.attn, self.ln_1(x))
        num_tokens, own = x.shape[2], self.reach * x.shape[2]
        keys = torch.stack([frame_windows(video, self.reach) for video in keys])
        mask = None
        if self.options.expand_view_masked:
            mask = frame_windows(torch.ones(x.shape[1:3], dtype=torch.bool, device=x.device), self.reach)
        return attention_shares(query, keys, mask=mask)[..., own + 1 : own + num_tokens]


class ExpandTemporalViewStep2Block(ExpandTemporalViewBlock):
    """The same with two neighbours on either side."""

    reach = 2


class ExpandTemporalViewStep3Block(ExpandTemporalViewBlock):
    """The same with three neighbours on either side."""

    reach = 3
