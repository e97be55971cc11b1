"""Read a video of the corpus in every way that a run does, and compare with a plain decode."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
from corpus_case import Case
from corpus_videos import SIDE, encode, number_of

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.decode import DecodeError, decode_frames, read_frames
from slowfast.datasets.inspection import inspect_video
from slowfast.datasets.transforms import SpatialSettings
from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset

CLIP_FRAMES = 4
RULES = ("dense", "pyslowfast")
MODES = ("train", "val", "test")
_MOST_COMPARED = 64


class WrongError(Exception):
    """Something other than the right frames or one line came of a video."""


class Truth:
    """The frames of a file by a plain decode of all of it, as anybody would write it."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = next(
                stream for stream in container.streams.video
                if not stream.disposition & av.stream.Disposition.attached_pic
            )  # fmt: skip
            stream.codec_context.thread_count = 1
            self._frames = list(container.decode(stream))

    def __len__(self) -> int:
        return len(self._frames)

    def picture(self, number: int, width: int, height: int) -> np.ndarray:
        """A frame in RGB, scaled to the size of the first where it has another."""
        return self._frames[number].reformat(width, height, "rgb24").to_ndarray()


class _Recorder:
    """decode_frames that keeps what it was asked for and what it gave."""

    def __init__(self) -> None:
        self.info, self.numbers, self.frames = None, (), np.empty(0)

    def __call__(self, path, plan, **options):
        def asked(info):
            self.info, self.numbers = info, plan(info)
            return self.numbers

        self.frames = decode_frames(path, asked, **options)
        return self.frames


def check_video(case: Case, path: Path, folder: Path) -> str:
    """Read a video as every kind of item.

    Returns:
        What came of it, in words.

    Raises:
        WrongError: if that is not allowed.
    """
    if case.relative:
        os.chdir(path.parent)
        path = Path(path.name)
    good = folder / "good.mp4"
    encode(good, count=12)
    truth = _truth(case, path, folder)
    if truth is not None and case.expected == "reads" and case.frames is not None and len(truth) != case.frames:
        raise WrongError(f"a plain decode gives {len(truth)} frames, expected {case.frames}")
    outcomes = [
        _item(case, path, good, mode=mode, rule=rule, epoch=epoch, truth=truth)
        for rule in RULES
        for mode in MODES
        for epoch in range(2 if mode == "train" else 1)
    ]
    failures = [reason for reason in outcomes if reason]
    if case.expected == "reads" and failures:
        raise WrongError(f"is not read: {failures[0]}")
    if case.expected == "skip" and len(failures) != len(outcomes):
        raise WrongError("is read")
    if case.expected == "reads":
        assert truth is not None
        _whole(case, path, truth)
    inspected = _inspected(path)
    if case.expected == "reads" and inspected:
        raise WrongError(f"the inspection refuses it: {inspected}")
    if not failures:
        return f"read: {len(truth)} frames" if case.expected == "reads" and truth is not None else "read"
    said = f"{failures[0]}"
    return f"skipped: {said}" if len(failures) == len(outcomes) else f"read in part; else skipped: {said}"


def _truth(case: Case, path: Path, folder: Path) -> Truth | None:
    if case.original is not None:
        (folder / "original").mkdir()
        return Truth(case.original(folder / "original"))
    return Truth(path.absolute()) if case.expected == "reads" else None


