import os
import pickle

import av
import numpy as np
import pytest

from slowfast.datasets import decode
from slowfast.datasets.decode import DecodeError, decode_frames, probe, read_frames

CASES = {
    "mp4-long-gop": ("a.mp4", {"gop": 250, "bframes": 3}),
    "mp4-short-gop": ("a.mp4", {"gop": 8, "bframes": 2}),
    "mp4-open-gop": ("a.mp4", {"gop": 10, "bframes": 3, "options": {"x264-params": "open-gop=1:b-pyramid=normal"}}),
    "mp4-intra": ("a.mp4", {"gop": 1}),
    "mp4-mpeg4-b": ("a.mp4", {"codec": "mpeg4", "gop": 12, "bframes": 2}),
    "mp4-ntsc": ("a.mp4", {"gop": 12, "bframes": 2, "rate": 30}),
    "mkv-h264": ("a.mkv", {"gop": 12, "bframes": 3}),
    "avi-mpeg4": ("a.avi", {"codec": "mpeg4", "gop": 12}),
    "avi-mpeg4-b": ("a.avi", {"codec": "mpeg4", "gop": 12, "bframes": 2}),
    "avi-h264-b": ("a.avi", {"gop": 12, "bframes": 3}),
    "webm-vp8": ("a.webm", {"codec": "libvpx", "gop": 20, "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "webm-vp8-hidden": (
        "a.webm",
        {"codec": "libvpx", "gop": 40, "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}},
    ),
    "webm-vp9": (
        "a.webm",
        {"codec": "libvpx-vp9", "gop": 20, "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}},
    ),
}
COUNT = 90
WANTED = ([0, 12, 25, 38, 50, 63, 76, 89], [89], [0], [7, 8, 9, 10, 11, 12, 13], [88, 3, 3, 41], list(range(COUNT)))


def decode_everything(path):
    with av.open(str(path), metadata_errors="ignore") as container:
        return np.stack([frame.to_rgb().to_ndarray() for frame in container.decode(video=0)])


@pytest.fixture(scope="module", params=CASES, ids=str)
def video(request, tmp_path_factory, write_numbered):
    name, options = CASES[request.param]
    return write_numbered(tmp_path_factory.mktemp("videos") / name, COUNT, **options)


def test_probe_counts_frames(video):
    info = probe(video)
    assert info.num_frames == COUNT
    assert info.fps == pytest.approx(30 if "ntsc" in str(video) else info.fps)
    assert (info.width, info.height) == (64, 48)
    assert info.pts is None


def test_probe_time_stamps(video):
    stamps = probe(video, stamps=True).pts
    with av.open(str(video), metadata_errors="ignore") as container:
        assert stamps == tuple(frame.pts for frame in container.decode(video=0))


@pytest.mark.parametrize("held", [True, False], ids=["held", "reread"])
def test_frames_are_exactly_the_wanted_ones(video, held, monkeypatch, number_of):
    if not held:
        monkeypatch.setattr(decode, "_MAX_HELD_BYTES", 0)
    everything = decode_everything(video)
    assert [number_of(picture) for picture in everything] == list(range(COUNT))
    for wanted in WANTED:
        frames = read_frames(video, wanted)
        assert [number_of(picture) for picture in frames] == wanted
        np.testing.assert_array_equal(frames, everything[wanted])


def test_threads_change_nothing(video):
    np.testing.assert_array_equal(read_frames(video, WANTED[0], threads="AUTO"), read_frames(video, WANTED[0]))


def test_uneven_time_stamps(tmp_path, write_numbered, number_of):
    pts = [number + 3 * (number // 5) for number in range(60)]
    path = write_numbered(tmp_path / "uneven.mp4", 60, gop=10, bframes=2, pts=pts)
    assert [number_of(picture) for picture in read_frames(path, [59, 0, 31, 30])] == [59, 0, 31, 30]


def test_no_wanted_frame(numbered_mp4):
    assert read_frames(numbered_mp4, []).shape == (0, 48, 64, 3)


def test_only_wanted_frames_are_converted(numbered_mp4, monkeypatch):
    converted = []
    original = decode._Video._to_rgb
    monkeypatch.setattr(
        decode._Video, "_to_rgb", lambda self, frame, info: converted.append(1) or original(self, frame, info)
    )
    read_frames(numbered_mp4, [3, 40, 40, 80])
    assert len(converted) == 3


@pytest.mark.parametrize(("wanted", "start"), [([80], 72), ([0], 0), ([71], 60)])
def test_decoding_starts_at_the_latest_keyframe(numbered_mp4, wanted, start, monkeypatch):
    starts = []
    original = decode._Video.decode_from
    monkeypatch.setattr(
        decode._Video,
        "decode_from",
        lambda self, ordinal, **options: starts.append(ordinal) or original(self, ordinal, **options),
    )
    read_frames(numbered_mp4, wanted)
    assert starts == [start]


def test_avi_without_b_frames_is_sought_by_keyframe(tmp_path, write_numbered, number_of, monkeypatch):
    path = write_numbered(tmp_path / "a.avi", 90, codec="mpeg4", gop=12)
    fed = count_packets(monkeypatch)
    assert [number_of(picture) for picture in read_frames(path, [14, 80])] == [14, 80]
    assert len(fed) == 3 + 9


def test_avi_with_packets_of_no_frame_is_counted(tmp_path, write_numbered, monkeypatch):
    path = write_numbered(tmp_path / "a.avi", 90, codec="mpeg4", gop=12)
    expected = read_frames(path, [14, 80])
    monkeypatch.setattr(decode, "is_coded", lambda size, pixels: False)
    fed = count_packets(monkeypatch)
    np.testing.assert_array_equal(read_frames(path, [14, 80]), expected)
    assert len(fed) == 81


def count_packets(monkeypatch):
    fed = []
    original = decode._Video._packets_from
    monkeypatch.setattr(
        decode._Video,
        "_packets_from",
        lambda self, ordinal: (fed.append(1) or packet for packet in original(self, ordinal)),
    )
    return fed


class TestWrongCounts:
    def test_plan_is_asked_again(self, numbered_mp4, monkeypatch, number_of):
        monkeypatch.setattr(decode._Video, "describe", self.overstated(decode._Video.describe))
        asked = []

        def last(info):
            asked.append(info.num_frames)
            return [info.num_frames - 1]

        assert number_of(decode_frames(numbered_mp4, last)[0]) == 89
        assert asked == [95, 90]

    def test_without_repair_it_is_an_error(self, numbered_mp4):
        with pytest.raises(DecodeError, match="holds too few frames: frame 90 is wanted, 90 can be decoded"):
            read_frames(numbered_mp4, [90])

    @staticmethod
    def overstated(describe):
        def wrapper(self, *, stamps):
            info = describe(self, stamps=stamps)
            return decode.replace(info, num_frames=info.num_frames + 5)

        return wrapper


class TestBadFiles:
    def check(self, path, reason):
        with pytest.raises(DecodeError) as caught:
            read_frames(path, [0, 40, 89])
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert reason in str(caught.value)

    def test_missing(self, tmp_path):
        self.check(tmp_path / "none.mp4", "no such file or directory")

    def test_folder(self, tmp_path):
        self.check(tmp_path, "directory")

    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        self.check(tmp_path / "pipe.mp4", "is a pipe, a socket or a device, not a file")

    def test_playlist(self, tmp_path, write_numbered):
        write_numbered(tmp_path / "part.mp4", 90)
        path = tmp_path / "list.mp4"
        path.write_text("ffconcat version 1.0\nfile part.mp4\n")
        self.check(path, "the file is a playlist, which names other files")

    @pytest.mark.parametrize(("limit", "value", "reason"), [
        ("MAX_PIXELS", 64 * 48 - 1, "pictures of 64 x 48 pixels; allowed are 3071 pixels"),
        ("MAX_ASPECT", 1.3, "pictures of 64 x 48 pixels; allowed is a side ratio of 1.3"),
    ])  # fmt: skip
    def test_absurd_sizes(self, numbered_mp4, monkeypatch, limit, value, reason):
        monkeypatch.setattr(decode, limit, value)
        self.check(numbered_mp4, reason)

    def test_name_with_a_colon(self, tmp_path, write_numbered, number_of, monkeypatch):
        write_numbered(tmp_path / "http:a.mp4", 10)
        monkeypatch.chdir(tmp_path)
        assert number_of(read_frames("http:a.mp4", [7])[0]) == 7

    def test_pictures_before_the_cut_may_be_missing(self, tmp_path, write_numbered, number_of):
        """A P-picture is stored before the B-pictures that are shown before it."""
        path = tmp_path / "a.mkv"
        whole = write_numbered(path, 60, gop=30, bframes=3).read_bytes()
        for share in range(30, 95, 3):
            path.write_bytes(whole[: len(whole) * share // 100])
            for number in range(60):
                try:
                    (picture,) = read_frames(path, [number])
                except DecodeError:
                    continue
                assert number_of(picture) == number

    def test_empty(self, tmp_path):
        path = tmp_path / "empty.mp4"
        path.touch()
        self.check(path, "the file is empty")

    def test_text(self, tmp_path):
        path = tmp_path / "text.mp4"
        path.write_text("not a video\n" * 50)
        self.check(path, "invalid data")

    def test_no_video_stream(self, tmp_path):
        path = tmp_path / "sound.wav"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        self.check(path, "no video stream")

    @pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
    def test_truncated(self, name, tmp_path, write_numbered, number_of):
        options = {"movflags": "faststart"} if name.endswith("mp4") else {}
        path = write_numbered(tmp_path / name, 90, gop=12, options=options)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 6 // 10])
        if name == "a.mp4" and b"moov" not in whole[:200]:
            self.check(path, "invalid data")
            return
        self.check(path, "truncated")
        assert number_of(read_frames(path, [5])[0]) == 5
        assert probe(path).num_frames == 90

    @pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
    def test_flipped_bits_never_raise_anything_else(self, name, tmp_path, write_numbered):
        path = write_numbered(tmp_path / name, 60, gop=12, bframes=2)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for seed in range(12):
            rng = np.random.default_rng(seed)
            broken = whole.copy()
            broken[rng.integers(0, len(broken), 200)] ^= rng.integers(1, 255, 200).astype(np.uint8)
            path.write_bytes(broken.tobytes())
            try:
                frames = decode_frames(path, lambda info: [0, info.num_frames // 2, info.num_frames - 1])
            except DecodeError:
                continue
            assert frames.shape[0] == 3

    def test_error_travels_between_processes(self):
        error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "the file is empty")))
        assert str(error) == "a.mp4: the file is empty"
        assert (error.path, error.reason) == ("a.mp4", "the file is empty")


def test_other_errors_of_the_plan_pass_through(numbered_mp4):
    def plan(info):
        raise KeyError("programming error")

    with pytest.raises(KeyError):
        decode_frames(numbered_mp4, plan)
