"""What the blocks of TC-CLIP's image tower make of the patches: seeds, and the context tokens that they went into."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast.methods.explanation import PatchView
from slowfast.methods.tc_clip.context_tokens import ContextTower, Seeds


def patch_views(tower: ContextTower, frames: Tensor) -> list[tuple[PatchView, ...]]:
    """Look at every block while a tower embeds clips.

    Args:
        tower: the image tower, in evaluation mode.
        frames: normalised frames, (B, 3, T, H, W).

    Returns:
        For each clip a view of every block, on the CPU.
    """
    traced = [Seeds(*(x.cpu() for x in seeds)) for seeds in tower.trace(frames)]
    return [tuple(_view(layer, clip, seeds) for layer, seeds in enumerate(traced, 1)) for clip in range(len(frames))]


def _view(layer: int, clip: int, seeds: Seeds) -> PatchView:
    scores, patches = seeds.scores[clip].float(), seeds.patches[clip]  # (T, P), (T, m)
    size = round(scores.shape[-1] ** 0.5)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, patches, value=True)
    group = torch.full_like(scores, -1, dtype=torch.int64).scatter_(1, patches, seeds.group[clip].view_as(patches))
    has_seeds = patches.shape[1] > 0
    return PatchView(
        layer=layer,
        attention=scores.unflatten(-1, (size, size)),
        chosen=chosen.unflatten(-1, (size, size)),
        what="seed tokens" if has_seeds else "",
        group=group.unflatten(-1, (size, size)) if has_seeds else None,
    )
