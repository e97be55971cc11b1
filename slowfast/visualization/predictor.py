"""The best classes of a video, for a person to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

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
