"""A training batch in a file: what a step that went wrong can be repeated with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from slowfast.datasets.types import VideoBatch
from slowfast.utils.distributed import get_rank, get_world_size
from slowfast.utils.io import atomic_save, load_tensors

_FORMAT = "slowfast-replay/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """A step to repeat.

    Attributes:
        batch: clips of the process whose step it was, before they are mixed.
        epoch: from 0.
        iteration: from 0, in the epoch.
        seed: of the run; with epoch and iteration it gives the random numbers of the step.
        rank: of the process.
        world_size: number of processes of the run.
        model_state: weights, those of the step unless others were computed between it and the next report.
        cfg_text: configuration of the run as YAML text.
    """

    batch: VideoBatch
    epoch: int
    iteration: int
    seed: int
    rank: int
    world_size: int
    model_state: Mapping[str, Tensor]
    cfg_text: str


def save_replay(
    path: Path,
    *,
    batch: VideoBatch,
    epoch: int,
    iteration: int,
    seed: int,
    model_state: Mapping[str, Tensor],
    cfg_text: str,
) -> None:
    """Write what `Replay` describes; this process is the one whose step it was.

    Raises:
        OSError: if the file cannot be written.
    """
    content = {
        "format": _FORMAT,
        "frames": batch.frames,
        "label": batch.label,
        "video_id": batch.video_id,
        "view": batch.view,
        "epoch": epoch,
        "iteration": iteration,
        "seed": seed,
        "rank": get_rank(),
        "world_size": get_world_size(),
        "model_state": {name: value.detach() for name, value in model_state.items()},
        "cfg": cfg_text,
    }
    atomic_save(content, path)


def read_replay(path: str | Path) -> Replay:
    """Read a file that `save_replay` wrote.

    Raises:
        ValueError: if the file is missing, damaged or something else.
    """
    content = load_tensors(path, what="saved batch")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path}: not a batch that a run saved: expected the format {_FORMAT}")
    batch = VideoBatch(**{name: content[name] for name in ("frames", "label", "video_id", "view")})
    names = ("epoch", "iteration", "seed", "rank", "world_size", "model_state")
    return Replay(batch=batch, cfg_text=content["cfg"], **{name: content[name] for name in names})
