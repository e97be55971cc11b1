#!/usr/bin/env python3
"""Average the checkpoints of a run: swa, gwa, bwa, ewa.

    python weight_average_tool.py --source-dir OUT/checkpoints --output-dir OUT/averaged --methods swa gwa

Each method writes {method}_{start}_{end}.pth, a {"model_state": ...} file for TEST.CUSTOM_LOAD_FILE.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slowfast.config.redaction import redact_tracebacks
from slowfast.utils.errors import error_line

METHODS = ("swa", "gwa", "bwa", "ewa")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source-dir", type=Path, required=True, help="folder of the run's checkpoints")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the averaged files")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all four")
    parser.add_argument("--start", type=int, default=2, help="first epoch, 1-based; 0 is raw CLIP (default 2)")
    parser.add_argument("--end", type=int, default=22, help="last epoch, included (default 22)")
    parser.add_argument("--clip", metavar="PATH", help="raw CLIP file, or a name such as vitb16, used as epoch 0")
    parser.add_argument(
        "--allow-torchscript",
        action="store_true",
        help="let --clip be a TorchScript archive that is none of the CLIPs that OpenAI published",
    )
    parser.add_argument("--gwa-mean", type=float, default=15.0, help="centre of gwa, epochs (default 15)")
    parser.add_argument("--gwa-std", type=float, default=10.0, help="width of gwa, epochs (default 10)")
    parser.add_argument("--ewa-decay", type=float, default=0.9, help="share that ewa keeps per epoch (default 0.9)")
    parser.add_argument("--pattern", default="*_epoch_*.pyth", help="glob of the checkpoints' names")
    args = parser.parse_args(argv)
    if not 0 <= args.start <= args.end:
        parser.error(f"--start {args.start} --end {args.end}: need 0 <= start <= end")
    if args.clip and args.start != 0:
        parser.error(f"--clip: raw CLIP is epoch 0, outside the window {args.start}..{args.end}; set --start 0")
    return args


def run(args: argparse.Namespace) -> None:
    """Average, write the files and print which epoch had which weight."""
    from slowfast.engine.average import AverageConfig
    from slowfast.engine.average_run import average_run
    from slowfast.report.table import format_table
    from slowfast.utils.io import sha256_file

    config = AverageConfig(
        start=args.start, end=args.end, gwa_mean=args.gwa_mean, gwa_std=args.gwa_std, ewa_decay=args.ewa_decay
    )
    methods = list(dict.fromkeys(args.methods))
    report = average_run(
        args.source_dir,
        args.output_dir,
        methods=methods,
        config=config,
        clip=args.clip or "",
        allow_torchscript=args.allow_torchscript,
        pattern=args.pattern,
    )
    if report.missing:
        epochs = " ".join(map(str, report.missing))
        print(f"missing epochs: {epochs} (the weights of the others are scaled to sum 1)")
    rows = [
        [m.epoch, m.name, *(f"{report.results[method].weights[m.epoch]:.5f}" for method in methods)]
        for m in report.members
    ]
    print(format_table(["epoch", "file", *methods], rows))
    for path in report.paths.values():
        print(f"wrote {path}  sha256 {sha256_file(path)[:16]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (the run failed); a wrong request ends with 2."""
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
