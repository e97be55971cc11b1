"""Signals that end a run: at once, or, while a training step is under way, when it is done and saved."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

EXIT_STATUS: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Signal -> exit status of a process that it ends. Schedulers read anything but 0 as a reason to queue a job again."""
if hasattr(signal, "SIGUSR1"):
    EXIT_STATUS[signal.SIGUSR1] = 143  # the warning that SLURM is asked for; the same as being told to end

_PR_SET_PDEATHSIG = 1

# A terminal and a launcher may both pass one Ctrl-C on.
_SECOND_SECONDS = 1.0


class Interrupted(BaseException):
    """A signal ends this process. Not an Exception: nothing that handles errors may swallow it.

    Attributes:
        signum: the signal.
        where: what had been reached, for people; may be empty.
    """

    def __init__(self, signum: int, where: str = "") -> None:
        super().__init__(signum, where)
        self.signum = signum
        self.where = where

    @property
    def status(self) -> int:
        """Exit status of the process."""
        return EXIT_STATUS[self.signum]

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return f"ended by {name}{f', {self.where}' if self.where else ''}"


class Interrupts:
    """Receives the signals of a process; use it as a context manager, in the main thread.

    Outside of `deferred` a signal raises `Interrupted` wherever the process is. Inside, it is only noted in `pending`,
    until the block is left; a second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._since = 0.0
        self._deferring = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in EXIT_STATUS}
            release_signals()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let signals wait for the end of the block, which may look at `pending` and end sooner.

        Raises:
            Interrupted: at its end, if a signal came.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.pending is not None:
            raise Interrupted(self.pending)

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Within `deferred`, a part that a signal may end at once, because nothing of it needs saving.

        Raises:
            Interrupted: at its start, if a signal came before.
        """
        before, self._deferring = self._deferring, False
        try:
            if self.pending is not None:
                raise Interrupted(self.pending)
            yield
        finally:
            self._deferring = before

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        is_second = self.pending is not None and signum == signal.SIGINT and now - self._since > _SECOND_SECONDS
        if self.pending is None:
            self.pending, self._since = signum, now
        if not self._deferring or is_second:
            raise Interrupted(self.pending)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let the signals of `EXIT_STATUS` wait in processes that are started in the block, until `release_signals` there.

    This process should have handlers of its own: another of its threads may get what this one does not take.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, set(EXIT_STATUS))
    try:
        yield
    finally:
        release_signals()


def release_signals() -> None:
    """Let the signals of `EXIT_STATUS` come, now that there is somebody to receive them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(EXIT_STATUS))


def end_with_parent(signum: int) -> None:
    """Ask the kernel for a signal when the parent of this process dies; only Linux does so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
