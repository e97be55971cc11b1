"""A training batch in a file: what a step that went wrong can be repeated with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slowfast.datasets.types import Batch, EpisodeBatch, VideoBatch
from slowfast.engine.precision import Precision
from slowfast.methods.base import Method, MethodOutput
from slowfast.utils.distributed import get_rank, get_world_size
from slowfast.utils.io import atomic_save, load_tensors
from slowfast.utils.seed import derive_seed, seed_everything

_FORMAT = "slowfast-replay/2"
_CLIPS = ("frames", "label", "video_id", "view")
_SHAPE = ("way", "shot", "query_per_class")


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """A step to repeat.

    Attributes:
        batch: clips or episodes of the process whose step it was, before they are mixed.
        epoch: from 0.
        iteration: from 0, in the epoch.
        seed: of the run; with epoch and iteration it gives the random numbers of the step.
        rank: of the process.
        world_size: number of processes of the run.
        model_state: weights, those of the step unless others were computed between it and the next report.
        cfg_text: configuration of the run as YAML text.
    """

    batch: Batch
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
    batch: Batch,
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
        "batch": _to_dict(batch),
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
    names = ("epoch", "iteration", "seed", "rank", "world_size", "model_state")
    batch = _from_dict(content["batch"])
    return Replay(batch=batch, cfg_text=content["cfg"], **{name: content[name] for name in names})


def _to_dict(batch: Batch) -> dict[str, Any]:
    if isinstance(batch, EpisodeBatch):
        shape = {name: getattr(batch, name) for name in _SHAPE}
        return {"support": _to_dict(batch.support), "query": _to_dict(batch.query), **shape}
    return {name: getattr(batch, name) for name in _CLIPS}


def _from_dict(content: Mapping[str, Any]) -> Batch:
    if "support" in content:
        support, query = (VideoBatch(**content[role]) for role in ("support", "query"))
        return EpisodeBatch(support, query, **{name: content[name] for name in _SHAPE})
    return VideoBatch(**content)


@dataclass(frozen=True, slots=True)
class Repetition:
    """What a repeated step shows.

    Attributes:
        losses: terms of the loss.
        modules: modules whose output is not finite, in the order in which they computed it.
        parameters: parameters whose gradient is not finite.
    """

    losses: Mapping[str, float]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def repeat_step(
    method: Method,
    replay: Replay,
    *,
    mix: Callable[[VideoBatch], VideoBatch] | None,
    precision: Precision,
    device: torch.device,
) -> Repetition:
    """Compute the losses and gradients of a saved step; nothing is updated.

    Args:
        method: with the weights of the step, on the device.
        replay: the step. Masks and mixing of another rank than 0 are drawn as for rank 0, whose share comes first.
        mix: what mixes batches in training, if anything.
        precision: dtype of the forward.
        device: where the method lies.
    """
    method.train()
    found: list[str] = []
    handles = [_watch(module, name, found) for name, module in method.named_modules() if name]
    seed_everything(derive_seed(replay.seed, "step", replay.epoch, replay.iteration))
    try:
        batch = replay.batch.to(device)
        if mix is not None:
            assert isinstance(batch, VideoBatch), "episodes are not mixed"
            batch = mix(batch)
        with precision.autocast():
            output: MethodOutput = method(batch)
            loss = torch.stack(list(output.losses.values())).sum()
        loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    gradients = {name: value.grad for name, value in method.named_parameters() if value.grad is not None}
    return Repetition(
        losses={name: value.item() for name, value in output.losses.items()},
        modules=tuple(found),
        parameters=tuple(name for name, value in gradients.items() if not value.isfinite().all()),
    )


def _watch(module: nn.Module, name: str, found: list[str]) -> torch.utils.hooks.RemovableHandle:
    def look(module: nn.Module, args: object, output: object) -> None:
        tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor) and value.is_floating_point()]
        if not all(value.isfinite().all() for value in tensors):
            found.append(name)

    return module.register_forward_hook(look)
