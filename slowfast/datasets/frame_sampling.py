"""Which frames make a clip: pure functions from counts, rates and time stamps to frame numbers.

Frame numbers count from 0 in presentation order. Randomness enters as a fraction u in [0, 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Stride:
    """How the frames of a clip follow each other.

    Attributes:
        num_frames: frames per clip (DATA.NUM_FRAMES).
        sampling_rate: distance between them in frames at `target_fps` (DATA.SAMPLING_RATE).
        target_fps: frame rate that videos are brought to, jitter included.
    """

    num_frames: int
    sampling_rate: float
    target_fps: float


@dataclass(frozen=True, kw_only=True)
class ClipPosition:
    """Where in the video a clip lies.

    Attributes:
        fraction: random position u in [0, 1) of a training clip; None for a test view.
        segments: random positions in [0, 1) of a training clip's frames, each within its segment of the video; empty
            where nothing is random. Only "uniform" reads it, and it reads no `fraction`.
        view: number of the test view, in [0, views).
        views: number of test views.
    """

    fraction: float | None = None
    segments: tuple[float, ...] = ()
    view: int = 0
    views: int = 1


def dense_indices(total: int, fps: float, *, stride: Stride, position: ClipPosition) -> list[int]:
    """Spread `num_frames` frames evenly over the whole sampling window.

    The window spans `sampling_rate * (num_frames - 1) / target_fps` seconds, that is
    `span = sampling_rate * (num_frames - 1) / target_fps * fps` source frames from its first to its last frame, and
    starts at `u * M` with `M = max(total - 1 - span, 0)`: u random in training; `v / (V - 1)` for test view v of V > 1
    (the first view starts with the video, the last one ends with it); 1/2 for a single view. The frames are the
    rounded points of `linspace(start, start + span, num_frames)`. A video shorter than the window shrinks the window
    to the video: its frames are spread evenly, and nothing is clamped onto a repeated last frame.

    Args:
        total: frames in the video, at least 1.
        fps: frame rate of the video.
        stride: distances within the clip.
        position: where the clip lies.

    Returns: `num_frames` frame numbers in [0, total), ascending.
    """
    num_frames = stride.num_frames
    span = min(stride.sampling_rate * (num_frames - 1) / stride.target_fps * fps, total - 1)
    slack = total - 1 - span
    start = _start(slack, position)
    step = span / (num_frames - 1) if num_frames > 1 else 0.0
    return [min(math.floor(start + i * step + 0.5), total - 1) for i in range(num_frames)]


def interval_indices(total: int, fps: float, *, stride: Stride, position: ClipPosition) -> list[int]:
    """Spread `num_frames` frames over an interval that ends `sampling_rate` frames before its window does.

    The window is `span = num_frames * sampling_rate * fps / target_fps` frames long; if that is more than the video
    has, `span = total // num_frames * num_frames`. It starts at `u * M` with `M = max(total - span + 1, 0)`, u as in
    `dense_indices`. The frames are the points of `linspace(start, start + span - sampling_rate, num_frames)`, rounded
    down; the rate that is taken off there counts frames of the video, whatever its fps, as published.

    Where the window is no longer than `sampling_rate`, the published points run backwards, or coincide; ours are those
    of `dense_indices`, in short videos spread evenly over all of it.

    Args:
        total: frames in the video, at least 1.
        fps: frame rate of the video.
        stride: distances within the clip.
        position: where the clip lies.

    Returns: `num_frames` frame numbers in [0, total), ascending.

    Source: CLIP-FSAR, for sampling rates up to 40 (Kinetics-100).
    """
    num_frames, rate = stride.num_frames, stride.sampling_rate
    span = num_frames * rate * fps / stride.target_fps
    if span > total:
        span = total // num_frames * num_frames
    if span <= rate:
        return dense_indices(total, fps, stride=stride, position=position)
    start = _start(max(total - span + 1, 0), position)
    return _clamped_linspace(start, start + span - rate, num_frames, total)


def uniform_indices(total: int, *, num_frames: int, position: ClipPosition) -> list[int]:
    """Take one frame of each of `num_frames` equal segments: the clip covers the whole video, whatever its rate.

    Training: segment i of `q = total // num_frames` frames gives frame `i * q + floor(u_i * q)`; a video with fewer
    frames than the clip gives `round(i * total / num_frames)`, halves to even, where `total` itself becomes frame 0.
    Test view v of V: `floor((i + (v + 1/2) / V) * total / num_frames)`, for one view the middle of each segment.

    Args:
        total: frames in the video, at least 1.
        num_frames: frames per clip, T.
        position: the T numbers u_i of a training clip, or the test view.

    Returns: `num_frames` frame numbers in [0, total).

    Source: TSN's segments, as ViFi-CLIP and TC-CLIP sample them; they draw several test views at random instead.
    """
    if not position.segments:
        # in integers, so that no rounding moves a frame
        parts, place = 2 * position.views * num_frames, 2 * position.view + 1
        return [total * (2 * position.views * i + place) // parts for i in range(num_frames)]
    assert len(position.segments) == num_frames, f"{len(position.segments)} random positions for {num_frames} frames"
    length = total // num_frames
    if length == 0:
        return [round(i * total / num_frames) % total for i in range(num_frames)]
    return [i * length + math.floor(u * length) for i, u in enumerate(position.segments)]


def pyslowfast_window(total: int, fps: float, *, stride: Stride, position: ClipPosition) -> tuple[float, float]:
    """First and last frame of the window that PySlowFast's PyAV path decodes, as fractions of frames.

    Test view v of V starts at v/V of the slack, so that no view ends with the video.

    Args:
        total: frame count that the container states.
        fps: average frame rate.
        stride: distances within the clip.
        position: where the clip lies.

    Returns: (start, end) in frames.
    """
    clip = max(1, math.ceil(stride.sampling_rate * (stride.num_frames - 1) / stride.target_fps * fps))
    slack = max(total - clip, 0)
    start = slack * position.view / position.views  # in this order of operations
    if position.fraction is not None:
        start = position.fraction * slack
    return start, start + clip - 1


def pyslowfast_indices(
    pts: Sequence[int],
    window: tuple[float, float],
    *,
    total: int,
    duration: int,
    fps: float,
    stride: Stride,
) -> list[int]:
    """Frames that PySlowFast takes from a decoded window.

    The frames kept are those whose time stamp lies in the window, and the first one after it. They are strided as if
    the window held one stride more than it does, hence the last frame is often a clamped one.

    Args:
        pts: time stamps in the order in which the decoder emits the frames.
        window: result of `pyslowfast_window`.
        total: frame count that the container states.
        duration: length of the stream in the unit of `pts`.
        fps: average frame rate.
        stride: distances within the clip.

    Returns: `num_frames` positions in `pts`; empty if no frame reaches the window.
    """
    ticks = duration / total
    first, last = int(window[0] * ticks), int(window[1] * ticks)
    kept: dict[int, int] = {}  # of several frames with one time stamp the last counts
    for number, stamp in enumerate(pts):
        if stamp >= first:
            kept[stamp] = number
        if stamp > last:
            break
    frames = [kept[stamp] for stamp in sorted(kept)]
    if not frames:
        return []
    span = _stride_span(fps, stride)
    return [frames[i] for i in _clamped_linspace(0.0, span - 1, stride.num_frames, len(frames))]


def pyslowfast_whole_indices(
    total: int,
    fps: float,
    *,
    stride: Stride,
    position: ClipPosition,
    offsets: bool,
) -> tuple[list[int], tuple[float, float]]:
    """PySlowFast's rule for a stream of unknown duration, where it decodes every frame.

    Args:
        total: number of decoded frames.
        fps: average frame rate.
        stride: distances within the clip.
        position: where the clip lies.
        offsets: DATA.USE_OFFSET_SAMPLING.

    Returns: `num_frames` frame numbers, and (start, end) in frames.
    """
    span = _stride_span(fps, stride)
    slack = max(total - span, 0.0)
    if position.fraction is not None:
        start = position.fraction * slack
    elif not offsets:
        start = slack * position.view / position.views
    elif position.views == 1:
        start = float(math.floor(slack / 2))
    else:
        start = float(position.view * math.floor(slack / (position.views - 1)))
    end = start + span - 1
    return _clamped_linspace(start, end, stride.num_frames, total), (start, end)


def _start(slack: float, position: ClipPosition) -> float:
    if position.fraction is not None:
        return position.fraction * slack
    if position.views == 1:
        return slack / 2
    return slack * position.view / (position.views - 1)


def _stride_span(fps: float, stride: Stride) -> float:
    return max(1.0, stride.sampling_rate * stride.num_frames / stride.target_fps * fps)


def _clamped_linspace(start: float, end: float, count: int, total: int) -> list[int]:
    # float32 linspace and truncation: other roundings move single frames
    indices: list[int] = torch.linspace(start, end, count).clamp(0, total - 1).long().tolist()
    return indices
