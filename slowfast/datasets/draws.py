"""Draws of videos and classes for protocols that no official list fixes.

A draw of videos is a rule, not a run of a generator: of each class, take the videos whose hash with the seed is
smallest. It does not depend on the order of the source, on other classes or on the version of Python.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from slowfast.datasets.prepared import DraftList
from slowfast.utils.seed import derive_seed

SHOTS = (2, 4, 8, 16)
BASE_TO_NOVEL_SHOTS = 16
BASE_TO_NOVEL_SEEDS = (1, 2, 3)
HALF_DRAWS = 10
HALF_SEED = 2023

Rows = tuple[tuple[str, int], ...]


def draw_shots(rows: Sequence[tuple[str, int]], shots: int, *, key: Sequence[int | str], fewer: bool = False) -> Rows:
    """Draw the same number of videos from each class.

    Args:
        rows: (video, label); every label is a class that takes part.
        shots: videos per class, 1 or more.
        key: what the draw is for, for instance ("few_shot", seed, shots).
        fewer: take all videos of a class that has fewer.

    Returns: rows ordered by label, within a label in the order of `rows`.

    Raises:
        ValueError: if a class has fewer videos.
    """
    by_label: dict[int, list[int]] = defaultdict(list)
    for position, (_, label) in enumerate(rows):
        by_label[label].append(position)
    drawn: list[tuple[str, int]] = []
    for label, positions in sorted(by_label.items()):
        if len(positions) < shots and not fewer:
            raise ValueError(
                f"class {label} has {len(positions)} videos, {shots} are to be drawn; --any-counts takes what there is"
            )
        ranked = sorted(positions, key=lambda position: (derive_seed(*key, rows[position][0]), position))
        drawn += [rows[position] for position in sorted(ranked[:shots])]
    return tuple(drawn)


def restrict(rows: Sequence[tuple[str, int]], ids: Sequence[int]) -> Rows:
    """Keep the rows of some classes and number these classes from 0.

    Args:
        rows: (video, label).
        ids: labels to keep; the new label is the position in `ids`.
    """
    new = {label: position for position, label in enumerate(ids)}
    return tuple((video, new[label]) for video, label in rows if label in new)


def half_classes(num_classes: int, *, draws: int = HALF_DRAWS, seed: int = HALF_SEED) -> tuple[tuple[int, ...], ...]:
    """Draw half of the classes, several times.

    One list of all labels is shuffled on and on by one generator; a draw is the first half of it, sorted.

    Args:
        num_classes: K.
        draws: number of halves.
        seed: of Python's Mersenne Twister, whose `shuffle` is the same in all versions.

    Returns: `draws` times K // 2 labels.

    Source: the half-class evaluation of Open-VCLIP (ICML 2023).
    """
    generator = random.Random(seed)
    labels = list(range(num_classes))
    halves = []
    for _ in range(draws):
        generator.shuffle(labels)
        halves.append(tuple(sorted(labels[: num_classes // 2])))
    return tuple(halves)


def few_shot_lists(train: DraftList, *, seed: int, fewer: bool = False) -> dict[str, DraftList]:
    """Few-shot training lists, drawn anew for each number of shots.

    Args:
        train: the training list to draw from.
        seed: of the draws.
        fewer: see `draw_shots`.
    """
    return {
        f"few_shot/{shots}/train": DraftList(
            rows=draw_shots(train.rows, shots, key=("few_shot", seed, shots), fewer=fewer),
            classes=train.classes,
            origin=f"{shots} per class of {train.origin}, seed {seed}",
        )
        for shots in SHOTS
    }


def base_to_novel_lists(
    *,
    train: DraftList | None,
    test: DraftList | None,
    halves: Mapping[str, Sequence[int]],
    seed: int,
    published: Mapping[str, int] | None = None,
    fewer: bool = False,
) -> dict[str, DraftList]:
    """Lists of the base-to-novel protocol.

    Args:
        train: the training list to draw from; None leaves the training lists out.
        test: the list to divide; None leaves the test lists out.
        halves: "base" and "novel" -> labels of that half in its own order.
        seed: of the draws.
        published: half -> number of test videos, where it is known.
        fewer: see `draw_shots`.
    """
    lists = {}
    for run in BASE_TO_NOVEL_SEEDS if train is not None else ():
        assert train is not None
        lists[f"base_to_novel/seed{run}/train"] = DraftList(
            rows=draw_shots(
                restrict(train.rows, halves["base"]),
                BASE_TO_NOVEL_SHOTS,
                key=("base_to_novel", seed, run),
                fewer=fewer,
            ),
            classes="base_to_novel/base_index2cls.json",
            origin=f"{BASE_TO_NOVEL_SHOTS} per base class of {train.origin}, seed {seed}, draw {run}",
        )
    for half, ids in halves.items() if test is not None else ():
        assert test is not None
        lists[f"base_to_novel/{half}_test"] = DraftList(
            rows=restrict(test.rows, ids),
            classes=f"base_to_novel/{half}_index2cls.json",
            official=(published or {}).get(half),
            origin=f"{half} half of {test.origin}",
        )
    return lists


def half_lists(test: DraftList, *, num_classes: int) -> dict[str, DraftList]:
    """Test lists of the half-class draws; list `half<i>/test` has the classes `splits/half<i>/index2cls.json`.

    Args:
        test: the list to restrict.
        num_classes: K.
    """
    return {
        f"half{draw}/test": DraftList(
            rows=restrict(test.rows, ids),
            classes=f"splits/half{draw}/index2cls.json",
            origin=f"{len(ids)} classes of {test.origin}, draw {draw}",
        )
        for draw, ids in enumerate(half_classes(num_classes))
    }
