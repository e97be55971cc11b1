"""Episodes as items of a dataset: their videos decoded, class by class."""

from __future__ import annotations

from typing import Literal

from torch.utils.data import Dataset

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.episodes import Episode, EpisodeDraws
from slowfast.datasets.types import EpisodeBatch, VideoBatch, collate
from slowfast.datasets.video_dataset import VideoDataset

_MAX_REPLACEMENTS = 5

Role = Literal["support", "query"]


class EpisodeDataset(Dataset[EpisodeBatch]):
    """Training episodes of a split; the key of an item is (epoch, index), the item a batch of one episode.

    Every clip is drawn anew in each episode. A video that cannot be decoded is replaced by another one of its class,
    which the episode and the place determine, and reported; no video is in an episode twice.

    Args:
        draws: which videos make an episode.
        support: reads the supports.
        query: reads the queries; it may be the same.
    """

    def __init__(self, draws: EpisodeDraws, *, support: VideoDataset, query: VideoDataset) -> None:
        assert len(support) == len(query), "supports and queries are videos of one list"
        self.draws = draws
        self._readers = {"support": support, "query": query}

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def num_videos(self) -> int:
        """Videos that episodes are drawn from."""
        return len(self._readers["support"])

    def watch(self, workers: int) -> None:
        """Let workers note which video they are at, where this process can read it."""
        for reader in self._different_readers():
            reader.watch(workers)

    def in_progress(self) -> list[str]:
        """Videos that workers are at, the one that was begun first in front."""
        return [path for _, path in sorted(pair for reader in self._different_readers() for pair in reader.begun())]

    def _different_readers(self) -> list[VideoDataset]:
        return list({id(reader): reader for reader in self._readers.values()}.values())

    def __getitem__(self, key: tuple[int, int]) -> EpisodeBatch:
        epoch, index = key
        number = epoch * len(self) + index
        episode, spec, spares = self.draws[number], self.draws.spec, set[int]()
        return EpisodeBatch(
            support=self._clips("support", episode, number, spares),
            query=self._clips("query", episode, number, spares),
            way=spec.way,
            shot=spec.shot,
            query_per_class=spec.query,
        )

    def _clips(self, role: Role, episode: Episode, number: int, spares: set[int]) -> VideoBatch:
        videos = episode.support if role == "support" else episode.query
        return collate([
            self._clip(int(video), role, episode, (number, place, role, column), spares)
            for place, row in enumerate(videos)
            for column, video in enumerate(row)
        ])  # fmt: skip

    def _clip(
        self, video: int, role: Role, episode: Episode, key: tuple[int, int, Role, int], spares: set[int]
    ) -> VideoBatch:
        """Read a video, or one that takes its place; `spares` are those that were tried in the episode before."""
        bad: list[str] = []
        chosen: int | None = video
        while chosen is not None and len(bad) <= _MAX_REPLACEMENTS:
            try:
                return self._readers[role].random_clip(chosen, *key, bad=tuple(bad))
            except DecodeError as error:
                bad.append(str(error))
                chosen = self.draws.spare(episode, key[1], *key, len(bad), without=spares)
                spares |= set() if chosen is None else {chosen}
        others = f"nor can {len(bad) - 1} others of its class" if len(bad) > 1 else "and its class has no other"
        raise ValueError(f"{bad[0]}; {others}")
