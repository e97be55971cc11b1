#!/usr/bin/env python3
"""Measure parts of the project, each against another way to do the same, in one process and by turns.

python tools/benchmark.py text
python tools/benchmark.py text --dataset k400 --classes 5 --model ViT-B/16 --device cuda --repeat 5
python tools/benchmark.py scoring --videos path/to/clips --prompts 160 560 --threads 1 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.report.table import format_table

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from slowfast.models.clip.model import CLIP
    from slowfast.text.features import PromptTable

LABEL_DB = Path(__file__).resolve().parents[1] / "label_db"
TINY = "tiny"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    text = parts.add_parser("text", help="prompt features, against the padded list in batches of 77 tokens")
    text.add_argument("--root", type=Path, default=LABEL_DB, help="the folder of texts (default label_db)")
    text.add_argument("--dataset", default="k400")
    text.add_argument("--classes", type=int, default=20, help="the first N classes; 0 for all (default 20)")
    text.add_argument("--templates", type=int, default=8, help="the first N templates (default 8)")
    text.add_argument("--model", default=TINY, help="tiny (default) or ViT-B/16, ViT-L/14; weights are random")
    text.add_argument("--device", default="cpu")
    text.add_argument("--batch-size", type=int, default=256, help="texts at a time, of both ways (default 256)")
    text.add_argument("--repeat", type=int, default=3, help="turns of each way (default 3)")
    scoring = parts.add_parser("scoring", help="scores of text with several prompts per class, against decoding")
    scoring.add_argument(
        "--videos", nargs="*", default=[], metavar="PATH", help="files or folders, beside rendered ones"
    )
    scoring.add_argument("--most", type=int, default=20, help="videos of each PATH, evenly spread (default 20)")
    scoring.add_argument("--seconds", type=float, default=10, help="length of the rendered video (default 10)")
    scoring.add_argument("--classes", type=int, default=160, help="K (default 160)")
    scoring.add_argument("--prompts", type=int, nargs="+", default=[160, 560], help="P, each in turn (default 160 560)")
    scoring.add_argument("--width", type=int, default=512, help="E (default 512)")
    scoring.add_argument("--views", type=int, default=3, help="views per video (default 3)")
    scoring.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="each in turn (default 1 2)")
    scoring.add_argument("--repeat", type=int, default=5, help="turns of each video (default 5)")
    scoring.add_argument(
        "--clock",
        default="wall",
        choices=sorted(CLOCKS),
        help="wall (default), or cpu: time of the processor, for a machine that others load; with --threads 1",
    )
    return parser.parse_args(argv)


def tables(args: argparse.Namespace) -> tuple[PromptTable, PromptTable]:
    """The prompts as we encode them, and padded as published."""
    from slowfast.text.features import prompt_table
    from slowfast.text.prompt_bank import read_class_file, read_prompts

    labels = read_class_file(args.root / f"classes_label_{args.dataset}.yml")
    tails = read_prompts(args.root / f"classes_xprompt_{args.dataset}.yml")
    names, templates = labels.classes[: args.classes or None], labels.templates[: args.templates]
    ours, padded = (prompt_table(names, tails, templates=templates, pad=pad) for pad in (False, True))
    return ours, padded


def random_clip(model: str) -> CLIP:
    """A CLIP of a published model's sizes, or a small one, with random weights."""
    from slowfast.models.build import build_clip
    from slowfast.models.clip.arch import ClipSizes, published_clip
    from slowfast.models.clip.weights import random_clip_state_dict

    published = published_clip(model)
    if published is None and model != TINY:
        raise ValueError(f"--model: unknown value {model!r}; allowed: {TINY}, ViT-B/32, ViT-B/16, ViT-L/14")
    sizes = (
        ClipSizes(
            image_size=32, patch_size=8, vision_width=64, vision_layers=1, embed_dim=64, text_width=128, text_layers=4
        )
        if published is None
        else published.sizes
    )
    return build_clip(random_clip_state_dict(sizes, seed=0)).eval()


def by_turns(
    ways: Sequence[Callable[[], object]],
    *,
    repeat: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Seconds of each call, the ways taking turns after one round that does not count."""
    import torch

    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(repeat + 1):
        for way, taken in zip(ways, seconds, strict=True):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = clock()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                taken.append(clock() - start)
    return seconds


def text(args: argparse.Namespace) -> None:
    """Encode a dataset's prompts: the whole way from texts to the tensor, tokens included."""
    import torch

    from slowfast.models.clip.prefix import encode_continuations
    from slowfast.text.features import encode_table
    from slowfast.text.tokenizer import Tokenizer

    device = torch.device(args.device)
    ours, padded = tables(args)
    clip = random_clip(args.model).to(device)
    shape = (len(padded.names), len(padded.texts[0]), -1)
    rows = [text for row in padded.texts for text in row if text is not None]

    def in_full() -> Tensor:
        tokens = Tokenizer()(rows)
        with torch.no_grad():
            parts = [clip.encode_text(batch.to(device)).cpu() for batch in tokens.split(args.batch_size)]
        return torch.cat(parts).reshape(shape)

    def once() -> Tensor:
        return encode_table(
            ours,
            encode=lambda *parts: encode_continuations(clip, *parts, batch_size=args.batch_size),
            tokenizer=Tokenizer(),
        )

    difference = (in_full() - once())[ours.mask].abs().max()
    slow, fast = by_turns((in_full, once), repeat=args.repeat, device=device)
    distinct = len({text for row in ours.texts for text in row if text is not None})
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{args.dataset}, {len(ours.names)} classes, {args.templates} templates, xmix; {args.model}, random weights, "
        f"fp32; {where}; torch {torch.__version__}; median of {args.repeat}; largest difference {difference:.1e}\n"
    )
    lines = [
        ["padded list, batches of 77 tokens", len(rows), f"{statistics.median(slow):.2f} s", ""],
        ["utils/text_prompts.py", distinct, f"{statistics.median(fast):.2f} s", ""],
    ]
    ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
    lines[1][3] = f"{ratio:.1f}x"
    print(format_table(["way", "texts", "time", "faster"], lines))


def scoring(args: argparse.Namespace) -> None:
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


def render_video(path: Path, *, seconds: float, fps: int = 30) -> None:
    """Write a video of the size of Kinetics copies: a window that moves over a soft random picture, with grain."""
    import numpy as np

    from slowfast.datasets.synthetic import write_video

    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (40, 60, 3)).repeat(16, axis=0).repeat(16, axis=1)  # (640, 960, 3)
    picture = np.mean([np.roll(coarse, (y, x), (0, 1)) for y in range(0, 16, 4) for x in range(0, 16, 4)], axis=0)
    frames = np.empty((round(seconds * fps), 256, 340, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = (round(180 + 150 * wave(number / 40)) for wave in (np.sin, np.cos))
        grain = rng.normal(0, 4, frame.shape)
        frame[:] = (picture[top : top + 256, left : left + 340] + grain).clip(0, 255)
    write_video(path, frames, fps=fps)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (the run failed); a wrong request ends with 2."""
    args = parse_args(argv)
    try:
        {"text": text, "scoring": scoring}[args.part](args)
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
