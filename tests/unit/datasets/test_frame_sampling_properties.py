import itertools

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

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

totals = st.integers(1, 20_000)
rates = st.floats(0.5, 240.0)
strides = st.builds(
    Stride,
    num_frames=st.integers(1, 64),
    sampling_rate=st.floats(0.25, 64.0) | st.integers(1, 64),
    target_fps=st.floats(1.0, 120.0),
)
fractions = st.floats(0.0, 1.0, exclude_max=True).map(lambda u: ClipPosition(fraction=u))
views = st.integers(1, 12).flatmap(
    lambda views: st.integers(0, views - 1).map(lambda view: ClipPosition(view=view, views=views))
)
positions = fractions | views


def check(indices, *, count, total):
    assert len(indices) == count
    assert all(type(index) is int and 0 <= index < total for index in indices)
    assert all(one <= other for one, other in itertools.pairwise(indices))


@given(totals, rates, strides, positions)
def test_dense_frames_lie_in_the_video_in_order(total, fps, stride, position):
    indices = dense_indices(total, fps, stride=stride, position=position)
    check(indices, count=stride.num_frames, total=total)
    span = min(stride.sampling_rate * (stride.num_frames - 1) / stride.target_fps * fps, total - 1)
    assert abs(indices[-1] - indices[0] - span) <= 1
    steps = [other - one for one, other in itertools.pairwise(indices)]
    assert not steps or max(steps) - min(steps) <= 1, "evenly spread"


@given(totals, rates, strides, st.integers(2, 12))
def test_dense_views_go_from_the_first_frame_to_the_last(total, fps, stride, views):
    clips = [
        dense_indices(total, fps, stride=stride, position=ClipPosition(view=view, views=views)) for view in range(views)
    ]
    assert clips[0][0] == 0
    assert clips[-1][-1] == total - 1
    assert all(one[0] <= other[0] for one, other in itertools.pairwise(clips))


@given(totals, rates, strides, positions)
def test_interval_frames_lie_in_the_video_in_order(total, fps, stride, position):
    indices = interval_indices(total, fps, stride=stride, position=position)
    check(indices, count=stride.num_frames, total=total)
    span = stride.num_frames * stride.sampling_rate * fps / stride.target_fps
    if span > total:
        span = total // stride.num_frames * stride.num_frames
    if span <= stride.sampling_rate:
        assert indices == dense_indices(total, fps, stride=stride, position=position)
    elif stride.num_frames > 1:
        distance = (span - stride.sampling_rate) / (stride.num_frames - 1)
        steps = [other - one for one, other in itertools.pairwise(indices) if other < total - 1]
        assert not steps or max(abs(step - distance) for step in steps) <= 1.01, "evenly spread"


@given(totals, rates, strides, st.integers(2, 12))
def test_interval_views_go_on_from_the_first_frame(total, fps, stride, views):
    clips = [
        interval_indices(total, fps, stride=stride, position=ClipPosition(view=view, views=views))
        for view in range(views)
    ]
    assert clips[0][0] == 0
    assert all(one <= other for pair in itertools.pairwise(clips) for one, other in zip(*pair, strict=True))


@given(totals, st.integers(1, 64), views)
def test_uniform_views_take_a_frame_of_each_segment(total, num_frames, position):
    indices = uniform_indices(total, num_frames=num_frames, position=position)
    check(indices, count=num_frames, total=total)
    segments = [index * num_frames // total for index in indices]
    assert total < num_frames or all(segment in (i - 1, i) for i, segment in enumerate(segments))


@given(totals, st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=1, max_size=64))
def test_uniform_training_clips_take_a_frame_of_each_segment(total, fractions):
    indices = uniform_indices(total, num_frames=len(fractions), position=ClipPosition(segments=tuple(fractions)))
    assert len(indices) == len(fractions)
    assert all(type(index) is int and 0 <= index < total for index in indices)
    length = total // len(fractions)
    assert not length or [index // length for index in indices] == list(range(len(fractions)))


@given(totals, rates, strides, positions, st.booleans())
def test_published_frames_of_a_whole_stream(total, fps, stride, position, offsets):
    indices, (start, end) = pyslowfast_whole_indices(total, fps, stride=stride, position=position, offsets=offsets)
    check(indices, count=stride.num_frames, total=total)
    assert 0 <= start <= end + 1e-9


@given(st.integers(1, 400), st.integers(1, 1000), rates, strides, positions)
def test_published_frames_of_a_window(total, ticks, fps, stride, position):
    window = pyslowfast_window(total, fps, stride=stride, position=position)
    assert 0 <= window[0] <= window[1] + 1e-9
    pts = [number * ticks for number in range(total)]
    indices = pyslowfast_indices(pts, window, total=total, duration=total * ticks, fps=fps, stride=stride)
    check(indices, count=stride.num_frames, total=total)
