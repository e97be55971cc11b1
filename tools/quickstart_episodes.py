"""The part of the quickstart about few-shot episodes: CLIP-FSAR on classes that it was not trained on.

The videos of MotionShapes lie in class folders, as one's own would; three files say which classes train, validate and
test; tools/prepare_data.py makes the lists. CLIP-FSAR learns from episodes of the first; the second are watched, and
nothing is chosen by the third. The same test episodes are put to the CLIP it started from and to STDD, trained on the
videos of the same classes one by one, whose frames are compared as they are (prototype) or aligned in order (otam).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from quickstart_work import CLIP_FILE, Workspace, expand, print_bars

DATASET = "motion_shapes"
PER_CLASS = {"train": 32, "val": 15, "test": 25}
"""Videos of a class, by part."""
SHOTS = (1, 5)
LEAST = {1: 2.0, 5: 2.75}
"""Supports per class -> what CLIP-FSAR must reach, in multiples of chance."""
CLEARLY = 5.0
"""By how much it must be above the CLIP that it started from, percentage points."""
LEARNER, RAW = "CLIP-FSAR", "untrained CLIP"

_FSAR_CONFIG = "configs/Quickstart/CLIPFSAR_tiny.yaml"
_STDD_CONFIG = "configs/MotionShapes/STDD_tiny_quickstart.yaml"

Cell = tuple[float, float]
"""Mean accuracy over the episodes and half of its 95 % interval, percent."""
Scores = dict[str, dict[int, Cell]]
"""Model and head -> supports per class -> accuracy."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model, and how its videos are compared."""

    config: str
    heads: tuple[str, ...]
    trains: bool = True
    options: dict[str, str] = field(default_factory=dict)


ENCODERS = {
    LEARNER: Encoder(config=_FSAR_CONFIG, heads=("own",)),
    RAW: Encoder(config=_FSAR_CONFIG, heads=("prototype", "otam"), trains=False),
    "STDD": Encoder(
        config=_STDD_CONFIG,
        heads=("prototype", "otam"),
        options={
            "PROTOCOL": "episodic",
            "DATA.PATH_PREFIX": "",
            "DATA.TEXT_AUG": "False",
            "MODEL.NUM_CLASSES": "29",
            "SOLVER.MAX_EPOCH": "3",
        },
    ),
}
COUNTS: dict[str, str] = {"EPISODES.NUM_VAL": "500", "EPISODES.NUM_TEST": "2000"}
"""Episodes of every validation and of every test; equal numbers are equal episodes."""


def prepare(work: Workspace) -> None:
    """Render the videos, write the class splits and the weights, make the lists."""
    from slowfast.datasets.synthetic import write_class_folders

    videos, label_db = work.folder / "videos", work.folder / "label_db"
    workers = min(2, os.cpu_count() or 1)
    splits = write_class_folders(videos, per_class=PER_CLASS, seed=work.seed, num_workers=workers)
    text = ", ".join(f"{len(names)} to {part} ({PER_CLASS[part]} videos each)" for part, names in splits.items())
    work.say(f"rendered the classes: {text}")
    folder = label_db / DATASET / "episodic" / DATASET
    folder.mkdir(parents=True)
    for part, names in splits.items():
        numbered = {str(number): name for number, name in enumerate(names)}
        (folder / f"{part}_index2cls.json").write_text(json.dumps(numbered, indent=1) + "\n", encoding="utf-8")
    expand(CLIP_FILE, work.folder / "clip.pt", seed=work.seed)
    work.say(f"wrote the small CLIP and the class splits in {folder}")
    words = ["folder", "--root", str(videos), "--name", DATASET, "--output", str(label_db)]
    work.command("prepare_data", ["tools/prepare_data.py", *words])


def run_net(work: Workspace, name: str, *, encoder: Encoder, options: dict[str, str]) -> Path:
    """Call tools/run_net.py.

    Returns:
        The folder of what it wrote.
    """
    output = work.folder / name
    settings = {
        **encoder.options,
        **COUNTS,
        "MODEL.CLIP_WEIGHTS": str(work.folder / "clip.pt"),
        "SPLITS.LABEL_DB": str(work.folder / "label_db"),
        "SPLITS.DATASET": DATASET,
        "RNG_SEED": str(work.seed),
        "OUTPUT_DIR": str(output),
        **options,
    }
    flat = [word for item in settings.items() for word in item]
    work.command(name, ["tools/run_net.py", "--cfg", encoder.config, "--opts", *flat])
    return output


