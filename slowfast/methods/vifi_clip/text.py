"""ViFi-CLIP's text: a few words, the name of a class, a full stop; the words are given, or learned vectors.

Under the causal mask the start of a text never sees the class name behind it. So its states are the same for all
classes and are computed once; a class is the rest of its text, which reads them. Of the last block only the
end-of-text token of each class is computed.

Source: ViFi-CLIP (CVPR 2023), text encoder and prompting; README.md beside this file maps equations to functions.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from slowfast.methods.vifi_clip.vision import PromptedBlock
from slowfast.models.clip.model import CLIP, TEXT_TOWER
from slowfast.models.clip.prefix import PromptLearner, Prompts, end_of_text, read_block, residual_block
from slowfast.models.clip.text import longest_text
from slowfast.models.kept import KeepingModule
from slowfast.models.similarity import unit_norm
from slowfast.text.text_bank import TextBank


class ClassText(KeepingModule):
    """Embeddings of the classes, kept as long as nothing writes to the weights where no gradient is asked for.

    Args:
        num_start: tokens that all texts begin with, start of text included, >= 1.
        words: what learned vectors behind the start-of-text token start from, (num_start - 1, D); None: there are none.
    """

    tokens: Tensor

    def __init__(self, *, num_start: int, words: Tensor | None = None) -> None:
        super().__init__()
        assert words is None or len(words) == num_start - 1, f"{num_start} tokens at the start"
        self.num_start = num_start
        self.prompt_learner = None if words is None else PromptLearner(words)
        self.register_buffer("tokens", torch.empty(0, 0, dtype=torch.long), persistent=False)

    def set_bank(self, bank: TextBank) -> None:
        """Take the tokens of the classes, one text each, without the columns behind the longest.

        Raises:
            ValueError: if the bank holds features only, or texts that begin differently.
        """
        if bank.tokens is None:
            raise ValueError("the text tower needs texts to embed, but the text bank holds features only")
        tokens = bank.tokens[:, 0]
        start = tokens[:, : self.num_start]
        if (start != start[:1]).any() or (tokens.argmax(dim=-1) < self.num_start).any():
            raise ValueError(f"texts of the classes do not share their first {self.num_start} tokens")
        self.tokens = tokens[:, : longest_text(tokens)].to(self.tokens.device)
        self.forget()

    def forward(self, clip: CLIP) -> Tensor:
        """Embed the classes with the text tower of a model; unit norm, (K, E)."""
        tower = [parameter for name, parameter in clip.named_parameters() if name.startswith(TEXT_TOWER)]
        sources = [*tower, *self.parameters()]
        learns = any(parameter.requires_grad for parameter in sources)
        if learns and (self.training or torch.is_grad_enabled()):
            return self._embed(clip)
        if self.tokens.is_meta:  # where operations are counted: nobody pays for what is kept
            return clip.text_projection.new_empty(len(self.tokens), clip.sizes.embed_dim)
        return self.keep(sources, lambda: self._embed(clip))

    def _embed(self, clip: CLIP) -> Tensor:
        *blocks, last = (residual_block(block) for block in clip.transformer.resblocks)
        texts = self._read_tokens(clip)
        for block, following in zip(blocks, [*blocks[1:], last], strict=True):
            # What the next block replaces need not be computed: all of the start but the start-of-text token.
            going_on = 1 if isinstance(following, PromptedBlock) else None
            texts = clip.transformer.run(block, partial(read_block, block, going_on=going_on), _with_own(block, texts))
        end = partial(end_of_text, last, ends=self.tokens.argmax(dim=-1) - self.num_start)
        (states,) = clip.transformer.run(last, end, _with_own(last, texts))
        return unit_norm(clip.ln_final(states) @ clip.text_projection)

    def _read_tokens(self, clip: CLIP) -> Prompts:
        """Embeddings with positions: the start, (1, S, D), and the rest of each class, (1, K, M, D)."""
        shared = self.tokens[:1, : self.num_start]
        if self.prompt_learner is None:
            start = clip.token_embedding(shared)
        else:
            start = torch.cat((clip.token_embedding(shared[:, :1]), self.prompt_learner.ctx[None]), dim=1)
        rest = clip.token_embedding(self.tokens[None, :, self.num_start :])
        positions = clip.positional_embedding[: self.tokens.shape[1]]
        return Prompts(start + positions[: self.num_start], rest + positions[self.num_start :])


def _with_own(block: nn.Module, texts: Prompts) -> Prompts:
    """Put the vectors that a block brings behind the start-of-text token."""
    if not isinstance(block, PromptedBlock):
        return texts
    own = block.VPT_shallow[None].to(texts.start.dtype)
    return Prompts(torch.cat((texts.start[:, :1], own), dim=1), texts.rest)
