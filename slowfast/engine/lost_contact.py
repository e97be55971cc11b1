"""Which process of a run is gone, when others fail because of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch.distributed as dist

_PATIENCE_SECONDS = 10.0
_MARKS = (
    "connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "timed out waiting",
    "socket timeout", "remote process exited", "communicator was aborted", "ncclremoteerror",
)  # fmt: skip
_LONGEST_REASON = 160


class LostProcessError(ValueError):
    """A process of the run ended without a word, or cannot be reached."""


@contextlib.contextmanager
def worker_losses_named(rank: int) -> Iterator[None]:
    """Turn the error by which PyTorch tells that a loader's worker was killed, wherever it comes up, into one line.

    Args:
        rank: this process.

    Raises:
        LostProcessError: in its place.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not text.startswith("DataLoader worker (pid"):
            raise
        how = text.splitlines()[0].partition(") ")[2].strip(". ") or "ended"
        raise LostProcessError(f"a worker process of rank {rank} {how}; the run has ended") from error


def is_lost_contact(error: RuntimeError) -> bool:
    """Whether a collective failed because a process, or the way to it, is gone; PyTorch tells by the text alone."""
    text = str(error).lower()
    return isinstance(error, dist.DistNetworkError | dist.DistStoreError) or any(mark in text for mark in _MARKS)


def describe_loss(error: RuntimeError, store: dist.Store, *, rank: int, world_size: int) -> str:
    """Find out who is gone: whoever lost contact says so in the store, and who says nothing there is the reason.

    Args:
        error: by which this process noticed.
        store: where the processes of the run met.
        rank: this process.
        world_size: processes of the run.

    Returns: one line for a user.
    """
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    others = [other for other in range(world_size) if other != rank]
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        store.set(_key(rank), "lost contact")
        silent = others
        while silent and time.monotonic() < deadline:
            time.sleep(0.1)
            silent = [other for other in silent if not store.check([_key(other)])]
    except RuntimeError:  # what the store raises when its own process is gone
        return (
            f"rank {rank} lost contact with the process that the run meets at (rank 0, or torchrun of its machine): "
            f"{reason}"
        )
    if not silent:
        return f"rank {rank} lost contact with other processes, which are still there: {reason}"
    names = ", ".join(map(str, silent))
    return (
        f"rank {rank} lost contact with rank{'s' if len(silent) > 1 else ''} {names}, which ended or does not answer; "
        f"its log, stdout_rank{silent[0]}.log, may say why ({reason})"
    )


def _key(rank: int) -> str:
    return f"lost_contact/{rank}"
