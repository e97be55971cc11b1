"""The training loop. There is one, for every method."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from slowfast.datasets.types import VideoBatch
from slowfast.engine.checkpoint import is_checkpoint_due, prune_checkpoints, save_checkpoint
from slowfast.engine.lr_policy import LrSchedule, learning_rate
from slowfast.engine.meters import IterationTime, IterationTimer, LossGuard, TrainMeter, TrainSample
from slowfast.engine.optim import set_learning_rate
from slowfast.engine.step import Step, StepResult
from slowfast.methods.base import Method
from slowfast.models.clip.layers import activation_of
from slowfast.utils.distributed import all_gather_objects, all_reduce_sum, get_world_size, is_master
from slowfast.utils.logging import get_logger, log_json_stats
from slowfast.utils.seed import derive_seed, seed_everything

logger = get_logger(__name__)


class TrainLoader(Protocol):
    """What the loop needs of a loader."""

    def __len__(self) -> int:
        """Batches per epoch of this process."""

    def __iter__(self) -> Iterator[VideoBatch]:
        """Batches of the current epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Numbers of a run."""

    max_epoch: int
    log_period: int
    """Iterations between two reports; ranks exchange figures and check for NaN only then."""
    eval_period: int
    checkpoint_period: int
    """Epochs."""
    keep_last_checkpoints: int
    """Newest checkpoints to keep; 0 keeps all."""
    output_dir: Path
    task: str
    seed: int
    num_videos: int
    """Videos of the training split."""
    max_bad_fraction: float
    """Share of them that may be undecodable."""
    loss_explosion_factor: float
    """Stop when the loss exceeds this many times its recent mean; 0 never stops."""
    config_text: str
    """The configuration as YAML text, for the checkpoints."""


class Trainer:
    """Trains a method: epochs, schedule, reports, validation, checkpoints.

    Args:
        method: the unwrapped method; its wrapper, if any, belongs to the step.
        step: moves the parameters by one batch.
        optimizer: of the step.
        scaler: of the step.
        schedule: learning rate over time.
        device: where batches go; the only place where they move.
        config: numbers of the run.
        set_epoch: tells the loader's sampler which epoch comes.
        validate: scores the validation split after an epoch, or None.
        on_scalars: called on rank 0 with (global step, figures) at every report, for a log other than the console.
        mix: changes each batch on the device, after the random generators are seeded for the step; None: nothing.
    """

    def __init__(
        self,
        method: Method,
        *,
        step: Step,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        schedule: LrSchedule,
        device: torch.device,
        config: TrainConfig,
        set_epoch: Callable[[int], None],
        validate: Callable[[int], None] | None = None,
        on_scalars: Callable[[int, Mapping[str, float]], None] | None = None,
        mix: Callable[[VideoBatch], VideoBatch] | None = None,
    ) -> None:
        self.method = method
        self.step = step
        self.optimizer = optimizer
        self.scaler = scaler
        self.schedule = schedule
        self.device = device
        self.config = config
        self.set_epoch = set_epoch
        self.validate = validate
        self.on_scalars = on_scalars
        self.mix = mix
        self.bad_videos: dict[str, str] = {}

    def fit(self, loader: TrainLoader, *, start_epoch: int = 0) -> None:
        """Train from an epoch to the last.

        Args:
            loader: training batches.
            start_epoch: first epoch, 0-based; beyond the last one only validation runs.

        Raises:
            FloatingPointError: if the loss is not finite or explodes.
            ValueError: if too many videos cannot be decoded.
        """
        if start_epoch >= self.config.max_epoch and self.validate is not None:
            self.validate(self.config.max_epoch - 1)
        for epoch in range(start_epoch, self.config.max_epoch):
            self._train_epoch(loader, epoch)
            if is_checkpoint_due(epoch, period=self.config.checkpoint_period, max_epoch=self.config.max_epoch):
                self._save(epoch)
            if self.validate is not None and is_checkpoint_due(
                epoch, period=self.config.eval_period, max_epoch=self.config.max_epoch
            ):
                self.validate(epoch)

    def _train_epoch(self, loader: TrainLoader, epoch: int) -> None:
        self.method.train()
        self.set_epoch(epoch)
        num_iters = len(loader)
        report = _EpochReport(self.config, epoch=epoch, num_iters=num_iters, on_scalars=self.on_scalars)
        show = is_master() and sys.stderr.isatty()
        batches = tqdm(loader, desc=f"epoch {epoch + 1}", unit="it", disable=not show, leave=False)
        for iteration, batch in enumerate(batches):
            report.data_ready()
            if not len(batch):
                raise ValueError(f"not one video of a batch can be decoded; the first: {batch.bad[0]}")
            rate = learning_rate(epoch + iteration / num_iters, self.schedule)
            set_learning_rate(self.optimizer, rate)
            # A stream per step, the same on every rank: resuming at any step needs no saved random state.
            seed_everything(derive_seed(self.config.seed, "step", epoch, iteration))
            clips = batch.to(self.device, non_blocking=True)
            result = self.step(clips if self.mix is None else self.mix(clips))
            report.add(iteration, result, batch=batch, rate=rate)
            if (iteration + 1) % self.config.log_period == 0 or iteration + 1 == num_iters:
                self._note_bad_videos(report.flush())
        report.end()

    def _note_bad_videos(self, lines: list[str]) -> None:
        """Name new undecodable videos, and stop past the allowed share.

        Raises:
            ValueError: if more videos than allowed cannot be decoded.
        """
        for line in sorted(set(lines)):
            # By file: the reason may name a frame, and a truncated video fails at another one in every clip.
            path = line.partition(": ")[0]
            if path not in self.bad_videos:
                logger.warning("replaced in training: %s", line)
                self.bad_videos[path] = line
        if len(self.bad_videos) > self.config.max_bad_fraction * self.config.num_videos:
            first = min(self.bad_videos.values())
            raise ValueError(
                f"DATA.MAX_BAD_FRACTION: {len(self.bad_videos)} of {self.config.num_videos} training videos cannot be "
                f"decoded, allowed is a share of {self.config.max_bad_fraction}; the first: {first}"
            )

    def _save(self, epoch: int) -> None:
        path = save_checkpoint(
            self.config.output_dir,
            epoch=epoch,
            model_state=self.method.checkpoint_state(),
            optimizer_state=self.optimizer.state_dict(),
            scaler_state=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            activation=activation_of(self.method),
            cfg_text=self.config.config_text,
            task=self.config.task,
        )
        logger.info("Wrote %s", path)
        prune_checkpoints(self.config.output_dir, keep=self.config.keep_last_checkpoints, task=self.config.task)


class _EpochReport:
    """Figures of the steps of an epoch; the only place that waits for the device, once per LOG_PERIOD."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        epoch: int,
        num_iters: int,
        on_scalars: Callable[[int, Mapping[str, float]], None] | None,
    ) -> None:
        self.config, self.epoch, self.num_iters = config, epoch, num_iters
        self.on_scalars = on_scalars
        self.meter = TrainMeter(max_epoch=config.max_epoch, epoch_iters=num_iters, window=config.log_period)
        self.guard = LossGuard(config.loss_explosion_factor)
        self.timer = IterationTimer()
        self.rate = 0.0
        self.iteration = -1
        self.pending: list[StepResult] = []
        self.pending_samples: list[int] = []
        self.pending_bad: list[str] = []
        self.clocks: list[IterationTime] = []
        self.epoch_clocks: list[IterationTime] = []

    def data_ready(self) -> None:
        """The loader has delivered a batch."""
        self.timer.data_ready()

    def add(self, iteration: int, result: StepResult, *, batch: VideoBatch, rate: float) -> None:
        """Note a step; nothing waits for the device."""
        self.iteration, self.rate = iteration, rate
        self.pending.append(result)
        self.pending_samples.append(len(batch))
        self.pending_bad.extend(batch.bad)
        self.clocks.append(self.timer.read())
        self.timer.start()

    def flush(self) -> list[str]:
        """Exchange the noted figures between the ranks, check and log them.

        Returns:
            Reports of undecodable videos, of all ranks.

        Raises:
            FloatingPointError: if the loss is not finite or explodes.
        """
        for position, sample in enumerate(self._exchange()):
            number = self.iteration - len(self.pending) + 1 + position
            self.guard.check(sample.loss, where=f"epoch {self.epoch + 1}, iteration {number + 1}")
            self.meter.update(sample)
        clock = _mean_clock(self.clocks)
        stats = self.meter.iteration_stats(self.epoch, self.iteration, lr=self.rate, clock=clock)
        if (self.iteration + 1) % self.config.log_period == 0:
            log_json_stats(stats)
        if self.on_scalars is not None and is_master():
            step = self.epoch * self.num_iters + self.iteration
            self.on_scalars(step, {f"train/{k}": v for k, v in stats.items() if isinstance(v, float)})
        lines = [line for part in all_gather_objects(self.pending_bad) for line in part]
        self.epoch_clocks.extend(self.clocks)
        for noted in (self.pending, self.pending_samples, self.pending_bad, self.clocks):
            noted.clear()
        return lines

    def end(self) -> None:
        """Log the averages of the epoch, on the console and in json_stats.log."""
        clock = _mean_clock(self.epoch_clocks)
        log_json_stats(self.meter.epoch_stats(self.epoch, lr=self.rate, clock=clock), self.config.output_dir)

    def _exchange(self) -> list[TrainSample]:
        """Average the noted figures over the ranks with one reduction."""
        names = sorted(self.pending[0].terms)
        rows = [
            torch.stack([r.loss, r.grad_norm, r.top1_err, r.top5_err, *(r.terms[name] for name in names)]).float()
            for r in self.pending
        ]
        world = get_world_size()
        table = (all_reduce_sum(torch.stack(rows)) / world).tolist()
        return [
            TrainSample(
                loss=loss,
                grad_norm=grad_norm,
                top1_err=top1_err,
                top5_err=top5_err,
                num_samples=samples * world,
                extra=dict(zip(names, extra, strict=True)),
            )
            for (loss, grad_norm, top1_err, top5_err, *extra), samples in zip(table, self.pending_samples, strict=True)
        ]


def _mean_clock(clocks: list[IterationTime]) -> IterationTime:
    return IterationTime(
        total=sum(clock.total for clock in clocks) / len(clocks), data=sum(clock.data for clock in clocks) / len(clocks)
    )
