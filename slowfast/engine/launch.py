"""Start the processes of a run: by spawn, under torchrun, or none but this one."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.rendezvous import rendezvous

from slowfast.engine.interrupts import Interrupted, Interrupts, end_with_parent, signals_held
from slowfast.engine.lost_contact import LostProcessError, describe_loss, is_lost_contact, worker_losses_named
from slowfast.engine.rendezvous import agree_on_store
from slowfast.engine.supervisor import Report, SignalRelay, supervise
from slowfast.utils.distributed import barrier
from slowfast.utils.errors import USER_ERRORS, describe_error
from slowfast.utils.logging import get_logger
from slowfast.utils.parser import TORCHRUN_VARIABLES

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessContext:
    """This process among those of the run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    """Processes on this machine; they share the batch sizes of the configuration."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    interrupts: Interrupts = field(default_factory=Interrupts, compare=False)
    """Signals of this process, received while the function of `launch` runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchPlan:
    """How many processes to start, where, and how they meet.

    Raises:
        ValueError: if the machine lacks the devices.
    """

    num_gpus: int
    """NUM_GPUS: processes on this machine; 0 means one process on the CPU."""
    num_shards: int = 1
    """NUM_SHARDS: machines."""
    shard_id: int = 0
    backend: str = "nccl"
    """DIST_BACKEND: "nccl" for GPUs; "gloo" also runs several processes on a CPU."""
    init_method: str = "tcp://localhost:9998"
    timeout: timedelta = timedelta(minutes=30)
    """DIST_TIMEOUT_MINUTES: longest wait of a process for the others."""

    def __post_init__(self) -> None:
        found = torch.cuda.device_count()
        if self.num_gpus > max(found, 1) and not (found == 0 and self.backend == "gloo"):
            raise ValueError(
                f"NUM_GPUS: is {self.num_gpus}, but this machine has {found} CUDA devices; allowed: at most "
                f"{max(found, 1)}, or any number with DIST_BACKEND gloo on a machine without CUDA"
            )

    @property
    def local_world_size(self) -> int:
        """Processes on this machine."""
        return max(1, self.num_gpus)


@contextlib.contextmanager
def first_on_machine(context: ProcessContext) -> Iterator[None]:
    """Let one process per machine go first, for instance to download a file that the others then find."""
    if context.local_rank > 0:
        barrier()
    yield
    if context.local_rank == 0:
        barrier()


def is_first_process(*, shard_id: int) -> bool:
    """Whether this is the process that speaks for the whole run before the others have started.

    Args:
        shard_id: SHARD_ID, which counts where torchrun does not say more.
    """
    return int(os.environ.get("RANK", shard_id)) == 0


def launch(plan: LaunchPlan, function: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401 - passed through
    """Run ``function(context, *args)`` in every process of the run and wait for the end.

    Args:
        plan: processes to start; under torchrun its variables decide instead.
        function: importable by name, since processes may be spawned.
        *args: picklable arguments.

    Raises:
        ValueError: if a process that was started here ends with an error that a user can mend.
        LostProcessError: if a process was killed, or is out of reach.
        Interrupted: if a signal ended the run.
    """
    if plan.num_gpus > 0 and torch.cuda.device_count() == 0 and is_first_process(shard_id=plan.shard_id):
        logger.warning("NUM_GPUS is %d, but this machine has no CUDA device: running on the CPU", plan.num_gpus)
    if all(name in os.environ for name in TORCHRUN_VARIABLES):
        rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in TORCHRUN_VARIABLES)
        context = ProcessContext(
            rank=rank,
            world_size=world_size,
            local_rank=local_rank,
            local_world_size=local_world_size,
            device=_device(plan.num_gpus, local_rank),
        )
        end_with_parent(signal.SIGTERM)  # torchrun may be killed; without it nobody would end this process
        meet = functools.partial(agree_on_store, rank=rank, world_size=world_size, timeout=plan.timeout)
        _run(context, plan, (lambda: meet(_torchrun_store())) if world_size > 1 else None, function, args)
    elif plan.local_world_size * plan.num_shards == 1:
        _run(ProcessContext(device=_device(plan.num_gpus, 0)), plan, None, function, args)
    else:
        _spawn_all(plan, function, args)


def _spawn_all(plan: LaunchPlan, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    reports: SimpleQueue[Report] = mp.get_context("spawn").SimpleQueue()
    with SignalRelay() as relay:
        # The new processes inherit that signals wait, until they can receive them.
        with signals_held():
            started = mp.start_processes(
                _spawned, args=(plan, reports, function, args), nprocs=plan.local_world_size, join=False
            )
        supervise(started.processes, reports, relay, first_rank=plan.shard_id * plan.local_world_size)


def _spawned(
    local_rank: int,
    plan: LaunchPlan,
    reports: SimpleQueue[Report],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    context = ProcessContext(
        rank=plan.shard_id * plan.local_world_size + local_rank,
        world_size=plan.num_shards * plan.local_world_size,
        local_rank=local_rank,
        local_world_size=plan.local_world_size,
        device=_device(plan.num_gpus, local_rank),
    )
    # Processes of one machine share its cores.
    torch.set_num_threads(max(1, torch.get_num_threads() // plan.local_world_size))

    def meet() -> dist.Store:
        store, _, _ = next(rendezvous(plan.init_method, context.rank, context.world_size, timeout=plan.timeout))
        return store

    try:
        _run(context, plan, meet, function, args)
    except Interrupted as end:
        raise SystemExit(end.status) from None
    except LostProcessError as error:
        reports.put(Report(context.rank, "lost", str(error)))
        raise SystemExit(1) from None
    except USER_ERRORS as error:
        reports.put(Report(context.rank, "user", describe_error(error)))
        raise SystemExit(1) from None
    except Exception:  # noqa: BLE001 - told by the process that supervises this one
        reports.put(Report(context.rank, "defect", traceback.format_exc()))
        raise SystemExit(1) from None


@functools.cache
def _torchrun_store() -> dist.Store:
    """The store that the environment's variables describe; one for the life of this process."""
    store, _, _ = next(rendezvous("env://"))
    return store


def _run(
    context: ProcessContext,
    plan: LaunchPlan,
    meet: Callable[[], dist.Store] | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    """Run the function in this process, with the others within reach where there are any."""
    with context.interrupts, worker_losses_named(context.rank):
        if meet is None:
            function(context, *args)
            return
        store = meet()
        dist.init_process_group(
            plan.backend if context.device.type == "cuda" else "gloo",
            rank=context.rank,
            world_size=context.world_size,
            device_id=context.device if context.device.type == "cuda" else None,
            store=store,
            timeout=plan.timeout,
        )
        try:
            function(context, *args)
        except RuntimeError as error:
            if not is_lost_contact(error):
                raise
            text = describe_loss(error, store, rank=context.rank, world_size=context.world_size)
            raise LostProcessError(text) from error
        # Not after an error: it would wait for the other processes, which wait for this one.
        dist.destroy_process_group()


def _device(num_gpus: int, local_rank: int) -> torch.device:
    """The GPU of a process; the CPU where NUM_GPUS is 0 or the machine has none."""
    if num_gpus == 0 or torch.cuda.device_count() == 0:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    # PyTorch lets convolutions round to TF32 by default; where this project says fp32 it means it.
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", local_rank)
