"""Where the class embeddings come from: a file, templates, a learned matrix, learned context or a tuned text tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from slowfast.models.clip.model import CLIP, TEXT_TOWER
from slowfast.models.clip.text import longest_text, trim_tokens
from slowfast.models.similarity import unit_norm, without_autocast
from slowfast.text.text_bank import TextBank, TextEncoder, encode_tokens, mean_features
from slowfast.utils.io import sha256_tensors


class ClassText(NamedTuple):
    """Class embeddings of one forward."""

    features: Tensor
    """What videos are compared with, unit norm, fp32: (K, E), or (K, P, E) with P prompts per class."""
    raw: Tensor | None = None
    """What frozen CLIP makes of the same texts, (K, E), where a loss compares the two."""
    mask: Tensor | None = None
    """Which of the P prompts a class has, (K, P) bool; None where every class has all."""


class TextHead(nn.Module, ABC):
    """Gives the class embeddings; its parameters, if any, appear in state dicts under the method's own names."""

    @abstractmethod
    def set_bank(self, bank: TextBank, clip: CLIP) -> None:
        """Choose the classes.

        Args:
            bank: their prompts.
            clip: the model whose text tower embeds them, with CLIP's initial weights.
        """

    @abstractmethod
    def forward(self, clip: CLIP) -> ClassText:
        """Embed the classes with the current text tower of a model."""


class FixedText(TextHead):
    """Features that were computed beforehand."""

    features: Tensor
    mask: Tensor | None

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.empty(0, embed_dim), persistent=False)
        self.register_buffer("mask", None, persistent=False)

    def set_bank(self, bank: TextBank, clip: CLIP) -> None:
        """Take the bank's features and their mask."""
        self.features = bank_features(bank, clip).to(self.features.device)
        self.mask = _bank_mask(bank, self.features.device)

    def forward(self, clip: CLIP) -> ClassText:
        """Return the features; the model is not used."""
        del clip
        return ClassText(self.features, mask=self.mask)


class TunedHead(TextHead):
    """A learned matrix, or a learned set of prompts per class, that starts from the text features (TUNE_HEAD)."""

    head: nn.Parameter
    mask: Tensor | None

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.head = nn.Parameter(torch.empty(0, embed_dim))
        self.register_buffer("mask", None, persistent=False)
        self._kept: tuple[tuple[int, int, int], Tensor] | None = None

    def set_bank(self, bank: TextBank, clip: CLIP) -> None:
        """Start from the bank's features; with another number of rows before an optimiser takes the parameter only."""
        self._kept = None
        features = bank_features(bank, clip).to(self.head.device)
        if features.shape == self.head.shape:
            with torch.no_grad():
                self.head.copy_(features)
        else:
            self.head = nn.Parameter(features.clone())
        self.mask = _bank_mask(bank, self.head.device)

    def train(self, mode: bool = True) -> TunedHead:
        """Switch the mode; training has no use for what scoring keeps."""
        if mode:
            self._kept = None
        return super().train(mode)

    def forward(self, clip: CLIP) -> ClassText:
        """Return the rows at unit norm; the model is not used. Rows outside the mask stay as they are."""
        del clip
        keeps = not (self.training or torch.is_grad_enabled() or self.head.is_inference())
        return ClassText(self._unit_rows() if keeps else unit_norm(self.head), mask=self.mask)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TunedHead:
        """Move or convert; the new rows may lie where the old ones did."""
        self._kept = None
        return super()._apply(fn, recurse)

    def _unit_rows(self) -> Tensor:
        """The rows at unit norm, computed once as long as nothing writes to them: it costs more than a score."""
        state = (id(self.head), self.head.data_ptr(), self.head._version)
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(mode=False), torch.no_grad():
                self._kept = (state, unit_norm(self.head))
        return self._kept[1]


class EncodedText(TextHead):
    """Prompts that the model's text tower embeds, here all of a class averaged.

    The result is kept as long as the text tower is the same; after weights were loaded, and after training what
    learns, it looks whether they are. So a checkpoint with a tuned text tower is scored with its own text.
    """

    learns: ClassVar[bool] = False
    """Whether training changes the embeddings."""
    features: Tensor
    tokens: Tensor

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.empty(0, embed_dim), persistent=False)
        self.register_buffer("tokens", torch.empty(0, 0, 0, dtype=torch.long), persistent=False)
        self._source = ""
        self._unchecked = False
        self.register_load_state_dict_post_hook(_after_loading)

    def set_bank(self, bank: TextBank, clip: CLIP) -> None:
        """Take the bank's tokens and embed them.

        Raises:
            ValueError: if the bank holds features only.
        """
        if bank.tokens is None:
            raise ValueError("the text tower needs texts to embed, but the text bank holds features only")
        self.tokens = bank.tokens.to(self.tokens.device)
        self._refresh(clip)

    def train(self, mode: bool = True) -> EncodedText:
        """Switch the mode; what training changes must be embedded anew afterwards."""
        self._unchecked |= mode and self.learns
        return super().train(mode)

    def forward(self, clip: CLIP) -> ClassText:
        """Return the features, embedded anew if the text tower has changed."""
        if self._unchecked and not self.features.is_meta and self._digest(clip) != self._source:
            self._refresh(clip)
        self._unchecked = False
        return ClassText(self.features)

    def embed(self, clip: CLIP) -> Tensor:
        """Embed all classes for scoring, without gradient, (K, E)."""
        return mean_features(self.tokens, encode=_text_tower(clip))

    def _refresh(self, clip: CLIP) -> None:
        # Evaluation may be what finds the change; training goes on with what it leaves.
        with torch.inference_mode(mode=False), without_autocast(self.features.device.type):
            self.features = self.embed(clip)
        self._source = self._digest(clip)

    def _digest(self, clip: CLIP) -> str:
        tower = {name: tensor for name, tensor in clip.state_dict().items() if name.startswith(TEXT_TOWER)}
        return sha256_tensors(tower | self.state_dict())


