from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from slowfast.config.paths import is_plain_name
from slowfast.datasets.label_set import LabelSet

Mode = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """Episodes to draw from the videos of a split: N classes, of each S labelled videos and some to be told apart.

    Attributes:
        way: classes of an episode, N.
        shot: support videos per class, S.
        query: query videos per class, so that Q = N * query.
        count: number of episodes; in training, of an epoch.
        seed: an episode is a function of the seed and its number alone.
        random_frames: every clip of a test draws its frames anew, instead of those in the middle.
        keys: keys of EPISODES that way, shot and query come from, for errors.

    Raises:
        ValueError: naming the key that is out of range.
    """

    way: int
    shot: int
    query: int
    count: int
    seed: int
    random_frames: bool = False
    keys: tuple[str, str, str] = ("WAY", "SHOT", "QUERY")

    def __post_init__(self) -> None:
        names = (*self.keys, "NUM_TEST, NUM_VAL, NUM_TRAIN")
        for key, value, least in zip(names, (self.way, self.shot, self.query, self.count), (2, 1, 1, 1), strict=True):
            if value < least:
                raise ValueError(f"EPISODES.{key}: {value} is out of range; allowed: at least {least}")

    @property
    def num_queries(self) -> int:
        """Query videos of an episode, Q."""
        return self.way * self.query


@dataclass(frozen=True, kw_only=True)
class Split:
    """What to read and how often to look at it.

    Attributes:
        name: for logs and result files, e.g. "train" or "test".
        csv: the annotation file.
        label_set: the classes that the labels of `csv` index.
        mode: how clips are drawn: "train" at random, "val" one centre clip, "test" views x crops.
        views: temporal clips per video (test only).
        crops: spatial crops per temporal clip, 1 or 3 (test only).
        prefix: folder that the paths of `csv` start from; None: DATA.PATH_PREFIX.
        separator: what separates path and label; None: DATA.PATH_LABEL_SEPARATOR.
        official: rows that the published list has; None where nothing was published.
        episodes: what is drawn from the videos; None where they are read one by one, each with its label.
    """

    name: str
    csv: Path
    label_set: LabelSet
    mode: Mode
    views: int = 1
    crops: int = 1
    prefix: str | None = None
    separator: str | None = None
    official: int | None = None
    episodes: EpisodeSpec | None = None

    def __post_init__(self) -> None:
        if not is_plain_name(self.name):
            # Result files lie in a folder of this name.
            raise ValueError(f"split {self.name!r}: a name must be that of one folder, without separators")
        if self.mode not in ("train", "val", "test"):
            raise ValueError(f"split {self.name!r}: mode {self.mode!r} is not one of train, val, test")
        if self.views < 1:
            raise ValueError(f"TEST.NUM_ENSEMBLE_VIEWS: found {self.views}, allowed: 1 or more")
        if self.crops not in (1, 3):
            raise ValueError(f"TEST.NUM_SPATIAL_CROPS: found {self.crops}, allowed: 1 or 3")


@dataclass(frozen=True)
class VideoBatch:
    """Clips of one step; one sample is one view of one video.

    Attributes:
        frames: (B, 3, T, H, W), uint8 or float32, values 0 to 255, RGB, not normalised.
        label: (B,), int64.
        video_id: (B,), int64, the row of the video in its csv (from 0).
        view: (B,), int64, temporal view * crops + crop.
        bad: one line per video that could not be decoded while this batch was made.
        weights: (B, K), float32, the share of each class in each sample, where samples are mixed. `label` is then the
            class with the largest share. Loaders never set it.
        host_label: `label` as it was before `to` brought it to a device: who needs its values waits for nothing.
    """

    frames: Tensor
    label: Tensor
    video_id: Tensor
    view: Tensor
    bad: tuple[str, ...] = ()
    weights: Tensor | None = None
    host_label: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.frames.ndim == 5, f"frames must be (B, 3, T, H, W), found {tuple(self.frames.shape)}"
        assert self.frames.shape[1] == 3, f"frames must be (B, 3, T, H, W), found {tuple(self.frames.shape)}"
        assert self.frames.dtype in (torch.uint8, torch.float32), f"frames: dtype {self.frames.dtype}"
        for name in ("label", "video_id", "view"):
            field: Tensor = getattr(self, name)
            assert field.shape == self.frames.shape[:1], f"{name} must be (B,), found {tuple(field.shape)}"
            assert field.dtype == torch.int64, f"{name}: dtype {field.dtype}"
        if self.weights is not None:
            shape = tuple(self.weights.shape)
            assert len(shape) == 2, f"weights must be (B, K), found {shape}"
            assert shape[0] == len(self), f"weights must be (B, K), found {shape}"
            assert self.weights.dtype == torch.float32, f"weights: dtype {self.weights.dtype}"

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def target(self) -> Tensor:
        """What a loss compares with: `weights` (B, K) where samples are mixed, else `label` (B,)."""
        return self.label if self.weights is None else self.weights

    @property
    def label_numbers(self) -> list[int]:
        """Labels as numbers; waits for the device where nobody kept them on the host."""
        numbers: list[int] = (self.label if self.host_label is None else self.host_label).tolist()
        return numbers

    def split(self, parts: int) -> list["VideoBatch"]:
        """Cut into at most `parts` batches of nearly equal size; B is kept overall, reports of bad videos are not."""
        return self.cut([len(part) for part in torch.arange(len(self)).tensor_split(min(parts, len(self)))])

    def cut(self, sizes: Sequence[int]) -> list["VideoBatch"]:
        """Cut into batches of the given sizes, which add up to B; reports of bad videos are not kept."""
        columns = {
            name: value.split(list(sizes))
            for name in ("frames", "label", "video_id", "view", "weights", "host_label")
            if (value := getattr(self, name)) is not None
        }
        return [
            replace(self, bad=(), **{name: parts[number] for name, parts in columns.items()})
            for number in range(len(sizes))
        ]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "VideoBatch":
        """Copy the tensors to `device`."""
        return replace(
            self,
            frames=self.frames.to(device, non_blocking=non_blocking),
            label=self.label.to(device, non_blocking=non_blocking),
            video_id=self.video_id.to(device, non_blocking=non_blocking),
            view=self.view.to(device, non_blocking=non_blocking),
            weights=None if self.weights is None else self.weights.to(device, non_blocking=non_blocking),
            host_label=self.label if self.label.device.type == "cpu" else self.host_label,
        )

    def pin_memory(self) -> "VideoBatch":
        """Pin the tensors; the hook that DataLoader calls."""
        return replace(
            self,
            frames=self.frames.pin_memory(),
            label=self.label.pin_memory(),
            video_id=self.video_id.pin_memory(),
            view=self.view.pin_memory(),
            weights=None if self.weights is None else self.weights.pin_memory(),
        )


