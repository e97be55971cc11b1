"""Lists of some of a dataset's classes, which may spell them in their own way, mapped to the dataset's own names.

Beside a list ``<...>index2cls.json`` may lie ``<...>ids.json``: the position of each of its classes in the dataset's
own list. It is needed where spelling alone does not tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from slowfast.datasets.label_set import LabelSet, class_key
from slowfast.utils.io import parse_json

_SIMILAR = 0.85
"""Share of the letters that two spellings of a class have in common at least."""


def ids_file(path: str | Path) -> Path:
    """Where the positions of a list's classes lie: ``base_index2cls.json`` -> ``base_ids.json``."""
    return Path(path).with_name(Path(path).name.replace("index2cls", "ids"))


def own_names(path: str | Path, *, dataset: Sequence[str]) -> tuple[str, ...]:
    """Read a list of some of a dataset's classes, in its order, as the dataset spells them.

    Args:
        path: an index-to-name file; its file of positions is used if it is there.
        dataset: the dataset's own names by label.

    Returns: one name per class of the list; a class that the dataset does not have keeps its name.

    Raises:
        ValueError: if a file cannot be read, or its positions do not fit its names.
    """
    names = LabelSet.from_json(path).names
    if ids_file(path).is_file():
        positions = _read_ids(ids_file(path), num_names=len(names), num_classes=len(dataset))
        for fault in _disagreements(ids_file(path), names, positions, dataset):
            raise ValueError(fault)
        return tuple(dataset[position] for position in positions)
    keys = Counter(map(class_key, dataset))
    own = {class_key(name): name for name in dataset if keys[class_key(name)] == 1}
    return tuple(name if name in dataset else own.get(class_key(name), name) for name in names)


def join_lists(paths: Sequence[str | Path], *, dataset: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put lists of a dataset's classes one behind the other; a class that comes again, spelled alike, is left out.

    A single list is taken as it is.

    Args:
        paths: index-to-name files.
        dataset: the dataset's own names by label.

    Returns: names as the lists spell them, and the dataset's own, row by row.

    Raises:
        ValueError: if two classes have the same name, and there are several lists, or a file cannot be read.
    """
    rows = [
        (path, name, own)
        for path in paths
        for name, own in zip(LabelSet.from_json(path).names, own_names(path, dataset=dataset), strict=True)
    ]
    if len(paths) > 1:
        first: dict[str, tuple[str | Path, str]] = {}
        once: dict[tuple[str, str], tuple[str | Path, str, str]] = {}
        for path, name, own in rows:
            other, known = first.setdefault(name.casefold(), (path, own))
            if known != own:
                raise ValueError(
                    f"{path}: {name!r} is the class {own!r}, but that of {other} is {known!r}; "
                    "such a list must be the only one"
                )
            once.setdefault((class_key(name) or name, own), (path, name, own))
        rows = list(once.values())
    return tuple(name for _, name, _ in rows), tuple(own for _, _, own in rows)


def check_halves(folder: str | Path) -> Iterator[str]:
    """Check that the lists in ``base_to_novel`` part the classes of a dataset, and that their positions are right.

    Args:
        folder: of the dataset, with ``index2cls.json``; one without ``base_to_novel`` has no fault.

    Yields: one line per fault.
    """
    halves = Path(folder) / "base_to_novel"
    if not halves.is_dir():
        return
    used: Counter[int] = Counter()
    try:
        dataset = LabelSet.from_json(Path(folder) / "index2cls.json").names
        for file in sorted(halves.glob("*_index2cls.json")):
            names = LabelSet.from_json(file).names
            positions = _read_ids(ids_file(file), num_names=len(names), num_classes=len(dataset))
            yield from _disagreements(ids_file(file), names, positions, dataset)
            used.update(positions)
    except ValueError as error:
        yield str(error)
        return
    for position, name in enumerate(dataset):
        if used[position] != 1:
            yield f"{halves}: class {position} {name!r} is in {used[position] or 'none'} of the lists; expected one"


def _read_ids(file: Path, *, num_names: int, num_classes: int) -> list[int]:
    """Read a JSON list of positions, one per name."""
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot read the positions ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(content, list):
        raise ValueError(f"{file}: holds {type(content).__name__}; expected a list of positions")
    for number, position in enumerate(content):
        if type(position) is not int or not 0 <= position < num_classes:
            raise ValueError(
                f"{file}: entry {number}: is {position!r}; expected a position from 0 to {num_classes - 1}"
            )
    if len(content) != num_names:
        raise ValueError(f"{file}: has {len(content)} entries for the {num_names} classes of the list beside it")
    return content


def _disagreements(file: Path, names: Sequence[str], positions: Sequence[int], dataset: Sequence[str]) -> Iterator[str]:
    """Say which names are not another spelling, or the beginning up to a comma, of the class at their position."""
    for number, (name, position) in enumerate(zip(names, positions, strict=True)):
        own = dataset[position]
        if class_key(name) == class_key(own) or own.casefold().startswith(f"{name.casefold()},"):
            continue
        likeness = _likeness(name, own)
        if likeness < _SIMILAR or any(_likeness(name, other) > likeness for other in dataset):
            yield f"{file}: entry {number}: {name!r} cannot be class {position} of the dataset, {own!r}"


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, name.casefold(), other.casefold()).ratio()
