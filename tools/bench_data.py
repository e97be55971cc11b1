"""Reading of videos: what each decoder, kept frames and copies give, and what limits training."""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_common import CLOCKS, by_turns
from published_reading import lean_clip, published_clip, published_crop, published_frames, published_view

from slowfast.report.table import format_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slowfast.datasets.video_dataset import VideoDataset
    from slowfast.datasets.video_stats import VideoFacts

PUBLISHED, LEAN = "every frame converted, as published", "the same, one conversion thread, nothing stacked"
CACHE = "kept frames (DATA.CACHE_DIR)"
SHORT_SIDE, CROP = (256, 320), 224
MOST_GIGABYTES = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--path", nargs="+", required=True, help="videos, or folders of videos")
    parser.add_argument("--most", type=int, default=40, help="videos to measure, evenly spread; 0 for all (default 40)")
    parser.add_argument("--frames", type=int, default=8, help="frames per clip (default 8)")
    parser.add_argument("--rate", type=float, default=16, help="DATA.SAMPLING_RATE of training and test (default 16)")
    parser.add_argument("--views", type=int, default=3, help="views of a test (default 3)")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each video (default 3)")
    parser.add_argument(
        "--workers", type=int, default=0, help="cores that read for one GPU (default: all of this machine)"
    )
    parser.add_argument("--gpu-clips-per-second", type=float, help="what the GPU trains, from `benchmark.py step`")
    parser.add_argument("--transcode", type=int, default=4, metavar="N", help="videos to copy on trial (default 4)")
    parser.add_argument("--each", action="store_true", help="a line for each video too")


@dataclass
class Video:
    """A video and the seconds of the processor that each way of reading takes, of several turns the median."""

    path: Path
    facts: VideoFacts
    seconds: dict[str, float] = field(default_factory=dict)


def run(args: argparse.Namespace) -> None:
    """Measure, on one core, and say what it means."""
    import torch

    torch.set_num_threads(1)
    videos = readable(args)
    with one_core(), tempfile.TemporaryDirectory() as folder:
        decoders = backends(Path(folder) / "kept")
        different = [line for video in videos for line in measure_clip(video, decoders, args)]
        for video in videos:
            measure_views(video, args)
            measure_training(video, args)
        copies, spent = on_trial(videos, Path(folder), args)
    report_clips(videos, [PUBLISHED, LEAN, *decoders], different, args)
    report_views(videos, args)
    report_limits(videos, args)
    report_copies(copies, spent, videos)


# ------------------------------------------------------------------------------------------------------- what is read
def readable(args: argparse.Namespace) -> list[Video]:
    """The videos to measure, and their facts on the screen; those that cannot be read are named."""
    from slowfast.datasets.decode import DecodeError
    from slowfast.datasets.inspection import inspect_video
    from slowfast.datasets.video_stats import VideoStats
    from slowfast.visualization.predictor import find_videos

    found = find_videos(args.path)
    most = args.most or len(found)
    videos = []
    for path in found[:: math.ceil(len(found) / most)]:
        try:
            video = Video(path, inspect_video(path))
        except DecodeError as error:
            print(f"left out: {error}")
            continue
        gigabytes = video.facts.frames * video.facts.width * video.facts.height * 3 / 1e9
        if gigabytes > MOST_GIGABYTES:
            print(f"left out: {path}: the published way would hold {gigabytes:.1f} GB of frames")
            continue
        videos.append(video)
    stats = VideoStats.of([video.facts for video in videos])
    if stats is None:
        raise ValueError("--path: none of the videos can be read")
    print(f"{len(found)} videos found, {len(videos)} measured")
    print("\n".join(stats.lines()))
    return videos


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on a single core, since the published reading starts as many threads as there are cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def backends(folder: Path) -> dict[str, Callable[..., NDArray[np.uint8]]]:
    """The decoders that can be used here, and one that has kept the frames."""
    from slowfast.datasets.decode import DECODERS, decode_frames
    from slowfast.datasets.frame_cache import SUFFIX, CachedDecoder
    from slowfast.utils.bounded_store import BoundedStore
    from slowfast.utils.registry import resolve

    found: dict[str, Callable[..., Any]] = {}
    for name in DECODERS:
        try:
            found[name] = resolve(DECODERS, name, key="DATA.DECODING_BACKEND")
        except ValueError as error:
            print(f"left out: {error}")
    store = BoundedStore(folder, 10**12, suffix=SUFFIX, key="DATA.CACHE_GB")
    found[CACHE] = CachedDecoder(decode_frames, store, purpose="benchmark", whole=False)
    return found


