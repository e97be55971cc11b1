"""Copy one video as H.264 in MP4: every frame of the source at its time, in small pictures that are quick to reach."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from slowfast.datasets.decode import FILES_ONLY, ONE_THREAD, DecodeError, VideoInfo, opened
from slowfast.datasets.inspection import require_whole
from slowfast.utils.io import atomic_writer, require_file

# PyAV's stubs call most attributes optional that are always there.
Container: TypeAlias = Any
Stream: TypeAlias = Any
Frame: TypeAlias = Any
Packet: TypeAlias = Any

ENCODER = "libx264"
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")

_FULL_RANGE, _LIMITED_RANGE = 2, 1
_RGB_MATRIX, _UNSPECIFIED_MATRIX = 0, 2
_MARK = "slowfast-stdd"


@dataclass(frozen=True, kw_only=True)
class H264Settings:
    """How videos are copied.

    Attributes:
        short_side: shorter side of the pictures in pixels, even; smaller pictures keep their size.
        gop: frames from one keyframe to the next.
        crf: quality of libx264, 0 (best) to 51.
        preset: speed of libx264, see `PRESETS`.
    """

    short_side: int = 256
    gop: int = 16
    crf: int = 18
    preset: str = "veryfast"

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.short_side % 2:
            raise ValueError(f"short_side: found {self.short_side}, allowed: even numbers from 16 on")
        if self.gop < 1:
            raise ValueError(f"gop: found {self.gop}, allowed: 1 and more")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf: found {self.crf}, allowed: 0 to 51")
        if self.preset not in PRESETS:
            raise ValueError(f"preset: found {self.preset!r}, allowed: {', '.join(PRESETS)}")

    def encoder_options(self) -> dict[str, str]:
        """Options of libx264: keyframes at even distances and nowhere else, every frame refers back only."""
        groups = f"keyint={self.gop}:min-keyint={self.gop}:scenecut=0:bframes=0"
        # without arithmetic coding and deblocking: a tenth more bytes, decoded in half the time
        return {"preset": self.preset, "tune": "fastdecode", "crf": str(self.crf), "x264-params": groups}


def require_encoder() -> None:
    """Refuse to start without the encoder.

    Raises:
        ValueError: if PyAV was built without it.
    """
    if ENCODER not in av.codecs_available:
        raise ValueError(
            f"PyAV {av.__version__} has no encoder {ENCODER}; install its wheel: pip install --only-binary av av"
        )


def copy_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Size of a copy: even, the aspect kept to a pixel, never larger.

    Args:
        width: of the source, in pixels.
        height: of the source, in pixels.
        short_side: wanted length of the shorter side, in pixels.

    Returns: width, height.
    """
    scale = min(1.0, short_side / min(width, height))
    rounding = 0.5 if scale < 1 else 0.0  # an odd picture that is small enough loses a line
    return max(2, 2 * int(width * scale / 2 + rounding)), max(2, 2 * int(height * scale / 2 + rounding))


def copy_video(source: Path, target: Path, settings: H264Settings, *, mark: Mapping[str, Any]) -> int:
    """Copy a video; the copy appears whole or not at all.

    Args:
        source: the video.
        target: the copy, an MP4 file.
        settings: how.
        mark: what `read_mark` is to find in the copy, of types that JSON has.

    Returns: the number of frames.

    Raises:
        DecodeError: if the source cannot be read to its end, or FFmpeg cannot write the copy.
        OSError: if the copy cannot be written.
    """
    with atomic_writer(target) as file, opened(source, "NONE") as video:
        info = video.describe(stamps=True)
        require_whole(source, info, held=video.num_shown)
        with (
            av.open(f"file:{source}", metadata_errors="ignore", options=FILES_ONLY) as reader,
            av.open(file.name, "w", format="mp4", options={"movflags": "+faststart"}) as writer,
        ):
            writer.metadata["comment"] = json.dumps({_MARK: dict(mark)}, sort_keys=True)
            return _copy_frames(source, reader.streams[video.stream_index], writer, info, settings)