class ContextText(EncodedText):
    """Learned context vectors, shared by all classes, before the class names (MODEL.TEXT_PROMPT).

    Args:
        embed_dim: width of the joint space, E.
        num_context: number of context vectors (MODEL.PROMPT_NUM).
        width: channels of the text tower.

    Source: Zhou et al., "Learning to Prompt for Vision-Language Models" (2022), in Open-VCLIP's code.
    """

    learns: ClassVar[bool] = True

    def __init__(self, embed_dim: int, *, num_context: int, width: int) -> None:
        super().__init__(embed_dim)
        self.num_context = num_context
        self.prompt_embed = nn.Parameter(0.01 * torch.randn(num_context, width))

    def forward(self, clip: CLIP) -> ClassText:
        """Embed the classes with the current context, in training with a gradient."""
        return ClassText(unit_norm(self._encode(clip))) if self.training else super().forward(clip)

    def embed(self, clip: CLIP) -> Tensor:
        """Embed all classes for scoring, without gradient, (K, E)."""
        with torch.no_grad():
            return unit_norm(self._encode(clip))

    def set_bank(self, bank: TextBank, clip: CLIP) -> None:
        """Take the bank's tokens, one prompt per class, without the columns behind the longest."""
        super().set_bank(bank, clip)
        self.tokens = self.tokens[..., : longest_text(self.tokens)]

    def _encode(self, clip: CLIP) -> Tensor:
        tokens = self.tokens[:, 0]
        x = clip.token_embedding(tokens)
        context = self.prompt_embed.to(x.dtype).expand(len(tokens), -1, -1)
        x = torch.cat((x[:, :1], context, x[:, 1 + self.num_context :]), dim=1)
        return clip.encode_token_embeddings(x, tokens)


class TunedText(EncodedText):
    """Rephrased class names, embedded by a text tower that trains along (FROSTER).

    A training step embeds each class in one random template and bare; scoring averages all templates and the bare
    string. What frozen CLIP makes of every text is computed once.

    Source: FROSTER (ICLR 2024).
    """

    learns: ClassVar[bool] = True
    raw: Tensor

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.register_buffer("raw", torch.empty(0, 0, embed_dim), persistent=False)
        self.lengths: list[int] = []

    def set_bank(self, bank: TextBank, clip: CLIP) -> None:
        """Take the bank's tokens, the bare string last, and remember what the initial text tower makes of them."""
        self.raw = self.raw[:0]  # of the classes before
        super().set_bank(bank, clip)
        self.lengths = [longest_text(self.tokens[:, [prompt, -1]]) for prompt in range(self.tokens.shape[1])]

    def embed(self, clip: CLIP) -> Tensor:
        """Embed all classes for scoring, without gradient, (K, E)."""
        flat = encode_tokens(self.tokens.flatten(0, 1), encode=_text_tower(clip))
        prompts = flat.unflatten(0, self.tokens.shape[:2])
        if not len(self.raw):
            self.raw = prompts
        return unit_norm(prompts.mean(dim=1))

    def forward(self, clip: CLIP) -> ClassText:
        """Embed the classes, in training from one random template with a gradient."""
        if not self.training:
            return super().forward(clip)
        # From the host's stream, which is the same on every rank.
        prompt = int(torch.randint(self.tokens.shape[1] - 1, ()))
        pair = _with_last(self.tokens, prompt)[..., : self.lengths[prompt]]  # (K, 2, L)
        features = unit_norm(clip.encode_text(pair.flatten(0, 1))).unflatten(0, (-1, 2))
        return ClassText(unit_norm(features.mean(dim=1)), unit_norm(_with_last(self.raw, prompt).mean(dim=1)))


def _with_last(prompts: Tensor, prompt: int) -> Tensor:
    """Pick a prompt and the last one, (K, P, ...) -> (K, 2, ...); a list as index would wait for the device."""
    return torch.stack((prompts[:, prompt], prompts[:, -1]), dim=1)


def bank_features(bank: TextBank, clip: CLIP) -> Tensor:
    """A bank's features, or the mean of its embedded prompts per class: (K, E) or (K, P, E)."""
    if bank.features is not None:
        return bank.features
    assert bank.tokens is not None
    return mean_features(bank.tokens, encode=_text_tower(clip))


def _bank_mask(bank: TextBank, device: torch.device) -> Tensor | None:
    return None if bank.mask is None else bank.mask.to(device)


def _text_tower(clip: CLIP) -> TextEncoder:
    device = clip.logit_scale.device
    return lambda tokens: clip.encode_text(trim_tokens(tokens).to(device))


def _after_loading(head: EncodedText, incompatible_keys: object) -> None:
    del incompatible_keys
    head._unchecked = True
