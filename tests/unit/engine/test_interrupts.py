"""A signal ends a process at once, or when what must not be cut short is done."""

# ruff: noqa: PT012, SIM117 (the blocks are what is tested)

import json
import os
import signal
import subprocess
import sys

import pytest

from slowfast.engine.interrupts import EXIT_STATUS, Interrupted, Interrupts, signals_held

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "status"), [*zip(SIGNALS, [143, 143, 130], strict=True)])
def test_at_once(signum, status):
    with Interrupts(), pytest.raises(Interrupted) as caught:
        send(signum)
    assert (caught.value.signum, caught.value.status) == (signum, status)
    assert str(caught.value) == f"ended by {signum.name}"


def test_handlers_are_restored():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with Interrupts():
        assert [signal.getsignal(signum) for signum in SIGNALS] != before
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


@pytest.mark.parametrize("signum", SIGNALS)
def test_deferred_until_the_end_of_the_block(signum):
    done = []
    with Interrupts() as interrupts, pytest.raises(Interrupted):
        with interrupts.deferred():
            send(signum)
            done.append(interrupts.pending)
        done.append("not reached")
    assert done == [signum]


def test_the_first_signal_counts_and_a_second_does_not_cut_the_block_short():
    done = []
    with Interrupts() as interrupts, pytest.raises(Interrupted) as caught:
        with interrupts.deferred():
            for signum in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
                send(signum)
            done.append(1)
    assert (done, caught.value.signum) == ([1], signal.SIGTERM)


def test_one_ctrl_c_that_comes_twice_is_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("slowfast.engine.interrupts.time.monotonic", lambda: clock[0])
    done = []
    with Interrupts() as interrupts, pytest.raises(Interrupted):
        with interrupts.deferred():
            send(signal.SIGINT)
            send(signal.SIGINT)  # the terminal's, and the launcher's
            done.append("once")
            clock[0] = 3.0
            send(signal.SIGINT)  # a person's second one
            done.append("not reached")
    assert done == ["once"]


def test_immediate_parts_of_a_deferred_block():
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted), interrupts.deferred():
            with interrupts.immediate():
                done.append(1)
            send(signal.SIGTERM)
            done.append(2)
            with interrupts.immediate():
                done.append("not reached")
        interrupts.pending = None
        with pytest.raises(Interrupted), interrupts.deferred(), interrupts.immediate():
            send(signal.SIGTERM)
            done.append("not reached")
    assert done == [1, 2]


def test_an_error_goes_first():
    with Interrupts() as interrupts, pytest.raises(ValueError, match="mine"), interrupts.deferred():
        send(signal.SIGTERM)
        raise ValueError("mine")


HELD = "import signal; print(sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, set())))"


def test_a_started_process_inherits_that_signals_wait():
    with signals_held():
        inside = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout
    after = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout
    assert set(EXIT_STATUS) <= set(json.loads(inside))
    assert not set(EXIT_STATUS) & set(json.loads(after))


WAITING = """
import signal, time
from slowfast.engine.interrupts import Interrupted, Interrupts
print("started", flush=True)
time.sleep(0.5)
try:
    with Interrupts():
        time.sleep(60)
except Interrupted as end:
    raise SystemExit(end.status)
"""


def test_a_signal_that_comes_too_early_is_received_later():
    with signals_held():
        process = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