def train(work: Workspace, model: str) -> dict[str, str]:
    """Train a model on the base classes.

    Returns:
        The options that load what came of it; those of the CLIP as it is for a model that does not train.
    """
    encoder = ENCODERS[model]
    if not encoder.trains:
        return {"TEST.CUSTOM_LOAD": "False"}
    # Validation compares like the last of the tests.
    options = {"TRAIN.ENABLE": "True", "TEST.ENABLE": "False", "EPISODES.HEAD": encoder.heads[-1]}
    folder = run_net(work, f"{_short(model)}_train", encoder=encoder, options=options)
    last = sorted((folder / "checkpoints").glob("*_epoch_*.pyth"))[-1]
    return {"TEST.CUSTOM_LOAD": "True", "TEST.CUSTOM_LOAD_FILE": str(last)}


def test(work: Workspace, model: str, *, head: str, shot: int, weights: dict[str, str]) -> Cell:
    """Test a model in episodes of the test classes."""
    options = {
        "TRAIN.ENABLE": "False", "TEST.ENABLE": "True", **weights,
        "EPISODES.HEAD": head, "EPISODES.SHOT_TEST": str(shot),
    }  # fmt: skip
    folder = run_net(work, f"{_short(model)}_{head}_{shot}shot", encoder=ENCODERS[model], options=options)
    metrics = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]
    accuracy, interval = float(metrics["top1_acc"]), float(metrics["top1_ci95"])
    work.say(f"{accuracy:.1f} +- {interval:.1f} %")
    return accuracy, interval


def compare(work: Workspace) -> Scores:
    """Train and test everything."""
    scores: Scores = {}
    for model, encoder in ENCODERS.items():
        weights = train(work, model)
        for head in encoder.heads:
            title = model if head == "own" else f"{model}, {head}"
            scores[title] = {shot: test(work, model, head=head, shot=shot, weights=weights) for shot in SHOTS}
    return scores


def ceiling_without_order(way: int, num_classes: int) -> float:
    """Most that the frames say without their order, percent.

    Test classes come in pairs that show the same frames in opposite orders. Where an episode has both of a pair, either
    is as good a guess as the other.
    """
    both = (way - 1) / (num_classes - 1)
    return 100.0 * (1.0 - both / 2)


def judge(scores: Scores, chance: float) -> list[tuple[str, bool]]:
    """The bars and whether each is met: CLIP-FSAR at a multiple of chance, and above the CLIP it started from."""
    bars = []
    for shot, (accuracy, _) in scores[LEARNER].items():
        least = LEAST[shot] * chance
        text = f"{LEARNER}, {shot}-shot: {accuracy:.1f} % >= {LEAST[shot]:g} x chance = {least:.1f} %"
        bars.append((text, accuracy >= least))
        raw = max((row[shot][0] for title, row in scores.items() if title.startswith(RAW)), default=None)
        if raw is not None:
            text = f"{LEARNER}, {shot}-shot: {accuracy:.1f} % >= {RAW} {raw:.1f} % + {CLEARLY:.0f}"
            bars.append((text, accuracy >= raw + CLEARLY))
    return bars


def print_table(scores: Scores, *, way: int, num_classes: int) -> None:
    """Print mean accuracies and 95 % intervals."""
    ceiling = ceiling_without_order(way, num_classes)
    print(f"\nAccuracy in {way}-way episodes of {num_classes} classes that were not trained on, and its 95 % interval")
    print(f"(chance {100 / way:.1f} %; {ceiling:.1f} % is the most there is without the order of the frames)\n")
    print(f"{'':26s}" + "".join(f"{f'{shot}-shot':>15s}" for shot in SHOTS))
    for title, row in scores.items():
        cells = (f"{accuracy:.1f} +- {interval:.1f} %" for accuracy, interval in row.values())
        print(f"{title:26s}" + "".join(f"{cell:>15s}" for cell in cells))
    print()


def run(work: Workspace) -> bool:
    """Run the quickstart of episodes.

    Returns:
        Whether all bars are met.

    Raises:
        StageError: if a command fails.
    """
    from slowfast.datasets.synthetic import MotionShapes

    prepare(work)
    scores = compare(work)
    way = 5
    print_table(scores, way=way, num_classes=len(MotionShapes().class_splits["test"]))
    met = print_bars(judge(scores, 100.0 / way))
    work.say("done")
    return met


def _short(model: str) -> str:
    return model.replace(" ", "_").lower()
