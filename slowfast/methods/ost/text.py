"""OST's texts: the descriptors of the classes, embedded by a text tower that trains along."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast.models.clip.model import CLIP, TEXT_TOWER
from slowfast.models.clip.text import trim_tokens
from slowfast.models.kept import KeepingModule
from slowfast.models.similarity import unit_norm
from slowfast.text.text_bank import TextBank, encode_tokens


class DescriptorText(KeepingModule):
    """Embeddings of the descriptors of all classes, or of those in a batch.

    A text costs what it is long: the columns behind the longest of those that are embedded together are left out, which
    changes nothing under the causal mask.

    Args:
        kinds: kinds of descriptors, S of them.
        trains: whether the text tower trains; if not, training uses what is kept.
    """

    tokens: Tensor

    def __init__(self, kinds: tuple[str, ...], *, trains: bool) -> None:
        super().__init__()
        self.kinds, self.trains = kinds, trains
        self.names: tuple[str, ...] = ()
        self.texts: tuple[tuple[str, ...], ...] = ()
        self.lengths: list[list[int]] = []
        self.register_buffer("tokens", torch.empty(len(kinds), 0, 1, 0, dtype=torch.long), persistent=False)

    def set_bank(self, names: tuple[str, ...], bank: TextBank) -> None:
        """Take the classes and their prompts, (K, S N, 77).

        Raises:
            ValueError: if the bank holds features only.
        """
        if bank.tokens is None or bank.texts is None:
            raise ValueError("descriptors are texts to embed, but the text bank holds features only")
        tokens = bank.tokens.unflatten(1, (len(self.kinds), -1)).transpose(0, 1)  # (S, K, N, 77)
        self.lengths = (tokens.argmax(dim=-1).amax(dim=-1) + 1).tolist()
        longest = max(map(max, self.lengths))
        self.tokens = tokens[..., :longest].contiguous().to(self.tokens.device)
        self.names, self.texts = names, bank.texts
        self.forget()

    def of_kind(self, number: int, kind: str) -> tuple[str, ...]:
        """The descriptors of a class, as they were written."""
        place, count = self.kinds.index(kind), self.tokens.shape[2]
        return self.texts[number][place * count : (place + 1) * count]

    def all(self, clip: CLIP) -> Tensor:
        """Embed the descriptors of all classes, once for as long as the text tower is the same.

        Returns:
            Unit norm, at least fp32, without gradient, (S, K, N, E).
        """
        if self.tokens.is_meta:  # where operations are counted: nobody pays for what is kept
            return clip.text_projection.new_empty(*self.tokens.shape[:3], clip.sizes.embed_dim)
        tower = [parameter for name, parameter in clip.named_parameters() if name.startswith(TEXT_TOWER)]
        return self.keep(tower, lambda: self._encode_all(clip))

    def _encode_all(self, clip: CLIP) -> Tensor:
        flat = encode_tokens(self.tokens.flatten(0, 2), encode=lambda tokens: clip.encode_text(trim_tokens(tokens)))
        return flat.unflatten(0, self.tokens.shape[:3])

    def of_labels(self, clip: CLIP, label: Tensor, numbers: list[int]) -> Tensor:
        """Embed the descriptors of the classes in a batch, each class once.

        Args:
            clip: the model with the text tower.
            label: classes of the videos, on the model's device, (B,).
            numbers: the same on the host.

        Returns:
            Unit norm, with the gradient of the text tower if that trains, (S, B, N, E).
        """
        if not self.trains:
            return self.all(clip).index_select(1, label)
        present = set(numbers)
        classes, place = distinct(label, len(present))
        kinds = []
        for tokens, lengths in zip(self.tokens, self.lengths, strict=True):
            chosen = tokens[:, :, : max(lengths[number] for number in present)].index_select(0, classes)  # (U, N, L)
            kinds.append(clip.encode_text(chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2]))
        return unit_norm(torch.stack(kinds)).index_select(1, place)


def distinct(label: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the different values of a tensor whose number is known, so that nobody waits for a device to count them.

    Args:
        label: integers, (B,).
        count: how many different ones there are, U.

    Returns:
        The different values in increasing order, (U,), and the place of each element among them, (B,).
    """
    ordered, order = label.sort(stable=True)
    is_first = torch.cat((torch.ones_like(ordered[:1], dtype=torch.bool), ordered[1:] != ordered[:-1]))
    place = torch.empty_like(order).scatter_(0, order, is_first.cumsum(0) - 1)
    first = is_first.logical_not().to(torch.uint8).argsort(stable=True)[:count]
    return ordered.index_select(0, first), place
