"""Scores on the disk: what was scored survives the process, and a split needs not fit in memory.

A folder holds one file per process. Each begins with a header that says what was scored, by what, and how; records of
one size follow, one per video: id and label (int64), K scores (float32), and a checksum (uint32) over them, all
little-endian. Files only ever grow, so an interrupted process loses its last record at most.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from slowfast.engine.evaluator import ScoredBatch
from slowfast.utils.io import file_named

_MAGIC = b"SFSCORE1"
_HEADER_BYTES = 32
_SYNC_SECONDS = 30.0
_FILE_NAME = re.compile(r"rank\d+\.bin")
_ROWS_PER_READ = 1024


class ScoreStore:
    """Scores of videos in a folder that several processes share: each appends to a file of its own and reads all.

    What stays in memory is the index: some 30 bytes per video while reading.

    With several processes: one of them calls :meth:`prepare`, all wait for it, then each makes its store.

    Args:
        folder: where the files are.
        identity: everything that the scores depend on, as text; only equal identities share scores.
        num_classes: K.
        rank: this process.
        num_videos: ids are below it; None if that is not known.

    Raises:
        ValueError: if a file of the folder holds other scores, or is not one of ours.
    """

    def __init__(
        self, folder: str | Path, *, identity: str, num_classes: int, rank: int = 0, num_videos: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self.num_classes = num_classes
        self.num_videos = num_videos
        self._header = _header(identity, num_classes)
        self._dtype = np.dtype(
            [("video_id", "<i8"), ("label", "<i8"), ("logits", "<f4", (num_classes,)), ("checksum", "<u4")]
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self._open(self.folder / f"rank{rank}.bin")
        self._synced = time.monotonic()

    @classmethod
    def prepare(cls, folder: str | Path, *, identity: str, num_classes: int) -> None:
        """Remove the scores of other identities; for one process, before any opens its store.

        Raises:
            ValueError: if a file that is named like ours is not one of ours; it is left alone.
        """
        header = _header(identity, num_classes)
        for path in _files(Path(folder)):
            with path.open("rb") as file:
                found = file.read(_HEADER_BYTES)
            _refuse_foreign(path, found)
            if not header.startswith(found):
                path.unlink()

    def scored(self) -> np.ndarray:
        """Ids of the videos that any process has scored, (V,), int64, increasing, each once."""
        return np.unique(self._index()[1])

    def append(self, batch: ScoredBatch) -> None:
        """Write the V videos of a batch; it survives this process from then on, and the machine after a while."""
        if not len(batch.label):
            return
        assert batch.logits.shape == (len(batch.label), self.num_classes), f"logits {tuple(batch.logits.shape)}"
        rows = np.empty(len(batch.label), self._dtype)
        for name in ("video_id", "label", "logits"):
            rows[name] = getattr(batch, name).numpy()
        assert not self._out_of_range(rows).any(), f"ids {batch.video_id.tolist()}, labels {batch.label.tolist()}"
        rows["checksum"] = _checksums(rows)
        with file_named(self._file.name):
            self._file.write(rows.tobytes())
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync()

    def chunks(self, rows: int = _ROWS_PER_READ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Read the scores of all processes back.

        Call it when no process writes any more.

        Args:
            rows: most videos of a chunk.

        Yields:
            Ids (v,), increasing from chunk to chunk too, labels (v,) and scores (v, K), each video once.
        """
        reader = self.reader()
        for start in range(0, len(reader.video_id), rows):
            yield reader.read(reader.video_id[start : start + rows])

    def reader(self) -> ScoreReader:
        """Check the records of all processes, to read some of them in any order; when no process writes any more."""
        return ScoreReader(self._index(), self._dtype)

    def close(self) -> None:
        """End writing, with everything on the disk."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def remove(self) -> None:
        """Delete the scores of all processes; the folder too if nothing else is in it."""
        self.close()
        for path in _files(self.folder):
            path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def __enter__(self) -> ScoreStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _open(self, path: Path) -> BinaryIO:
        """Open this process's file for writing behind its last whole record."""
        whole = self._read_ids(path) if path.exists() else None
        file = path.open("ab")
        if whole is not None and file.tell() >= _HEADER_BYTES:
            file.truncate(_HEADER_BYTES + len(whole) * self._dtype.itemsize)
        else:
            file.truncate(0)
            file.write(self._header)
            file.flush()
        return file

    def _index(self) -> tuple[list[Path], np.ndarray, np.ndarray, np.ndarray]:
        """The files, and of every record its video id, the number of its file, and its place in there."""
        paths = _files(self.folder)
        ids = [self._read_ids(path) for path in paths]
        counts = [len(part) for part in ids]
        return (
            paths,
            np.concatenate([np.empty(0, np.int64), *ids]),
            np.repeat(np.arange(len(paths)), counts),
            np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)]),
        )

    def _read_ids(self, path: Path) -> np.ndarray:
        """Check every record of a file; returns the video ids of those before an interrupted end, (V,)."""
        size = self._dtype.itemsize
        ids: list[np.ndarray] = []
        is_cut = False
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            _refuse_foreign(path, header)
            if not self._header.startswith(header):
                raise ValueError(f"{path}: holds the scores of another model, split or configuration; remove it")
            while block := file.read(size * _ROWS_PER_READ):
                rows = np.frombuffer(block, self._dtype, len(block) // size)
                good = _checksums(rows) == rows["checksum"]
                whole = len(rows) if good.all() and not is_cut else 0 if is_cut else int(good.argmin())
                is_cut = is_cut or whole < len(rows)
                start = sum(map(len, ids))
                if good[whole:].any():
                    raise ValueError(f"{path}: record {start + whole} is damaged, and others follow; remove the file")
                wrong = self._out_of_range(rows[:whole])
                if wrong.any():
                    row = rows[int(wrong.argmax())]
                    raise ValueError(
                        f"{path}: video {row['video_id']} with label {row['label']} is not of this split of "
                        f"{self.num_videos or 'any number of'} videos and {self.num_classes} classes; remove the file"
                    )
                ids.append(rows["video_id"][:whole].astype(np.int64))
        return np.concatenate([np.empty(0, np.int64), *ids])

    def _out_of_range(self, rows: np.ndarray) -> np.ndarray:
        limit = np.iinfo(np.int64).max if self.num_videos is None else self.num_videos
        ids, labels = rows["video_id"], rows["label"]
        return (ids < 0) | (ids >= limit) | (labels < 0) | (labels >= self.num_classes)


class ScoreReader:
    """Reads the scores of single videos; what stays in memory is where they lie.

    Args:
        index: the files, and of every record its video id, the number of its file, and its place in there.
        dtype: of a record.
    """

    def __init__(self, index: tuple[list[Path], np.ndarray, np.ndarray, np.ndarray], dtype: np.dtype) -> None:
        self._paths, ids, source, place = index
        self.video_id, first = np.unique(ids, return_index=True)
        """Videos that have scores, (V,), int64, increasing."""
        self._source, self._place = source[first], place[first]
        self._dtype = dtype

    def read(self, video_id: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Read the scores of videos that have some.

        Args:
            video_id: (v,), int64, in any order.

        Returns:
            Ids (v,), labels (v,) and scores (v, K).
        """
        rows = np.searchsorted(self.video_id, video_id)
        assert (rows < len(self.video_id)).all(), "videos without scores"
        assert (self.video_id[rows] == video_id).all(), "videos without scores"
        records = np.empty(len(rows), self._dtype)
        for number, path in enumerate(self._paths):
            here = self._source[rows] == number
            if here.any():
                wanted = self._place[rows[here]]
                # Mapped anew each time: the pages of a whole file would count as memory of this process.
                file = np.memmap(path, self._dtype, "r", offset=_HEADER_BYTES, shape=(int(wanted.max()) + 1,))
                records[here] = file[wanted]
        ids, label, logits = (torch.from_numpy(np.array(records[name])) for name in ("video_id", "label", "logits"))
        return ids, label, logits


def _files(folder: Path) -> list[Path]:
    """The files of all processes, in the same order on each."""
    return sorted(path for path in folder.glob("rank*.bin") if _FILE_NAME.fullmatch(path.name))


def _header(identity: str, num_classes: int) -> bytes:
    digest = hashlib.sha256(f"{num_classes}\n{identity}".encode()).digest()
    return (_MAGIC + digest)[:_HEADER_BYTES]


def _refuse_foreign(path: Path, header: bytes) -> None:
    """A file that was cut within its first bytes may be ours."""
    if header[: len(_MAGIC)] != _MAGIC[: len(header)]:
        raise ValueError(f"{path}: is not a file of scores; it begins with {header[: len(_MAGIC)]!r}; move it away")


def _checksums(rows: np.ndarray) -> np.ndarray:
    """CRC-32 of each record but for its last field, (V,), uint32."""
    size = rows.dtype.itemsize
    data = rows.view(np.uint8).data
    sums = [zlib.crc32(data[start : start + size - 4]) for start in range(0, len(data), size)]
    return np.array(sums, dtype=np.uint32)
