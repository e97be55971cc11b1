"""Few-shot episodes: ordered alignment of queries with prototypes, against the same cell by cell."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from bench_common import CLOCKS, by_turns, hardware
from step_ways import load_oracle

from slowfast.report.table import format_table

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from slowfast.datasets.episodes import EpisodePlan

PARTS = ("alignment", "memo")
CLASSES, PER_CLASS, QUERY = 24, 100, 1
"""Test classes and their videos in Kinetics-100 and SSv2-Small; queries per class of a published test."""
SMOOTHING = 0.5
"""Lambda of CLIP-FSAR."""
Ways = dict[str, Callable[[], object]]
Align = Callable[["Tensor"], "Tensor"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--queries", type=int, default=25, help="of an episode, all classes together (default 25)")
    parser.add_argument("--way", type=int, default=5, help="classes of an episode (default 5)")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32], help="per clip (default 8, as published; 32)")
    parser.add_argument("--episodes", type=int, default=60, help="memo: episodes that are timed (default 60)")
    parser.add_argument("--videos", type=int, default=7, help="memo: videos per class that are timed (default 7)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--repeat", type=int, default=9, help="turns of each way (default 9)")


def run(args: argparse.Namespace) -> None:
    """Let the ways take turns, part by part."""
    import torch

    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print(
        f"Episodes, fp32; {hardware(device)}; PyTorch {torch.__version__}; {args.clock} clock, median of {args.repeat} "
        "turns, ratios of the same turn"
    )
    for part in args.parts:
        _PARTS[part](args, device)


def _times(name: str, ways: Ways, args: argparse.Namespace, device: torch.device) -> list[list[str]]:
    """Rows of a table: the ways, their times, how many times as fast as the first each is."""
    turns = by_turns(list(ways.values()), repeat=args.repeat, device=device, clock=CLOCKS[args.clock])
    rows = []
    for way, seconds in zip(ways, turns, strict=True):
        ratio = statistics.median(first / own for first, own in zip(turns[0], seconds, strict=True))
        rows.append([name, way, f"{1000 * statistics.median(seconds):.2f} ms", f"{ratio:.1f}x"])
    return rows


# ----------------------------------------------------------------------------------------------------------- alignment


def _alignment(args: argparse.Namespace, device: torch.device) -> None:
    """Lengths both ways of all queries and prototypes of an episode, and their gradient."""
    import torch

    from slowfast.models.alignment import otam

    cells = partial(load_oracle("plain_clip_fsar").align, smoothing=SMOOTHING)
    columns = partial(otam, smoothing=SMOOTHING)
    aligns: dict[str, Align] = {
        "cell by cell": lambda distances: cells(distances) + cells(distances.mT),
        "ours": lambda distances: columns(distances) + columns(distances.mT),
        "ours, both ways in one call": lambda distances: columns(torch.stack((distances, distances.mT))).sum(dim=0),
    }
    rows = []
    for frames in args.frames:
        shape = (args.queries, args.way, frames, frames)
        distances = (2 * torch.rand(shape, generator=torch.Generator().manual_seed(0))).to(device).requires_grad_()
        plain, *others = (_lengths_and_gradient(align, distances) for align in aligns.values())
        differences = [["", ""]]
        for own in others:
            differences.append([f"{(a - b).abs().max().item():.0e}" for a, b in zip(plain, own, strict=True)])
        ways: Ways = {name: partial(_lengths_and_gradient, align, distances) for name, align in aligns.items()}
        timed = _times(" x ".join(map(str, shape)), ways, args, device)
        rows += [[*row, *found] for row, found in zip(timed, differences, strict=True)]
    print("\nAlignment both ways, forward and backward\n")
    print(format_table(["distances", "way", "time", "faster", "lengths differ by", "gradients by"], rows))


def _lengths_and_gradient(align: Align, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths, (Q, W), and the gradient of their total, (Q, W, T, T)."""
    import torch

    lengths = align(distances)
    (gradient,) = torch.autograd.grad(lengths.sum(), distances)
    return lengths.detach(), gradient


