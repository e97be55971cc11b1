"""Checkpoints: where they lie, what they hold, and loading that never guesses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slowfast.models.clip.files import ACTIVATION_ENTRY, WeightFile, read_weight_file
from slowfast.models.clip.layers import Activation, activation_of
from slowfast.models.clip.layouts import (
    CLIP_PREFIX,
    TEACHER_PREFIX,
    clip_names,
    find_layout,
    require_token_embedding,
    without_wrappers,
)
from slowfast.utils.distributed import is_master
from slowfast.utils.io import atomic_save

FORMAT = "slowfast-stdd/1"

_STATE = "model_state"
_RESERVED = ("epoch", _STATE, "optimizer_state", "scaler_state", "cfg", "format", ACTIVATION_ENTRY)
# Flags that belong to the machine the optimiser runs on, not to the run.
_MACHINE_FLAGS = ("fused", "foreach", "capturable", "differentiable")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Content of a checkpoint file.

    Attributes:
        path: the file.
        model_state: tensors by name, without "module.".
        epoch: 0-based epoch that was finished, None in files that hold only weights.
        optimizer_state: state dict of the optimiser, or None.
        scaler_state: state dict of the gradient scaler, or None.
        cfg: configuration of the run as YAML text.
        activation: activation of its CLIP, None where the file does not say.
        extra: every other entry of the file.
    """

    path: Path
    model_state: dict[str, Tensor]
    epoch: int | None = None
    optimizer_state: dict[str, Any] | None = None
    scaler_state: dict[str, Any] | None = None
    cfg: str = ""
    activation: Activation | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Names that a load passed over because a whitelist says so.

    Attributes:
        missing: names of the module that the state lacks; they keep their values.
        unused: names of the state that the module lacks.
    """

    missing: tuple[str, ...]
    unused: tuple[str, ...]


def checkpoint_folder(output_dir: str | Path) -> Path:
    """Folder of a run's checkpoints."""
    return Path(output_dir) / "checkpoints"


def checkpoint_path(output_dir: str | Path, epoch: int, *, task: str = "") -> Path:
    """Name of the checkpoint written after an epoch.

    Args:
        output_dir: the run's folder.
        epoch: 0-based; the name counts from 1.
        task: prefix of the name, may be empty.
    """
    return checkpoint_folder(output_dir) / f"{_task_prefix(task)}checkpoint_epoch_{epoch + 1:05d}.pyth"


def list_checkpoints(output_dir: str | Path, *, task: str = "") -> list[tuple[int, Path]]:
    """Find a run's checkpoints; partial and foreign files are not among them.

    Args:
        output_dir: the run's folder.
        task: prefix of the names.

    Returns: (number in the name, file), in increasing order.
    """
    pattern = re.compile(rf"{re.escape(_task_prefix(task))}checkpoint_epoch_(\d+)\.pyth")
    folder = checkpoint_folder(output_dir)
    if not folder.is_dir():
        return []
    matches = ((pattern.fullmatch(path.name), path) for path in folder.iterdir() if path.is_file())
    return sorted((int(match.group(1)), path) for match, path in matches if match)


def last_checkpoint(output_dir: str | Path, *, task: str = "") -> Path | None:
    """The checkpoint of the latest epoch, None where there is none."""
    found = list_checkpoints(output_dir, task=task)
    return found[-1][1] if found else None


def is_checkpoint_due(epoch: int, *, period: int, max_epoch: int) -> bool:
    """Whether a checkpoint is written after an epoch: every `period` epochs and at the end.

    Args:
        epoch: 0-based.
        period: epochs; 0 leaves only the last.
        max_epoch: length of the run, epochs.
    """
    return epoch + 1 == max_epoch or (period > 0 and (epoch + 1) % period == 0)


