"""One run at a time in a folder, whatever becomes of the run before."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from slowfast.utils.run_lock import LOCK_FILE, run_lock

HOLD = """
import sys, time
from slowfast.utils.run_lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""
TRY = "import sys; from slowfast.utils.run_lock import run_lock\nwith run_lock(sys.argv[1]): print('held')"


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_is_held_once(holder, tmp_path):
    with pytest.raises(
        ValueError, match=f"^OUTPUT_DIR: {re.escape(str(tmp_path))} is in use by process {holder.pid} on "
    ):
        run_lock(tmp_path).__enter__()
    assert holder.poll() is None


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_its_process(holder, tmp_path, signum):
    holder.send_signal(signum)
    holder.wait()
    with run_lock(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text(encoding="utf-8").startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / LOCK_FILE).exists()


def test_children_do_not_keep_it(tmp_path):
    with run_lock(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
    try:
        done = subprocess.run([sys.executable, "-c", TRY, tmp_path], capture_output=True, text=True, check=False)
        assert done.stdout == "held\n"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_folder_is_made(tmp_path):
    with run_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK_FILE).is_file()


def test_a_file_that_its_holder_removes_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    from slowfast.utils import run_lock as module

    lock, calls = module._lock, []

    def slow(file, path):
        calls.append(1)
        if len(calls) == 1:
            path.unlink()  # its holder ends between our opening and our locking
        lock(file, path)

    monkeypatch.setattr(module, "_lock", slow)
    with run_lock(tmp_path):
        assert (tmp_path / LOCK_FILE).is_file()
    assert len(calls) == 2


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    import fcntl

    def refuse(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with run_lock(tmp_path):
        pass
    assert "cannot be locked ([Errno 38] Function not implemented)" in caplog.text
