#!/usr/bin/env python3
"""Check all text files of label_db: class lists, graphs, prompts, rephrased names, descriptors.

    python utils/check_label_db.py
    python utils/check_label_db.py --root label_db --dataset ucf101 --dataset hmdb51

Prints a table of figures and exits with 0; or prints one line per fault and exits with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slowfast.config.redaction import redact

LABEL_DB = Path(__file__).resolve().parents[1] / "label_db"
_SHOWN = 50
_TITLES = {
    "classes": "classes",
    "objects": "objects per class",
    "steps": "sub-actions per class",
    "oo": "object-object triples per class",
    "ao": "action-object triples per class",
    "aa": "sub-action triples per class",
    "tails": "sentence tails",
    "own tails": "tails of one class only",
    "longest": "longest prompt, of 77 tokens",
    "rephrased": "rephrased names, partial lists included",
    "descriptors": "descriptors",
    "partial lists": "lists of some of the classes",
    "episodic lists": "class splits of episodic learning",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=LABEL_DB, help="the folder of texts (default label_db)")
    parser.add_argument("--dataset", action="append", metavar="NAME", help="check this one only; repeatable")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 1 if there is a fault; a wrong request ends with 2."""
    args = parse_args(argv)
    try:
        from slowfast.text.label_db import DATASETS, check_dataset
    except ModuleNotFoundError as error:
        print(f"error: {error}; install the extra: pip install '.[llm]'", file=sys.stderr)
        return 1
    from slowfast.report.table import format_table

    known = {dataset.name: dataset for dataset in DATASETS}
    unknown = [name for name in args.dataset or () if name not in known]
    if unknown or not args.root.is_dir():
        fault = f"--dataset: unknown value {unknown[0]!r}" if unknown else f"--root: {args.root} is not a folder"
        allowed = ", ".join(known) if unknown else "a folder of texts"
        print(redact(f"error: {fault}; allowed: {allowed}"), file=sys.stderr)
        return 2
    reports = [check_dataset(args.root, known[name]) for name in args.dataset or known]
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        print("\n".join(faults[:_SHOWN]), file=sys.stderr)
        if len(faults) > _SHOWN:
            print(f"... and {len(faults) - _SHOWN} more", file=sys.stderr)
        return 1
    rows = [[title, *(report.figures.get(key, "-") for report in reports)] for key, title in _TITLES.items()]
    print(format_table(["", *(report.name for report in reports)], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
