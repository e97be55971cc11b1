"""Watch over the processes of a run on this machine: pass signals on, end all when one ends, and say why."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Literal

from torch.multiprocessing import ProcessRaisedException

from slowfast.engine.interrupts import EXIT_STATUS, Interrupted
from slowfast.engine.lost_contact import LostProcessError

GRACE_SECONDS = 20.0
"""How long processes may take to end by themselves after one of them has: to notice it, and to say what they saw."""

_KILLED_GRACE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a process says of its end.

    Attributes:
        rank: of the process.
        kind: "user": an error that a user can mend; "defect": any other; "lost": it lost contact with others.
        text: one line, or a traceback for a defect.
    """

    rank: int
    kind: Literal["user", "defect", "lost"]
    text: str


class SignalRelay:
    """Passes the signals of `EXIT_STATUS` that this process gets on to others; a context manager of the main thread.

    Make it before the processes start: what comes before `attach` is passed on then.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._processes: Sequence[SpawnProcess] = ()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalRelay:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in EXIT_STATUS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def attach(self, processes: Sequence[SpawnProcess]) -> None:
        """Begin to pass signals on."""
        self._processes = processes
        if self.received:
            self._pass_on(signal.SIGTERM)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        # A terminal gives its Ctrl-C to all processes: a second one of ours would cut their step short.
        is_first = signal.SIGINT not in self.received
        self.received.append(signum)
        self._pass_on(signal.SIGTERM if signum == signal.SIGINT and is_first else signum)

    def _pass_on(self, signum: int) -> None:
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                _send(process.pid, signum)


def supervise(
    processes: Sequence[SpawnProcess],
    reports: SimpleQueue[Report],
    relay: SignalRelay,
    *,
    first_rank: int = 0,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Wait for the end of all processes.

    When one fails, the others have some time to end by themselves, then they are killed.

    Args:
        processes: started, in order of rank.
        reports: where they put what they say of their end.
        relay: passes signals on to them.
        first_rank: of these processes.
        grace_seconds: time to end after a failure.

    Raises:
        LostProcessError: if one was killed, or lost contact with a process elsewhere, naming it.
        ValueError: with the message of the first error that a user can mend.
        torch.multiprocessing.ProcessRaisedException: with the traceback of a defect.
        Interrupted: if they ended because of a signal.
    """
    relay.attach(processes)
    killed: set[int] = set()
    heard: list[Report] = []
    try:
        _wait_for_all(processes, lambda: _hear(reports, heard), killed, grace_seconds)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    _hear(reports, heard)
    statuses = {
        first_rank + place: process.exitcode
        for place, process in enumerate(processes)
        if process.exitcode and place not in killed
    }
    if statuses:
        _raise_reason(statuses, heard, relay.received)


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
        os.kill(pid, signum)


def _wait_for_all(
    processes: Sequence[SpawnProcess], hear: Callable[[], None], killed: set[int], grace_seconds: float
) -> None:
    deadline = float("inf")
    while alive := [process for process in processes if process.is_alive()]:
        # Not without a limit: a signal handler runs between two calls, and reports may fill their pipe.
        wait([process.sentinel for process in alive], timeout=min(1.0, max(0.0, deadline - time.monotonic())))
        hear()
        if any(process.exitcode for process in processes):
            deadline = min(deadline, time.monotonic() + grace_seconds)
        if any((process.exitcode or 0) < 0 for process in processes):
            # Whoever was killed is the reason; what the others have to say does not matter.
            deadline = min(deadline, time.monotonic() + _KILLED_GRACE_SECONDS)
        if time.monotonic() >= deadline:
            for place, process in enumerate(processes):
                if process.is_alive():
                    killed.add(place)
                    process.kill()
                    process.join()


def _hear(reports: SimpleQueue[Report], heard: list[Report]) -> None:
    while not reports.empty():
        heard.append(reports.get())


def _raise_reason(statuses: dict[int, int], heard: Sequence[Report], relayed: Sequence[int]) -> None:
    """Raise the error that explains the ends of the processes; effects of the first failure come last."""
    for rank, status in statuses.items():
        if status < 0 and not (relayed and -status in (*relayed, signal.SIGTERM)):
            raise LostProcessError(f"rank {rank} was killed by {_signal_name(-status)}; the run has ended")
    by_kind = {kind: [report for report in heard if report.kind == kind] for kind in ("user", "defect", "lost")}
    if by_kind["user"]:
        raise ValueError(by_kind["user"][0].text)
    if by_kind["defect"]:
        report = by_kind["defect"][0]
        raise ProcessRaisedException(f"\n\n-- rank {report.rank}:\n{report.text}", report.rank, 0)
    signals: dict[int, int] = {EXIT_STATUS[signum]: signum for signum in (signal.SIGTERM, signal.SIGINT)}
    signals |= {-signum: signum for signum in (*relayed, *([signal.SIGTERM] if relayed else []))}
    for rank, status in statuses.items():
        if status in signals:
            raise Interrupted(relayed[0] if relayed else signals[status])
        if not by_kind["lost"]:
            raise LostProcessError(f"rank {rank} ended with exit status {status}; the run has ended")
    raise LostProcessError(by_kind["lost"][0].text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
