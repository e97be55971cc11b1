"""Collectives that are plain identities when there is one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from datetime import timedelta

    from torch import Tensor

T = TypeVar("T")


def _is_initialized() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """Number of this process, 0 without a process group."""
    import torch.distributed as dist

    return dist.get_rank() if _is_initialized() else 0


def get_world_size() -> int:
    """Number of processes, 1 without a process group."""
    import torch.distributed as dist

    return dist.get_world_size() if _is_initialized() else 1


def is_master() -> bool:
    """Whether this process writes files and speaks on the console."""
    return get_rank() == 0


def barrier() -> None:
    """Wait for every process."""
    import torch.distributed as dist

    if get_world_size() > 1:
        dist.barrier()


def all_gather_objects(obj: T) -> list[T]:
    """Collect one picklable object per process.

    Args:
        obj: this process's object.

    Returns: the objects in order of rank.
    """
    import torch.distributed as dist

    world = get_world_size()
    if world == 1:
        return [obj]
    gathered: list[T | None] = [None] * world
    dist.all_gather_object(gathered, obj)
    return gathered  # type: ignore[return-value]


def all_reduce_max(tensor: Tensor) -> Tensor:
    """Largest value of each element over the processes; the argument is left as it was. Nothing waits for the device.

    Args:
        tensor: any shape, the same on every process.

    Returns: the largest values, same shape.
    """
    import torch.distributed as dist

    if get_world_size() == 1:
        return tensor
    largest = tensor.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of each element over the processes; the argument is left as it was. Nothing waits for the device.

    Args:
        tensor: any shape, the same on every process.

    Returns: the sums, same shape.
    """
    import torch.distributed as dist

    if get_world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def all_gather_table(table: Tensor) -> Tensor:
    """Collect a tensor of every process.

    Args:
        table: any shape, the same on every process.

    Returns: the tensors in order of rank, (world, ...).
    """
    import torch
    import torch.distributed as dist

    world = get_world_size()
    if world == 1:
        return table[None]
    parts = [torch.empty_like(table) for _ in range(world)]
    dist.all_gather(parts, table.contiguous())
    return torch.stack(parts)


class Ballot:
    """Lets all processes decide the same at the same moment, although only some know a reason.

    Votes are exchanged between the processors, beside the gradients: nobody waits for a GPU. Every process makes its
    ballot at the same place.

    Args:
        timeout: longest wait for the others.
    """

    def __init__(self, timeout: timedelta) -> None:
        import torch.distributed as dist

        self._group: Any = dist.new_group(backend="gloo", timeout=timeout) if get_world_size() > 1 else None

    def decide(self, wish: int) -> int:
        """Hand in this process's wish, >= 0; returns the largest wish of all."""
        if self._group is None:
            return wish
        import torch
        import torch.distributed as dist

        vote = torch.tensor([wish])
        dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=self._group)
        return int(vote)


def broadcast_object(obj: T) -> T:
    """Give every process the object of rank 0.

    Args:
        obj: a picklable object; ignored on other ranks.

    Returns: rank 0's object.
    """
    import torch.distributed as dist

    if get_world_size() == 1:
        return obj
    holder = [obj]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def shard_draw(draw: Callable[[int], Tensor], batch: int) -> Tensor:
    """Draw random numbers so that many processes see what one process with the whole batch would see.

    Every process draws for the global batch and keeps its contiguous share, so the generators stay in step.

    Args:
        draw: gives random numbers with the requested number of rows, (rows, ...).
        batch: rows of this process; the same on every process.

    Returns: this process's rows, (batch, ...).
    """
    world = get_world_size()
    if world == 1:
        return draw(batch)
    start = get_rank() * batch
    return draw(batch * world)[start : start + batch]
