"""The training loop. There is one, for every method."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from slowfast.datasets.types import Batch, VideoBatch
from slowfast.engine.best_checkpoint import keep_best
from slowfast.engine.checkpoint import save_checkpoint
from slowfast.engine.checkpoint_files import (
    checkpoint_path,
    is_checkpoint_due,
    prune_checkpoints,
    prune_within,
    within_path,
)
from slowfast.engine.epoch_report import EpochReport, Findings, NonfiniteStep
from slowfast.engine.interrupts import Interrupted, Interrupts
from slowfast.engine.lr_policy import LrSchedule, learning_rate
from slowfast.engine.meters import read_validations
from slowfast.engine.optim import set_learning_rate
from slowfast.engine.progress import Progress
from slowfast.engine.replay import save_replay
from slowfast.engine.running_statistics import average_running_statistics
from slowfast.engine.step import Step
from slowfast.engine.train_config import TrainConfig
from slowfast.methods.base import Method
from slowfast.models.clip.layers import activation_of
from slowfast.utils.distributed import Ballot, all_gather_objects, barrier, broadcast_object, get_rank, is_master
from slowfast.utils.errors import describe_error
from slowfast.utils.logging import JSON_STATS_FILE, get_logger
from slowfast.utils.seed import derive_seed, seed_everything

logger = get_logger(__name__)

# What a process may wish for after a step; the largest wish of all counts. Beyond SAVE: SAVE + the signal that came.
_GO_ON, _SAVE = 0, 1


class EpochLoader(Protocol):
    """What the loop needs of the training data; `TrainLoader` has it."""

    @property
    def num_samples(self) -> int:
        """What an epoch counts: the videos of the split, or its episodes."""

    @property
    def num_videos(self) -> int:
        """Videos of the split."""

    @property
    def global_batch(self) -> int:
        """Samples per step over all processes."""

    def __len__(self) -> int:
        """Steps of a whole epoch."""

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """Batches of this process, without the first samples of the epoch."""

    def again(self, epoch: int, *, first: int) -> Batch:
        """The batch behind the first samples of an epoch once more."""


class Trainer:
    """Trains a method: epochs, schedule, reports, validation, checkpoints.

    A signal that asks for the end of the run lets the step under way be finished and saved, on all processes at the
    same step; outside of the steps it ends the process at once.

    Args:
        method: the unwrapped method; its wrapper, if any, belongs to the step.
        step: moves the parameters by one batch.
        optimizer: of the step.
        scaler: of the step.
        schedule: learning rate over time.
        device: where batches go; the only place where they move.
        config: numbers of the run.
        interrupts: signals of this process.
        validate: scores the validation split after an epoch, or None.
        validated: epochs, from 0, that were validated before the run was interrupted.
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
        interrupts: Interrupts,
        validate: Callable[[int], None] | None = None,
        validated: Container[int] = (),
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
        self.interrupts = interrupts
        self.validate = validate
        self.validated = validated
        self.on_scalars = on_scalars
        self.mix = mix
        self.ballot = Ballot(config.dist_timeout)
        self.bad_videos: dict[str, str] = {}
        self.num_nonfinite = 0
        self.saved_at = time.monotonic()

    def fit(self, loader: EpochLoader, *, start: Progress | None = None) -> None:
        """Train from a place to the last epoch.

        Args:
            loader: training batches.
            start: where an earlier run came to; behind the last epoch only validation runs.

        Raises:
            FloatingPointError: if the loss explodes, or too many steps are not finite.
            ValueError: if too many videos cannot be decoded.
            Interrupted: after a signal, when the step that was under way is saved.
        """
        start = start or Progress()
        self.bad_videos, self.num_nonfinite = dict(start.bad_videos), start.nonfinite
        self._begin(start)
        with self.interrupts.deferred():
            for epoch in range(start.epoch, self.config.max_epoch):
                self._train_epoch(loader, epoch, start=start if epoch == start.epoch else Progress(epoch=epoch))
                self._end_epoch(epoch)
                with self.interrupts.immediate():
                    self._validate(epoch)
                if self._is_validated(epoch):
                    self._keep_best(epoch)
        prune_within(self.config.output_dir, keep=0, task=self.config.task)

    def _begin(self, start: Progress) -> None:
        """Make up for what an interruption between two epochs left out; a finished run is validated again."""
        epoch, is_finished = start.epoch - 1, start.epoch >= self.config.max_epoch
        if epoch < 0:
            return
        # Before anything is pruned: a run may have been interrupted between a validation and this.
        self._keep_best(epoch)
        if start.videos:
            return
        path = checkpoint_path(self.config.output_dir, epoch, task=self.config.task)
        is_wanted = is_finished or (self.config.keep_best and self._is_validated(epoch))
        if is_wanted and not broadcast_object(path.exists()):
            # It came so far with a longer run in view, under another period, or elsewhere.
            self._save(path, replace(start, report=None))
        if is_finished or epoch not in self.validated:
            self._validate(epoch)
        self._keep_best(epoch)

    def _is_due(self, epoch: int, period: int) -> bool:
        return is_checkpoint_due(epoch, period=period, max_epoch=self.config.max_epoch)

    def _is_validated(self, epoch: int) -> bool:
        return self.validate is not None and self._is_due(epoch, self.config.eval_period)

    def _validate(self, epoch: int) -> None:
        if self.validate is not None and self._is_validated(epoch):
            average_running_statistics(self.method)
            seed_everything(derive_seed(self.config.seed, "validation", epoch))
            self.validate(epoch)

    def _keep_best(self, epoch: int) -> None:
        """Keep the checkpoint of the best epoch, of those up to this one; rank 0 does."""
        if not (self.config.keep_best and is_master()):
            return
        found = read_validations(self.config.output_dir / JSON_STATS_FILE)
        reached = {number: errors for number, errors in found.items() if number <= epoch}
        keep_best(self.config.output_dir, reached, task=self.config.task)

    def _train_epoch(self, loader: EpochLoader, epoch: int, *, start: Progress) -> None:
        self.method.train()
        # Places are counted in videos, or episodes: the run may have begun with another global batch.
        num_iters, seen, first_iter = len(loader), start.videos, start.videos // loader.global_batch
        report = EpochReport(
            self.config, epoch=epoch, num_iters=num_iters, on_scalars=self.on_scalars, state=start.report
        )
        show = is_master() and sys.stderr.isatty()
        batches = tqdm(
            loader.epoch(epoch, first=start.videos), desc=f"epoch {epoch + 1}", unit="it", total=num_iters,
            initial=first_iter, disable=not show, leave=False,
        )  # fmt: skip
        for iteration, batch in enumerate(batches, start=first_iter):
            report.data_ready()
            if not len(batch):
                raise ValueError(f"not one video of a batch can be decoded; the first: {batch.bad[0]}")
            rate_of = partial(learning_rate, epoch + iteration / num_iters, self.schedule)
            set_learning_rate(self.optimizer, rate_of)
            # A stream per step, the same on every rank: resuming at any step needs no saved random state.
            seed_everything(derive_seed(self.config.seed, "step", epoch, iteration))
            clips = batch.to(self.device, non_blocking=True)
            if self.mix is not None:
                assert isinstance(clips, VideoBatch), "episodes are not mixed"
                clips = self.mix(clips)
            result = self.step(clips)
            report.add(iteration, result, batch=batch, rate=rate_of(1.0), first=seen)
            seen += loader.global_batch
            is_last = seen + loader.global_batch > loader.num_samples
            if (iteration + 1) % self.config.log_period == 0 or is_last:
                self._note(report.exchange(), loader, epoch)
                report.log()
            if not is_last:
                self._save_within(report, loader, epoch, seen=seen)
        if report.iteration >= 0:
            report.end()

    def _wish(self, *, is_due: bool) -> int:
        """What this process wishes for after a step."""
        if self.interrupts.pending is not None:
            return _SAVE + self.interrupts.pending
        minutes = self.config.checkpoint_minutes
        is_late = is_master() and minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes
        return _SAVE if is_due or is_late else _GO_ON

    def _save_within(self, report: EpochReport, loader: EpochLoader, epoch: int, *, seen: int) -> None:
        """Write a checkpoint after a step if any process wishes so, and end if any has to."""
        steps, iteration = self.config.checkpoint_steps, report.iteration
        is_due = steps > 0 and (epoch * len(loader) + iteration + 1) % steps == 0
        decision = self.ballot.decide(self._wish(is_due=is_due))
        if decision == _GO_ON:
            return
        self._note(report.exchange(), loader, epoch)
        self._save(within_path(self.config.output_dir, epoch, videos=seen, task=self.config.task), Progress(
            epoch=epoch, videos=seen, report=report.state(), bad_videos=self.bad_videos, nonfinite=self.num_nonfinite
        ))  # fmt: skip
        self._leave(decision, where=f"after iteration {iteration + 1} of epoch {epoch + 1}")

    def _end_epoch(self, epoch: int) -> None:
        """Write the checkpoint of an epoch where one is due, wished for or followed by validation, which may be ended.

        Raises:
            Interrupted: if any process has to end.
        """
        decision = self.ballot.decide(self._wish(is_due=self._is_validated(epoch)))
        is_due = self._is_due(epoch, self.config.checkpoint_period)
        if is_due or decision != _GO_ON:
            folder, task = self.config.output_dir, self.config.task
            path = (
                checkpoint_path(folder, epoch, task=task)
                if is_due
                else within_path(folder, epoch + 1, videos=0, task=task)
            )
            self._save(path, Progress(epoch=epoch + 1, bad_videos=self.bad_videos, nonfinite=self.num_nonfinite))
        self._leave(decision, where=f"after epoch {epoch + 1}")

    def _leave(self, decision: int, *, where: str) -> None:
        if decision > _SAVE:
            barrier()  # nobody leaves while rank 0 is still writing
            logger.info("Told to end: leaving %s; the same command goes on from there", where)
            raise Interrupted(decision - _SAVE, where)

    def _save(self, path: Path, progress: Progress) -> None:
        """Write a checkpoint; every process calls it at the same place, and rank 0 writes."""
        average_running_statistics(self.method)
        save_checkpoint(
            path,
            progress=progress,
            model_state=self.method.checkpoint_state(),
            optimizer_state=self.optimizer.state_dict(),
            scaler_state=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            activation=activation_of(self.method),
            cfg_text=self.config.config_text,
            inputs_sha256=self.config.inputs_sha256,
            computed=self.config.computed,
            license_=self.config.license_,
        )
        self.saved_at = time.monotonic()
        logger.info("Wrote %s", path)
        folder, task = self.config.output_dir, self.config.task
        prune_checkpoints(folder, keep=self.config.keep_last_checkpoints, task=task)
        prune_within(folder, keep=self.config.keep_last_within_epoch, task=task)

    def _note(self, findings: Findings, loader: EpochLoader, epoch: int) -> None:
        """Act on what an exchange brought to light."""
        self._note_bad_videos(findings.bad_videos, num_videos=loader.num_videos)
        for fault in findings.nonfinite:
            self._note_nonfinite(fault, loader, epoch)

    def _note_bad_videos(self, lines: Sequence[str], *, num_videos: int) -> None:
        """Name new undecodable videos, and stop past the allowed share.

        Raises:
            ValueError: if more videos than allowed cannot be decoded.
        """
        for line in lines:
            # By file: the reason may name a frame, and a truncated video fails at another one in every clip.
            path = line.partition(": ")[0]
            if path not in self.bad_videos:
                logger.warning("replaced in training: %s", line)
                self.bad_videos[path] = line
        if len(self.bad_videos) > self.config.max_bad_fraction * num_videos:
            first = min(self.bad_videos.values())
            raise ValueError(
                f"DATA.MAX_BAD_FRACTION: {len(self.bad_videos)} of {num_videos} training videos cannot be "
                f"decoded, allowed is a share of {self.config.max_bad_fraction}; the first: {first}"
            )

    def _note_nonfinite(self, fault: NonfiniteStep, loader: EpochLoader, epoch: int) -> None:
        """Report a step that was left out; past the budget save its batch and stop.

        Raises:
            FloatingPointError: if there were more such steps than allowed.
        """
        self.num_nonfinite += 1
        budget = self.config.nonfinite_budget
        text = (
            f"epoch {epoch + 1}, iteration {fault.iteration + 1}, rank {fault.rank}: {fault.what} "
            f"(videos {', '.join(map(str, fault.video_ids))} of the training list, from 0)"
        )
        if self.num_nonfinite <= budget:
            logger.warning("%s: the step is left out, number %d of %d that may be", text, self.num_nonfinite, budget)
            return
        path = self.config.output_dir / "nonfinite" / f"epoch_{epoch + 1:05d}_iteration_{fault.iteration + 1:07d}.pt"
        saved = f"The batch is saved: python tools/replay_batch.py {path}"
        if get_rank() == fault.rank:
            try:
                save_replay(
                    path,
                    batch=loader.again(epoch, first=fault.first),
                    epoch=epoch,
                    iteration=fault.iteration,
                    seed=self.config.seed,
                    model_state=self.method.checkpoint_state(),
                    cfg_text=self.config.config_text,
                )
            except OSError as error:
                saved = f"The batch cannot be saved: {describe_error(error)}"
        saved = all_gather_objects(saved)[fault.rank]
        raise FloatingPointError(f"{text}; TRAIN.NONFINITE_BUDGET allows {budget} such steps. {saved}")
