"""Copies of videos that are quick to read: small pictures, a keyframe every few frames, no B-frames.

A copy is an MP4 file with H.264 video and no sound. It has every frame of its source at the same time, counted from
the first. Pictures are turned upright where the source says so, and never enlarged.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.file_record import FileRecord, FileState
from slowfast.datasets.h264 import H264Settings, copy_video, read_mark, require_encoder
from slowfast.datasets.inspection import failure_reason, os_error_reason, relative_name
from slowfast.utils.io import PART_SUFFIX
from slowfast.utils.progress import Progress
from slowfast.utils.watched_pool import Outcome, run_watched

SUFFIX = ".mp4"
TIMEOUT_SECONDS = 1800.0

_KIND = "transcode"
# Every further video would fail in the same way.
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@dataclass(frozen=True, kw_only=True)
class TranscodeReport:
    """What `transcode_videos` did.

    Attributes:
        done: copies made now.
        skipped: copies that were there, of the same source with the same settings.
        failed: name of the source -> why there is no copy, one line; in the order of the paths.
        source_bytes, target_bytes: sizes of the sources and of the copies, of those made now.
    """

    done: int
    skipped: int
    failed: dict[str, str]
    source_bytes: int
    target_bytes: int


def transcode_videos(
    paths: Sequence[Path],
    *,
    root: Path,
    target: Path,
    record: Path,
    workers: int,
    short_side: int = 256,
    gop: int = 16,
    crf: int = 18,
    preset: str = "veryfast",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> TranscodeReport:
    """Copy videos into a folder of the same structure, several at a time.

    A copy appears whole or not at all. A file that lies where a copy belongs but is none is left alone and is a
    failure.

    Args:
        paths: the videos, below `root`.
        root: folder of the sources.
        target: folder of the copies, `<target>/<path from root, with the suffix .mp4>`.
        record: file that makes the work resumable, see `FileRecord`.
        workers: processes, at least 1; each uses one core.
        short_side: shorter side of the pictures in pixels, even; smaller pictures keep their size.
        gop: frames from one keyframe to the next.
        crf: quality of libx264, 0 (best) to 51.
        preset: speed of libx264.
        timeout_seconds: limit for one video.

    Raises:
        ValueError: if an argument is out of range, the encoder is absent, a source lies outside `root`, or a copy
            would replace a source or another copy.
        OSError: if the disk is full or cannot be written to.
    """
    require_encoder()
    settings = H264Settings(short_side=short_side, gop=gop, crf=crf, preset=preset)
    places = _plan(paths, root, target)
    run = _Transcoding(places=places, settings=settings)
    with FileRecord(record) as known, Progress(len(places), doing=_KIND, unit="video") as progress:
        tasks = run.tasks(known, progress)
        try:
            with closing(run_watched(_transcode, tasks, workers=workers, timeout_seconds=timeout_seconds)) as outcomes:
                for outcome in outcomes:
                    run.take(outcome, known)
                    progress.step(failed=outcome.task.name in run.failed)
        finally:
            run.remove_parts()
    return run.report()


@dataclass(frozen=True, kw_only=True)
class _Task:
    name: str
    source: Path
    state: FileState
    target: Path
    settings: H264Settings


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Either the size of a copy, or a reason with the system's number of the error, if it has one."""

    size: int | None = None
    reason: str = ""
    number: int | None = None


def _transcode(task: _Task) -> _Made:
    try:
        copy_video(task.source, task.target, task.settings, mark=_mark(task.state, task.settings))
        return _Made(size=task.target.stat().st_size)
    except DecodeError as error:
        return _Made(reason=error.reason, number=getattr(error.__cause__, "errno", None))
    except OSError as error:
        return _Made(reason=f"{error.filename or task.target}: {os_error_reason(error)}", number=error.errno)


def _mark(state: FileState, settings: H264Settings) -> dict[str, Any]:
    """By which a copy is known to be of this source with these settings."""
    return {"source": asdict(state), "settings": asdict(settings)}


