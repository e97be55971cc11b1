"""From the labels of a checkout's list to labels of our class files: three ways, see `Rule.labels`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from slowfast.datasets.label_set import class_key
from slowfast.datasets.repo_lists.checkout import Checkout, Row
from slowfast.datasets.repo_lists.class_names import KnownClasses
from slowfast.datasets.repo_lists.layouts import WHOLE, Rule

_UCF101_FILE = re.compile(r"v_(\w+)_g\d+_c\d+\.")


@dataclass(frozen=True, kw_only=True)
class ListFile:
    """A list of a checkout, read.

    Attributes:
        checkout: where it lies.
        file: its path there.
        rule: by which it was found.
        rows: its lines.
        folder: `label_db/<dataset>`.
        known: file name of a video without suffix -> its label, from elsewhere.
    """

    checkout: Checkout
    file: PurePosixPath
    rule: Rule
    rows: Sequence[Row]
    folder: Path
    known: Mapping[str, int] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """How errors call the list."""
        return self.checkout.where(self.file)

    def class_lists(self, pattern: str) -> list[tuple[PurePosixPath, list[str]]]:
        """The class lists of files that match a pattern.

        Raises:
            ValueError: if a file cannot be read, or the pattern is a name and such a file is no class list.
        """
        part = PurePosixPath(self.rule.name).name
        read = [(file, self.checkout.class_names(file, part)) for file in self.checkout.near(pattern, self.file)]
        for file, names in read:
            if names is None and "*" not in pattern:
                raise ValueError(f"{self.checkout.where(file)}: holds no list of class names")
        return [(file, names) for file, names in read if names is not None]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A list with labels of ours.

    Attributes:
        rows: path and label, in the order of the list.
        class_file: class file of the checkout that the labels were read with; None if there is none.
        ids: the classes, as labels of the dataset's own class file, where our class file has to be written.
        notes: what a user should know about it, one line each.
    """

    rows: tuple[tuple[str, int], ...]
    class_file: PurePosixPath | None = None
    ids: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()


class NotUsableError(Exception):
    """The checkout does not say which classes a list has, so that it is left out."""


def label_known(source: ListFile) -> Labelled:
    """Labels of one of our class files, by the names in the checkout's own class file.

    Without such a file the labels stay as they are.

    Raises:
        ValueError: if the classes differ, a label is outside of them, or class files contradict each other.
    """
    known = KnownClasses.read(source.folder, source.rule.classes)
    chosen = _choose(source, known.match)
    class_file, labels = chosen if chosen else (None, tuple(range(len(known.names))))
    notes = []
    if class_file is None:
        patterns = ", ".join(pattern.removeprefix("./") for pattern in source.rule.class_files)
        notes.append(
            f"{source.where}: no class file for it ({patterns}); its labels are taken for those of {known.file}"
        )
    rows = _relabel(source, labels)
    notes += _check_paths(source, rows, known.keys)
    return Labelled(rows=rows, class_file=class_file, notes=tuple(notes))


def label_draw(source: ListFile) -> Labelled:
    """Labels as they are, for classes that the checkout chose among those of the dataset.

    Raises:
        ValueError: if a class is none of the dataset, or a label is outside of them.
        NotUsableError: if there is no class file.
    """
    whole = KnownClasses.read(source.folder, WHOLE)

    def numbers(names: Sequence[str], where: str) -> tuple[int, ...]:
        return tuple(_one(whole, name, where) for name in names)

    chosen = _choose(source, numbers)
    if chosen is None:
        raise NotUsableError(f"no class file ({', '.join(source.rule.class_files)})")
    class_file, ids = chosen
    if len(set(ids)) < len(ids):
        raise ValueError(f"{source.checkout.where(class_file)}: has a class twice")
    rows = _relabel(source, tuple(range(len(ids))))
    notes = _check_paths(source, rows, [whole.keys[number] for number in ids])
    return Labelled(rows=rows, class_file=class_file, ids=ids, notes=tuple(notes))


