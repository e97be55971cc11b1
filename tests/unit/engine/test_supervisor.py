"""What is told of the end of several processes."""

import multiprocessing
import os
import signal
import time

import pytest
from torch.multiprocessing import ProcessRaisedException

from slowfast.engine.interrupts import Interrupted
from slowfast.engine.lost_contact import LostProcessError, is_lost_contact, worker_losses_named
from slowfast.engine.supervisor import Report, SignalRelay, supervise

CONTEXT = multiprocessing.get_context("fork")


def end(status):
    os._exit(status)


def die(signum):
    os.kill(os.getpid(), signum)
    time.sleep(60)


def stay(_):
    time.sleep(600)


def say(reports, report):
    reports.put(report)
    os._exit(1)


@pytest.fixture
def watch():
    """Starts a process for each (function, arguments) and supervises them."""

    def run(*jobs, first_rank=0, grace_seconds=0.2, reports=None):
        reports = reports or CONTEXT.SimpleQueue()
        processes = [CONTEXT.Process(target=function, args=arguments) for function, arguments in jobs]
        with SignalRelay() as relay:
            for process in processes:
                process.start()
            try:
                supervise(processes, reports, relay, first_rank=first_rank, grace_seconds=grace_seconds)
            finally:
                assert not any(process.is_alive() for process in processes)

    return run


def test_all_is_well(watch):
    watch((end, (0,)), (end, (0,)))


@pytest.mark.parametrize("place", [0, 1])
def test_a_killed_process_is_the_reason_whatever_the_others_say(watch, place):
    jobs = [(stay, (0,)), (stay, (0,))]
    jobs[place] = (die, (signal.SIGKILL,))
    with pytest.raises(LostProcessError, match=f"^rank {4 + place} was killed by SIGKILL; the run has ended$"):
        watch(*jobs, first_rank=4)


def test_a_status_is_told_where_nothing_else_is(watch):
    with pytest.raises(LostProcessError, match=r"^rank 1 ended with exit status 7; the run has ended$"):
        watch((stay, (0,)), (end, (7,)))


@pytest.mark.parametrize(
    ("reports", "error", "text"),
    [
        ([(0, "lost", "rank 0 lost contact"), (1, "user", "a.csv: no such file")], ValueError, "^a.csv: no such file$"),
        (
            [(0, "lost", "rank 0 lost contact"), (1, "defect", "Traceback: KeyError")],
            ProcessRaisedException,
            "KeyError",
        ),
        ([(0, "lost", "rank 0 lost contact with rank 2")], LostProcessError, "^rank 0 lost contact with rank 2$"),
    ],
)
def test_the_cause_is_told_before_its_effects(watch, reports, error, text):
    queue = CONTEXT.SimpleQueue()
    with pytest.raises(error, match=text):
        watch(*[(say, (queue, Report(*report))) for report in reports], reports=queue, grace_seconds=10)


@pytest.mark.parametrize(("status", "signum"), [(143, signal.SIGTERM), (130, signal.SIGINT)])
def test_processes_that_were_told_to_end(watch, status, signum):
    with pytest.raises(Interrupted) as caught:
        watch((end, (status,)), (end, (status,)))
    assert caught.value.status == status
    assert signum in (caught.value.signum, signal.SIGTERM)


def test_a_signal_is_passed_on_even_if_it_came_first():
    with SignalRelay() as relay:
        os.kill(os.getpid(), signal.SIGTERM)
        process = CONTEXT.Process(target=stay, args=(0,))
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what a new process would have
        process.start()
        signal.signal(signal.SIGTERM, before)
        with pytest.raises(Interrupted) as caught:
            supervise([process], CONTEXT.SimpleQueue(), relay)
    assert caught.value.signum == signal.SIGTERM


def test_what_hangs_is_killed_after_the_grace(watch):
    with pytest.raises(LostProcessError, match="rank 0 ended with exit status 1"):
        watch((end, (1,)), (stay, (0,)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:9", True),
        ("NCCL communicator was aborted on rank 1", True),
        ("NCCL error: invalid usage, duplicate GPU detected", False),
        ("[enforce fail at ../third_party/gloo/gloo/transport/tcp/pair.cc:454] op.preamble.length <= op.nbytes", False),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
    ],
)
def test_lost_contact_is_known_by_its_text(text, expected):
    assert is_lost_contact(RuntimeError(text)) == expected


def test_a_killed_worker_is_one_line():
    text = "DataLoader worker (pid 12) is killed by signal: Killed. \nmore"
    with pytest.raises(LostProcessError) as caught, worker_losses_named(3):
        raise RuntimeError(text)
    assert str(caught.value) == "a worker process of rank 3 is killed by signal: Killed; the run has ended"
    with pytest.raises(RuntimeError, match="other"), worker_losses_named(3):
        raise RuntimeError("other")