@dataclass
class _Transcoding:
    """The state of `transcode_videos`."""

    places: dict[str, tuple[Path, Path]]
    settings: H264Settings
    failed: dict[str, str] = field(default_factory=dict)
    at_work: set[Path] = field(default_factory=set)
    done: int = 0
    skipped: int = 0
    source_bytes: int = 0
    target_bytes: int = 0

    def tasks(self, known: FileRecord, progress: Progress) -> Iterator[_Task]:
        """The copies to make; the others are settled here."""
        for name, (source, target) in self.places.items():
            try:
                state = FileState.of(source)
                is_there = self._is_there(name, state, target, known)
            except OSError as error:
                self.failed[name] = os_error_reason(error)
                is_there = False
            if is_there:
                self.skipped += 1
            elif name not in self.failed:
                self.at_work.add(target)
                yield _Task(name=name, source=source, state=state, target=target, settings=self.settings)
                continue
            progress.step(failed=not is_there)

    def _is_there(self, name: str, state: FileState, target: Path, known: FileRecord) -> bool:
        if not os.path.lexists(target):
            return False
        size = target.stat().st_size
        mark = _mark(state, self.settings)
        entry = known.find(_KIND, name, state)
        if entry is not None:
            return (entry.get("mark"), entry.get("target_size")) == (mark, size)
        found = read_mark(target)
        if found is None:
            self.failed[name] = f"{target} is there already and is not a copy made by this tool; move it away"
        if found == mark:
            self._note(known, name, state, size)
        return found == mark

    def take(self, outcome: Outcome[_Task, _Made], known: FileRecord) -> None:
        """Keep what came of a task.

        Raises:
            OSError: if the next one would fail in the same way.
        """
        task = outcome.task
        made = outcome.value or _Made(reason=failure_reason(outcome))
        if made.size is None:
            self.failed[task.name] = made.reason
            if made.number in _HOPELESS:
                raise OSError(made.number, os.strerror(made.number), str(task.target))
            _part(task.target).unlink(missing_ok=True)
        else:
            self.done += 1
            self.source_bytes += task.state.size
            self.target_bytes += made.size
            self._note(known, task.name, task.state, made.size)
        self.at_work.discard(task.target)

    def _note(self, known: FileRecord, name: str, state: FileState, size: int) -> None:
        known.add(_KIND, name, state, {"mark": _mark(state, self.settings), "target_size": size})

    def remove_parts(self) -> None:
        """Remove what killed processes left half written."""
        for target in self.at_work:
            _part(target).unlink(missing_ok=True)

    def report(self) -> TranscodeReport:
        return TranscodeReport(
            done=self.done,
            skipped=self.skipped,
            failed={name: self.failed[name] for name in self.places if name in self.failed},
            source_bytes=self.source_bytes,
            target_bytes=self.target_bytes,
        )


def _part(target: Path) -> Path:
    return target.with_name(target.name + PART_SUFFIX)


def _plan(paths: Sequence[Path], root: Path, target: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> source and copy.

    Raises:
        ValueError: see `transcode_videos`.
    """
    if os.path.realpath(target) == os.path.realpath(root):
        raise ValueError(f"{target}: is the folder of the sources; name another one for the copies")
    sources = {relative_name(path, root): Path(path) for path in paths}
    takers: dict[str, str] = {}
    places: dict[str, tuple[Path, Path]] = {}
    for name, source in sources.items():
        if Path(name).is_absolute():
            raise ValueError(f"{source}: lies outside of {root}, so it has no place in {target}")
        copy = Path(target) / Path(name).with_suffix(SUFFIX)
        place = relative_name(copy, root)
        if place in sources:
            raise ValueError(f"{name}: its copy would replace {place}; name another folder for the copies")
        if place in takers:
            raise ValueError(f"{name} and {takers[place]}: both would be copied to {copy}; rename one")
        takers[place] = name
        places[name] = (source, copy)
    return places
