"""The temporal transformer that modulates queries and prototypes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.utils.distributed import shard_draw

NUM_HEADS = 8
HIDDEN_WIDTH = 2048
DROPOUT = (0.2, 0.05)


class TemporalTransformer(nn.Module):
    """Attention between the tokens of a sequence, which knows nothing of their order.

    A layer is ``x + attention(norm(x))``, then ``x + mlp(x)`` without a norm.

    Args:
        width: of the tokens, D.
        depth: number of layers.
        num_heads: of the attention.
        hidden: width inside the feed-forward part.
        dropout: share of numbers that are dropped in training, behind the attention and, twice, in the feed-forward
            part.

    Source: CLIP-FSAR (IJCV 2023), temporal transformer; names of the parameters as in its checkpoints.
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int = 1,
        num_heads: int = NUM_HEADS,
        hidden: int = HIDDEN_WIDTH,
        dropout: tuple[float, float] = DROPOUT,
    ) -> None:
        super().__init__()
        behind_attention, inside = dropout
        self.layers = nn.ModuleList(
            nn.ModuleList((
                _Normed(width, _Attention(width, num_heads=num_heads, dropout=behind_attention)),
                _FeedForward(width, hidden=hidden, dropout=inside),
            ))
            for _ in range(depth)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Transform sequences, (N, L, D) -> (N, L, D)."""
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            attention, feed_forward = layer
            x = x + attention(x)
            x = x + feed_forward(x)
        return x


class _Normed(nn.Module):
    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and transform, (N, L, D) -> (N, L, D)."""
        transformed: Tensor = self.fn(self.norm(x))
        return transformed


class _Attention(nn.Module):
    def __init__(self, width: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        assert width % num_heads == 0, f"width {width} for {num_heads} heads"
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), _Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the tokens of each sequence, (N, L, D) -> (N, L, D)."""
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (N, heads, L, D / heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended: Tensor = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return attended


class _FeedForward(nn.Module):
    def __init__(self, width: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), _Dropout(dropout), nn.Linear(hidden, width), _Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token, (N, L, D) -> (N, L, D)."""
        transformed: Tensor = self.net(x)
        return transformed


class _Dropout(nn.Dropout):
    """Dropout whose draws on many processes are those of one process with the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers in training, (N, ...) -> (N, ...)."""
        if not self.training or not self.p:
            return x

        def draw(rows: int) -> Tensor:
            return F.dropout(torch.ones((rows, *x.shape[1:]), dtype=x.dtype, device=x.device), self.p)

        return x * shard_draw(draw, len(x))
