"""What the blocks of ViFi-CLIP's image tower make of the patches: the attention of the class token."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast.methods.explanation import PatchView
from slowfast.methods.vifi_clip.vision import PromptedTower


def patch_views(tower: PromptedTower, frames: Tensor) -> list[tuple[PatchView, ...]]:
    """Look at every block while a tower embeds clips.

    Args:
        tower: the image tower, in evaluation mode.
        frames: normalised frames, (B, 3, T, H, W).

    Returns:
        For each clip a view of every block, on the CPU.
    """
    traced = [attention.float().cpu() for attention in tower.trace(frames)]  # (B, T, P * P)
    size = round(traced[0].shape[-1] ** 0.5)
    squares = [attention.unflatten(-1, (size, size)) for attention in traced]
    return [tuple(_view(layer, square[clip]) for layer, square in enumerate(squares, 1)) for clip in range(len(frames))]


def _view(layer: int, attention: Tensor) -> PatchView:
    nothing = torch.zeros_like(attention, dtype=torch.bool)  # the blocks do not choose
    return PatchView(layer=layer, attention=attention, chosen=nothing, what="")
