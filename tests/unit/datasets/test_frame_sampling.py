import numpy as np
import pytest

from slowfast.datasets.frame_sampling import (
    ClipPosition,
    Stride,
    dense_indices,
    interval_indices,
    pyslowfast_indices,
    pyslowfast_whole_indices,
    pyslowfast_window,
    uniform_indices,
)

STRIDE = Stride(num_frames=8, sampling_rate=16, target_fps=30)
FIRST = ClipPosition(view=0, views=3)


class TestDense:
    def test_spans_the_whole_window(self):
        assert dense_indices(300, 30, stride=STRIDE, position=FIRST) == [0, 16, 32, 48, 64, 80, 96, 112]

    def test_last_view_ends_with_the_video(self):
        last = dense_indices(300, 30, stride=STRIDE, position=ClipPosition(view=2, views=3))
        assert last == [187, 203, 219, 235, 251, 267, 283, 299]

    def test_single_view_is_the_centre(self):
        indices = dense_indices(300, 30, stride=STRIDE, position=ClipPosition())
        assert indices == dense_indices(300, 30, stride=STRIDE, position=ClipPosition(fraction=0.5))
        assert indices[0] + indices[-1] == pytest.approx(299, abs=1)

    def test_frame_rate_stretches_the_window(self):
        assert dense_indices(300, 60, stride=STRIDE, position=FIRST)[-1] == 224
        assert dense_indices(300, 15, stride=STRIDE, position=FIRST)[-1] == 56

    def test_short_video_is_spread_not_clamped(self):
        for views, view in ((1, 0), (3, 0), (3, 2)):
            position = ClipPosition(view=view, views=views)
            assert dense_indices(15, 30, stride=STRIDE, position=position) == [0, 2, 4, 6, 8, 10, 12, 14]

    def test_fewer_frames_than_the_clip(self):
        assert dense_indices(1, 30, stride=STRIDE, position=FIRST) == [0] * 8
        indices = dense_indices(3, 30, stride=STRIDE, position=FIRST)
        assert indices == sorted(indices)
        assert set(indices) == {0, 1, 2}

    def test_always_inside_and_unique_where_possible(self):
        rng = np.random.default_rng(0)
        for _ in range(500):
            total, fps = int(rng.integers(1, 400)), float(rng.uniform(5, 120))
            stride = Stride(
                num_frames=int(rng.integers(1, 33)), sampling_rate=int(rng.integers(1, 65)), target_fps=30.0
            )
            indices = dense_indices(total, fps, stride=stride, position=ClipPosition(fraction=float(rng.random())))
            assert len(indices) == stride.num_frames
            assert indices == sorted(indices)
            assert indices[0] >= 0
            assert indices[-1] < total
            distance = min(stride.sampling_rate / 30 * fps, (total - 1) / max(1, stride.num_frames - 1))
            if distance >= 1:
                assert len(set(indices)) == len(indices)


class TestPySlowFast:
    def indices(self, total, *, fps=30.0, position=FIRST, tick=512):
        window = pyslowfast_window(total, fps, stride=STRIDE, position=position)
        pts = [number * tick for number in range(total)]
        return pyslowfast_indices(pts, window, total=total, duration=total * tick, fps=fps, stride=STRIDE)

    @pytest.mark.parametrize(
        ("total", "expected"),
        [
            (300, [0, 18, 36, 54, 72, 90, 108, 112]),
            (60, [0, 18, 36, 54, 59, 59, 59, 59]),
            (12, [0] + [11] * 7),
        ],
    )
    def test_clamps_its_last_frames(self, total, expected):
        assert self.indices(total) == expected

    def test_view_starts_at_its_share_of_the_slack(self):
        assert self.indices(300, position=ClipPosition(view=2, views=3))[0] == 126
        window = pyslowfast_window(300, 30.0, stride=STRIDE, position=ClipPosition(view=2, views=3))
        assert window == (188 * 2 / 3, 188 * 2 / 3 + 111)

    def test_stamps_out_of_order_end_at_the_first_beyond_and_are_sorted(self):
        stride = Stride(num_frames=4, sampling_rate=1, target_fps=30)
        kept = [0, 2, 1, 5, 3, 4]  # 3 and 4 follow the first stamp beyond the window
        assert pyslowfast_indices(kept, (0.0, 2.0), total=6, duration=6, fps=30, stride=stride) == [0, 2, 1, 3]

    def test_of_equal_stamps_the_last_counts(self):
        stride = Stride(num_frames=2, sampling_rate=1, target_fps=30)
        assert pyslowfast_indices([0, 0, 1, 2], (0.0, 1.0), total=4, duration=4, fps=30, stride=stride) == [1, 2]

    def test_nothing_in_the_window(self):
        assert pyslowfast_indices([0, 1], (5.0, 9.0), total=2, duration=2, fps=30, stride=STRIDE) == []

    def test_unknown_duration(self):
        offset, window = pyslowfast_whole_indices(
            200, 25.0, stride=STRIDE, position=ClipPosition(view=1, views=3), offsets=True
        )
        assert offset == [46, 61, 76, 91, 106, 121, 136, 151]
        assert window[0] == 46.0
        plain, window = pyslowfast_whole_indices(
            200, 25.0, stride=STRIDE, position=ClipPosition(view=1, views=3), offsets=False
        )
        assert window[0] == pytest.approx((200 - 16 * 8 / 30 * 25) / 3)
        assert plain[0] == 31


