"""Numbers of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Numbers of a run."""

    max_epoch: int
    log_period: int
    """Iterations between two reports; ranks exchange figures, and look for steps that were left out, only then."""
    eval_period: int
    checkpoint_period: int
    """Epochs."""
    checkpoint_steps: int = 0
    """Steps between two checkpoints within an epoch; 0: none."""
    checkpoint_minutes: float = 0.0
    """Minutes after which a checkpoint within an epoch is due; 0: never."""
    keep_last_checkpoints: int = 0
    """Newest checkpoints of epochs to keep; 0 keeps all."""
    keep_best: bool = False
    """Keep the checkpoint of the epoch with the least validation error too; every validated epoch must have one."""
    keep_last_within_epoch: int = 2
    """Newest checkpoints within epochs to keep while training runs."""
    output_dir: Path
    task: str
    seed: int
    max_bad_fraction: float
    """Share of the videos of the training split that may be undecodable."""
    nonfinite_budget: int = 0
    """Steps whose loss or gradient is not finite that may be left out."""
    loss_explosion_factor: float
    """Stop when the loss exceeds this many times its recent mean; 0 never stops."""
    config_text: str
    """The configuration as YAML text, for the checkpoints."""
    computed: Mapping[str, str | int] = field(default_factory=dict)
    """How the run computes, for the checkpoints: "dtype", "processes"."""
    license_: str = ""
    """Licence of the weights that it started from, for the checkpoints; "" where none is known."""
    dist_timeout: timedelta = timedelta(minutes=30)
    """Longest wait of a process for the others."""
    inputs_sha256: str = ""
    """Hash of the lists, texts and weights that the run reads, for the checkpoints."""
