"""Several splits of one dataset read as one: a video that is in three lists is decoded and encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import Split


@dataclass(frozen=True, kw_only=True)
class PoolMember:
    """One split as a part of the pool.

    Attributes:
        split: the split.
        rows: videos of the pool in the order of the split's annotation file, (V_split,), int64.
        contains: whether the split lists a video of the pool, (V,), bool.
        columns: classes of the split among those of the pool, (K_split,), int64.
    """

    split: Split
    rows: NDArray[np.int64]
    contains: NDArray[np.bool_]
    columns: Tensor

    @property
    def num_videos(self) -> int:
        """Videos that the split lists."""
        return len(self.rows)

    def select(self, video_id: Tensor, label: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keep the split's videos and classes.

        Args:
            video_id: videos of the pool, (N,).
            label: their classes in the pool's label set, (N,).
            logits: scores of the pool's classes, (N, K).

        Returns:
            The same of the split's M videos: ids (M,), labels in the split's label set (M,), scores (M, K_split).
        """
        kept = torch.from_numpy(self.contains[video_id.numpy()])
        number = torch.full((int(max(self.columns.max(), label.max() if len(label) else 0)) + 1,), -1)
        number[self.columns] = torch.arange(len(self.columns))
        return video_id[kept], number[label[kept]], logits[kept][:, self.columns]


@dataclass(frozen=True, kw_only=True)
class VideoPool:
    """The videos and classes of several splits.

    The score of a class depends on the video and on that class alone, so that the scores of a split are columns of
    those of the pool.

    Attributes:
        records: each video once, or as often as a split lists it; its label counts in `label_set`. The position is the
            video id.
        label_set: the classes of all splits.
        members: split name -> its part.
        views: temporal views per video.
        crops: spatial crops per view.
    """

    records: Sequence[VideoRecord]
    label_set: LabelSet
    members: Mapping[str, PoolMember]
    views: int
    crops: int


def pool_splits(splits: Sequence[tuple[Split, Sequence[VideoRecord]]]) -> VideoPool:
    """Join splits.

    Args:
        splits: each with the rows of its annotation file; with equal views and crops.

    Returns: the pool, classes and videos in the order of their first occurrence.

    Raises:
        ValueError: if two splits give a video different classes.
    """
    assert len({(split.views, split.crops) for split, _ in splits}) == 1, "splits of one pool look at videos alike"
    label_set, columns = join_label_sets([split.label_set for split, _ in splits])
    position: dict[tuple[str, int], int] = {}
    records: list[VideoRecord] = []
    listed: list[list[int]] = []
    for (split, rows), numbers in zip(splits, columns, strict=True):
        own, seen = [], Counter[str]()
        for row in rows:
            label = numbers[row.label]
            # A video that one split lists twice counts twice, as it always did.
            index = position.setdefault((row.path, seen[row.path]), len(records))
            seen[row.path] += 1
            if index == len(records):
                records.append(row._replace(label=label))
            elif records[index].label != label:
                names = label_set.names[records[index].label], label_set.names[label]
                raise ValueError(f"{split.csv}:{row.line}: {row.path} is {names[1]!r} here, but {names[0]!r} elsewhere")
            own.append(index)
        listed.append(own)
    members = {}
    for (split, _), numbers, own in zip(splits, columns, listed, strict=True):
        contains = np.zeros(len(records), dtype=bool)
        contains[own] = True
        members[split.name] = PoolMember(
            split=split, rows=np.array(own, dtype=np.int64), contains=contains, columns=torch.tensor(numbers)
        )
    first = splits[0][0]
    return VideoPool(records=tuple(records), label_set=label_set, members=members, views=first.views, crops=first.crops)


def join_label_sets(label_sets: Sequence[LabelSet]) -> tuple[LabelSet, list[list[int]]]:
    """Join label sets by class name; a name that one set has twice stands for two classes.

    Args:
        label_sets: any number, at least one.

    Returns:
        The joint label set, with the source of the first, and for each given one the position of its classes in it.
    """
    position: dict[tuple[str, int], int] = {}
    columns = []
    for label_set in label_sets:
        seen: Counter[str] = Counter()
        own = []
        for name in label_set.names:
            own.append(position.setdefault((name, seen[name]), len(position)))
            seen[name] += 1
        columns.append(own)
    return LabelSet.from_names([name for name, _ in position], source=label_sets[0].source), columns
