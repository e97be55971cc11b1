import itertools
import os
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from slowfast.datasets import h264
from slowfast.datasets.decode import DecodeError, probe, read_frames
from slowfast.datasets.h264 import H264Settings, copy_size, copy_video, read_mark, require_encoder

SETTINGS = H264Settings(short_side=32)


def copy(source, folder, settings=SETTINGS, mark=None):
    target = folder / "copy" / "copy.mp4"
    frames = copy_video(source, target, settings, mark=mark or {})
    assert not list(target.parent.glob("*.part"))
    return target, frames


def packets_of(path):
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        return [packet for packet in container.demux(video=0) if packet.size]


def rate_of(path):
    with av.open(str(path), metadata_errors="ignore") as container:
        return container.streams.video[0].average_rate


def seconds_of(path):
    """Time of each decoded frame, from the first one on."""
    with av.open(str(path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def write(path, pictures, *, codec="libx264", size=None, pix_fmt="yuv420p", rate=25, rotation=None, aspect=None):
    height, width = size or pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def corners(height=48, width=64):
    """Red, green above; blue, white below."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2, 0] = 250
    picture[: height // 2, width // 2 :, 1] = 250
    picture[height // 2 :, : width // 2, 2] = 250
    picture[height // 2 :, width // 2 :] = 250
    return picture


def letters(picture):
    """Colours of the quarters, row by row."""
    height, width = picture.shape[:2]
    found = ""
    for y, x in itertools.product((height // 4, 3 * height // 4), (width // 4, 3 * width // 4)):
        found += {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w"}[tuple(picture[y, x] // 125 > 0)]
    return found


CASES = {
    "mp4-b-frames": ("a.mp4", {"gop": 250, "bframes": 3}),
    "mp4-ntsc": ("a.mp4", {"gop": 12, "bframes": 2, "rate": Fraction(30000, 1001)}),
    "avi-mpeg4-b": ("a.avi", {"codec": "mpeg4", "gop": 12, "bframes": 2}),
    "avi-h264-b": ("a.avi", {"gop": 12, "bframes": 3}),
    "mkv": ("a.mkv", {"gop": 12, "bframes": 2}),
    "webm-vp8-hidden": (
        "a.webm",
        {"codec": "libvpx", "gop": 40, "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}},
    ),
}
COUNT = 50


@pytest.mark.parametrize("case", CASES)
def test_every_frame_at_its_time(case, tmp_path, write_numbered, number_of):
    name, options = CASES[case]
    if options.get("codec", "mpeg4") not in av.codecs_available:
        pytest.skip(f"PyAV has no {options['codec']}")
    rate = options.get("rate", 25)
    source = write_numbered(tmp_path / name, COUNT, **{**options, "rate": 25} if isinstance(rate, int) else options)
    target, frames = copy(source, tmp_path, H264Settings(short_side=48))
    assert frames == COUNT
    assert probe(target).num_frames == COUNT
    assert [number_of(picture) for picture in read_frames(target, range(COUNT))] == list(range(COUNT))
    assert float(rate_of(target)) == pytest.approx(float(rate), rel=1e-3 if name.endswith(("mkv", "webm")) else 1e-12)
    packets = packets_of(target)
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == list(range(0, COUNT, 16))
    assert all(packet.pts == packet.dts for packet in packets)
    assert not any(packet.pts is None for packet in packets)
    with av.open(str(target)) as container:
        assert {str(frame.pict_type) for frame in container.decode(video=0)} <= {
            "PictureType.I",
            "PictureType.P",
            "1",
            "2",
        }
        assert not container.streams.video[0].codec_context.has_b_frames
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_uneven_times_are_kept(tmp_path, write_numbered):
    pts = [10 + number + 3 * (number // 5) for number in range(40)]
    source = write_numbered(tmp_path / "a.mp4", 40, gop=10, bframes=2, pts=pts)
    target, _ = copy(source, tmp_path)
    assert seconds_of(target) == seconds_of(source) == [Fraction(stamp - 10, 25) for stamp in pts]
    assert float(rate_of(target)) == pytest.approx(float(rate_of(source)), rel=1e-3)
    assert probe(target, stamps=True).pts[0] == 0


def test_one_frame(tmp_path, write_numbered):
    target, frames = copy(write_numbered(tmp_path / "a.mp4", 1), tmp_path)
    assert frames == probe(target).num_frames == 1
    assert rate_of(target) == 25


def test_the_index_comes_first(tmp_path, numbered_mp4):
    content = copy(numbered_mp4, tmp_path)[0].read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_another_distance_of_keyframes(tmp_path, numbered_mp4):
    target, _ = copy(numbered_mp4, tmp_path, H264Settings(short_side=32, gop=7))
    assert [n for n, packet in enumerate(packets_of(target)) if packet.is_keyframe] == list(range(0, 90, 7))


def test_quality_and_speed_settings(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3)).astype(np.uint8)
    source = write(tmp_path / "a.mkv", noise, codec="ffv1")
    sizes = [
        copy(source, tmp_path, H264Settings(crf=crf, preset=preset))[0].stat().st_size
        for crf, preset in ((10, "veryfast"), (40, "veryfast"), (40, "slow"))
    ]
    assert sizes[0] > sizes[1] != sizes[2]


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((340, 256), 256, (340, 256)),
        ((320, 240), 256, (320, 240)),
        ((321, 241), 256, (320, 240)),
        ((640, 360), 256, (456, 256)),
        ((360, 640), 256, (256, 456)),
        ((1920, 1080), 256, (456, 256)),
        ((257, 257), 256, (256, 256)),
        ((259, 1001), 256, (256, 990)),
        ((1, 1), 256, (2, 2)),
        ((4000, 3), 256, (4000, 2)),
    ],
)
def test_sizes(size, short_side, expected):
    assert copy_size(*size, short_side) == expected


@pytest.mark.parametrize(("size", "expected"), [((49, 67), (32, 44)), ((25, 27), (24, 26)), ((97, 64), (48, 32))])
def test_odd_and_small_pictures(tmp_path, size, expected):
    source = write(tmp_path / "a.mkv", [corners(*size)] * 3, codec="ffv1", pix_fmt="yuv444p")
    target, _ = copy(source, tmp_path)
    picture = read_frames(target, [0])[0]
    assert picture.shape[:2] == expected
    assert letters(picture) == "rgbw"


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV writes no rotation")
@pytest.mark.parametrize(("rotation", "expected"), [(0, "rgbw"), (90, "gwrb"), (180, "wbgr"), (-90, "brwg")])
def test_pictures_are_turned_upright(tmp_path, rotation, expected):
    source = write(tmp_path / "a.mp4", [corners()] * 3, rotation=rotation, aspect=Fraction(4, 3))
    target, frames = copy(source, tmp_path)
    assert frames == 3
    for picture in read_frames(target, [0, 2]):
        assert letters(picture) == expected
        assert picture.shape[:2] == ((42, 32) if rotation % 180 else (32, 42))
    with av.open(str(target)) as container:
        assert not next(container.decode(video=0)).rotation
        aspect = container.streams.video[0].sample_aspect_ratio
        assert aspect == (Fraction(3, 4) if rotation % 180 else Fraction(4, 3))


@pytest.mark.parametrize(
    "matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)], ids=["across", "down", "main", "other"]
)
def test_mirrors(matrix):
    a, b, c, d = (65536 * value for value in matrix)

    data = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32).tobytes()
    turn = h264._turn_of(SimpleNamespace(side_data={"DISPLAYMATRIX": data}))
    plane = np.arange(6).reshape(2, 3)
    expected = {(-1, 0): plane[:, ::-1], (1, 0): plane[::-1], (0, 1): plane.T, (0, -1): plane[::-1, ::-1].T}
    np.testing.assert_array_equal(turn._of_plane(plane), expected[matrix[:2]])


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le", "bgr0", "gray"])
def test_colours_are_kept(tmp_path, pix_fmt):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.repeat(np.broadcast_to(ramp, (64, 64))[..., None], 3, axis=2).copy()
    if pix_fmt != "gray":
        picture[:32] = picture[:32] * np.array([1, 0.5, 0.2])
    codec = "mjpeg" if pix_fmt == "yuvj420p" else "ffv1"
    source = write(tmp_path / "a.mkv", [picture] * 2, codec=codec, pix_fmt=pix_fmt)
    target, _ = copy(source, tmp_path, H264Settings(short_side=64, crf=5))
    before, after = (read_frames(path, [1])[0].astype(int) for path in (source, target))
    assert np.abs(before - after).mean() < 3
    with av.open(str(target)) as container:
        assert next(container.decode(video=0)).format.name == "yuv420p"


def test_the_size_may_change_on_the_way(tmp_path, numbered_mp4, write_numbered):
    # elementary streams can be joined end to end
    parts = []
    for size in ((48, 64), (96, 64)):
        write(tmp_path / "part.h264", [corners(*size)] * 5)
        parts.append((tmp_path / "part.h264").read_bytes())
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    target, frames = copy(tmp_path / "a.h264", tmp_path)
    assert frames == 10
    assert {letters(picture) for picture in read_frames(target, range(10))} == {"rgbw"}


class TestFailures:
    def check(self, source, folder, reason):
        (folder / "copy").mkdir()
        (folder / "copy" / "copy.mp4").write_text("old")
        with pytest.raises(DecodeError) as caught:
            copy(source, folder)
        assert reason in caught.value.reason
        assert [(path.name, path.read_text()) for path in (folder / "copy").iterdir()] == [("copy.mp4", "old")]

    def test_truncated(self, tmp_path, write_numbered):
        path = write_numbered(tmp_path / "a.avi", 60, codec="mpeg4", gop=12)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
        self.check(path, tmp_path, "the file is truncated: it holds ")

    def test_text(self, tmp_path):
        (tmp_path / "a.mp4").write_text("not a video\n" * 50)
        self.check(tmp_path / "a.mp4", tmp_path, "invalid data")

    def test_empty(self, tmp_path):
        (tmp_path / "a.mp4").touch()
        self.check(tmp_path / "a.mp4", tmp_path, "the file is empty")

    def test_missing(self, tmp_path):
        self.check(tmp_path / "a.mp4", tmp_path, "no such file")

    def test_undecodable_in_the_middle(self, tmp_path, write_numbered):
        path = write_numbered(tmp_path / "a.mp4", 40, gop=10)
        content = bytearray(path.read_bytes())
        packet = packets_of(path)[20]
        content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
        path.write_bytes(content)
        self.check(path, tmp_path, "invalid data")


@pytest.mark.skipif(os.name != "posix", reason="folders without write permission")
def test_a_folder_in_the_way_is_an_error_of_the_system(tmp_path, numbered_mp4):
    (tmp_path / "copy").write_text("a file")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        copy(numbered_mp4, tmp_path)


def test_mark(tmp_path, numbered_mp4):
    mark = {"source": {"size": 1, "mtime_ns": 2}, "settings": {"gop": 16}}
    assert read_mark(copy(numbered_mp4, tmp_path, mark=mark)[0]) == mark
    assert read_mark(numbered_mp4) is None
    (tmp_path / "text.mp4").write_text("no video")
    assert read_mark(tmp_path / "text.mp4") is None
    assert read_mark(tmp_path / "none.mp4") is None


def test_a_comment_nested_without_end_is_no_mark(tmp_path, numbered_mp4):
    path = tmp_path / "deep.mp4"
    with av.open(str(numbered_mp4)) as reader, av.open(str(path), "w") as writer:
        writer.metadata["comment"] = "[" * 100_000
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(reader.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    with av.open(str(path)) as container:
        assert container.metadata["comment"].startswith("[[[")
    assert read_mark(path) is None


def test_without_the_encoder(monkeypatch):
    require_encoder()
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(ValueError, match=r"^PyAV .* has no encoder libx264; install its wheel"):
        require_encoder()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 255}, "short_side: found 255, allowed: even numbers from 16 on"),
        ({"short_side": 8}, "short_side: found 8"),
        ({"gop": 0}, "gop: found 0, allowed: 1 and more"),
        ({"crf": 52}, "crf: found 52, allowed: 0 to 51"),
        ({"preset": "quick"}, "preset: found 'quick', allowed: ultrafast, "),
    ],
)
def test_refused_settings(options, message):
    with pytest.raises(ValueError, match=message):
        H264Settings(**options)
