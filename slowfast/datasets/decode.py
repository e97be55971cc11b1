"""Video files to RGB frames: exactly the wanted ones, and only they are converted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from slowfast.config.shown import one_line
from slowfast.datasets.packets import PacketInfo, bytes_missing, is_coded, is_entry, is_hidden, plan_segments
from slowfast.utils.io import require_file

DECODERS = {
    "pyav": "slowfast.datasets.decode:decode_frames",
    "torchcodec": "slowfast.datasets.torchcodec_decode:decode_frames",
}

Threads = Literal["NONE", "AUTO"]

# From 17 on PyAV converts colours with a thread per core, started anew for every frame.
ONE_THREAD: dict[str, int] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}

# Up to this size a file is held compressed in memory; of a larger one the needed parts are read a second time.
_MAX_HELD_BYTES = 64 * 2**20

# Containers whose time stamps are stated per frame. AVI states none: with B-frames FFmpeg's guesses are out of order.
_STAMPED_FORMATS = frozenset({"mov", "mp4", "matroska", "webm"})

# Decoders that can be told, packet by packet, to leave out pictures that no other refers to. Others may keep to what
# they were told first: dav1d then gives the picture before under the number that was asked for.
_SKIPPING = frozenset({"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "vp8", "vp9"})

# A file may claim any size. The largest video in use has 7680 x 4320 pixels; one of 8192 x 8192 takes 200 MB in RGB.
MAX_PIXELS = 2**26

# Scaled to a short side of 256, a picture of this shape takes 12 MB; there is no limit to what thinner ones take.
MAX_ASPECT = 64

# For av.open: a playlist may name addresses in a network.
FILES_ONLY = {"protocol_whitelist": "file"}

# Formats that name other files or addresses instead of holding pictures.
_PLAYLISTS = frozenset({"hls", "applehttp", "concat", "dash", "sdp", "rtsp", "imf"})


class DecodeError(ValueError):
    """A video that cannot be read.

    Attributes:
        path: the file.
        reason: what is wrong with it, one line.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.reason}")


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video before a frame is decoded.

    Attributes:
        num_frames: frames that decoding gives.
        fps: average frame rate.
        duration: length in the unit of `pts`; None if the stream does not state one.
        stated_frames: frame count in the header, 0 if it has none; may differ from `num_frames`.
        pts: time stamps in presentation order; None if unknown or not asked for.
        width, height: picture size in pixels.
    """

    num_frames: int
    fps: float
    duration: int | None
    stated_frames: int
    pts: tuple[int, ...] | None
    width: int
    height: int


Plan = Callable[[VideoInfo], Sequence[int]]


def probe(path: str | Path, *, stamps: bool = False) -> VideoInfo:
    """Describe a video; reads the compressed packets, decodes nothing where the packets tell the truth.

    Args:
        path: the file.
        stamps: fill `VideoInfo.pts`, at the price of decoding an AVI file with B-frames.

    Raises:
        DecodeError: if the file cannot be read.
    """
    with opened(path, "NONE") as video:
        return video.describe(stamps=stamps)


def read_frames(path: str | Path, indices: Sequence[int], *, threads: Threads = "NONE") -> NDArray[np.uint8]:
    """Read the frames of the given numbers in presentation order.

    Args:
        path: the file.
        indices: frame numbers from 0, in any order, repeats allowed.
        threads: "NONE" in loader workers; "AUTO" pays only for a single large video.

    Returns: (len(indices), H, W, 3) RGB.

    Raises:
        DecodeError: if the file cannot be read or holds fewer frames.
    """
    return decode_frames(path, lambda info: indices, threads=threads, repair=False)


def decode_frames(
    path: str | Path, plan: Plan, *, stamps: bool = False, threads: Threads = "NONE", repair: bool = True
) -> NDArray[np.uint8]:
    """Open a video once, let `plan` choose frames by what the video is, and read those.

    Some containers count frames that the decoder never emits. Where a wanted frame turns out to be one of them, the
    emitted frames are counted and `plan` is asked again; it must be a pure function.

    Args:
        path: the file.
        plan: maps the video's description to frame numbers.
        stamps: the plan needs `VideoInfo.pts`.
        threads: "NONE" in loader workers; "AUTO" pays only for a single large video.
        repair: ask the plan again after a wrong frame count; otherwise that is an error.

    Returns: (len(plan), H, W, 3) RGB.

    Raises:
        DecodeError: if the file cannot be read or holds fewer frames than wanted.
    """
    with opened(path, threads) as video:
        info = video.describe(stamps=stamps)
        indices = plan(info)
        try:
            return video.read(indices, info)
        except _FrameCountError as error:
            if not repair or video.truncated or error.emitted == 0:
                raise DecodeError(path, video.missing_reason(max(indices), error.emitted)) from None
            info = replace(info, num_frames=error.emitted, pts=video.emitted_pts() if stamps else None)
        indices = plan(info)
        try:
            return video.read(indices, info, count=True)
        except _FrameCountError as error:
            raise DecodeError(path, video.missing_reason(max(indices), error.emitted)) from None


class _FrameCountError(Exception):
    """The decoder emitted fewer frames than wanted."""

    def __init__(self, emitted: int) -> None:
        super().__init__(emitted)
        self.emitted = emitted


@contextmanager
def opened(path: str | Path, threads: Threads) -> "Iterator[_Video]":
    """Open, pin the first video stream, scan the packets; every failure of FFmpeg becomes a DecodeError."""
    try:
        if require_file(path).st_size == 0:
            raise DecodeError(path, "the file is empty")
        # "file:", since FFmpeg takes a name with a colon for an address
        with av.open(f"file:{path}", metadata_errors="ignore", options=FILES_ONLY) as container:
            if set(container.format.name.split(",")) & _PLAYLISTS:
                raise DecodeError(path, "the file is a playlist, which names other files")
            yield _Video(str(path), container, threads)
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise DecodeError(path, f"{reason[0].lower()}{reason[1:]}") from error


def _video_stream(path: str, container: Any) -> Any:  # noqa: ANN401 - av has no useful stubs
    """The first video stream; the picture of a song's cover is none, though FFmpeg lists it among them."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise DecodeError(path, "the file holds no video stream")
    codec = streams[0].codec_context
    if codec is None:
        raise DecodeError(path, "no decoder knows the video stream")
    _require_size(path, codec.width, codec.height)
    return streams[0]