def save_checkpoint(
    output_dir: str | Path,
    *,
    epoch: int,
    model_state: Mapping[str, Tensor],
    cfg_text: str,
    optimizer_state: Mapping[str, Any] | None = None,
    scaler_state: Mapping[str, Any] | None = None,
    activation: Activation | None = None,
    task: str = "",
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint; only rank 0 does, every rank may call.

    Args:
        output_dir: the run's folder.
        epoch: 0-based epoch just finished.
        model_state: state dict of the method; the frozen teacher and DDP's "module." are left out.
        cfg_text: configuration as YAML text.
        optimizer_state: state dict of the optimiser.
        scaler_state: state dict of the gradient scaler, None without one.
        activation: activation of the method's CLIP, None without one.
        task: prefix of the name.
        extra: more entries, of types that load safely (tensors, numbers, strings, lists, dicts).

    Returns: the file's path.
    """
    path = checkpoint_path(output_dir, epoch, task=task)
    if not is_master():
        return path
    content: dict[str, Any] = {
        "epoch": int(epoch),
        "model_state": _without_teacher(model_state),
        "cfg": str(cfg_text),
        "format": FORMAT,
    }
    if optimizer_state is not None:
        content["optimizer_state"] = dict(optimizer_state)
    if scaler_state is not None:
        content["scaler_state"] = dict(scaler_state)
    if activation is not None:
        content[ACTIVATION_ENTRY] = activation
    extra = extra or {}
    assert not set(extra) & set(_RESERVED), f"reserved names: {sorted(set(extra) & set(_RESERVED))}"
    atomic_save({**content, **extra}, path)
    return path


def prune_checkpoints(output_dir: str | Path, *, keep: int, task: str = "") -> list[Path]:
    """Delete all but the latest checkpoints; only rank 0 does.

    Args:
        output_dir: the run's folder.
        keep: number to keep; 0 keeps all.
        task: prefix of the names.

    Returns: the deleted files.
    """
    if keep <= 0 or not is_master():
        return []
    old = [path for _, path in list_checkpoints(output_dir, task=task)[:-keep]]
    for path in old:
        path.unlink(missing_ok=True)
    return old


def read_checkpoint(path: str | Path, *, clear_name_patterns: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint, a file of averaged weights, or a CLIP of any known layout, whose names become ours.

    Args:
        path: the file, safetensors included.
        clear_name_patterns: the first occurrence of each is removed from every name.

    Raises:
        ValueError: if the file is missing, damaged or something else.
    """
    source = Path(path)
    file = read_weight_file(source, what="checkpoint")
    state = _model_state(file, clear_name_patterns, source=source)
    content = file.entries if file.entry == _STATE else {}
    epoch, optimizer_state = content.get("epoch"), content.get("optimizer_state")
    if not isinstance(epoch, int | None):
        raise ValueError(f"{source}: not a checkpoint: epoch is {epoch!r}, expected an integer")
    if optimizer_state is not None and not _is_optimizer_state(optimizer_state):
        raise ValueError(f"{source}: not a checkpoint: optimizer_state is not the state dict of an optimiser")
    return Checkpoint(
        path=source,
        model_state=state,
        epoch=epoch,
        optimizer_state=optimizer_state,
        scaler_state=content.get("scaler_state"),
        cfg=str(content.get("cfg", "")),
        activation=file.activation(),
        extra={key: value for key, value in content.items() if key not in _RESERVED},
    )


def _model_state(file: WeightFile, patterns: Sequence[str], *, source: Path) -> dict[str, Tensor]:
    """Take a state dict under our names from a file."""
    if not isinstance(file.state, Mapping):
        raise ValueError(
            f"{source}: not a checkpoint: holds {type(file.state).__name__}, expected a dict with 'model_state'"
        )
    state = _clean_names(file.tensors(), patterns, source=source) if file.is_state_dict else None
    layout = find_layout(state, source=str(source)) if state is not None else None
    if state is None or (layout is None and file.entry != _STATE):
        names = ", ".join(sorted(map(str, [*file.entries, *([file.entry] if file.entry else file.state)]))[:3])
        raise ValueError(
            f"{source}: not a checkpoint: no dict of tensors under 'model_state' (found {names or 'nothing'})"
        )
    if layout in (None, "ours"):
        return state
    renamed = clip_names(state, source=str(source))
    require_token_embedding(renamed, source=str(source))
    return {**{CLIP_PREFIX + name: value for name, value in renamed.clip.items()}, **renamed.beside}


def load_model_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str | Path,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (TEACHER_PREFIX,),
) -> LoadReport:
    """Load weights, every one of them, except what the whitelists name.

    Args:
        module: the unwrapped method.
        state: tensors by name; "module." in front is ignored.
        source: the file, for errors.
        allow_missing: prefixes of names that the state may lack.
        allow_unexpected: prefixes of names that the module may lack.

    Returns: the names passed over.

    Raises:
        ValueError: on missing, unexpected or wrongly shaped entries outside the whitelists.
    """
    given = {name.removeprefix("module."): value for name, value in state.items()}
    own = module.state_dict()
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    faults = {
        "missing": [name for name in missing if not name.startswith(tuple(allow_missing))],
        "unexpected": [name for name in unexpected if not name.startswith(tuple(allow_unexpected))],
        "of another shape": shapes,
    }
    texts = [f"{len(names)} {kind} ({_first(names)})" for kind, names in faults.items() if names]
    if texts:
        raise ValueError(f"{source}: weights do not fit the model: {'; '.join(texts)}")
    module.load_state_dict({name: given[name] for name in own if name in given}, strict=False)
    return LoadReport(missing=tuple(missing), unused=tuple(unexpected))


