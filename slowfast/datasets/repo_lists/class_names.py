"""Classes of a checkout against ours, by name: the labels of its lists become labels of our class files."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.label_set import LabelSet, class_key
from slowfast.utils.io import parse_json
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

_WHOLE, _HALF = "index2cls.json", "base_to_novel/{}_index2cls.json"
_SIMILAR = 0.75
"""Likeness, of at most 1, of two spellings that stand at the same place of lists which agree everywhere else."""


@dataclass(frozen=True)
class KnownClasses:
    """The classes of one of our class files, with every spelling that `label_db` has of them.

    Attributes:
        file: the class file.
        names: in label order.
        keys: for each class the keys of its spellings, see `class_key`; that of its own name first.
    """

    file: Path
    names: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, folder: Path, file: str) -> KnownClasses:
        """Read a class file, and the spellings of the halves of base-to-novel where the dataset has them.

        Args:
            folder: `label_db/<dataset>`.
            file: class file in it.

        Raises:
            ValueError: if a class file is not usable.
        """
        names = LabelSet.from_json(folder / file).names
        whole = LabelSet.from_json(folder / _WHOLE).names
        spellings = [[name] for name in whole]
        ids = {class_key(name): number for number, name in enumerate(whole)}
        numbers = [ids.get(class_key(name)) for name in names]
        for half in ("base", "novel"):
            if not (folder / _HALF.format(half)).is_file():
                continue
            inside = _read_ids(folder / f"base_to_novel/{half}_ids.json", len(whole))
            for number, name in zip(inside, LabelSet.from_json(folder / _HALF.format(half)).names, strict=True):
                spellings[number].append(name)
            if file == _HALF.format(half):
                numbers = list(inside)
        return cls(
            file=folder / file,
            names=names,
            keys=tuple(
                tuple(dict.fromkeys(map(class_key, [name, *(spellings[number] if number is not None else ())])))
                for name, number in zip(names, numbers, strict=True)
            ),
        )

    def find(self, name: str) -> tuple[int, ...]:
        """Labels of the classes that a name may mean: those of that very name, else those once spelled so."""
        key = class_key(name)
        exact = tuple(label for label, keys in enumerate(self.keys) if keys[0] == key)
        return exact or tuple(label for label, keys in enumerate(self.keys) if key in keys)

    def match(self, names: Sequence[str], where: str) -> tuple[int, ...]:
        """The label here of each class of a list that has the same classes in any order.

        Lists that agree place by place are taken as they are; this tells apart SSv2's classes whose names were cut to
        the same words. Where they agree everywhere else, a similar name at the same place is another spelling.

        Args:
            names: the other list, in its label order.
            where: its file, for the error.

        Raises:
            ValueError: if the classes are not the same, or a name leaves two possibilities.
        """
        if len(names) != len(self.names):
            raise ValueError(f"{where}: has {len(names)} classes, {self.file} has {len(self.names)}")
        odd = [label for label, name in enumerate(names) if class_key(name) not in self.keys[label]]
        if all(self._alike(names[label], label) for label in odd):
            for label in odd:
                logger.info("%s: %r is taken for another spelling of %r", where, names[label], self.names[label])
            return tuple(range(len(names)))
        labels = []
        for row, name in enumerate(names):
            found = self.find(name)
            if len(found) != 1:
                reason = "is no class" if not found else "stands for several classes"
                raise ValueError(f"{where}: {name!r} (label {row}) {reason} of {self.file}")
            if found[0] in labels:
                raise ValueError(f"{where}: {name!r} (label {row}) is class {self.names[found[0]]!r} once more")
            labels.append(found[0])
        return tuple(labels)

    def _alike(self, name: str, label: int) -> bool:
        if self.find(name):
            return False
        return difflib.SequenceMatcher(None, class_key(name), self.keys[label][0], autojunk=False).ratio() >= _SIMILAR


def _read_ids(file: Path, num_classes: int) -> list[int]:
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(content, list) or not all(isinstance(n, int) and 0 <= n < num_classes for n in content):
        raise ValueError(f"{file}: expected a list of class numbers from 0 to {num_classes - 1}")
    return content
