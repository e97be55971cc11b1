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

PARTS = ("alignment",)
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


_PARTS = {"alignment": _alignment}
