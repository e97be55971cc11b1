"""The learning rate as a function of the (fractional) epoch."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

Policy = Literal["cosine", "cosine_shared_end", "steps_with_relative_lrs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LrSchedule:
    """Numbers that fix the learning rate at every moment of a run.

    Attributes:
        base_lr: peak learning rate, > 0.
        max_epoch: end of the run, epochs.
        policy: "cosine" decay; "cosine_shared_end", which ends at the same rate whatever a group's factor; or
            "steps_with_relative_lrs".
        cosine_end_lr: value the cosine ends at, below `base_lr`.
        warmup_epochs: length of the linear warm-up, epochs; 0 for none.
        warmup_start_lr: value the warm-up starts from.
        cosine_after_warmup: let the cosine start at the end of the warm-up instead of at epoch 0.
        cosine_restart_epoch: period of a cosine with restarts, epochs; 0 for none.
        steps: epochs at which the stages of the step policy begin, the first being 0.
        lrs: learning rates of the stages relative to `base_lr`.
    """

    base_lr: float
    max_epoch: float
    policy: Policy = "cosine"
    cosine_end_lr: float = 0.0
    warmup_epochs: float = 0.0
    warmup_start_lr: float = 0.01
    cosine_after_warmup: bool = False
    cosine_restart_epoch: float = 0.0
    steps: tuple[float, ...] = ()
    lrs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that give no schedule."""
        if self.policy not in get_args(Policy):
            allowed = ", ".join(map(repr, get_args(Policy)))
            raise ValueError(f"SOLVER.LR_POLICY: unknown value {self.policy!r}; allowed: {allowed}")
        if self.policy == "steps_with_relative_lrs":
            self._check_steps()
        else:
            self._check_cosine()

    def _check_cosine(self) -> None:
        if not self.cosine_end_lr < self.base_lr:
            raise ValueError(
                f"SOLVER.COSINE_END_LR: {self.cosine_end_lr} must be below SOLVER.BASE_LR, which is {self.base_lr}"
            )
        if self.cosine_restart_epoch < 0:
            raise ValueError(
                f"SOLVER.COSINE_RESTART_EPOCH: {self.cosine_restart_epoch} is negative; 0 means no restart"
            )
        if self.policy == "cosine_shared_end" and (self.cosine_after_warmup or self.cosine_restart_epoch):
            raise ValueError(
                "SOLVER.LR_POLICY: 'cosine_shared_end' has one cosine, which runs from epoch 0; allowed beside it: "
                "SOLVER.COSINE_AFTER_WARMUP False, SOLVER.COSINE_RESTART_EPOCH 0"
            )

    def _check_steps(self) -> None:
        steps, lrs = self.steps, self.lrs
        if not steps or len(steps) != len(lrs):
            raise ValueError(
                f"SOLVER.LRS: {len(lrs)} values for {len(steps)} SOLVER.STEPS; each step needs one learning rate"
            )
        if steps[0] != 0 or any(left >= right for left, right in itertools.pairwise(steps)):
            raise ValueError(f"SOLVER.STEPS: {list(steps)} must start at 0 and increase")


def learning_rate(epoch: float, schedule: LrSchedule, factor: float = 1.0) -> float:
    """Learning rate of a parameter group at a moment of the run.

    Args:
        epoch: epoch + iteration / iterations per epoch, >= 0.
        schedule: the run's numbers.
        factor: of the group.

    Returns: the rate: `factor` times that of factor 1, but for the decay of "cosine_shared_end".

    Source: PySlowFast's policies; the warm-up is a line from `warmup_start_lr` to the policy's value where it ends.
    "cosine_shared_end" is timm's cosine (ViFi-CLIP, TC-CLIP): the line leads to `base_lr`, and where it ends the rate
    drops to a cosine that has been running since epoch 0, from `factor * base_lr` to `cosine_end_lr`.
    """
    if schedule.policy == "cosine_shared_end":
        return _cosine_shared_end(epoch, schedule, factor)
    return factor * _factor_free(epoch, schedule)


def _factor_free(epoch: float, schedule: LrSchedule) -> float:
    if epoch < schedule.warmup_epochs:
        end = _policy(schedule.warmup_epochs, schedule)
        return schedule.warmup_start_lr + epoch * (end - schedule.warmup_start_lr) / schedule.warmup_epochs
    return _policy(epoch, schedule)


def _cosine_shared_end(epoch: float, schedule: LrSchedule, factor: float) -> float:
    if epoch < schedule.warmup_epochs:
        start = schedule.warmup_start_lr
        return factor * (start + (schedule.base_lr - start) * epoch / schedule.warmup_epochs)
    end = schedule.cosine_end_lr
    return end + (factor * schedule.base_lr - end) * (math.cos(math.pi * epoch / schedule.max_epoch) + 1.0) * 0.5


def _policy(epoch: float, schedule: LrSchedule) -> float:
    if schedule.policy == "cosine":
        return _cosine(epoch, schedule)
    stage = sum(step <= epoch for step in schedule.steps) - 1
    return schedule.base_lr * schedule.lrs[stage]


def _cosine(epoch: float, schedule: LrSchedule) -> float:
    offset = schedule.warmup_epochs if schedule.cosine_after_warmup else 0.0
    if schedule.cosine_restart_epoch:
        period = schedule.cosine_restart_epoch
        phase = (epoch - offset) % period / period
    else:
        # A run that is all warm-up has no decay to speak of: its cosine stays at the peak.
        length = schedule.max_epoch - offset
        phase = (epoch - offset) / length if length > 0 else 0.0
    span = schedule.base_lr - schedule.cosine_end_lr
    return schedule.cosine_end_lr + span * (math.cos(math.pi * phase) + 1.0) * 0.5
