import pytest

from slowfast.datasets.video_stats import VideoFacts, VideoStats


def facts(**changes):
    values = {
        "frames": 300,
        "fps": 30.0,
        "width": 320,
        "height": 240,
        "codec": "h264",
        "size_bytes": 500_000,
        "b_frames": False,
        "longest_gop": 16,
    }
    return VideoFacts(**{**values, **changes})


def test_numbers():
    stats = VideoStats.of(
        [
            facts(frames=1),
            facts(frames=150, fps=25.0, width=1920, height=1080, codec="mpeg4"),
            facts(frames=300, b_frames=True, longest_gop=33),
            facts(frames=301, fps=30000 / 1001),
        ]
    )
    assert stats.frames == (1, 300, 301)
    assert stats.fps == {"30": 2, "25": 1, "29.97": 1}
    assert stats.sizes == {"320x240": 3, "1920x1080": 1}
    assert stats.codecs == {"h264": 3, "mpeg4": 1}
    assert (stats.b_frames, stats.long_gop, stats.slow) == (0.25, 0.25, 0.5)
    assert stats.hours == pytest.approx((1 / 30 + 6 + 10 + 301 * 1001 / 30000) / 3600)
    assert stats.gigabytes == pytest.approx(0.002)


def test_lines():
    sizes = [(320, 240), (320, 240), (64, 48), (640, 360), (1920, 1080), (720, 480)]
    stats = VideoStats.of([facts(width=width, height=height) for width, height in sizes])
    assert stats.lines() == [
        "6 videos, 0.0 hours, 0.00 GB",
        "frames: 300 to 300, median 300",
        "frames per second: 30 (6)",
        "picture size: 320x240 (2), 64x48 (1), 640x360 (1) and 2 more",
        "codec: h264 (6); 0% with B-frames, 0% with more than 32 frames between keyframes",
        "50% are slow to decode (short side above 320 pixels, or more than 32 frames between keyframes): "
        "transcoding them once makes that several times faster",
    ]


@pytest.mark.parametrize(
    ("changes", "slow"),
    [
        ({}, False),
        ({"longest_gop": 250}, True),
        ({"longest_gop": 250, "codec": "mpeg4"}, False),  # decoded whole in no time
        ({"longest_gop": 12, "b_frames": True}, False),
        ({"width": 1920, "height": 1080}, True),
        ({"width": 1920, "height": 1080, "codec": "mpeg4"}, True),
    ],
)
def test_advice(changes, slow):
    video = facts(**changes)
    assert video.is_slow == slow
    assert (VideoStats.of([video]).advice() is not None) == slow


def test_a_few_odd_videos_are_no_reason():
    assert VideoStats.of([facts()] * 19 + [facts(longest_gop=250)]).advice() is None


def test_nothing():
    assert VideoStats.of([]) is None
