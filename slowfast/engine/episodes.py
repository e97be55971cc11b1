"""Score episodes: every video is encoded once, then its features serve all episodes that it is in."""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from slowfast.datasets.episodes import EpisodePlan
from slowfast.datasets.types import VideoBatch
from slowfast.engine.complexity import synthetic_clip
from slowfast.engine.evaluator import EvalConfig, ScoredBatch, gather_bad, score_videos
from slowfast.engine.precision import Precision
from slowfast.methods.base import Method
from slowfast.models.episode_heads import Descriptions, EpisodeHead
from slowfast.protocols.metrics import EpisodeTally, Tally, topk_correct
from slowfast.utils.distributed import all_gather_objects, get_rank, get_world_size, is_master

Features = Callable[[NDArray[np.int64]], Tensor]
"""Ids of clips -> their frame features, (V, T, E), fp32, on the CPU."""

_EPISODES_AT_ONCE = 64


def encode_clips(
    method: Method, loader: Iterable[VideoBatch], *, precision: Precision, device: torch.device, config: EvalConfig
) -> Iterator[ScoredBatch]:
    """Encode every clip of a loader once; as `score_videos`, with frame features in the place of scores.

    Yields:
        The clips of each batch; `logits` are their features, (V, T * E).
    """

    def features(batch: VideoBatch) -> Tensor:
        return method.frame_features(batch).flatten(1)

    return score_videos(
        method, loader, precision=precision, device=device, config=config, compute=features, title="encode"
    )


