"""Size and cost of a method."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slowfast.datasets.types import EpisodeBatch, VideoBatch, collate
from slowfast.methods.base import Method


def synthetic_clip(*, num_frames: int, side: int) -> VideoBatch:
    """One grey clip with label 0, frames (1, 3, T, side, side)."""
    zeros = torch.zeros(1, dtype=torch.long)
    frames = torch.full((1, 3, num_frames, side, side), 127, dtype=torch.uint8)
    return VideoBatch(frames, label=zeros, video_id=zeros, view=zeros)


def synthetic_episode(*, num_frames: int, side: int) -> EpisodeBatch:
    """The smallest episode: two classes, 0 and 1, with one grey support and one grey query each."""
    clip = synthetic_clip(num_frames=num_frames, side=side)
    clips = replace(collate([clip, clip]), label=torch.arange(2), video_id=torch.arange(2))
    return EpisodeBatch(clips, clips, way=2, shot=1, query_per_class=1)


def count_parameters(method: Method) -> tuple[int, int]:
    """Count all parameters, and those that are trained."""
    trained = sum(parameter.numel() for _, parameter in method.trainable_parameters())
    return sum(parameter.numel() for parameter in method.parameters()), trained


def count_gflops(method: Method, batch: VideoBatch, *, training: bool = False) -> float:
    """Count the operations of scoring a batch, on the meta device, where no fused kernel hides any.

    No random number is drawn and no device is used.

    Args:
        method: wherever it lies; left as it is.
        batch: what to score.
        training: count a forward and a backward pass of training instead, the teacher's forward included.

    Returns:
        GFLOPs; a multiplication and an addition are two.
    """
    tensors = itertools.chain(method.parameters(), method.buffers())
    # Copies with shapes and no memory, wherever the method lies.
    hollow = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors}
    parameters = {
        id(parameter): nn.Parameter(hollow[id(parameter)], requires_grad=parameter.requires_grad)
        for parameter in method.parameters()
    }
    abstract = copy.deepcopy(method, hollow | parameters).train(training)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        output = abstract(batch.to("meta"))
        if training:
            torch.stack(list(output.losses.values())).sum().backward()
    return counter.get_total_flops() / 1e9


def describe(method: Method, *, num_frames: int, side: int) -> str:
    """Say in one line how large a method is and what a clip costs."""
    total, trained = count_parameters(method)
    gflops = count_gflops(method, synthetic_clip(num_frames=num_frames, side=side))
    return (
        f"{total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained; "
        f"{gflops:.1f} GFLOPs for a clip of {num_frames} frames, {side} x {side} pixels"
    )
