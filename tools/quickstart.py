"""The whole of this project in five minutes on a CPU: render videos, train STDD, average, test zero-shot, compare.

Every step that a user of real data would take is taken by the real command, which is printed. Ends with a table, a
picture, and exit status 1 if a bar is missed: unseen classes at three times chance, clearly above plain CLIP under the
same recipe, and clearly worse when the frames are played backwards.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import quickstart_episodes
from quickstart_work import CLIP_FILE, ROOT, StageError, Workspace, expand, free_folder, print_bars

from slowfast.utils.errors import error_line

AVERAGED_EPOCHS = 3
CLEARLY = 10.0
"""Least difference that a bar calls clear, percentage points."""


@dataclass(frozen=True)
class Model:
    """A recipe."""

    config: str
    options: dict[str, str] = field(default_factory=dict)
    reads_features: bool = True
    """Whether the classes are described by a file of text features; else by their names."""


STDD_CONFIG = "configs/MotionShapes/STDD_tiny_quickstart.yaml"
MODELS = {
    "STDD": Model(STDD_CONFIG),
    "plain CLIP": Model(STDD_CONFIG, {"MODEL.TEMPORAL_MODELING_TYPE": "None"}),
    "TC-CLIP": Model("configs/Quickstart/TCCLIP_tiny.yaml", reads_features=False),
    "OST": Model("configs/Quickstart/OST_tiny.yaml", reads_features=False),
    "ViFi-CLIP": Model("configs/Quickstart/ViFiCLIP_tiny.yaml", reads_features=False),
}
COMPARED = ("STDD", "plain CLIP")
"""What is trained unless the command line says otherwise, and what the bars and the picture are about."""


LEAST = {"STDD": 3, "TC-CLIP": 2, "OST": 2}
"""Model -> what its averaged weights must reach, in multiples of chance."""


def write_text_features(clip: Path, data: Path, names: str) -> None:
    """Write the (K, n, E) features of the classes in data/{names}.json for DATA.TEXT_AUG_FEATURE_FILE."""
    import torch

    from slowfast.api import load_model
    from slowfast.datasets.synthetic import phrasings

    classes = json.loads((data / f"{names}.json").read_text(encoding="utf-8")).values()
    prompts = [phrasings(name) for name in classes]
    with torch.no_grad():
        features = load_model(clip).encode_text([text for texts in prompts for text in texts])
    torch.save(features.reshape(len(prompts), -1, features.shape[-1]), data / f"{names}.pt")


def prepare(work: Workspace) -> None:
    """Render the videos and write the weights and the text features."""
    from slowfast.datasets.synthetic import MotionShapes, write_motion_shapes
    from slowfast.datasets.synthetic_texts import write_descriptors

    spec = MotionShapes()
    counts = write_motion_shapes(work.data, seed=work.seed, num_workers=min(2, os.cpu_count() or 1))
    work.say(f"rendered {counts} videos; {len(spec.seen)} seen classes, {len(spec.unseen)} unseen ones")
    write_descriptors(work.data)
    clip = work.folder / "clip.pt"
    expand(CLIP_FILE, clip, seed=work.seed)
    for names in ("seen", "unseen"):
        write_text_features(clip, work.data, names)
    work.say("wrote the small CLIP and the text features")


def run_net(work: Workspace, name: str, *, model: str, output: Path, options: dict[str, str]) -> None:
    """Call tools/run_net.py."""
    names = "seen" if options["TEST.ENABLE"] == "False" else "unseen"
    recipe = MODELS[model]
    features = {"DATA.TEXT_AUG_FEATURE_FILE": str(work.data / f"{names}.pt")} if recipe.reads_features else {}
    settings = {
        **recipe.options,
        "MODEL.CLIP_WEIGHTS": str(work.folder / "clip.pt"),
        "DATA.PATH_TO_DATA_DIR": str(work.data),
        "DATA.PATH_PREFIX": str(work.data),
        "DATA.INDEX_LABEL_MAPPING_FILE": str(work.data / f"{names}.json"),
        **features,
        "MODEL.NUM_CLASSES": str(len(json.loads((work.data / f"{names}.json").read_text(encoding="utf-8")))),
        "RNG_SEED": str(work.seed),
        "OUTPUT_DIR": str(output),
        **options,
    }
    flat = [word for item in settings.items() for word in item]
    work.command(name, ["tools/run_net.py", "--cfg", recipe.config, "--opts", *flat])


def score(work: Workspace, name: str, *, model: str, weights: Path, backwards: bool = False) -> tuple[float, Path]:
    """Test on the unseen classes with tools/run_net.py.

    Returns:
        Top-1 in percent, and the folder of the results.
    """
    output = work.folder / name
    options = {"TRAIN.ENABLE": "False", "TEST.ENABLE": "True", "TEST.CUSTOM_LOAD": "True"}
    options |= {"TEST.CUSTOM_LOAD_FILE": str(weights), "DATA.REVERSE_FRAMES": str(backwards)}
    run_net(work, name, model=model, output=output, options=options)
    top1 = float(json.loads((output / "results.json").read_text(encoding="utf-8"))["metrics"]["top1_acc"])
    work.say(f"top-1 {top1:.1f} %")
    return top1, output


def train_and_test(work: Workspace, model: str) -> tuple[dict[str, float], Path]:
    """Train one model on the seen classes, average its last checkpoints, test both on the unseen classes.

    Returns:
        Top-1 by name of the test, and the folder of the results with averaged weights.
    """
    short = model.replace(" ", "_").lower()
    trained = work.folder / f"{short}_train"
    run_net(
        work, f"{short}_train", model=model, output=trained,
        options={"TRAIN.ENABLE": "True", "TEST.ENABLE": "False"},
    )  # fmt: skip
    checkpoints = sorted((trained / "checkpoints").glob("*_epoch_*.pyth"))
    last = len(checkpoints)
    first = max(1, last - AVERAGED_EPOCHS + 1)
    averaged = trained / "averaged"
    work.command(
        f"{short}_average",
        [
            *("weight_average_tool.py", "--source-dir", str(trained / "checkpoints"), "--output-dir", str(averaged)),
            *("--methods", "swa", "--start", str(first), "--end", str(last)),
        ],
    )
    weights = averaged / f"swa_{first}_{last}.pth"
    scores: dict[str, float] = {}
    scores["last epoch"], _ = score(work, f"{short}_test_last", model=model, weights=checkpoints[-1])
    scores["averaged"], folder = score(work, f"{short}_test_averaged", model=model, weights=weights)
    scores["backwards"], _ = score(work, f"{short}_test_backwards", model=model, weights=weights, backwards=True)
    return scores, folder


def draw(work: Workspace, scores: dict[str, dict[str, float]], results: Path, chance: float) -> Path:
    """Write the picture."""
    from slowfast.report.plots import confusion_percent, quickstart_picture, read_learning_curve
    from slowfast.report.run_tables import read_confusion

    path, damages = results / "splits" / "test" / "confusion.csv", list[str]()
    confusion = read_confusion(path, damages)
    if confusion is None:
        raise ValueError(damages[0] if damages else f"{path}: no such file")
    names = json.loads((work.data / "unseen.json").read_text(encoding="utf-8"))
    stdd, plain = scores["STDD"], scores["plain CLIP"]
    return quickstart_picture(
        work.folder / "quickstart.png",
        curves={
            model: read_learning_curve(work.folder / f"{model.replace(' ', '_').lower()}_train" / "json_stats.log")
            for model in COMPARED
        },
        bars={
            "STDD": stdd["last epoch"],
            "STDD, averaged": stdd["averaged"],
            "STDD, averaged, backwards": stdd["backwards"],
            "plain CLIP": plain["last epoch"],
            "plain CLIP, averaged": plain["averaged"],
        },
        matrix=confusion_percent(confusion.counts),
        class_names=[name.removeprefix("a ") for name in names.values()],
        chance=chance,
    )


def judge(scores: dict[str, dict[str, float]], chance: float) -> list[tuple[str, bool]]:
    """The bars and whether each is met: each model at a multiple of chance, and STDD against plain CLIP."""
    bars = [
        (f"{model}, averaged: {row['averaged']:.1f} % >= {LEAST[model]} x chance = {LEAST[model] * chance:.1f} %",
         row["averaged"] >= LEAST[model] * chance)
        for model, row in scores.items()
        if model in LEAST
    ]  # fmt: skip
    if not set(COMPARED) <= set(scores):
        return bars
    stdd, plain = scores["STDD"], scores["plain CLIP"]
    best_plain = max(plain["last epoch"], plain["averaged"])
    best = stdd["averaged"]
    return [
        *bars,
        (f"STDD {best:.1f} % >= plain CLIP {best_plain:.1f} % + {CLEARLY:.0f}", best >= best_plain + CLEARLY),
        (
            f"STDD played backwards {stdd['backwards']:.1f} % <= {best:.1f} % - {CLEARLY:.0f}",
            stdd["backwards"] <= best - CLEARLY,
        ),
    ]


def print_table(scores: dict[str, dict[str, float]], chance: float) -> None:
    """Print the top-1 of all tests."""
    columns = ("last epoch", "averaged", "backwards")
    print(f"\nZero-shot top-1 on unseen classes (chance {chance:.1f} %; 'backwards' has averaged weights)\n")
    print(f"{'':12s}" + "".join(f"{column:>13s}" for column in columns))
    for model, row in scores.items():
        print(f"{model:12s}" + "".join(f"{row[column]:11.1f} %" for column in columns))
    print()


def compare(work: Workspace, models: Sequence[str]) -> bool:
    """Train and test models, print the table and the bars.

    Returns:
        Whether all bars are met.

    Raises:
        StageError: if a command fails.
    """
    prepare(work)
    scores, results = {}, {}
    for model in dict.fromkeys(models):
        scores[model], results[model] = train_and_test(work, model)
    chance = 100.0 / len(json.loads((work.data / "unseen.json").read_text(encoding="utf-8")))
    print_table(scores, chance)
    met = print_bars(judge(scores, chance))
    picture = f"; picture: {draw(work, scores, results['STDD'], chance)}" if set(COMPARED) <= set(scores) else ""
    work.say(f"done{picture}")
    return met


def main(argv: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Returns:
        Exit status: 0 all bars met, 1 one was missed or a command failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="new or empty folder of the run (default: runs/quickstart, -2, ...)")
    parser.add_argument("--seed", type=int, default=0, help="seed of videos and training")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="what to train (default: STDD, plain CLIP)")
    parser.add_argument("--episodes", action="store_true", help="CLIP-FSAR in few-shot episodes instead")
    args = parser.parse_args(argv)
    if args.episodes and args.models:
        parser.error("--episodes: compares models of its own; leave --models out")
    name = "quickstart_episodes" if args.episodes else "quickstart"
    folder = args.out.resolve() if args.out else free_folder(ROOT / "runs" / name)
    if folder.is_dir() and any(folder.iterdir()):
        print(f"error: --out {args.out}: the folder is not empty; give another one or remove it", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)  # so that the printed commands are short and can be repeated there
    # Episodes are scored in many small steps, which threads that share cores with others wait for.
    threads = 1 if args.episodes else 2
    shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    work = Workspace(folder=shown, seed=args.seed, threads=threads)
    try:
        met = quickstart_episodes.run(work) if args.episodes else compare(work, args.models or COMPARED)
    except StageError as error:
        print(error_line(error), file=sys.stderr)
        return 1
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
