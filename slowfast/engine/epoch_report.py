"""Figures of the steps of an epoch: collected without waiting for the device, exchanged and logged now and then."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slowfast.datasets.types import Batch
from slowfast.engine.meters import IterationTime, IterationTimer, LossGuard, TrainMeter, TrainSample
from slowfast.engine.step import StepResult
from slowfast.engine.train_config import TrainConfig
from slowfast.utils.distributed import all_gather_objects, all_gather_table, is_master
from slowfast.utils.logging import log_json_stats

_COLUMNS = ("samples", "nonfinite", "loss", "grad_norm", "top1_err", "top5_err")


@dataclass(frozen=True, kw_only=True, slots=True)
class NonfiniteStep:
    """A step that was left out, as every process knows it.

    Attributes:
        iteration: from 0, in its epoch.
        first: videos of the epoch, over all processes, that came before the step.
        rank: the first process whose loss is not finite; 0 if it is the gradient alone.
        what: "the loss is nan", for instance.
        video_ids: the videos of that process in that step.
    """

    iteration: int
    first: int
    rank: int
    what: str
    video_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What an exchange brought to light, the same on every process."""

    bad_videos: tuple[str, ...]
    """Reports of undecodable videos."""
    nonfinite: tuple[NonfiniteStep, ...]
    """Steps that were left out."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """A step whose figures are still on the device."""

    iteration: int
    first: int
    result: StepResult
    samples: int
    video_ids: torch.Tensor


class EpochReport:
    """Figures of the steps of an epoch; the only place that waits for the device, once per LOG_PERIOD.

    Args:
        config: numbers of the run.
        epoch: from 0.
        num_iters: iterations of the epoch.
        on_scalars: called on rank 0 with (global step, figures) at every report.
        state: of the report of the same epoch that was interrupted.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        epoch: int,
        num_iters: int,
        on_scalars: Callable[[int, Mapping[str, float]], None] | None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.epoch, self.num_iters = config, epoch, num_iters
        self.on_scalars = on_scalars
        self.meter = TrainMeter(max_epoch=config.max_epoch, epoch_iters=num_iters, window=config.log_period)
        self.guard = LossGuard(config.loss_explosion_factor)
        self.timer = IterationTimer()
        self.rate = 0.0
        self.iteration = -1
        self.pending: list[_Noted] = []
        self.pending_bad: list[str] = []
        self.clock = _Clock()
        self.epoch_clock = _Clock()
        if state is not None:
            self.meter.load(state["meter"])
            self.guard.load(state["guard"])
            self.rate, self.iteration = state["rate"], state["iteration"]
            self.clock, self.epoch_clock = _Clock(*state["clock"]), _Clock(*state["epoch_clock"])

    def state(self) -> dict[str, Any]:
        """What an interrupted epoch goes on with; only right after `exchange`."""
        assert not self.pending, "figures are still on the device"
        return {
            "meter": self.meter.state(),
            "guard": self.guard.state(),
            "rate": self.rate,
            "iteration": self.iteration,
            "clock": self.clock.sums,
            "epoch_clock": self.epoch_clock.sums,
        }

    def data_ready(self) -> None:
        """The loader has delivered a batch."""
        self.timer.data_ready()

    def add(self, iteration: int, result: StepResult, *, batch: Batch, rate: float, first: int) -> None:
        """Note a step, before which `first` videos of the epoch were seen; nothing waits for the device."""
        self.iteration, self.rate = iteration, rate
        self.pending.append(_Noted(iteration, first, result, len(batch), batch.video_id))
        self.pending_bad.extend(batch.bad)
        time = self.timer.read()
        self.clock.add(time)
        self.epoch_clock.add(time)
        self.timer.start()

    def exchange(self) -> Findings:
        """Exchange the noted figures between the processes; every process does at the same step.

        Raises:
            FloatingPointError: if the loss explodes.
        """
        lines = [line for part in all_gather_objects(self.pending_bad) for line in part]
        nonfinite = self._exchange_figures() if self.pending else ()
        self.pending.clear()
        self.pending_bad.clear()
        return Findings(tuple(sorted(set(lines))), tuple(nonfinite))

    def log(self) -> None:
        """Log the medians of the last iterations, every LOG_PERIOD iterations; right after `exchange`."""
        stats = self.meter.iteration_stats(self.epoch, self.iteration, lr=self.rate, clock=self.clock.mean())
        if (self.iteration + 1) % self.config.log_period == 0:
            log_json_stats(stats)
        if self.on_scalars is not None and is_master():
            step = self.epoch * self.num_iters + self.iteration
            self.on_scalars(step, {f"train/{k}": v for k, v in stats.items() if isinstance(v, float)})
        self.clock = _Clock()

    def end(self) -> None:
        """Log the averages of the epoch, on the console and in json_stats.log."""
        stats = self.meter.epoch_stats(self.epoch, lr=self.rate, clock=self.epoch_clock.mean())
        log_json_stats(stats, self.config.output_dir)

    def _exchange_figures(self) -> list[NonfiniteStep]:
        """Give the meter the figures of every step over the samples of all ranks; returns the steps left out."""
        names = sorted(self.pending[0].result.terms)
        rows = []
        for noted in self.pending:
            r = noted.result
            known = (r.loss.new_tensor(noted.samples), r.nonfinite, r.loss, r.grad_norm, r.top1_err, r.top5_err)
            rows.append(torch.stack([value.float() for value in (*known, *(r.terms[name] for name in names))]))
        tables = all_gather_table(torch.stack(rows)).tolist()  # (rank, step, figure)
        nonfinite = []
        for place, noted in enumerate(self.pending):
            ranks = [dict(zip((*_COLUMNS, *names), table[place], strict=True)) for table in tables]
            if ranks[0]["nonfinite"]:
                nonfinite.append((noted, *_first_fault(ranks)))
                continue
            sample = _over_ranks(ranks, names)
            self.guard.check(sample.loss, where=f"epoch {self.epoch + 1}, iteration {noted.iteration + 1}")
            self.meter.update(sample)
        if not nonfinite:
            return []
        ids = all_gather_objects([noted.video_ids.tolist() for noted, _, _ in nonfinite])
        return [
            NonfiniteStep(
                iteration=noted.iteration,
                first=noted.first,
                rank=rank,
                what=what,
                video_ids=tuple(ids[rank][number]),
            )
            for number, (noted, rank, what) in enumerate(nonfinite)
        ]


