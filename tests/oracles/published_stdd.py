"""STDD's block written straightforwardly, as published: an oracle for numbers, and what speed is measured against.

CLIP's layout (tokens, frames of all videos, width), PyTorch's MultiheadAttention, windows by reshapes and permutes, a
mask made from lists in every call, boolean indexing, and one pass with its own output projection per temporal scale.

Source: STDD (AAAI 2025), from its description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64


class PublishedBlock(nn.Module):
    """Space-time cross attention, (L, B * T, D) -> (L, B * T, D), under the parameter names of CLIP's block.

    Args:
        width: channels, D.
        num_frames: frames of a clip, T.
        reads_merged: whether the feed-forward part reads the merged tokens; as published it does not.
        The others are the MODEL keys of the same name in upper case.
    """

    def __init__(
        self,
        width: int,
        *,
        num_frames: int,
        mask_rate: float = 0.5,
        mask_stride: Sequence[int] = (1, 2, 2),
        spatial_repeat: bool = True,
        temporal_shuffle: bool = True,
        temporal_shuffle_eval: bool = False,
        channel_fold: int = 64,
        temporal_scale: Sequence[int] = (1,),
        reads_merged: bool = False,
    ) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.ln_2 = nn.LayerNorm(width)
        self.num_frames, self.borrowed, self.scales = num_frames, width // channel_fold, tuple(temporal_scale)
        self.mask_rate, (_, self.down, self.across) = mask_rate, mask_stride
        self.spatial_repeat, self.reads_merged = spatial_repeat, reads_merged
        self.temporal_shuffle, self.temporal_shuffle_eval = temporal_shuffle, temporal_shuffle_eval

    def normed(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """In float32 whatever comes in."""
        return F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(x.dtype)

    def attention(self, x: Tensor) -> Tensor:
        normed = self.normed(self.ln_1, x)
        return self.attn(normed, normed, normed, need_weights=False)[0]

    def feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.mlp["c_fc"](x)
        return self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))

    def mask(self, num_videos: int, num_patches: int, device: torch.device) -> Tensor:
        """Which patches stay out of the temporal branch, in window order, (B, T, P * P)."""
        num_frames, per_cell = self.num_frames, self.down * self.across
        num_cells = num_patches // per_cell
        masked = math.floor(math.floor(self.mask_rate * num_frames * num_patches) / (num_frames * num_cells))
        base = [1] * masked + [0] * (per_cell - masked)
        rows = [base[per_cell - turn % per_cell :] + base[: per_cell - turn % per_cell] for turn in range(2 * per_cell)]
        table = torch.tensor(rows, dtype=torch.bool).to(device)
        turn = (torch.arange(num_frames, device=device) % per_cell)[None, :, None].expand(num_videos, -1, num_cells)
        if self.training:
            shape = (num_videos, 1 if self.spatial_repeat else num_cells)
            turn = turn + torch.randint(per_cell, shape, device=device)[:, None]
        mask = table[turn]  # (B, T, C, q)
        if self.temporal_shuffle and (self.training or self.temporal_shuffle_eval):
            order = torch.rand(num_videos, num_frames, device=device).argsort(dim=1)
            mask = torch.stack([video[frames] for video, frames in zip(mask, order, strict=True)])
        return mask.flatten(2)

    def to_windows(self, patches: Tensor) -> Tensor:
        """(P * P, B * T, D) -> (B, T, P * P, D) in window order."""
        side = math.isqrt(len(patches))
        x = patches.view(side // self.down, self.down, side // self.across, self.across, *patches.shape[1:])
        x = x.permute(4, 0, 2, 1, 3, 5)
        return x.reshape(-1, self.num_frames, len(patches), patches.shape[-1])

    def from_windows(self, windows: Tensor) -> Tensor:
        """(B, T, P * P, D) in window order -> (P * P, B * T, D)."""
        num_patches = windows.shape[2]
        side = math.isqrt(num_patches)
        x = windows.flatten(0, 1).unflatten(1, (side // self.down, side // self.across, self.down, self.across))
        return x.permute(1, 3, 2, 4, 0, 5).reshape(num_patches, -1, windows.shape[-1])

    def mixed(self, kept: Tensor, reach: int) -> Tensor:
        """Channels borrowed in time, (B, T, L, D) -> the same."""
        out, c = kept.clone(), self.borrowed
        out[..., : 2 * c] = 0
        for distance in range(1, reach + 1):
            count = c >> (distance - 1)
            if count and distance < self.num_frames:
                out[:, distance:, :, :count] = kept[:, :-distance, :, :count]
                out[:, :-distance, :, 2 * c - count : 2 * c] = kept[:, distance:, :, 2 * c - count : 2 * c]
        return out

    def forward(self, x: Tensor) -> Tensor:
        width, num_videos = x.shape[2], x.shape[1] // self.num_frames
        keep = ~self.mask(num_videos, len(x) - 1, x.device)
        kept = self.to_windows(x[1:])[keep].view(num_videos, self.num_frames, -1, width)
        passes = []
        for reach in self.scales:
            z = torch.cat((x[:1], self.mixed(kept, reach).flatten(0, 1).transpose(0, 1)))
            passes.append(z + self.attention(z))
        temporal = torch.stack(passes).mean(dim=0)

        spatial = x + self.attention(x)
        windows = self.to_windows(spatial[1:]).clone()
        windows[keep] = temporal[1:].transpose(0, 1).reshape(-1, width).to(windows.dtype)
        merged = torch.cat((temporal[:1].to(windows.dtype), self.from_windows(windows)))
        return merged + self.feed_forward(self.normed(self.ln_2, merged if self.reads_merged else spatial))
