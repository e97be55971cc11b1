"""Descriptors of classes: short texts of what an action looks like and of how it goes on, in OST's files and templates.

A file is ``{"0": ["...", ...], ...}``, a list of texts for each class number. Which class has which number says a class
list; texts are found by class name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slowfast.datasets.label_set import LabelSet
from slowfast.text.class_lists import own_names
from slowfast.text.text_bank import TextBank, rows_by_name, token_bank
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.io import parse_json, read_text
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

TEMPLATES = {
    "spatial": "This is a video about {descriptor}",
    "temporal": "A video of {name} usually includes {descriptor}",
}
"""Kind of descriptor -> its prompt. Source: OST (CVPR 2024)."""
KEYS = {"spatial": "OST.DES_SPATIAL", "temporal": "OST.DES_TEMPORAL"}
"""Kind of descriptor -> the key that names its file."""
_FOLDERS = {"spatial": "spatio_descriptors", "temporal": "temporal_descriptors"}
_CLASSES_KEY = "OST.DES_CLASSES"
_MAX_FILE_BYTES = 32 << 20
_CLASS_LIST = "index2cls"


def find_file(kind: str, *, count: int, source: Path | None) -> Path:
    """Find the descriptors that lie near a class list: those of the smallest number per class that is large enough.

    Args:
        kind: "spatial" or "temporal".
        count: descriptors per class that are wanted.
        source: the class list, None where the names are from elsewhere.

    Raises:
        ValueError: if there are none.
    """
    folder = _dataset_folder(source)
    found = {}
    if folder is not None:
        for file in (folder / "descriptors" / _FOLDERS[kind]).glob("*_descriptors.json"):
            if match := re.fullmatch(r"(\d+)_descriptors", file.stem):
                found[int(match[1])] = file
    enough = [number for number in found if number >= count]
    if not enough:
        if folder is None:
            there = f"no folder of descriptors lies near {source or 'the class names, which are from no file'}"
        else:
            files = f"files of {sorted(found)} per class" if found else f"no {_FOLDERS[kind]}/N_descriptors.json"
            there = f"{folder}/descriptors has {files}"
        raise ValueError(
            f"{KEYS[kind]}: is empty, and {there}; allowed: a JSON file with {count} descriptors per class, which "
            "utils/descriptor_text_prompt.py makes"
        )
    return found[min(enough)]


def file_classes(file: Path) -> str | Path:
    """The class list that numbers the rows of a file found by `find_file`: that of its dataset; "" if it has none."""
    folder = file.parents[2]
    lists = (
        folder / "descriptors" / f"{_CLASS_LIST}.json",
        folder.parent / f"{folder.name}-{_CLASS_LIST}.json",
        folder / f"{_CLASS_LIST}.json",
    )
    return next((file for file in lists if file.is_file()), "")


def descriptor_bank(
    label_set: LabelSet, files: Mapping[str, str | Path], *, count: int, classes: str | Path = "", tokenizer: Tokenizer
) -> TextBank:
    """Read the descriptors of a label set and put them into their templates.

    Args:
        label_set: the classes, K.
        files: kind -> its file, S of them; "" for the one near the class list of the label set.
        count: descriptors per class and kind, N: the first of those in the files.
        classes: class list that numbers the rows of files that are given; "": the label set itself does, row by row,
            as it does where a file lies near no list of its dataset.
        tokenizer: of the text tower.

    Returns:
        Tokens, (K, S N, 77), kinds in their order; the descriptors themselves are the texts.

    Raises:
        ValueError: if a file is absent or of another form, lacks a class, or has too few descriptors of one.
    """
    prompts: list[list[str]] = [[] for _ in label_set.names]
    texts: list[list[str]] = [[] for _ in label_set.names]
    for kind, given in files.items():
        file = Path(given) if given else find_file(kind, count=count, source=label_set.source)
        what = f"{KEYS[kind]}: {file}"
        rows = read_descriptors(file, what=what)
        lengths = sorted({len(row) for row in rows.values()})
        logger.info("%s: %s; %d of %s per class", KEYS[kind], file, count, " or ".join(map(str, lengths)))
        numbers = _numbers(label_set, rows, class_list=classes if given else file_classes(file), what=what)
        for row, name, number in zip(range(len(prompts)), label_set.names, numbers, strict=True):
            if number not in rows:
                raise ValueError(f'{what}: has no key "{number}", the number of class {name!r}')
            if len(rows[number]) < count:
                raise ValueError(f'{what}: key "{number}": has {len(rows[number])} descriptors; OST.N wants {count}')
            chosen = rows[number][:count]
            texts[row] += chosen
            prompts[row] += [TEMPLATES[kind].format(name=name, descriptor=descriptor) for descriptor in chosen]
    return token_bank(prompts, tokenizer, texts=texts, what=" and ".join(KEYS[kind] for kind in files))


def read_descriptors(path: Path, *, what: str) -> dict[int, list[str]]:
    """Read a file of descriptors by class number.

    Args:
        path: the file.
        what: what to call it in an error.

    Raises:
        ValueError: if it cannot be read or is of another form.
    """
    if not path.is_file():
        raise ValueError(f"{what}: no such file")
    content: Any
    try:
        content = parse_json(read_text(path, what="descriptors", max_bytes=_MAX_FILE_BYTES), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: not readable ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(content, tuple):
        raise ValueError(f'{what}: expected a JSON object {{"0": ["text", ...], ...}}')
    rows: dict[int, list[str]] = {}
    for key, texts in content:
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", key) or int(key) in rows:
            raise ValueError(f"{what}: key {key[:60]!r}: expected each class number once, in decimal digits")
        usable = isinstance(texts, list) and all(isinstance(text, str) and text.strip() for text in texts)
        if not usable:
            raise ValueError(f'{what}: key "{key}": expected a list of texts')
        rows[int(key)] = texts
    return rows


def _numbers(label_set: LabelSet, rows: Mapping[int, object], *, class_list: str | Path, what: str) -> Sequence[int]:
    """The number of each class of a label set in a file."""
    if class_list:
        names = LabelSet.from_json(class_list).names
        return rows_by_name(names, _own_names(label_set), where=f"{what}, by {class_list}")
    if set(rows) != set(range(len(label_set))):
        raise ValueError(
            f"{what}: has {len(rows)} classes, the label set {len(label_set)}; allowed: the keys 0 to "
            f"{len(label_set) - 1}, or a class list in {_CLASSES_KEY}"
        )
    return range(len(label_set))


def _own_names(label_set: LabelSet) -> tuple[str, ...]:
    """The classes of a label set as their dataset spells them; lists of some classes may spell them otherwise."""
    source = label_set.source
    folder = _dataset_folder(source)
    if source is None or folder is None or _CLASS_LIST not in source.name:
        return label_set.names
    if not (folder / f"{_CLASS_LIST}.json").is_file():
        return label_set.names
    dataset = LabelSet.from_json(folder / f"{_CLASS_LIST}.json").names
    if LabelSet.from_json(source).names == label_set.names:
        return own_names(source, dataset=dataset)
    spelled: dict[str, list[str]] = {}  # the lists of a dataset, of which several may be joined here
    for file in sorted(folder.rglob(f"*{_CLASS_LIST}.json")):
        in_file: dict[str, list[str]] = {}
        for name, own in zip(LabelSet.from_json(file).names, own_names(file, dataset=dataset), strict=True):
            in_file.setdefault(name, []).append(own)
        spelled |= {name: own for name, own in in_file.items() if len(own) > len(spelled.get(name, ()))}
    # Classes that a list cuts to the same words stay in their order when lists are joined.
    rows = {name: iter(own) for name, own in spelled.items()}
    return tuple(next(rows[name], name) if name in rows else name for name in label_set.names)


def _dataset_folder(source: Path | None) -> Path | None:
    """The folder of the dataset that a class list belongs to: one with descriptors, at its place or above.

    Above, it must have the dataset's own class list: any folder may be called so.
    """
    if source is None:
        return None
    named = [source.parent / source.name.removesuffix(f"-{_CLASS_LIST}.json")]
    own, *above = list(source.resolve().parents)[:3]
    places = [*named, own, *(place for place in above if (place / f"{_CLASS_LIST}.json").is_file())]
    return next((place for place in places if (place / "descriptors").is_dir()), None)
