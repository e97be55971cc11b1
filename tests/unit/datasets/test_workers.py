"""A loader's workers outlive signals to the group, but not the process that they serve."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from slowfast.datasets.workers import shield_worker

SERVE = """
import os, signal, sys, time
from torch.utils.data import DataLoader
from slowfast.datasets.workers import bury_workers_at_exit, shield_worker

class Slow:
    def __len__(self): return 8
    def __getitem__(self, index):
        os.write(1, f"worker {os.getpid()}\\n".encode())  # one write: two processes speak
        time.sleep(600 if index == 3 else 0.05)
        return index

if __name__ == "__main__":
    bury_workers_at_exit()
    signal.signal(signal.SIGTERM, lambda *args: None)
    signal.signal(signal.SIGINT, lambda *args: None)
    loader = iter(DataLoader(Slow(), num_workers=1, worker_init_fn=shield_worker, prefetch_factor=1))
    for _ in range(3):
        os.write(1, f"got {int(next(loader))}\\n".encode())
        sys.stdin.readline()
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def service():
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def read(process, word):
    while not (line := process.stdout.readline()).startswith(word):
        assert line, "it ended"
    return line.split()[1]


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_signals_to_the_group_do_not_take_the_batches(service):
    worker = int(read(service, "worker"))
    assert read(service, "got") == "0"
    for signum in (signal.SIGTERM, signal.SIGINT):
        os.killpg(service.pid, signum)
    go_on(service)
    assert read(service, "got") == "1"
    assert is_alive(worker)


def test_a_hanging_worker_does_not_outlive_its_process_or_hold_it_up(service):
    worker = int(read(service, "worker"))
    for number in range(3):
        assert read(service, "got") == str(number)
        go_on(service)
    assert service.wait(timeout=60) == 0
    assert not is_alive(worker)


def test_a_worker_obeys_its_process():
    class Item(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return os.getpid()

    loader = torch.utils.data.DataLoader(Item(), num_workers=1, worker_init_fn=shield_worker, persistent_workers=True)
    (pid,) = (int(batch) for batch in loader)
    (process,) = [child for child in torch.multiprocessing.active_children() if child.pid == pid]
    del loader
    process.terminate()
    process.join(timeout=30)
    assert process.exitcode == 0
