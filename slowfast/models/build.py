"""Assemble a CLIP with a temporal module from a state dict."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slowfast.models.clip.arch import ClipSizes, read_sizes
from slowfast.models.clip.experts import RoutingType
from slowfast.models.clip.layers import Activation, ResidualBlock, use_activation
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.vision import VisionTransformer
from slowfast.models.temporal import TEMPORAL_BLOCKS
from slowfast.utils.registry import resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertOptions:
    """Mixtures of experts in the image tower."""

    count: int
    """Experts beside a block's own feed-forward part (MODEL.NUM_EXPERTS), >= 1."""
    layers: Sequence[int] = (10, 11)
    """Blocks that have them, from 0 (MODEL.EXPERT_INSERT_LAYERS)."""
    routing_type: RoutingType = "patch-level"
    """Who chooses (MODEL.ROUTING_TYPE)."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"MODEL.NUM_EXPERTS: {self.count}; it must be at least 1 to add experts")
        if self.routing_type not in ("patch-level", "image-level"):
            raise ValueError(
                f"MODEL.ROUTING_TYPE: unknown value {self.routing_type!r}; allowed: patch-level, image-level"
            )


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
    experts: ExpertOptions | None = None,
    activation: Activation = "quick_gelu",
    source: str = "state dict",
) -> CLIP:
    """Build a CLIP of the state dict's sizes and load it.

    Args:
        state: tensors under OpenAI's names, and those of the temporal module if the file has them; parameters of a
            temporal module that the file lacks keep their initial values.
        temporal_modeling_type: one of TEMPORAL_BLOCKS; None for CLIP's own block.
        block_options: options by name; those of other temporal modules are ignored, as in a configuration.
        experts: mixtures of experts in the image tower; experts that the file lacks start as copies of CLIP's own
            feed-forward part.
        activation: of the feed-forward parts of both towers.
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

    sizes = read_sizes(state, source=source)
    visual = None
    if isinstance(sizes, ClipSizes):
        visual = VisionTransformer(sizes, block_factory=lambda sizes, layer: block_class(sizes, options))
    else:
        _refuse_blocks(temporal_modeling_type, experts, source=source)
    clip = CLIP(sizes, visual=visual)
    use_activation(clip, activation)
    mixed = _add_experts(clip, experts) if experts is not None else {}
    load_clip(clip, state, source=source)
    for name, block in mixed.items():
        if f"{name}.experts_head.0.c_fc.weight" not in state:
            block.start_experts()
    return clip


def _refuse_blocks(temporal_modeling_type: str | None, experts: ExpertOptions | None, *, source: str) -> None:
    """Refuse what stands in, or inside, the blocks of a ViT where the image tower is a ResNet."""
    needs = f"needs a ViT image tower, and {source} holds a ResNet"
    if str(temporal_modeling_type) != "None":
        raise ValueError(f"{_TYPE_KEY}: {temporal_modeling_type!r} {needs}; allowed: None")
    if experts is not None:
        raise ValueError(f"MODEL.NUM_EXPERTS: {experts.count} {needs}; allowed: 0")


def _add_experts(clip: CLIP, experts: ExpertOptions) -> dict[str, ResidualBlock]:
    """Add the mixtures; returns the blocks that have one, by name."""
    assert isinstance(clip.visual, VisionTransformer)
    blocks = clip.visual.transformer.resblocks
    beyond = [layer for layer in experts.layers if layer >= len(blocks)]
    if beyond:
        raise ValueError(
            f"MODEL.EXPERT_INSERT_LAYERS: {list(experts.layers)} names block {beyond[0]}, "
            f"but the image tower has blocks 0 to {len(blocks) - 1}"
        )
    chosen = {}
    for layer in sorted(set(experts.layers)):
        block = blocks[layer]
        assert isinstance(block, ResidualBlock)
        block.add_experts(experts.count, routing_type=experts.routing_type)
        chosen[f"visual.transformer.resblocks.{layer}"] = block
    return chosen


def load_clip(clip: CLIP, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy a state dict into a model; the parameters of a temporal module, or of the experts, may be absent as a whole.

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
    _refuse_halves(set(own) - required, set(state), source=source)
    clip.load_state_dict(dict(state), strict=False)


def _refuse_halves(extra: set[str], given: set[str], *, source: str) -> None:
    """What a model has beyond CLIP comes from the file as a whole, or not at all: the temporal module, the experts."""
    experts = {name for name in extra if "experts_" in name or ".routing" in name}
    for what, names in (("experts", experts), ("temporal module", extra - experts)):
        absent = sorted(names - given)
        if absent and len(absent) < len(names):
            raise ValueError(
                f"{source}: holds {len(names) - len(absent)} of the {len(names)} parameters of the {what}; "
                f"missing: {absent[:3]}"
            )


def freeze(module: nn.Module) -> None:
    """Make a module a constant: evaluation mode, no gradients."""
    module.requires_grad_(requires_grad=False).eval()
