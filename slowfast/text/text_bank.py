"""Prompts of the classes: tokens of filled templates, or features read from a file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slowfast.datasets.label_set import class_key
from slowfast.text.feature_file import read_feature_file
from slowfast.text.templates import ACTION_TEMPLATES
from slowfast.text.tokenizer import Tokenizer

TextEncoder = Callable[[Tensor], Tensor]
"""Tokens (N, 77) -> features (N, E); the text tower, handed in so that this package does not depend on models."""

_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBank:
    """The prompts of a label set: as tokens that a text tower has yet to embed, or as features.

    Raises:
        ValueError: if there are both or none, or a shape is wrong.
    """

    features: Tensor | None = None
    """One feature per prompt and class, (K, P, E), or one per class, (K, E); unit norm, fp32."""
    tokens: Tensor | None = None
    """Tokens of every prompt of every class, (K, P, 77), int64."""
    mask: Tensor | None = None
    """Which of the P features a class has, at least one, (K, P) bool; None where every class has all."""
    texts: tuple[tuple[str, ...], ...] | None = None
    """What is particular to each prompt, for people, K times P; None where nobody asks."""

    def __post_init__(self) -> None:
        if (self.features is None) == (self.tokens is None):
            raise ValueError("a text bank holds either features or tokens")
        if self.features is not None and self.features.ndim not in (2, 3):
            raise ValueError(f"text features have shape {tuple(self.features.shape)}; expected (K, E) or (K, P, E)")
        if self.tokens is not None and self.tokens.ndim != 3:
            raise ValueError(f"text tokens have shape {tuple(self.tokens.shape)}; expected (K, P, 77)")
        if self.mask is not None:
            shape = None if self.features is None or self.features.ndim != 3 else self.features.shape[:2]
            if self.mask.dtype != torch.bool or self.mask.shape != shape:
                expected = "several features per class" if shape is None else f"{tuple(shape)} torch.bool"
                raise ValueError(f"text mask is {tuple(self.mask.shape)} {self.mask.dtype}; expected {expected}")
            if not self.mask.any(dim=1).all():
                raise ValueError(f"text mask leaves class {int((~self.mask.any(dim=1)).nonzero()[0])} without a prompt")

    def __len__(self) -> int:
        """Number of classes, K."""
        content = self.features if self.features is not None else self.tokens
        assert content is not None
        return content.shape[0]


def encode_tokens(tokens: Tensor, *, encode: TextEncoder) -> Tensor:
    """Embed texts in chunks of similar length, since a tower may skip what lies behind the longest text of a chunk.

    Args:
        tokens: token numbers, (N, 77).
        encode: the text tower.

    Returns:
        Features, unit norm, at least fp32, without gradient, (N, E).
    """
    order = tokens.argmax(dim=-1).argsort(stable=True)
    with torch.no_grad():
        features = torch.cat([_at_least_fp32(encode(chunk)) for chunk in tokens[order].split(_CHUNK)])
    features = torch.empty_like(features).index_copy_(0, order.to(features.device), features)
    return features / features.norm(dim=-1, keepdim=True)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def mean_features(tokens: Tensor, *, encode: TextEncoder) -> Tensor:
    """Embed the prompts of every class and average them as unit vectors.

    Args:
        tokens: token numbers, (K, P, 77).
        encode: the text tower.

    Returns:
        One feature per class, unit norm, at least fp32, without gradient, (K, E).

    Source: Radford et al. (2021), section 3.1.4.
    """
    features = encode_tokens(tokens.transpose(0, 1).flatten(0, 1), encode=encode)
    mean = features.unflatten(0, (tokens.shape[1], tokens.shape[0])).mean(dim=0)
    return mean / mean.norm(dim=-1, keepdim=True)


def template_bank(
    names: Sequence[str], *, tokenizer: Tokenizer, templates: Sequence[str] = ACTION_TEMPLATES
) -> TextBank:
    """Put each class's name into the templates.

    Args:
        names: class names, K.
        tokenizer: of the text tower.
        templates: P strings with one ``{}`` each.

    Returns:
        Tokens, (K, P, 77).
    """
    return token_bank([[template.format(name) for template in templates] for name in names], tokenizer)


def rephrased_bank(
    names: Sequence[str], *, tokenizer: Tokenizer, templates: Sequence[str] = ACTION_TEMPLATES
) -> TextBank:
    """Put rephrased class names, "Name: a sentence about it", into the templates, and add them bare.

    A template is filled with the name followed by the whole string; a name without a sentence fills it alone.

    Args:
        names: class names, K.
        tokenizer: of the text tower.
        templates: strings with one ``{}`` each.

    Returns:
        Tokens, (K, P, 77) with P = number of templates + 1; the bare string comes last.

    Source: FROSTER (ICLR 2024), text rephrased by a language model.
    """
    prompts = []
    for name in names:
        short, _, sentence = name.partition(":")
        filling = f"{short} {name}" if sentence else name
        prompts.append([*(template.format(filling) for template in templates), name])
    return token_bank(prompts, tokenizer)


PLACEHOLDER = "X"
"""A text of a single token, which learned context vectors replace."""


def context_bank(names: Sequence[str], *, num_context: int, tokenizer: Tokenizer, words: str = "") -> TextBank:
    """Put places of learned context vectors before each class's name, and a full stop behind it.

    Args:
        names: class names, K.
        num_context: number of places, which follow the start-of-text token.
        tokenizer: of the text tower.
        words: what the first places say at the start, one token each; placeholders fill the others.

    Returns:
        Tokens, (K, 1, 77).

    Raises:
        ValueError: if the words have more tokens than there are places, or a prompt is too long.

    Source: Zhou et al., "Learning to Prompt for Vision-Language Models" (2022).
    """
    taken = len(tokenizer.encode(words))
    if taken > num_context:
        raise ValueError(f"context {words!r}: has {taken} tokens; allowed: at most {num_context}")
    context = " ".join([*words.split(), *[PLACEHOLDER] * (num_context - taken)])
    return token_bank([[f"{context} {name}." if context else f"{name}."] for name in names], tokenizer)


def spoken_name(name: str, *, split_capitals: bool = True) -> str:
    """Write a class name as words: "ApplyLipstick" or "apply_lipstick" as "Apply Lipstick", "apply lipstick".

    Args:
        name: as a dataset spells it.
        split_capitals: put a space before every capital letter from A to Z, as TC-CLIP and ViFi-CLIP do.
    """
    spaced = re.sub("([A-Z])", r" \1", name).strip() if split_capitals else name
    return spaced.replace("_", " ")


def token_bank(
    prompts: Sequence[Sequence[str]],
    tokenizer: Tokenizer,
    *,
    texts: Sequence[Sequence[str]] | None = None,
    what: str = "DATA.INDEX_LABEL_MAPPING_FILE",
) -> TextBank:
    """Tokenise the prompts of every class.

    Args:
        prompts: P prompts of each of K classes.
        tokenizer: of the text tower.
        texts: what is particular to each of them, for people.
        what: where the prompts come from, for the error.

    Raises:
        ValueError: if a prompt is too long.
    """
    rows = []
    for number, row in enumerate(prompts):
        try:
            rows.append(tokenizer(row))
        except ValueError as error:
            raise ValueError(f"{what}: class {number}: a prompt is too long: {error}") from error
    return TextBank(tokens=torch.stack(rows), texts=None if texts is None else tuple(map(tuple, texts)))


def load_feature_file(path: str | Path, *, names: Sequence[str], embed_dim: int) -> TextBank:
    """Read prompt features that were computed beforehand (DATA.TEXT_AUG_FEATURE_FILE).

    A file that names its classes serves every label set among them: rows are chosen by name, in the label set's order.
    Of a file without names row k is class k.

    Args:
        path: a tensor [K, n, E] saved with ``torch.save``, or a file of `features.build_features`; any float dtype,
            any length.
        names: class names of the label set, K, of which letters and digits count, in any case; a rephrased one,
            "Name: sentence", may count by its name.
        embed_dim: width of the joint space, E.

    Returns:
        Features, (K, n, E), and their mask if the file has one. Slots that a class does not use hold its first prompt.

    Raises:
        ValueError: if the file is absent or its content does not fit the label set and the model.
    """
    key = "DATA.TEXT_AUG_FEATURE_FILE"
    if not str(path):
        raise ValueError(
            f"{key}: is empty, but DATA.TEXT_AUG is True; give a file with a tensor [classes, prompts, width]"
        )
    file = read_feature_file(path, what=key)
    rows, _, width = file.features.shape
    if width != embed_dim:
        raise ValueError(f"{key}: {path}: features have width {width}, but the model's joint space has {embed_dim}")
    if file.names is None and rows != len(names):
        raise ValueError(f"{key}: {path}: has {rows} rows, but the label set has {len(names)} classes")
    features, mask = file.features, file.mask
    if file.names is not None:
        chosen = rows_by_name(file.names, names, where=f"{key}: {path}")
        features, mask = features[chosen], None if mask is None else mask[chosen]
    features = features.float()
    norms = features.norm(dim=-1)
    usable = torch.isfinite(norms) & (norms > 0)
    if mask is not None:
        usable |= ~mask
    if not usable.all():
        raise ValueError(
            f"{key}: {path}: feature [class, prompt] {(~usable).nonzero()[0].tolist()} is zero, infinite or absent"
        )
    if mask is not None:
        first = features[torch.arange(len(names)), mask.int().argmax(dim=1)]
        features = torch.where(mask[..., None], features, first[:, None])
    return TextBank(features=features / features.norm(dim=-1, keepdim=True), mask=mask)


def rows_by_name(found: Sequence[str], wanted: Sequence[str], *, where: str) -> list[int]:
    """The row of a file, with its own class names, for each class of a label set.

    Two classes of one name are told apart by their place only, if the lists agree row by row.

    Args:
        found: class names of the file, row by row.
        wanted: class names of the label set.
        where: what to call the file in an error.

    Raises:
        ValueError: if the file lacks a class, or a name stands for two classes.
    """
    exact: dict[str, list[int]] = {}
    alike: dict[str, list[int]] = {}
    for row, name in enumerate(found):
        exact.setdefault(name.casefold(), []).append(row)
        alike.setdefault(class_key(name) or name, []).append(row)
    hits: list[list[int]] = []
    for name in wanted:
        short = name.partition(":")[0].strip()
        spelled = exact.get(name.casefold()) or exact.get(short.casefold())
        hits.append(spelled or alike.get(class_key(name)) or alike.get(class_key(short)) or [])
        if not hits[-1]:
            near = difflib.get_close_matches(short.casefold(), exact, n=2) or sorted(exact)[:2]
            nearest = ", ".join(repr(found[exact[key][0]]) for key in near)
            raise ValueError(f"{where}: has no class {short!r} among its {len(found)}; nearest: {nearest}")
    if len(found) == len(wanted) and all(row in rows for row, rows in enumerate(hits)):
        return list(range(len(found)))
    labels: dict[int, int] = {}
    for label, rows in enumerate(hits):
        twice = f"rows {rows[0]} and {rows[1]} of the file" if len(rows) > 1 else ""
        if rows[0] in labels:
            twice = f"labels {labels[rows[0]]} and {label} of the label set"
        if twice:
            name = found[rows[0]]
            raise ValueError(f"{where}: {twice} are both {name!r}; such lists fit only if they are equal, row by row")
        labels[rows[0]] = label
    return list(labels)
