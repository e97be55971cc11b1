import json
import math
import re

import pytest

from slowfast.engine import meters

CLOCK = meters.IterationTime(total=2.0, data=0.5)


def sample(loss, *, top1=50.0, n=4, norm=1.0, **extra):
    return meters.TrainSample(loss=loss, top1_err=top1, top5_err=top1 / 2, num_samples=n, grad_norm=norm, extra=extra)


def test_train_iteration_line():
    meter = meters.TrainMeter(max_epoch=3, epoch_iters=10, window=3)
    for loss in (100.0, 1.0, 5.0, 2.0):
        meter.update(sample(loss, distillation=loss * 2))
    stats = meter.iteration_stats(1, 3, lr=0.1, clock=CLOCK)
    assert set(stats) == {
        "_type", "epoch", "iter", "dt", "dt_data", "dt_net", "eta", "loss", "lr", "grad_norm", "gpu_mem",
        "top1_err", "top5_err", "distillation",
    }  # fmt: skip
    assert (stats["_type"], stats["epoch"], stats["iter"]) == ("train_iter_", "2/3", "4/10")
    assert (stats["loss"], stats["distillation"], stats["top5_err"]) == (2.0, 4.0, 25.0)
    assert (stats["dt"], stats["dt_data"], stats["dt_net"]) == (2.0, 0.5, 1.5)
    assert stats["eta"] == "0:00:32"  # 30 - 14 iterations of 2 seconds
    assert re.fullmatch(r"\d+\.\d\dG", stats["gpu_mem"])


def test_train_epoch_line_weighs_by_samples():
    meter = meters.TrainMeter(max_epoch=2, epoch_iters=2, window=2)
    meter.update(sample(1.0, top1=100.0, n=3))
    meter.update(sample(5.0, top1=0.0, n=1))
    stats = meter.epoch_stats(0, lr=0.1, clock=CLOCK)
    assert (stats["_type"], stats["epoch"], stats["eta"]) == ("train_epoch", "1/2", "0:00:04")
    assert (stats["loss"], stats["top1_err"]) == (2.0, 75.0)
    assert re.fullmatch(r"\d+\.\d\d/\d+\.\d\dG", stats["RAM"])


def test_validation_keeps_the_best():
    meter = meters.ValMeter(max_epoch=4)
    found = [
        meter.epoch_stats(epoch, top1_err=error, top5_err=error / 2, seconds=1.0)
        for epoch, error in enumerate((40.0, 10.0, 30.0))
    ]
    assert [line["top1_err"] for line in found] == [40.0, 10.0, 30.0]
    assert [line["min_top1_err"] for line in found] == [40.0, 10.0, 10.0]
    assert found[2]["min_top5_err"] == 5.0
    assert (found[2]["_type"], found[2]["epoch"]) == ("val_epoch", "3/4")


def test_a_step_that_the_scaler_skipped_does_not_spoil_the_mean():
    meter = meters.TrainMeter(max_epoch=1, epoch_iters=2, window=2)
    meter.update(sample(1.0, norm=math.inf))
    meter.update(sample(3.0, norm=2.0))
    stats = meter.epoch_stats(0, lr=0.1, clock=CLOCK)
    assert (stats["loss"], stats["grad_norm"]) == (2.0, 2.0)


def test_test_lines():
    meter = meters.TestMeter(num_iters=5)
    assert meter.iteration_stats(1, seconds=2.0) == {
        "split": "test_iter", "cur_iter": "2", "eta": "0:00:06", "time_diff": 2.0
    }  # fmt: skip
    assert meter.final_stats({1: 83.456, 5: 100.0}) == {
        "split": "test_final", "top1_acc": "83.46", "top5_acc": "100.00"
    }  # fmt: skip


def test_timer_adds_up():
    timer = meters.IterationTimer()
    timer.data_ready()
    read = timer.read()
    assert read.total == pytest.approx(read.data + read.net)
    assert read.data >= 0


def test_loss_guard():
    guard = meters.LossGuard(3.0)
    for _ in range(5):
        guard.check(1.0, where="iter 1")
    guard.check(2.9, where="iter 6")
    with pytest.raises(FloatingPointError, match="iter 7: the loss 9"):
        guard.check(9.0, where="iter 7")


def test_an_epoch_goes_on():
    straight = meters.TrainMeter(max_epoch=1, epoch_iters=5, window=2)
    resumed = meters.TrainMeter(max_epoch=1, epoch_iters=5, window=2)
    straight.update(sample(100.0))
    straight.update(sample(1.0, n=3, term=2.0))
    resumed.load(straight.state())
    for meter in (straight, resumed):
        meter.update(sample(5.0, term=7.0))
    assert resumed.epoch_stats(0, lr=0.1, clock=CLOCK) == straight.epoch_stats(0, lr=0.1, clock=CLOCK)
    lines = [meter.iteration_stats(0, 2, lr=0.1, clock=CLOCK) for meter in (straight, resumed)]
    assert lines[0] == lines[1]
    guard, other = meters.LossGuard(2.0), meters.LossGuard(2.0)
    for _ in range(5):
        guard.check(1.0, where="")
    other.load(guard.state())
    with pytest.raises(FloatingPointError):
        other.check(3.0, where="")


def test_validations_of_a_log(tmp_path):
    path = tmp_path / "json_stats.log"
    assert meters.read_validations(path) == {}
    lines = [
        {"_type": "train_epoch", "epoch": "1/4", "loss": 1.0},
        {"_type": "val_epoch", "epoch": "1/4", "top1_err": 50.0, "top5_err": 10.0},
        {"_type": "train_epoch", "epoch": "2/4", "loss": 1.0},
        {"_type": "val_epoch", "epoch": "2/4", "top1_err": 40.0, "top5_err": 12.0},
        {"split": "test_final", "top1_acc": "50.00"},
        {"_type": "train_epoch", "epoch": "2/4", "loss": 1.0},  # of another run, or computed again
        {"_type": "train_epoch", "epoch": "3/4", "loss": 1.0},
    ]
    text = "".join(f"json_stats: {json.dumps(line)}\n" for line in lines)
    path.write_text(text + 'json_stats: {"_type": "val_epoch", "epoch": "3/4", "top1', encoding="utf-8")
    found = meters.read_validations(path)
    assert found == {0: {"top1_err": 50.0, "top5_err": 10.0}}
    alone = meters.ValMeter(max_epoch=4, alone=True).epoch_stats(0, top1_err=1.0, top5_err=0.0, seconds=1.0)
    path.write_text(text + f"json_stats: {json.dumps(alone)}\n", encoding="utf-8")
    assert meters.read_validations(path) == found  # VAL_MODE scores whatever it is given
    assert meters.least_errors(found.values()) == {"top1_err": 50.0, "top5_err": 10.0}
    meter = meters.ValMeter(max_epoch=4, best=meters.least_errors([{"top1_err": 50.0, "top5_err": 10.0}]))
    assert meter.epoch_stats(1, top1_err=60.0, top5_err=5.0, seconds=1.0)["min_top1_err"] == 50.0


def test_long_eta():
    assert meters.eta(90061.9) == "1 day, 1:01:01"
    assert meters.eta(-1) == "0:00:00"
