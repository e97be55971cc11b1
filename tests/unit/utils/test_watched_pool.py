import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from slowfast.utils.watched_pool import Outcome, run_watched

# The functions run in spawned processes, which find them in a module of their own.
MODULE = """
import os, signal, sys, time
from pathlib import Path

def act(task):
    if task == "hang":
        time.sleep(1000)
    if task == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "raise":
        raise ArithmeticError(task)
    if task == "leave":
        os._exit(3)
    return task * 2

def say_pid(task):
    return os.getpid()

def wait_for_ever(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(1000)
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "pool_jobs.py").write_text(MODULE)
    sys.path.insert(0, str(folder))  # spawned processes take over the path
    import pool_jobs

    yield pool_jobs
    sys.path.remove(str(folder))
    del sys.modules["pool_jobs"]


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    assert multiprocessing.active_children() == []


def run(*args, **options):
    return list(run_watched(*args, **{"workers": 2, "timeout_seconds": 60, **options}))


def test_every_task_has_one_outcome(jobs):
    outcomes = run(jobs.act, range(50))
    assert sorted(outcome.task for outcome in outcomes) == list(range(50))
    assert all(outcome == Outcome(task=outcome.task, value=outcome.task * 2) for outcome in outcomes)


def test_no_task_starts_no_process(jobs):
    assert run(jobs.act, []) == []


def test_processes_are_kept_and_no_more_than_needed(jobs):
    pids = {outcome.value for outcome in run(jobs.say_pid, range(20), workers=1)}
    assert len(pids) == 1
    assert len({outcome.value for outcome in run(jobs.say_pid, range(1), workers=2)}) == 1


def test_a_crash_or_a_hang_costs_its_task_only(jobs):
    tasks = [1, "segfault", 2, "hang", "leave", 3, 4]
    outcomes = {outcome.task: outcome for outcome in run(jobs.act, tasks, timeout_seconds=2)}
    assert [outcomes[task].value for task in (1, 2, 3, 4)] == [2, 4, 6, 8]
    assert outcomes["segfault"] == Outcome(task="segfault", failure="crash", detail="SIGSEGV")
    assert outcomes["hang"] == Outcome(task="hang", failure="timeout", detail="2 s")
    assert outcomes["leave"] == Outcome(task="leave", failure="crash", detail="exit status 3")


def test_an_exception_is_a_crash_and_is_printed(jobs, capfd):
    (outcome,) = run(jobs.act, ["raise"], workers=1)
    assert (outcome.failure, outcome.detail) == ("crash", "exit status 1")
    assert "ArithmeticError: raise" in capfd.readouterr().err


def test_an_idle_process_that_ended_is_replaced(jobs):
    def tasks():
        yield 1
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        yield 2

    with closing(run_watched(jobs.act, tasks(), workers=1, timeout_seconds=60)) as outcomes:
        assert [outcome.value for outcome in outcomes] == [2, 4]


def test_leaving_early_ends_the_processes(jobs):
    with closing(run_watched(jobs.act, [1, "hang", "hang"], workers=2, timeout_seconds=60)) as outcomes:
        assert next(outcomes).value == 2
        assert multiprocessing.active_children()
    assert multiprocessing.active_children() == []


def test_an_error_of_the_tasks_passes_through(jobs):
    def tasks():
        yield 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(jobs.act, tasks())


@pytest.mark.parametrize("options", [{"workers": 0}, {"timeout_seconds": 0}])
def test_refused_at_once(jobs, options):
    with pytest.raises(ValueError, match=r"found 0, allowed"):
        run_watched(jobs.act, [], **{"workers": 1, "timeout_seconds": 1, **options})


def test_a_process_that_cannot_start_is_an_error(tmp_path):
    script = tmp_path / "bare.py"
    script.write_text(
        "import os\nfrom slowfast.utils.watched_pool import run_watched\n"
        "print(list(run_watched(os.path.basename, ['a/b'], workers=1, timeout_seconds=60)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("RuntimeError: a worker process ended before it was ready")


SCRIPT = """
import pool_jobs, sys
from slowfast.utils.watched_pool import run_watched

if __name__ == "__main__":
    list(run_watched(pool_jobs.wait_for_ever, [sys.argv[1]] * 2, workers=2, timeout_seconds=1000))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
def test_an_interrupt_ends_everything_at_once(jobs, tmp_path, whole_group):
    script = Path(jobs.__file__).with_name("waiting.py")
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(pids := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if whole_group:
        os.killpg(parent.pid, signal.SIGINT)
    else:
        parent.send_signal(signal.SIGINT)
    error = parent.communicate(timeout=60)[1].decode()
    assert error.count("KeyboardInterrupt") == 1  # only the parent's
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
