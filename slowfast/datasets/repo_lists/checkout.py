"""The files of a checkout: which there are, and what the lists and class files among them hold."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from slowfast.utils.io import parse_json

LIST_SUFFIXES = (".csv", ".txt")
_SUFFIXES = (*LIST_SUFFIXES, ".json", ".yaml")
_COMMA_ROW, _BLANK_ROW = (re.compile(rf"(?P<path>.*\S){sep}(?P<label>[0-9]+)") for sep in (r"\s*,\s*", r"\s+"))
_VIDEO_SUFFIX = re.compile(r"\.\w{2,4}$")
_EPISODE_ROW = re.compile(r"(?P<part>[a-z]+)(?P<label>[0-9]+)/{1,2}(?P<path>[^/].*)")


class Row(NamedTuple):
    """One line of a list.

    Attributes:
        path: the video as the list names it.
        label: as the list has it.
        line: line number, from 1.
    """

    path: str
    label: int
    line: int


@dataclass(frozen=True)
class Checkout:
    """A folder and the lists, class files and configurations anywhere below it.

    Attributes:
        root: the folder.
        files: paths relative to it, sorted.
    """

    root: Path
    files: tuple[PurePosixPath, ...]

    @classmethod
    def scan(cls, root: Path) -> Checkout:
        """Find the files; hidden folders are left out.

        Raises:
            ValueError: if `root` is not a folder.
        """
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; expected a checkout of a project")
        found = []
        for folder, inner, names in os.walk(root):
            inner[:] = [name for name in inner if not name.startswith(".")]
            here = Path(folder).relative_to(root)
            found += [PurePosixPath(here / name) for name in names if name.lower().endswith(_SUFFIXES)]
        return cls(root=root, files=tuple(sorted(found)))

    @cached_property
    def _paths(self) -> tuple[PurePosixPath, ...]:
        top = PurePosixPath(self.root.resolve().name)
        return tuple(PurePosixPath(str(top / file).lower()) for file in self.files)

    def find(self, pattern: str) -> list[PurePosixPath]:
        """Files whose path ends as a pattern says; the root's own name counts as a part of the path."""
        pattern = pattern.lower()
        return [file for file, path in zip(self.files, self._paths, strict=True) if path.match(pattern)]

    def near(self, pattern: str, file: PurePosixPath) -> list[PurePosixPath]:
        """Files whose path ends as a pattern says, of those that share the most folders with `file`.

        A pattern that begins with `./` names files in the folder of `file`.
        """
        if pattern.startswith("./"):
            return [other for other in self.find(pattern[2:]) if other.parent == file.parent and other != file]
        found = self.find(pattern)
        shared = [_shared_folders(other, file) for other in found]
        return [other for other, count in zip(found, shared, strict=True) if count == max(shared)]

    def where(self, file: PurePosixPath) -> str:
        """How errors call a file."""
        return str(self.root / file)

    def text(self, file: PurePosixPath) -> str:
        """The text of a file, without a byte order mark.

        Raises:
            ValueError: if it cannot be read, or is not UTF-8.
        """
        try:
            return (self.root / file).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ValueError(f"{self.where(file)}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.where(file)}: not UTF-8 text") from error

    def _lines(self, file: PurePosixPath) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self.text(file).split("\n"), start=1):
            if line.strip():
                yield number, line.strip()

    def rows(self, file: PurePosixPath, form: str) -> list[Row]:
        """The lines of a list.

        Args:
            file: the list.
            form: "path label" or "class/path", see `Rule.rows`.

        Raises:
            ValueError: at the first line that is not of this form, with its number; if there is no line.
        """
        parse = ROWS[form]
        rows = [parse(line, f"{self.where(file)}:{number}", number) for number, line in self._lines(file)]
        if not rows:
            raise ValueError(f"{self.where(file)}: holds no video")
        return rows

    def is_list(self, file: PurePosixPath) -> bool:
        """Whether the first line of a file is that of a list, in any form."""
        if file.suffix.lower() not in LIST_SUFFIXES:
            return False
        for parse in ROWS.values():
            try:
                number, line = next(self._lines(file), (0, ""))
                parse(line, "", number)
            except ValueError:
                continue
            return True
        return False

    def class_names(self, file: PurePosixPath, part: str) -> list[str] | None:
        """The class names of a class file in the order of their labels; None if the file has no class list.

        Args:
            file: a JSON object index -> name, a CSV file with the header `id,name`, or a configuration of CLIP-FSAR.
            part: "train" or "test", which of the lists of a configuration is meant.

        Raises:
            ValueError: if the file cannot be read.
        """
        readers: dict[str, Callable[[PurePosixPath, str], list[str] | None]] = {
            ".json": self._json_names,
            ".csv": self._csv_names,
            ".yaml": self._yaml_names,
        }
        return readers[file.suffix.lower()](file, part)

    def _json_names(self, file: PurePosixPath, part: str) -> list[str] | None:
        del part
        try:
            content = parse_json(self.text(file))
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.where(file)}:{error.lineno}: not valid JSON ({error.msg})") from error
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
            return None
        if set(content) != {str(number) for number in range(len(content))}:
            return None
        # Sentences for class names, with which TC-CLIP goes by the order of the entries and not by their keys.
        keys = list(content) if "_llm" in file.name.lower() else sorted(content, key=int)
        return [content[key].partition(":")[0].strip() for key in keys]

    def _csv_names(self, file: PurePosixPath, part: str) -> list[str] | None:
        del part
        try:
            rows = [row for row in csv.reader(self.text(file).split("\n")) if "".join(row).strip()]
        except csv.Error as error:
            raise ValueError(f"{self.where(file)}: not readable as CSV ({error})") from error
        body = rows[1:] if rows and not rows[0][0].strip().isdecimal() else rows
        if not body or not all(len(row) > 1 and row[0].strip().isdecimal() for row in body):
            return None
        # Names with a comma are not always quoted.
        return [",".join(row[1:]).strip() for row in body]

    def _yaml_names(self, file: PurePosixPath, part: str) -> list[str] | None:
        try:
            content: Any = yaml.safe_load(self.text(file))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(f"{self.where(file)}: not valid YAML ({' '.join(str(error).split())})") from error
        for key in (part.upper(), "CLASS_NAME"):
            content = content.get(key) if isinstance(content, dict) else None
        return [str(name) for name in content] if isinstance(content, list) and content else None


