#!/usr/bin/env python3
"""Encode the prompts of a dataset's classes with CLIP, for DATA.TEXT_AUG_FEATURE_FILE; or look at a class.

    python utils/text_prompts.py --dataset k400 --clip ViT-B/16 --output features
    python utils/text_prompts.py --dataset k400 --clip ViT-B/16 --output features --classes A.json B.json
    python utils/text_prompts.py --show "playing guitar" --plot guitar.svg

Prompts are templates of classes_label_<dataset>.yml, filled with each class name, bare and followed by each sentence
tail of classes_xprompt_<dataset>.yml. A file that has the features already is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.config.redaction import redact_tracebacks
from slowfast.utils.errors import USER_ERRORS, error_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from slowfast.models.clip.layers import Activation
    from slowfast.models.clip.model import CLIP
    from slowfast.text.features import PromptTable

LABEL_DB = Path(__file__).resolve().parents[1] / "label_db"
KINDS = ("xmix", "a", "xoo", "xao", "xaa")
RANDOM = "random:"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", help="k400, k600, ucf101, hmdb51, ...: which files of the folder of texts")
    add("--root", type=Path, default=LABEL_DB, help="the folder of texts (default label_db)")
    add("--clip", help="ViT-B/16, ViT-L/14, ..., a file of weights, or random:ViT-B/16 to try things out")
    add("--activation", choices=("quick_gelu", "gelu"), help="of --clip, where its file does not say")
    add("--output", type=Path, help="the folder to write to")
    add(
        "--type", choices=KINDS, default="xmix", help="tails: all, none, of objects, action, sub-actions (default xmix)"
    )
    add("--templates", type=int, default=8, metavar="N", help="use the first N templates (default 8)")
    add(
        "--classes",
        type=Path,
        nargs="+",
        metavar="JSON",
        help="index2cls files: these classes, in their order, as they spell them (default: all)",
    )
    add("--pad", action="store_true", help="repeat prompts instead of a mask and write the bare tensor, as published")
    add("--format", choices=("pt", "safetensors"), default="pt")
    add("--stem", help="beginning of the file name (default classes_text_feats, as published for training sets)")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    add("--batch-size", type=int, default=256, help="texts at a time (default 256)")
    add("--allow-torchscript", action="store_true", help="let --clip be a TorchScript archive of unknown origin")
    add("--force", action="store_true", help="replace a file of other features")
    add("--show", metavar="CLASS", help="print the graph and the prompts of a class")
    add("--plot", type=Path, metavar="FILE", help="draw the graph of the class of --show: .svg, .png, .pdf")
    args = parser.parse_args(argv)
    if args.plot and not args.show:
        parser.error("--plot draws the class that --show names")
    missing = [name for name in ("dataset", "clip", "output") if not getattr(args, name)]
    if not args.show and missing:
        parser.error(f"--{missing[0]} is needed; or --show CLASS")
    if args.templates < 1 or args.batch_size < 1:
        parser.error("--templates and --batch-size must be at least 1")
    return args


def make_table(args: argparse.Namespace) -> PromptTable:
    """Put the prompts of the wanted classes together."""
    from slowfast.datasets.label_set import LabelSet
    from slowfast.text.class_lists import join_lists
    from slowfast.text.features import prompt_table
    from slowfast.text.prompt_bank import read_class_file, read_prompts

    label_file = args.root / f"classes_label_{args.dataset}.yml"
    labels = read_class_file(label_file)
    if args.templates > len(labels.templates):
        raise ValueError(f"--templates: {args.templates}, but {label_file} has {len(labels.templates)}")
    names = own = labels.classes
    if args.classes:
        full = args.root / args.dataset / "index2cls.json"
        names, own = join_lists(args.classes, dataset=LabelSet.from_json(full).names if full.is_file() else own)
    prompt_file = args.root / f"classes_xprompt_{args.dataset}.yml"
    tails = {} if args.type == "a" else read_prompts(prompt_file)
    try:
        table = prompt_table(own, tails, templates=labels.templates[: args.templates], kind=args.type, pad=args.pad)
    except ValueError as error:
        raise ValueError(f"{prompt_file}: {error}") from error
    return replace(table, names=names)


def load_clip(
    source: str, *, activation: Activation | None = None, allow_torchscript: bool = False
) -> tuple[CLIP, str]:
    """Build a plain CLIP, also from the weights of a tuned one; returns it and what file names call it.

    Raises:
        ValueError: if there are no such weights, or they were trained with another activation.
    """
    import torch

    from slowfast.models.build import build_clip
    from slowfast.models.clip.arch import PUBLISHED, published_clip, read_sizes
    from slowfast.models.clip.model import CLIP
    from slowfast.models.clip.weights import random_clip_state_dict, read_clip

    if source.startswith(RANDOM):
        published = published_clip(source.removeprefix(RANDOM))
        if published is None:
            allowed = ", ".join(f"{RANDOM}{entry.name}" for entry in PUBLISHED.values())
            raise ValueError(f"--clip: unknown model {source!r}; allowed: {allowed}")
        state, recorded = random_clip_state_dict(published.sizes, seed=0), None
        name = f"random-{published.name}"
    else:
        state, recorded = read_clip(source, allow_torchscript=allow_torchscript)
        archives = {Path(entry.url).name: entry.name for entry in PUBLISHED.values()}
        known = published_clip(source)
        name = known.name if known else archives.get(Path(source).name, Path(source).stem)
        if recorded is None and activation is None:
            print(f"{source} does not say which activation it was trained with: taking QuickGELU; see --activation")
    if recorded and activation and recorded != activation:
        raise ValueError(f"--activation: is {activation}, but {source} was trained with {recorded}")
    with torch.device("meta"):
        own = CLIP(read_sizes(state, source=source)).state_dict()
    plain = {name: tensor for name, tensor in state.items() if name in own}
    return build_clip(plain, activation=activation or recorded or "quick_gelu", source=source).eval(), name


def file_name(args: argparse.Namespace, model: str) -> str:
    """The published name: classes_text_feats_k400_tpl8_xmix_ViT-B_16.pt."""
    stem, model = args.stem or "classes_text_feats", model.replace("/", "_")
    classes = "".join(f"_{path.stem.removesuffix('_index2cls')}" for path in args.classes or ())
    return f"{stem}_{args.dataset}{classes}_tpl{args.templates}_{args.type}_{model}.{args.format}"


def device_of(text: str) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: if there is none.
    """
    import torch

    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise ValueError(f"--device: unknown device {text!r}; allowed: cpu, cuda, cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device: is {text}, but this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def compute(table: PromptTable, clip: CLIP, *, total: int, batch_size: int) -> Tensor:
    """Encode a table with a progress bar, (K, n, E)."""
    from tqdm import tqdm

    from slowfast.models.clip.prefix import encode_continuations
    from slowfast.text.features import encode_table
    from slowfast.text.tokenizer import Tokenizer

    with tqdm(total=total, unit=" texts", disable=None) as bar:
        return encode_table(
            table,
            encode=lambda *parts: encode_continuations(clip, *parts, batch_size=batch_size),
            tokenizer=Tokenizer(),
            context_length=clip.sizes.context_length,
            progress=bar.update,
        )


def encode(args: argparse.Namespace) -> None:
    """Build the feature file."""
    from slowfast.models.clip.layers import activation_of
    from slowfast.models.clip.model import TEXT_TOWER
    from slowfast.text.features import build_features
    from slowfast.utils.io import sha256_tensors

    device, table = device_of(args.device), make_table(args)
    clip, model = load_clip(args.clip, activation=args.activation, allow_torchscript=args.allow_torchscript)
    tower = {name: tensor for name, tensor in clip.state_dict().items() if name.startswith(TEXT_TOWER)}
    weights = f"{sha256_tensors(tower)} {activation_of(clip)}"
    counts = table.mask.sum(dim=1).tolist()
    total = len({text for row in table.texts for text in row if text is not None})
    print(
        f"{len(table.names)} classes, {len(table.templates)} templates, {args.type}: {min(counts)} to {max(counts)} "
        f"prompts per class, {sum(counts) / len(counts):.1f} on average; {total} different texts"
    )
    start = time.perf_counter()
    built = build_features(
        args.output / file_name(args, model),
        table,
        weights_sha256=weights,
        features=lambda: compute(table, clip.to(device), total=total, batch_size=args.batch_size),
        bare=args.pad,
        force=args.force,
    )
    content = built.content_sha256[:16]
    if built.kept:
        print(f"kept {built.path}: it has these prompts and weights (content {content})")
    else:
        shape = [len(table.names), len(table.texts[0]), clip.sizes.embed_dim]
        kind, seconds = "padded" if args.pad else "with mask", time.perf_counter() - start
        print(f"wrote {built.path}: {shape} fp32 {kind}, in {seconds:.1f} s (content {content})")


def show(args: argparse.Namespace) -> None:
    """Print, and draw if wanted, what is known of a class."""
    from slowfast.visualization.graph import describe_class, draw_graph, find_class

    found = find_class(args.show, args.root, dataset=args.dataset)
    print(describe_class(found))
    if args.plot:
        draw_graph(args.plot, found.name, found.graph)
        print(f"\nwrote {args.plot}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (the run failed); a wrong request ends with 2."""
    args = parse_args(argv)
    try:
        show(args) if args.show else encode(args)
    except (*USER_ERRORS, MemoryError) as error:
        print(error_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main())