class _Clock:
    """Sums of the times of iterations."""

    def __init__(self, total: float = 0.0, data: float = 0.0, count: int = 0) -> None:
        self.sums = (total, data, count)

    def add(self, time: IterationTime) -> None:
        total, data, count = self.sums
        self.sums = (total + time.total, data + time.data, count + 1)

    def mean(self) -> IterationTime:
        total, data, count = self.sums
        return IterationTime(total=total / max(1, count), data=data / max(1, count))


def _first_fault(ranks: Sequence[Mapping[str, float]]) -> tuple[int, str]:
    """Which process, and what of it, made a step useless."""
    for rank, figures in enumerate(ranks):
        if not math.isfinite(figures["loss"]):
            return rank, f"the loss is {figures['loss']}"
    return 0, f"the norm of the gradient is {ranks[0]['grad_norm']}"


def _over_ranks(ranks: Sequence[Mapping[str, float]], names: Sequence[str]) -> TrainSample:
    """Means over the samples of all ranks, which may have unequal numbers; the gradient's norm is the same on each."""
    total = sum(figures["samples"] for figures in ranks)

    def mean(name: str) -> float:
        return sum(figures[name] * (figures["samples"] / total) for figures in ranks)

    return TrainSample(
        loss=mean("loss"),
        grad_norm=ranks[0]["grad_norm"],
        top1_err=mean("top1_err"),
        top5_err=mean("top5_err"),
        num_samples=int(total),
        extra={name: mean(name) for name in names},
    )
