"""Reading as PySlowFast's PyAV path does it: all frames of a window are decoded and converted, then some are taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import torch

from slowfast.datasets.decode import ONE_THREAD

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def published_clip(path: Path, indices: Sequence[int]) -> NDArray[np.uint8]:
    """Decode and convert every frame, stack them all, take the wanted ones."""
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = np.stack([frame.to_rgb().to_ndarray() for frame in container.decode(video=0)])
    chosen: NDArray[np.uint8] = frames[list(indices)]
    return chosen


def lean_clip(path: Path, indices: Sequence[int]) -> NDArray[np.uint8]:
    """Decode and convert every frame with one thread, stack the wanted ones."""
    with av.open(str(path), metadata_errors="ignore") as container:
        container.streams.video[0].thread_type = "NONE"
        frames = [frame.to_ndarray(format="rgb24", **ONE_THREAD) for frame in container.decode(video=0)]
    return np.stack([frames[index] for index in indices])


def published_view(path: Path, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Seek to the window of one view, decode it, convert and stack its frames.

    Args:
        path: the file.
        window: as shares of the video.
    """
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        kept = []
        if stream.duration:
            first, last = (int(share * stream.duration) for share in window)
            container.seek(max(first - 1024, 0), any_frame=False, backward=True, stream=stream)
            for frame in container.decode(video=0):
                at = frame.pts if frame.pts is not None else frame.dts or 0
                if at >= first:
                    kept.append(frame)
                if at > last:
                    break
        else:
            kept = list(container.decode(video=0))
        return np.stack([frame.to_rgb().to_ndarray() for frame in kept or [frame]])


def published_frames(path: Path) -> list[int | None]:
    """Time stamps of all frames that decoding gives."""
    with av.open(str(path), metadata_errors="ignore") as container:
        return [frame.pts for frame in container.decode(video=0)]


def published_crop(frames: NDArray[np.uint8], count: int, *, short: int, size: int) -> Tensor:
    """Take evenly spread frames, normalise them, resize and crop, all in float32.

    Args:
        frames: (T, H, W, 3).
        count: frames to take.
        short: short side to resize to, in pixels.
        size: of the crop, in pixels.

    Returns: (3, count, size, size).
    """
    from slowfast.datasets.transforms import fixed_views

    indices = torch.linspace(0, len(frames) - 1, count).clamp(0, len(frames) - 1).long()
    clip = torch.index_select(torch.from_numpy(frames), 0, indices).float() / 255.0
    clip = (clip - torch.tensor(MEAN)) / torch.tensor(STD)
    return fixed_views(clip.permute(3, 0, 1, 2), short=short, size=size, crops=1)[0]
