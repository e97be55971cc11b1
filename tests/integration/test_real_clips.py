"""Real action clips: every one decodes to frames, or is named with a reason."""

import os
from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError, VideoInfo, decode_frames

CLIPS = Path(os.environ.get("SLOWFAST_CLIPS_DIR") or Path(__file__).resolve().parents[3] / "shared" / "clips")
VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".webm"}

pytestmark = [
    pytest.mark.clips,
    pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no real clips in {CLIPS}"),
]


def spread(info: VideoInfo) -> list[int]:
    return np.linspace(0, info.num_frames - 1, 8).round().astype(int).tolist()


def test_every_clip_decodes():
    paths = sorted(path for path in CLIPS.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    assert paths
    bad = []
    for path in paths:
        try:
            frames = decode_frames(path, spread)
        except DecodeError as error:
            bad.append(str(error))
            continue
        assert frames.shape[0] == 8
        assert frames.std() > 1, f"{path} decodes to an even surface"
    assert not bad, "\n".join(bad)
