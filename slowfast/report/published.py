"""Published accuracies, beside which a table shows ours: `label_db/published.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

METRICS: Mapping[str, tuple[str, ...]] = {
    "zero_shot": ("split_mean", "full"),
    "few_shot": ("shot2", "shot4", "shot8", "shot16"),
    "base_to_novel": ("base", "novel", "hm"),
    "fully_supervised": ("top1", "top5"),
    "episodic": (
        *("shot1", "shot5"),
        *("kinetics100_shot1", "kinetics100_shot5"),
        *("ssv2_small_shot1", "ssv2_small_shot5"),
        *("ssv2_full_shot1", "ssv2_full_shot5"),
    ),
}
"""Protocol -> the figures that it publishes of a dataset, in the order of a table's columns."""

_TEXTS = ("name", "source", "backbone", "protocol")
_OPTIONAL = ("note",)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFigure:
    """A published accuracy."""

    mean: float | None
    """Percent; None where the publication could not be read."""
    std: float | None = None
    """Over the splits, or of the mean over episodes, in percentage points; None where none is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedEntry:
    """What one source says of one method under one protocol."""

    name: str
    """Of the method, as a row of a table calls it."""
    source: str
    """Where the figures were read."""
    backbone: str
    """Of CLIP: ViT-B/16, ViT-L/14."""
    protocol: str
    """One of METRICS."""
    cells: Mapping[str, Mapping[str, PublishedFigure]]
    """Dataset (a folder of label_db) -> metric -> figure; what a source does not have is left out."""
    note: str = ""
    """How the figures were obtained, where that differs from the protocol."""


def read_published(path: str | Path) -> tuple[PublishedEntry, ...]:
    """Read published accuracies, in the order of the file.

    Args:
        path: a YAML list of entries with `name`, `source`, `backbone`, `protocol`, `cells` and perhaps `note`.

    Raises:
        ValueError: one line naming the file, the entry and what is wrong with it.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot read the published figures ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path}: not readable as YAML ({reason})") from error
    if not isinstance(content, list):
        raise ValueError(f"{path}: holds {type(content).__name__}; expected a list of entries")
    entries: list[PublishedEntry] = []
    seen: dict[tuple[str, str, str], int] = {}
    for number, values in enumerate(content, start=1):
        entry = _entry(values, where=f"{path}: entry {number}")
        identity = (entry.name, entry.protocol, entry.backbone)
        if identity in seen:
            raise ValueError(f"{path}: entry {number}: {entry.name!r} has entry {seen[identity]} for {entry.protocol}")
        seen[identity] = number
        entries.append(entry)
    return tuple(entries)


def published_for(entries: Sequence[PublishedEntry], protocol: str, *, backbone: str) -> tuple[PublishedEntry, ...]:
    """Choose the entries that a table of a protocol compares with.

    Args:
        entries: as read.
        protocol: one of METRICS.
        backbone: of CLIP, as the file spells it.

    Returns: the entries in their order; none if nothing is published for the backbone.

    Raises:
        ValueError: if there is no such protocol.
    """
    if protocol not in METRICS:
        raise ValueError(f"protocol: unknown value {protocol!r}; allowed: {', '.join(METRICS)}")
    return tuple(entry for entry in entries if entry.protocol == protocol and entry.backbone == backbone)


def _entry(values: object, *, where: str) -> PublishedEntry:
    if not isinstance(values, dict):
        raise ValueError(f"{where}: is {type(values).__name__}; expected {', '.join((*_TEXTS, 'cells'))}")
    for key in values:
        if key not in (*_TEXTS, "cells", *_OPTIONAL):
            raise ValueError(f"{where}: unknown key {key!r}; allowed: {', '.join((*_TEXTS, 'cells', *_OPTIONAL))}")
    for key in _TEXTS:
        if not isinstance(values.get(key), str) or not values[key].strip():
            raise ValueError(f"{where}: {key}: expected a text, found {values.get(key)!r}")
    if not isinstance(values.get("note", ""), str):
        raise ValueError(f"{where}: note: expected a text, found {values['note']!r}")
    if values["protocol"] not in METRICS:
        raise ValueError(f"{where}: protocol: unknown value {values['protocol']!r}; allowed: {', '.join(METRICS)}")
    allowed = METRICS[values["protocol"]]
    where = f"{where} ({values['name']}): cells"
    cells = {
        dataset: {
            _known(metric, allowed, where=f"{where}: {dataset}"): _figure(value, where=f"{where}: {dataset}: {metric}")
            for metric, value in _mapping(figures, where=f"{where}: {dataset}").items()
        }
        for dataset, figures in _mapping(values.get("cells"), where=where).items()
    }
    return PublishedEntry(cells=cells, note=values.get("note", ""), **{key: values[key] for key in _TEXTS})


def _mapping(value: object, *, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: expected names and their values, found {value!r}")
    return value


def _known(metric: str, allowed: Sequence[str], *, where: str) -> str:
    if metric not in allowed:
        raise ValueError(f"{where}: unknown metric {metric!r}; allowed: {', '.join(allowed)}")
    return metric


def _figure(value: object, *, where: str) -> PublishedFigure:
    """A percentage, [mean, std] or null."""
    if value is None:
        return PublishedFigure(mean=None)
    numbers: list[Any] = value if isinstance(value, list) else [value]
    if len(numbers) != (2 if isinstance(value, list) else 1) or not all(map(_is_percentage, numbers)):
        raise ValueError(f"{where}: expected a percentage, [mean, std] or null, found {value!r}")
    return PublishedFigure(mean=float(numbers[0]), std=float(numbers[1]) if len(numbers) == 2 else None)


def _is_percentage(number: Any) -> bool:  # noqa: ANN401 - whatever YAML holds
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number <= 100
