"""Running statistics and the JSON lines of a run, under PySlowFast's keys.

The meters hold plain Python numbers. Whoever feeds them reduces its tensors first, once per LOG_PERIOD.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class IterationTime:
    """Seconds of one iteration: all of it, waiting for data, and the rest."""

    total: float
    data: float

    @property
    def net(self) -> float:
        """Seconds spent on anything but waiting for data."""
        return self.total - self.data


class IterationTimer:
    """Clock of the training loop."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """An iteration begins: the loop asks for a batch."""
        self._start = self._data = time.perf_counter()

    def data_ready(self) -> None:
        """The batch is here."""
        self._data = time.perf_counter()

    def read(self) -> IterationTime:
        """Seconds since `start`."""
        return IterationTime(total=time.perf_counter() - self._start, data=self._data - self._start)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSample:
    """Numbers of one training iteration, reduced over the ranks.

    Attributes:
        loss: total loss.
        top1_err: percent.
        top5_err: percent.
        num_samples: samples of the global batch, the weight in the epoch's averages.
        grad_norm: L2 norm before clipping.
        extra: more scalars by name, for instance the terms of the loss.
    """

    loss: float
    top1_err: float
    top5_err: float
    num_samples: int
    grad_norm: float
    extra: Mapping[str, float] = field(default_factory=dict)


class _Scalars:
    """Windows and weighted sums of named scalars."""

    def __init__(self, window: int) -> None:
        self._window = max(1, window)
        self._recent: dict[str, deque[float]] = {}
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, float], *, weight: float) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                continue  # the norm of a step that the gradient scaler left out
            self._recent.setdefault(name, deque(maxlen=self._window)).append(value)
            self._sums[name] = self._sums.get(name, 0.0) + value * weight
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def state(self) -> dict[str, Any]:
        recent = {name: list(values) for name, values in self._recent.items()}
        return {"recent": recent, "sums": dict(self._sums), "weights": dict(self._weights)}

    def load(self, state: Mapping[str, Any]) -> None:
        self._recent = {name: deque(values, maxlen=self._window) for name, values in state["recent"].items()}
        self._sums, self._weights = dict(state["sums"]), dict(state["weights"])

    def medians(self) -> dict[str, float]:
        return {name: float(statistics.median(values)) for name, values in self._recent.items()}

    def means(self) -> dict[str, float]:
        return {name: total / self._weights[name] for name, total in self._sums.items() if self._weights[name]}


class TrainMeter:
    """Statistics of training: medians over the last iterations, averages over the epoch.

    Args:
        max_epoch: length of the run, epochs.
        epoch_iters: iterations of an epoch.
        window: iterations of the medians (LOG_PERIOD).
    """

    def __init__(self, *, max_epoch: int, epoch_iters: int, window: int) -> None:
        self._max_epoch, self._epoch_iters = max_epoch, epoch_iters
        self._scalars = _Scalars(window)

    def state(self) -> dict[str, Any]:
        """What an interrupted epoch goes on with: plain numbers, lists and dictionaries."""
        return self._scalars.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with an interrupted epoch."""
        self._scalars.load(state)

    def update(self, sample: TrainSample) -> None:
        """Add one iteration."""
        values = {
            **sample.extra,
            "loss": sample.loss,
            "top1_err": sample.top1_err,
            "top5_err": sample.top5_err,
            "grad_norm": sample.grad_norm,
        }
        self._scalars.add(values, weight=sample.num_samples)

    def iteration_stats(self, epoch: int, iteration: int, *, lr: float, clock: IterationTime) -> dict[str, object]:
        """Line of an iteration.

        Args:
            epoch: 0-based.
            iteration: 0-based within the epoch.
            lr: current learning rate.
            clock: seconds of this iteration.
        """
        done = epoch * self._epoch_iters + iteration + 1
        return {
            "_type": "train_iter_",
            "epoch": f"{epoch + 1}/{self._max_epoch}",
            "iter": f"{iteration + 1}/{self._epoch_iters}",
            **self._clock(clock, done=done),
            **self._scalars.medians(),
            "lr": lr,
            "gpu_mem": gpu_memory(),
        }

    def epoch_stats(self, epoch: int, *, lr: float, clock: IterationTime) -> dict[str, object]:
        """Line of an epoch.

        Args:
            epoch: 0-based, just finished.
            lr: learning rate of its last iteration.
            clock: seconds of its last (or mean) iteration.
        """
        return {
            "_type": "train_epoch",
            "epoch": f"{epoch + 1}/{self._max_epoch}",
            **self._clock(clock, done=(epoch + 1) * self._epoch_iters),
            **self._scalars.means(),
            "lr": lr,
            "gpu_mem": gpu_memory(),
            "RAM": ram(),
        }

    def _clock(self, clock: IterationTime, *, done: int) -> dict[str, object]:
        left = self._max_epoch * self._epoch_iters - done
        return {"dt": clock.total, "dt_data": clock.data, "dt_net": clock.net, "eta": eta(clock.total * left)}


