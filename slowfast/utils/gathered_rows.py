"""Rows of all processes with a gradient; apart from the other collectives, which load without PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class GatheredRows(torch.autograd.Function):
    """Rows of every process, in order of rank; backward sums what all processes send to the rows of this one.

    PyTorch's own gather is not used: with gloo it mixes up the elements of a gradient whose axes are transposed.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401 (PyTorch's context)
        """Collect (R, ...) of each of W processes -> (W R, ...)."""
        ctx.first, ctx.count = dist.get_rank() * len(rows), len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        """Sum over processes, (W R, ...) -> this one's rows, (R, ...)."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.first : ctx.first + ctx.count]