class TestUniform:
    """Published figures are TC-CLIP's."""

    @staticmethod
    def view(total, view=0, views=1, num_frames=16):
        return uniform_indices(total, num_frames=num_frames, position=ClipPosition(view=view, views=views))

    @staticmethod
    def train(total, fractions):
        return uniform_indices(total, num_frames=len(fractions), position=ClipPosition(segments=tuple(fractions)))

    def test_one_view_is_the_published_one(self):
        published = [9, 28, 46, 65, 84, 103, 121, 140, 159, 178, 196, 215, 234, 253, 271, 290]
        assert self.view(300) == published
        assert self.view(10) == [0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9, 9]

    def test_validation_is_the_one_view(self):
        position = ClipPosition(fraction=0.5)
        assert uniform_indices(300, num_frames=16, position=position) == self.view(300)

    def test_several_views_divide_each_segment(self):
        assert self.view(64, 0, 2, 4) == [4, 20, 36, 52]
        assert self.view(64, 1, 2, 4) == [12, 28, 44, 60]
        assert sorted(frame for view in range(16) for frame in self.view(64, view, 16, 4)) == list(range(64))

    def test_training_is_the_published_rule(self):
        assert self.train(11, [0.0, 0.5, 0.999, 0.5]) == [0, 3, 5, 7]  # segments of 2; what is left over is never read
        assert self.train(8, [0.0] * 8) == self.train(8, [0.999] * 8) == list(range(8))
        assert self.train(3, [0.9] * 4) == [0, 1, 2, 2]  # halves to even: 0, 0.75, 1.5, 2.25
        assert self.train(2, [0.9] * 8) == [0, 0, 0, 1, 1, 1, 0, 0]  # 1.5 and 1.75 lead to frame 2, that is 0

    def test_one_frame(self):
        assert self.view(1) == [0] * 16
        assert self.view(1, 3, 4) == [0] * 16
        assert self.train(1, [0.7] * 16) == [0] * 16
        assert self.train(50, [0.7]) == [35]


class TestInterval:
    """Published figures are CLIP-FSAR's, for 8 frames at rate 35 and 12 per second."""

    STRIDE = Stride(num_frames=8, sampling_rate=35, target_fps=12)

    def view(self, total, fps, view=0, views=1, stride=STRIDE):
        return interval_indices(total, fps, stride=stride, position=ClipPosition(view=view, views=views))

    def train(self, total, fps, fraction, stride=STRIDE):
        return interval_indices(total, fps, stride=stride, position=ClipPosition(fraction=fraction))

    @pytest.mark.parametrize(
        ("total", "fps", "published"),
        [
            (300, 30, [2, 39, 77, 114, 151, 188, 226, 263]),
            (250, 25, [1, 31, 62, 92, 123, 153, 184, 214]),
            (100, 25, [2, 11, 19, 28, 37, 46, 54, 63]),
        ],
    )
    def test_one_view_is_the_published_one(self, total, fps, published):
        assert self.view(total, fps) == published
        assert self.train(total, fps, 0.5) == published, "validation"

    def test_training_starts_anywhere_in_the_slack(self):
        assert self.train(300, 30, 0.0) == [0, 37, 74, 111, 149, 186, 223, 261]
        assert self.train(300, 30, 0.999) == [4, 42, 79, 116, 154, 191, 228, 265]
        assert self.train(1000, 12, 0.0)[::7] == [0, 245]  # a window of 280 frames, less 35
        assert self.train(1000, 12, 0.999)[::7] == [720, 965]

    def test_views_divide_the_slack(self):
        assert [self.view(1000, 12, view, 3)[::7] for view in range(3)] == [[0, 245], [360, 605], [721, 966]]

    def test_the_rate_that_is_taken_off_counts_frames_of_the_video(self):
        assert self.view(1000, 24, 0, 2)[::7] == [0, 525]  # 560 - 35, not 560 - 70
        assert self.view(1000, 6, 0, 2)[::7] == [0, 105]  # 140 - 35, not 140 - 17.5

    def test_points_beyond_the_video_are_clamped(self):
        stride = Stride(num_frames=4, sampling_rate=1, target_fps=30)
        assert self.view(20, 30, 1, 2, stride) == [17, 18, 19, 19]

    @pytest.mark.parametrize("total", [1, 3, 8, 30, 39])
    def test_short_videos_are_spread_not_run_backwards(self, total):
        """Published for 30 frames: 3, 1, 0, 0, 0, 0, 0, 0."""
        for indices in (self.view(total, 12), self.train(total, 12, 0.9), self.view(total, 12, 1, 3)):
            assert indices == dense_indices(total, 12, stride=self.STRIDE, position=ClipPosition())
            assert (indices[0], indices[-1]) == (0, total - 1)
        assert self.view(30, 12) == [0, 4, 8, 12, 17, 21, 25, 29]

    def test_few_frames_per_second_keep_their_window(self):
        indices = self.train(1000, 1, 0.5)
        assert indices == dense_indices(1000, 1, stride=self.STRIDE, position=ClipPosition(fraction=0.5))
        assert indices == sorted(set(indices))

    def test_one_frame(self):
        stride = Stride(num_frames=1, sampling_rate=35, target_fps=12)
        for total in (1, 30, 300):
            for indices in (self.train(total, 30, 0.7, stride), self.view(total, 30, stride=stride)):
                assert len(indices) == 1
                assert 0 <= indices[0] < total
