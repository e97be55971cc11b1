"""Look at many videos: which cannot be read, and what the others are like.

Videos are opened in processes of their own, since FFmpeg may crash or hang over a damaged file, and what was found is
kept in a record, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from slowfast.datasets.decode import DecodeError, VideoInfo, opened
from slowfast.datasets.file_record import FileRecord, FileState
from slowfast.datasets.video_stats import VideoFacts, VideoStats
from slowfast.utils.progress import Progress
from slowfast.utils.watched_pool import Outcome, run_watched

Mode = Literal["open", "decode"]
MODES: tuple[Mode, ...] = ("open", "decode")

TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class InspectionReport:
    """What `inspect_videos` found.

    Attributes:
        checked: videos looked at now.
        reused: videos known from the record.
        failed: name -> why it cannot be read, one line; in the order of the paths.
        damaged: name -> how much of a readable video is damaged; only decoding shows it.
        stats: the readable videos; None if there is none.
    """

    checked: int
    reused: int
    failed: dict[str, str]
    damaged: dict[str, str]
    stats: VideoStats | None


def inspect_videos(
    paths: Sequence[Path],
    *,
    root: Path,
    record: Path,
    workers: int,
    mode: Mode = "open",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> InspectionReport:
    """Look at videos, several at a time; of those that the record knows, unchanged, nothing is read.

    Args:
        paths: the videos; one that is missing is a failure.
        root: folder from which the report names them.
        record: file that makes the inspection resumable, see `FileRecord`.
        workers: processes, at least 1.
        mode: "open" reads the compressed packets, "decode" decodes every frame too, and so finds damaged pictures.
        timeout_seconds: limit for one video.

    Raises:
        ValueError: if an argument is out of range, or the record is not usable.
    """
    if mode not in MODES:
        raise ValueError(f"mode: found {mode!r}, allowed: {', '.join(MODES)}")
    inspection = _Inspection({relative_name(path, root): Path(path) for path in paths}, mode)
    with FileRecord(record) as known, Progress(len(inspection.paths), doing=mode, unit="video") as progress:
        tasks = inspection.tasks(known, progress)
        with closing(run_watched(_inspect, tasks, workers=workers, timeout_seconds=timeout_seconds)) as outcomes:
            for outcome in outcomes:
                inspection.take(outcome, known)
                progress.step(failed=outcome.task.name in inspection.failed)
    return inspection.report()


def inspect_video(path: str | Path, *, mode: Mode = "open") -> VideoFacts:
    """Look at one video, in this process.

    Args:
        path: the file.
        mode: see `inspect_videos`.

    Raises:
        DecodeError: if it cannot be read, or frames that it states are not in the file.
    """
    with opened(path, "NONE") as video:
        info = video.describe(stamps=False)
        require_whole(path, info, held=video.num_shown)
        frames, damaged = info.num_frames, 0
        if mode == "decode":
            frames = 0
            for frame in video.decode_from(0):
                frames += 1
                damaged += bool(frame.is_corrupt)
            if not frames:
                raise DecodeError(path, "no frame can be decoded")
        keys = [number for number, packet in enumerate(video.packets) if packet.is_key] or [0]
        keys.append(len(video.packets))
        return VideoFacts(
            frames=frames,
            fps=info.fps,
            width=info.width,
            height=info.height,
            codec=video.codec,
            size_bytes=Path(path).stat().st_size,
            b_frames=video.has_b_frames,
            longest_gop=max(after - before for before, after in itertools.pairwise(keys)),
            damaged=damaged,
        )


def require_whole(path: str | Path, info: VideoInfo, *, held: int) -> None:
    """Refuse a truncated video.

    Args:
        path: the file, for the error.
        info: its description; of a truncated video it counts the frames that were there once.
        held: frames in the file.

    Raises:
        DecodeError: if frames are missing.
    """
    if held < info.num_frames:
        raise DecodeError(path, f"the file is truncated: it holds {held} of {info.num_frames} frames")


def relative_name(path: str | Path, root: str | Path) -> str:
    """Name of a file in reports: from `root` on, with forward slashes; the whole path of a file outside.

    Args:
        path: the file.
        root: a folder.
    """
    absolute, folder = (Path(os.path.abspath(place)) for place in (path, root))  # noqa: PTH100 - links keep their names
    inside = absolute.is_relative_to(folder)
    return (absolute.relative_to(folder) if inside else absolute).as_posix()


def failure_reason(outcome: Outcome[Any, Any]) -> str:
    """Say how a process was lost over a video."""
    return (
        f"time-out after {outcome.detail}"
        if outcome.failure == "timeout"
        else f"the decoder crashed ({outcome.detail})"
    )


def os_error_reason(error: OSError) -> str:
    """Say in one line, without the path, why a file cannot be used."""
    reason = error.strerror or type(error).__name__
    return f"{reason[0].lower()}{reason[1:]}"


@dataclass(frozen=True, kw_only=True)
class _Task:
    name: str
    path: Path
    state: FileState
    mode: Mode


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """Either facts or a reason; `lasting` unless the reason may be gone at the next try."""

    facts: VideoFacts | None = None
    reason: str = ""
    lasting: bool = True


def _inspect(task: _Task) -> _Finding:
    try:
        return _Finding(facts=inspect_video(task.path, mode=task.mode))
    except DecodeError as error:
        return _Finding(reason=error.reason, lasting=not isinstance(error.__cause__, OSError))


@dataclass
class _Inspection:
    """The state of `inspect_videos`."""

    paths: dict[str, Path]
    mode: Mode
    facts: dict[str, VideoFacts] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reused: int = 0

    def tasks(self, known: FileRecord, progress: Progress) -> Iterator[_Task]:
        """The videos to look at; the others are settled here."""
        for name, path in self.paths.items():
            try:
                state = FileState.of(path)
            except OSError as error:
                self.failed[name] = os_error_reason(error)
                progress.step(failed=True)
                continue
            entry = known.find(self.mode, name, state)
            finding = _finding_of(entry) if entry else None
            if finding is None or not finding.lasting:
                yield _Task(name=name, path=path, state=state, mode=self.mode)
                continue
            self.reused += 1
            self._settle(name, finding)
            progress.step(failed=finding.facts is None)

    def take(self, outcome: Outcome[_Task, _Finding], known: FileRecord) -> None:
        """Keep what came of a task."""
        finding = outcome.value or _Finding(reason=failure_reason(outcome), lasting=False)
        self._settle(outcome.task.name, finding)
        known.add(self.mode, outcome.task.name, outcome.task.state, asdict(finding))

    def _settle(self, name: str, finding: _Finding) -> None:
        if finding.facts is None:
            self.failed[name] = finding.reason
        else:
            self.facts[name] = finding.facts

    def report(self) -> InspectionReport:
        damaged = {
            name: f"{facts.damaged} of {facts.frames} frames are damaged"
            for name in self.paths
            if (facts := self.facts.get(name)) and facts.damaged
        }
        return InspectionReport(
            checked=len(self.paths) - self.reused,
            reused=self.reused,
            failed={name: self.failed[name] for name in self.paths if name in self.failed},
            damaged=damaged,
            stats=VideoStats.of(list(self.facts.values())),
        )


def _finding_of(entry: Any) -> _Finding | None:  # noqa: ANN401 - JSON
    """A finding from the record; None if another version wrote it."""
    try:
        facts = entry["facts"]
        return _Finding(
            facts=None if facts is None else VideoFacts(**facts),
            reason=str(entry["reason"]),
            lasting=bool(entry["lasting"]),
        )
    except (KeyError, TypeError):
        return None