# -------------------------------------------------------------------------------------------------------- measurements
def take_turns(video: Video, ways: Mapping[str, Callable[[], object]], args: argparse.Namespace) -> None:
    """Note what each way takes of the processor."""
    import torch

    turns = by_turns(list(ways.values()), repeat=args.repeat, device=torch.device("cpu"), clock=CLOCKS["cpu"])
    video.seconds.update({name: statistics.median(times) for name, times in zip(ways, turns, strict=True)})


def measure_clip(video: Video, decoders: dict[str, Callable[..., Any]], args: argparse.Namespace) -> list[str]:
    """One clip spread over the whole video; returns a line for each way that gives other frames than the published."""
    import numpy as np

    frames = len(published_frames(video.path))
    indices = np.linspace(0, frames - 1, args.frames).round().astype(int).tolist()
    expected = published_clip(video.path, indices)
    lines = []
    for name, decode in decoders.items():
        got = decode(video.path, lambda info: indices)
        if not np.array_equal(got, expected):
            away = np.abs(got.astype(int) - expected).max() if got.shape == expected.shape else "the size"
            lines.append(f"{video.path}: {name} differs, by {away}")
    ways: dict[str, Callable[[], object]] = {
        PUBLISHED: partial(published_clip, video.path, indices),
        LEAN: partial(lean_clip, video.path, indices),
    }
    ways |= {name: partial(decode, video.path, lambda info: indices) for name, decode in decoders.items()}
    take_turns(video, ways, args)
    return lines


def dataset(path: Path, mode: Any, views: int, args: argparse.Namespace) -> VideoDataset:  # noqa: ANN401 - a literal
    """A data set of one video."""
    from slowfast.datasets.annotation import VideoRecord
    from slowfast.datasets.transforms import SpatialSettings
    from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset

    sampling = SamplingSettings(num_frames=args.frames, sampling_rate=args.rate)
    spatial = SpatialSettings(jitter_scales=SHORT_SIDE, train_crop=CROP, test_crop=CROP)
    return VideoDataset([VideoRecord(str(path), 0)], mode=mode, sampling=sampling, spatial=spatial, views=views)


def measure_views(video: Video, args: argparse.Namespace) -> None:
    """All views of a test: in one pass, in one pass each, and as published; with and without resizing."""
    from slowfast.datasets.decode import VideoInfo, decode_frames
    from slowfast.datasets.frame_sampling import ClipPosition, Stride, pyslowfast_window
    from slowfast.datasets.video_dataset import SamplingSettings

    facts, sampling = video.facts, SamplingSettings(num_frames=args.frames, sampling_rate=args.rate)
    positions = [ClipPosition(view=view, views=args.views) for view in range(args.views)]
    stride = Stride(num_frames=args.frames, sampling_rate=args.rate, target_fps=sampling.target_fps)
    windows = []
    for position in positions:
        first, last = pyslowfast_window(facts.frames, facts.fps, stride=stride, position=position)
        windows.append((first / facts.frames, last / facts.frames))

    def read(chosen: Sequence[ClipPosition]) -> NDArray[np.uint8]:
        def plan(info: VideoInfo) -> list[int]:
            return [index for position in chosen for index in sampling.indices(info, position, sampling.target_fps)]

        return decode_frames(video.path, plan)

    def published_item() -> None:
        for window in windows:
            published_crop(published_view(video.path, window), args.frames, short=SHORT_SIDE[0], size=CROP)

    ways: dict[str, Callable[[], object]] = {
        "views, published": lambda: [published_view(video.path, window) for window in windows],
        "views, one by one": lambda: [read([position]) for position in positions],
        "views, at once": lambda: read(positions),
        "test, published": published_item,
        "test": partial(dataset(video.path, "test", args.views, args).__getitem__, 0),
    }
    take_turns(video, ways, args)


