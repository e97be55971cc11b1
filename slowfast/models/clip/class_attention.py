"""How a block's class token shares its attention among tokens. The fused kernels of a forward do not give that away."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from slowfast.models.clip.arch import HEAD_WIDTH
from slowfast.models.clip.layers import Attention, ResidualBlock


@runtime_checkable
class OwnClassAttention(Protocol):
    """A block whose attention reads something else than its normalised input."""

    def class_attention(self, x: Tensor) -> Tensor:
        """As the function of this name, for this block."""
        ...


def class_attention(block: ResidualBlock, x: Tensor) -> Tensor:
    """Attention of each frame's class token to the patches of its own frame, mean over heads.

    What goes to the class token itself, and where a block adds them to other frames and messages, is left out: a row
    sums to less than 1.

    Args:
        block: a block of the image tower.
        x: its input, (B, T, L, D).

    Returns:
        Shares, (B, T, L - 1), fp32.
    """
    if isinstance(block, OwnClassAttention):
        return block.class_attention(x)
    return attention_shares(*class_query_and_keys(block.attn, block.ln_1(x)))[..., 1:]


def class_query_and_keys(attn: Attention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The first token's query and the keys of all, in fp32, (..., L, D) -> (..., D) and (..., L, D)."""
    weight_q, weight_k, _ = attn.in_proj_weight.float().chunk(3)
    bias_q, bias_k, _ = attn.in_proj_bias.float().chunk(3)
    tokens = tokens.float()
    return F.linear(tokens[..., 0, :], weight_q, bias_q), F.linear(tokens, weight_k, bias_k)


def attention_shares(query: Tensor, keys: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Softmax of a query's scores, mean over heads.

    Args:
        query: one for each sequence, all heads side by side, (..., D).
        keys: (..., L, D).
        mask: which keys take part, broadcastable to (..., L); None: all.

    Returns:
        Shares, sum 1, (..., L).
    """
    heads = query.unflatten(-1, (-1, HEAD_WIDTH))
    scores = torch.einsum("...hc,...lhc->...hl", heads, keys.unflatten(-1, (-1, HEAD_WIDTH))) * HEAD_WIDTH**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(-2), -torch.inf)
    return scores.softmax(dim=-1).mean(dim=-2)
