"""Class names of annotation files against those of `label_db`, whatever their case and punctuation."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from slowfast.datasets.label_set import LabelSet, class_key


class ClassNames:
    """The classes of a class file, found by name.

    Args:
        path: the class file, see LabelSet.from_json.
        names: what it is going to hold; None reads it.

    Raises:
        ValueError: if it is unusable, or two of its names differ in punctuation alone.
    """

    def __init__(self, path: Path, names: Sequence[str] | None = None) -> None:
        self.path = path
        self.names = LabelSet.from_json(path).names if names is None else tuple(names)
        self._labels: dict[str, int] = {}
        for label, name in enumerate(self.names):
            other = self._labels.setdefault(class_key(name), label)
            if other != label:
                raise ValueError(f"{path}: {name!r} and {self.names[other]!r} cannot be told apart")

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str) -> int | None:
        """The label of a name, None if no class has it."""
        return self._labels.get(class_key(name))

    def match(self, name: str, where: str) -> int:
        """The label of a name.

        Args:
            name: in any spelling.
            where: "file:line", for the error.

        Raises:
            ValueError: if no class has it; the nearest one is named.
        """
        label = self.find(name)
        if label is None:
            nearest = difflib.get_close_matches(class_key(name), self._labels, n=1, cutoff=0.0)
            hint = f"; the nearest is {self.names[self._labels[nearest[0]]]!r}" if nearest else ""
            raise ValueError(f"{where}: unknown class {name.strip()!r}, not in {self.path}{hint}")
        return label
