"""The state of an optimiser out of a file: it fits the parameters and is finite, or it is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slowfast.config.shown import shown

# Flags that belong to the machine the optimiser runs on, not to the run.
_MACHINE_FLAGS = ("fused", "foreach", "capturable", "differentiable")
# What each optimiser keeps of a parameter that it has moved.
_KEPT: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.SGD: (),
}


def is_optimizer_state(state: object) -> bool:
    """Whether something has the form of an optimiser's state dict."""
    if not isinstance(state, Mapping) or not isinstance(state.get("state"), Mapping):
        return False
    groups = state.get("param_groups")
    return isinstance(groups, list) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    )


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, source: Path) -> None:
    """Load the state of an optimiser; flags of the machine stay those of this one.

    Args:
        optimizer: over the same parameters, in the same groups.
        state: of the form that `is_optimizer_state` checks.
        source: the file, for errors.

    Raises:
        ValueError: if the state is of other parameters or another optimiser, or holds what is no finite number.
    """
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
    fault = next(_faults(optimizer, state["state"], live_groups, saved_groups), None)
    if fault:
        raise ValueError(f"{source}: optimizer_state: {fault}; set TRAIN.CHECKPOINT_EPOCH_RESET True to do without it")
    groups = []
    for live, saved in zip(live_groups, saved_groups, strict=True):
        flags = {name: live[name] for name in _MACHINE_FLAGS if name in live}
        groups.append({**live, **saved, **flags})
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _faults(
    optimizer: torch.optim.Optimizer,
    state: Mapping[Any, Any],
    live_groups: Sequence[Mapping[str, Any]],
    saved_groups: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    for number, (live, saved) in enumerate(zip(live_groups, saved_groups, strict=True)):
        for name, value in live.items():
            found = saved.get(name, value)
            if name not in _MACHINE_FLAGS and _is_number(value) and not _is_number(found):
                yield f"{name} of group {number} is {shown(found)}, expected a number"
            if isinstance(value, tuple) and not (isinstance(found, tuple | list) and all(map(_is_number, found))):
                yield f"{name} of group {number} is {shown(found)}, expected numbers"
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys = [key for group in saved_groups for key in group["params"]]
    kept = _KEPT.get(type(optimizer), ())
    for place, (key, parameter) in enumerate(zip(keys, parameters, strict=True)):
        entry = state.get(key, {})
        if not isinstance(entry, Mapping):
            yield f"parameter {place} has {shown(entry)}, expected a dict"
            continue
        missing = [name for name in kept if entry and name not in entry]
        if missing:
            yield f"parameter {place} lacks {missing[0]}; it is of another optimiser"
        yield from (fault for name, value in entry.items() if (fault := _entry_fault(name, value, place, parameter)))


def _entry_fault(name: object, value: object, place: int, parameter: Tensor) -> str:
    where = f"{shown(name)} of parameter {place}"
    if value is None:
        return ""
    if not isinstance(value, Tensor):
        return "" if _is_number(value) else f"{where} is {shown(value)}, expected a number or a tensor"
    if value.ndim > 0 and value.shape != parameter.shape:
        return f"{where} has the shape {tuple(value.shape)}, the parameter {tuple(parameter.shape)}"
    return "" if bool(torch.isfinite(value).all()) else f"{where} holds nan or infinity"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
