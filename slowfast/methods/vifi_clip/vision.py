"""ViFi-CLIP's image tower: CLIP's own, with learned vectors behind the tokens of every frame.

The vectors of a block are the same for all frames until a frame's tokens have been through it. So where the next block
brings vectors of its own, which replace them, a block computes their keys and values once, and nothing else of them.

Source: ViFi-CLIP (CVPR 2023), prompting; README.md beside this file maps equations to functions.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.class_attention import class_attention
from slowfast.models.clip.layers import ResidualBlock
from slowfast.models.clip.prefix import finish, heads, residual_block
from slowfast.models.clip.vision import VisionTransformer, plain_block

_START_STD = 0.02


def random_vectors(count: int, width: int) -> Tensor:
    """What learned vectors start from where nothing better is known, (n, D)."""
    return _START_STD * torch.randn(count, width)


class PromptedBlock(ResidualBlock):
    """A block of either tower with learned vectors, which its tower puts in place of those that reach it.

    Args:
        width: channels, D.
        num_prompts: number of vectors, n >= 1.
        causal: whether token i sees tokens 0..i only.
    """

    def __init__(self, width: int, *, num_prompts: int, causal: bool = False) -> None:
        super().__init__(width, causal=causal)
        self.VPT_shallow = nn.Parameter(random_vectors(num_prompts, width))


class PromptedTower(VisionTransformer):
    """CLIP's image tower, with vectors behind the tokens of every frame, which have no position.

    Args:
        sizes: of the CLIP.
        num_prompts: vectors in front of each of the first blocks; 0: CLIP's own tower.
        depth: number of these blocks, >= 1; behind the last of them its vectors go on like other tokens.
    """

    def __init__(self, sizes: ClipSizes, *, num_prompts: int = 0, depth: int = 0) -> None:
        def make_block(sizes: ClipSizes, layer: int) -> nn.Module:
            if num_prompts and 1 <= layer < depth:
                return PromptedBlock(sizes.vision_width, num_prompts=num_prompts)
            return plain_block(sizes, layer)

        super().__init__(sizes, block_factory=make_block)
        start = random_vectors(num_prompts, sizes.vision_width) if num_prompts else None
        self.register_parameter("VPT", None if start is None else nn.Parameter(start))

    def forward(self, frames: Tensor) -> Tensor:
        """Embed every frame, normalised (B, 3, T, H, W) -> not normalised (B, T, E)."""
        x = self.embed(frames)
        end = len(self.transformer.resblocks) - 1
        for layer in range(end):
            x = self._run(layer, x)
        last = residual_block(self.transformer.resblocks[end])
        return self.project(self.transformer.run(last, last.class_token, self._with_own(end, x)))

    def trace(self, frames: Tensor) -> list[Tensor]:
        """Attention of each frame's class token to its patches, of every block.

        What goes to the class token itself and to the vectors is left out: a row sums to less than 1.

        Args:
            frames: normalised frames, (B, 3, T, H, W).

        Returns:
            Mean over heads, (B, T, patches) for each block.
        """
        x = self.embed(frames)
        num_patches, found = x.shape[2] - 1, []
        for layer, block in enumerate(self.transformer.resblocks):
            found.append(class_attention(residual_block(block), self._with_own(layer, x))[..., :num_patches])
            if layer < len(self.transformer.resblocks) - 1:
                x = self._run(layer, x)
        return found

    def _own(self, layer: int) -> Tensor | None:
        """The vectors that a block brings, (n, D); None where it goes on with those that reach it, or has none."""
        if layer == 0:
            return None if self.VPT is None else self.ln_pre(self.VPT)
        block = self.transformer.resblocks[layer]
        return block.VPT_shallow if isinstance(block, PromptedBlock) else None

    def _with_own(self, layer: int, x: Tensor) -> Tensor:
        """Everything that a block reads, (B, T, L, D) -> (B, T, L + n, D)."""
        own = self._own(layer)
        return x if own is None else torch.cat((x, own.to(x.dtype).expand(*x.shape[:2], -1, -1)), dim=2)

    def _run(self, layer: int, x: Tensor) -> Tensor:
        """Apply a block but the last; its output has no vectors where the next block brings its own."""
        block, own = residual_block(self.transformer.resblocks[layer]), self._own(layer)
        if own is None or self._own(layer + 1) is None:
            return self.transformer.run(block, block, self._with_own(layer, x))
        return self.transformer.run(block, partial(read_prompts, block, own), x)


def read_prompts(block: ResidualBlock, prompts: Tensor, x: Tensor) -> Tensor:
    """Apply a block to the tokens of frames, which attend to vectors, too; nothing becomes of these.

    Args:
        block: of the image tower.
        prompts: the vectors, (n, D).
        x: tokens, (B, T, L, D).

    Returns:
        Tokens, (B, T, L, D).
    """
    tokens = x.flatten(0, 1)
    q, k, v = heads(block.attn, block.ln_1(tokens))
    own = block.attn.keys_values(block.ln_1(prompts.to(x.dtype)))
    own_k, own_v = (part.transpose(0, 1).expand(len(tokens), -1, -1, -1) for part in own)
    attended = F.scaled_dot_product_attention(q, torch.cat((k, own_k), dim=2), torch.cat((v, own_v), dim=2))
    return finish(block, tokens, attended).view_as(x)
