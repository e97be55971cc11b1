"""OST: transport plans, texts of a test and of a training batch, whole steps, against the same written plainly."""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_common import CLOCKS, by_turns, hardware
from step_ways import load_oracle

from slowfast.report.table import format_table

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from slowfast.datasets.types import VideoBatch
    from slowfast.methods.ost.method import OST
    from slowfast.models.clip.model import CLIP
    from slowfast.text.text_bank import TextBank

LABEL_DB = Path(__file__).resolve().parents[1] / "label_db"
PARTS = ("solver", "test", "texts", "step")
DATASETS = ("hmdb51", "ucf101", "k400")
PER_CLASS = 4
KINDS = ("spatial", "temporal")
Ways = dict[str, Callable[[], object]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument(
        "--arch", default="vitb16", choices=("vitb16", "vitb32", "vitl14"), help="whose work is counted"
    )
    parser.add_argument("--frames", type=int, default=32, help="per clip (default 32)")
    parser.add_argument("--timed", nargs="*", default=["hmdb51"], choices=DATASETS, help="test: timed too, not counted")
    parser.add_argument("--videos", type=int, default=2, help="test: videos of a batch (default 2, as published)")
    parser.add_argument("--batch", type=int, default=32, help="training: videos of a batch (default 32, as published)")
    parser.add_argument("--shots", type=int, default=2, help="training: videos of each HMDB51 class (default 2)")
    parser.add_argument("--layers", type=int, default=2, help="texts: layers of the timed text tower (default 2)")
    parser.add_argument("--classes", type=int, default=0, help="the first N of each dataset (default 0: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each way (default 3)")


def run(args: argparse.Namespace) -> None:
    """Let the ways take turns, part by part."""
    import torch

    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print(f"OST, fp32; {hardware(device)}; {args.clock} clock, median of {args.repeat}")
    for part in args.parts:
        _PARTS[part](args, device)


def _times(
    name: str, ways: Ways, args: argparse.Namespace, device: torch.device, *, repeat: int = 0
) -> list[list[str]]:
    """Rows of a table: the ways, their times, how much faster than the first each is."""
    seconds = by_turns(list(ways.values()), repeat=repeat or args.repeat, device=device, clock=CLOCKS[args.clock])
    medians = [statistics.median(taken) for taken in seconds]
    return [
        [name, way, f"{1000 * median:.2f} ms", f"{medians[0] / median:.2f}x"]
        for way, median in zip(ways, medians, strict=True)
    ]


# -------------------------------------------------------------------------------------------------------------- solver


def _solver(args: argparse.Namespace, device: torch.device) -> None:
    """Plans alone, of cosines like those of CLIP."""
    import torch

    from slowfast.models.alignment import SinkhornOptions, sinkhorn

    loop = load_oracle("plain_ost").plan_by_loop
    rows = []
    for kinds, videos, texts in ((2, args.batch, args.batch), (2, 1, 400)):
        shape = (kinds, videos, texts, args.frames, PER_CLASS)
        cosines = (0.2 + 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(device)
        each, batch = (SinkhornOptions(stop=stop) for stop in ("each", "batch"))

        def plainly(kinds: Tensor) -> None:
            for own in kinds:
                loop(own.flatten(0, 1), eps=0.1, limit=100, tolerance=1e-2)

        ways: Ways = {
            "plain": partial(plainly, cosines),
            "ours, each": partial(sinkhorn, cosines, each),
            "ours, batch": partial(sinkhorn, cosines, batch),
        }
        rows += _times(f"{kinds} x {videos} x {texts} plans", ways, args, device, repeat=10 * args.repeat)
    print(f"\nTransport plans, {args.frames} frames, {PER_CLASS} texts\n")
    print(format_table(["what", "way", "time", "faster"], rows))


# --------------------------------------------------------------------------------------------------------------- texts


def _bank(dataset: str, args: argparse.Namespace) -> tuple[tuple[str, ...], TextBank]:
    """The descriptors that are shipped."""
    from slowfast.datasets.label_set import LabelSet
    from slowfast.text.descriptors import descriptor_bank
    from slowfast.text.tokenizer import Tokenizer

    whole = LabelSet.from_json(LABEL_DB / dataset / "index2cls.json")
    names = whole.names[: args.classes or None]
    some = LabelSet.from_names(names, source=whole.source)
    return names, descriptor_bank(some, dict.fromkeys(KINDS, ""), count=PER_CLASS, tokenizer=Tokenizer())


def _count(function: Callable[[], object]) -> float:
    """Operations of a forward on the meta device, in 10^12; a product and a sum are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return float(counter.get_total_flops()) / 1e12


def _hollow_clip(arch: str) -> CLIP:
    import torch

    from slowfast.models.clip.arch import PUBLISHED
    from slowfast.models.clip.model import CLIP

    with torch.device("meta"):
        return CLIP(PUBLISHED[arch].sizes)


def _count_video(clip: CLIP, frames: int) -> float:
    import torch

    side = clip.sizes.image_size
    return frames * _count(lambda: clip.encode_video(torch.empty(1, 3, 1, side, side, device="meta")))


def _count_texts(clip: CLIP, shapes: Sequence[tuple[int, ...]]) -> float:
    import torch

    texts = (torch.empty(shape, dtype=torch.long, device="meta") for shape in shapes)
    return sum(_count(partial(clip.encode_text, tokens)) for tokens in texts)


def _kept_shapes(tokens: Tensor) -> list[tuple[int, ...]]:
    """What the text tower is given when all texts are embedded to be kept: (number, length) of each chunk."""
    from slowfast.models.clip.text import trim_tokens
    from slowfast.text.text_bank import encode_tokens

    shapes = []

    def note(chunk: Tensor) -> Tensor:
        shapes.append(tuple(trim_tokens(chunk).shape))
        return chunk.new_ones(len(chunk), 1)

    encode_tokens(tokens.flatten(0, 1), encode=note)
    return shapes


def _test(args: argparse.Namespace, device: torch.device) -> None:
    """A batch of a test: texts embedded again, as published, or kept."""
    clip = _hollow_clip(args.arch)
    video = _count_video(clip, args.videos * args.frames)
    rows = []
    for dataset in DATASETS:
        _, bank = _bank(dataset, args)
        assert bank.tokens is not None
        prompts = bank.tokens.flatten(0, 1)
        again, once = _count_texts(clip, [tuple(prompts.shape)]), _count_texts(clip, _kept_shapes(bank.tokens))
        figures = [f"{figure:.2f}" for figure in (video, again, once)]
        rows.append([dataset, str(len(prompts)), *figures, f"{(video + again) / video:.2f}x"])
    print(f"\nCounted, {args.arch}: a batch of {args.videos} videos of {args.frames} frames, 10^12 operations\n")
    columns = ["dataset", "prompts", "frames", "texts, as published", "texts, once", "less for a batch"]
    print(format_table(columns, rows))
    if args.timed:
        rows = [row for dataset in args.timed for row in _timed_test(dataset, args, device)]
        print(f"\nTimed, {args.arch}: the same, one turn\n")
        print(format_table(["dataset", "way", "time", "faster"], rows))


def _timed_test(dataset: str, args: argparse.Namespace, device: torch.device) -> list[list[str]]:
    import torch

    method = _method(args.arch, "random", dataset, args).to(device).eval()
    batch = _batch(args.videos, args.frames, method.model.sizes.image_size).to(device)
    with torch.no_grad():
        method(_batch(1, 1, method.model.sizes.image_size).to(device))  # embeds the texts
        clock, seconds = CLOCKS[args.clock], []

        def as_published() -> None:
            tokens = torch.nn.functional.pad(method.text.tokens, (0, 77 - method.text.tokens.shape[-1]))
            for kind in tokens:
                for chunk in kind.flatten(0, 1).split(256):  # all at once would take another 10 GB
                    method.model.encode_text(chunk)
            method(batch)

        for way in (as_published, lambda: method(batch)):
            (taken,) = (
                by_turns([way], repeat=1, device=device, clock=clock)
                if device.type == "cuda"
                else ([_once(way, clock)],)
            )
            seconds.append(taken[0])
    return [
        [dataset, way, f"{taken:.1f} s", f"{seconds[0] / taken:.2f}x"]
        for way, taken in zip(("as published", "kept"), seconds, strict=True)
    ]


def _once(way: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    way()
    return clock() - start


def _texts(args: argparse.Namespace, device: torch.device) -> None:
    """Texts of a training batch, forward and backward."""
    hollow = _hollow_clip(args.arch)
    tower = _text_tower(args).to(device)
    rows, counts = [], []
    for dataset in ("hmdb51", "k400"):
        names, bank = _bank(dataset, args)
        assert bank.tokens is not None
        tokens = bank.tokens.unflatten(1, (len(KINDS), -1)).transpose(0, 1).to(device)  # (S, K, N, 77)
        label = _labels(len(names), args, shots=args.shots if dataset == "hmdb51" else 0)
        classes = label.unique()
        lengths = [int(kind[classes].argmax(dim=-1).max()) + 1 for kind in tokens]
        ways = {
            "plain": [kind[label].flatten(0, 1) for kind in tokens],
            "each class once": [kind[classes].flatten(0, 1) for kind in tokens],
            "and trimmed": [kind[classes, :, :n].flatten(0, 1) for kind, n in zip(tokens, lengths, strict=True)],
        }
        calls: Ways = {name: partial(_embed_and_return, tower, texts) for name, texts in ways.items()}
        timed = _times(dataset, calls, args, device)
        work = [_count_texts(hollow, [tuple(kind.shape) for kind in texts]) for texts in ways.values()]
        rows += [[*row, f"{one:.3f}", f"{work[0] / one:.2f}x"] for row, one in zip(timed, work, strict=True)]
        video = _count_video(hollow, args.batch * args.frames)
        counts.append(
            f"{dataset}: {len(classes)} classes, {' and '.join(map(str, lengths))} tokens; frames are {video:.1f} of "
            f"{video + work[0]:.1f}, so that all of a step is {(video + work[0]) / (video + work[-1]):.3f}x less"
        )
    print(f"\nTexts of a training batch of {args.batch}, {args.arch}")
    print(f"Timed: forward and backward of {args.layers} layers; counted: forward of all, 10^12 operations\n")
    print("\n".join(counts), end="\n\n")
    print(format_table(["dataset", "way", "time", "faster", "counted", "less"], rows))


def _embed_and_return(tower: CLIP, kinds: Sequence[Tensor]) -> None:
    import torch

    torch.stack([tower.encode_text(tokens).square().mean() for tokens in kinds]).sum().backward()
    tower.zero_grad()


def _text_tower(args: argparse.Namespace) -> CLIP:
    """Some layers of the text tower of a published model, which are all alike, beside an image tower unused."""
    from dataclasses import replace

    from slowfast.models.build import build_clip
    from slowfast.models.clip.arch import PUBLISHED, ClipSizes
    from slowfast.models.clip.weights import random_clip_state_dict

    sizes = PUBLISHED[args.arch].sizes
    assert isinstance(sizes, ClipSizes), f"{args.arch}: the image tower is no ViT"
    sizes = replace(sizes, text_layers=args.layers, vision_layers=1, vision_width=64)
    return build_clip(random_clip_state_dict(sizes, seed=0))


def _labels(num_classes: int, args: argparse.Namespace, *, shots: int) -> Tensor:
    """Labels of a batch: of the first in an epoch of so many videos of each class, or, with 0, of endless ones."""
    import torch

    generator = torch.Generator().manual_seed(0)
    if not shots:
        return torch.randint(num_classes, (args.batch,), generator=generator)
    order = torch.randperm(num_classes * shots, generator=generator)[: args.batch]
    return order % num_classes


# ---------------------------------------------------------------------------------------------------------------- step


def _step(args: argparse.Namespace, device: torch.device) -> None:
    """Losses and gradients of a training step with a small CLIP."""
    import torch

    from slowfast.models.clip.arch import ClipSizes
    from slowfast.models.clip.weights import random_clip_state_dict

    sizes = ClipSizes(
        image_size=64, patch_size=16, vision_width=256, vision_layers=4, embed_dim=128, text_width=128, text_layers=3
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        torch.save(random_clip_state_dict(sizes, seed=0), Path(folder) / "clip.pt")
        method = _method("custom", f"{folder}/clip.pt", "hmdb51", args).to(device).train()
    label = _labels(len(method.text.names), args, shots=args.shots)
    batch = _batch(args.batch, args.frames, sizes.image_size, label).to(device)
    plain = load_oracle("plain_ost").PlainOst(copy.copy(method))

    def step(score: Callable[[], Sequence[Tensor]]) -> Callable[[], float]:
        def call() -> float:
            loss = torch.stack(list(score())).sum()
            loss.backward()
            method.zero_grad()
            return loss.item()

        return call

    ways = {
        "plain": step(lambda: plain.losses(batch.frames, batch.label)),
        "ours": step(lambda: list(method(batch).losses.values())),
    }
    print(f"\nLosses of a step: {', '.join(f'{way():.6f}' for way in ways.values())}")
    rows = _times(f"{args.batch} videos, {args.frames} frames", dict(ways), args, device)
    print(f"\nA training step without optimiser, small CLIP ({sizes.image_size} x {sizes.image_size} pixels)\n")
    print(format_table(["what", "way", "time", "faster"], rows))


def _method(arch: str, weights: str, dataset: str, args: argparse.Namespace) -> OST:
    from slowfast.config.defaults import get_cfg
    from slowfast.datasets.label_set import LabelSet
    from slowfast.methods.build import build_method

    cfg = get_cfg()
    keys = {"METHOD": "ost", "MODEL.ARCH": arch, "MODEL.CLIP_WEIGHTS": weights, "RNG_SEED": 1, "OST.STOP": "batch"}
    keys |= {"MODEL.CLIP_ACTIVATION": "quick_gelu", "DATA.NUM_FRAMES": args.frames, "OST.N": PER_CLASS}
    cfg.merge_from_list([word for pair in keys.items() for word in pair])
    cfg.freeze()
    whole = LabelSet.from_json(LABEL_DB / dataset / "index2cls.json")
    some = LabelSet.from_names(whole.names[: args.classes or None], source=whole.source)
    method: Any = build_method(cfg, some)
    return method


def _batch(videos: int, frames: int, side: int, label: Tensor | None = None) -> VideoBatch:
    import torch

    from slowfast.datasets.types import VideoBatch

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (videos, 3, frames, side, side), generator=generator, dtype=torch.uint8)
    numbers = torch.arange(videos)
    return VideoBatch(
        pixels, label=torch.zeros_like(numbers) if label is None else label, video_id=numbers, view=0 * numbers
    )


_PARTS = {"solver": _solver, "test": _test, "texts": _texts, "step": _step}
