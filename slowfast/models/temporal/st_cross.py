"""STDD's block: parameter-free space-time cross attention beside CLIP's spatial attention.

In every cell of ``s1 x s2`` patches a mask, which moves on from frame to frame, keeps some patches for the temporal
branch. There the kept patches of a frame borrow channels from the kept patches of its neighbours: slot j of frame t
mixes with slot j of frame t -+ i, which sits elsewhere in the cell, hence *cross*. The branch attends with the block's
own weights, and its tokens replace those of the spatial branch; patches that were masked keep the spatial update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

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
    stcross_qkv: Literal["auto", "own", "shared"] = "auto"
    """Where queries, keys and values of the temporal scales come from: a product of their own, or the spatial branch's
    product and a thin correction, the same numbers for fewer operations. "auto" shares in float32; in half precision
    the correction would magnify the rounding of a token that loses an outlying channel."""

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
        if self.stcross_qkv not in ("auto", "own", "shared"):
            raise ValueError(f"MODEL.STCROSS_QKV: unknown value {self.stcross_qkv!r}; allowed: auto, own, shared")


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


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the last axis, (..., C) -> twice (..., 1); zeros where C is 0."""
    count = max(1, x.shape[-1])
    mean = x.sum(dim=-1, keepdim=True) / count
    return mean, (x - mean).square().sum(dim=-1, keepdim=True) / count


