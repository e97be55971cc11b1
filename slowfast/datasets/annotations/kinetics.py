"""Kinetics-400 and -600: CSV files `label,youtube_id,time_start,time_end,split` or the JSON files of the release.

A video is called `<subset>/<youtube_id>_<start>_<end>`, seconds with six digits, as the common downloads name it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from slowfast.datasets.annotations.class_names import ClassNames
from slowfast.datasets.annotations.episodic import episodic_lists
from slowfast.datasets.annotations.files import AnnotationFiles, AnnotationRequest
from slowfast.datasets.annotations.rows import Row, check_classes_occur, draft, refuse_repeats
from slowfast.datasets.annotations.standard import standard_lists
from slowfast.datasets.prepared import DraftList

ADVICE = "expected train.csv, val.csv (or validate.csv) and test.csv of the release, or their folder"
SPELLINGS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
ZERO_SHOT_SPLITS = (1, 2, 3)


class _Video(NamedTuple):
    name: str
    title: str
    where: str


def read_kinetics400(request: AnnotationRequest) -> dict[str, DraftList]:
    """Read the subsets of Kinetics-400 (train and val unless chosen) and draw the base-to-novel lists.

    Raises:
        ValueError: one line naming file, line and what is wrong.

    Source: Kay et al. (2017).
    """
    names = ClassNames(request.class_files / "index2cls.json")
    files = request.open("annotations", advice=ADVICE)
    subsets = request.subsets or tuple(subset for subset in ("train", "val") if subset in _subset_files(files))
    lists = _full_lists(files, names, request, subsets or ("val",))
    more = episodic_lists(request, names, {name.removeprefix("full/"): entry for name, entry in lists.items()})
    train, test = lists.get("full/train"), lists.get("full/val")
    return standard_lists(lists, request, train=train, test=test, few_shot=False) | more


def read_kinetics600(request: AnnotationRequest) -> dict[str, DraftList]:
    """Read the zero-shot lists of Kinetics-600: three times 160 classes that Kinetics-400 lacks.

    The validation videos unless other subsets are chosen; with `full` also the lists of all 600 classes.

    Raises:
        ValueError: one line naming file, line and what is wrong.

    Source: splits of Chen and Huang, ER-ZSAR (ICCV 2021).
    """
    names = ClassNames(request.class_files / "index2cls.json")
    files = request.open("annotations", advice=ADVICE)
    subsets = request.subsets or ("val",)
    lists = _full_lists(files, names, request, subsets)
    chosen = {}
    for split in ZERO_SHOT_SPLITS:
        classes = f"zero_shot_split{split}_index2cls.json"
        some = ClassNames(request.class_files / classes)
        new = {names.match(name, str(some.path)): label for label, name in enumerate(some.names)}
        rows = tuple((video, new[label]) for entry in lists.values() for video, label in entry.rows if label in new)
        origin = " and ".join(entry.origin for entry in lists.values())
        official = None if request.any_counts else len(rows)
        title = f"zero_shot_split{split}/test"
        chosen[title] = DraftList(
            rows=rows, classes=classes, official=official, origin=f"{len(some)} classes of {origin}"
        )
        if not request.any_counts:
            check_classes_occur(chosen[title], some.names, source=files.path, name=title)
    return {**chosen, **(lists if request.full else {})}


def _full_lists(
    files: AnnotationFiles, names: ClassNames, request: AnnotationRequest, subsets: tuple[str, ...]
) -> dict[str, DraftList]:
    lists = {}
    for subset in subsets:
        file = _subset_file(files, subset)
        rows, repeated = _rows(files, file, subset, names, keep_first=request.any_counts)
        origin = file + (f" without {repeated} repeated rows" if repeated else "")
        title = f"full/{subset}"
        lists[title] = draft(rows, official=None if request.any_counts else len(rows), origin=origin)
        if not request.any_counts:
            check_classes_occur(lists[title], names.names, source=files.path, name=title)
    return lists


def _subset_files(files: AnnotationFiles) -> dict[str, list[str]]:
    """Subset -> its files, by the last word of their names; a CSV file goes before a JSON file."""
    found: dict[str, list[str]] = {}
    for suffix in (".csv", ".json"):
        by_subset: dict[str, list[str]] = {}
        for name in files.names:
            word = re.fullmatch(r"(?:.*[^a-z])?([a-z]+)", name.lower().removesuffix(suffix))
            if name.lower().endswith(suffix) and word and word[1] in SPELLINGS and "holdout" not in name.lower():
                by_subset.setdefault(SPELLINGS[word[1]], []).append(name)
        found = {**by_subset, **found}
    return found


def _subset_file(files: AnnotationFiles, subset: str) -> str:
    found = _subset_files(files).get(subset, [])
    if len(found) > 1:
        raise ValueError(f"--annotations {files.path}: {found[0]} and {found[1]} both name the {subset} videos")
    return found[0] if found else files.require(f"{subset}.csv")


def _rows(
    files: AnnotationFiles, file: str, subset: str, names: ClassNames, *, keep_first: bool
) -> tuple[list[Row], int]:
    """The rows of a file, and how many repeated ones were left out."""
    read = _read_json if file.lower().endswith(".json") else _read_csv
    labels: dict[str, int] = {}
    rows = []
    for video in read(files, file, subset):
        if video.title not in labels:
            labels[video.title] = names.match(video.title, video.where)
        rows.append(Row(video=f"{subset}/{video.name}", label=labels[video.title], where=video.where))
    if not keep_first:
        refuse_repeats(rows)
    first = {row.video: row for row in reversed(rows)}
    kept = [row for row in rows if first[row.video] is row]
    return kept, len(rows) - len(kept)


def _read_csv(files: AnnotationFiles, file: str, subset: str) -> Iterator[_Video]:
    lines = list(files.lines(file))
    table = csv.reader(line for _, line in lines)
    header = [field.strip() for field in next(table, [])]
    where = files.where(file)
    absent = {"label", "youtube_id", "time_start", "time_end"} - set(header)
    if absent:
        hint = "; this file has no labels" if absent == {"label"} else f"; {ADVICE}"
        raise ValueError(f"{where}: the header has no {', '.join(sorted(absent))}{hint}")
    for fields in _checked(table, where):
        at = lines[table.line_num - 1][0]
        if len(fields) != len(header):
            raise ValueError(f"{at}: expected {len(header)} fields, found {len(fields)}")
        row = dict(zip(header, fields, strict=True))
        _check_subset(row.get("split", subset), subset, at)
        yield _Video(_name(row["youtube_id"], row["time_start"], row["time_end"], at), row["label"], at)


def _checked(table: Iterator[list[str]], where: str) -> Iterator[list[str]]:
    try:
        yield from table
    except csv.Error as error:
        raise ValueError(f"{where}: not a usable CSV file ({error})") from error


def _read_json(files: AnnotationFiles, file: str, subset: str) -> Iterator[_Video]:
    content = files.json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{files.where(file)}: expected an object of videos, found {type(content).__name__}")
    for number, (name, entry) in enumerate(content.items(), start=1):
        at = f"{files.where(file)}: video {number} ({name})"
        try:
            label, (start, end) = entry["annotations"]["label"], entry["annotations"]["segment"]
            named = entry.get("subset", subset)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{at}: expected annotations with label and segment") from error
        _check_subset(str(named), subset, at)
        yield _Video(_name(name, start, end, at), str(label), at)


def _check_subset(named: str, subset: str, where: str) -> None:
    if SPELLINGS.get(named.strip().lower()) != subset:
        raise ValueError(f"{where}: is a video of {named.strip()!r} in the file of {subset!r}")


def _name(video: str, start: Any, end: Any, where: str) -> str:  # noqa: ANN401 - text or number
    try:
        first, last = int(float(start)), int(float(end))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: expected seconds, found {start!r} and {end!r}") from None
    if not re.fullmatch(r"[\w-]+", video.strip()) or not 0 <= first < last:
        raise ValueError(f"{where}: expected a video id and a segment, found {video!r}, {start!r} to {end!r}")
    return f"{video.strip()}_{first:06d}_{last:06d}"
