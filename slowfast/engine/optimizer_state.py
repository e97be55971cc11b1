"""The state of an optimiser out of a file: it fits the parameters and is finite, or it is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slowfast.config.shown import shown

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
    """Load the state of an optimiser: what it keeps of each parameter. Its settings stay those of this run.

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
    fault = next(_faults(optimizer, state["state"], saved_groups), None)
    if fault:
        raise ValueError(f"{source}: optimizer_state: {fault}; set TRAIN.CHECKPOINT_EPOCH_RESET True to do without it")
    groups = []
    for live, saved in zip(live_groups, saved_groups, strict=True):
        groups.append({**saved, **live, "params": saved["params"]})
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _faults(
    optimizer: torch.optim.Optimizer,
    state: Mapping[Any, Any],
    saved_groups: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
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
