import pytest

from slowfast.datasets.packets import bytes_missing, is_coded, is_entry, is_hidden, plan_segments

START = b"\x00\x00\x01\xb6"
HEADER = b"\x00\x00\x01\x20" + bytes(20)


def test_plan_segments_seeks_only_over_keyframes():
    # decoding order of I B B P with a keyframe every 6 packets
    packets = [(pts, pts % 6 == 0) for pts in range(18)]
    assert plan_segments([0, 3], packets) == [(0, [0, 3])]
    assert plan_segments([4, 8], packets) == [(0, [4]), (6, [8])]
    assert plan_segments([5, 6], packets) == [(0, [5, 6])]
    assert plan_segments([1, 14], packets) == [(0, [1]), (12, [14])]
    # leading pictures of an open group of pictures need the keyframe before
    assert plan_segments([5], [(0, True), (3, False), (8, True), (5, False)]) == [(0, [5])]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (START + b"\x10", True),
        (START + b"\x50", False),
        (START + b"\x90", False),
        (START + b"\xd0", False),
        (HEADER + START + b"\x10", True),
        (HEADER + START + b"\x50", False),
        (START, False),
        (HEADER, False),
        (b"", False),
    ],
)
def test_only_an_intra_picture_is_an_entry(data, expected):
    assert is_entry(data, "mpeg4") is expected
    assert is_entry(data, "h264")


def test_pictures_of_no_content_are_small():
    assert not is_coded(7, 320 * 240)
    assert not is_coded(44, 320 * 240)
    assert is_coded(45, 320 * 240)


def test_hidden_pictures():
    assert is_hidden(b"\x00", "vp8")
    assert not is_hidden(b"\x10", "vp8")
    assert not is_hidden(b"\x00", "vp9")


@pytest.mark.parametrize(("length", "expected"), [(12, False), (13, True)])
def test_missing_bytes_of_avi(length, expected, tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"RIFF" + length.to_bytes(4, "little") + bytes(12))
    assert bytes_missing(path) is expected


def test_missing_bytes_of_matroska(tmp_path):
    path = tmp_path / "a.mkv"
    for size, expected in ((12, False), (13, True)):
        path.write_bytes(b"\x1a\x45\xdf\xa3\x18\x53\x80\x67" + bytes([0x80 | size]) + bytes(12))
        assert bytes_missing(path) is expected
    path.write_bytes(b"\x18\x53\x80\x67\xff" + bytes(12))
    assert not bytes_missing(path)
