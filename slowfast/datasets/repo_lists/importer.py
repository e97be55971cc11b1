"""Finds the lists of a checkout, takes one of each, and says what it left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

from slowfast.datasets.prepared import DraftList
from slowfast.datasets.repo_lists.checkout import Checkout
from slowfast.datasets.repo_lists.labelling import LABELS, Labelled, ListFile, NotUsableError
from slowfast.datasets.repo_lists.layouts import MENTIONS, Rule, rules_of
from slowfast.utils.io import sha256_file
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

_SHOWN = 20
_ROLES = {
    "few_shot/*/train": "train",
    "base_to_novel/*/train": "train",
    "full/train": "train",
    "split1/test": "test",
    "full/val": "test",
    "base_to_novel/base_test": "base",
    "base_to_novel/novel_test": "novel",
    "episodic/*/*": "part",
}
_DISJOINT = ({"train", "test"}, {"train", "base"}, {"train", "novel"}, {"base", "novel"}, {"part"})
"""Pairs of roles whose lists should have no video in common."""


@dataclass(frozen=True, kw_only=True)
class ImportedLists:
    """What a checkout has of a dataset.

    Attributes:
        lists: by our names, see `slowfast/datasets/prepared.py`; paths are those of the checkout's lists.
        class_files: class file relative to `label_db/<dataset>` -> its classes as labels of the dataset's own
            index2cls.json, for the files that `label_db` does not have.
        sources: file that was read -> sha256.
    """

    lists: Mapping[str, DraftList]
    class_files: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    source: ListFile
    labelled: Labelled

    @property
    def content(self) -> tuple[Counter[tuple[str, int]], tuple[int, ...] | None]:
        """What copies of a list have in common: projects keep the same videos in different folders."""
        return Counter((PurePosixPath(path).stem, label) for path, label in self.labelled.rows), self.labelled.ids


def import_lists(repo: Path, dataset: str, *, label_db: Path, known: Mapping[str, int] | None = None) -> ImportedLists:
    """Read all lists of a dataset that a checkout has and we have a name for.

    Labels are mapped by the names of the classes, with the class file of the checkout. Lists and class files that
    cannot be used, or have no name here, are left out and logged.

    Args:
        repo: the checkout, or a folder in it.
        dataset: folder in `label_db`.
        label_db: folder of our class lists.
        known: file name of a video without suffix -> its label in the dataset's own index2cls.json, as official files
            have it; tells the classes of lists whose paths do not.

    Raises:
        ValueError: one line naming the file, and the line where there is one; if there is no list, or several
            different ones for the same purpose, all of them.
    """
    checkout = Checkout.scan(Path(repo))
    rules = rules_of(dataset)
    found: dict[str, list[tuple[Rule, PurePosixPath]]] = {}
    for _, unexpanded in rules:
        for rule in unexpanded.expand():
            matches = next((files for files in map(checkout.find, rule.files) if files), [])
            found.setdefault(rule.name, []).extend((rule, file) for file in matches)
    if not any(found.values()):
        looked_for = "; ".join(f"{projects}: {rule.looked_for}" for projects, rule in rules)
        raise ValueError(f"{repo}: no list of {dataset} found; looked for {looked_for}")
    chosen = {}
    for name, files in found.items():
        folder = Path(label_db) / dataset
        candidate = _pick(name, [_read(checkout, rule, file, folder, known or {}) for rule, file in files])
        if candidate is not None:
            chosen[name] = candidate
    _report_unused(checkout, dataset, {file for files in found.values() for _, file in files})
    lists = {name: _draft(candidate) for name, candidate in chosen.items()}
    _report_overlaps(lists)
    return ImportedLists(
        lists=lists,
        class_files={
            candidate.source.rule.classes: candidate.labelled.ids
            for candidate in chosen.values()
            if candidate.labelled.ids is not None
        },
        sources=_sources(checkout, chosen.values()),
    )


def _read(
    checkout: Checkout, rule: Rule, file: PurePosixPath, folder: Path, known: Mapping[str, int]
) -> _Candidate | None:
    rows = checkout.rows(file, rule.rows)
    source = ListFile(checkout=checkout, file=file, rule=rule, rows=rows, folder=folder, known=known)
    try:
        return _Candidate(source=source, labelled=LABELS[rule.labels](source))
    except NotUsableError as error:
        logger.warning("%s: left out, the checkout does not say which classes it has: %s", source.where, error)
        return None


def _pick(name: str, candidates: Sequence[_Candidate | None]) -> _Candidate | None:
    """The one list for a purpose; copies are taken once, from where a class file is.

    Raises:
        ValueError: if there are different ones.
    """
    usable = [candidate for candidate in candidates if candidate is not None]
    if not usable:
        return None
    best = max(usable, key=lambda candidate: candidate.labelled.class_file is not None)
    others = [candidate for candidate in usable if candidate.content != best.content]
    if others:
        files = " and ".join(candidate.source.where for candidate in [best, *others])
        raise ValueError(f"{name}: {files} differ; give the folder of the one to import instead of the whole checkout")
    for note in best.labelled.notes:
        logger.warning("%s", note)
    return best


def _draft(candidate: _Candidate) -> DraftList:
    source, rows = candidate.source, candidate.labelled.rows
    official = next((count for count in source.rule.counts if count == len(rows)), None)
    if official is None and source.rule.counts:
        official = source.rule.counts[0]
        published = " or ".join(map(str, source.rule.counts))
        logger.warning("%s: has %d rows; the published list has %s", source.where, len(rows), published)
    return DraftList(rows=rows, classes=source.rule.classes, official=official, origin=str(source.file))


def _report_unused(checkout: Checkout, dataset: str, used: set[PurePosixPath]) -> None:
    """Log the lists about a dataset that have no counterpart here."""
    left = [
        str(file)
        for file in checkout.files
        if file not in used and any(word in str(file).lower() for word in MENTIONS[dataset]) and checkout.is_list(file)
    ]
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        logger.info(
            "%s: lists without a counterpart here, left out: %s%s", checkout.root, ", ".join(left[:_SHOWN]), more
        )


def _report_overlaps(lists: Mapping[str, DraftList]) -> None:
    """Warn of videos that are in two lists which should have none in common."""
    videos = {name: {PurePosixPath(path).stem for path, _ in entry.rows} for name, entry in lists.items()}
    for one, other in combinations(lists, 2):
        roles = {_role(one), _role(other)}
        if roles not in _DISJOINT or (roles == {"part"} and PurePosixPath(one).parent != PurePosixPath(other).parent):
            continue
        if both := sorted(videos[one] & videos[other]):
            files = f"{lists[one].origin} and {lists[other].origin}"
            logger.warning("%s (%s, %s): have %d videos in common, e.g. %s", files, one, other, len(both), both[0])


def _role(name: str) -> str:
    return next((role for pattern, role in _ROLES.items() if PurePosixPath(name).match(pattern)), name)


def _sources(checkout: Checkout, candidates: Iterable[_Candidate]) -> dict[str, str]:
    files = {
        file
        for candidate in candidates
        for file in (candidate.source.file, candidate.labelled.class_file)
        if file is not None
    }
    return {checkout.where(file): sha256_file(checkout.root / file) for file in sorted(files)}