def _require_size(path: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DecodeError(path, f"pictures of {width} x {height} pixels; allowed are {MAX_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height) > 0:
        raise DecodeError(path, f"pictures of {width} x {height} pixels; allowed is a side ratio of {MAX_ASPECT}")


class _Video:
    """An open video with the table of its packets."""

    def __init__(self, path: str, container: Any, threads: Threads) -> None:  # noqa: ANN401 - av has no useful stubs
        self._path = path
        self._container = container
        self._stream = _video_stream(path, container)
        self.stream_index = int(self._stream.index)
        # pictures may grow on the way
        self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self._stream.thread_type = threads
        if threads == "NONE":
            self._stream.codec_context.thread_count = 1
        self._hold = Path(path).stat().st_size <= _MAX_HELD_BYTES
        self._held: list[Any] = []
        self.packets: list[PacketInfo] = []
        self._ended_early = False
        self._begun = False
        # one for all frames: each would set up the conversion anew
        self._reformatter = VideoReformatter()
        self._scan()
        shown = [packet.pts for packet in self.packets if packet.is_shown]
        stamps = [pts for pts in shown if pts is not None]
        formats = set(container.format.name.split(","))
        complete = bool(stamps) and len(set(stamps)) == len(shown)
        self.has_b_frames = bool(self._stream.codec_context.has_b_frames)
        self.num_shown = len(shown)
        self.truncated = self._is_truncated(formats)
        # Of the pictures at the end, those that are shown first may be missing: then a place is no number.
        self._end_is_sure = not (self.truncated and self.has_b_frames)
        in_order = complete and stamps == sorted(stamps) and not self.has_b_frames
        self._is_stamped = complete and bool(formats & _STAMPED_FORMATS)
        self._random_access = self._end_is_sure and (self._is_stamped or (in_order and self._one_frame_each()))
        self._pts = sorted(stamps) if self._random_access or in_order else None

    def _scan(self) -> None:
        self.codec: str = self._stream.codec_context.name
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0:
                    continue
                if packet.is_corrupt:
                    self._ended_early = True
                    break
                # DivX files carry one-byte fillers
                shown = packet.size > 1 and not packet.is_discard and not is_hidden(packet, self.codec)
                is_key = packet.is_keyframe and is_entry(packet, self.codec)
                self.packets.append(PacketInfo(packet.pts, packet.dts, is_key, shown, packet.size))
                if self._hold or not self._held:
                    self._held.append(packet)
        except (av.FFmpegError, OSError):
            self._ended_early = True
        if not any(packet.is_shown for packet in self.packets):
            raise DecodeError(self._path, "the file holds no frame")

    def _one_frame_each(self) -> bool:
        """Whether every packet of a stream without B-frames is known to give a frame, so that numbers are places."""
        codec = self._stream.codec_context
        pixels = codec.width * codec.height
        return self.codec == "mpeg4" and all(is_coded(packet.size, pixels) for packet in self.packets)

    def _is_truncated(self, formats: set[str]) -> bool:
        if self._ended_early:
            return True
        if "avi" in formats or "matroska" in formats:
            return bytes_missing(Path(self._path))
        return self._stream.frames > len(self.packets)

    def describe(self, *, stamps: bool) -> VideoInfo:
        stream = self._stream
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        if not rate:
            raise DecodeError(self._path, "the frame rate is unknown")
        num_frames = self.num_shown
        if self.truncated:
            # a position in a truncated video is a position in the video that it was
            num_frames = max(num_frames, self._stated_frames(float(rate)))
        known = tuple(self._pts) if self._pts is not None else None
        return VideoInfo(
            num_frames=num_frames,
            fps=float(rate),
            duration=stream.duration,
            stated_frames=stream.frames,
            pts=(known or self.emitted_pts()) if stamps else None,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
        )

    def _stated_frames(self, rate: float) -> int:
        if self._stream.frames:
            return int(self._stream.frames)
        if self._container.duration:
            return round(self._container.duration / av.time_base * rate)
        raise DecodeError(self._path, "the file is truncated")

    def stated_seconds(self) -> list[float] | None:
        """Times of the frames in presentation order; None if the container does not state them."""
        if not self._is_stamped or self._pts is None:
            return None
        return [float(pts * self._stream.time_base) for pts in self._pts]

    def emitted_pts(self) -> tuple[int, ...] | None:
        """Decode everything for the time stamps; None if a frame has none."""
        stamps = [frame.pts for frame in self.decode_from(0)]
        return None if any(pts is None for pts in stamps) else tuple(stamps)

    def missing_reason(self, wanted: int, emitted: int) -> str:
        state = "the file is truncated" if self.truncated else "the file holds too few frames"
        return f"{state}: frame {wanted} is wanted, {emitted} can be decoded"

    def read(self, indices: Sequence[int], info: VideoInfo, *, count: bool = False) -> NDArray[np.uint8]:
        if not indices:
            return np.empty((0, info.height, info.width, 3), np.uint8)
        if min(indices) < 0:
            raise ValueError(f"frame numbers start at 0, found {min(indices)}")
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(index, []).append(place)
        images = np.empty((len(indices), info.height, info.width, 3), np.uint8)
        wanted, filled = sorted(places), 0
        if self._random_access and not count and self._pts is not None and wanted[-1] < len(self._pts):
            for index, frame in self._frames_by_pts(wanted, self._pts):
                images[places[index]] = self._to_rgb(frame, info)
                filled += 1
        if filled < len(wanted):
            for index, frame in self._frames_by_count(wanted):
                images[places[index]] = self._to_rgb(frame, info)
        return images

    def _to_rgb(self, frame: Any, info: VideoInfo) -> NDArray[Any]:  # noqa: ANN401 - av has no useful stubs
        # a stream may change its picture size on the way
        picture = self._reformatter.reformat(frame, info.width, info.height, "rgb24", **ONE_THREAD)
        return picture.to_ndarray()

    def _frames_by_pts(self, wanted: list[int], pts: list[int]) -> Iterator[tuple[int, Any]]:
        """The wanted frames with their numbers, by seeking; ends early if one of them does not come."""
        packets = [(packet.pts if packet.pts is not None else -(2**62), packet.is_key) for packet in self.packets]
        numbers = {pts[number]: number for number in wanted}
        for segment in plan_segments(list(numbers), packets):
            missing = set(segment.pts)
            for frame in self.decode_from(segment.start, wanted=frozenset(missing)):
                if frame.pts in missing:
                    yield numbers[frame.pts], frame
                    missing.remove(frame.pts)
                    if not missing:
                        break
            if missing:
                return

    def _frames_by_count(self, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        emitted, found = 0, 0
        for frame in self.decode_from(0):
            if emitted == wanted[found]:
                yield emitted, frame
                found += 1
                if found == len(wanted):
                    return
            emitted += 1
        raise _FrameCountError(emitted)

    def decode_from(self, ordinal: int, *, wanted: frozenset[int] | None = None) -> Iterator[Any]:
        """Decode from a packet on; of frames not `wanted`, those that no other frame refers to are left out."""
        codec = self._stream.codec_context
        skipping = wanted if self.codec in _SKIPPING else None
        codec.flush_buffers()
        if ordinal and not self._begun and self.codec == "mpeg4":
            # the first packet names the encoder, by which FFmpeg chooses the inverse transform
            codec.decode(self._held[0])
        self._begun = True
        for packet in self._packets_from(ordinal):
            if skipping is not None:
                codec.skip_frame = "DEFAULT" if packet.pts in skipping else "NONREF"
            yield from codec.decode(packet)
        codec.skip_frame = "DEFAULT"
        if self._end_is_sure:
            yield from codec.decode(None)

    def _packets_from(self, ordinal: int) -> Iterator[Any]:
        if self._hold:
            yield from self._held[ordinal:]
            return
        start = self._seek(ordinal)
        for number, packet in enumerate(self._demux(), start=start):
            if number >= len(self.packets):
                return
            if number >= ordinal:
                yield packet

    def _seek(self, ordinal: int) -> int:
        """Go to packet `ordinal` or one before it; returns where it landed."""
        key = self.packets[ordinal]
        places = {(packet.pts, packet.dts): number for number, packet in enumerate(self.packets)}
        for stamp in (key.dts, key.pts):
            if ordinal == 0 or stamp is None:
                continue
            self._container.seek(stamp, stream=self._stream, backward=True)
            landed = next(((packet.pts, packet.dts) for packet in self._demux()), None)
            if landed in places and places[landed] <= ordinal:
                self._container.seek(stamp, stream=self._stream, backward=True)
                return places[landed]
        self._container.seek(min(0, self.packets[0].dts or 0), stream=self._stream, backward=True)
        return 0

    def _demux(self) -> Iterator[Any]:
        return (packet for packet in self._container.demux(self._stream) if packet.size > 0)
