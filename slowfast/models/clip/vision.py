"""CLIP's ViT image tower over the frames of a video."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.layers import LayerNorm, ResidualBlock, Transformer

BlockFactory = Callable[[ClipSizes, int], nn.Module]
"""(sizes, layer number) -> a block that maps (B, T, L, D) to (B, T, L, D)."""


def plain_block(sizes: ClipSizes, layer: int) -> nn.Module:
    """CLIP's own block: every frame on its own."""
    del layer
    return ResidualBlock(sizes.vision_width)


class VisionTransformer(nn.Module):
    """ViT whose blocks see all frames of a video, so that a block may exchange information between them."""

    def __init__(self, sizes: ClipSizes, *, block_factory: BlockFactory = plain_block) -> None:
        super().__init__()
        width = sizes.vision_width
        self.image_size = sizes.image_size
        self.conv1 = nn.Conv2d(3, width, kernel_size=sizes.patch_size, stride=sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(sizes.grid_size**2 + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer([block_factory(sizes, layer) for layer in range(sizes.vision_layers)])
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed_dim))

    def forward(self, frames: Tensor) -> Tensor:
        """Embed every frame.

        Args:
            frames: normalised frames, (B, 3, T, H, W) with H == W == image_size.

        Returns:
            Frame embeddings in the joint space, not normalised, (B, T, E).

        Raises:
            ValueError: if the frames have another shape.
        """
        return self.project(self.transformer.class_token(self.embed(frames)))

    def embed(self, frames: Tensor) -> Tensor:
        """Make tokens of frames: class token first, then the patches row by row.

        Args:
            frames: normalised frames, (B, 3, T, H, W) with H == W == image_size.

        Returns:
            Tokens with positions, behind the first norm, (B, T, L, D).

        Raises:
            ValueError: if the frames have another shape.
        """
        if frames.ndim != 5 or frames.shape[1] != 3 or frames.shape[3:] != (self.image_size, self.image_size):
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; expected (B, 3, T, {self.image_size}, {self.image_size})"
            )
        num_videos = frames.shape[0]
        images = rearrange(frames, "B C T H W -> (B T) C H W").to(self.conv1.weight.dtype)
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # (B T, P*P, D)
        class_token = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x = torch.cat((class_token, patches), dim=1).unflatten(0, (num_videos, -1))  # (B, T, L, D)
        return self.ln_pre(x + self.positional_embedding.to(x.dtype))

    def project(self, x: Tensor) -> Tensor:
        """Bring tokens to the joint space, (..., D) -> (..., E)."""
        return self.ln_post(x) @ self.proj
