"""Lists of episodic few-shot learning: the videos of the classes to train on, to validate on and to test on.

Each folder `label_db/<dataset>/episodic/<benchmark>` is a benchmark; its files `{train,val,test}_index2cls.json` say
which classes each part has. A part has all videos of its classes, unless a published benchmark has another rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slowfast.datasets.annotations.class_names import ClassNames
from slowfast.datasets.annotations.files import AnnotationRequest
from slowfast.datasets.annotations.rows import check_counts
from slowfast.datasets.draws import draw_shots, restrict
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.prepared import PLAIN_NAMES, SPLITS_FOLDER, DraftList

FOLDER = "episodic"
PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How the parts of a benchmark are made.

    Attributes:
        subsets: part -> subsets of the dataset that it takes its videos from, all of which it needs; a part that is not
            named takes all that there are.
        shots: videos that are drawn of each class, where nobody can tell which ones were published; None takes all.
        official: part -> rows of the published list.
        rest: validation has the classes that are neither trained nor tested on.
        val_unknown: which classes validate can only be learned from a checkout of CLIP-FSAR.
    """

    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shots: int | None = None
    official: Mapping[str, int] = field(default_factory=dict)
    rest: bool = False
    val_unknown: bool = False


_ONES_OWN = Benchmark()
_CHOSEN = Benchmark(subsets=dict.fromkeys(PARTS, ("train", "val")), shots=100, val_unknown=True)

BENCHMARKS: dict[str, dict[str, Benchmark]] = {
    "ucf101": {"ucf101": Benchmark(official={"train": 9154, "val": 1421, "test": 2745}, rest=True)},
    "hmdb51": {"hmdb51": Benchmark(official={"train": 4280, "val": 1194, "test": 1292}, rest=True)},
    "k400": {"kinetics100": _CHOSEN},
    "ssv2": {
        "ssv2_full": Benchmark(
            subsets={"train": ("train",), "val": ("val",), "test": ("val",)},
            official={"train": 67_013, "test": 2857},
            val_unknown=True,
        ),
        "ssv2_small": _CHOSEN,
    },
}
"""Dataset -> published benchmark -> its rule. Sources: OTAM (ssv2_full), CMN (the drawn ones), ARN (the others)."""


@dataclass(frozen=True, kw_only=True)
class _ClassSplit:
    """The classes of a part: their file, and their labels in the dataset."""

    file: str
    ids: tuple[int, ...]


def episodic_lists(
    request: AnnotationRequest, names: ClassNames, subsets: Mapping[str, DraftList | None]
) -> dict[str, DraftList]:
    """Make the lists of all benchmarks that the dataset has class files of.

    A list whose subsets were not read is left out.

    Args:
        request: class files, seed, whether any count will do.
        names: the classes of the dataset.
        subsets: its videos, for instance by the official "train" and "val", with labels that index `names`; None is
            a subset that was not read.

    Returns: lists `episodic/<benchmark>/{train,val,test}`, ordered by class.

    Raises:
        ValueError: if a class is unknown or in two parts, or a list is not as long as the published one.
    """
    lists: dict[str, DraftList] = {}
    for folder in _benchmark_folders(request.class_files):
        rule = _rule(request.class_files, folder.name)
        for part, split in _class_splits(folder, names, rest=rule.rest).items():
            wanted = rule.subsets.get(part, tuple(key for key, entry in subsets.items() if entry is not None))
            taken = [entry for entry in map(subsets.get, wanted) if entry is not None]
            if taken and len(taken) == len(wanted):
                name = f"{FOLDER}/{folder.name}/{part}"
                lists[name] = _draft(name, split, taken, rule, request)
    if not request.any_counts:
        check_counts(lists, source=request.annotations)
    return lists


def held_out_ids(folder: Path, names: ClassNames, lists: Mapping[str, DraftList]) -> dict[str, tuple[int, ...]]:
    """Class file -> labels, of the validation lists among `lists` whose classes are the rest.

    Args:
        folder: of the dataset in `label_db`.
        names: the classes of the dataset.
        lists: by name.
    """
    wanted = {entry.classes for entry in lists.values()}
    splits = [
        split
        for benchmark in _benchmark_folders(folder)
        for split in _class_splits(benchmark, names, rest=_rule(folder, benchmark.name).rest).values()
    ]
    return {split.file: split.ids for split in splits if split.file in wanted and split.file.startswith(SPLITS_FOLDER)}


def lists_to_import(dataset: str, lists: Mapping[str, object]) -> list[str]:
    """Validation lists that a dataset lacks and that only a checkout of CLIP-FSAR can supply.

    Args:
        dataset: folder in `label_db`.
        lists: what it has, by name.
    """
    return [
        f"{FOLDER}/{benchmark}/val"
        for benchmark, rule in BENCHMARKS.get(dataset, {}).items()
        if rule.val_unknown
        and f"{FOLDER}/{benchmark}/val" not in lists
        and any(f"{FOLDER}/{benchmark}/{part}" in lists for part in PARTS)
    ]


def _benchmark_folders(folder: Path) -> list[Path]:
    return sorted({file.parent for file in folder.glob(f"{FOLDER}/*/*_{PLAIN_NAMES}.json")})


def _rule(folder: Path, benchmark: str) -> Benchmark:
    return BENCHMARKS.get(folder.name, {}).get(benchmark, _ONES_OWN)


def _class_splits(folder: Path, names: ClassNames, *, rest: bool) -> dict[str, _ClassSplit]:
    """The parts of a benchmark that its folder has class files of, and the rest of the classes where wanted.

    Raises:
        ValueError: if a class is unknown or occurs twice.
    """
    found: dict[str, _ClassSplit] = {}
    owners: dict[int, Path] = {}
    for part in PARTS:
        file = folder / f"{part}_{PLAIN_NAMES}.json"
        if file.is_file():
            titles = LabelSet.from_json(file).names
            ids = tuple(names.match(title, str(file)) for title in titles)
            for title, label in zip(titles, ids, strict=True):
                if label in owners:
                    raise ValueError(f"{file}: has the class {title!r}, which {owners[label]} has too")
                owners[label] = file
            found[part] = _ClassSplit(file=f"{FOLDER}/{folder.name}/{file.name}", ids=ids)
    others = tuple(label for label in range(len(names)) if label not in owners)
    if rest and "val" not in found and others:
        found["val"] = _ClassSplit(file=f"{SPLITS_FOLDER}/{FOLDER}/{folder.name}/val_{PLAIN_NAMES}.json", ids=others)
    return {part: found[part] for part in PARTS if part in found}


def _draft(
    name: str, split: _ClassSplit, subsets: list[DraftList], rule: Benchmark, request: AnnotationRequest
) -> DraftList:
    benchmark, part = name.split("/")[1:]
    rows = restrict([row for entry in subsets for row in entry.rows], split.ids)
    source = " and ".join(entry.origin for entry in subsets)
    if rule.shots is None:
        ordered = tuple(sorted(rows, key=lambda row: row[1]))
        origin = f"{len(split.ids)} classes of {source}"
        return DraftList(rows=ordered, classes=split.file, official=rule.official.get(part), origin=origin)
    try:
        drawn = draw_shots(rows, rule.shots, key=(FOLDER, benchmark, request.seed), fewer=request.any_counts)
    except ValueError as error:
        raise ValueError(f"{request.annotations}: list {name}: {error}") from error
    origin = f"{rule.shots} per class of {source}, seed {request.seed}"
    return DraftList(rows=drawn, classes=split.file, origin=origin)