def measure_training(video: Video, args: argparse.Namespace) -> None:
    """A clip at a random place and what is done to it; the places of all turns differ, as in training."""
    import torch

    from slowfast.datasets.transforms import finish, random_view

    data = dataset(video.path, "train", 1, args)
    seconds, clock = [], CLOCKS["cpu"]
    for epoch in range(2 * args.repeat + 1):
        start = clock()
        data[epoch, 0]
        seconds.append(clock() - start)
    video.seconds["train"] = statistics.mean(seconds[1:])
    import random

    import numpy as np

    spatial = data._spatial
    frames = torch.zeros((args.frames, video.facts.height, video.facts.width, 3), dtype=torch.uint8)
    rng, box_rng = np.random.RandomState(0), random.Random(0)
    clip = frames.permute(3, 0, 1, 2)
    ways = {"resize": lambda: finish(random_view(clip, settings=spatial, rng=rng, box_rng=box_rng), spatial)}
    take_turns(video, ways, args)


def on_trial(
    videos: Sequence[Video], folder: Path, args: argparse.Namespace
) -> tuple[list[tuple[Video, Video]], float]:
    """Copy some videos as `prepare_data.py --transcode` does, slow ones first; pairs, and seconds that copying took."""
    from slowfast.datasets.h264 import H264Settings, copy_video
    from slowfast.datasets.inspection import inspect_video

    slow = [video for video in videos if video.facts.is_slow] or list(videos)
    chosen = slow[:: max(1, len(slow) // max(1, args.transcode))][: args.transcode]
    pairs, start = [], CLOCKS["cpu"]()
    for number, video in enumerate(chosen):
        target = folder / f"{number}.mp4"
        copy_video(video.path, target, H264Settings(), mark={})
        pairs.append((video, Video(target, replace(video.facts, size_bytes=target.stat().st_size))))
    spent = CLOCKS["cpu"]() - start
    for _, copy in pairs:
        copy.facts = inspect_video(copy.path)
        measure_training(copy, args)
    return pairs, spent


# ------------------------------------------------------------------------------------------------------------- reports
def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return math.exp(statistics.mean(map(math.log, values)))


def rate_of(videos: Sequence[Video], way: str) -> float:
    """Videos per second and core."""
    return len(videos) / sum(video.seconds[way] for video in videos)


def report_clips(
    videos: Sequence[Video], ways: Sequence[str], different: Sequence[str], args: argparse.Namespace
) -> None:
    """A line for each way to read a clip."""
    import av

    print(
        f"\n{args.frames} frames spread over the whole video; one core, time of the processor; PyAV {av.__version__}\n"
    )
    lines = []
    for way in ways:
        faster = [video.seconds[PUBLISHED] / video.seconds[way] for video in videos]
        milliseconds = 1e3 * statistics.median(video.seconds[way] for video in videos)
        ratio = f"{geometric_mean(faster):.2f}x", f"{min(faster):.2f}x to {max(faster):.2f}x"
        lines.append([way, f"{rate_of(videos, way):.0f}", f"{milliseconds:.1f} ms", *ratio])
    print(format_table(["way", "clips/s per core", "median", "faster, geometric mean", "from, to"], lines))
    names = [way for way in ways if way not in (PUBLISHED, LEAN)]
    end = ", except:" if different else f", in all {len(videos)} videos."
    print(f"\nThe frames of {', '.join(names)} are those of the published way, to the bit{end}")
    print("\n".join(different), end="\n" if different else "")
    if args.each:
        print(
            format_table(
                ["video", "codec", "frames", "longest GOP", "B-frames", *ways],
                [
                    [
                        video.path.name[:40],
                        video.facts.codec,
                        video.facts.frames,
                        video.facts.longest_gop,
                        "yes" if video.facts.b_frames else "no",
                        *(f"{1e3 * video.seconds[way]:.1f}" for way in ways),
                    ]
                    for video in videos
                ],
            )
        )


def report_views(videos: Sequence[Video], args: argparse.Namespace) -> None:
    """Views of a test, against reading the video once for each."""
    print(f"\n{args.views} views of {args.frames} frames at a rate of {args.rate:g}\n")
    pairs = [
        ("read: at once, against the published window of each view", "views, published", "views, at once"),
        ("read: at once, against our reading view by view", "views, one by one", "views, at once"),
        (
            f"read, resized to {SHORT_SIDE[0]}, cropped (published: normalised too, in float32)",
            "test, published",
            "test",
        ),
    ]
    lines = []
    for what, slow, fast in pairs:
        faster = [video.seconds[slow] / video.seconds[fast] for video in videos]
        times = (f"{1e3 * statistics.median(video.seconds[way] for video in videos):.1f} ms" for way in (slow, fast))
        lines.append([what, *times, f"{geometric_mean(faster):.2f}x"])
    print(format_table(["what", "slow", "fast", "faster, geometric mean"], lines))


def report_limits(videos: Sequence[Video], args: argparse.Namespace) -> None:
    """How many cores feed a GPU, in words."""
    per_core = rate_of(videos, "train")
    share = sum(video.seconds["resize"] for video in videos) / sum(video.seconds["train"] for video in videos)
    cores = args.workers or os.cpu_count() or 1
    print(
        f"\nTraining: one core reads {per_core:.1f} random clips per second, of which resizing and cropping take "
        f"{share:.0%} and decoding the rest; {cores} cores read {cores * per_core:.0f}."
    )
    print(f"Test: one core reads {rate_of(videos, 'test'):.1f} videos of {args.views} views per second.")
    if args.gpu_clips_per_second:
        needed = args.gpu_clips_per_second / per_core
        verdict = (
            f"reading limits training to {cores * per_core:.0f} clips per second"
            if needed > cores
            else "the GPU limits training"
        )
        print(
            f"A GPU that trains {args.gpu_clips_per_second:g} clips per second needs {math.ceil(needed)} cores "
            f"(DATA_LOADER.NUM_WORKERS); with {cores}, {verdict}."
        )
    else:
        print(
            "Each core feeds a GPU that trains that many clips per second; tell --gpu-clips-per-second what yours does."
        )


def report_copies(pairs: Sequence[tuple[Video, Video]], spent: float, videos: Sequence[Video]) -> None:
    """Whether copying pays, from the videos copied on trial."""
    if not pairs:
        return
    before, after = (sum(pair[side].seconds["train"] for pair in pairs) / len(pairs) for side in (0, 1))
    resize = sum(copy.seconds["resize"] for _, copy in pairs) / len(pairs)
    size = sum(copy.facts.size_bytes for _, copy in pairs) / sum(video.facts.size_bytes for video, _ in pairs)
    slow = sum(video.facts.is_slow for video in videos)
    print(
        f"\nCopies (prepare_data.py --transcode), {len(pairs)} on trial: a training clip takes {1e3 * after:.1f} ms "
        f"instead of {1e3 * before:.1f} ms ({1e3 * resize:.1f} ms of it for resizing), {before / after:.1f}x faster; "
        f"the files have {size:.1f} times the size; copying takes {spent / len(pairs):.1f} s of one core per video."
    )
    if before <= 1.2 * after:
        print("Copying does not pay for these videos.")
    else:
        epochs = math.ceil(spent / len(pairs) / (before - after))
        print(
            f"Copying saves time from {epochs} readings of each video on; {slow} of the {len(videos)} measured videos "
            "are of the slow kind."
        )
