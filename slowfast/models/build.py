"""Assemble a CLIP with a temporal module from a state dict."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.model import CLIP
from slowfast.models.temporal import TEMPORAL_BLOCKS
from slowfast.utils.registry import resolve

_TYPE_KEY = "MODEL.TEMPORAL_MODELING_TYPE"


def block_option_names() -> frozenset[str]:
    """Names of all options that any temporal module takes; each is a MODEL key in lower case."""
    classes = (resolve(TEMPORAL_BLOCKS, name, key=_TYPE_KEY).options_class for name in TEMPORAL_BLOCKS)
    return frozenset(field.name for options in classes for field in dataclasses.fields(options))


def build_clip(
    state: Mapping[str, Tensor],
    *,
    temporal_modeling_type: str | None = None,
    block_options: Mapping[str, Any] | None = None,
    source: str = "state dict",
) -> CLIP:
    """Build a CLIP of the state dict's sizes and load it.

    Args:
        state: tensors under OpenAI's names, and those of the temporal module if the file has them; parameters of a
            temporal module that the file lacks keep their initial values.
        temporal_modeling_type: one of TEMPORAL_BLOCKS; None for CLIP's own block.
        block_options: options by name; those of other temporal modules are ignored, as in a configuration.
        source: what to call the state dict in an error.

    Returns:
        The model in fp32 on the CPU, in training mode.

    Raises:
        ValueError: if the type or an option is unknown, or the state dict does not fit.
    """
    block_options = block_options or {}
    known = block_option_names()
    for name in block_options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise ValueError(f"unknown block option {name!r}{hint} allowed: {sorted(known)}")
    block_class = resolve(TEMPORAL_BLOCKS, str(temporal_modeling_type), key=_TYPE_KEY)
    taken = {field.name for field in dataclasses.fields(block_class.options_class)}
    options = block_class.options_class(**{name: value for name, value in block_options.items() if name in taken})

    sizes = ClipSizes.from_state_dict(state, source=source)
    clip = CLIP(sizes, block_factory=lambda sizes, layer: block_class(sizes, options))
    load_clip(clip, state, source=source)
    return clip


def load_clip(clip: CLIP, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy a state dict into a model; only a temporal module's own parameters may be absent.

    Raises:
        ValueError: if CLIP's parameters are absent, entries are left over, or shapes differ.
    """
    own = clip.state_dict()
    wrong = [name for name in state if name in own and own[name].shape != state[name].shape]
    if wrong:
        raise ValueError(
            f"{source}: {wrong[0]} has shape {tuple(state[wrong[0]].shape)}, the model {tuple(own[wrong[0]].shape)}"
        )
    with torch.device("meta"):
        required = set(CLIP(clip.sizes).state_dict())
    missing = sorted(required - set(state))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        raise ValueError(
            f"{source}: does not fit the model: {len(missing)} entries missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}"
        )
    clip.load_state_dict(dict(state), strict=False)


def freeze(module: nn.Module) -> None:
    """Make a module a constant: evaluation mode, no gradients."""
    module.requires_grad_(requires_grad=False).eval()
