"""What the blocks of a ViT image tower, STDD's among them, make of the patches, read off a forward by hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from slowfast.methods.explanation import PatchView
from slowfast.models.clip.class_attention import class_attention
from slowfast.models.clip.layers import ResidualBlock
from slowfast.models.clip.vision import VisionTransformer
from slowfast.models.temporal.st_cross import SpaceTimeCrossBlock


def patch_views(tower: VisionTransformer, frames: Tensor) -> list[tuple[PatchView, ...]]:
    """Look at every block while a tower embeds clips.

    Args:
        tower: the image tower, in evaluation mode.
        frames: normalised frames, (B, 3, T, H, W).

    Returns:
        For each clip a view of every block, on the CPU.
    """
    found: list[tuple[Tensor, Tensor | None]] = []
    with _before_each_block(tower, num_videos=frames.shape[0], found=found):
        tower.forward(frames)  # the eager code, also of a tower that is compiled
    return [tuple(_view(number, clip, *look) for number, look in enumerate(found, 1)) for clip in range(len(frames))]


@contextmanager
def _before_each_block(
    tower: VisionTransformer, *, num_videos: int, found: list[tuple[Tensor, Tensor | None]]
) -> Iterator[None]:
    """Collect attention (B, T, P * P) and kept patches of the same shape of every block.

    A block's input is the output of what comes before: of the last one a tower calls another function than forward,
    which hooks do not see.
    """
    blocks = list(tower.transformer.resblocks)
    before: Sequence[nn.Module] = (tower.ln_pre, *blocks[:-1])

    def hook(block: nn.Module) -> Callable[..., None]:
        assert isinstance(block, ResidualBlock)

        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            del module, inputs
            x = output.view(num_videos, -1, *output.shape[-2:])
            found.append((class_attention(block, x), _kept_patches(block, x)))

        return look

    handles = [module.register_forward_hook(hook(block)) for module, block in zip(before, blocks, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _kept_patches(block: ResidualBlock, x: Tensor) -> Tensor | None:
    """Patches of the temporal branch, (B, T, L, D) -> (B, T, P * P), bool; None for a block without a mask."""
    if not isinstance(block, SpaceTimeCrossBlock):
        return None
    # The block draws next, and the same: MODEL.TEMPORAL_SHUFFLE_EVAL takes the mask from the random state.
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        kept = block.kept(*x.shape[:2])  # (B, T, K), the class token among them
    return torch.zeros(x.shape[:3], dtype=torch.bool, device=x.device).scatter_(2, kept, value=True)[..., 1:]


def _view(layer: int, clip: int, attention: Tensor, kept: Tensor | None) -> PatchView:
    size = round(attention.shape[-1] ** 0.5)
    shares = attention[clip].unflatten(-1, (size, size)).cpu()
    chosen = torch.zeros_like(shares, dtype=torch.bool)
    if kept is not None:
        chosen = kept[clip].unflatten(-1, (size, size)).cpu()
    return PatchView(
        layer=layer, attention=shares, chosen=chosen, what="kept by the mask" if kept is not None else ""
    )  # fmt: skip
