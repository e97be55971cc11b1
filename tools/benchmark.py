#!/usr/bin/env python3
"""Measure parts of the project, each against another way to do the same, in one process and by turns.

python tools/benchmark.py text
python tools/benchmark.py text --dataset k400 --classes 5 --model ViT-B/16 --device cuda --repeat 5
python tools/benchmark.py scoring --videos path/to/clips --prompts 160 560 --threads 1 2
python tools/benchmark.py data --path path/to/videos --gpu-clips-per-second 500
python tools/benchmark.py block --threads 1 --clock cpu
python tools/benchmark.py step --batch 1 2 --memory
python tools/benchmark.py step --device cuda --sweep
python tools/benchmark.py context --parts tower text
python tools/benchmark.py ost --clock cpu
python tools/benchmark.py episodes --clock cpu
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from slowfast.utils.errors import error_line

PARTS = {
    "text": "bench_text",
    "scoring": "bench_scoring",
    "block": "bench_block",
    "step": "bench_step",
    "context": "bench_context",
    "ost": "bench_ost",
    "episodes": "bench_episodes",
    "data": "bench_data",
}
"""Part -> the module that measures it; its docstring is the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (the run failed); a wrong request ends with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    modules = {name: importlib.import_module(module) for name, module in PARTS.items()}
    for name, module in modules.items():
        module.add_arguments(parts.add_parser(name, help=module.__doc__))
    args = parser.parse_args(argv)
    try:
        modules[args.part].run(args)
    except (ValueError, OSError, MemoryError) as error:
        print(error_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
