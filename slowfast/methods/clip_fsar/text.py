"""The frozen text tower, which embeds class names once and is no part of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slowfast.datasets.label_set import LabelSet
from slowfast.models.build import freeze
from slowfast.models.clip.model import CLIP
from slowfast.text.text_bank import TextBank, template_bank
from slowfast.text.tokenizer import Tokenizer


class FrozenText:
    """Embeds class names; not a module, so that the tower is in no checkpoint, on no device, and never trains.

    Args:
        clip: with the text tower; it stays on the CPU.
        template: what a name is put into, with one ``{}``.
    """

    def __init__(self, clip: CLIP, *, template: str) -> None:
        freeze(clip)
        self._clip, self._template = clip, template

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenText:
        """A constant is its own copy."""
        return self

    def bank(self, label_set: LabelSet) -> TextBank:
        """Write the text of each class: its name, to the letter, in the template.

        Raises:
            ValueError: if a text is too long for the text tower.
        """
        return template_bank(label_set.names, tokenizer=Tokenizer(), templates=(self._template,))

    def embed(self, bank: TextBank) -> Tensor:
        """Embed texts, (K, 1, 77) -> (K, D), as the tower gives them: not normalised."""
        assert bank.tokens is not None, "class names come as tokens"
        tokens = bank.tokens[:, 0]
        longest = int(tokens.argmax(dim=-1).max()) + 1  # nothing behind the end of a text reaches it
        with torch.inference_mode(mode=False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self._clip.encode_text(tokens[:, :longest])
