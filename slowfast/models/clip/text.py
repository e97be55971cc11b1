"""CLIP's text tower."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast.models.clip.layers import ResidualBlock, Transformer


def trim_tokens(tokens: Tensor) -> Tensor:
    """Drop the columns behind the longest text.

    Under the causal mask a token never sees what follows it, so the features stay the same while a class name costs
    about a fifth of the full context.

    Args:
        tokens: token numbers padded with 0, (N, 77); the end-of-text token is the largest of its row.

    Returns:
        The first columns, up to the last end-of-text token, (N, L).
    """
    return tokens[:, : longest_text(tokens)] if len(tokens) else tokens


def longest_text(tokens: Tensor) -> int:
    """Columns up to the last end-of-text token of at least one text, (..., 77) -> length in tokens."""
    return int(tokens.argmax(dim=-1).max()) + 1


def causal_transformer(width: int, layers: int) -> Transformer:
    """The text tower's stack of blocks, (N, L, D) -> (N, L, D)."""
    return Transformer([ResidualBlock(width, causal=True) for _ in range(layers)])


def pool_end_of_text(x: Tensor, tokens: Tensor) -> Tensor:
    """Pick each text's state at its end-of-text token, (N, L, D) -> (N, D)."""
    return x[torch.arange(x.shape[0], device=x.device), tokens.argmax(dim=-1)]