class ValMeter:
    """Errors on the validation split, and the best so far.

    Args:
        max_epoch: length of the run, epochs.
        best: least errors of the passes before, by name.
        alone: nothing is trained (VAL_MODE); the lines say so, and are none of the training's.
    """

    def __init__(self, *, max_epoch: int, best: Mapping[str, float] | None = None, alone: bool = False) -> None:
        self._max_epoch, self._alone = max_epoch, alone
        self._best: dict[str, float] = dict(best or {})

    def epoch_stats(self, epoch: int, *, top1_err: float, top5_err: float, seconds: float) -> dict[str, object]:
        """Line of a finished pass.

        Args:
            epoch: 0-based.
            top1_err: percent of the split.
            top5_err: percent of the split.
            seconds: mean time of a batch.
        """
        errors = {"top1_err": top1_err, "top5_err": top5_err}
        self._best = least_errors([self._best, errors])
        return {
            "_type": "val_epoch",
            "epoch": f"{epoch + 1}/{self._max_epoch}",
            "time_diff": seconds,
            **errors,
            **{f"min_{name}": self._best[name] for name in errors},
            **({"val_mode": True} if self._alone else {}),
            "gpu_mem": gpu_memory(),
            "RAM": ram(),
        }


class TestMeter:
    """Lines of a test run.

    Args:
        num_iters: batches of the test loader.
    """

    __test__ = False  # pytest would take the name for a test

    def __init__(self, *, num_iters: int) -> None:
        self._num_iters = num_iters

    def iteration_stats(self, iteration: int, *, seconds: float) -> dict[str, object]:
        """Line of a test batch; `iteration` is 0-based."""
        return {
            "split": "test_iter",
            "cur_iter": str(iteration + 1),
            "eta": eta(seconds * (self._num_iters - iteration - 1)),
            "time_diff": seconds,
        }

    def final_stats(self, accuracies: Mapping[int, float]) -> dict[str, object]:
        """Line of the result.

        Args:
            accuracies: k -> top-k accuracy, percent; written as strings of two decimals.
        """
        return {"split": "test_final", **{f"top{k}_acc": f"{value:.2f}" for k, value in accuracies.items()}}


class LossGuard:
    """Stops a run whose loss explodes (TRAIN.KILL_LOSS_EXPLOSION_FACTOR).

    Args:
        factor: limit relative to the mean of the previous five losses; 0 never stops.
    """

    def __init__(self, factor: float = 0.0) -> None:
        self._factor = factor
        self._recent: deque[float] = deque(maxlen=5)

    def state(self) -> list[float]:
        """What an interrupted epoch goes on with."""
        return list(self._recent)

    def load(self, state: Sequence[float]) -> None:
        """Go on with an interrupted epoch."""
        self._recent.extend(state)

    def check(self, loss: float, *, where: str) -> None:
        """Look at one loss.

        Args:
            loss: total loss of an iteration, finite.
            where: the iteration, for the error.

        Raises:
            FloatingPointError: if training has diverged.
        """
        if self._factor > 0 and len(self._recent) == self._recent.maxlen:
            mean = statistics.fmean(self._recent)
            if loss > self._factor * mean:
                raise FloatingPointError(
                    f"{where}: the loss {loss:.4f} is above TRAIN.KILL_LOSS_EXPLOSION_FACTOR {self._factor} times "
                    f"the mean {mean:.4f} of the previous five"
                )
        self._recent.append(loss)


def read_validations(path: str | Path) -> dict[int, dict[str, float]]:
    """Find out from a json_stats.log which epochs of a run were validated.

    Args:
        path: the log; an absent one holds none. Lines of an epoch before its last training are of an earlier run,
            those of VAL_MODE of whatever weights it was given.

    Returns: epoch, from 0 -> {"top1_err", "top5_err"}, percent.
    """
    found: dict[int, dict[str, float]] = {}
    if not Path(path).is_file():
        return found
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            stats = json.loads(line[line.find("{") :])
            epoch = int(str(stats["epoch"]).partition("/")[0]) - 1
            if stats["_type"] == "train_epoch":
                found.pop(epoch, None)
            elif stats["_type"] == "val_epoch" and not stats.get("val_mode"):
                found[epoch] = {name: float(stats[name]) for name in ("top1_err", "top5_err")}
        except (ValueError, KeyError, TypeError):
            continue  # lines of a test, and what an interrupted write left
    return found


def least_errors(passes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Least value of every error over some passes."""
    best: dict[str, float] = {}
    for errors in passes:
        for name, value in errors.items():
            best[name] = min(value, best.get(name, value))
    return best


def eta(seconds: float) -> str:
    """Remaining time as "[d days, ]h:mm:ss"."""
    return str(datetime.timedelta(seconds=int(max(0.0, seconds))))


def gpu_memory() -> str:
    """Peak memory that torch took on this process's GPU, "x.xxG"; 0 without one."""
    used = torch.cuda.max_memory_allocated() / _GIB if torch.cuda.is_initialized() else 0.0
    return f"{used:.2f}G"


def ram() -> str:
    """Memory of the machine, "used/totalG"; zeros where the system does not tell."""
    info = Path("/proc/meminfo")
    if os.name != "posix" or not info.is_file():
        return "0.00/0.00G"
    fields = dict(line.split(":", 1) for line in info.read_text(encoding="ascii").splitlines() if ":" in line)
    total, available = (int(fields[name].split()[0]) * 1024 / _GIB for name in ("MemTotal", "MemAvailable"))
    return f"{total - available:.2f}/{total:.2f}G"