def collate(samples: Sequence[VideoBatch]) -> VideoBatch:
    """Join the samples of a batch; each is a small batch of its own (views of one video, or none if it is bad)."""
    assert samples, "collate needs at least one sample"
    assert all(sample.weights is None for sample in samples), "samples are mixed after they are joined"
    return VideoBatch(
        frames=torch.cat([sample.frames for sample in samples]),
        label=torch.cat([sample.label for sample in samples]),
        video_id=torch.cat([sample.video_id for sample in samples]),
        view=torch.cat([sample.view for sample in samples]),
        bad=tuple(line for sample in samples for line in sample.bad),
    )


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes of one step, all of the same shape.

    The videos of an episode stand class by class, so that labels within the episode follow from the order.

    Attributes:
        support: E * N * S clips; the labels are classes of the split.
        query: E * Q clips, Q / N of each class of their episode.
        way: classes of an episode, N.
        shot: support videos per class, S.
        query_per_class: Q / N.
    """

    support: VideoBatch
    query: VideoBatch
    way: int
    shot: int
    query_per_class: int

    def __post_init__(self) -> None:
        found = len(self.support), len(self.query)
        sizes = self.way * self.shot, self.way * self.query_per_class
        assert found[0] % sizes[0] == 0, f"{found[0]} support clips are no episodes of {sizes[0]}"
        assert found[0] // sizes[0] * sizes[1] == found[1], f"{found} clips are no episodes of {sizes}"
        assert self.support.weights is None, "clips of episodes are not mixed"
        assert self.query.weights is None, "clips of episodes are not mixed"

    def __len__(self) -> int:
        """Number of episodes, E."""
        return len(self.support) // (self.way * self.shot)

    @property
    def bad(self) -> tuple[str, ...]:
        """One line per video that could not be decoded while this batch was made."""
        return self.support.bad + self.query.bad

    @property
    def video_id(self) -> Tensor:
        """Rows of all videos in their csv, supports first, (E * N * S + E * Q,)."""
        return torch.cat((self.support.video_id, self.query.video_id))

    @property
    def target(self) -> Tensor:
        """Class of each query among the N of its episode, (E * Q,)."""
        classes = torch.arange(self.way, device=self.query.label.device)
        return classes.repeat_interleave(self.query_per_class).repeat(len(self))

    @property
    def classes(self) -> Tensor:
        """Classes of each episode in the label set of the split, (E, N)."""
        return self.support.label.view(len(self), self.way, self.shot)[:, :, 0]

    def split(self, parts: int) -> list["EpisodeBatch"]:
        """Cut into at most `parts` batches of whole episodes, of nearly equal number."""
        sizes = [len(part) for part in torch.arange(len(self)).tensor_split(min(parts, len(self)))]
        supports = self.support.cut([size * self.way * self.shot for size in sizes])
        queries = self.query.cut([size * self.way * self.query_per_class for size in sizes])
        return [replace(self, support=support, query=query) for support, query in zip(supports, queries, strict=True)]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "EpisodeBatch":
        """Copy the tensors to `device`."""
        return replace(
            self,
            support=self.support.to(device, non_blocking=non_blocking),
            query=self.query.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "EpisodeBatch":
        """Pin the tensors; the hook that DataLoader calls."""
        return replace(self, support=self.support.pin_memory(), query=self.query.pin_memory())


def collate_episodes(samples: Sequence[EpisodeBatch]) -> EpisodeBatch:
    """Join the episodes of a batch."""
    assert samples, "collate needs at least one episode"
    return replace(
        samples[0],
        support=collate([sample.support for sample in samples]),
        query=collate([sample.query for sample in samples]),
    )


Batch = VideoBatch | EpisodeBatch
"""What a step learns from."""
