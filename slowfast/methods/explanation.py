"""What a method looked at in a clip, for a person to see. A method fills in the kinds of views that it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchView:
    """What one block made of the patches of one clip."""

    layer: int
    """Block of the image tower, from 1."""
    attention: Tensor
    """The class token's attention to the patches of its own frame, mean over heads, (T, P, P), fp32, >= 0."""
    chosen: Tensor
    """Patches that take part, (T, P, P), bool; none at all where the block does not choose."""
    what: str
    """What the chosen ones are ("seed tokens", "kept by the mask"); "" where the block does not choose."""
    group: Tensor | None = None
    """Number of the context token that a patch went into, (T, P, P), int64, -1 for none; None: there are no groups."""

    def __post_init__(self) -> None:
        shape = tuple(self.attention.shape)
        assert len(shape) == 3, f"attention must be (T, P, P), found {shape}"
        assert shape[1] == shape[2], f"attention must be (T, P, P), found {shape}"
        assert self.attention.dtype == torch.float32, f"attention: dtype {self.attention.dtype}"
        assert tuple(self.chosen.shape) == shape, f"chosen must be {shape}, found {tuple(self.chosen.shape)}"
        assert self.chosen.dtype == torch.bool, f"chosen: dtype {self.chosen.dtype}"
        if self.group is not None:
            assert tuple(self.group.shape) == shape, f"group must be {shape}, found {tuple(self.group.shape)}"
            assert self.group.dtype == torch.int64, f"group: dtype {self.group.dtype}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to see of one clip; a kind of view that the method does not have stays empty."""

    patches: tuple[PatchView, ...] = ()
    """One for each block that has something to show, in their order."""

    def __post_init__(self) -> None:
        layers = [view.layer for view in self.patches]
        assert layers == sorted(set(layers)), f"blocks out of order: {layers}"
        assert len({view.attention.shape for view in self.patches}) <= 1, "views of different clips"


@contextmanager
def looking(method: nn.Module) -> Iterator[None]:
    """Evaluate a method without leaving a trace: its mode and the random state are afterwards as they were.

    Args:
        method: the module to look into; in the block it is in evaluation mode, without gradients, in full precision.
    """
    was_training = method.training
    device = next((tensor.device for tensor in method.parameters()), torch.device("cpu"))
    devices = [device] if device.type == "cuda" else []
    method.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        method.train(was_training)
