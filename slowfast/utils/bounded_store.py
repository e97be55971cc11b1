"""A folder of files whose size together is bounded, for any number of processes on one machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

_PART_SUFFIX = ".part"
_PART_LIFE_SECONDS = 3600
_LEDGER = "size"
_SLACK = 0.05


class BoundedStore:
    """Entries under keys; those unused for longest make room for new ones.

    An entry that was used since this object was made is never removed: a run that goes round more than fits would
    only chase its own entries. A store that is full of those takes no more, and says so once.

    Args:
        folder: where; made if absent.
        max_bytes: bound of all entries together.
        suffix: of the entries.
        key: configuration key of the bound, for the message.
    """

    def __init__(self, folder: str | Path, max_bytes: int, *, suffix: str, key: str) -> None:
        self._folder = Path(folder)
        self._suffix = suffix
        self._key = key
        self._max_bytes = max_bytes
        self._since = time.time()
        self.is_full = False

    def path(self, key: str) -> Path:
        """Where the entry of a key lies."""
        return self._folder / f"{key}{self._suffix}"

    def touch(self, key: str) -> None:
        """Count an entry as used now; one that is not there, or not ours to change, stays as it is."""
        with suppress(OSError):
            os.utime(self.path(key))

    def add(self, key: str, parts: Sequence[Any]) -> None:
        """Write an entry, which appears whole or not at all; does nothing once there is no room.

        Args:
            key: of hexadecimal digits.
            parts: bytes, one after the other.
        """
        if self.is_full:
            return
        size = sum(memoryview(part).nbytes for part in parts)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part = self._reserve(key, size)
            if part is None:
                self._stop(f"{self._max_bytes / 1e9:g} GB are in use ({self._key})")
                return
            try:
                with part.open("r+b") as file:
                    file.writelines(parts)
                with self._locked():  # or whoever counts may see neither name
                    part.replace(self.path(key))
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            self._stop(error.strerror or type(error).__name__)

    def _stop(self, reason: str) -> None:
        self.is_full = True
        logger.warning("%s: nothing more is kept: %s", self._folder, reason)

    def _reserve(self, key: str, size: int) -> Path | None:
        """Make a file of that size, so that others count it before it is written; None if there is no room."""
        with self._locked() as ledger:
            text = ledger.read()
            total = int(text) if text.isdigit() else self._max_bytes
            if total + size > self._max_bytes:
                total = self._make_room(size)
            fits = total + size <= self._max_bytes
            ledger.seek(0)
            ledger.truncate()
            ledger.write(str(total + size if fits else total).encode())
            if not fits:
                return None
            number, name = tempfile.mkstemp(prefix=f"{key}.", suffix=_PART_SUFFIX, dir=self._folder)
            try:
                os.truncate(number, size)
            finally:
                os.close(number)
            return Path(name)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        with (self._folder / _LEDGER).open("a+b") as ledger:
            if os.name == "posix":
                import fcntl

                fcntl.flock(ledger, fcntl.LOCK_EX)
            ledger.seek(0)
            yield ledger

    def _make_room(self, size: int) -> int:
        """Count what there is, and remove what is old; returns the bytes that are left."""
        found = []
        for path in self._folder.iterdir():
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == _PART_SUFFIX and state.st_mtime < time.time() - _PART_LIFE_SECONDS:
                path.unlink(missing_ok=True)  # of a process that was killed
            elif path.suffix in (self._suffix, _PART_SUFFIX):
                found.append((state.st_mtime, state.st_size, path))
        total = sum(bytes_ for _, bytes_, _ in found)
        aim = max(0, self._max_bytes * (1 - _SLACK) - size)
        for used, bytes_, path in sorted(found):
            if total <= aim or used >= self._since:
                break
            if path.suffix == self._suffix:
                path.unlink(missing_ok=True)
                total -= bytes_
        return total
