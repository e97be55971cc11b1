"""Checkpoints: what they hold, and loading that never guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slowfast.config.shown import shown
from slowfast.engine.checkpoint_files import Manifest
from slowfast.engine.optimizer_state import is_optimizer_state, load_optimizer_state
from slowfast.engine.progress import Progress
from slowfast.models.clip.files import ACTIVATION_ENTRY, LICENSE_ENTRY, WeightFile, license_record, read_weight_file
from slowfast.models.clip.layers import Activation, activation_of
from slowfast.models.clip.layouts import (
    CLIP_PREFIX,
    TEACHER_PREFIX,
    clip_names,
    find_layout,
    require_token_embedding,
    unknown_names,
    without_wrappers,
)
from slowfast.models.clip.weights import TORCHSCRIPT_FLAGS
from slowfast.utils.distributed import is_master
from slowfast.utils.io import atomic_save

FORMAT = "slowfast-stdd/1"

_STATE = "model_state"
_RESERVED = (
    "epoch", "progress", _STATE, "optimizer_state", "scaler_state", "cfg", "inputs_sha256", "computed", "format",
    ACTIVATION_ENTRY, LICENSE_ENTRY,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Content of a checkpoint file.

    Attributes:
        path: the file.
        model_state: tensors by name, without "module.".
        epoch: 0-based epoch that was finished last (-1: none), None in files that hold only weights.
        progress: how far training had come, None in files that hold only weights.
        optimizer_state: state dict of the optimiser, or None.
        scaler_state: state dict of the gradient scaler, or None.
        cfg: configuration of the run as YAML text.
        inputs_sha256: hash of what the run read, empty where the file does not say.
        computed: how the run computed, "dtype" and "processes", empty where the file does not say.
        is_ours: whether this project wrote it.
        activation: activation of its CLIP, None where the file does not say.
        license: licence of the weights, "" where nothing says that one binds.
        extra: every other entry of the file.
    """

    path: Path
    model_state: dict[str, Tensor]
    epoch: int | None = None
    progress: Progress | None = None
    optimizer_state: dict[str, Any] | None = None
    scaler_state: dict[str, Any] | None = None
    cfg: str = ""
    inputs_sha256: str = ""
    computed: Mapping[str, Any] = field(default_factory=dict)
    is_ours: bool = False
    activation: Activation | None = None
    license: str = ""
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


