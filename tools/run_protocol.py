r"""Run a protocol and write its table: every dataset, split, shot and draw, ours beside the published figures.

    python tools/run_protocol.py --cfg configs/Kinetics/STDD_vitb16_8x16_zeroshot.yaml --protocol zero_shot \
        --weights runs/k400/averaged/swa_2_22.pth --opts NUM_GPUS 4 OUTPUT_DIR runs/table

Datasets are those that tools/prepare_data.py made. With --weights nothing is trained; otherwise each model is trained,
averaged as AVERAGE says, and tested. The same command, started again, goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from slowfast.config.redaction import redact_tracebacks
from slowfast.config.values import LOOSE_PROTOCOLS, PROTOCOL_NAMES
from slowfast.utils.parser import build_parser, console_errors, load_config, parse_args


def make_parser() -> argparse.ArgumentParser:
    """The options of this tool."""
    parser = build_parser(description=__doc__)
    parser.epilog = "exit codes: 0 done, 1 a run failed, 2 a mistake in the command line or the config"
    protocols = [name for name in PROTOCOL_NAMES if name not in LOOSE_PROTOCOLS]
    parser.add_argument("--protocol", required=True, choices=protocols)
    parser.add_argument("--datasets", nargs="+", default=[], help="default: those of the published tables")
    parser.add_argument("--weights", help="score these weights, or clip for raw CLIP, instead of training")
    parser.add_argument("--init", help="weights that training starts from; default: CLIP")
    parser.add_argument(
        "--shots", nargs="+", type=int, default=[],
        help="few_shot: videos per class (default 2 4 8 16); episodic: supports per class (default 1 5)",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="base_to_novel: draws")
    parser.add_argument("--source", default="k400", help="zero_shot: dataset to train on (default k400)")
    parser.add_argument("--halves", action="store_true", help="zero_shot: score the half-class draws too")
    parser.add_argument("--all-tests", action="store_true", help="few_shot: score test splits 2 and 3 too (leaky)")
    parser.add_argument("--label-db", default="label_db", help="folder of the prepared datasets (default label_db)")
    parser.add_argument(
        "--videos", nargs="+", default=[], metavar="DATASET=FOLDER", help="videos lie elsewhere than they did"
    )
    parser.add_argument(
        "--text-features", metavar="FILE", help="feature file for DATA.TEXT_AUG; {dataset} stands for the dataset"
    )
    parser.add_argument(
        "--for",
        dest="cases",
        nargs="+",
        action="append",
        default=[],
        metavar=("JOB", "KEY VALUE"),
        help="keys of single jobs, which win over --opts; JOB is a name that --dry-run lists, or a pattern such as "
        "'ssv2_*'; repeatable",
    )
    parser.add_argument("--name", help="our row of the table (default: name of the config file)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run every job of the table.

    Returns:
        Exit status: 0 done, 1 a run failed, 2 a mistake in the command line or the config, 130 or 143 interrupted.
    """
    parser = make_parser()
    with console_errors():
        args = parse_args(argv, parser=parser)
        if len(args.cfg_files) != 1:
            parser.error(f"--cfg: a table has one configuration, found {len(args.cfg_files)}")
        if args.weights and args.init:
            parser.error("--init: nothing is trained with --weights; give one of them")
        base = load_config(args, args.cfg_files[0])
        # Here because it loads torch, which --help does without.
        import protocol_jobs

        return protocol_jobs.run(base, args)


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main())
