"""The options that the commands for a language model share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

RESPONSE_FORMATS = ("json_schema", "json_object", "text")
DESCRIPTOR_COUNTS = (2, 4, 8)
TOKEN_LIMIT_NAMES = ("max_tokens", "max_completion_tokens")


def parse_args(stage: str, argv: Sequence[str] | None, *, doc: str | None) -> argparse.Namespace:
    """Read the command line of a stage; a wrong one ends the program with 2."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_files(parser, stage)
    _add_server(parser)
    args = parser.parse_args(argv)
    if not args.dry_run:
        for name in ("output", "model"):
            if getattr(args, name) is None:
                parser.error(f"--{name} is needed, except with --dry-run")
    if (args.price_in is None) != (args.price_out is None):
        parser.error("--price-in and --price-out go together")
    return args


def _add_files(parser: argparse.ArgumentParser, stage: str) -> None:
    files = parser.add_argument_group("files and classes")
    files.add_argument(
        "--label-file", type=Path, required=True, help="classes_label_<dataset>.yml or an index2cls.json"
    )
    if stage == "xprompt":
        files.add_argument("--graphs", type=Path, required=True, help="classes_ASKG_<dataset>.yml of these classes")
    what = "folder of both descriptor files" if stage == "descriptors" else "file"
    files.add_argument("--output", type=Path, help=f"{what} to write; what it holds already is kept")
    if stage == "descriptors":
        files.add_argument(
            "--count",
            type=int,
            choices=DESCRIPTOR_COUNTS,
            default=4,
            help="descriptors of each kind, and the number in the names of the files (default 4)",
        )
    files.add_argument("--classes", nargs="+", metavar="NAME", help="only these")
    files.add_argument("--limit", type=_number(int, least=1), metavar="N", help="at most N classes in this run")
    files.add_argument(
        "--redo",
        action="store_true",
        help="ask for classes that the output holds, too; --seed or --temperature changes cached answers",
    )
    files.add_argument(
        "--dry-run", action="store_true", help="print the prompts of one class, or of --classes; ask nobody"
    )
    files.add_argument(
        "--cache",
        type=Path,
        default=Path(f"runs/llm/{stage}.jsonl"),
        help=f"accepted answers of all runs (default runs/llm/{stage}.jsonl)",
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group(
        "language model",
        "OPENAI_BASE_URL or OPENAI_API_BASE names the server, OPENAI_API_KEY is its key; both are read from the "
        "environment or from --env-file.",
    )
    server.add_argument("--env-file", type=Path, default=Path(".env"), help="lines NAME=value (default .env)")
    server.add_argument("--model", help="its name on the server")
    server.add_argument("--temperature", type=_number(float, least=0), help="default: 0 for graphs, 0.7 for texts")
    server.add_argument("--seed", type=int, default=0, help="of the sampling (default 0)")
    server.add_argument("--max-tokens", type=_number(int, least=1), default=4096, help="per answer (default 4096)")
    server.add_argument(
        "--max-tokens-name",
        choices=TOKEN_LIMIT_NAMES,
        default=TOKEN_LIMIT_NAMES[0],
        help="how the server calls that limit (default max_tokens)",
    )
    server.add_argument(
        "--response-format",
        choices=RESPONSE_FORMATS,
        default=RESPONSE_FORMATS[0],
        help="the others put the schema into the prompt, for servers that take no json_schema (the default)",
    )
    server.add_argument("--concurrency", type=_number(int, least=1), default=8, help="requests at a time (default 8)")
    server.add_argument("--tries", type=_number(int, least=1), default=3, help="answers per class (default 3)")
    server.add_argument(
        "--retries", type=_number(int, least=0), default=6, help="after no answer, per request (default 6)"
    )
    server.add_argument(
        "--timeout", type=_number(float, least=0.001), default=120.0, help="seconds per request (default 120)"
    )
    server.add_argument(
        "--backoff",
        type=_number(float, least=0),
        default=1.0,
        help="seconds of the first pause; then doubled (default 1)",
    )
    server.add_argument("--price-in", type=_number(float, least=0), help="per million tokens of prompts")
    server.add_argument("--price-out", type=_number(float, least=0), help="per million tokens of answers")
    server.add_argument("--verbose", action="store_true", help="say when and why a request is repeated")


def _number(kind: Callable[[str], float], *, least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (value >= least and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number from {least}")
        return value

    return read