def _item(case: Case, path: Path, good: Path, *, mode: str, rule: str, epoch: int, truth: Truth | None) -> str:
    """Make an item; returns why the video was skipped, "" if it was read."""
    recorder = _Recorder()
    dataset = VideoDataset(
        [VideoRecord(str(good), 1), VideoRecord(str(path), 2)],
        mode=mode,
        sampling=SamplingSettings(num_frames=CLIP_FRAMES, sampling_rate=3, target_fps=25, rule=rule),
        spatial=SpatialSettings(jitter_scales=(32, 36), train_crop=32, test_crop=32),
        views=2,
        crops=3,
        seed=3,
        decode=recorder,
    )
    item = dataset[(epoch, 1) if mode == "train" else 1]
    where = f"{mode} {rule}"
    ids, labels = set(item.video_id.tolist()), set(item.label.tolist())
    if item.frames.shape[1:] != (3, CLIP_FRAMES, 32, 32):
        raise WrongError(f"{where}: frames have the shape {tuple(item.frames.shape)}")
    if item.bad:
        # Training draws another video, which may be this one again.
        if (ids, labels) not in ((set(), set()), ({0}, {1})) or (mode != "train" and ids):
            raise WrongError(f"{where}: reports {item.bad[0]!r}, but gives clips of {ids} with labels {labels}")
        if len(set(item.bad)) != 1 or (mode != "train" and len(item.bad) != 1):
            raise WrongError(f"{where}: reports {item.bad}")
        return _reason(item.bad[0], path)
    if (ids, labels) != ({1}, {2}) or len(item) != {"train": 1, "val": 1, "test": 6}[mode]:
        raise WrongError(f"{where}: {len(item)} clips of {ids} with labels {labels}")
    _compare(recorder, truth, numbered=case.numbered, where=where)
    return ""


def _reason(line: str, path: Path) -> str:
    shown = str(path).encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
    if not line.startswith(f"{shown}: "):
        raise WrongError(f"the line does not name the file: {line!r}")
    if not line.isprintable() or len(line) > len(shown) + 300:
        raise WrongError(f"not one short line: {line!r:.400}")
    return line.removeprefix(f"{shown}: ")


def _compare(recorder: _Recorder, truth: Truth | None, *, numbered: bool, where: str) -> None:
    info, numbers = recorder.info, list(recorder.numbers)
    if recorder.frames.shape != (len(numbers), info.height, info.width, 3):
        raise WrongError(f"{where}: {len(numbers)} frames have the shape {recorder.frames.shape}")
    if truth is None:
        return
    if max(numbers) >= len(truth) or info.num_frames > len(truth):
        raise WrongError(
            f"{where}: asks for frame {max(numbers)} of {info.num_frames}, a plain decode gives {len(truth)}"
        )
    for number, frame in zip(numbers, recorder.frames, strict=True):
        _compare_frame(frame, number, truth, info.width, info.height, numbered=numbered, where=where)


def _compare_frame(frame, number, truth, width, height, *, numbered, where) -> None:
    if not np.array_equal(frame, truth.picture(number, width, height)):
        seen = f", but shows the number {number_of(frame)}" if min(frame.shape[:2]) >= SIDE else ""
        raise WrongError(f"{where}: frame {number} is not that of a plain decode{seen}")
    if numbered and number_of(frame) != number:
        raise WrongError(f"{where}: frame {number} shows the number {number_of(frame)}")


def _whole(case: Case, path: Path, truth: Truth) -> None:
    """All frames by number, or a spread of them; and none behind the end."""
    step = max(1, len(truth) // _MOST_COMPARED)
    numbers = sorted({*range(0, len(truth), step), len(truth) - 1}, reverse=True)
    frames = read_frames(path, numbers)
    for number, frame in zip(numbers, frames, strict=True):
        _compare_frame(frame, number, truth, frame.shape[1], frame.shape[0], numbered=case.numbered, where="all")
    try:
        read_frames(path, [len(truth)])
    except DecodeError as error:
        _reason(str(error), path)
    else:
        raise WrongError(f"gives frame {len(truth)} of {len(truth)}")


def _inspected(path: Path) -> str:
    try:
        facts = inspect_video(path, mode="decode")
    except DecodeError as error:
        return _reason(str(error), path)
    if facts.frames < 1 or min(facts.width, facts.height) < 1 or not facts.fps > 0:
        raise WrongError(f"the inspection found {facts}")
    return ""
