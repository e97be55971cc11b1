"""Scores of text with several prompts per class, against decoding."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench_common import CLOCKS, by_turns, render_video

from slowfast.report.table import format_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--videos", nargs="*", default=[], metavar="PATH", help="files or folders, beside rendered ones"
    )
    parser.add_argument("--most", type=int, default=20, help="videos of each PATH, evenly spread (default 20)")
    parser.add_argument("--seconds", type=float, default=10, help="length of the rendered video (default 10)")
    parser.add_argument("--classes", type=int, default=160, help="K (default 160)")
    parser.add_argument("--prompts", type=int, nargs="+", default=[160, 560], help="P, each in turn (default 160 560)")
    parser.add_argument("--width", type=int, default=512, help="E (default 512)")
    parser.add_argument("--views", type=int, default=3, help="views per video (default 3)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="each in turn (default 1 2)")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each video (default 5)")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=sorted(CLOCKS),
        help="wall (default), or cpu: time of the processor, for a machine that others load; with --threads 1",
    )


def run(args: argparse.Namespace) -> None:
    """Decode, resize and crop the views of a video, and score as many views: what a test does besides the model."""
    import torch

    from slowfast.models.similarity import class_logits, unit_norm

    generator, scale = torch.Generator().manual_seed(0), torch.tensor(100.0)
    video = unit_norm(torch.randn(args.views, 8, args.width, generator=generator))
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        sources = video_sources(args, Path(folder))
        for prompts in args.prompts:
            text = unit_norm(torch.randn(args.classes, prompts, args.width, generator=generator))
            score = partial(class_logits, video, text, scale)
            for threads in args.threads:
                torch.set_num_threads(threads)
                for name, decode in sources:
                    decoding, scored, ratio = beside_scoring(
                        decode, score, repeat=args.repeat, clock=CLOCKS[args.clock]
                    )
                    times = f"{1e3 * decoding:.0f} ms", f"{1e3 * scored:.0f} ms", f"{ratio:.2f}"
                    lines.append([name, f"{args.classes} x {prompts} x {args.width}", threads, *times])
    print(
        f"{args.views} views of 8 frames, 224 x 224 pixels; torch {torch.__version__}; {args.clock} time; "
        f"of {args.repeat} turns the median, of the videos too\n"
    )
    print(format_table(["videos", "text features", "threads", "decoding", "scoring", "scoring/decoding"], lines))


def beside_scoring(
    decode: Sequence[Callable[[], object]], score: Callable[[], object], *, repeat: int, clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Medians over videos: seconds of decoding one, seconds of scoring one, the second over the first."""
    import torch

    medians = []
    with torch.inference_mode():
        for video in decode:
            turns = by_turns((video, score), repeat=repeat, device=torch.device("cpu"), clock=clock)
            medians.append([statistics.median(seconds) for seconds in turns])
    decoding, scored = zip(*medians, strict=True)
    ratio = statistics.median(b / a for a, b in medians)
    return statistics.median(decoding), statistics.median(scored), ratio


def video_sources(args: argparse.Namespace, folder: Path) -> list[tuple[str, list[Callable[[], object]]]]:
    """What each set of videos is called, and for each video a function that decodes and crops its views."""
    from slowfast.datasets.annotation import VideoRecord
    from slowfast.datasets.transforms import SpatialSettings
    from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset
    from slowfast.visualization.predictor import find_videos

    rendered = folder / "rendered.mp4"
    render_video(rendered, seconds=args.seconds)
    sets = {f"{args.seconds:g} s, 340 x 256, rendered, mp4": [rendered]}
    for path in args.videos:
        found = find_videos([path])
        sets[f"{min(len(found), args.most)} of {Path(path).name}"] = found[:: max(1, len(found) // args.most)][
            : args.most
        ]
    sampling = SamplingSettings(num_frames=8, sampling_rate=16)
    spatial = SpatialSettings(jitter_scales=(224, 256), test_crop=224)
    sources: list[tuple[str, list[Callable[[], object]]]] = []
    for name, videos in sets.items():
        records = [VideoRecord(str(video), 0) for video in videos]
        dataset = VideoDataset(records, mode="test", sampling=sampling, spatial=spatial, views=args.views)
        sources.append((name, [partial(dataset.__getitem__, index) for index in range(len(dataset))]))
    return sources
