import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.decode import DecodeError, VideoInfo, decode_frames
from slowfast.datasets.frame_colors import change_colors
from slowfast.datasets.frame_sampling import (
    ClipPosition,
    Stride,
    dense_indices,
    interval_indices,
    pyslowfast_indices,
    pyslowfast_whole_indices,
    pyslowfast_window,
    uniform_indices,
)
from slowfast.datasets.random_erasing import random_erasing
from slowfast.datasets.transforms import (
    AugmentSettings,
    SpatialSettings,
    augment,
    finish,
    fixed_views,
    random_view,
)
from slowfast.datasets.types import Mode, VideoBatch
from slowfast.utils.seed import derive_seed

_MAX_REPLACEMENTS = 5


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Geometry of clips in time.

    Attributes:
        num_frames: frames per clip.
        sampling_rate: distance between them in frames at `target_fps`; "uniform" reads neither.
        target_fps: frame rate that videos are brought to.
        jitter_fps: upper end of a uniform addition to `target_fps` in training.
        rule: "dense", "pyslowfast", "uniform" or "interval", see `frame_sampling`.
        offsets: DATA.USE_OFFSET_SAMPLING, read by "pyslowfast" for streams of unknown duration only.
        reverse: feed test clips backwards.
    """

    num_frames: int = 8
    sampling_rate: float = 8
    target_fps: float = 30
    jitter_fps: float = 0.0
    rule: Literal["dense", "pyslowfast", "uniform", "interval"] = "dense"
    offsets: bool = False
    reverse: bool = False

    def indices(self, info: VideoInfo, position: ClipPosition, target_fps: float) -> list[int]:
        """Choose the frames of one clip.

        Args:
            info: the video; the rule "pyslowfast" needs its `pts`.
            position: where the clip lies.
            target_fps: `self.target_fps`, jitter included.
        """
        stride = Stride(num_frames=self.num_frames, sampling_rate=self.sampling_rate, target_fps=target_fps)
        if self.rule == "uniform":
            return uniform_indices(info.num_frames, num_frames=self.num_frames, position=position)
        if self.rule == "dense":
            return dense_indices(info.num_frames, info.fps, stride=stride, position=position)
        if self.rule == "interval":
            return interval_indices(info.num_frames, info.fps, stride=stride, position=position)
        if info.duration is None or info.pts is None:
            total = info.num_frames
            return pyslowfast_whole_indices(total, info.fps, stride=stride, position=position, offsets=self.offsets)[0]
        total = info.stated_frames or info.num_frames
        window = pyslowfast_window(total, info.fps, stride=stride, position=position)
        return pyslowfast_indices(info.pts, window, total=total, duration=info.duration, fps=info.fps, stride=stride)

    def draw_segments(self, seed: int) -> tuple[float, ...]:
        """Draw where in its segment each frame of a training clip lies; nothing for rules without segments."""
        rng = random.Random(seed)
        return tuple(rng.random() for _ in range(self.num_frames)) if self.rule == "uniform" else ()


class VideoDataset(Dataset[VideoBatch]):
    """Videos of one split; an item is a small batch of the clips of one video.

    In training the key of an item is (epoch, index) and the item holds `crops_per_clip` random crops of one random
    clip, each augmented in its own way. All randomness follows from (seed, epoch, index): workers and ranks change
    nothing, and augmentation does not move the crops. A video that cannot be decoded is replaced by one that (seed,
    epoch, index, attempt) determines, and reported.

    Otherwise the key is the index, and the item holds all views x crops of the video, which is decoded once; the one
    view of validation is the centre clip. A video that cannot be decoded gives an item of no clips and a report.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        *,
        mode: Mode,
        sampling: SamplingSettings,
        spatial: SpatialSettings,
        views: int = 1,
        crops: int = 1,
        crops_per_clip: int = 1,
        augment: AugmentSettings | None = None,
        seed: int = 0,
        random_frames: bool = False,
        decode: Callable[..., NDArray[np.uint8]] = decode_frames,
    ) -> None:
        """Keep the records in a form that workers share.

        Args:
            records: rows of the annotation file; the position is the video id.
            mode: how clips are drawn.
            sampling: geometry in time.
            spatial: geometry in the picture.
            views: temporal clips per test video.
            crops: spatial crops per test clip.
            crops_per_clip: random crops per training clip (AUG.NUM_SAMPLE).
            augment: what else training clips go through.
            seed: run seed.
            random_frames: of a clip that is not for training, too, the frames are drawn; its one view is cut as ever.
            decode: entry of `decode.DECODERS`.

        Raises:
            ValueError: if the crop does not fit into the short side it is cut from.
        """
        # One buffer instead of a list of strings: reference counts of strings would copy their pages in every worker.
        encoded = [os.fsencode(record.path) for record in records]
        self._paths = b"".join(encoded)
        self._ends = np.cumsum([len(path) for path in encoded])
        self._labels = np.array([record.label for record in records], dtype=np.int64)
        self._mode = mode
        self._sampling = sampling
        self._spatial = spatial
        self._views = views if mode == "test" else 1
        self._crops = crops if mode == "test" else 1
        self._crops_per_clip = crops_per_clip
        self._augment = augment or AugmentSettings()
        self._seed = seed
        self._random_frames = random_frames
        self._decode = decode
        self._at: Tensor | None = None
        self._size = spatial.test_crop if mode == "test" else spatial.train_crop
        self._short = spatial.test_crop if self._crops == 3 else round(spatial.jitter_scales[0])
        if self._size > self._short and not (mode == "train" and (spatial.relative_area or spatial.crop_scales)):
            key = "DATA.TEST_CROP_SIZE" if mode == "test" else "DATA.TRAIN_CROP_SIZE"
            raise ValueError(
                f"{key}: {self._size} does not fit into the short side {self._short} of DATA.TRAIN_JITTER_SCALES"
            )

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, index: int) -> str:
        """Path of a video."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._paths[start : self._ends[index]])

    def watch(self, workers: int) -> None:
        """Let workers note which video they are at, where this process can read it.

        Args:
            workers: their number.
        """
        self._at = torch.full((workers, 2), -1.0, dtype=torch.float64).share_memory_() if workers else None

    def in_progress(self) -> list[str]:
        """Videos that workers are at, the one that was begun first in front."""
        return [path for _, path in self.begun()]

    def begun(self) -> list[tuple[float, str]]:
        """When workers began to read, on the clock of `time.monotonic`, and the videos that they are at, in order."""
        rows = [] if self._at is None else self._at.tolist()
        return [(start, self.path(int(index))) for start, index in sorted((s, i) for i, s in rows if i >= 0)]

    @contextmanager
    def _noted(self, index: int) -> Iterator[str]:
        """Note that a video is read, and give its path."""
        worker = get_worker_info()
        if self._at is None or worker is None:
            yield self.path(index)
            return
        row = self._at[worker.id]
        row[1] = time.monotonic()
        row[0] = index
        try:
            yield self.path(index)
        finally:
            row[0] = -1

    def __getitem__(self, key: int | tuple[int, int]) -> VideoBatch:
        if isinstance(key, tuple):
            return self._train_item(*key)
        try:
            with self._noted(key) as path:
                return self._pack(self._fixed_clips(path, self._fixed_positions(key)), key, ())
        except DecodeError as error:
            return self._pack([], key, (str(error),))

    def _train_item(self, epoch: int, index: int) -> VideoBatch:
        bad: list[str] = []
        chosen = index
        for attempt in range(1, _MAX_REPLACEMENTS + 2):
            try:
                with self._noted(chosen) as path:
                    clips = self._random_clips(path, (epoch, index))
            except DecodeError as error:
                bad.append(str(error))
                chosen = derive_seed("replacement", self._seed, epoch, index, attempt) % len(self)
            else:
                return self._pack(clips, chosen, tuple(bad))
        return self._pack([], index, tuple(bad))

    def random_clip(self, index: int, *key: int | str, bad: tuple[str, ...] = ()) -> VideoBatch:
        """Read a training clip of a video.

        Args:
            index: the video.
            key: with the seed, what all randomness follows from.
            bad: reports to hand on.

        Raises:
            DecodeError: if the video cannot be decoded.
        """
        with self._noted(index) as path:
            return self._pack(self._random_clips(path, key), index, bad)

    def _random_position(self, key: tuple[int | str, ...]) -> tuple[ClipPosition, random.Random]:
        """Draw where a clip lies; the generator goes on to the boxes of its crops."""
        box_rng = random.Random(derive_seed("clip", self._seed, *key))
        segments = self._sampling.draw_segments(derive_seed("segments", self._seed, *key))
        return ClipPosition(fraction=box_rng.random(), segments=segments), box_rng

    def _random_clips(self, path: str, key: tuple[int | str, ...]) -> list[Tensor]:
        rng = np.random.RandomState(derive_seed("clip", self._seed, *key) % 2**32)  # PySlowFast draws from this stream
        position, box_rng = self._random_position(key)
        target_fps = self._sampling.target_fps + box_rng.uniform(0.0, self._sampling.jitter_fps)
        (clip,) = self._read(path, [position], target_fps)
        crops = []
        for number in range(self._crops_per_clip):
            seed = derive_seed("augment", self._seed, *key, number)
            frames = augment(clip, settings=self._augment, seed=seed)
            crop = random_view(frames, settings=self._spatial, rng=rng, box_rng=box_rng)
            if self._augment.colors is not None:
                seed = derive_seed("colors", self._seed, *key, number)
                crop = change_colors(crop, settings=self._augment.colors, seed=seed)
            crop = finish(crop, self._spatial)
            if self._augment.erasing is not None and not (self._augment.clean_first and number == 0):
                seed = derive_seed("erase", self._seed, *key, number)
                crop = random_erasing(crop, settings=self._augment.erasing, seed=seed)
            crops.append(crop)
        return crops

    def _fixed_positions(self, index: int) -> list[ClipPosition]:
        if self._random_frames:
            return [self._random_position(("fixed", index))[0]]
        if self._mode == "val":
            return [ClipPosition(fraction=0.5)]
        return [ClipPosition(view=view, views=self._views) for view in range(self._views)]

    def _fixed_clips(self, path: str, positions: Sequence[ClipPosition]) -> list[Tensor]:
        clips = self._read(path, positions, self._sampling.target_fps)
        if self._sampling.reverse and self._mode == "test":
            clips = [clip.flip(1) for clip in clips]
        short, size, squash = self._short, self._size, self._spatial.squash
        views = (fixed_views(clip, short=short, size=size, crops=self._crops, squash=squash) for clip in clips)
        return [finish(crop, self._spatial) for crops in views for crop in crops]

    def _read(self, path: str, positions: Sequence[ClipPosition], target_fps: float) -> list[Tensor]:
        """Decode the clips at the given positions in one pass; each (3, T, H, W), uint8."""

        def plan(info: VideoInfo) -> list[int]:
            clips = [self._sampling.indices(info, position, target_fps) for position in positions]
            if not all(clips):
                raise DecodeError(path, "no frame lies in the sampling window")
            return [index for clip in clips for index in clip]

        frames = self._decode(path, plan, stamps=self._sampling.rule == "pyslowfast")
        clips = torch.from_numpy(frames).permute(3, 0, 1, 2)
        return list(clips.split(self._sampling.num_frames, dim=1))

    def _pack(self, clips: list[Tensor], index: int, bad: tuple[str, ...]) -> VideoBatch:
        if clips:
            frames = torch.stack(clips)
        else:
            dtype = torch.uint8 if self._spatial.dtype == "uint8" else torch.float32
            frames = torch.empty((0, 3, self._sampling.num_frames, self._size, self._size), dtype=dtype)
        count = len(clips)
        return VideoBatch(
            frames=frames,
            label=torch.full((count,), int(self._labels[index]), dtype=torch.int64),
            video_id=torch.full((count,), index, dtype=torch.int64),
            view=torch.arange(count),
            bad=bad,
        )
