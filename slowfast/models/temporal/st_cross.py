"""STDD's block: parameter-free space-time cross attention beside CLIP's spatial attention.

In every cell of ``s1 x s2`` patches a mask, which moves on from frame to frame, keeps some patches for the temporal
branch. There the kept patches of a frame borrow channels from the kept patches of its neighbours: slot j of frame t
mixes with slot j of frame t -+ i, which sits elsewhere in the cell, hence *cross*. The branch attends with the block's
own weights, and its tokens replace those of the spatial branch; patches that were masked keep the spatial update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.layers import ResidualBlock
from slowfast.utils.distributed import shard_draw


@dataclass(frozen=True, kw_only=True, slots=True)
class StCrossOptions:
    """Options of the STDD block; each is the MODEL key of the same name in upper case."""

    mask_rate: float = 0.5
    """Share of patches that stay out of the temporal branch, [0, 1]."""
    mask_stride: Sequence[int] = (1, 2, 2)
    """Cell of the mask: (frames, patches down, patches across); the first must be 1."""
    spatial_repeat: bool = True
    """In training, whether all cells of a video share one random phase."""
    temporal_shuffle: bool = True
    """Whether training permutes the frames' masks."""
    temporal_shuffle_eval: bool = False
    """Whether evaluation does so too, as published; results then depend on the random state."""
    channel_fold: int = 64
    """A share of 1 / channel_fold of the channels is borrowed from each side in time."""
    temporal_scale: Sequence[int] = (1,)
    """Reach of each pass of the temporal branch, frames; the passes are averaged."""
    stcross_mlp_input: Literal["unmerged", "merged"] = "unmerged"
    """What the feed-forward part reads: the spatial branch alone (as published), or the merged tokens."""

    def __post_init__(self) -> None:
        if not 0 <= self.mask_rate <= 1:
            raise ValueError(f"MODEL.MASK_RATE: {self.mask_rate} is outside [0, 1]")
        stride = tuple(self.mask_stride)
        if len(stride) != 3 or stride[0] != 1 or min(stride) < 1:
            raise ValueError(f"MODEL.MASK_STRIDE: {list(stride)}; expected [1, s1, s2] with s1, s2 >= 1")
        if self.channel_fold < 2:
            raise ValueError(f"MODEL.CHANNEL_FOLD: {self.channel_fold}; it must be at least 2")
        if isinstance(self.temporal_scale, int) or not self.temporal_scale or min(self.temporal_scale) < 1:
            raise ValueError(f"MODEL.TEMPORAL_SCALE: {self.temporal_scale}; expected a list of frame counts >= 1")
        if self.stcross_mlp_input not in ("unmerged", "merged"):
            raise ValueError(
                f"MODEL.STCROSS_MLP_INPUT: unknown value {self.stcross_mlp_input!r}; allowed: unmerged, merged"
            )