def read_mark(path: Path) -> dict[str, Any] | None:
    """What `copy_video` noted in a copy; None if the file is none.

    Args:
        path: any file.
    """
    try:
        require_file(path)
        with av.open(f"file:{path}", metadata_errors="ignore", options=FILES_ONLY) as container:
            mark = json.loads(container.metadata.get("comment", ""))[_MARK]
    except (av.FFmpegError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return mark if isinstance(mark, dict) else None


def _copy_frames(source: Path, stream: Stream, writer: Container, info: VideoInfo, settings: H264Settings) -> int:
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    copy: _Copy | None = None
    for frame in stream.container.decode(stream):
        copy = copy or _Copy(source, stream, writer, frame, info, settings)
        copy.add(frame)
    if copy is None:
        raise DecodeError(source, "no frame can be decoded")
    copy.finish()
    return copy.frames


class _Copy:
    """The stream being written."""

    def __init__(
        self,
        path: Path,
        source: Stream,
        writer: Container,
        first: Frame,
        info: VideoInfo,
        settings: H264Settings,
    ) -> None:
        self.frames = 0
        self._path = path
        self._writer = writer
        self._rate = Fraction(source.average_rate or source.guessed_rate or source.base_rate).limit_denominator(100_000)
        # Without usable time stamps (AVI with B-frames has none) frames follow one another evenly.
        stamped = info.pts is not None and all(a < b for a, b in itertools.pairwise(info.pts))
        self._start = first.pts if stamped else None
        self._time_base = source.time_base if self._start is not None else 1 / self._rate
        self._turn = _turn_of(first)
        self._size = copy_size(source.codec_context.width, source.codec_context.height, settings.short_side)
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._stamp = -1
        self._held: Packet | None = None
        self._stream = self._add_stream(source, settings)

    def _add_stream(self, source_stream: Stream, settings: H264Settings) -> Stream:
        source, aspect = source_stream.codec_context, source_stream.sample_aspect_ratio
        stream = self._writer.add_stream(ENCODER, rate=self._rate, options=settings.encoder_options())
        context = stream.codec_context
        context.width, context.height = self._size[::-1] if self._turn.swaps else self._size
        context.pix_fmt = "yuv420p"
        context.time_base = self._time_base
        context.thread_type, context.thread_count = "NONE", 1
        context.color_range = _LIMITED_RANGE
        context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
        context.colorspace = _UNSPECIFIED_MATRIX if source.colorspace == _RGB_MATRIX else source.colorspace
        if aspect:
            context.sample_aspect_ratio = 1 / aspect if self._turn.swaps else aspect
        return stream

    def add(self, frame: Frame) -> None:
        """Write a frame at its time."""
        stamp = self.frames
        if self._start is not None:
            if frame.pts is None or frame.pts - self._start <= self._stamp:
                raise DecodeError(self._path, f"frame {self.frames} has a time stamp before the one of the last frame")
            stamp = frame.pts - self._start
        picture = self._picture(frame)
        picture.pts, picture.time_base = stamp, self._time_base
        picture.pict_type = 0  # undecided: the source's keyframes are not ours
        self._stamp = stamp
        self.frames += 1
        self._mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        self._mux(self._stream.encode(None))
        assert self._held is not None  # every frame gives a packet
        self._held.duration = self._last_duration()
        self._writer.mux(self._held)

    def _mux(self, packets: list[Packet]) -> None:
        """Write packets, each once its duration is known: until the next."""
        for packet in packets:
            if self._held is not None:
                self._held.duration = packet.pts - self._held.pts
                self._writer.mux(self._held)
            self._held = packet

    def _last_duration(self) -> int:
        """Such that the average rate is the source's; where the source contradicts itself, the mean of the others."""
        usual = self._stamp / (self.frames - 1) if self.frames > 1 else 1 / self._rate / self._time_base
        left = round(self.frames / self._rate / self._time_base) - self._stamp
        return left if 0 < left < 10 * usual else max(1, round(usual))

    def _picture(self, frame: Frame) -> Frame:
        full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
        ranges = {"src_color_range": _FULL_RANGE, "dst_color_range": _LIMITED_RANGE} if full else {}
        width, height = self._size
        picture = self._reformatter.reformat(
            frame, width, height, format="yuv420p", interpolation="BICUBIC", **ranges, **ONE_THREAD
        )
        return picture if self._turn.is_none else self._turn.of_picture(picture)


@dataclass(frozen=True)
class _Turn:
    """Quarter turns and mirrors: transpose, then reverse.

    Attributes:
        swaps: rows become columns.
        reverse_rows: the last row first.
        reverse_columns: the last column first.
    """

    swaps: bool = False
    reverse_rows: bool = False
    reverse_columns: bool = False

    @property
    def is_none(self) -> bool:
        return not (self.swaps or self.reverse_rows or self.reverse_columns)

    def of_picture(self, picture: Frame) -> Frame:
        """Turn a picture in yuv420p."""
        width, height = picture.width, picture.height
        flat = picture.to_ndarray().reshape(-1)
        luma = width * height
        planes = [flat[:luma].reshape(height, width), *flat[luma:].reshape(2, height // 2, width // 2)]
        turned = np.concatenate([self._of_plane(plane).reshape(-1) for plane in planes])
        return av.VideoFrame.from_ndarray(turned.reshape(-1, height if self.swaps else width), format="yuv420p")

    def _of_plane(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        plane = plane.T if self.swaps else plane
        return plane[:: -1 if self.reverse_rows else 1, :: -1 if self.reverse_columns else 1]


def _turn_of(frame: Frame) -> _Turn:
    """How a picture is to be turned for showing: the nearest quarter turn of its display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Turn()
    # a point (x, y) is shown at (a x + c y, b x + d y)
    a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _Turn(swaps=False, reverse_rows=d < 0, reverse_columns=a < 0)
    return _Turn(swaps=True, reverse_rows=b < 0, reverse_columns=c < 0)
