"""Prompt features, against the padded list in batches of 77 tokens."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from bench_common import TINY, by_turns, random_clip

from slowfast.report.table import format_table

if TYPE_CHECKING:
    from torch import Tensor

    from slowfast.text.features import PromptTable

LABEL_DB = Path(__file__).resolve().parents[1] / "label_db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--root", type=Path, default=LABEL_DB, help="the folder of texts (default label_db)")
    parser.add_argument("--dataset", default="k400")
    parser.add_argument("--classes", type=int, default=20, help="the first N classes; 0 for all (default 20)")
    parser.add_argument("--templates", type=int, default=8, help="the first N templates (default 8)")
    parser.add_argument("--model", default=TINY, help="tiny (default) or ViT-B/16, ViT-L/14; weights are random")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=256, help="texts at a time, of both ways (default 256)")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each way (default 3)")


def tables(args: argparse.Namespace) -> tuple[PromptTable, PromptTable]:
    """The prompts as we encode them, and padded as published."""
    from slowfast.text.features import prompt_table
    from slowfast.text.prompt_bank import read_class_file, read_prompts

    labels = read_class_file(args.root / f"classes_label_{args.dataset}.yml")
    tails = read_prompts(args.root / f"classes_xprompt_{args.dataset}.yml")
    names, templates = labels.classes[: args.classes or None], labels.templates[: args.templates]
    ours, padded = (prompt_table(names, tails, templates=templates, pad=pad) for pad in (False, True))
    return ours, padded


def run(args: argparse.Namespace) -> None:
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
