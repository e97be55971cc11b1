"""Decoded frames on the disk: what was decoded once is read the next time, the same to the bit.

Frames are kept as they are, uncompressed: 320 x 240 pixels take 230 kB. An evaluation keeps the frames it asks for. In
training, where every epoch draws other frames, whole videos are kept, so it pays for few videos and many epochs.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slowfast.datasets import decode as pyav_decode
from slowfast.datasets import packets
from slowfast.datasets.decode import DecodeError, Plan, Threads, VideoInfo
from slowfast.utils.bounded_store import BoundedStore
from slowfast.utils.io import sha256_file
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

FORMAT = "slowfast-stdd/frames/1"
SUFFIX = ".frames"
# Larger videos are not kept whole: decoding one at once would take that much memory of every worker.
MAX_WHOLE_BYTES = 256 * 2**20


class CachedDecoder:
    """A decoder that looks into a `BoundedStore` first; the frames are those of the decoder.

    An entry belongs to a file of this path, size and time of change, as read by this version of the decoder. It holds
    the description of the video too: the plan is asked at every use, and an entry without its frames is not used.

    Args:
        decode: entry of `decode.DECODERS`.
        store: where frames are kept.
        purpose: sets the entries apart of those who ask for different frames.
        whole: keep all frames of a video and not only those asked for.
    """

    def __init__(
        self, decode: Callable[..., NDArray[np.uint8]], store: BoundedStore, *, purpose: str, whole: bool
    ) -> None:
        self._decode = decode
        self._store = store
        self._whole = whole
        self._version = [FORMAT, purpose, whole, *decoder_version(decode)]

    def __call__(
        self, path: str | Path, plan: Plan, *, stamps: bool = False, threads: Threads = "NONE"
    ) -> NDArray[np.uint8]:
        """Read frames; see `decode.decode_frames`.

        Args:
            path: the file.
            plan: maps the video's description to frame numbers.
            stamps: the plan needs `VideoInfo.pts`.
            threads: of the decoder.

        Returns: (len(plan), H, W, 3) RGB.

        Raises:
            DecodeError: if the file cannot be read or holds fewer frames than wanted.
        """
        key = self._key(path, stamps)
        frames = self._kept(key, plan) if key else None
        if frames is None and key and self._whole and not self._store.is_full:
            self._keep_whole(key, path, stamps=stamps, threads=threads)
            frames = self._kept(key, plan)
        if frames is not None:
            return frames
        asked = _Recorder(plan)
        frames = self._decode(path, asked, stamps=stamps, threads=threads)
        if key and not self._whole:
            self._store.add(key, _entry(asked.infos, asked.indices, frames))
        return frames

    def _key(self, path: str | Path, stamps: bool) -> str:
        """Of the entry; empty for a file that is not there."""
        try:
            state = Path(path).stat()
        except OSError:
            return ""
        place = os.path.abspath(path)  # noqa: PTH100 - links keep their names
        parts = [*self._version, place, state.st_size, state.st_mtime_ns, stamps]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _kept(self, key: str, plan: Plan) -> NDArray[np.uint8] | None:
        entry = self._store.path(key)
        try:
            with entry.open("rb") as file:
                frames = _read_entry(file, plan)
        except FileNotFoundError:
            return None
        except (_DamagedError, OSError) as error:
            logger.warning("%s: kept frames are not usable (%s), the video is decoded again", entry, error)
            with suppress(OSError):
                entry.unlink()
            return None
        self._store.touch(key)
        return frames

    def _keep_whole(self, key: str, path: str | Path, *, stamps: bool, threads: Threads) -> None:
        def everything(info: VideoInfo) -> Sequence[int]:
            if info.num_frames * info.height * info.width * 3 > MAX_WHOLE_BYTES:
                raise DecodeError(path, "too large to be kept whole")
            return range(info.num_frames)

        asked = _Recorder(everything)
        try:
            frames = self._decode(path, asked, stamps=stamps, threads=threads)
        except DecodeError:
            return  # what is wanted of it may be readable
        self._store.add(key, _entry(asked.infos, asked.indices, frames))


def decoder_version(decode: Callable[..., Any]) -> list[str]:
    """What the frames of a decoder may depend on: versions of the libraries, and hashes of its source."""
    module = sys.modules[decode.__module__]
    sources = sorted({str(m.__file__) for m in (module, pyav_decode, packets)})
    versions = [f"{name} {metadata.version(name)}" for name in ("av", "torchcodec") if _is_installed(name)]
    return [decode.__module__, *versions, *map(sha256_file, sources)]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


class _DamagedError(Exception):
    """An entry is not what was written."""


class _Recorder:
    """A plan that remembers what it was asked and what it answered last."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.infos: list[VideoInfo] = []
        self.indices: list[int] = []

    def __call__(self, info: VideoInfo) -> list[int]:
        self.infos.append(info)
        self.indices = list(self._plan(info))
        return self.indices


def _entry(infos: Sequence[VideoInfo], indices: Sequence[int], frames: NDArray[np.uint8]) -> list[Any]:
    """Header line with a checksum, and the frames, each once."""
    rows = {index: row for row, index in enumerate(indices)}
    kept = [np.ascontiguousarray(frames[row]) for row in rows.values()]
    header = {
        "format": FORMAT,
        "infos": [asdict(info) for info in infos],
        "numbers": list(rows),
        "checksums": [zlib.crc32(frame.data) for frame in kept],
        "shape": frames.shape[1:],
    }
    text = json.dumps(header).encode()
    return [b"%08x " % zlib.crc32(text), text, b"\n", *kept]


def _read_entry(file: BufferedReader, plan: Plan) -> NDArray[np.uint8] | None:
    """The frames that the plan wants; None if not all of them are there."""
    checksum, _, text = file.readline().rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise _DamagedError("its header is not what was written")
    start, header = file.tell(), json.loads(text)
    infos = [VideoInfo(**{**info, "pts": info["pts"] and tuple(info["pts"])}) for info in header["infos"]]
    indices = list(plan(infos[0]))
    if len(infos) > 1 and max(indices, default=0) >= infos[1].num_frames:
        indices = list(plan(infos[1]))  # as the decoder does after a wrong frame count
    places = {number: place for place, number in enumerate(header["numbers"])}
    if not places.keys() >= set(indices):
        return None
    frames = np.empty((len(indices), *header["shape"]), np.uint8)
    for row, index in enumerate(indices):
        file.seek(start + places[index] * frames[row].nbytes)
        if file.readinto(memoryview(frames[row]).cast("B")) != frames[row].nbytes:
            raise _DamagedError("it is cut short")
        if zlib.crc32(frames[row].data) != header["checksums"][places[index]]:
            raise _DamagedError(f"frame {index} is not what was written")
    return frames