def save_checkpoint(
    path: str | Path,
    *,
    progress: Progress,
    model_state: Mapping[str, Tensor],
    cfg_text: str,
    inputs_sha256: str = "",
    computed: Mapping[str, str | int] | None = None,
    license_: str = "",
    optimizer_state: Mapping[str, Any] | None = None,
    scaler_state: Mapping[str, Any] | None = None,
    activation: Activation | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint and enter it into the manifest of its folder; only rank 0 does, every rank may call.

    Whenever it is interrupted, the folder holds the file, the one of that name before it, or neither.

    Args:
        path: from `checkpoint_path` or `within_path`.
        progress: how far training has come; the entry "epoch" is the number, from 0, of the last finished epoch.
        model_state: state dict of the method; the frozen teacher and DDP's "module." are left out.
        cfg_text: configuration as YAML text.
        inputs_sha256: hash of what the run reads.
        computed: how the run computes: "dtype", "processes".
        license_: licence of the weights that it started from, "" where none is known.
        optimizer_state: state dict of the optimiser.
        scaler_state: state dict of the gradient scaler, None without one.
        activation: activation of the method's CLIP, None without one.
        extra: more entries, of types that load safely (tensors, numbers, strings, lists, dicts).

    Raises:
        OSError: if the file cannot be written, for instance on a full disk; the others are as they were.
    """
    if not is_master():
        return
    target = Path(path)
    content: dict[str, Any] = {
        "epoch": progress.epoch - 1,
        "progress": progress.to_dict(),
        "model_state": _without_teacher(model_state),
        "cfg": str(cfg_text),
        "inputs_sha256": inputs_sha256,
        "computed": dict(computed or {}),
        "format": FORMAT,
        **license_record(license_),
    }
    if optimizer_state is not None:
        content["optimizer_state"] = dict(optimizer_state)
    if scaler_state is not None:
        content["scaler_state"] = dict(scaler_state)
    if activation is not None:
        content[ACTIVATION_ENTRY] = activation
    extra = extra or {}
    assert not set(extra) & set(_RESERVED), f"reserved names: {sorted(set(extra) & set(_RESERVED))}"
    manifest = Manifest.read(target.parent)
    # First, so that the entry never speaks of another content than the file has.
    manifest.forget([target.name])
    sha256 = atomic_save({**content, **extra}, target)
    manifest.record(target, sha256=sha256)


def read_checkpoint(
    path: str | Path, *, clear_name_patterns: Sequence[str] = (), allow_torchscript: bool = False
) -> Checkpoint:
    """Read a checkpoint, a file of averaged weights, or a CLIP of any known layout, whose names become ours.

    Args:
        path: the file, safetensors included.
        clear_name_patterns: the first occurrence of each is removed from every name.
        allow_torchscript: whether a TorchScript archive is read that is none of the published CLIPs.

    Raises:
        ValueError: if the file is missing, damaged or something else.
    """
    source = Path(path)
    file = read_weight_file(
        source, what="checkpoint", allow_torchscript=allow_torchscript, torchscript_flag=TORCHSCRIPT_FLAGS
    )
    state = _model_state(file, clear_name_patterns, source=source)
    content = file.entries if file.entry == _STATE else {}
    epoch, optimizer_state = content.get("epoch"), content.get("optimizer_state")
    if epoch is not None and (type(epoch) is not int or epoch < -1):
        raise ValueError(f"{source}: not a checkpoint: epoch is {shown(epoch)}, expected an integer >= -1")
    progress = None if epoch is None else Progress(epoch=epoch + 1)
    if "progress" in content:
        progress = Progress.from_dict(content["progress"], source=source)
    if optimizer_state is not None and not is_optimizer_state(optimizer_state):
        raise ValueError(f"{source}: not a checkpoint: optimizer_state is not the state dict of an optimiser")
    return Checkpoint(
        path=source,
        model_state=state,
        epoch=epoch,
        progress=progress,
        optimizer_state=optimizer_state,
        scaler_state=content.get("scaler_state"),
        cfg=str(content.get("cfg", "")),
        inputs_sha256=str(content.get("inputs_sha256", "")),
        computed=content["computed"] if isinstance(content.get("computed"), Mapping) else {},
        is_ours=content.get("format") == FORMAT,
        activation=file.activation(),
        license=file.license(),
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
    if state and layout is None and file.entry != _STATE:
        raise ValueError(f"{source}: not a checkpoint: {unknown_names(state)}")
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
) -> Progress:
    """Continue a run: model, then optimiser and scaler where the file has an epoch.

    Args:
        checkpoint: what `read_checkpoint` returned.
        module: the unwrapped method.
        optimizer: built over the same parameters as the saved one.
        scaler: gradient scaler in use, or None.
        epoch_reset: take only the weights and start at epoch 0 (TRAIN.CHECKPOINT_EPOCH_RESET).
        allow_missing: as in `load_model_state`.
        allow_unexpected: as in `load_model_state`.

    Returns: where to start.

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
    if checkpoint.progress is None or epoch_reset:
        return Progress()
    if optimizer is not None:
        if checkpoint.optimizer_state is None:
            raise ValueError(
                f"{checkpoint.path}: has an epoch but no optimizer_state; set TRAIN.CHECKPOINT_EPOCH_RESET True"
            )
        load_optimizer_state(optimizer, checkpoint.optimizer_state, source=checkpoint.path)
    if scaler is not None and checkpoint.scaler_state:
        scaler.load_state_dict(checkpoint.scaler_state)
    return checkpoint.progress


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _without_teacher(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {name.removeprefix("module."): value.detach() for name, value in state.items()}
    return {name: value for name, value in plain.items() if not name.startswith(TEACHER_PREFIX)}


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
