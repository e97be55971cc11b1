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


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchView:
    """How the frames of one clip were matched to the descriptors of one class."""

    kind: str
    """What the descriptors are: "spatial", "temporal"."""
    class_name: str
    """The class whose descriptors these are."""
    texts: tuple[str, ...]
    """The N descriptors."""
    plan: Tensor
    """How much of the mass goes from a frame to a descriptor, (T, N), fp32, >= 0; sums to 1, each column to 1/N."""
    cosines: Tensor
    """Cosine of each frame and each descriptor, (T, N), fp32."""

    def __post_init__(self) -> None:
        shape = tuple(self.plan.shape)
        assert len(shape) == 2, f"plan must be (T, N), found {shape}"
        assert min(shape) > 0, f"plan must be (T, N), found {shape}"
        assert shape[1] == len(self.texts), f"{len(self.texts)} descriptors, but plan is {shape}"
        assert self.plan.dtype == torch.float32, f"plan: dtype {self.plan.dtype}"
        assert tuple(self.cosines.shape) == shape, f"cosines must be {shape}, found {tuple(self.cosines.shape)}"
        assert self.cosines.dtype == torch.float32, f"cosines: dtype {self.cosines.dtype}"
        assert bool((self.plan >= 0).all()), "plan: negative or not a number"
        columns = self.plan.sum(dim=0)
        # A plan of 32 x 8 has sums that are off by some 1e-7; one whose rows were made to fit last may be off by more.
        assert bool(((columns - 1 / shape[1]).abs() < 1e-4).all()), f"plan: columns sum to {columns.tolist()}"
        assert bool((self.plan.sum(dim=1) > 0).all()), "plan: a frame without mass was matched to nothing"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to see of one clip; a kind of view that the method does not have stays empty."""

    patches: tuple[PatchView, ...] = ()
    """One for each block that has something to show, in their order."""
    matches: tuple[MatchView, ...] = ()
    """Of the class with the best score in this clip, one for each kind of descriptor."""

    def __post_init__(self) -> None:
        layers = [view.layer for view in self.patches]
        assert layers == sorted(set(layers)), f"blocks out of order: {layers}"
        assert len({view.attention.shape for view in self.patches}) <= 1, "views of different clips"
        kinds = [view.kind for view in self.matches]
        assert len(set(kinds)) == len(kinds), f"matches of one kind twice: {kinds}"
        assert len({view.class_name for view in self.matches}) <= 1, "matches of different classes"
        counts = {len(view.attention) for view in self.patches} | {len(view.plan) for view in self.matches}
        assert len(counts) <= 1, f"views of clips of {sorted(counts)} frames"


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
