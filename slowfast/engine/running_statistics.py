"""Running statistics of batch norms, which every process moves by its own clips, made those of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slowfast.utils.distributed import all_reduce_sum, get_world_size


def average_running_statistics(module: nn.Module) -> None:
    """Replace running means and variances by their means over the processes; the same everywhere afterwards.

    A running statistic is a weighted sum of those of the batches, and so is a mean of such sums: averaging more often
    changes what comes out later by rounding alone. Statistics that are equal already stay as they are, bit for bit.
    A value that is not finite, as a step that was left out may leave it, is left to the other processes.

    Every process calls it at the same place; those of one process, and modules without such statistics, exchange
    nothing. Batch norms in evaluation mode, a frozen tower's, do not move and are passed over: call it before `eval()`.

    Args:
        module: in training mode, the same on every process.
    """
    if get_world_size() == 1:
        return
    buffers = _moving_statistics(module)
    if not buffers:
        return
    # float64, so that the sum of equal float32 values, divided by their number, is that value.
    own = torch.cat([buffer.detach().flatten().double() for buffer in buffers])
    is_finite = own.isfinite()
    total, count = all_reduce_sum(torch.stack([own.where(is_finite, 0.0), is_finite.double()]))
    means = (total / count).split([buffer.numel() for buffer in buffers])  # 0 / 0 where no process has a value
    with torch.no_grad():
        for buffer, mean in zip(buffers, means, strict=True):
            buffer.copy_(mean.view_as(buffer))


def _moving_statistics(module: nn.Module) -> list[Tensor]:
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]
    found = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    return [buffer for buffer in found if buffer is not None]
