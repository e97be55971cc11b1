"""Which videos make an episode: a function of a seed and the number of the episode, and of nothing else."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.types import EpisodeSpec
from slowfast.utils.seed import derive_seed


@dataclass(frozen=True, slots=True)
class Episode:
    """One task: tell the queries' classes apart by the supports.

    Attributes:
        classes: labels of the N classes; the position is the label within the episode, (N,).
        support: labelled videos, by class, (N, S).
        query: videos to classify, by class, (N, Q / N).
    """

    classes: NDArray[np.int64]
    support: NDArray[np.int64]
    query: NDArray[np.int64]


class EpisodeDraws:
    """The episodes of a split, by number.

    Classes are drawn without repetition from those that have videos, then the videos of each, supports first. The
    draws use nothing of Python's generator but `random()`, whose numbers do not change from version to version.

    Args:
        labels: of the videos, (V,).
        spec: shape of the episodes, and their seed.
        where: the list, for errors.
        names: class names.

    Raises:
        ValueError: if there are fewer classes than N, or fewer videos of one than an episode takes.
    """

    def __init__(
        self, labels: Sequence[int] | NDArray[np.int64], *, spec: EpisodeSpec, where: str, names: Sequence[str]
    ) -> None:
        self.spec = spec
        numbers = np.asarray(labels, dtype=np.int64)
        order = np.argsort(numbers, kind="stable")
        self._classes, first = np.unique(numbers[order], return_index=True)
        self._videos = np.split(order.astype(np.int64), first[1:])
        if len(self._classes) < spec.way:
            raise ValueError(
                f"EPISODES.{spec.keys[0]}: {spec.way}, but {where} has videos of {len(self._classes)} classes"
            )
        wanted = spec.shot + spec.query
        for number, videos in zip(self._classes.tolist(), self._videos, strict=True):
            if len(videos) < wanted:
                raise ValueError(
                    f"{where}: class {names[number]!r} has {len(videos)} videos; an episode takes {wanted}: "
                    f"{spec.shot} supports (EPISODES.{spec.keys[1]}) and {spec.query} queries (EPISODES.{spec.keys[2]})"
                )

    def __len__(self) -> int:
        return self.spec.count

    def __getitem__(self, number: int) -> Episode:
        """Draw an episode; any number from 0 on."""
        rng = random.Random(derive_seed("episode", self.spec.seed, number))
        chosen = _sample(rng, len(self._classes), self.spec.way)
        wanted = self.spec.shot + self.spec.query
        videos = np.stack([self._videos[place][_sample(rng, len(self._videos[place]), wanted)] for place in chosen])
        return Episode(self._classes[chosen], videos[:, : self.spec.shot], videos[:, self.spec.shot :])

    def spare(
        self, episode: Episode, place: int, *key: int | str, without: Collection[int] = frozenset()
    ) -> int | None:
        """Draw a video for one that cannot be decoded: of the same class, and not in the episode; None if all are.

        Args:
            episode: the episode.
            place: which of its classes.
            key: what the draw is for.
            without: spares that were drawn for the episode before.
        """
        videos = self._videos[int(np.searchsorted(self._classes, episode.classes[place]))]
        taken = np.concatenate((episode.support[place], episode.query[place], np.array([*without], dtype=np.int64)))
        left = np.setdiff1d(videos, taken)
        return int(left[derive_seed("spare", self.spec.seed, *key) % len(left)]) if len(left) else None


@dataclass(frozen=True, kw_only=True)
class EpisodePlan:
    """All episodes of a test, and the clips that they are made of.

    Attributes:
        spec: shape of the episodes.
        records: the clips; the position is the id. A clip is a video, unless its frames are drawn for each use.
        video: row of each clip in the list, (clips,).
        num_videos: rows of the list.
        classes: labels of the classes, (episodes, N).
        support: ids of the supports, (episodes, N, S).
        query: ids of the queries, (episodes, N, Q / N).
    """

    spec: EpisodeSpec
    records: Sequence[VideoRecord]
    video: NDArray[np.int64]
    num_videos: int
    classes: NDArray[np.int64]
    support: NDArray[np.int64]
    query: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def used(self) -> NDArray[np.int64]:
        """Clips that some episode takes, increasing, (C,)."""
        return np.union1d(self.support, self.query)

    @property
    def unused(self) -> list[int]:
        """Clips that none takes."""
        unused: list[int] = np.setdiff1d(np.arange(len(self.records)), self.used).tolist()
        return unused

    def count_videos(self, clips: NDArray[np.int64]) -> int:
        """Number of different videos that some clips show."""
        return len(np.unique(self.video[clips]))

    def complete(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """Episodes that can be made of some clips, increasing, (episodes,)."""
        there = np.zeros(len(self.records), dtype=bool)
        there[clips] = True
        return np.flatnonzero(there[self.support].all(axis=(1, 2)) & there[self.query].all(axis=(1, 2)))


def plan_episodes(draws: EpisodeDraws, records: Sequence[VideoRecord]) -> EpisodePlan:
    """Draw all episodes of a test.

    Args:
        draws: the episodes.
        records: the videos.
    """
    episodes = [draws[number] for number in range(len(draws))]
    classes, support, query = (
        np.stack([getattr(episode, name) for episode in episodes]) for name in ("classes", "support", "query")
    )
    num_videos, video = len(records), np.arange(len(records))
    if draws.spec.random_frames:
        # Episode by episode, so that the clips of one do not depend on how many there are.
        videos = np.concatenate((support, query), axis=2)
        video = videos.ravel()
        records = [records[int(row)] for row in video]
        clips = np.arange(videos.size).reshape(videos.shape)
        support, query = np.split(clips, [draws.spec.shot], axis=2)
    return EpisodePlan(
        spec=draws.spec,
        records=tuple(records),
        video=video,
        num_videos=num_videos,
        classes=classes,
        support=support,
        query=query,
    )


def _sample(rng: random.Random, total: int, count: int) -> list[int]:
    """Draw `count` of `total` numbers in random order, without repetition: the first steps of a shuffle."""
    moved: dict[int, int] = {}
    drawn = []
    for place in range(count):
        other = place + int(rng.random() * (total - place))
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return drawn
