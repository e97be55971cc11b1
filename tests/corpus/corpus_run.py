"""Build the corpus and try every case in processes that may crash or hang."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from corpus_case import Case
from corpus_check_files import check_annotation, check_config, check_features, check_labels, check_weights
from corpus_check_videos import WrongError, check_video
from corpus_configs import CONFIG_CASES
from corpus_tensors import TENSOR_CASES
from corpus_texts import TEXT_CASES
from corpus_videos import VIDEO_CASES

from slowfast.utils.watched_pool import run_watched

CASES: dict[str, Case] = {case.id: case for case in (*VIDEO_CASES, *TEXT_CASES, *TENSOR_CASES, *CONFIG_CASES)}
SECONDS = 120.0
"""Limit for one case. The slowest takes two; a busy machine may be ten times slower."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A case and where its files are."""

    id: str
    path: str
    folder: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a case: an outcome that is allowed, or a problem."""

    id: str
    outcome: str = ""
    problem: str = ""


def build_corpus(folder: Path, ids: Sequence[str] = tuple(CASES)) -> dict[str, Path]:
    """Write cases, each into a folder of its own.

    Returns:
        Case -> the path to read.
    """
    paths = {}
    for number, name in enumerate(ids):
        place = folder / f"{number:03d}"
        place.mkdir(parents=True)
        paths[name] = CASES[name].write(place)
    return paths


def run_corpus(folder: Path, paths: dict[str, Path], *, workers: int = 2) -> Iterator[Result]:
    """Try every case of a corpus."""
    tasks = []
    for number, (name, path) in enumerate(paths.items()):
        scratch = folder / f"scratch{number:03d}"
        scratch.mkdir()
        tasks.append(Task(id=name, path=str(path), folder=str(scratch)))
    with closing(run_watched(check, tasks, workers=workers, timeout_seconds=SECONDS)) as outcomes:
        for outcome in outcomes:
            if outcome.failure:
                yield Result(id=outcome.task.id, problem=f"{outcome.failure}: {outcome.detail}")
            else:
                yield outcome.value


def check(task: Task) -> Result:
    """Try one case, in this process."""
    case, path, folder = CASES[task.id], Path(task.path), Path(task.folder)
    try:
        outcome = CHECKS[case.kind](case, path, folder)
    except WrongError as error:
        return Result(id=case.id, problem=str(error))
    except Exception:  # noqa: BLE001 - whatever it is, it is the finding
        return Result(id=case.id, problem=traceback.format_exc())
    if case.message and case.message not in outcome:
        return Result(id=case.id, problem=f"expected {case.message!r} in {outcome!r}")
    return Result(id=case.id, outcome=without_folders(outcome, path))


def without_folders(text: str, path: Path) -> str:
    """Shorten the paths of a message to the names of the files."""
    return text.replace(f"{path.parent}/", "").replace(str(path.parent), ".")


CHECKS = {
    "video": check_video,
    "annotation": check_annotation,
    "labels": check_labels,
    "features": check_features,
    "weights": check_weights,
    "config": check_config,
}
