from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import Split, VideoBatch, collate


def batch(count, *, dtype=torch.uint8, first=0, bad=()):
    ids = torch.arange(first, first + count)
    return VideoBatch(torch.zeros(count, 3, 2, 4, 4, dtype=dtype), ids % 3, ids, ids * 0, bad)


def test_collate_joins_samples_and_reports():
    joined = collate([batch(2, bad=("a",)), batch(0, first=2, bad=("b", "c")), batch(1, first=2)])
    assert len(joined) == 3
    assert joined.video_id.tolist() == [0, 1, 2]
    assert joined.bad == ("a", "b", "c")


def test_collate_of_bad_videos_only():
    joined = collate([batch(0, bad=("a",)), batch(0, bad=("b",))])
    assert joined.frames.shape == (0, 3, 2, 4, 4)
    assert joined.label.shape == (0,)
    assert joined.bad == ("a", "b")


def test_to_moves_everything():
    moved = batch(2, bad=("a",)).to("meta")
    assert {moved.frames.device.type, moved.label.device.type, moved.video_id.device.type, moved.view.device.type} == {
        "meta"
    }
    assert moved.bad == ("a",)


def test_soft_targets_travel_with_the_batch():
    hard = batch(2)
    assert hard.target is hard.label
    weights = torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    soft = replace(hard, weights=weights)
    assert soft.target is weights
    assert soft.to("meta").weights.device.type == "meta"
    assert hard.to("meta").weights is None
    with pytest.raises(AssertionError, match="mixed after"):
        collate([soft, soft])


def test_batch_is_frozen():
    with pytest.raises(FrozenInstanceError):
        batch(1).bad = ("a",)


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": torch.zeros(2, 3, 4, 4)},
        {"frames": torch.zeros(2, 1, 2, 4, 4)},
        {"frames": torch.zeros(2, 3, 2, 4, 4, dtype=torch.float64)},
        {"label": torch.zeros(3, dtype=torch.int64)},
        {"view": torch.zeros(2)},
        {"weights": torch.zeros(2)},
        {"weights": torch.zeros(3, 5)},
        {"weights": torch.zeros(2, 5, dtype=torch.float64)},
    ],
)
def test_batch_checks_its_fields(fields):
    good = {
        "frames": torch.zeros(2, 3, 2, 4, 4),
        "label": torch.zeros(2, dtype=torch.int64),
        "video_id": torch.zeros(2, dtype=torch.int64),
        "view": torch.zeros(2, dtype=torch.int64),
    }
    VideoBatch(**good)
    with pytest.raises(AssertionError):
        VideoBatch(**{**good, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "predict"}, "mode 'predict'"),
        ({"views": 0}, "TEST.NUM_ENSEMBLE_VIEWS: found 0"),
        ({"crops": 2}, "TEST.NUM_SPATIAL_CROPS: found 2, allowed: 1 or 3"),
    ],
)
def test_split_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        Split(**{"name": "a", "csv": Path("a.csv"), "label_set": LabelSet.from_names(["x"]), "mode": "test", **fields})