def _shared_folders(one: PurePosixPath, other: PurePosixPath) -> int:
    pairs = zip(one.parent.parts, other.parent.parts, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _path_and_label(line: str, where: str, number: int) -> Row:
    """`path,label`, `path,ignored,label` or `path label`."""
    found = _COMMA_ROW.fullmatch(line) or _BLANK_ROW.fullmatch(line)
    if found is None:
        raise ValueError(f"{where}: expected a path and a label, found {line!r}")
    path, *between = found["path"].split(",")
    # A second of three fields is ignored; without a video's suffix before it, the comma belongs to the path.
    ignores = len(between) == 1 and found.re is _COMMA_ROW and _VIDEO_SUFFIX.search(path.strip())
    return Row(path=path.strip() if ignores else found["path"], label=int(found["label"]), line=number)


def _class_and_path(line: str, where: str, number: int) -> Row:
    """`train8/<id>` or `train8//videos/<class>/<file>`."""
    found = _EPISODE_ROW.fullmatch(line)
    if found is None:
        raise ValueError(f"{where}: expected <split><label>/<video>, found {line!r}")
    return Row(path=found["path"], label=int(found["label"]), line=number)


ROWS: dict[str, Callable[[str, str, int], Row]] = {"path label": _path_and_label, "class/path": _class_and_path}
