"""The schedule against values recorded from the reference.

The file stores epochs and rates, not the settings; these are read off the recorded curve and then have to reproduce
every other point of all three curves.
"""

import math
import re

import pytest

from slowfast.engine.lr_policy import LrSchedule, learning_rate


@pytest.fixture(scope="module")
def recorded(golden):
    return golden["lr"]


@pytest.fixture(scope="module")
def settings(recorded):
    epochs, cosine = recorded["epochs"], recorded["cosine"]
    peak = max(range(len(epochs)), key=cosine.__getitem__)
    last = max(range(len(epochs)), key=epochs.__getitem__)
    base, warmup, max_epoch = cosine[peak], epochs[peak], math.ceil(epochs[last] + 1e-9)
    share = 0.5 * (1 + math.cos(math.pi * (epochs[last] - warmup) / (max_epoch - warmup)))
    return {
        "base_lr": base,
        "max_epoch": max_epoch,
        "warmup_epochs": warmup,
        "warmup_start_lr": cosine[epochs.index(0)],
        "cosine_end_lr": (cosine[last] - share * base) / (1 - share),
        "cosine_after_warmup": True,
    }


def curve(recorded, **settings):
    schedule = LrSchedule(**settings)
    return [learning_rate(epoch, schedule) for epoch in recorded["epochs"]]


def test_cosine(recorded, settings):
    assert curve(recorded, **settings) == pytest.approx(recorded["cosine"], rel=1e-6)


def test_restart(recorded, settings):
    names = [name for name in recorded if name.startswith("restart")]
    assert names
    for name in names:
        period = int(re.sub(r"\D", "", name))
        assert curve(recorded, **settings, cosine_restart_epoch=period) == pytest.approx(recorded[name], rel=1e-6)


def test_cosine_that_starts_at_epoch_zero(recorded, settings):
    found = curve(recorded, **{**settings, "cosine_after_warmup": False})
    assert found == pytest.approx(recorded["not_after_warmup"], rel=1e-6)
