"""The CSV files that a test leaves for each split: scores of the classes, confusion matrix, predictions."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pair = tuple[str, str]
"""True class, predicted class."""
ANY = ""
"""As a predicted class of `find_videos`: whatever was predicted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """Row of per_class.csv; percent, None where the class has no video."""

    name: str
    videos: int
    top1: float | None
    top5: float | None
    confused_with: str
    share: float | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Confusion:
    """Counts by true class (row) and predicted class (column), (K, K)."""

    names: tuple[str, ...]
    counts: NDArray[np.int64]

    def shares(self) -> NDArray[np.float64]:
        """Counts as shares of the true class, in [0, 1]; a class without videos has zeros."""
        totals = self.counts.sum(axis=1, keepdims=True)
        return np.divide(self.counts, totals, out=np.zeros(self.counts.shape), where=totals > 0)

    def errors(self, limit: int) -> list[tuple[int, int]]:
        """Off-diagonal cells with most videos; of equal ones those with the larger share of their class first.

        Returns: up to `limit` (true class, predicted class), only cells that hold a video.
        """
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        rows, columns = np.nonzero(wrong)
        shares = self.shares()[rows, columns]
        order = np.lexsort((columns, rows, -shares, -wrong[rows, columns]))[:limit]
        return [(int(rows[i]), int(columns[i])) for i in order]


def read_class_scores(path: Path, damages: list[str]) -> tuple[ClassScore, ...]:
    """Read a per_class.csv; () if it is absent, with a line in `damages` if it is damaged."""
    if not path.is_file():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(
                ClassScore(
                    name=row["class"],
                    videos=int(row["videos"]),
                    top1=_percent(row["top1"]),
                    top5=_percent(row["top5"]),
                    confused_with=row["most_confused_with"] or "",
                    share=_percent(row["share"]),
                )
                for row in csv.DictReader(file)
            )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        damages.append(f"{path}: not a table of classes ({type(error).__name__}: {error})")
        return ()


def read_confusion(path: Path, damages: list[str]) -> Confusion | None:
    """Read a confusion.csv; None if it is absent, with a line in `damages` if it is damaged."""
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row]
        names = tuple(header[1:])
        if [row[0] for row in rows] != list(names) or any(len(row) != len(header) for row in rows):
            raise ValueError(
                f"{len(rows)} rows under {len(names)} names, expected the same classes in rows and columns"
            )
        counts = np.array([[int(value) for value in row[1:]] for row in rows], dtype=np.int64)
        if not names or counts.min() < 0:
            raise ValueError("no classes" if not names else "a count below 0")
    except (ValueError, OverflowError, csv.Error) as error:
        damages.append(f"{path}: not a confusion matrix ({error})")
        return None
    return Confusion(names=names, counts=counts)


def find_videos(path: Path, pairs: Collection[Pair], *, limit: int) -> dict[Pair, list[str]]:
    """Videos of the wanted pairs of (true class, predicted class), at most `limit` each, in the order of the file.

    A damaged file gives the videos up to the damage.
    """
    found: dict[Pair, list[str]] = {pair: [] for pair in pairs}
    for pair, video in _predictions(path):
        for key in (pair, (pair[0], ANY)):
            videos = found.get(key)
            if videos is not None and len(videos) < limit:
                videos.append(video)
    return found


def _predictions(path: Path) -> Iterator[tuple[Pair, str]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                video, label, predicted = row.get("video"), row.get("label"), row.get("predicted")
                if video is not None and label is not None and predicted is not None:
                    yield (label, predicted), video
    except csv.Error:
        return


def _percent(text: str | None) -> float | None:
    if not text:
        return None
    value = float(text)
    if not 0 <= value <= 100:
        raise ValueError(f"{value} is not a percentage")
    return value
