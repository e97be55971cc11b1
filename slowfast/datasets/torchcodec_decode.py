"""Reading by torchcodec, for the containers whose frames it counts right; PyAV reads the others to the same frames.

torchcodec takes AVI's order of storage for the order of display, and turns pictures that are marked as turned, which
PyAV and the published code do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slowfast.datasets import decode
from slowfast.datasets.decode import Plan, Threads, VideoInfo, opened

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError) as error:
    # the libraries of FFmpeg or of CUDA may be missing, which torchcodec says in pages
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(
        f"DATA.DECODING_BACKEND: 'torchcodec' cannot be used here ({reason}); pip install 'slowfast-stdd[torchcodec]', "
        "and FFmpeg's shared libraries; or choose 'pyav'"
    ) from error

# Of a frame's duration: by how much the time of a frame may miss the one wanted.
_TOLERANCE = 0.25


def decode_frames(
    path: str | Path, plan: Plan, *, stamps: bool = False, threads: Threads = "NONE", repair: bool = True
) -> NDArray[np.uint8]:
    """Let `plan` choose frames by what the video is, and read those; see `slowfast.datasets.decode.decode_frames`.

    Args:
        path: the file.
        plan: maps the video's description to frame numbers.
        stamps: the plan needs `VideoInfo.pts`.
        threads: "NONE" in loader workers; "AUTO" pays only for a single large video.
        repair: ask the plan again after a wrong frame count; otherwise that is an error.

    Returns: (len(plan), H, W, 3) RGB.

    Raises:
        DecodeError: if the file cannot be read or holds fewer frames than wanted.
    """
    with opened(path, "NONE") as video:
        info, times = video.describe(stamps=stamps), video.stated_seconds()
    frames = None
    if times is not None:
        frames = _read(str(path), plan(info), info, times, num_threads=1 if threads == "NONE" else 0)
    return decode.decode_frames(path, plan, stamps=stamps, threads=threads, repair=repair) if frames is None else frames


def _read(
    path: str, indices: Sequence[int], info: VideoInfo, times: Sequence[float], *, num_threads: int
) -> NDArray[np.uint8] | None:
    """The frames of the given numbers; None if torchcodec does not give exactly those."""
    if not indices or min(indices) < 0 or max(indices) >= len(times):
        return None
    try:
        decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=num_threads)
        batch = decoder.get_frames_at(list(indices))
    except (RuntimeError, ValueError, IndexError):
        return None
    frames: NDArray[np.uint8] = batch.data.numpy()
    away = np.abs(batch.pts_seconds.numpy() - np.array([times[index] for index in indices]))
    if decoder.metadata.rotation or frames.shape[1:3] != (info.height, info.width):
        return None
    return frames if away.max() * info.fps < _TOLERANCE else None
