"""The downloaded annotation files: a folder, an archive or a single file, read once and remembered by their hash."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from slowfast.utils.io import parse_json


@dataclass(frozen=True, kw_only=True)
class AnnotationRequest:
    """What a reader is asked for.

    Attributes:
        annotations: folder, archive or file with the official annotations.
        class_files: folder of the dataset in `label_db`, which has its class lists.
        seed: seed of the draws.
        any_counts: take lists of any length, for parts of a dataset.
        subsets: official subsets to read; empty for the usual ones.
        full: for Kinetics-600, also the lists of all 600 classes.
        sources: filled by the reader, file -> sha256.
    """

    annotations: Path
    class_files: Path
    seed: int = 0
    any_counts: bool = False
    subsets: tuple[str, ...] = ()
    full: bool = False
    sources: dict[str, str] = field(default_factory=dict)

    def open(self, folder: str, *, advice: str = "") -> AnnotationFiles:
        """Open the files.

        Args:
            folder: name that the folder of the files usually has; it may lie in the folder that was given.
            advice: what the files are and how to come by them, for errors.
        """
        return AnnotationFiles(self.annotations, folder=folder, advice=advice, sources=self.sources)


class AnnotationFiles:
    """Text files by their bare names.

    Args:
        path: a folder, a zip archive or one text file.
        folder: name of the folder to descend into if `path` has it.
        advice: ending of the errors about absent files.
        sources: where to note file -> sha256 of what was read.

    Raises:
        ValueError: if there is nothing to read.
    """

    def __init__(self, path: Path, *, folder: str, advice: str = "", sources: dict[str, str] | None = None) -> None:
        self.path = path
        self._advice = f"; {advice}" if advice else ""
        self._sources = {} if sources is None else sources
        self._archive = path.is_file() and zipfile.is_zipfile(path)
        self._files = self._list(folder)

    def _list(self, folder: str) -> dict[str, str]:
        if self._archive:
            with zipfile.ZipFile(self.path) as archive:
                members = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
            return {member.name: str(member) for member in members if member.parts[0] != "__MACOSX"}
        if self.path.is_file():
            return {self.path.name: str(self.path)}
        if not self.path.is_dir():
            raise ValueError(f"--annotations {self.path}: no such file or folder{self._advice}")
        inner = self.path / folder
        chosen = inner if folder and inner.is_dir() else self.path
        return {file.name: str(file) for file in sorted(chosen.iterdir()) if file.is_file()}

    @property
    def names(self) -> tuple[str, ...]:
        """Bare names of the files."""
        return tuple(self._files)

    def where(self, name: str) -> str:
        """How errors call a file."""
        return f"{self.path}!{self._files[name]}" if self._archive else self._files[name]

    def require(self, name: str) -> str:
        """Check that a file is there, and return its name.

        Raises:
            ValueError: if it is not.
        """
        if name not in self._files:
            raise ValueError(f"--annotations {self.path}: has no {name}{self._advice}")
        return name

    def text(self, name: str) -> str:
        """The text of a file, without a byte order mark and with plain line ends.

        Raises:
            ValueError: if it is absent, unreadable or not UTF-8.
        """
        file = self._files[self.require(name)]
        try:
            data = self._read(file)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{self.where(name)}: cannot be read ({error})") from error
        self._sources[self.where(name)] = hashlib.sha256(data).hexdigest()
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.where(name)}: not UTF-8 text") from error

    def _read(self, file: str) -> bytes:
        if not self._archive:
            return Path(file).read_bytes()
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(file)

    def lines(self, name: str) -> Iterator[tuple[str, str]]:
        """The lines of a file that are not blank, each with "file:number" before it."""
        where = self.where(self.require(name))
        for number, line in enumerate(self.text(name).split("\n"), start=1):
            if line.strip():
                yield f"{where}:{number}", line.strip()

    def json(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """The content of a JSON file.

        Raises:
            ValueError: if it is not JSON.
        """
        text = self.text(name)
        try:
            return parse_json(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.where(name)}:{error.lineno}: not valid JSON ({error.msg})") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.where(name)}: not readable as JSON ({error})") from error
