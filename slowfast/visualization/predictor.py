"""The best classes of a video, for a person to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from slowfast.datasets.types import VideoBatch
from slowfast.datasets.video_files import VIDEO_SUFFIXES
from slowfast.utils.io import expanded


@dataclass(frozen=True, slots=True)
class Guess:
    """One class proposed for a video."""

    name: str
    probability: float
    """Softmax over the given classes, [0, 1]."""


def top_guesses(logits: Tensor, names: Sequence[str], *, k: int) -> list[Guess]:
    """Rank the classes of one video.

    Args:
        logits: scores averaged over the views, (K,).
        names: class names, K.
        k: how many to return; more than K means K.

    Returns:
        The best classes first.
    """
    probabilities = logits.softmax(dim=-1)
    best = probabilities.topk(min(k, len(names)))
    return [
        Guess(names[index], value) for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def find_videos(paths: Iterable[str]) -> list[Path]:
    """List videos: files as they are, folders by the videos inside, sub-folders included.

    Raises:
        ValueError: if a path does not exist, or a folder holds no video.
    """
    videos: list[Path] = []
    for name in paths:
        path = expanded(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
            if not inside:
                raise ValueError(f"{path}: holds no video; searched for {', '.join(sorted(VIDEO_SUFFIXES))}")
            videos.extend(inside)
        elif path.is_file():
            videos.append(path)
        else:
            raise ValueError(f"{path}: no such video or folder")
    return videos


class LastBatch:
    """Hands the batches of a loader on and remembers the last one.

    Args:
        loader: gives batches with all views of a video in one batch.
    """

    def __init__(self, loader: DataLoader[VideoBatch] | Sequence[VideoBatch]) -> None:
        self._loader = loader
        self._batch: VideoBatch | None = None

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[VideoBatch]:
        for batch in self._loader:
            self._batch = batch
            yield batch

    def clips(self, video_id: int) -> VideoBatch:
        """The clips of one video of the last batch, in the order of their views."""
        assert self._batch is not None
        rows = torch.nonzero(self._batch.video_id == video_id).flatten()
        return select_clips(self._batch, rows[self._batch.view[rows].argsort()])


def select_clips(batch: VideoBatch, rows: Tensor) -> VideoBatch:
    """Some clips of a batch, in the order of their rows (N,)."""
    return replace(
        batch,
        frames=batch.frames[rows],
        label=batch.label[rows],
        video_id=batch.video_id[rows],
        view=batch.view[rows],
        weights=None if batch.weights is None else batch.weights[rows],
        bad=(),
    )
