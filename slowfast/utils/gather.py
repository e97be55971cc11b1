"""Rows of all processes in one tensor, with a gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from slowfast.utils.distributed import get_rank, get_world_size


def all_gather_rows(rows: Tensor) -> Tensor:
    """Collect the rows of every process, with a gradient.

    The gradient of a row is the sum of what all processes send back to it. Where each of them computes the same loss
    from all rows, and averages its gradients with the others' as DistributedDataParallel does, the result is the
    gradient of one process that has all rows.

    Args:
        rows: (R, ...), the same shape on every process.

    Returns: the rows in order of rank, (world * R, ...).
    """
    if get_world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401 - of PyTorch
        ctx.num_rows = len(rows)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401 - of PyTorch
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        first = get_rank() * ctx.num_rows
        return total[first : first + ctx.num_rows]
