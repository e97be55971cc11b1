"""What was found out about files, one line each, so that a long job goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

FORMAT = "slowfast-stdd/file-record/1"
_HEADER = json.dumps({"format": FORMAT}).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class FileState:
    """By which a file is known to be the one of last time.

    Attributes:
        size: in bytes.
        mtime_ns: time of the last change, in nanoseconds.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """State of a file now.

        Raises:
            OSError: if there is none.
        """
        found = path.stat()
        return cls(size=found.st_size, mtime_ns=found.st_mtime_ns)


class FileRecord:
    """A file of JSON lines that is only ever appended to; a context manager that keeps other runs away from it.

    Each line reaches the operating system before the next is written. A line that was cut short, or that cannot be
    read, counts as not written; the last of several lines on one file holds.

    Args:
        path: the record; made, with its folder, if absent.

    Raises:
        ValueError: on entering, if the file is something else or another run has it open.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}

    def find(self, kind: str, name: str, state: FileState) -> Mapping[str, Any] | None:
        """The entry of a file, unless the file has changed since.

        Args:
            kind: what was done to the file.
            name: the file's name in the record.
            state: the file's state now.
        """
        entry = self._entries.get((kind, name))
        if entry is None or (entry["size"], entry["mtime_ns"]) != (state.size, state.mtime_ns):
            return None
        return entry

    def add(self, kind: str, name: str, state: FileState, facts: Mapping[str, Any]) -> None:
        """Append an entry.

        Args:
            kind: what was done to the file.
            name: the file's name in the record.
            state: the file's state before that.
            facts: what came of it, of types that JSON has.
        """
        entry = {"kind": kind, "file": name, "size": state.size, "mtime_ns": state.mtime_ns, **facts}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        self._entries[kind, name] = entry

    def __enter__(self) -> FileRecord:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self._path.open("a+b")
        try:
            self._lock()
            self._load()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        if os.name != "posix":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self._path}: another run is writing this record; wait for it or end it") from None
        except OSError as error:
            logger.warning("%s: cannot be locked (%s); start no second run on it", self._path, error.strerror)

    def _load(self) -> None:
        self._file.seek(0)
        header = self._file.readline()
        if header != _HEADER:
            if not _HEADER.startswith(header):
                raise ValueError(f"{self._path}: not a record of {FORMAT}; name another file")
            self._file.truncate(0)
            self._file.write(_HEADER)
        line = b"\n"
        for line in self._file:
            self._take(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")
        self._file.flush()

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if isinstance(entry["size"], int) and isinstance(entry["mtime_ns"], int):
                self._entries[str(entry["kind"]), str(entry["file"])] = entry
        except (ValueError, KeyError, TypeError):
            return
