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
