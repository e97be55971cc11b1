"""CLIP over videos and texts: one implementation for the tuned model, the frozen teacher and the text tower."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from slowfast.models.clip.arch import AnyClipSizes, ResNetSizes
from slowfast.models.clip.layers import LayerNorm
from slowfast.models.clip.programs import FixedShapes
from slowfast.models.clip.resnet import ModifiedResNet
from slowfast.models.clip.text import causal_transformer, pool_end_of_text
from slowfast.models.clip.vision import VisionTransformer

TEXT_TOWER = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
"""Parameter names of the text tower, as prefixes."""


ImageTower = VisionTransformer | ModifiedResNet


def plain_tower(sizes: AnyClipSizes) -> ImageTower:
    """CLIP's own image tower, which treats every frame on its own."""
    return ModifiedResNet(sizes) if isinstance(sizes, ResNetSizes) else VisionTransformer(sizes)


class CLIP(nn.Module):
    """A CLIP whose parameter names are OpenAI's.

    Args:
        sizes: sizes of both towers.
        visual: the image tower; None for the plain one.
    """

    def __init__(self, sizes: AnyClipSizes, *, visual: ImageTower | None = None) -> None:
        super().__init__()
        self.sizes = sizes
        self.visual: ImageTower = plain_tower(sizes) if visual is None else visual
        self.transformer = causal_transformer(sizes.text_width, sizes.text_layers)
        self.token_embedding = nn.Embedding(sizes.vocab_size, sizes.text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context_length, sizes.text_width))
        self.ln_final = LayerNorm(sizes.text_width)
        self.text_projection = nn.Parameter(sizes.text_width**-0.5 * torch.randn(sizes.text_width, sizes.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self._vision_programs: FixedShapes | None = None

    def recompute_blocks(self, on: bool) -> None:
        """Choose whether a training step computes the inside of every block of both towers twice, see `Transformer`.

        Raises:
            ValueError: if it shall, but the image tower is a ResNet.
        """
        if isinstance(self.visual, VisionTransformer):
            self.visual.transformer.recompute = on
        elif on:  # the second pass would move the running statistics once more
            raise ValueError("MODEL.USE_CHECKPOINT: True, but a ResNet image tower cannot recompute; allowed: False")
        self.transformer.recompute = on

    def compile_vision(self) -> None:
        """Compile the image tower, see `FixedShapes`; names of parameters stay."""
        self._vision_programs = FixedShapes(self.visual)

    def encode_video(self, frames: Tensor) -> Tensor:
        """Embed the frames of videos.

        Args:
            frames: normalised frames, (B, 3, T, H, W).

        Returns:
            Frame embeddings, not normalised, (B, T, E).
        """
        return self.run_visual(frames)

    def run_visual(self, frames: Tensor) -> Any:  # noqa: ANN401 - a tower that is not CLIP's own may give more
        """Run the image tower, as a program where it is compiled; what it gives is the tower's own."""
        return self.visual(frames) if self._vision_programs is None else self._vision_programs(self.visual, frames)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed tokenised texts.

        Args:
            tokens: token numbers, (N, L) with L at most the context length; 0 behind the end-of-text token.

        Returns:
            Text embeddings, not normalised, (N, E).

        Raises:
            ValueError: if the texts are longer than the context.
        """
        if tokens.shape[1] > self.sizes.context_length:
            raise ValueError(f"texts have {tokens.shape[1]} tokens; the context holds {self.sizes.context_length}")
        return self.encode_token_embeddings(self.token_embedding(tokens), tokens)

    def encode_token_embeddings(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Embed texts whose token embeddings are given, for instance with learned context among them.

        Args:
            x: token embeddings, without positions, (N, L, D).
            tokens: the tokens they stand for, (N, L), which tell where each text ends.

        Returns:
            Text embeddings, not normalised, (N, E).
        """
        x = self.transformer(x + self.positional_embedding[: tokens.shape[1]])
        return pool_end_of_text(self.ln_final(x), tokens) @ self.text_projection

    def text_parameters(self) -> list[nn.Parameter]:
        """Parameters of the text tower; ``logit_scale`` belongs to both towers and is not among them."""
        return [parameter for name, parameter in self.named_parameters() if name.startswith(TEXT_TOWER)]