def label_folders(source: ListFile) -> Labelled:
    """Labels as they are, for the classes that the folders of the videos are named after, or known to have.

    Raises:
        NotUsableError: if nothing tells the class of a video, the videos of a label are of several classes, or labels
            are left out.
    """
    whole = KnownClasses.read(source.folder, WHOLE)
    found: dict[int, int] = {}
    for row in source.rows:
        ids = _classes_of(PurePosixPath(row.path), source, whole)
        if len(ids) != 1 or found.setdefault(row.label, ids[0]) != ids[0]:
            told = f"neither the folder of {row.path!r} nor the official files tell the class of {row.label}"
            raise NotUsableError(f"line {row.line}: {told}")
    if sorted(found) != list(range(len(found))) or len(set(found.values())) < len(found):
        raise NotUsableError("its labels are not 0 to K-1, one for each folder")
    ids = tuple(found[label] for label in range(len(found)))
    return Labelled(rows=tuple((row.path, row.label) for row in source.rows), ids=ids)


LABELS: dict[str, Callable[[ListFile], Labelled]] = {
    "known": label_known,
    "draw": label_draw,
    "folders": label_folders,
}


def _classes_of(path: PurePosixPath, source: ListFile, whole: KnownClasses) -> Sequence[int]:
    known = source.known.get(path.stem)
    return whole.find(path.parent.name) or (() if known is None else (known,))


def _choose(
    source: ListFile, match: Callable[[Sequence[str], str], tuple[int, ...]]
) -> tuple[PurePosixPath, tuple[int, ...]] | None:
    """The first class file whose classes match, and what they match."""
    fault: ValueError | None = None
    for pattern in source.rule.class_files:
        fits: dict[tuple[int, ...], PurePosixPath] = {}
        for file, names in source.class_lists(pattern):
            try:
                fits.setdefault(match(names, source.checkout.where(file)), file)
            except ValueError as error:
                fault = fault or error
        if len(fits) > 1:
            files = " and ".join(source.checkout.where(file) for file in fits.values())
            raise ValueError(f"{source.where}: {files} number its classes differently; keep one of them")
        for labels, file in fits.items():
            return file, labels
    if fault is not None:
        raise fault
    return None


def _one(whole: KnownClasses, name: str, where: str) -> int:
    found = whole.find(name)
    if len(found) != 1:
        raise ValueError(f"{where}: {name!r} is no class of {whole.file}")
    return found[0]


def _relabel(source: ListFile, labels: Sequence[int]) -> tuple[tuple[str, int], ...]:
    for row in source.rows:
        if row.label >= len(labels):
            raise ValueError(f"{source.where}:{row.line}: label {row.label} is outside its {len(labels)} classes")
    return tuple((row.path, labels[row.label]) for row in source.rows)


def _check_paths(source: ListFile, rows: Sequence[tuple[str, int]], keys: Sequence[Sequence[str]]) -> list[str]:
    """Compare labels with the classes that folders or files of videos are named after, where they are; returns notes.

    Raises:
        ValueError: if most of such names contradict the labels.
    """
    owners: dict[str, set[int]] = {}
    for label, spellings in enumerate(keys):
        for key in spellings:
            owners.setdefault(key, set()).add(label)
    known = wrong = first = 0
    for row, (path, label) in zip(source.rows, rows, strict=True):
        name = _UCF101_FILE.match(PurePosixPath(path).name)
        owner = owners.get(class_key(name[1] if name else PurePosixPath(path).parent.name))
        known += owner is not None
        if owner is not None and label not in owner:
            first, wrong = first or row.line, wrong + 1
    if not wrong:
        return []
    message = f"{source.where}:{first}: the path names another class than the label"
    if 2 * wrong > known:
        raise ValueError(f"{message}, as in {wrong} of {known} lines; do list and class file belong together?")
    return [f"{message}, as in {wrong} of {known} lines; the labels are kept"]