# ---------------------------------------------------------------------------------------------------------------- memo


def _memo(args: argparse.Namespace, device: torch.device) -> None:
    """A test whose videos are encoded once, against one that encodes the clips of every episode."""
    rows = []
    for shot in (1, 5):
        plan = _plan(args.way, shot, count=10_000, per_class=PER_CLASS)
        clips = len(plan) * args.way * (shot + QUERY)
        rows.append([f"{args.way}-way {shot}-shot, 10,000 episodes", str(8 * clips), str(8 * len(plan.used)),
                     f"{clips / len(plan.used):.0f}x"])  # fmt: skip
    print(f"\nFrames that a test of {CLASSES} classes with {PER_CLASS} videos each encodes, counted\n")
    print(format_table(["test", "every episode anew", "every video once", "fewer"], rows))
    rows = []
    for shot in (1, 5):
        plan = _plan(args.way, shot, count=args.episodes, per_class=args.videos)
        anew, once = _test_ways(plan, device)
        difference = (anew() - once()).abs().max().item()
        ways: Ways = {"every episode anew": anew, "every video once": once}
        name = f"{args.way}-way {shot}-shot, {len(plan)} episodes, {len(plan.used)} videos"
        timed = _times(name, ways, args, device)
        rows += [[*row, found] for row, found in zip(timed, ("", f"{difference:.0e}"), strict=True)]
    print("\nThe same of a few episodes, scored by alignment; a ViT of 4 layers, width 192, 8 frames of 64 x 64\n")
    print(format_table(["test", "way", "time", "faster", "scores differ by"], rows))


def _plan(way: int, shot: int, *, count: int, per_class: int) -> EpisodePlan:
    from slowfast.datasets.annotation import VideoRecord
    from slowfast.datasets.episodes import EpisodeDraws, plan_episodes
    from slowfast.datasets.types import EpisodeSpec

    records = [VideoRecord("", label) for label in range(CLASSES) for _ in range(per_class)]
    spec = EpisodeSpec(way=way, shot=shot, query=QUERY, count=count, seed=0)
    names = [str(number) for number in range(CLASSES)]
    return plan_episodes(EpisodeDraws([r.label for r in records], spec=spec, where="benchmark", names=names), records)


def _test_ways(plan: EpisodePlan, device: torch.device) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Functions that give the scores of all episodes."""
    import numpy as np
    import torch

    from slowfast.engine.episodes import score_episodes
    from slowfast.models.clip.arch import ClipSizes
    from slowfast.models.clip.vision import VisionTransformer
    from slowfast.models.episode_heads import OtamHead

    torch.manual_seed(0)
    sizes = ClipSizes(
        image_size=64, patch_size=8, vision_width=192, vision_layers=4, embed_dim=128, text_width=64, text_layers=1
    )
    tower = VisionTransformer(sizes).to(device).eval()
    videos = torch.randn(len(plan.records), 3, 8, 64, 64, device=device)
    head = OtamHead(smoothing=SMOOTHING)

    def scores(features: Callable[[np.ndarray], Tensor], episodes: np.ndarray) -> Tensor:
        lots = score_episodes(head, plan, features, episodes=episodes, device=device, memo_bytes=1e9)
        return torch.cat([lot.logits for lot in lots])

    @torch.inference_mode()
    def anew() -> Tensor:
        return torch.cat([
            scores(lambda clips: tower(videos[clips]).cpu(), np.array([number])) for number in range(len(plan))
        ])  # fmt: skip

    @torch.inference_mode()
    def once() -> Tensor:
        table = torch.zeros(len(plan.records), 8, sizes.embed_dim)
        for clips in np.array_split(plan.used, max(1, len(plan.used) // 10)):
            table[clips] = tower(videos[clips]).cpu()
        return scores(lambda clips: table[clips], np.arange(len(plan)))

    return anew, once


_PARTS = {"alignment": _alignment, "memo": _memo}
