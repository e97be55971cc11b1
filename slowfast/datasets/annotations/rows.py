"""Checks that every official list goes through: no row twice, no video on both sides, the published number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from slowfast.datasets.prepared import DraftList


class Row(NamedTuple):
    """A video, its label and the "file:line" that names it."""

    video: str
    label: int
    where: str


def refuse_repeats(rows: Iterable[Row]) -> None:
    """Check that no video occurs twice.

    Raises:
        ValueError: naming both lines.
    """
    seen: dict[str, str] = {}
    for row in rows:
        if row.video in seen:
            raise ValueError(f"{row.where}: {row.video!r} occurs twice, first at {seen[row.video]}")
        seen[row.video] = row.where


def refuse_overlap(train: Iterable[Row], test: Iterable[Row]) -> None:
    """Check that no video is in both lists.

    Raises:
        ValueError: naming both lines.
    """
    seen = {row.video: row.where for row in train}
    for row in test:
        if row.video in seen:
            raise ValueError(f"{row.where}: {row.video!r} is a training video too, at {seen[row.video]}")


def draft(rows: Iterable[Row], *, official: int | None, origin: str, classes: str = "index2cls.json") -> DraftList:
    """Make a list of the rows of a source.

    Args:
        rows: in the order of the source.
        official: published number of rows.
        origin: for people.
        classes: class file.
    """
    return DraftList(
        rows=tuple((row.video, row.label) for row in rows), classes=classes, official=official, origin=origin
    )


def check_counts(lists: Mapping[str, DraftList], *, source: object) -> None:
    """Check lists against the published numbers of rows.

    Raises:
        ValueError: naming the first list of another length.
    """
    for name, entry in lists.items():
        if entry.official is not None and len(entry.rows) != entry.official:
            raise ValueError(
                f"{source}: list {name} ({entry.origin}) has {len(entry.rows)} rows, the official one has "
                f"{entry.official}; --any-counts accepts it"
            )


def check_classes_occur(entry: DraftList, names: Sequence[str], *, source: object, name: str) -> None:
    """Check that each class has a video.

    Raises:
        ValueError: naming the first class without one.
    """
    found = {label for _, label in entry.rows}
    absent = [title for label, title in enumerate(names) if label not in found]
    if absent:
        raise ValueError(
            f"{source}: list {name} has no video of {absent[0]!r} ({len(absent)} of {len(names)} classes have none); "
            "--any-counts accepts it"
        )
