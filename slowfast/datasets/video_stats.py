"""What videos are like, in numbers, and whether they are quick to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Eight frames out of ten seconds lie 37 frames apart, so longer groups of pictures are decoded whole.
LONG_GOP = 32
LARGE_SHORT_SIDE = 320
# Small pictures of older codecs (UCF101, HMDB51) are decoded whole as quickly as a few frames of a copy.
_COSTLY_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})
_WORTH_ADVICE = 0.1


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """A video in numbers.

    Attributes:
        frames: frames that it holds; after decoding, frames that came out.
        fps: average frame rate.
        width, height: picture size in pixels, as stored.
        codec: FFmpeg's name of the codec.
        size_bytes: size of the file.
        b_frames: whether frames are stored in another order than shown.
        longest_gop: frames from a keyframe to the next, at most.
        damaged: frames that the decoder had to patch up; 0 unless decoded.
    """

    frames: int
    fps: float
    width: int
    height: int
    codec: str
    size_bytes: int
    b_frames: bool
    longest_gop: int
    damaged: int = 0

    @property
    def is_slow(self) -> bool:
        """Whether a copy made by `transcode_videos` is decoded several times faster."""
        large = min(self.width, self.height) > LARGE_SHORT_SIDE
        return large or (self.longest_gop > LONG_GOP and self.codec in _COSTLY_CODECS)


@dataclass(frozen=True, kw_only=True)
class VideoStats:
    """Many videos in numbers.

    Attributes:
        videos: how many.
        frames: least, median and most frames of a video.
        hours: how long they last together.
        gigabytes: size of the files, in 10^9 bytes.
        fps: frame rate -> videos, the most frequent first.
        sizes: "width x height" -> videos, the most frequent first.
        codecs: codec -> videos, the most frequent first.
        b_frames: share of videos with B-frames.
        long_gop: share with more than `LONG_GOP` frames between two keyframes.
        slow: share that would be decoded several times faster from a copy.
    """

    videos: int
    frames: tuple[int, int, int]
    hours: float
    gigabytes: float
    fps: dict[str, int]
    sizes: dict[str, int]
    codecs: dict[str, int]
    b_frames: float
    long_gop: float
    slow: float

    @classmethod
    def of(cls, facts: Sequence[VideoFacts]) -> VideoStats | None:
        """Sum up videos; None if there is none."""
        if not facts:
            return None
        frames = sorted(video.frames for video in facts)
        return cls(
            videos=len(facts),
            frames=(frames[0], frames[len(frames) // 2], frames[-1]),
            hours=sum(video.frames / video.fps for video in facts) / 3600,
            gigabytes=sum(video.size_bytes for video in facts) / 1e9,
            fps=_ranked(f"{video.fps:.2f}".rstrip("0").rstrip(".") for video in facts),
            sizes=_ranked(f"{video.width}x{video.height}" for video in facts),
            codecs=_ranked(video.codec for video in facts),
            b_frames=sum(video.b_frames for video in facts) / len(facts),
            long_gop=sum(video.longest_gop > LONG_GOP for video in facts) / len(facts),
            slow=sum(video.is_slow for video in facts) / len(facts),
        )

    def advice(self) -> str | None:
        """What would make reading these videos faster; None if they are fine."""
        if self.slow < _WORTH_ADVICE:
            return None
        return (
            f"{self.slow:.0%} are slow to decode (short side above {LARGE_SHORT_SIDE} pixels, or more than {LONG_GOP} "
            "frames between keyframes): transcoding them once makes that several times faster"
        )

    def lines(self) -> list[str]:
        """The numbers for people, a line each."""
        low, median, high = self.frames
        lines = [
            f"{self.videos} videos, {self.hours:.1f} hours, {self.gigabytes:.2f} GB",
            f"frames: {low} to {high}, median {median}",
            f"frames per second: {_listed(self.fps)}",
            f"picture size: {_listed(self.sizes)}",
            f"codec: {_listed(self.codecs)}; {self.b_frames:.0%} with B-frames, "
            f"{self.long_gop:.0%} with more than {LONG_GOP} frames between keyframes",
        ]
        advice = self.advice()
        return [*lines, advice] if advice else lines


def _ranked(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _listed(counts: dict[str, int], most: int = 3) -> str:
    shown = [f"{value} ({count})" for value, count in list(counts.items())[:most]]
    rest = len(counts) - most
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
