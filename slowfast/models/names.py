"""State-dict names that differ from the module tree, because published files fix them."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn


def hoist(parent: nn.Module, child: str) -> None:
    """Let the entries of a child appear in state dicts as the parent's own: ``name`` instead of ``child.name``.

    Holds for reading and for writing; names of parameters and modules stay as they are.

    Args:
        parent: the module that has the child.
        child: its attribute name.
    """
    parent.register_state_dict_post_hook(partial(_raise_names, child))
    parent.register_load_state_dict_pre_hook(partial(_lower_names, child))


def _raise_names(child: str, module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    del module, metadata
    inner = f"{prefix}{child}."
    for name in [name for name in state if name.startswith(inner)]:
        state[prefix + name[len(inner) :]] = state.pop(name)


def _lower_names(child: str, module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    del rest
    for name in getattr(module, child).state_dict():
        if prefix + name in state:
            state[f"{prefix}{child}.{name}"] = state.pop(prefix + name)
