"""What becomes of a worker that hangs, ends or fails: one line that names the video."""

import os
import signal
import time

import pytest
from torch.utils.data import DataLoader

from slowfast.config.defaults import get_cfg
from slowfast.datasets import build
from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.build import build_split_loader
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.loader import VideoLoader
from slowfast.datasets.transforms import SpatialSettings
from slowfast.datasets.types import Split, collate
from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset
from slowfast.utils.errors import describe_error

FOREVER_SECONDS = 600


def decode(path, plan, *, stamps=False):
    """Stands in for a decoder that a broken file takes with it."""
    name = os.path.basename(path)  # noqa: PTH119
    if name == "hangs":
        time.sleep(FOREVER_SECONDS)
    if name == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "full":
        raise OSError(28, "No space left on device", "/cache/frames")
    if name == "odd":
        raise ValueError(f"{path}: two\nlines")
    if name == "defect":
        raise RuntimeError("a defect of the program")
    raise AssertionError(path)


def loader(*names, workers=1, timeout=2):
    dataset = VideoDataset(
        [VideoRecord(f"/videos/{name}", 0) for name in names],
        mode="test",
        sampling=SamplingSettings(num_frames=2),
        spatial=SpatialSettings(jitter_scales=(32, 32), train_crop=32, test_crop=32),
        decode=decode,
    )
    return VideoLoader(dataset, batch_size=1, num_workers=workers, timeout=timeout, collate_fn=collate)


def failure(batches):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is returned
        list(batches)
    return describe_error(caught.value)


def test_a_hanging_video_is_named():
    assert (
        failure(loader("hangs")) == "/videos/hangs: reading took longer than DATA_LOADER.TIMEOUT_SECONDS, which is 2 s"
    )


def test_a_video_that_ends_its_worker_is_named():
    message = failure(loader("kills", timeout=60))
    assert message.startswith("a worker process ")
    assert message.endswith("; workers were at: /videos/kills")


def test_a_full_disk_is_one_line():
    assert failure(loader("full", timeout=60)) == "[Errno 28] No space left on device: '/cache/frames'"


def test_other_errors_of_a_user_are_one_line():
    assert failure(loader("odd", timeout=60)) == "/videos/odd: two lines"
    assert failure(loader("odd", workers=0, timeout=0)) == "/videos/odd: two\\nlines"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_defect_keeps_its_traceback(workers):
    with pytest.raises(RuntimeError, match="a defect of the program"):
        list(loader("defect", workers=workers, timeout=60 * workers))


def test_the_key_sets_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "DECODERS", {"pyav": f"{__name__}:decode"})
    monkeypatch.setattr(build, "resolve", lambda table, name, *, key: decode)
    (tmp_path / "hangs").touch()
    (tmp_path / "val.csv").write_text("hangs,0\n")
    cfg = get_cfg()
    cfg.DATA.PATH_PREFIX, cfg.DATA.PATH_LABEL_SEPARATOR = str(tmp_path), ","
    cfg.DATA_LOADER.NUM_WORKERS, cfg.DATA_LOADER.TIMEOUT_SECONDS = 1, 2
    split = Split(name="val", csv=tmp_path / "val.csv", label_set=LabelSet.from_names(["a"]), mode="val")
    made = build_split_loader(split, cfg=cfg)
    assert isinstance(made, DataLoader)
    assert failure(made).startswith(f"{tmp_path / 'hangs'}: reading took longer than DATA_LOADER.TIMEOUT_SECONDS")
