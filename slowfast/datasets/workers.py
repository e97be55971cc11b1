"""Processes of a loader: the process that they serve decides when they end, and nobody else but the kernel."""

from __future__ import annotations

import functools
import multiprocessing.util
import os
import signal
import threading

_IGNORED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGUSR1") if hasattr(signal, name))


def shield_worker(worker_id: int) -> None:
    """Keep signals that end a run from a worker: the run may need it for its last step.

    SIGTERM counts only from the process that the worker serves. A worker whose process is gone notices that by itself,
    within seconds.
    """
    del worker_id
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(master: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != master:
        continue
    os._exit(0)


@functools.cache
def bury_workers_at_exit() -> None:
    """Make sure that a worker that does not obey, stuck in foreign code, does not keep this process from ending."""
    multiprocessing.util.Finalize(None, _kill_workers, exitpriority=100)


def _kill_workers() -> None:
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
