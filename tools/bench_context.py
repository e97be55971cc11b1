"""TC-CLIP: image tower, text, merging, attention and whole steps, against the same written plainly."""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_common import CLOCKS, by_turns, hardware
from step_ways import load_oracle

from slowfast.report.table import format_table

if TYPE_CHECKING:
    from torch import Tensor

    from slowfast.datasets.types import VideoBatch
    from slowfast.methods.tc_clip.method import TCCLIP

CLASSES = Path(__file__).resolve().parents[1] / "label_db" / "k400"
PUBLISHED_LENGTH = {"index2cls": 30, "rephrased": 77}
"""Wording of the class names -> tokens of every prompt in the published recipes."""
PARTS = ("attention", "merging", "tower", "text", "whole")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing to do, in several ways; the first is the plain one."""

    name: str
    ways: dict[str, Callable[[], object]]
    gmac: tuple[float, float] | None = None
    """Multiplications of the plain way and of ours, in 10^9."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--arch", default="vitb16", choices=("vitb16", "vitb32", "vitl14"))
    parser.add_argument("--frames", type=int, default=16, help="per clip (default 16)")
    parser.add_argument("--batch", type=int, default=1, help="clips (default 1)")
    parser.add_argument("--classes", type=int, default=400, help="the first N of Kinetics-400 (default 400)")
    parser.add_argument("--names", default="index2cls", choices=("index2cls", "rephrased"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--no-training", action="store_true", help="forward passes alone")
    parser.add_argument("--no-counts", action="store_true", help="do not count multiplications")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each way (default 3)")


def run(args: argparse.Namespace) -> None:
    """Build the method with random weights, and let the ways take turns."""
    import torch

    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    method = _method(args).to(device)
    plain = load_oracle("plain_tc_clip")
    batch = _batch(args).to(device)
    rows = [row for part in args.parts for row in _ROWS[part](method, plain, batch, args)]
    table = []
    for row in rows:
        seconds = by_turns(list(row.ways.values()), repeat=args.repeat, device=device, clock=CLOCKS[args.clock])
        medians = [statistics.median(taken) for taken in seconds]
        for (name, _), median in zip(row.ways.items(), medians, strict=True):
            counts = "" if row.gmac is None else f"{row.gmac[0 if name == 'plain' else 1]:.1f}"
            table.append([row.name, name, f"{1000 * median:.1f} ms", f"{medians[0] / median:.2f}x", counts])
    title = f"{args.arch}, {args.frames} frames, batch {args.batch}, {args.classes} classes ({args.names}), fp32"
    print(f"{title}; {hardware(device)}; {args.threads} threads, {args.clock} clock, median of {args.repeat}\n")
    print(format_table(["what", "way", "time", "faster", "GMAC"], table))


def _method(args: argparse.Namespace) -> TCCLIP:
    from slowfast.config.defaults import get_cfg
    from slowfast.datasets.label_set import LabelSet
    from slowfast.methods.build import build_method

    names = list(json.loads((CLASSES / f"{args.names}.json").read_text(encoding="utf-8")).values())[: args.classes]
    cfg = get_cfg()
    keys = {"METHOD": "tc_clip", "MODEL.ARCH": args.arch, "MODEL.CLIP_WEIGHTS": "random", "RNG_SEED": 1}
    keys |= {"DATA.NUM_FRAMES": args.frames, "MODEL.LOSS_FUNC": "cross_entropy"}
    cfg.merge_from_list([word for pair in keys.items() for word in pair])
    cfg.freeze()
    method: Any = build_method(cfg, LabelSet.from_names(names))
    return method


def _batch(args: argparse.Namespace) -> VideoBatch:
    import torch

    from slowfast.datasets.types import VideoBatch

    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (args.batch, 3, args.frames, 224, 224), generator=generator, dtype=torch.uint8)
    label = torch.arange(args.batch) % args.classes
    return VideoBatch(frames, label=label, video_id=torch.arange(args.batch), view=torch.zeros_like(label))


def _set_way(method: TCCLIP, way: str) -> None:
    from slowfast.models.clip.vision import VisionTransformer

    tower = method.model.visual
    assert isinstance(tower, VisionTransformer)
    for block in tower.transformer.resblocks:
        block.options = copy.copy(block.options)
        object.__setattr__(block.options, "way", way)


def _pairs(
    name: str,
    ways: dict[str, Callable[[], Tensor]],
    parameters: Sequence[Tensor],
    args: argparse.Namespace,
    gmac: tuple[float, float] | None = None,
) -> list[Row]:
    """Rows of the forward, and of forward and backward, of functions."""
    import torch

    def forward(function: Callable[[], Tensor]) -> Callable[[], object]:
        def call() -> None:
            with torch.no_grad():
                function()

        return call

    def both(function: Callable[[], Tensor]) -> Callable[[], object]:
        def call() -> None:
            function().float().square().mean().backward()
            for parameter in parameters:
                parameter.grad = None

        return call

    rows = [Row(name=f"{name}, forward", ways={key: forward(way) for key, way in ways.items()}, gmac=gmac)]
    if not args.no_training:
        rows.append(Row(name=f"{name}, forward and backward", ways={key: both(way) for key, way in ways.items()}))
    return rows


def _attention(method: TCCLIP, plain: Any, batch: VideoBatch, args: argparse.Namespace) -> list[Row]:  # noqa: ANN401
    """One layer's attention, between its projections."""
    import torch

    from slowfast.models.clip.arch import HEAD_WIDTH
    from slowfast.models.context_attention import Context, context_attention

    del plain
    sizes, device = method.model.sizes, batch.frames.device
    heads, length = sizes.vision_width // HEAD_WIDTH, 1 + sizes.grid_size**2
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    q, k, v = (random(args.batch, args.frames, length, heads, HEAD_WIDTH) for _ in range(3))
    keys, values = (random(args.batch, 96, heads, HEAD_WIDTH) for _ in range(2))
    context = Context(keys, values, random(heads))

    def explicit() -> Tensor:
        def behind(own: Tensor, shared: Tensor) -> Tensor:
            copies = shared[:, None].expand(-1, args.frames, -1, -1, -1)
            return torch.cat((own, copies), dim=2).transpose(2, 3)

        scores = q.transpose(2, 3) @ behind(k, context.keys).transpose(-1, -2) * HEAD_WIDTH**-0.5
        assert context.bias is not None
        bias = torch.cat((scores.new_zeros(heads, 1, length), context.bias[:, None, None].expand(-1, -1, 96)), dim=-1)
        return ((scores + bias).softmax(dim=-1) @ behind(v, context.values)).transpose(2, 3)

    ways = {
        "plain": explicit,
        "joined": lambda: context_attention(q, k, v, context, way="joined"),
        "parts": lambda: context_attention(q, k, v, context, way="parts"),
    }
    assert context.bias is not None
    return _pairs("attention of one layer", ways, (q, k, v, context.keys, context.values, context.bias), args)


def _merging(method: TCCLIP, plain: Any, batch: VideoBatch, args: argparse.Namespace) -> list[Row]:  # noqa: ANN401
    """One layer's merging of seeds."""
    import torch

    from slowfast.methods.tc_clip.context_tokens import seeds_per_frame
    from slowfast.methods.tc_clip.token_merge import group_means, merge_groups, merge_schedule

    sizes = method.model.sizes
    count = args.frames * seeds_per_frame(sizes.grid_size**2, 0.3)
    seeds = torch.randn(args.batch, count, sizes.vision_width, generator=torch.Generator().manual_seed(0))
    seeds = seeds.to(batch.frames.device).requires_grad_()
    removals = merge_schedule(count, 96, 100)
    kept = count - sum(removals)
    ways = {
        "plain": lambda: plain.merge(seeds, removals),
        "ours": lambda: group_means(seeds, merge_groups(seeds, removals), kept),
    }
    return _pairs(f"merging {count} seeds", ways, (seeds,), args)


def _tower(method: TCCLIP, plain: Any, batch: VideoBatch, args: argparse.Namespace) -> list[Row]:  # noqa: ANN401
    import torch

    frames = method.normalise(batch.frames)

    def joined(tokens: Any) -> Tensor:  # noqa: ANN401
        return torch.cat([tokens[0].flatten(), *(context.flatten() for context in tokens[1])])

    def ours(way: str) -> Callable[[], Tensor]:
        def call() -> Tensor:
            _set_way(method, way)
            return joined(method.model.visual(frames))

        return call

    oracle = plain.PlainTcClip(method)
    ways = {"plain": lambda: joined(oracle.encode_videos(frames)), "joined": ours("joined"), "parts": ours("parts")}
    gmac = None
    if not args.no_counts:
        meta = copy.deepcopy(method).to("meta")
        hollow = frames.to("meta")
        gmac = (
            _count(lambda: plain.PlainTcClip(meta).encode_videos(hollow)),
            _count(lambda: meta.model.visual(hollow)),
        )
    return _pairs("image tower", ways, list(method.parameters()), args, gmac)


def _text(method: TCCLIP, plain: Any, batch: VideoBatch, args: argparse.Namespace) -> list[Row]:  # noqa: ANN401
    """All classes for all videos; a test keeps what does not depend on the video, training does not."""
    import torch

    oracle = plain.PlainTcClip(method, context_length=PUBLISHED_LENGTH[args.names])
    width = method.model.sizes.embed_dim
    context = torch.randn(args.batch, 96, width, generator=torch.Generator().manual_seed(0)).to(batch.frames.device)

    def plainly() -> Tensor:
        return torch.stack([oracle.encode_classes([own]) for own in context])

    def ours() -> Tensor:
        method.train(torch.is_grad_enabled())
        return method.text(method.model, (context,))

    gmac = None
    if not args.no_counts:
        meta = copy.deepcopy(method).to("meta").eval()
        hollow = context.to("meta")
        counted = plain.PlainTcClip(meta, context_length=PUBLISHED_LENGTH[args.names])
        gmac = (
            _count(lambda: [counted.encode_classes([own]) for own in hollow]),
            _count(lambda: meta.text(meta.model, (hollow,))),
        )
    return _pairs("text", {"plain": plainly, "ours": ours}, list(method.parameters()), args, gmac)


def _whole(method: TCCLIP, plain: Any, batch: VideoBatch, args: argparse.Namespace) -> list[Row]:  # noqa: ANN401
    import torch
    from torch.nn import functional as F

    oracle = plain.PlainTcClip(method, context_length=PUBLISHED_LENGTH[args.names])

    def ours(way: str) -> Callable[[], Tensor]:
        def call() -> Tensor:
            _set_way(method, way)
            method.train(torch.is_grad_enabled())
            return F.cross_entropy(method(batch).logits, batch.label)

        return call

    ways = {
        "plain": lambda: F.cross_entropy(oracle(batch.frames), batch.label),
        "joined": ours("joined"),
        "parts": ours("parts"),
    }
    with torch.no_grad():
        found = [way().item() for way in ways.values()]
    losses = ", ".join(f"{loss:.6f}" for loss in found)
    print(f"Losses: {losses}; with random weights patches nearly tie, so that rounding may choose other seeds\n")
    return _pairs("scoring, and a step's gradients", ways, list(method.parameters()), args)


def _count(function: Callable[[], object]) -> float:
    """Multiplications of a forward on the meta device, in 10^9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return float(counter.get_total_flops()) / 2e9


_ROWS = {"attention": _attention, "merging": _merging, "tower": _tower, "text": _text, "whole": _whole}
