import logging
import os
from collections import Counter

import numpy as np
import pytest
import torch

from slowfast.datasets import decode, frame_cache
from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.decode import DecodeError, decode_frames
from slowfast.datasets.frame_cache import SUFFIX, CachedDecoder, decoder_version
from slowfast.datasets.transforms import SpatialSettings
from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset
from slowfast.utils.bounded_store import BoundedStore

SPATIAL = SpatialSettings(jitter_scales=(40, 44), train_crop=32, test_crop=32)


@pytest.fixture
def calls(monkeypatch):
    """Counts what is decoded; `decode_frames` of this module is what the cache wraps."""
    count = Counter()
    original = decode.opened

    def counting(path, threads):
        count[str(path)] += 1
        return original(path, threads)

    monkeypatch.setattr(decode, "opened", counting)
    return count


@pytest.fixture
def make(tmp_path):
    def cached(purpose="three views", *, whole=False, max_bytes=10**8):
        store = BoundedStore(tmp_path / "cache", max_bytes, suffix=SUFFIX, key="DATA.CACHE_GB")
        return CachedDecoder(decode_frames, store, purpose=purpose, whole=whole)

    return cached


def entries(tmp_path):
    return sorted((tmp_path / "cache").glob(f"*{SUFFIX}"))


def spread(info):
    return [0, info.num_frames // 2, 3, 3, info.num_frames - 1]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("stamps", [False, True])
def test_kept_frames_are_the_decoded_ones(whole, stamps, make, numbered_mp4, calls, tmp_path):
    expected, seen = decode_frames(numbered_mp4, spread), []
    calls.clear()
    for cached in (make(whole=whole), make(whole=whole)):
        frames = cached(numbered_mp4, lambda info: seen.append(info) or spread(info), stamps=stamps)
        np.testing.assert_array_equal(frames, expected)
        assert frames.flags.writeable
    assert calls.total() == 1
    assert set(seen) == {decode.probe(numbered_mp4, stamps=stamps)}
    assert len(entries(tmp_path)) == 1


def test_whole_videos_answer_every_plan(make, numbered_mp4, calls, number_of):
    cached = make(whole=True)
    for number in range(0, 90, 11):
        (frame,) = cached(numbered_mp4, lambda info, number=number: [number])
        assert number_of(frame) == number
    assert calls.total() == 1


def test_a_plan_that_changed_is_decoded(make, numbered_mp4, calls, number_of):
    cached = make()
    assert number_of(cached(numbered_mp4, lambda info: [3])[0]) == 3
    assert number_of(cached(numbered_mp4, lambda info: [4])[0]) == 4
    assert number_of(cached(numbered_mp4, lambda info: [4])[0]) == 4
    assert calls.total() == 2


def test_purposes_are_kept_apart(make, numbered_mp4, tmp_path):
    for purpose in ("a", "b"):
        make(purpose)(numbered_mp4, spread)
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_changed_file_is_decoded_again(change, make, tmp_path, write_numbered, number_of):
    path = write_numbered(tmp_path / "a.mp4", 20)
    cached = make()
    cached(path, lambda info: [info.num_frames - 1])
    if change == "content":
        write_numbered(path, 30)
    else:
        os.utime(path, ns=(1, 1))
    frame = cached(path, lambda info: [info.num_frames - 1])[0]
    assert number_of(frame) == (29 if change == "content" else 19)
    assert len(entries(tmp_path)) == 2


def test_another_decoder_has_entries_of_its_own(monkeypatch):
    here = decoder_version(decode_frames)
    assert any(part.startswith("av ") for part in here)
    monkeypatch.setattr(frame_cache.metadata, "version", lambda name: "99")
    assert decoder_version(decode_frames) != here


def damage_byte(at):
    def damage(path):
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return damage


DAMAGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "checksum": damage_byte(0),
    "header": damage_byte(40),
    "frame": damage_byte(-100),
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_entry_is_named_and_decoded_again(kind, whole, make, numbered_mp4, tmp_path, caplog, calls):
    expected = make(whole=whole)(numbered_mp4, spread)
    (entry,) = entries(tmp_path)
    DAMAGES[kind](entry)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(make(whole=whole)(numbered_mp4, spread), expected)
    assert len(caplog.messages) == 1
    assert str(entry) in caplog.text
    assert calls.total() == 2
    make(whole=whole)(numbered_mp4, spread)
    assert calls.total() == 2


@pytest.mark.parametrize("whole", [False, True])
def test_a_wrong_frame_count_is_answered_alike(whole, make, numbered_mp4, monkeypatch, number_of):
    describe = decode._Video.describe

    def overstated(self, *, stamps):
        info = describe(self, stamps=stamps)
        return decode.replace(info, num_frames=info.num_frames + 5)

    monkeypatch.setattr(decode._Video, "describe", overstated)
    plans = (lambda info: [info.num_frames - 1], lambda info: [info.num_frames - 20])
    expected = [89, 75]  # the second plan never learns that the count is wrong
    for number, plan in zip(expected, plans, strict=True):
        for _ in range(2):
            assert number_of(decode_frames(numbered_mp4, plan)[0]) == number
            assert number_of(make(str(number), whole=whole)(numbered_mp4, plan)[0]) == number


@pytest.mark.parametrize("whole", [False, True])
def test_unreadable_videos_leave_no_entry(whole, make, tmp_path, write_numbered, number_of):
    with pytest.raises(DecodeError, match="no such file"):
        make(whole=whole)(tmp_path / "none.mp4", spread)
    path = write_numbered(tmp_path / "a.avi", 90, gop=12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(DecodeError, match="truncated"):
        make(whole=whole)(path, spread)
    assert entries(tmp_path) == []
    assert number_of(make(whole=whole)(path, lambda info: [5])[0]) == 5


def test_large_videos_are_not_kept_whole(make, numbered_mp4, tmp_path, monkeypatch, number_of):
    monkeypatch.setattr(frame_cache, "MAX_WHOLE_BYTES", 1000)
    assert number_of(make(whole=True)(numbered_mp4, lambda info: [7])[0]) == 7
    assert entries(tmp_path) == []


@pytest.mark.parametrize("whole", [False, True])
def test_a_full_cache_decodes(whole, make, numbered_mp4, tmp_path, calls):
    cached = make(whole=whole, max_bytes=1000)
    for _ in range(3):
        np.testing.assert_array_equal(cached(numbered_mp4, spread), decode_frames(numbered_mp4, spread))
    assert entries(tmp_path) == []
    assert calls.total() == 6 + whole


def test_no_frame(make, numbered_mp4):
    for _ in range(2):
        assert make()(numbered_mp4, lambda info: []).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("mode", ["train", "val", "test"])
@pytest.mark.parametrize("rule", ["dense", "pyslowfast"])
def test_items_are_the_same(mode, rule, make, numbered_mp4):
    def items(**options):
        dataset = VideoDataset(
            [VideoRecord(str(numbered_mp4), 1)],
            mode=mode,
            sampling=SamplingSettings(num_frames=4, sampling_rate=6, rule=rule),
            spatial=SPATIAL,
            views=3,
            **options,
        )
        return [dataset[(epoch, 0) if mode == "train" else 0].frames for epoch in range(3)]

    cached = make(whole=mode == "train")
    for plain, first, second in zip(items(), items(decode=cached), items(decode=cached), strict=True):
        assert torch.equal(plain, first)
        assert torch.equal(plain, second)
