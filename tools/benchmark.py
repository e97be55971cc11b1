#!/usr/bin/env python3
"""Measure parts of the project, each against another way to do the same, in one process and by turns.

python tools/benchmark.py text
python tools/benchmark.py text --dataset k400 --classes 5 --model ViT-B/16 --device cuda --repeat 5
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
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


def by_turns(ways: Sequence[Callable[[], object]], *, repeat: int, device: torch.device) -> list[list[float]]:
    """Seconds of each call, the ways taking turns after one round that does not count."""
    import torch

    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(repeat + 1):
        for way, taken in zip(ways, seconds, strict=True):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                taken.append(time.perf_counter() - start)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (the run failed); a wrong request ends with 2."""
    args = parse_args(argv)
    try:
        {"text": text}[args.part](args)
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