class ClipMemo:
    """What a head keeps of clips, each computed once as long as it is remembered.

    A clip stands for a video and the frames that are read of it. The least recently used ones are forgotten first, so
    that memory is bounded, and computed again when they are asked for; the numbers are the same either way.

    Args:
        compute: ids of different clips, (V,) -> descriptions, (V, ...).
        max_bytes: most that is kept; what a single call asks for is given in any case.
    """

    def __init__(self, compute: Callable[[NDArray[np.int64]], Descriptions], *, max_bytes: float) -> None:
        self._compute = compute
        self._max_bytes = max_bytes
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._free: list[int] = []
        self._size = 0
        self._tables: dict[str, Tensor] = {}

    def rows(self, clips: NDArray[np.int64]) -> Descriptions:
        """Descriptions of clips, of any shape (...) -> (..., ...)."""
        wanted, place = np.unique(clips, return_inverse=True)
        found = [int(clip) for clip in wanted if clip in self._slots]
        for clip in found:
            self._slots.move_to_end(clip)
        absent = np.array([clip for clip in wanted if clip not in self._slots], dtype=np.int64)
        if len(absent):
            self._store(absent, keep=len(wanted))
        slots = torch.tensor([self._slots[int(clip)] for clip in wanted])[place.reshape(clips.shape)]
        return {name: table[slots.to(table.device)] for name, table in self._tables.items()}

    def _store(self, clips: NDArray[np.int64], *, keep: int) -> None:
        rows = self._compute(clips)
        size = sum(row[0].nbytes for row in rows.values())
        capacity = max(keep, int(self._max_bytes // max(1, size)))
        while len(self._slots) + len(clips) > capacity:
            self._free.append(self._slots.popitem(last=False)[1])
        fresh = range(self._size, self._size + max(0, len(clips) - len(self._free)))
        numbers = [*self._free[: len(clips)], *fresh]
        self._free = self._free[len(clips) :]
        self._size += len(fresh)
        self._grow(rows, self._size, most=capacity)
        for name, row in rows.items():
            self._tables[name][torch.tensor(numbers, device=row.device)] = row
        self._slots.update((int(clip), number) for clip, number in zip(clips, numbers, strict=True))

    def _grow(self, rows: Descriptions, size: int, *, most: int) -> None:
        """Make room for so many rows; the tables double, up to what is kept at most, so that few copies are made."""
        for name, row in rows.items():
            table = self._tables.get(name, row.new_empty((0, *row.shape[1:])))
            if len(table) < size:
                larger = row.new_empty((max(size, min(2 * len(table), most)), *row.shape[1:]))
                larger[: len(table)] = table
                self._tables[name] = larger


def score_episodes(
    head: EpisodeHead,
    plan: EpisodePlan,
    features: Features,
    *,
    episodes: Sequence[int] | NDArray[np.int64],
    device: torch.device,
    memo_bytes: float,
) -> Iterator[ScoredBatch]:
    """Score episodes, some at a time, without gradient.

    On a CPU every clip is described and every episode scored on its own, so that the numbers are the same, bit for
    bit, whatever the number of processes; by one thread, since threads would wait for each other longer than they
    compute. Scores are computed in fp32.

    Args:
        head: compares queries with supports.
        plan: the episodes.
        features: of the clips.
        episodes: numbers of those to score, increasing.
        device: where to compute.
        memo_bytes: most memory for what is remembered of the clips.

    Yields:
        For each lot of episodes their numbers as `video_id`, and their scores (E, Q * N) as `logits`.
    """
    labels = np.array([record.label for record in plan.records], dtype=np.int64)
    alone = device.type == "cpu"

    def describe(clips: NDArray[np.int64]) -> Descriptions:
        rows, label = features(clips).to(device), torch.from_numpy(labels[clips]).to(device)
        size = 1 if alone else len(clips)
        parts = [head.describe(*part) for part in zip(rows.split(size), label.split(size), strict=True)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    memo = ClipMemo(describe, max_bytes=memo_bytes)
    show = is_master() and sys.stderr.isatty()
    numbers = np.asarray(episodes, dtype=np.int64)
    lots = np.split(numbers, range(_EPISODES_AT_ONCE, len(numbers), _EPISODES_AT_ONCE)) if len(numbers) else []
    with (
        _one_thread() if alone else contextlib.nullcontext(),
        tqdm(total=len(numbers), desc="episodes", unit="ep", disable=not show, leave=False) as bar,
    ):
        for lot in lots:
            with torch.inference_mode():
                support, query = memo.rows(plan.support[lot]), memo.rows(plan.query[lot].reshape(len(lot), -1))
                classes = torch.from_numpy(plan.classes[lot]).to(device)
                size = 1 if alone else len(lot)
                scores = torch.cat([
                    head.score(_rows(support, start, size), _rows(query, start, size), classes[start : start + size])
                    for start in range(0, len(lot), size)
                ])  # fmt: skip
            bar.update(len(lot))
            zeros = torch.zeros(len(lot), dtype=torch.int64)
            yield ScoredBatch(video_id=torch.from_numpy(lot), label=zeros, logits=scores.float().flatten(1).cpu())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _rows(rows: Descriptions, start: int, size: int) -> Descriptions:
    return {name: value[start : start + size] for name, value in rows.items()}


def feature_size(method: Method, *, num_frames: int, side: int, device: torch.device) -> tuple[int, int]:
    """Frames and width of a clip's features, T and E, found out by encoding a grey one."""
    was_training = method.training
    method.eval()
    try:
        with torch.inference_mode():
            shape = method.frame_features(synthetic_clip(num_frames=num_frames, side=side).to(device)).shape
    finally:
        method.train(was_training)
    return shape[1], shape[2]


def evaluate_episodes(
    method: Method,
    head: EpisodeHead,
    plan: EpisodePlan,
    loader: Iterable[VideoBatch],
    *,
    num_frames: int,
    num_classes: int,
    device: torch.device,
    config: EvalConfig,
    memo_bytes: float,
) -> tuple[EpisodeCounts, tuple[str, ...]]:
    """Encode the clips of a plan and score its episodes, both shared among the processes; all in memory, in fp32.

    Args:
        method: the unwrapped method; its mode is restored at the end.
        head: compares queries with supports.
        plan: the episodes.
        loader: this process's share of their clips.
        num_frames: of a clip, T.
        num_classes: K, of the label set.
        device: where the method lies.
        config: how to encode.
        memo_bytes: as for `score_episodes`.

    Returns:
        The counts of all processes, and one line for each video that could not be decoded; the same on every process.

    Raises:
        ValueError: if no episode can be made of the videos that could be decoded.
    """
    found: list[tuple[Tensor, Tensor]] = []
    bad: list[str] = []
    for batch in encode_clips(method, loader, precision=Precision(device.type), device=device, config=config):
        bad.extend(batch.bad)
        if len(batch.video_id):
            found.append((batch.video_id, batch.logits))
    parts = [part for rank in all_gather_objects(found) for part in rank]
    lines = gather_bad(bad)
    clips = torch.cat([ids for ids, _ in parts] or [torch.empty(0, dtype=torch.int64)]).numpy()
    complete = complete_episodes(plan, clips, bad=lines)
    table = torch.cat([features for _, features in parts])
    del found, parts  # the features are there twice
    place = np.empty(len(plan.records), dtype=np.int64)
    place[clips] = np.arange(len(clips))

    def features(wanted: NDArray[np.int64]) -> Tensor:
        return table[torch.from_numpy(place[wanted])].unflatten(1, (num_frames, -1))

    counts = EpisodeCounts(plan, num_classes=num_classes)
    own = complete[get_rank() :: get_world_size()]
    was_training = method.training
    method.eval()
    try:
        for batch in score_episodes(head, plan, features, episodes=own, device=device, memo_bytes=memo_bytes):
            counts.add(batch.video_id, batch.logits)
    finally:
        method.train(was_training)
    total = EpisodeCounts(plan, num_classes=num_classes)
    for part in all_gather_objects((counts.tally, counts.episodes)):
        total.merge(*part)
    return total, lines


def complete_episodes(plan: EpisodePlan, clips: NDArray[np.int64], *, bad: Sequence[str]) -> NDArray[np.int64]:
    """Episodes that can be made of the clips that were encoded, increasing.

    Args:
        plan: the episodes.
        clips: ids of the clips.
        bad: one line for each video that could not be decoded.

    Raises:
        ValueError: if there is none.
    """
    complete = plan.complete(clips)
    if not len(complete):
        first = f"; the first: {bad[0]}" if bad else ""
        raise ValueError(
            f"none of the {len(plan)} episodes is complete: {len(clips)} of the {len(plan.used)} clips that they take "
            f"could be decoded{first}"
        )
    return complete


class EpisodeCounts:
    """Right answers by episode, and by class of the label set.

    Args:
        plan: the episodes.
        num_classes: K, of the label set.
    """

    def __init__(self, plan: EpisodePlan, *, num_classes: int) -> None:
        self._plan, self._num_classes = plan, num_classes
        self.tally = Tally(num_classes)
        """Queries by class, each as often as an episode takes it."""
        self.episodes = EpisodeTally(plan.spec.num_queries)

    def add(self, number: Tensor, scores: Tensor) -> Tensor:
        """Count episodes: numbers (E,) and scores (E, Q * N), on the CPU; returns how many of each are right, (E,)."""
        _, label, logits = self.queries(number, scores)
        right = topk_correct(logits, label, k=1).view(len(number), -1).sum(dim=1)
        self.tally.add(logits, label)
        self.episodes.add(right)
        return right

    def merge(self, tally: Tally, episodes: EpisodeTally) -> None:
        """Add the counts of other episodes."""
        self.tally.merge(tally)
        self.episodes.merge(episodes)

    def queries(self, number: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The queries of episodes one by one: ids and labels (E * Q,), scores of all classes (E * Q, K).

        A class that is not in the episode has a score of minus infinity.
        """
        spec, rows = self._plan.spec, number.numpy()
        own = scores.view(-1, spec.way)
        classes = torch.from_numpy(self._plan.classes[rows])  # (E, N)
        label = classes.repeat_interleave(spec.query, dim=1).flatten()
        every = classes.repeat_interleave(spec.num_queries, dim=0)  # (E * Q, N)
        logits = own.new_full((len(own), self._num_classes), -torch.inf).scatter_(1, every, own)
        return torch.from_numpy(self._plan.query[rows].reshape(-1)), label, logits
