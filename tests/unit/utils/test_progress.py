import logging
import sys

import pytest

from slowfast.utils import progress
from slowfast.utils.progress import Progress


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("slowfast"), "propagate", True)
    caplog.set_level(logging.INFO, "slowfast")
    return caplog


def run():
    with Progress(3, doing="inspect", unit="video") as counter:
        counter.step()
        counter.step(failed=True)


def test_no_bar_and_few_lines_without_a_terminal(log, capfd):
    run()
    assert log.messages == []
    assert capfd.readouterr().err == ""


def test_a_line_now_and_then(log, monkeypatch):
    monkeypatch.setattr(progress, "LOG_PERIOD_SECONDS", 0.0)
    run()
    assert log.messages == ["inspect: 1 of 3 videos, 0 failed", "inspect: 2 of 3 videos, 1 failed"]


def test_a_bar_on_a_terminal(log, monkeypatch, capfd):
    monkeypatch.setattr(progress, "LOG_PERIOD_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run()
    assert "2/3" in capfd.readouterr().err
    assert log.messages == []
