"""Videos that are damaged, odd, or none at all. Frame n shows the number n, so that a wrong frame is seen."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from corpus_case import Case

BLOCK, SIDE_BLOCKS = 8, 4  # 16 bits on 32 x 32 pixels
SIDE = BLOCK * SIDE_BLOCKS
FRAMES, GOP, RATE = 40, 10, 25


def numbered_picture(number: int) -> np.ndarray:
    """A picture whose blocks are the bits of a number, (32, 32, 3)."""
    bits = np.array([(number >> bit) & 1 for bit in range(SIDE_BLOCKS**2)], np.uint8).reshape(SIDE_BLOCKS, SIDE_BLOCKS)
    return np.repeat(np.kron(bits * 190 + 30, np.ones((BLOCK, BLOCK), np.uint8))[..., None], 3, axis=2)


def number_of(picture: np.ndarray) -> int:
    """Read the number off a picture."""
    block = min(picture.shape[:2]) // SIDE_BLOCKS
    side = block * SIDE_BLOCKS
    grey = picture[:side, :side].astype(np.float32).mean(axis=2)
    blocks = grey.reshape(SIDE_BLOCKS, block, SIDE_BLOCKS, block).mean(axis=(1, 3))
    return sum(int(value > 125) << bit for bit, value in enumerate(blocks.ravel()))


def encode(
    path: Path,
    *,
    codec: str = "libx264",
    container: str | None = None,
    count: int = FRAMES,
    pictures: Iterable[np.ndarray] | None = None,
    source: str = "rgb24",
    pixels: str = "yuv420p",
    gop: int = GOP,
    bframes: int = 0,
    rate: int = RATE,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
    audio: bool = False,
) -> Path:
    """Write pictures, the numbered ones unless others are given; equal arguments give equal bytes."""
    images = list(pictures if pictures is not None else map(numbered_picture, range(count)))
    presets = {
        "libx264": {"sc_threshold": "0", "preset": "ultrafast" if not bframes else "veryfast", "threads": "1"},
        "libx265": {"preset": "ultrafast", "x265-params": "pools=1:frame-threads=1:log-level=none"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "threads": "1", "row-mt": "0"},
        "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    }
    with av.open(str(path), "w", format=container, options={"fflags": "+bitexact", **(muxer or {})}) as file:
        sound = _add_sound(file) if audio else None
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        if time_base is not None:
            stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        stream.codec_context.bit_rate = 2_000_000
        stream.codec_context.thread_count = 1
        stream.options = {**presets.get(codec, {}), **(options or {})}
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format=source)
            frame.pts = pts[number] if pts else number
            frame.time_base = time_base or Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if sound is not None:
            _write_sound(file, sound)
    return path


def _add_sound(file: av.container.OutputContainer, codec: str = "aac"):
    stream = file.add_stream(codec, rate=48000)
    stream.layout = "mono"
    return stream


def _write_sound(file: av.container.OutputContainer, stream) -> None:
    for number in range(8):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 48000, number * 1024
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def _sound_only(folder: Path, *, name: str, codec: str = "aac", container: str | None = None) -> Path:
    with av.open(str(folder / name), "w", format=container, options={"fflags": "+bitexact"}) as file:
        _write_sound(file, _add_sound(file, codec))
    return folder / name


def _cover(folder: Path) -> Path:
    """A song with a picture of its cover, which FFmpeg calls a video stream."""
    with av.open(str(folder / "song.mp4"), "w", format="mp4", options={"fflags": "+bitexact"}) as file:
        sound = _add_sound(file)
        stream = file.add_stream("mjpeg", rate=RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(numbered_picture(1), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, RATE)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        _write_sound(file, sound)
    return folder / "song.mp4"


# ------------------------------------------------------------------------------------------------------ damaged videos

WHOLE: dict[str, Callable[[Path], Path]] = {
    "mp4-h264": lambda folder: encode(folder / "whole.mp4", bframes=2),
    "mp4-h264-faststart": lambda folder: encode(folder / "whole.mp4", bframes=2, muxer={"movflags": "+faststart"}),
    "mp4-fragmented": lambda folder: encode(
        folder / "whole.mp4", muxer={"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
    ),
    "avi-mpeg4": lambda folder: encode(folder / "whole.avi", codec="mpeg4"),
    "avi-h264-bframes": lambda folder: encode(folder / "whole.avi", bframes=2),
    "webm-vp8": lambda folder: encode(folder / "whole.webm", codec="libvpx"),
    "webm-vp9": lambda folder: encode(folder / "whole.webm", codec="libvpx-vp9"),
    "mkv-h264": lambda folder: encode(folder / "whole.mkv", bframes=2),
    "mkv-ffv1": lambda folder: encode(folder / "whole.mkv", codec="ffv1"),
    "ts-mpeg2": lambda folder: encode(folder / "whole.ts", codec="mpeg2video", container="mpegts"),
}
"""Kinds of file that are cut and damaged."""


def _cut(folder: Path, *, whole: Callable[[Path], Path], share: float) -> Path:
    path = whole(folder)
    return _written(path.with_stem("cut"), path.read_bytes()[: int(share * path.stat().st_size)])


def _flipped(folder: Path, *, whole: Callable[[Path], Path], seed: int, flips: int, head: int | None = None) -> Path:
    path = whole(folder)
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(flips):
        data[rng.randrange(head or len(data))] ^= 1 << rng.randrange(8)
    return _written(path.with_stem("flipped"), bytes(data))


def _blanked(folder: Path, *, whole: Callable[[Path], Path], start: float, share: float) -> Path:
    path = whole(folder)
    data = bytearray(path.read_bytes())
    first, length = int(start * len(data)), int(share * len(data))
    data[first : first + length] = bytes(len(data[first : first + length]))
    return _written(path.with_stem("blanked"), bytes(data))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


_SHARES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.995)
# Between a picture and those that are stored behind it and shown before it.
_REORDERED_SHARES = {"mp4-h264-faststart": (0.736, 0.836, 0.87)}


def _damaged_cases() -> list[Case]:
    cases = []
    for name, whole in WHOLE.items():
        cases += [
            Case(
                id=f"video/cut-{name}-{1000 * share:03.0f}",
                text=f"{name}, cut after {100 * share:g} % of its bytes",
                expected="any",
                write=partial(_cut, whole=whole, share=share),
                original=whole,
                numbered=True,
            )
            for share in (*_SHARES, *_REORDERED_SHARES.get(name, ()))
        ]
        cases += [
            Case(
                id=f"video/flipped-{name}-{flips}-{seed}",
                text=f"{name} with {flips} flipped bits, seed {seed}",
                expected="any",
                write=partial(_flipped, whole=whole, seed=seed, flips=flips),
            )
            for flips in (1, 8, 64)
            for seed in (1, 2)
        ]
        cases.append(
            Case(
                id=f"video/header-flipped-{name}",
                text=f"{name} with 24 flipped bits in its first 400 bytes",
                expected="any",
                write=partial(_flipped, whole=whole, seed=3, flips=24, head=400),
            )
        )
        cases.append(
            Case(
                id=f"video/blanked-{name}",
                text=f"{name}, a fifth of whose bytes, in the middle, are zero",
                expected="any",
                write=partial(_blanked, whole=whole, start=0.4, share=0.2),
            )
        )
    return cases


# --------------------------------------------------------------------------------------------------------- other files


def _file(name: str, data: bytes) -> Callable[[Path], Path]:
    return lambda folder: _written(folder / name, data)


def _at(folder: Path, data: bytearray, mark: bytes, offset: int, value: bytes, name: str) -> Path:
    """Overwrite bytes behind every occurrence of a mark."""
    start = data.find(mark)
    assert start >= 0, mark
    while start >= 0:
        data[start + offset : start + offset + len(value)] = value
        start = data.find(mark, start + 1)
    return _written(folder / name, bytes(data))


def _patched(
    folder: Path, *, whole: Callable[[Path], Path], name: str, patches: Sequence[tuple[bytes, int, bytes]]
) -> Path:
    path = whole(folder)
    for mark, offset, value in patches:
        path = _at(folder, bytearray(path.read_bytes()), mark, offset, value, name)
    return path


def _link(folder: Path, *, target: str, name: str = "link.mp4") -> Path:
    (folder / name).symlink_to(target)
    return folder / name


def _loop(folder: Path) -> Path:
    (folder / "a.mp4").symlink_to("b.mp4")
    (folder / "b.mp4").symlink_to("a.mp4")
    return folder / "a.mp4"


def _linked(folder: Path) -> Path:
    encode(folder / "target.mp4")
    return _link(folder, target="target.mp4")


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def _directory(folder: Path) -> Path:
    (folder / "folder.mp4").mkdir()
    return folder / "folder.mp4"


def _forbidden(folder: Path) -> Path:
    path = encode(folder / "forbidden.mp4")
    path.chmod(0)
    return path


def _below_a_file(folder: Path) -> Path:
    encode(folder / "file.mp4")
    return folder / "file.mp4" / "clip.mp4"


def _playlist(folder: Path, *, name: str, text: str) -> Path:
    encode(folder / "part.mp4")
    encode(folder / "part.ts", codec="mpeg2video", container="mpegts")
    return _written(folder / name, text.encode())


_NONE = bytes(range(256)) * 8


def _not_videos() -> list[Case]:
    files = {
        "empty": ("an empty file", b"", "clip.mp4"),
        "one-byte": ("a file of one byte", b"\0", "clip.mp4"),
        "zeros": ("a file of zeros", bytes(4096), "clip.mp4"),
        "noise": ("a file of random bytes", random.Random(1).randbytes(20_000), "clip.mp4"),
        "text": ("text with the name of a video", b"this is no video at all\n" * 40, "clip.mp4"),
        "error-page": ("a web page, as a failed download leaves it", b"<!DOCTYPE html><html>404</html>\n" * 9, "a.mp4"),
        "csv": ("an annotation file", b"a.mp4,1\nb.mp4,2\n" * 20, "clip.avi"),
        "zip": ("the beginning of a zip archive", b"PK\x03\x04" + _NONE, "clip.mp4"),
        "ftyp-only": ("an mp4 of nothing but its first box", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "clip.mp4"),
        "riff-only": ("an avi of nothing but its first chunk", b"RIFF\xff\xff\xff\x7fAVI ", "clip.avi"),
        "ebml-only": ("a mkv of nothing but its first bytes", b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f", "clip.mkv"),
        "endless-box": ("an mp4 whose second box has a length of 2^63", b"\0\0\0\x14ftypisom\0\0\2\0isom"
                        b"\0\0\0\x01moov\x7f" + b"\xff" * 7 + _NONE, "clip.mp4"),
        "box-in-itself": ("an mp4 of 20 000 boxes, each in the one before", b"\0\0\0\x14ftypisom\0\0\2\0isom"
                          + b"".join(struct.pack(">I4s", 8 * (20_000 - n), b"moov") for n in range(20_000)), "a.mp4"),
    }  # fmt: skip
    cases = [
        Case(id=f"video/{name}", text=text, expected="skip", write=_file(file, data))
        for name, (text, data, file) in files.items()
    ]
    places: dict[str, tuple[str, Callable[[Path], Path]]] = {
        "absent": ("a file that does not exist", lambda folder: folder / "absent.mp4"),
        "dangling-link": ("a link to a file that does not exist", partial(_link, target="absent.mp4")),
        "link-loop": ("two links to each other", _loop),
        "pipe": ("a named pipe, which nobody writes to", _fifo),
        "endless-device": ("a link to /dev/zero", partial(_link, target="/dev/zero")),
        "null-device": ("a link to /dev/null", partial(_link, target="/dev/null")),
        "directory": ("a folder with the name of a video", _directory),
        "below-a-file": ("a path that goes through a file", _below_a_file),
        "name-too-long": ("a name of 300 letters", lambda folder: folder / f"{'x' * 300}.mp4"),
        "playlist-http": (
            "a playlist that names an address in the network",
            partial(
                _playlist,
                name="list.mp4",
                text="#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n",
            ),
        ),
        "playlist-m3u8": (
            "a playlist that names another file",
            partial(
                _playlist,
                name="list.m3u8",
                text="#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\npart.ts\n#EXT-X-ENDLIST\n",
            ),
        ),
        "playlist-concat": (
            "a list of FFmpeg's that names another file",
            partial(_playlist, name="list.mp4", text="ffconcat version 1.0\nfile part.mp4\n"),
        ),
        "playlist-sdp": (
            "a description of a network stream",
            partial(
                _playlist,
                name="live.mp4",
                text="v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n"
                "a=rtpmap:96 H264/90000\n",
            ),
        ),
        "audio-mp4": ("an mp4 with sound alone", partial(_sound_only, name="sound.mp4")),
        "audio-mkv": ("a mkv with sound alone", partial(_sound_only, name="sound.mkv", codec="libopus")),
        "audio-wav": ("a wave file named avi", partial(
            _sound_only, name="sound.avi", codec="pcm_s16le", container="wav")),
        "audio-mp3": ("an mp3 named mp4", partial(_sound_only, name="song.mp4", codec="libmp3lame", container="mp3")),
        "audio-with-cover": ("a song with a picture of its cover", _cover),
    }  # fmt: skip
    cases += [
        Case(id=f"video/{name}", text=text, expected="skip", write=write) for name, (text, write) in places.items()
    ]
    root = not hasattr(os, "geteuid") or os.geteuid() == 0
    forbidden = "reads" if root else "skip"  # root may read everything
    cases.append(
        Case(id="video/forbidden", text="a file without read permission", expected=forbidden, write=_forbidden)
    )
    return cases


# ----------------------------------------------------------------------------------------------------------- odd videos


def _grey(width: int, height: int, count: int = 12) -> list[np.ndarray]:
    return [np.full((height, width, 3), 20 * number % 256, np.uint8) for number in range(count)]


def _large(numbers: Iterable[int]) -> list[np.ndarray]:
    return [np.kron(numbered_picture(number), np.ones((2, 2, 1), np.uint8)) for number in numbers]


def _named(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        encode(folder / "clip.mp4")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        return (folder / "clip.mp4").rename(folder / name)

    return write


def _renamed(folder: Path, *, whole: Callable[[Path], Path], name: str) -> Path:
    return whole(folder).rename(folder / name)


def _rotated(folder: Path) -> Path:
    """Turned by a quarter in the header; the pixels are as they were."""
    path = encode(folder / "whole.mp4")
    turn = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return _at(folder, bytearray(path.read_bytes()), b"tkhd", 44, turn, "rotated.mp4")


def _uneven(folder: Path, *, name: str) -> Path:
    rng = random.Random(4)
    stamps = [0]
    while len(stamps) < FRAMES:
        stamps.append(stamps[-1] + rng.choice((10, 20, 40, 40, 400)))
    return encode(folder / name, pts=stamps, time_base=Fraction(1, 1000), options={"bf": "2"})


def _live(folder: Path) -> Path:
    return encode(folder / "live.mkv", muxer={"live": "1"})


def _two_streams(folder: Path) -> Path:
    """The numbered video, and behind it a smaller one."""
    path = folder / "two.mkv"
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as file:
        streams = [file.add_stream("ffv1", rate=RATE) for _ in range(2)]
        for stream, side in zip(streams, (SIDE, 16), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            for stream, side in zip(streams, (SIDE, 16), strict=True):
                frame = av.VideoFrame.from_ndarray(numbered_picture(number)[:side, :side].copy(), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    return path


def _size_changes(folder: Path) -> Path:
    """Two bare streams in a row."""
    first = encode(folder / "a.h264", container="h264", count=20)
    second = encode(folder / "b.h264", container="h264", pictures=_large(range(20, FRAMES)))
    return _written(folder / "change.h264", first.read_bytes() + second.read_bytes())


def _joined(folder: Path) -> Path:
    """Two transport streams in a row, whose packets are numbered."""
    parts = [encode(folder / f"{name}.ts", container="mpegts", codec="mpeg2video", count=20) for name in "ab"]
    return _written(folder / "joined.ts", b"".join(part.read_bytes() for part in parts))


def _late_start(folder: Path) -> Path:
    return encode(folder / "late.mp4", pts=[number + 250 for number in range(FRAMES)])


def _no_first_keyframe(folder: Path) -> Path:
    """A transport stream whose beginning is missing: it starts inside a group of pictures."""
    data = WHOLE["ts-mpeg2"](folder).read_bytes()
    return _written(folder / "middle.ts", data[: 188 * 3] + data[188 * 40 :])


def _long_header(folder: Path) -> Path:
    """A mkv whose outermost chunk begins at the end of the bytes that are looked at for it."""
    data = WHOLE["mkv-h264"](folder).read_bytes()
    start = data.find(b"\x18\x53\x80\x67")
    padding = 61 - start
    return _written(
        folder / "padded.mkv",
        data[:start] + b"\xec" + bytes([0x80 | (padding - 2)]) + bytes(padding - 2) + data[start:],
    )


def _odd_videos() -> list[Case]:
    def case(name: str, text: str, write: Callable[[Path], Path], *, frames: int | None = FRAMES) -> Case:
        return Case(id=f"video/{name}", text=text, expected="reads", write=write, frames=frames, numbered=True)

    def plain(name: str, text: str, write: Callable[[Path], Path], *, frames: int | None) -> Case:
        return Case(id=f"video/{name}", text=text, expected="reads", write=write, frames=frames)

    cases = [
        case("one-frame", "a video of one frame", lambda f: encode(f / "one.mp4", count=1), frames=1),
        case("two-frames", "a video of two frames", lambda f: encode(f / "two.mp4", count=2), frames=2),
        case("one-frame-avi", "an avi of one frame", lambda f: encode(f / "one.avi", codec="mpeg4", count=1), frames=1),
        case(
            "ten-thousand-frames",
            "an mp4 of 10 000 frames",
            lambda f: encode(f / "long.mp4", count=10_000, gop=100),
            frames=10_000,
        ),
        case(
            "ten-thousand-frames-avi",
            "an avi of 10 000 frames",
            lambda f: encode(f / "long.avi", codec="mpeg4", count=10_000, gop=100),
            frames=10_000,
        ),
        case("one-group", "a keyframe at the beginning only", lambda f: encode(f / "gop.mp4", gop=1000, bframes=3)),
        case("all-keyframes", "nothing but keyframes", lambda f: encode(f / "intra.mp4", gop=1)),
        case("open-groups", "B-frames that refer across keyframes", lambda f: encode(
            f / "open.mp4", bframes=3, options={"x264-params": "open-gop=1"})),
        case("fragmented", "an mp4 in fragments, with a header that counts no frame", WHOLE["mp4-fragmented"]),
        case("rotated", "turned by 90 degrees in its header: the stored pixels count, as in PySlowFast", _rotated),
        case("uneven-mp4", "a variable frame rate, from 2.5 to 100 per second", partial(_uneven, name="uneven.mp4")),
        case("uneven-mkv", "a variable frame rate in a mkv", partial(_uneven, name="uneven.mkv")),
        case("no-duration", "a mkv that states no duration, as live recordings are", _live),
        case("no-header", "a bare stream without a container", lambda f: encode(f / "bare.h264", container="h264")),
        case("transport", "a transport stream", WHOLE["ts-mpeg2"]),
        case("late-start", "time stamps that begin at 10 s", _late_start),
        case("two-streams", "two video streams: the first counts", _two_streams),
        case("with-sound", "a video with sound in front of it", lambda f: encode(f / "sound.mp4", audio=True)),
        case("size-changes", "the picture grows in the middle: the first size counts", _size_changes),
        Case(id="video/name-relative", text="a relative name with a colon, like an address", expected="reads",
             write=_named("data:clip.mp4"), frames=FRAMES, numbered=True, relative=True),
        case("long-header", "a mkv with padding in front of its content", _long_header),
        case("linked", "a link to a video", _linked),
        case("mp4-named-avi", "an mp4 named avi", partial(_renamed, whole=WHOLE["mp4-h264"], name="a.avi")),
        case("avi-named-mp4", "an avi named mp4", partial(_renamed, whole=WHOLE["avi-mpeg4"], name="a.mp4")),
        case("webm-named-avi", "a webm named avi", partial(_renamed, whole=WHOLE["webm-vp9"], name="a.avi")),
        case("mkv-named-txt", "a mkv named txt", partial(_renamed, whole=WHOLE["mkv-h264"], name="a.txt")),
        case("no-suffix", "an mp4 without a suffix", partial(_renamed, whole=WHOLE["mp4-h264"], name="a")),
        case("upper-case-suffix", "a suffix in capitals", partial(_renamed, whole=WHOLE["mp4-h264"], name="A.MP4")),
        case("name-unicode", "a name in several scripts", _named("Tänzerin 踊り \N{DANCER} e\u0301.mp4")),
        case("name-spaces", "a name with spaces around and inside", _named(" a  b .mp4")),
        case("name-quotes", "a name that a shell would not like", _named("it's \"x\"; $(y) & #z%20?*[1].mp4")),
        case("name-percent", "a name that looks like a number pattern", _named("clip%03d.mp4")),
        case("name-colon", "a folder and a name with colons, like an address", _named("http:/a:b.mp4")),
        case("name-comma", "a name with the usual separator", _named("a,b,c.mp4")),
        case("name-newline", "a name of two lines", _named("a\nb.mp4")),
        case("name-not-utf8", "a name that is not UTF-8", _named(os.fsdecode(b"caf\xe9.mp4"))),
        case("name-dash", "a name like an option", _named("-i.mp4")),
        case("lossless", "ffv1 without loss", WHOLE["mkv-ffv1"]),
    ]  # fmt: skip
    codecs = {
        "hevc": {"codec": "libx265", "container": "mp4"},
        "av1": {"codec": "libsvtav1", "container": "mp4", "pictures": _large(range(FRAMES))},
        "mjpeg-avi": {"codec": "mjpeg", "container": "avi", "pixels": "yuvj420p"},
        "mpeg1": {"codec": "mpeg1video", "container": "mpeg"},
        "flv": {"codec": "flv", "container": "flv"},
        "wmv": {"codec": "wmv2", "container": "asf"},
        "msmpeg4": {"codec": "msmpeg4", "container": "avi"},
        "gif": {"codec": "gif", "container": "gif", "pixels": "rgb8"},
        "huffyuv": {"codec": "huffyuv", "container": "avi", "pixels": "yuv422p"},
        "raw": {"codec": "rawvideo", "container": "avi", "pixels": "bgr24"},
        "quicktime": {"codec": "qtrle", "container": "mov", "pixels": "rgb24"},
        "ten-bit-h264": {"codec": "libx264", "container": "mp4", "pixels": "yuv420p10le"},
        "ten-bit-hevc": {"codec": "libx265", "container": "mp4", "pixels": "yuv420p10le"},
        "ten-bit-ffv1": {"codec": "ffv1", "container": "mkv", "pixels": "yuv420p10le"},
        "ten-bit-prores": {"codec": "prores_ks", "container": "mov", "pixels": "yuv422p10le"},
        "four-four-four": {"codec": "libx264", "container": "mp4", "pixels": "yuv444p"},
        "grey": {"codec": "libx264", "container": "mp4", "pixels": "gray"},
        "full-range": {"codec": "libx264", "container": "mp4", "pixels": "yuvj420p"},
        "alpha-prores": {"codec": "prores_ks", "container": "mov", "pixels": "yuva444p10le"},
        "alpha-qtrle": {"codec": "qtrle", "container": "mov", "pixels": "argb"},
        "alpha-png": {"codec": "png", "container": "mov", "pixels": "rgba"},
        "alpha-vp9": {"codec": "libvpx-vp9", "container": "webm", "pixels": "yuva420p"},
    }
    for name, options in codecs.items():
        suffix = options["container"]
        options["container"] = {"mkv": "matroska"}.get(suffix, suffix)
        numbered = name != "msmpeg4"  # whose encoder drops some
        cases.append(
            Case(
                id=f"video/codec-{name}",
                text=f"{options['codec']} {options.get('pixels', 'yuv420p')} in {options['container']}",
                expected="reads",
                write=lambda folder, options=options, suffix=suffix: encode(folder / f"clip.{suffix}", **options),
                frames=FRAMES,
                numbered=numbered,
            )
        )
    sizes = {(1, 1): "png", (2, 2): "libx264", (3, 5): "ffv1", (33, 17): "ffv1", (63, 47): "png", (1, 16): "png",
             (1000, 40): "libx264", (40, 1000): "libx264"}  # fmt: skip
    for (width, height), codec in sizes.items():
        pixels = {"png": "rgb24", "ffv1": "yuv444p", "libx264": "yuv420p"}[codec]
        cases.append(
            plain(
                f"size-{width}x{height}",
                f"pictures of {width} x {height} pixels",
                lambda folder, size=(width, height), codec=codec, pixels=pixels: encode(
                    folder / "small.avi", codec=codec, pixels=pixels, pictures=_grey(*size)
                ),
                frames=12,
            )
        )
    return cases


# ----------------------------------------------------------------------------------------------------------- tall tales


def _pictures_in_avi(folder: Path) -> Path:
    return encode(folder / "whole.avi", codec="png", pixels="rgb24", count=3)


def _claims(width: int, height: int) -> Callable[[Path], Path]:
    """Pictures that say that they are larger than they are, in an avi that says nothing of them."""
    return partial(
        _patched,
        whole=_pictures_in_avi,
        name="claims.avi",
        patches=[
            (b"IHDR", 4, struct.pack(">II", width, height)),
            (b"strf", 12, struct.pack("<II", width, height)),
            (b"avih", 40, struct.pack("<II", width, height)),
        ],
    )


def _vp8_claims(folder: Path, *, side: int) -> Path:
    """A keyframe of VP8 states its size in 14 bits each."""
    size = struct.pack("<HH", side, side)
    whole = partial(_written_webm, name="whole.webm")
    return _patched(folder, whole=whole, name="claims.webm", patches=[(b"\x9d\x01\x2a", 3, size)])


def _written_webm(folder: Path, *, name: str) -> Path:
    return encode(folder / name, codec="libvpx", count=12)


def _narrow(folder: Path) -> Path:
    return encode(folder / "narrow.avi", codec="png", pixels="rgb24", pictures=_grey(2, 6000, 3))


def _tall_tales() -> list[Case]:
    mp4 = WHOLE["mp4-h264"]
    huge = struct.pack(">I", 2**31 - 1)
    most = struct.pack(">I", 2**32 - 1)

    def claim(name: str, text: str, write: Callable[[Path], Path], expected: str = "any") -> Case:
        return Case(id=f"video/claims-{name}", text=text, expected=expected, write=write)  # type: ignore[arg-type]

    def patched(name: str, *patches: tuple[bytes, int, bytes], whole: Callable[[Path], Path] = mp4, file="a.mp4"):
        return partial(_patched, whole=whole, name=f"{name}-{file}", patches=patches)

    avi = WHOLE["avi-mpeg4"]
    return [
        claim("30000x30000", "pictures that say they have 30 000 x 30 000 pixels", _claims(30_000, 30_000), "skip"),
        claim("15000x15000", "pictures that say they have 15 000 x 15 000 pixels", _claims(15_000, 15_000), "skip"),
        claim("8000x8000", "pictures that say they have 8 000 x 8 000 pixels", _claims(8_000, 8_000), "skip"),
        claim("0x0", "pictures that say they have no pixel", _claims(0, 0), "skip"),
        claim("negative", "pictures of a negative size", _claims(2**31, 2**31), "skip"),
        claim("vp8-15000", "VP8 that says it has 15 000 x 15 000 pixels", partial(_vp8_claims, side=15_000), "skip"),
        claim("narrow", "pictures of 2 x 6000 pixels, which no short side fits", _narrow, "skip"),
        claim("mp4-frames", "an mp4 that counts 2^31 - 1 frames", patched("stsz", (b"stsz", 12, huge))),
        claim("mp4-durations", "an mp4 with 2^32 - 1 frames of one length", patched("stts", (b"stts", 12, most))),
        claim("mp4-table", "an mp4 with a table of 2^32 - 1 rows", patched("stts2", (b"stts", 8, most))),
        claim("mp4-sync", "an mp4 with 2^32 - 1 keyframes", patched("stss", (b"stss", 8, most))),
        claim("mp4-offsets", "an mp4 whose frames lie behind its end", patched("stco", (b"stco", 12, most))),
        claim("mp4-timescale-0", "an mp4 with a time scale of 0", patched("mdhd", (b"mdhd", 16, bytes(4)))),
        claim("mp4-timescale-max", "an mp4 with a time scale of 2^32 - 1", patched("mdhd2", (b"mdhd", 16, most))),
        claim("mp4-duration", "an mp4 that lasts 2^32 - 1 ticks", patched("mdhd3", (b"mdhd", 20, most))),
        claim("mp4-codec", "an mp4 with an unknown codec", patched("avc1", (b"avc1", 0, b"zzzz")), "skip"),
        claim("avi-frames", "an avi that counts 2^32 - 1 frames",
              patched("avih", (b"avih", 24, most), (b"strh", 40, most), whole=avi, file="a.avi")),
        claim("avi-rate-0", "an avi without a frame rate",
              patched("rate0", (b"strh", 28, bytes(8)), (b"avih", 8, bytes(4)), whole=avi, file="a.avi")),
        claim("avi-rate-max", "an avi of 4 294 967 295 frames per second",
              patched("rate1", (b"strh", 28, struct.pack("<II", 1, 2**32 - 1)), whole=avi, file="a.avi")),
        claim("avi-codec", "an avi with an unknown codec",
              patched("fourcc", (b"strh", 12, b"ZZZZ"), (b"strf", 24, b"ZZZZ"), whole=avi, file="a.avi"), "skip"),
        claim("mkv-duration", "a mkv that lasts 1e300 ms",
              patched("dur", (b"\x44\x89\x88", 3, struct.pack(">d", 1e300)), whole=WHOLE["mkv-h264"], file="a.mkv")),
        claim("mkv-duration-nan", "a mkv whose duration is not a number",
              patched("nan", (b"\x44\x89\x88", 3, struct.pack(">d", float("nan"))), whole=WHOLE["mkv-h264"],
                      file="a.mkv")),
        Case(id="video/no-first-keyframe", text="a transport stream that starts between two keyframes", expected="any",
             write=_no_first_keyframe),
        Case(id="video/joined-transport", text="two transport streams in a row", expected="any", write=_joined),
    ]  # fmt: skip


VIDEO_CASES: tuple[Case, ...] = (*_not_videos(), *_odd_videos(), *_tall_tales(), *_damaged_cases())
