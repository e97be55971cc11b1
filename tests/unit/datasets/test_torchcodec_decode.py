"""Everywhere with a stand-in for torchcodec; with torchcodec itself where it is installed."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from slowfast.datasets import decode

MODULE = "slowfast.datasets.torchcodec_decode"
WANTED = [0, 12, 12, 89, 41]


class StandIn:
    """Reads as torchcodec does; counts what it is asked for."""

    shift, rotation, error, asked, threads = 0, None, None, 0, None

    def __init__(self, source, *, dimension_order, num_ffmpeg_threads):
        assert dimension_order == "NHWC"
        StandIn.threads = num_ffmpeg_threads
        self._source = source
        self.metadata = SimpleNamespace(rotation=self.rotation)

    def get_frames_at(self, indices):
        if self.error:
            raise self.error
        StandIn.asked += 1
        with decode.opened(self._source, "NONE") as video:
            times = video.stated_seconds()
        indices = [index + self.shift for index in indices]
        return SimpleNamespace(
            data=torch.from_numpy(decode.read_frames(self._source, indices)),
            pts_seconds=torch.tensor([times[index] for index in indices], dtype=torch.float64),
        )


@pytest.fixture
def backend(monkeypatch):
    decoders = ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = StandIn
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr(StandIn, "asked", 0)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


def read(backend, path, **options):
    return backend.decode_frames(path, lambda info: WANTED, **options)


def test_reads_what_pyav_reads(backend, numbered_mp4):
    np.testing.assert_array_equal(read(backend, numbered_mp4), decode.read_frames(numbered_mp4, WANTED))
    assert (StandIn.asked, StandIn.threads) == (1, 1)
    read(backend, numbered_mp4, threads="AUTO")
    assert StandIn.threads == 0


@pytest.mark.parametrize("bframes", [0, 2])
def test_avi_is_read_by_pyav(bframes, backend, tmp_path, write_numbered, number_of):
    path = write_numbered(tmp_path / "a.avi", 90, codec="mpeg4", gop=12, bframes=bframes)
    assert [number_of(picture) for picture in read(backend, path)] == WANTED
    assert StandIn.asked == 0


@pytest.mark.parametrize(
    ("name", "value"), [("shift", -1), ("rotation", 90), ("error", RuntimeError("no")), ("error", IndexError("no"))]
)
def test_other_frames_are_never_taken(name, value, backend, tmp_path, write_numbered, number_of, monkeypatch):
    path = write_numbered(tmp_path / "a.mp4", 95, gop=12, bframes=2)
    monkeypatch.setattr(StandIn, name, value)
    wanted = [3, 40, 80]
    assert [number_of(picture) for picture in backend.decode_frames(path, lambda info: wanted)] == wanted


def test_time_stamps_and_errors_are_those_of_pyav(backend, numbered_mp4, tmp_path):
    seen = []
    backend.decode_frames(numbered_mp4, lambda info: seen.append(info) or [0], stamps=True)
    assert seen == [decode.probe(numbered_mp4, stamps=True)]
    with pytest.raises(decode.DecodeError, match="frame 90 is wanted, 90 can be decoded"):
        backend.decode_frames(numbered_mp4, lambda info: [90], repair=False)
    with pytest.raises(decode.DecodeError, match="no such file"):
        read(backend, tmp_path / "none.mp4")


@pytest.mark.parametrize("error", [ImportError("No module"), RuntimeError("libav is missing\nmore"), OSError("x.so")])
def test_without_torchcodec_it_is_one_line(error, monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name.startswith("torchcodec"):
                raise error

    for name in ("torchcodec", "torchcodec.decoders", MODULE):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ValueError, match=r"^DATA\.DECODING_BACKEND: 'torchcodec' cannot be used here") as caught:
        importlib.import_module(MODULE)
    assert "\n" not in str(caught.value)
    assert str(error).split("\n")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"gop": 12, "bframes": 3}),
        ("a.mkv", {"gop": 12, "bframes": 3}),
        ("a.webm", {"codec": "libvpx-vp9", "gop": 20, "options": {"cpu-used": "8"}}),
        ("a.avi", {"codec": "mpeg4", "gop": 12, "bframes": 2}),
        ("a.avi", {"gop": 12, "bframes": 3}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_torchcodec_itself(name, options, tmp_path, write_numbered, number_of):
    try:
        module = importlib.import_module(MODULE)
    except ValueError as error:
        pytest.skip(str(error))
    path = write_numbered(tmp_path / name, 90, **options)
    assert [number_of(picture) for picture in read(module, path)] == WANTED
