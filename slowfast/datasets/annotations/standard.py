"""Lists that every dataset with a training and a test list gets besides its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from slowfast.datasets.annotations.files import AnnotationRequest
from slowfast.datasets.annotations.rows import check_counts
from slowfast.datasets.draws import base_to_novel_lists, few_shot_lists, half_lists
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.prepared import DraftList
from slowfast.utils.io import parse_json

HALVES = ("base", "novel")


def standard_lists(
    lists: Mapping[str, DraftList],
    request: AnnotationRequest,
    *,
    train: DraftList | None,
    test: DraftList | None,
    published: Mapping[str, int] | None = None,
    few_shot: bool = True,
    halves_of: DraftList | None = None,
) -> dict[str, DraftList]:
    """Add the lists of the few-shot, base-to-novel and half-class protocols.

    Args:
        lists: what the dataset has of its own.
        request: seed, class files, whether any count will do.
        train: the list that shots are drawn from.
        test: the list that base-to-novel divides.
        published: half -> number of its test videos.
        few_shot: whether the dataset has few-shot lists.
        halves_of: the list that half-class draws restrict, if the dataset has them.

    Raises:
        ValueError: if a class has too few videos, or a half is not as long as published.
    """
    added: dict[str, DraftList] = {}
    if halves_of is not None:
        added |= half_lists(halves_of, num_classes=len(LabelSet.from_json(request.class_files / "index2cls.json")))
    if few_shot and train is not None:
        added |= few_shot_lists(train, seed=request.seed, fewer=request.any_counts)
    added |= base_to_novel_lists(
        train=train,
        test=test,
        halves={half: read_ids(request.class_files / "base_to_novel" / f"{half}_ids.json") for half in HALVES},
        seed=request.seed,
        published=published,
        fewer=request.any_counts,
    )
    if not request.any_counts:
        check_counts(added, source=request.annotations)
    return {**lists, **added}


def read_ids(path: Path) -> tuple[int, ...]:
    """Labels of the classes of a half, in its own order.

    Raises:
        ValueError: if the file is absent or not a list of numbers.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error.msg})") from error
    if not isinstance(content, list) or not all(isinstance(entry, int) for entry in content):
        raise ValueError(f"{path}: expected a list of class numbers")
    return tuple(content)
