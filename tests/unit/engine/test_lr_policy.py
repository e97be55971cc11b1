import math

import pytest

from slowfast.engine.lr_policy import LrSchedule, learning_rate

COSINE = {"base_lr": 1.0, "max_epoch": 10, "cosine_end_lr": 0.1}


def rates(epochs, **settings):
    schedule = LrSchedule(**settings)
    return [learning_rate(epoch, schedule) for epoch in epochs]


def test_cosine_at_five_epochs():
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert rates([0, 2.5, 5, 10], **COSINE) == pytest.approx([1.0, quarter, 0.55, 0.1])


def test_warmup_is_a_line_to_the_value_where_it_ends():
    warm = {**COSINE, "warmup_epochs": 2, "warmup_start_lr": 0.2}
    end = learning_rate(2, LrSchedule(**COSINE))
    assert rates([0, 1, 2], **warm) == pytest.approx([0.2, (0.2 + end) / 2, end])
    assert rates([0, 1, 2, 6], **warm, cosine_after_warmup=True) == pytest.approx([0.2, 0.6, 1.0, 0.55])


def test_restart():
    assert rates([0, 2, 3.999999, 4, 6], **COSINE, cosine_restart_epoch=4) == pytest.approx([1, 0.55, 0.1, 1, 0.55])


def test_run_that_is_all_warmup():
    warm = {"base_lr": 1.0, "max_epoch": 2, "warmup_epochs": 2, "warmup_start_lr": 0.0, "cosine_after_warmup": True}
    assert rates([0, 1, 1.5], **warm) == pytest.approx([0.0, 0.5, 0.75])


SHARED = {"policy": "cosine_shared_end", "warmup_start_lr": 0.0}


@pytest.mark.parametrize(
    ("base", "epochs", "warmup", "after"),
    [(8e-6, 10, 5, 4.04e-6), (2.2e-5, 30, 5, 2.05e-5), (3.33e-6, 12, 2, 3.11e-6), (2e-6, 50, 5, 1.952e-6)],
)
def test_cosine_with_a_shared_end_drops_where_the_warmup_ends(base, epochs, warmup, after):
    """The figures of TC-CLIP's four protocols."""
    settings = {**SHARED, "base_lr": base, "cosine_end_lr": base / 100, "max_epoch": epochs, "warmup_epochs": warmup}
    schedule = LrSchedule(**settings)
    assert learning_rate(0, schedule) == 0.0
    assert learning_rate(warmup / 2, schedule) == pytest.approx(base / 2)
    assert learning_rate(warmup - 1e-9, schedule) == pytest.approx(base)
    assert learning_rate(warmup, schedule) == pytest.approx(after, rel=3e-3)
    assert learning_rate(epochs, schedule) == pytest.approx(base / 100)


def test_groups_of_other_factors_share_the_end():
    schedule = LrSchedule(**SHARED, base_lr=1.0, cosine_end_lr=0.1, max_epoch=8, warmup_epochs=2)
    assert [learning_rate(1, schedule, factor) for factor in (1.0, 10.0)] == pytest.approx([0.5, 5.0])
    assert [learning_rate(4, schedule, factor) for factor in (1.0, 10.0)] == pytest.approx([0.55, 5.05])
    assert [learning_rate(8, schedule, factor) for factor in (0.5, 1.0, 10.0)] == pytest.approx([0.1] * 3)


def test_without_warmup_the_shared_end_is_that_of_the_plain_cosine():
    plain, shared = LrSchedule(**COSINE), LrSchedule(**COSINE, policy="cosine_shared_end")
    for epoch in (0, 1.7, 5, 10):
        assert learning_rate(epoch, shared) == pytest.approx(learning_rate(epoch, plain))


@pytest.mark.parametrize("epoch", [0, 1, 3, 9])
def test_other_policies_multiply_by_the_factor(epoch):
    for schedule in (
        LrSchedule(**COSINE, warmup_epochs=2),
        LrSchedule(base_lr=0.5, max_epoch=9, policy="steps_with_relative_lrs", steps=(0, 3), lrs=(1, 0.1)),
    ):
        assert learning_rate(epoch, schedule, 3.0) == 3.0 * learning_rate(epoch, schedule)


def test_steps():
    settings = {"base_lr": 0.5, "max_epoch": 9, "policy": "steps_with_relative_lrs", "steps": (0, 3, 6)}
    found = rates([0, 2.99, 3, 5.5, 6, 100], **settings, lrs=(1, 0.1, 0.01))
    assert found == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_lr": 0.1, "cosine_end_lr": 0.1}, "SOLVER.COSINE_END_LR: 0.1 must be below SOLVER.BASE_LR"),
        ({"base_lr": 0.1, "policy": "linear"}, "SOLVER.LR_POLICY: unknown value 'linear'"),
        ({"base_lr": 0.1, "cosine_restart_epoch": -1}, "SOLVER.COSINE_RESTART_EPOCH: -1 is negative"),
        (
            {"base_lr": 0.1, "policy": "cosine_shared_end", "cosine_after_warmup": True},
            "SOLVER.LR_POLICY: 'cosine_shared_end' has one cosine",
        ),
        (
            {"base_lr": 0.1, "policy": "cosine_shared_end", "cosine_end_lr": 0.2},
            "SOLVER.COSINE_END_LR: 0.2 must be below",
        ),
        ({"base_lr": 1, "policy": "steps_with_relative_lrs"}, "SOLVER.LRS: 0 values for 0"),
        (
            {"base_lr": 1, "policy": "steps_with_relative_lrs", "steps": (0, 2), "lrs": (1,)},
            "SOLVER.LRS: 1 values for 2",
        ),
        (
            {"base_lr": 1, "policy": "steps_with_relative_lrs", "steps": (1,), "lrs": (1,)},
            "SOLVER.STEPS: .* start at 0",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LrSchedule(max_epoch=10, **settings)
