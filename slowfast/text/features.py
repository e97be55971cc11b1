"""Prompts of the classes out of templates, names and sentence tails, and their features, computed once per content."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from slowfast.text.feature_file import SUFFIXES, FeatureFile, read_feature_file, write_feature_file
from slowfast.text.prompt_bank import PromptEntry
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.io import atomic_write_text, parse_json, sha256_file

PromptKind = Literal["xmix", "a", "xoo", "xao", "xaa"]
"""Which tails follow a name: all, none, those of object-object, action-object or action-action relations."""

CONTENT_KEY = "content_sha256"
_FORMAT = 1
"""Counts changes of what the same content is encoded to."""
_GROUPS_AT_ONCE = 64


class PrefixEncoder(Protocol):
    """A text tower that computes beginnings of texts once, handed in so that this package does not depend on models."""

    def __call__(self, prefixes: Tensor, group: Tensor, tails: Tensor) -> Tensor:
        """Embed texts of a beginning (G, S), its number (N,), and a rest (N, L): features, not normalised, (N, E)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTable:
    """The prompts of K classes in n slots; template i has the slots from ``i * n / number of templates`` on."""

    names: tuple[str, ...]
    templates: tuple[str, ...]
    kind: PromptKind
    texts: tuple[tuple[str | None, ...], ...]
    """(K, n); None where a class has fewer prompts than another. The first of a template is the bare name."""

    @property
    def mask(self) -> Tensor:
        """Which slots are used, (K, n) bool."""
        return torch.tensor([[text is not None for text in row] for row in self.texts])

    @property
    def sha256(self) -> str:
        """Hash of names and texts in their order."""
        content = json.dumps([self.names, len(self.templates), self.texts], ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()


def prompt_table(
    names: Sequence[str],
    tails: Mapping[str, PromptEntry],
    *,
    templates: Sequence[str],
    kind: PromptKind = "xmix",
    pad: bool = False,
) -> PromptTable:
    """Fill the templates with each name, bare and followed by each of its tails.

    Args:
        names: class names in label order, K.
        tails: sentence tails by class name, of these classes at least; not read for the kind "a".
        templates: strings with one ``{}`` each.
        kind: which tails to use; "xmix" takes each once, in the order object-object, action-object, action-action.
        pad: fill free slots by repeating the class's own prompts from the start, as the published features do.

    Raises:
        ValueError: if a class has no tails.

    Source: STDD (AAAI 2025), text augmentation.
    """
    rows = [_endings(name, tails, kind) for name in names]
    most = max(len(row) for row in rows)
    padded: list[list[str | None]] = [
        [row[slot % len(row)] if pad or slot < len(row) else None for slot in range(most)] for row in rows
    ]
    texts = tuple(
        tuple(None if filling is None else template.replace("{}", filling) for template in templates for filling in row)
        for row in padded
    )
    return PromptTable(names=tuple(names), templates=tuple(templates), kind=kind, texts=texts)


def _endings(name: str, tails: Mapping[str, PromptEntry], kind: PromptKind) -> list[str]:
    """What fills the templates for one class: its name, then its name with each tail."""
    if kind == "a":
        return [name]
    if name not in tails:
        near = difflib.get_close_matches(name, tails, n=1)
        hint = f"; nearest is {near[0]!r}" if near else ""
        raise ValueError(f"class {name!r}: not among the {len(tails)} classes that have sentence tails{hint}")
    entry = tails[name]
    chosen = {
        "xmix": entry.mixed(),
        "xoo": entry.object_tails,
        "xao": entry.action_tails,
        "xaa": entry.sub_action_tails,
    }[kind]
    return [name, *(f"{name}, {tail}" for tail in chosen)]


def encode_table(
    table: PromptTable,
    *,
    encode: PrefixEncoder,
    tokenizer: Tokenizer,
    context_length: int = 77,
    progress: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """Embed every text of a table once, and what the prompts of a class and template have in common once.

    Args:
        table: the prompts.
        encode: the text tower.
        tokenizer: of the text tower.
        context_length: longest text of the tower, tokens.
        progress: called with the number of texts that were embedded since the last call.

    Returns:
        Features, not normalised, fp32, on the CPU, zero in free slots, (K, n, E).

    Raises:
        ValueError: if a text is longer than the context.
    """
    numbers: dict[str, int] = {}
    groups: dict[tuple[int, int], list[int]] = {}
    alone: list[int] = []
    most = len(table.texts[0]) // len(table.templates)
    for row, texts in enumerate(table.texts):
        for slot, text in enumerate(texts):
            if text is not None and text not in numbers:
                numbers[text] = len(numbers)
                # The bare name ends where the others go on with a comma, so it would shorten what they share.
                members = alone if slot % most == 0 else groups.setdefault((row, slot // most), [])
                members.append(numbers[text])
    tokens = tokenizer(list(numbers), context_length=context_length)
    features = _encode_groups(tokens, list(groups.values()), alone, encode=encode, progress=progress)
    result = torch.zeros(len(table.names), len(table.texts[0]), features.shape[1])
    result[table.mask] = features[[numbers[text] for texts in table.texts for text in texts if text is not None]]
    return result


def _encode_groups(
    tokens: Tensor,
    groups: Sequence[list[int]],
    alone: Sequence[int],
    *,
    encode: PrefixEncoder,
    progress: Callable[[int], object],
) -> Tensor:
    """Embed texts, many groups of equally long beginnings at a time, (N, 77) -> (N, E)."""
    ends = tokens.argmax(dim=-1)
    by_length: dict[int, list[list[int]]] = {1: [list(alone)]} if alone else {}
    for members in groups:
        same = (tokens[members] == tokens[members[0]]).all(dim=0)
        shared = min(int(same.int().cumprod(dim=0).sum()), int(ends[members].min()))
        by_length.setdefault(shared, []).append(members)
    order, parts = [], []
    for shared, equal in sorted(by_length.items()):
        equal.sort(key=lambda members: (int(ends[members].max()), members[0]))
        for first in range(0, len(equal), _GROUPS_AT_ONCE):
            chunk = equal[first : first + _GROUPS_AT_ONCE]
            rows = [row for members in chunk for row in members]
            number = torch.tensor([number for number, members in enumerate(chunk) for _ in members])
            prefixes = tokens[[members[0] for members in chunk], :shared]
            parts.append(encode(prefixes, number, tokens[rows, shared:]).float().cpu())
            order += rows
            progress(len(rows))
    features = torch.cat(parts)
    return torch.empty_like(features).index_copy_(0, torch.tensor(order), features)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltFeatures:
    """A feature file that lies ready."""

    path: Path
    content_sha256: str
    """Hash of the prompts, their layout and the text tower."""
    kept: bool
    """Whether the file was there already."""


def build_features(
    path: str | Path,
    table: PromptTable,
    *,
    weights_sha256: str,
    features: Callable[[], Tensor],
    bare: bool = False,
    force: bool = False,
) -> BuiltFeatures:
    """Write the features of a table unless the file has them already.

    A bare ``.pt`` file has no room for a record of its content, which then lies beside it with the suffix ``.json``.

    Args:
        path: a ``.pt`` or ``.safetensors`` file.
        table: the prompts.
        weights_sha256: hash of the text tower.
        features: computes the features, (K, n, E); called only if they are needed.
        bare: write the tensor alone.
        force: replace a file of other features.

    Raises:
        ValueError: if the file holds other features and may not be replaced, or its suffix is unknown.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: unknown suffix {target.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    content = hashlib.sha256(json.dumps([_FORMAT, table.sha256, weights_sha256, bare]).encode()).hexdigest()
    if target.exists():
        if _content_of(target) == content:
            return BuiltFeatures(path=target, content_sha256=content, kept=True)
        if not force:
            raise ValueError(f"{target}: exists and holds other features, or does not say which; --force replaces it")
    record = {
        "kind": table.kind,
        "templates": str(len(table.templates)),
        "prompts_sha256": table.sha256,
        "weights_sha256": weights_sha256,
        CONTENT_KEY: content,
    }
    mask = table.mask
    file = FeatureFile(
        features=features(), mask=None if bool(mask.all()) else mask, names=table.names, record=record
    )  # fmt: skip
    beside = _beside(target)
    beside.unlink(missing_ok=True)
    write_feature_file(target, file, bare=bare)
    if bare and target.suffix == ".pt":
        note = {**record, "file_sha256": sha256_file(target), "names": table.names}
        atomic_write_text(beside, json.dumps(note, indent=1, ensure_ascii=False) + "\n")
    return BuiltFeatures(path=target, content_sha256=content, kept=False)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _content_of(path: Path) -> str | None:
    """What a feature file, or the note beside it, says of its content; None if it says nothing."""
    beside = _beside(path)
    if beside.is_file():
        try:
            note = parse_json(beside.read_text(encoding="utf-8"))
        except ValueError:
            return None
        matches = isinstance(note, dict) and note.get("file_sha256") == sha256_file(path)
        return str(note.get(CONTENT_KEY)) if matches else None
    try:
        return read_feature_file(path, what="text features").record.get(CONTENT_KEY)
    except ValueError:
        return None