class TakeTokens(torch.autograd.Function):
    """Pick distinct tokens; as no token is picked twice, the gradient is a copy rather than a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:  # noqa: ANN401 (PyTorch's context)
        """(R, D) and row numbers (K,) -> (K, D)."""
        ctx.save_for_backward(rows)
        ctx.num_rows = x.shape[0]
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """(K, D) -> (R, D)."""
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.num_rows, grad.shape[1]).index_copy_(0, rows, grad), None


def take_tokens(x: Tensor, kept: Tensor) -> Tensor:
    """Pick tokens of every frame, (B, T, L, D) and numbers (B, T, K) -> (B, T, K, D)."""
    return TakeTokens.apply(x.flatten(0, 2), token_rows(kept, x.shape[2])).view(*kept.shape, -1)


def token_rows(kept: Tensor, length: int) -> Tensor:
    """Rows of tokens among those of all frames, (B, T, K) -> (B * T * K,)."""
    frames = kept.flatten(0, 1)  # (B * T, K)
    return (frames + length * torch.arange(len(frames), device=kept.device)[:, None]).flatten()


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

    def mix(self, tokens: Tensor) -> Tensor:
        """Borrow channels for each temporal scale; the class token keeps its own.

        Args:
            tokens: class token and kept patches, (B, T, K, D).

        Returns:
            The leading channels, which mixing changes, (S, B, T, K, 2 * borrowed).
        """
        thin = tokens[..., : 2 * self.borrowed]
        mixed = [mix_channels(thin[:, :, 1:], reach=s, width=self.borrowed) for s in self.options.temporal_scale]
        return torch.stack([torch.cat((thin[:, :, :1], patches), dim=2) for patches in mixed])

    def normed(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Normalise the tokens of every scale, (B, T, K, D) and (S, B, T, K, 2 * borrowed) -> (S, B, T, K, D)."""
        rest = tokens[..., 2 * self.borrowed :].expand(*mixed.shape[:-1], -1)
        return self.ln_1(torch.cat((mixed, rest), dim=-1))

    def corrected(self, qkv: Tensor, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Derive the projections of mixed tokens from those of the tokens as they were.

        With LN(z) = w (z - m) r + b and m', r' of the mixed token z', the product W LN(z') + bias is

            r'/r (W LN(z) + bias) + r' W w (z' - z) + r' (m - m') W w + (1 - r'/r) (W b + bias),

        where z' - z has few channels: a thin product and a multiple. Variances are joined from those of the changed and
        of the other channels, a sum without negative terms.

        Args:
            qkv: projections of the tokens, (B, T, K, 3 D).
            tokens: the tokens, (B, T, K, D).
            mixed: their leading channels for each scale, (S, B, T, K, 2 * borrowed).

        Returns:
            Projections of the mixed tokens, (S, B, T, K, 3 D).
        """
        width, thin = tokens.shape[-1], mixed.shape[-1]
        changed = torch.cat((tokens[None, ..., :thin], mixed)).float()  # (1 + S, B, T, K, thin): z, then every z'
        share = thin / width
        mean, variance = moments(changed)
        rest_mean, rest_variance = moments(tokens[..., thin:].float())
        variance = share * variance + (1 - share) * (rest_variance + share * (mean - rest_mean).square())
        scale = (variance + self.ln_1.eps).rsqrt()
        ratio = scale[1:] / scale[:1]
        difference = changed[1:] - changed[:1]
        factors = (scale[1:] * difference, -scale[1:] * difference.sum(dim=-1, keepdim=True) / width, 1 - ratio)

        weight, gain = self.attn.in_proj_weight, self.ln_1.weight
        along_gain, along_bias = F.linear(torch.stack((gain, self.ln_1.bias)), weight)  # W w, W b
        columns = torch.cat(
            ((weight[:, :thin] * gain[:thin]).t(), along_gain[None], (along_bias + self.attn.in_proj_bias)[None])
        )
        return torch.addcmul(torch.cat(factors, dim=-1) @ columns, ratio, qkv).to(qkv.dtype)

    def scale_projections(self, qkv: Tensor, kept: Tensor, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Queries, keys and values of every scale: see MODEL.STCROSS_QKV.

        Args:
            qkv: projections of the spatial branch, (B, T, L, 3 D).
            kept: tokens of the temporal branch, (B, T, K).
            tokens: the same before mixing, (B, T, K, D).
            mixed: their leading channels for each scale, (S, B, T, K, 2 * borrowed).

        Returns:
            (S, B, T, K, 3 D).
        """
        choice = self.options.stcross_qkv
        if choice == "own" or (choice == "auto" and qkv.dtype not in (torch.float32, torch.float64)):
            return self.attn.project(self.normed(tokens, mixed))
        return self.corrected(take_tokens(qkv, kept), tokens, mixed)

    def temporal_update(self, tokens: Tensor, mixed: Tensor, attended: Tensor) -> Tensor:
        """Finish the temporal branch: the mean over its scales of tokens and what they attended to.

        The output projection is linear: averaging before it gives the average of its results.

        Args:
            tokens: class token and kept patches, (..., D).
            mixed: their leading channels for each scale, (S, ..., 2 * borrowed).
            attended: concatenated heads, (S, ..., D).

        Returns:
            Updated tokens, (..., D).
        """
        mean = torch.cat((mixed.mean(dim=0), tokens[..., 2 * self.borrowed :]), dim=-1)
        return mean + self.attn.out_proj(attended.mean(dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of whole videos, (B, T, L, D) -> (B, T, L, D)."""
        kept = self.kept(*x.shape[:2])
        qkv = self.attn.project(self.ln_1(x))
        spatial = x + self.attn.out_proj(self.attn.attend(qkv))
        tokens = take_tokens(x, kept)
        mixed = self.mix(tokens)
        attended = self.attn.attend(self.scale_projections(qkv, kept, tokens, mixed))
        temporal = self.temporal_update(tokens, mixed, attended).to(spatial.dtype)
        rows = token_rows(kept, x.shape[2])
        merged = spatial.flatten(0, 2).index_copy(0, rows, temporal.flatten(0, 2)).view_as(x)
        return merged + self.feed_forward(self.ln_2(merged if self.reads_merged else spatial))

    def class_token(self, x: Tensor) -> Tensor:
        """What ``forward`` makes of the class token alone, (B, T, L, D) -> (B, T, D)."""
        if self.mixture is not None:  # the shares of experts count every token
            return self(x)[:, :, 0]
        tokens = take_tokens(x, self.kept(*x.shape[:2]))
        mixed = self.mix(tokens)
        attended = self.attn.attend_first(self.normed(tokens, mixed))
        merged = self.temporal_update(tokens[:, :, 0], mixed[:, :, :, 0], attended)
        if self.reads_merged:
            return merged + self.feed_forward(self.ln_2(merged))
        spatial = x[:, :, 0] + self.attn.out_proj(self.attn.attend_first(self.ln_1(x)))
        return merged + self.feed_forward(self.ln_2(spatial))

    @property
    def reads_merged(self) -> bool:
        """Whether the feed-forward part reads the merged tokens."""
        return self.options.stcross_mlp_input == "merged"
