"""TC-CLIP's text: prompts whose learned words, shared by all classes, read the context tokens of a video.

Under the causal mask the start of a prompt never sees the class name behind it. So the learned words have the same
states for all classes, with and without a video; a class is the rest of its prompt, which reads them. What does not
depend on the video is computed once for all videos: the blocks before the first that prompts are generated for. From
there on a video costs its few learned words, and of the last block the end-of-text token of each class.

Source: TC-CLIP (ECCV 2024), video-conditional prompting; README.md beside this file maps equations to functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.layers import Attention, LayerNorm, ResidualBlock, mlp
from slowfast.models.clip.model import CLIP, TEXT_TOWER
from slowfast.models.clip.prefix import PromptLearner, Prompts, end_of_text, read_block, residual_block
from slowfast.models.clip.text import longest_text
from slowfast.models.kept import KeepingModule
from slowfast.models.similarity import unit_norm
from slowfast.text.text_bank import TextBank


class PromptGenerationLayer(nn.Module):
    """Lets the learned words attend to the context tokens of a video, then a feed-forward part."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = Attention(width)
        self.ln_1 = LayerNorm(width)
        self.ln_1_kv = LayerNorm(width)
        self.mlp = mlp(width)
        self.ln_2 = LayerNorm(width)

    @torch.no_grad()
    def copy_from(self, block: ResidualBlock) -> None:
        """Start as a block of the text tower, with its first norm for words and context alike."""
        for own, other in (
            (self.attn, block.attn),
            (self.ln_1, block.ln_1),
            (self.ln_1_kv, block.ln_1),
            (self.ln_2, block.ln_2),
            (self.mlp, block.mlp),
        ):
            own.load_state_dict(other.state_dict())
        self.mlp.gelu = block.mlp.gelu

    @torch.no_grad()
    def reset(self, block: ResidualBlock) -> None:
        """Start at random, with the activation of a block: matrices of deviation 0.02, no biases."""
        self.mlp.gelu = block.mlp.gelu
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                parameter.zero_()

    def forward(self, words: Tensor, context: Tensor) -> Tensor:
        """Learned words (1 or B, n, D) and context tokens (B, K, D) -> words of each video, (B, n, D)."""
        q = self.attn.queries(self.ln_1(words)).transpose(1, 2)  # (1 or B, heads, n, 64)
        k, v = (x.transpose(1, 2) for x in self.attn.keys_values(self.ln_1_kv(context)))
        attended = F.scaled_dot_product_attention(q.expand(len(context), -1, -1, -1), k, v)
        words = words + self.attn.out_proj(attended.transpose(1, 2).flatten(2))
        return words + self.mlp(self.ln_2(words))


class PromptedText(KeepingModule):
    """Class embeddings that may depend on the video.

    Args:
        sizes: of the CLIP.
        words: what the learned words start from, (n, D).
        levels: blocks of the text tower, from 0 and in increasing order, before which words read the context.
    """

    tokens: Tensor

    def __init__(self, sizes: ClipSizes, *, words: Tensor, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.prompt_learner = PromptLearner(words)
        self.prompt_generation_layer = nn.ModuleList(PromptGenerationLayer(sizes.text_width) for _ in self.levels)
        self.register_buffer("tokens", torch.empty(0, 0, dtype=torch.long), persistent=False)

    def start_layers(self, clip: CLIP, *, copy: bool) -> None:
        """Start what reads the video: as copies of the blocks that it stands before, or at random."""
        for level, layer in zip(self.levels, self.prompt_generation_layer, strict=True):
            block = residual_block(clip.transformer.resblocks[level])
            assert isinstance(layer, PromptGenerationLayer)
            if copy:
                layer.copy_from(block)
            else:
                layer.reset(block)

    def set_bank(self, bank: TextBank) -> None:
        """Take the tokens of the classes, one prompt each, without the columns behind the longest.

        Raises:
            ValueError: if the bank holds features only.
        """
        if bank.tokens is None:
            raise ValueError("the text tower needs texts to embed, but the text bank holds features only")
        tokens = bank.tokens[:, 0]
        self.tokens = tokens[:, : longest_text(tokens)].to(self.tokens.device)
        self.forget()

    def forward(self, clip: CLIP, context: Sequence[Tensor]) -> Tensor:
        """Embed the classes.

        Args:
            clip: the model with the text tower.
            context: context tokens in the joint space, (B, K, D), one tensor per level.

        Returns:
            Class embeddings, unit norm, (B, K, E); (1, K, E) where they do not depend on the video.
        """
        blocks = [residual_block(block) for block in clip.transformer.resblocks]
        prompts = self._shared(clip, blocks)
        if clip.sizes.embed_dim != clip.sizes.text_width:
            # No published CLIP of TC-CLIP is like this: the way from words to the joint space, walked back.
            context = [tokens @ clip.text_projection.T for tokens in context]
        first = self.levels[0] if self.levels else len(blocks) - 1
        for number, block in enumerate(blocks[first:], start=first):
            if number in self.levels:
                level = self.levels.index(number)
                prompts = Prompts(self._prompt(level, prompts.start, context[level]), prompts.rest)
            if number < len(blocks) - 1:
                prompts = clip.transformer.run(block, partial(read_block, block), prompts)
        end = partial(end_of_text, blocks[-1], ends=self.tokens.argmax(dim=-1) - prompts.start.shape[1])
        states = clip.transformer.run(blocks[-1], end, prompts)
        return unit_norm(clip.ln_final(states) @ clip.text_projection)

    def _prompt(self, level: int, start: Tensor, context: Tensor) -> Tensor:
        words = self.prompt_generation_layer[level](start[:, 1:], context)
        return torch.cat((start[:, :1].expand(len(words), -1, -1).to(words.dtype), words), dim=1)

    def _shared(self, clip: CLIP, blocks: Sequence[ResidualBlock]) -> Prompts:
        """States before the first level, or before the last block; kept as long as nothing writes to the weights."""
        if self.training or torch.is_grad_enabled():
            return self._read_shared(clip, blocks)
        if self.tokens.is_meta:  # where operations are counted: nobody pays for what is kept
            length, width = 1 + len(self.prompt_learner.ctx), clip.sizes.text_width
            start = clip.text_projection.new_empty(1, length, width)
            return Prompts(start, start.new_empty(1, len(self.tokens), self.tokens.shape[1] - length, width))
        tower = [parameter for name, parameter in clip.named_parameters() if name.startswith(TEXT_TOWER)]
        return self.keep((*tower, self.prompt_learner.ctx), lambda: self._read_shared(clip, blocks))

    def _read_shared(self, clip: CLIP, blocks: Sequence[ResidualBlock]) -> Prompts:
        words = self.prompt_learner.ctx
        length = 1 + len(words)
        start = torch.cat((clip.token_embedding(self.tokens[:1, :1]), words[None]), dim=1)
        rest = clip.token_embedding(self.tokens[None, :, length:])
        positions = clip.positional_embedding
        prompts = Prompts(start + positions[:length], rest + positions[length : self.tokens.shape[1]])
        for block in blocks[: self.levels[0] if self.levels else len(blocks) - 1]:
            prompts = clip.transformer.run(block, partial(read_block, block), prompts)
        return prompts
