"""Something-Something v2: the JSON files of the release."""

from __future__ import annotations

import re
from collections.abc import Iterator

from slowfast.datasets.annotations.class_names import ClassNames
from slowfast.datasets.annotations.episodic import episodic_lists
from slowfast.datasets.annotations.files import AnnotationFiles, AnnotationRequest
from slowfast.datasets.annotations.rows import Row, check_counts, draft, refuse_overlap, refuse_repeats
from slowfast.datasets.annotations.standard import standard_lists
from slowfast.datasets.prepared import DraftList

FOLDER = "labels"
ADVICE = "expected something-something-v2-{labels,train,validation}.json, or labels.json, train.json, validation.json"
FILES = {"train": "train", "val": "validation"}
COUNTS = {"train": 168_913, "val": 24_777}
BASE_TO_NOVEL = {"base": 17_562, "novel": 7_215}


def read_ssv2(request: AnnotationRequest) -> dict[str, DraftList]:
    """Read the training and validation lists of Something-Something v2 and draw the shots.

    A class is named by the template of a video without its brackets.

    Raises:
        ValueError: one line naming file, entry and what is wrong.

    Source: Goyal et al. (2017), release 2.
    """
    names = ClassNames(request.class_files / "index2cls.json")
    files = request.open(FOLDER, advice=ADVICE)
    _check_labels(files, names)
    rows = {}
    for subset in request.subsets or tuple(FILES):
        rows[subset] = list(_rows(files, _file(files, FILES[subset]), names))
        refuse_repeats(rows[subset])
    refuse_overlap(rows.get("train", ()), rows.get("val", ()))
    lists = {
        f"full/{subset}": draft(found, official=COUNTS[subset], origin=_file(files, FILES[subset]))
        for subset, found in rows.items()
    }
    if not request.any_counts:
        check_counts(lists, source=files.path)
    train, test = lists.get("full/train"), lists.get("full/val")
    more = episodic_lists(request, names, {"train": train, "val": test})
    return standard_lists(lists, request, train=train, test=test, published=BASE_TO_NOVEL) | more


def _file(files: AnnotationFiles, word: str) -> str:
    found = [name for name in files.names if re.fullmatch(rf"(something-something-v2-)?{word}\.json", name)]
    if len(found) > 1:
        raise ValueError(f"--annotations {files.path}: has both {found[0]} and {found[1]}")
    return found[0] if found else files.require(f"something-something-v2-{word}.json")


def _check_labels(files: AnnotationFiles, names: ClassNames) -> None:
    """Every class of the release is ours, and the other way round; a release without the label file is fine."""
    found = [name for name in files.names if re.fullmatch(r"(something-something-v2-)?labels\.json", name)]
    for file in found:
        content = files.json(file)
        if not isinstance(content, dict):
            raise ValueError(f"{files.where(file)}: expected an object of class names")
        matched = {names.match(name, files.where(file)) for name in content}
        absent = [name for label, name in enumerate(names.names) if label not in matched]
        if absent:
            raise ValueError(f"{files.where(file)}: has no class {absent[0]!r}; {len(names)} classes are expected")


def _rows(files: AnnotationFiles, file: str, names: ClassNames) -> Iterator[Row]:
    content = files.json(file)
    if not isinstance(content, list):
        raise ValueError(f"{files.where(file)}: expected a list of videos, found {type(content).__name__}")
    labels: dict[str, int] = {}
    for number, entry in enumerate(content, start=1):
        where = f"{files.where(file)}: entry {number}"
        if not isinstance(entry, dict) or not {"id", "template"} <= set(entry):
            raise ValueError(f"{where}: expected an object with id and template")
        title = str(entry["template"]).replace("[", "").replace("]", "")
        if title not in labels:
            labels[title] = names.match(title, where)
        yield Row(video=f"{entry['id']}.webm", label=labels[title], where=where)