def check_activation(module: nn.Module, activation: Activation | None, *, source: str | Path) -> None:
    """Refuse weights that were trained with another activation than the model has.

    Args:
        module: the unwrapped method.
        activation: that of the weights, None where it is unknown.
        source: the file, for the error.

    Raises:
        ValueError: if they differ.
    """
    own = activation_of(module)
    if None not in (own, activation) and own != activation:
        raise ValueError(
            f"{source}: was trained with the activation {activation}, but the model has {own}; "
            "set MODEL.CLIP_WEIGHTS to the CLIP that it was tuned from, or MODEL.CLIP_ACTIVATION"
        )


def resume(
    checkpoint: Checkpoint,
    module: nn.Module,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: torch.amp.GradScaler | None = None,
    epoch_reset: bool = False,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (TEACHER_PREFIX,),
) -> int:
    """Continue a run: model, then optimiser and scaler where the file has an epoch.

    Args:
        checkpoint: what `read_checkpoint` returned.
        module: the unwrapped method.
        optimizer: built over the same parameters as the saved one.
        scaler: gradient scaler in use, or None.
        epoch_reset: take only the weights and start at epoch 0 (TRAIN.CHECKPOINT_EPOCH_RESET).
        allow_missing: as in `load_model_state`.
        allow_unexpected: as in `load_model_state`.

    Returns: the 0-based epoch to start with.

    Raises:
        ValueError: if something does not fit.
    """
    check_activation(module, checkpoint.activation, source=checkpoint.path)
    load_model_state(
        module,
        checkpoint.model_state,
        source=checkpoint.path,
        allow_missing=allow_missing,
        allow_unexpected=allow_unexpected,
    )
    if checkpoint.epoch is None or epoch_reset:
        return 0
    if optimizer is not None:
        if checkpoint.optimizer_state is None:
            raise ValueError(
                f"{checkpoint.path}: has an epoch but no optimizer_state; set TRAIN.CHECKPOINT_EPOCH_RESET True"
            )
        _load_optimizer_state(optimizer, checkpoint.optimizer_state, source=checkpoint.path)
    if scaler is not None and checkpoint.scaler_state:
        scaler.load_state_dict(checkpoint.scaler_state)
    return checkpoint.epoch + 1


def _task_prefix(task: str) -> str:
    return f"{task}_" if task else ""


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _without_teacher(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {name.removeprefix("module."): value.detach() for name, value in state.items()}
    return {name: value for name, value in plain.items() if not name.startswith(TEACHER_PREFIX)}


def _is_optimizer_state(state: object) -> bool:
    if not isinstance(state, Mapping) or not isinstance(state.get("state"), Mapping):
        return False
    groups = state.get("param_groups")
    return isinstance(groups, list) and all(isinstance(group, Mapping) and "params" in group for group in groups)


def _clean_names(state: Mapping[str, Tensor], patterns: Sequence[str], *, source: Path) -> dict[str, Tensor]:
    cleaned: dict[str, Tensor] = {}
    for name, value in state.items():
        short = without_wrappers(name)
        for pattern in patterns:
            short = short.replace(pattern, "", 1)
        if short in cleaned:
            raise ValueError(f"{source}: CHECKPOINT_CLEAR_NAME_PATTERN makes two entries of the name {short!r}")
        cleaned[short] = value
    return cleaned


def _load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, source: Path) -> None:
    live_groups, saved_groups = optimizer.state_dict()["param_groups"], state["param_groups"]
    live_sizes = [len(group["params"]) for group in live_groups]
    saved_sizes = [len(group["params"]) for group in saved_groups]
    named = all("names" in group for group in saved_groups)
    same_names = not named or [g["names"] for g in live_groups] == [g["names"] for g in saved_groups]
    if live_sizes != saved_sizes or not same_names:
        raise ValueError(
            f"{source}: optimizer_state has groups of {saved_sizes} parameters, this run has {live_sizes}"
            f"{'' if live_sizes != saved_sizes else ' under other names'}; set TRAIN.CHECKPOINT_EPOCH_RESET True"
        )
    groups = []
    for live, saved in zip(live_groups, saved_groups, strict=True):
        flags = {name: live[name] for name in _MACHINE_FLAGS if name in live}
        groups.append({**live, **saved, **flags})
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
