"""Run a function over many inputs in processes that may crash or hang: each costs only the input it was at."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Failure = Literal["timeout", "crash"]

# A killed process that the kernel cannot end (it waits for a dead network disk) must not hold the others up.
_BURIAL_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T, R]):
    """What became of one task.

    Attributes:
        task: what the function was given.
        value: what it returned; None after a failure.
        failure: None, or how the process was lost.
        detail: of a failure, for people: "60 s", "SIGSEGV", "exit status 1".
    """

    task: T
    value: R | None = None
    failure: Failure | None = None
    detail: str = ""


def run_watched(
    function: Callable[[T], R], tasks: Iterable[T], *, workers: int, timeout_seconds: float
) -> Generator[Outcome[T, R], None, None]:
    """Call `function` on every task, in processes of their own, and give the outcomes as they come.

    The processes are spawned, so the calling script needs its `if __name__ == "__main__":`. They are all ended when
    the iterator is exhausted, closed, or left by an exception such as KeyboardInterrupt; close it
    (`contextlib.closing`) where the loop may be left early.

    Args:
        function: importable by name. An exception that it lets through ends its process: a crash.
        tasks: picklable and small; taken one by one as processes become free.
        workers: processes at the same time, at least 1.
        timeout_seconds: a process that needs longer for one task is killed.

    Yields: one outcome per task, in the order of completion.

    Raises:
        ValueError: if `workers` or `timeout_seconds` is not positive.
        RuntimeError: if a process ends before it took up its first task.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}, allowed: 1 and more")
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds: found {timeout_seconds}, allowed: more than 0")
    return _run(function, iter(tasks), workers, timeout_seconds)


def _run(
    function: Callable[[T], R], tasks: Iterator[T], workers: int, timeout_seconds: float
) -> Generator[Outcome[T, R], None, None]:
    pool: list[_Worker[T, R]] = []
    try:
        while True:
            _hand_out(tasks, pool, workers, lambda: _Worker(function, timeout_seconds))
            if not any(worker.busy for worker in pool):
                return
            for worker in _wait_for(pool):
                outcome = worker.collect()
                if outcome is None:
                    continue
                if outcome.failure:
                    pool.remove(worker)
                    worker.end()
                yield outcome
    finally:
        for worker in pool:
            worker.end()


def _hand_out(tasks: Iterator[T], pool: list[_Worker[T, R]], workers: int, start: Callable[[], _Worker[T, R]]) -> None:
    """Give tasks to idle processes, and to new ones while there may be more."""
    while len(pool) < workers or any(not worker.busy for worker in pool):
        try:
            task = next(tasks)
        except StopIteration:
            return
        worker = next((worker for worker in pool if not worker.busy), None)
        if worker is not None and not worker.process.is_alive():
            pool.remove(worker)
            worker.end()
            worker = None
        if worker is None:
            worker = start()
            pool.append(worker)
        worker.give(task)


def _wait_for(pool: list[_Worker[T, R]]) -> list[_Worker[T, R]]:
    """Sleep until a process answers, ends or runs out of time; returns those that did."""
    busy = [worker for worker in pool if worker.busy]
    places: dict[Any, _Worker[T, R]] = {}
    for worker in busy:
        places[worker.connection] = places[worker.process.sentinel] = worker
    deadline = min(worker.deadline for worker in busy)
    timeout = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
    ready = {id(places[thing]) for thing in wait(list(places), timeout)}
    now = time.monotonic()
    return [worker for worker in busy if id(worker) in ready or worker.deadline <= now]


class _Worker(Generic[T, R]):
    """A process and the task it is at."""

    def __init__(self, function: Callable[[T], R], timeout_seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(function, theirs), daemon=True)
        with _interrupts_held():
            self.process.start()
        theirs.close()
        self.busy = False
        self.deadline = float("inf")
        self._timeout_seconds = timeout_seconds
        self._ready = False
        self._task: Any = None

    def give(self, task: T) -> None:
        self._task = task
        self.busy = True
        if self._ready:
            self._start_clock()
        with suppress(OSError):  # a process that has just ended is noticed by its sentinel
            self.connection.send(task)

    def _start_clock(self) -> None:
        self.deadline = time.monotonic() + self._timeout_seconds

    def collect(self) -> Outcome[T, R] | None:
        """What the process has to say; None if it is still at work."""
        try:
            if self.connection.poll():
                return self._read()
        except (EOFError, OSError):
            return self._lost()
        if not self.process.is_alive():
            return self._lost()
        if self.deadline <= time.monotonic():
            return Outcome(task=self._task, failure="timeout", detail=f"{self._timeout_seconds:g} s")
        return None

    def _read(self) -> Outcome[T, R] | None:
        message = self.connection.recv()
        if not self._ready:
            self._ready = True
            self._start_clock()
            return None
        self.busy = False
        self.deadline = float("inf")
        return Outcome(task=self._task, value=message)

    def _lost(self) -> Outcome[T, R]:
        self.process.join(_BURIAL_SECONDS)
        code = self.process.exitcode
        if not self._ready:
            raise RuntimeError(
                f"a worker process ended before it was ready (exit status {code}); what it wrote stands above. Does "
                'the script start its work under `if __name__ == "__main__":`?'
            )
        return Outcome(task=self._task, failure="crash", detail=_describe_exit(code))

    def end(self) -> None:
        """Kill the process, whatever it is doing, and bury it."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join(_BURIAL_SECONDS)
        self.connection.close()


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from a process that is being started: it inherits the mask, the caller gets the signal afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[Any], Any], connection: Connection) -> None:
    """The life of a process: until the other end of the pipe is closed, also by the death of the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    connection.send("ready")
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        answer = function(task)
        try:
            connection.send(answer)
        except OSError:
            return
