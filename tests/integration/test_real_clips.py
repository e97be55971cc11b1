"""Real action clips: every one decodes to frames, or is named with a reason."""

import json
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


@pytest.fixture(scope="module")
def own_folder(call_tool, tmp_path_factory):
    """A dataset of one's own: six clips of some classes of UCF101, whose class splits say that they test."""
    root = tmp_path_factory.mktemp("own")
    clips = {folder.name: sorted(folder.glob("*.avi"))[:6] for folder in sorted((CLIPS / "UCF101").glob("*"))}
    classes = [name for name, paths in clips.items() if len(paths) == 6]
    for name in classes:
        (root / "videos" / name).mkdir(parents=True)
        for path in clips[name]:
            (root / "videos" / name / path.name).symlink_to(path)
    splits = root / "label_db" / "sports" / "episodic" / "sports"
    splits.mkdir(parents=True)
    for part, names in {"train": classes[:1], "test": classes[1:]}.items():
        (splits / f"{part}_index2cls.json").write_text(json.dumps(dict(enumerate(names))), encoding="utf-8")
    options = ["folder", "--root", root / "videos", "--name", "sports", "--output", root / "label_db"]
    assert call_tool("prepare_data", options) == 0
    return root / "label_db"


@pytest.mark.parametrize(("head", "shot"), [("prototype", 1), ("otam", 5)])
def test_episodes_of_ones_own_folder(own_folder, net, tmp_path, head, shot):
    options = {
        "PROTOCOL": "episodic", "SPLITS.LABEL_DB": own_folder, "SPLITS.DATASET": "sports",
        "EPISODES.HEAD": head, "EPISODES.SHOT": shot, "EPISODES.NUM_TEST": 200,
        "TRAIN.ENABLE": False, "TEST.ENABLE": True, "TEST.CUSTOM_LOAD": False, "TEST.NUM_ENSEMBLE_VIEWS": 1,
        "DATA.FRAME_SAMPLING": "uniform", "DATA.PATH_PREFIX": "", "DATA.TEXT_AUG": False,
        "MODEL.TEMPORAL_MODELING_TYPE": None, "MODEL.KEEP_RAW_MODEL": False, "MODEL.RAW_MODEL_DISTILLATION": False,
        "OUTPUT_DIR": tmp_path,
    }  # fmt: skip
    status, _, stderr = net(options)
    assert (status, stderr) == (0, "")
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["coverage"] == 1.0
    assert results["metrics"]["num_episodes"] == 200
    assert 0 < results["metrics"]["top1_acc"] < 100
    assert 0 < results["metrics"]["top1_ci95"] < 5