def mask_table(options: StCrossOptions, *, grid_size: int) -> Tensor:
    """Tokens that enter the temporal branch, for every phase of the mask.

    Args:
        options: mask rate and cell.
        grid_size: patches along one side of the image, P.

    Returns:
        Token numbers (1 + raster number of a patch; 0 is the class token), (q, C, q - k): phase, cell, kept slot, with
        q patches per cell, C cells and k of q masked.

    Raises:
        ValueError: if the grid does not divide into the cells.
    """
    _, down, across = options.mask_stride
    if grid_size % down or grid_size % across:
        raise ValueError(
            f"MODEL.MASK_STRIDE: {list(options.mask_stride)} does not divide the grid of "
            f"{grid_size} x {grid_size} patches"
        )
    per_cell = down * across
    num_cells = grid_size**2 // per_cell
    # Published as floor(floor(rate * T * P * P) / (T * C)), which does not depend on T: floors of integers nest.
    num_masked = int(options.mask_rate * grid_size**2) // num_cells
    raster = torch.arange(grid_size**2).view(grid_size // down, down, grid_size // across, across)
    raster = raster.permute(0, 2, 1, 3).reshape(num_cells, per_cell)  # window order -> raster order
    base = torch.arange(per_cell) < num_masked
    kept_slots = torch.stack([torch.nonzero(~base.roll(phase)).flatten() for phase in range(per_cell)])
    return 1 + raster[:, kept_slots].transpose(0, 1).contiguous()


def mix_channels(patches: Tensor, *, reach: int, width: int) -> Tensor:
    """Borrow the first 2 * width channels of each frame's patches from its neighbours.

    The first half comes from the past, the second from the future. At distance i only the outer ``width >> (i - 1)``
    channels of each half are taken, and a larger distance overrides a smaller one. Where all frames that a channel
    could come from lie outside the clip, it is zero.

    Args:
        patches: the leading channels of the kept patches, (B, T, L, 2 * width).
        reach: largest distance in time, frames.
        width: channels borrowed from each side.

    Returns:
        Mixed channels, (B, T, L, 2 * width).
    """
    mixed = torch.zeros_like(patches)
    for distance in range(1, min(reach, patches.shape[1] - 1) + 1):
        count = width >> (distance - 1)
        if count == 0:
            break
        mixed[:, distance:, :, :count] = patches[:, :-distance, :, :count]
        mixed[:, :-distance, :, 2 * width - count :] = patches[:, distance:, :, 2 * width - count :]
    return mixed


class SpaceTimeCrossBlock(ResidualBlock):
    """CLIP's block with the temporal branch of STDD; it has no parameters beyond CLIP's.

    Raises:
        ValueError: if the patch grid does not divide into the cells of the mask.

    Source: STDD (AAAI 2025), space-time cross attention; details as in the published code.
    """

    Options = StCrossOptions
    options_class: ClassVar[type] = StCrossOptions
    kept_tokens: Tensor

    def __init__(self, sizes: ClipSizes, options: StCrossOptions) -> None:
        super().__init__(sizes.vision_width)
        self.options = options
        self.borrowed = sizes.vision_width // options.channel_fold
        # A buffer outside the state dict: the tensors of a checkpoint stay CLIP's own.
        self.register_buffer("kept_tokens", mask_table(options, grid_size=sizes.grid_size), persistent=False)

    def mask_phases(self, num_videos: int, num_frames: int) -> Tensor:
        """Draw the phase of the mask for every frame and cell.

        The order of the draws is the published one: first the phases, then the permutation of the frames.

        Returns:
            Phases in [0, q), (B, T, C) or broadcastable to it.
        """
        options, device = self.options, self.kept_tokens.device
        num_phases, num_cells, _ = self.kept_tokens.shape
        phases = torch.arange(num_frames, device=device)[None, :, None]  # (1, T, 1)
        if self.training:
            columns = 1 if options.spatial_repeat else num_cells
            shift = shard_draw(lambda n: torch.randint(num_phases, (n, columns), device=device), num_videos)
            phases = phases + shift[:, None, :]  # (B, T, 1 or C)
        if options.temporal_shuffle and (self.training or options.temporal_shuffle_eval):
            # Ranks share one stream in training; an evaluation batch may differ in size from rank to rank.
            keys = (
                shard_draw(lambda n: torch.rand(n, num_frames, device=device), num_videos)
                if self.training
                else torch.rand(num_videos, num_frames, device=device)
            )
            order = keys.argsort(dim=1)
            phases = phases.expand(num_videos, -1, -1)
            phases = phases.gather(1, order[:, :, None].expand(-1, -1, phases.shape[2]))
        return phases.remainder(num_phases)

    def kept(self, num_videos: int, num_frames: int) -> Tensor:
        """Choose the tokens of the temporal branch, the class token first.

        Returns:
            Token numbers in window order, (B, T, 1 + L_kept).
        """
        phases = self.mask_phases(num_videos, num_frames)
        cells = torch.arange(self.kept_tokens.shape[1], device=phases.device)
        tokens = self.kept_tokens[phases, cells].flatten(2).expand(num_videos, -1, -1)  # (B, T, C * kept slots)
        return torch.cat((tokens.new_zeros(num_videos, num_frames, 1), tokens), dim=2)

    def temporal_branch(self, tokens: Tensor) -> Tensor:
        """Attend over the kept tokens after mixing channels in time, averaged over the temporal scales.

        Args:
            tokens: class token and kept patches, (B, T, 1 + L_kept, D).

        Returns:
            Updated tokens, (B, T, 1 + L_kept, D).
        """
        thin = tokens[:, :, 1:, : 2 * self.borrowed]
        scales = self.options.temporal_scale
        mixed = tokens.expand(len(scales), *tokens.shape).clone()  # (S, B, T, 1 + L_kept, D)
        for index, reach in enumerate(scales):
            mixed[index, :, :, 1:, : 2 * self.borrowed] = mix_channels(thin, reach=reach, width=self.borrowed)
        # The output projection is linear: averaging before it gives the average of its results.
        attended = self.attn.heads(self.ln_1(mixed)).mean(dim=0)
        return mixed.mean(dim=0) + self.attn.out_proj(attended)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of whole videos, (B, T, L, D) -> (B, T, L, D)."""
        num_videos, num_frames, _, width = x.shape
        index = self.kept(num_videos, num_frames)[..., None].expand(-1, -1, -1, width)
        spatial = x + self.attn(self.ln_1(x))
        temporal = self.temporal_branch(x.gather(2, index))
        merged = spatial.scatter(2, index, temporal.to(spatial.dtype))
        mlp_input = merged if self.options.stcross_mlp_input == "merged" else spatial
        return merged + self.feed_forward(self.ln_2(mlp_input))
