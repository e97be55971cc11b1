#!/usr/bin/env python3
"""Convert the weights of a CLIP between projects, and account for every entry.

    python tools/convert_weights.py SOURCE TARGET
    python tools/convert_weights.py SOURCE TARGET.safetensors --to openai
    python tools/convert_weights.py SOURCE TARGET.pth --to vifi

Reads OpenAI's archives, state dicts of OpenAI, open_clip and Hugging Face, checkpoints of Open-VCLIP, FROSTER, STDD,
ViFi-CLIP, OST and TC-CLIP, and safetensors of all of these. Fails, and writes nothing, when an entry is missing,
unexpected or of another shape. docs/weights.md lists the files.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.config.redaction import redact, redact_tracebacks
from slowfast.utils.errors import error_line

if TYPE_CHECKING:
    from torch import Tensor

    from slowfast.models.clip.arch import AnyClipSizes
    from slowfast.models.clip.convert import Conversion, Rules
    from slowfast.models.clip.files import WeightFile
    from slowfast.models.clip.layers import Activation

LAYOUTS = ("auto", "ours", "openai", "open_clip", "hf", "ost", "vifi", "tc_clip")
TARGETS = ("ours", "openai", "ost", "vifi", "tc_clip")
ACTIVATIONS = ("quick_gelu", "gelu")
_SHOWN = 10


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the file, or the name of a published CLIP such as ViT-B/16")
    parser.add_argument("target", type=Path, help="the file to write: .safetensors, .pth, .pyth or .pt")
    parser.add_argument("--to", choices=TARGETS, default="ours", help="names to write (default ours)")
    parser.add_argument("--from", dest="layout", choices=LAYOUTS, default="auto", help="names that SOURCE must have")
    parser.add_argument("--activation", choices=ACTIVATIONS, help="of the model, where SOURCE does not say")
    parser.add_argument("--strip-prefix", default="", metavar="PREFIX", help="convert the entries with this prefix")
    parser.add_argument(
        "--clip",
        metavar="FILE",
        help="raw CLIP, for the token embedding that files of ViFi-CLIP and TC-CLIP lack",
    )
    parser.add_argument("--license", metavar="NAME", type=_name, help="licence to record, where SOURCE does not say")
    parser.add_argument("--keep-teacher", action="store_true", help="convert the frozen raw_model.* too")
    parser.add_argument(
        "--allow-missing",
        action="append",
        default=[],
        metavar="PREFIX",
        type=_prefix,
        help="names that SOURCE may lack; repeatable",
    )
    parser.add_argument(
        "--leave",
        action="append",
        default=[],
        metavar="PREFIX",
        type=_prefix,
        help="names, or a group of the report, to leave behind; repeatable",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="take the tensors out of a pickle with foreign objects, in another process, which runs nothing of it",
    )
    parser.add_argument(
        "--allow-torchscript",
        action="store_true",
        help="read a TorchScript archive that is none of the CLIPs that OpenAI published; nothing of it is run",
    )
    parser.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    return parser.parse_args(argv)


def _prefix(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty prefix would match everything")
    return text


def _name(text: str) -> str:
    if not text or text != " ".join(text.split()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name such as CC-BY-NC-4.0, in one line")
    return text


def run(args: argparse.Namespace) -> None:
    """Read, convert, report, write.

    Raises:
        ValueError: if the file is not converted.
    """
    from slowfast.models.clip.convert import Rules, check_target, convert, write_weights
    from slowfast.utils.io import sha256_file

    check_target(args.target, force=args.force)
    file = read_source(args.source, allow_pickle=args.allow_pickle, allow_torchscript=args.allow_torchscript)
    rules = Rules(
        to=args.to,
        layout=args.layout,
        strip_prefix=args.strip_prefix,
        allow_missing=tuple(args.allow_missing),
        leave=tuple(args.leave),
        keep_teacher=args.keep_teacher,
    )
    state = file.tensors()
    describe_source(file, state, rules)
    token_embedding = borrow_token_embedding(
        state, args.clip, rules, source=str(file.path), allow_torchscript=args.allow_torchscript
    )
    conversion = convert(state, rules, source=str(file.path), token_embedding=token_embedding)
    describe(conversion)
    if conversion.faults:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in conversion.faults.items())
        raise ValueError(f"{file.path}: not converted: {counts}; nothing was written")
    activation = choose_activation(file, args.activation)
    license_ = choose_license(file, args.license, clip=args.clip, strip_prefix=args.strip_prefix)
    count = write_weights(conversion, args.target, to=args.to, activation=activation, license_=license_)
    show("wrote", f"{args.target}, layout {args.to}, {count} entries")
    show("sha256", sha256_file(args.target))


def read_source(source: str, *, allow_pickle: bool, allow_torchscript: bool) -> WeightFile:
    """Read the source, which is downloaded if it is the name of a published CLIP.

    Raises:
        ValueError: if it is absent or unreadable.
    """
    from slowfast.models.clip.files import read_weight_file
    from slowfast.models.clip.weights import find_weights

    return read_weight_file(
        find_weights(source),
        what="weight file",
        allow_pickle=allow_pickle,
        allow_torchscript=allow_torchscript,
        torchscript_flag="--allow-torchscript",
    )


def borrow_token_embedding(
    state: dict[str, Tensor], clip: str | None, rules: Rules, *, source: str, allow_torchscript: bool
) -> Tensor | None:
    """Take the token embedding from a raw CLIP if the source lacks it.

    Raises:
        ValueError: if it lacks it and no CLIP is given, or the other way round.
    """
    from slowfast.models.clip.layouts import TOKEN_EMBEDDING, WITHOUT_TOKENS, clip_names
    from slowfast.models.clip.weights import load_clip_state_dict

    renamed = clip_names(state, source=source, layout=rules.layout, strip_prefix=rules.strip_prefix)
    if clip and TOKEN_EMBEDDING in renamed.clip:
        raise ValueError(f"--clip {clip}: {source} has a {TOKEN_EMBEDDING} of its own")
    if TOKEN_EMBEDDING in renamed.clip or renamed.layout not in WITHOUT_TOKENS:
        return None
    if not clip:
        raise ValueError(
            f"{source}: lacks {TOKEN_EMBEDDING} ({WITHOUT_TOKENS[renamed.layout]} does not save it); "
            "--clip ViT-B/16, or whatever CLIP it was tuned from, supplies it"
        )
    show("BORROWED", f"{TOKEN_EMBEDDING} from {clip}, since {source} has none: right if it was not tuned")
    return load_clip_state_dict(clip, allow_torchscript=allow_torchscript)[TOKEN_EMBEDDING]


def choose_activation(file: WeightFile, wanted: Activation | None) -> Activation:
    """Decide on the activation and say where it comes from.

    Raises:
        ValueError: if nothing says which, or the file contradicts the command line.
    """
    recorded = file.activation()
    chosen = recorded or wanted
    if chosen is None:
        raise ValueError(
            f"{file.path}: does not say which activation its model has; add --activation quick_gelu (OpenAI's, and "
            "models called quickgelu) or --activation gelu (most of laion's)"
        )
    if wanted not in (None, chosen):
        raise ValueError(f"{file.path}: has the activation {chosen}; --activation {wanted} contradicts it")
    show("activation", f"{chosen}, {'as the source says' if recorded else 'as --activation says'}")
    return chosen


def choose_license(file: WeightFile, wanted: str | None, *, clip: str | None, strip_prefix: str = "") -> str:
    """Decide on the licence that the target records, and say so if there is one.

    Raises:
        ValueError: if the source contradicts the command line.
    """
    from slowfast.models.clip.files import PUBLISHED_UNDER, joined_licenses
    from slowfast.models.clip.weights import weights_license

    known = file.license(strip_prefix=strip_prefix)
    if wanted and known not in ("", wanted):
        raise ValueError(f"{file.path}: has the licence {known}; --license {wanted} contradicts it")
    borrowed = weights_license(clip) if clip else ""
    license_ = joined_licenses([known or wanted or "", borrowed])
    if license_:
        because = "as the source says" if file.recorded_license else "as --license says" if wanted else ""
        if known and not file.recorded_license:
            whose = next(project for project, text in PUBLISHED_UNDER.values() if text == known)
            because = f"non-commercial: that of the weights that {whose}'s authors published"
        show("LICENCE", f"{license_}, {because or 'that of --clip'}; recorded, and passed on to what is made of it")
    return license_


def describe_source(file: WeightFile, state: dict[str, Tensor], rules: Rules) -> None:
    """Print what was recognised: kind of file, layout, prefix."""
    from slowfast.models.clip.layouts import CLIP_PREFIX, LAYOUTS, find_layout, unwrapped, without_wrappers

    plain = unwrapped(state, source=str(file.path), strip_prefix=rules.strip_prefix)
    layout = find_layout(plain, source=str(file.path))
    prefixes = Counter(name[: len(name) - len(without_wrappers(name))] for name in state)
    prefix = prefixes.most_common(1)[0][0] if prefixes else ""
    prefix += rules.strip_prefix + (CLIP_PREFIX if layout == "ours" else "")
    show("source", f"{file.path}")
    show("kind", f"{file.container}{f', entry {file.entry}' if file.entry else ''}, {len(state)} tensors")
    show("layout", f"{layout}: {LAYOUTS[layout].title}" if layout else "not recognised")
    show("prefix", prefix or "none")


def describe(conversion: Conversion) -> None:
    """Print what became of every entry."""
    from slowfast.models.clip.convert import first_names, groups

    clip = conversion.clip
    expected = len(clip) + len(conversion.missing) + len(conversion.allowed)
    show("model", describe_sizes(conversion.sizes))
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in written(conversion))
    show("dtype", ", ".join(f"{dtype} {count}" for dtype, count in sorted(dtypes.items())))
    show("loaded", f"{len(clip)} of CLIP's {expected} entries")
    show("renamed", f"{conversion.renamed} entries, whose names are not OpenAI's")
    for title, more in (("adapters", conversion.adapters), ("beside CLIP", conversion.beside)):
        if more:
            show(title, ", ".join(f"{group} {count}" for group, count in sorted(groups(more).items())))
    left = ", ".join(f"{group} {count}" for group, count in conversion.left.items())
    show("left behind", left or "nothing")
    if conversion.allowed:
        show("MISSING", f"as allowed: {first_names(conversion.allowed, _SHOWN)}")
    for kind, names in (
        ("missing", conversion.missing),
        ("unexpected", conversion.unexpected),
        ("wrong shape", conversion.wrong),
    ):
        show(kind, f"{len(names)}{': ' if names else ''}{first_names(names, _SHOWN)}")


def describe_sizes(sizes: AnyClipSizes) -> str:
    """One line on a model, with its name if it is a published one."""
    from slowfast.models.clip.arch import PUBLISHED

    name = next((entry.name for entry in PUBLISHED.values() if entry.sizes == sizes), "sizes of its own")
    return (
        f"{name}: {sizes.image_size} px, {sizes.image_tower}, text tower {sizes.text_layers} x {sizes.text_width}, "
        f"{sizes.context_length} tokens of {sizes.vocab_size}, joint space {sizes.embed_dim}"
    )


def written(conversion: Conversion) -> list[Tensor]:
    """All tensors that go into the target."""
    return [*conversion.clip.values(), *conversion.adapters.values(), *conversion.beside.values()]


def show(title: str, text: str) -> None:
    """Print one line of the report."""
    print(redact(f"{title:<12} {text}"), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (not converted); a wrong request ends with 2."""
    args = parse_args(argv)
    try:
        run(args)
    except (ValueError, OSError, MemoryError) as error:
        print(error_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main())
