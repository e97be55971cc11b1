#!/usr/bin/env python3
"""Make the lists of a dataset, label_db/<dataset>/splits, from its official annotation files and its videos.

    python tools/prepare_data.py ucf101 --root UCF-101 --annotations ucfTrainTestlist
    python tools/prepare_data.py hmdb51 --root hmdb51_org --annotations testTrainMulti_7030_splits
    python tools/prepare_data.py k400 --root kinetics400 --annotations k400/annotations
    python tools/prepare_data.py k600 --root kinetics600 --annotations k600/annotations
    python tools/prepare_data.py ssv2 --root 20bn-something-something-v2 --annotations labels
    python tools/prepare_data.py ucf101 --root UCF-101 --annotations ucfTrainTestlist --from-repo TC-CLIP
    python tools/prepare_data.py folder --root my_videos --name mine

docs/data.md says where the files come from and what is made of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.datasets.annotations import OFFICIAL, SUBSETS
from slowfast.utils.errors import USER_ERRORS, error_line

if TYPE_CHECKING:
    from slowfast.datasets.annotations.preparation import Drafts, Preparation
    from slowfast.datasets.prepared import PreparedDataset
    from slowfast.datasets.video_files import VideoIndex

LABEL_DB = Path(__file__).resolve().parents[1] / "label_db"
FOLDER = "folder"
_ZERO_SHOT = "configs/Kinetics/STDD_vitb16_8x16_zeroshot.yaml"
_BASE_TO_NOVEL = "configs/Kinetics/STDD_vitb16_8x16_base_to_novel.yaml"
# Lists -> protocol, configuration and options of a command that uses them.
NEXT: tuple[tuple[tuple[str, ...], str, str, list[str]], ...] = (
    (("full/test", "split1/test", "zero_shot_split1/test"), "zero_shot", _ZERO_SHOT, ["--weights clip"]),
    (("base_to_novel/seed1/train",), "base_to_novel", _BASE_TO_NOVEL, []),
    (("full/val",), "fully_supervised", _ZERO_SHOT, ["--weights clip"]),
)


def make_parser() -> argparse.ArgumentParser:
    """The options of this tool: one subcommand per dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done, 1 not prepared, 2 a mistake in the command line",
    )
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for name in (*OFFICIAL, FOLDER):
        title = "class/video.mp4, or train|val|test/class/video.mp4" if name == FOLDER else f"lists of {name}"
        command = commands.add_parser(name, help=title, description=title)
        command.add_argument("--root", type=Path, required=True, help="folder of the videos")
        if name == FOLDER:
            command.add_argument("--name", required=True, type=_name, help="of the dataset, a folder in label_db")
            command.add_argument("--val-share", type=float, default=0.1, help="of each class (default 0.1)")
            command.add_argument("--test-share", type=float, default=0.2, help="of each class (default 0.2)")
        else:
            command.add_argument("--annotations", type=Path, metavar="PATH", help="official files, their folder or zip")
            repo_help = "checkout to import lists from; repeatable"
            command.add_argument("--from-repo", type=Path, metavar="PATH", action="append", default=[], help=repo_help)
            command.add_argument("--any-counts", action="store_true", help="accept lists of any length: a part of it")
        if name in SUBSETS:
            command.add_argument("--subset", action="append", default=[], choices=SUBSETS[name], help="repeatable")
        if name == "k600":
            command.add_argument("--full", action="store_true", help="also the lists of all 600 classes")
        _add_common(command)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, default=LABEL_DB, help="folder of datasets (default label_db)")
    command.add_argument("--seed", type=int, default=0, help="of draws that nobody published (default 0)")
    command.add_argument(
        "--missing",
        choices=("refuse", "keep", "drop"),
        default="refuse",
        help="videos that are not found: write nothing, keep their rows, drop their rows (default refuse)",
    )
    command.add_argument(
        "--check",
        choices=("open", "decode"),
        help="try every video: whether it opens and is whole, or every frame of it",
    )
    command.add_argument("--transcode", type=Path, metavar="DIR", help="make small copies there and list these")
    workers = max(1, (os.cpu_count() or 1) - 1)
    command.add_argument(
        "--workers", type=_count, default=workers, help=f"processes that try or copy (default {workers})"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


def _name(text: str) -> str:
    if not text or Path(text).name != text or text.startswith(".") or text in OFFICIAL:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a dataset of one's own")
    return text


def run(args: argparse.Namespace) -> None:
    """Prepare a dataset and print what came of it.

    Raises:
        ValueError: if it is not prepared.
    """
    from slowfast.datasets.annotations.preparation import Preparation
    from slowfast.utils.logging import setup_logging

    setup_logging(None)
    preparation = Preparation(
        dataset=args.name if args.dataset == FOLDER else args.dataset,
        root=args.root,
        output=args.output,
        missing=args.missing,
        seed=args.seed,
        check=args.check,
        transcode=args.transcode,
        workers=args.workers,
        say=lambda line: print(line, flush=True),
    )
    # Files are read before a large folder is searched, unless the folder is all there is.
    index = preparation.index() if args.dataset == FOLDER else None
    drafts = read_drafts(args, preparation, index)
    report(preparation.run(drafts, index or preparation.index()))


def read_drafts(args: argparse.Namespace, preparation: Preparation, index: VideoIndex | None) -> Drafts:
    """Read the lists from wherever the command line says.

    Raises:
        ValueError: one line naming file and line.
    """
    from slowfast.datasets.annotations.files import AnnotationRequest
    from slowfast.datasets.annotations.preparation import read_own, read_sources

    if index is not None:
        shares = {"val_share": args.val_share, "test_share": args.test_share}
        return read_own(args.name, index, folder=preparation.folder, seed=args.seed, **shares)
    official = None
    if args.annotations is not None:
        official = AnnotationRequest(
            annotations=args.annotations,
            class_files=LABEL_DB / args.dataset,
            seed=args.seed,
            any_counts=args.any_counts,
            subsets=tuple(dict.fromkeys(getattr(args, "subset", ()))),
            full=getattr(args, "full", False),
        )
    places = {"label_db": LABEL_DB, "output": preparation.folder}
    return read_sources(args.dataset, official, args.from_repo, any_counts=args.any_counts, **places)


def report(dataset: PreparedDataset) -> None:
    """Print the lists, their rows, what is missing, and what to do next."""
    from slowfast.datasets.annotations.episodic import lists_to_import
    from slowfast.datasets.prepared import MANIFEST, SPLITS_FOLDER
    from slowfast.report.table import format_table

    rows = [[name, entry.rows, entry.official, entry.missing] for name, entry in dataset.lists.items()]
    print(format_table(["list", "rows", "official", "missing"], rows, style="plain"))
    if absent := lists_to_import(dataset.name, dataset.lists):
        print(f"not made: {', '.join(absent)}; a checkout of CLIP-FSAR has them: --from-repo beside --annotations")
    print(f"wrote {dataset.folder / SPLITS_FOLDER / MANIFEST}")
    print("next, for example:")
    print(f"  {next_command(dataset)}")


def next_command(dataset: PreparedDataset) -> str:
    """A command that uses the lists."""
    suited = (step for step in NEXT if any(name in dataset.lists for name in step[0]))
    _, protocol, config, more = next(suited, NEXT[-1])
    words = ["python tools/run_protocol.py --cfg", config, "--protocol", protocol, "--datasets", dataset.name]
    if dataset.folder.parent.resolve() != LABEL_DB:
        words += ["--label-db", str(dataset.folder.parent)]
    return " ".join([*words, *more, "--opts OUTPUT_DIR", f"runs/{dataset.name}_{protocol}"])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line.

    Returns:
        Exit status: 0 done, 1 not prepared, 2 a mistake in the command line, 130 interrupted.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.dataset != FOLDER and args.annotations is None and not args.from_repo:
        parser.error("give the official files, --annotations PATH, a checkout, --from-repo PATH, or both")
    try:
        run(args)
    except USER_ERRORS as error:
        print(error_line(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
