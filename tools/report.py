#!/usr/bin/env python3
"""Write one self-contained HTML page about runs: what they were, curves, tables, confused classes with frames.

    python tools/report.py runs/a
    python tools/report.py runs/a runs/b runs/table --output comparison.html

An OUTPUT_DIR is that of tools/run_net.py or tools/run_protocol.py, also of a run that is not finished. Several runs
stand side by side. docs/report.md describes the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="folder of a run")
    parser.add_argument("--output", type=_page, default=Path("report.html"), help="the page (default report.html)")
    parser.add_argument("--pairs", type=_count, default=6, help="confused pairs shown per split (default 6)")
    parser.add_argument("--max-frames", type=_count, default=60, help="frames of videos in the page (default 60)")
    return parser.parse_args(argv)


def _page(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a file that ends in .html")
    return path


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0")
    return int(text)


def run(args: argparse.Namespace) -> None:
    """Read the folders, write the page.

    Raises:
        ValueError: if a folder is not that of a run, or is given twice.
    """
    import yaml

    from slowfast.config.defaults import get_cfg
    from slowfast.report.html import build_page
    from slowfast.report.run_folder import flatten, read_run
    from slowfast.utils.io import atomic_write_text
    from slowfast.utils.parser import cfg_to_yaml

    folders = [folder.resolve() for folder in args.runs]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise ValueError(f"{args.runs[number]}: given twice")
    if args.output.is_dir():
        raise ValueError(f"--output {args.output}: is a folder; expected a file")
    runs = [read_run(folder) for folder in args.runs]
    defaults = flatten(yaml.safe_load(cfg_to_yaml(get_cfg())))
    page = build_page(runs, defaults=defaults, max_frames=args.max_frames, max_pairs=args.pairs)
    atomic_write_text(args.output, page)
    print(f"wrote {args.output}, {len(page.encode('utf-8')) / 2**20:.1f} MiB")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line.

    Returns:
        Exit status: 0 written, 1 a folder is not that of a run, 2 a wrong command line, 130 interrupted.
    """
    args = parse_args(argv)
    from slowfast.utils.errors import USER_ERRORS, error_line

    try:
        run(args)
    except USER_ERRORS as error:
        print(error_line(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
