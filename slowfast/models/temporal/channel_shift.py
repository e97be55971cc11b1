"""Temporal shift inside the attention: keys and values borrow channels from the neighbouring frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from slowfast.models.clip.arch import HEAD_WIDTH, ClipSizes
from slowfast.models.clip.class_attention import attention_shares, class_query_and_keys
from slowfast.models.clip.layers import ResidualBlock

SHIFTED_SHARE = 4
"""One channel in so many comes from each side."""


def from_next(x: Tensor) -> Tensor:
    """Put the tokens of frame t + 1 at frame t, zeros at the last, (B, T, L, D) -> (B, T, L, D)."""
    return F.pad(x, (0, 0, 0, 0, -1, 1))


def from_previous(x: Tensor) -> Tensor:
    """Put the tokens of frame t - 1 at frame t, zeros at the first, (B, T, L, D) -> (B, T, L, D)."""
    return F.pad(x, (0, 0, 0, 0, 1, -1))


class ChannelShiftBlock(ResidualBlock):
    """CLIP's block with shifted keys and values; it has no further parameters.

    Of the channels of all heads in a row, the first quarter comes from the next frame, the second from the previous
    one. Channels from outside the clip are zero. Queries stay.

    Source: TSM (ICCV 2019), applied to keys and values as in Open-VCLIP's code, which shifts inside runs of eight
    frames and mixes up channels and tokens on the way; here the shift runs over the frames of each video.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        """No options."""

    options_class: ClassVar[type] = Options

    def __init__(self, sizes: ClipSizes, options: Options) -> None:
        del options
        super().__init__(sizes.vision_width)

    def heads(self, tokens: Tensor) -> Tensor:
        """Split the heads, (B, T, L, D) -> (B * T, heads, L, 64)."""
        return tokens.flatten(0, 1).unflatten(-1, (self.attn.num_heads, HEAD_WIDTH)).transpose(1, 2)

    def attend(self, x: Tensor) -> Tensor:
        """Attend within each frame to shifted keys and values, (B, T, L, D) -> (B, T, L, D)."""
        width = x.shape[-1]
        share = width // SHIFTED_SHARE
        parts = (share, share, width - 2 * share)
        qkv = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        # One split for all parts: its gradient is a single concatenation.
        q, k_next, k_previous, k_own, v_next, v_previous, v_own = qkv.split((width, *parts, *parts), dim=-1)
        k = torch.cat((from_next(k_next), from_previous(k_previous), k_own), dim=-1)
        v = torch.cat((from_next(v_next), from_previous(v_previous), v_own), dim=-1)
        attended = F.scaled_dot_product_attention(self.heads(q), self.heads(k), self.heads(v))
        return self.attn.out_proj(attended.transpose(1, 2).reshape(x.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of whole videos, (B, T, L, D) -> (B, T, L, D)."""
        x = x + self.attend(self.ln_1(x))
        return x + self.feed_forward(self.ln_2(x))

    def class_attention(self, x: Tensor) -> Tensor:
        """The class token's attention to patches with shifted keys, (B, T, L, D) -> (B, T, L - 1)."""
        query, keys = class_query_and_keys(self.attn, self.ln_1(x))
        share = x.shape[-1] // SHIFTED_SHARE
        following, previous, own = keys.split((share, share, x.shape[-1] - 2 * share), dim=-1)
        return attention_shares(query, torch.cat((from_next(following), from_previous(previous), own), dim=-1))[..., 1:]
