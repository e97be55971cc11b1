import dataclasses
import json
import pickle

import pytest
import torch

from slowfast.report import results as rs

SPLIT = rs.SplitResult(
    top1_acc=83.5, top5_acc=97, mean_class_acc=80, num_videos=8, num_scored=6, num_classes=101, csv="test.csv"
)


def result(**changes):
    values = {
        "metrics": {"top1_acc": 83.5, "top5_acc": 97},
        "num_videos": 8,
        "num_scored": 6,
        "missing": ("a.mp4: no video stream", "b.mp4: truncated"),
        "protocol": "single_dataset",
        "splits": {"split1": SPLIT},
        "dataset": "ucf101",
        "seed": 0,
        "config_sha256": "a" * 64,
        "numbers_sha256": "c" * 64,
        "inputs_sha256": "d" * 64,
        "model_sha256": "b" * 64,
        "weights": "swa_2_22.pth",
        "weights_sha256": "0" * 64,
    }
    return rs.RunResult(**{**values, **changes})


def test_round_trip(tmp_path):
    path = rs.write_results(result(), tmp_path)
    assert path == tmp_path / "results.json"
    assert rs.read_results(path) == result()
    content = json.loads(path.read_text())
    assert content["coverage"] == 0.75
    assert content["versions"]["torch"]
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_file_name_is_kept_and_same_result_is_same_bytes(tmp_path):
    first = rs.write_results(result(), tmp_path / "new" / "a.json")
    second = rs.write_results(result(), tmp_path / "b.json")
    assert first.read_bytes() == second.read_bytes()


def test_empty_split_has_no_coverage():
    assert result(num_videos=0, num_scored=0).coverage == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {}}, "metrics is {}; expected an object of finite numbers"),
        ({"metrics": {"top1": float("nan")}}, "metrics is .*nan"),
        ({"num_scored": 9}, "num_scored 9 is above num_videos 8|coverage is 1.125"),
        ({"config_sha256": "abc"}, "config_sha256 is 'abc'; expected 64"),
        ({"protocol": ""}, "protocol is ''; expected a name"),
        ({"seed": True}, "seed is True"),
        ({"splits": {}}, "splits is {}; expected an object of split figures"),
        ({"splits": {"a": dataclasses.replace(SPLIT, top1_acc=float("inf"))}}, "splits is .*inf"),
        ({"splits": {"a": dataclasses.replace(SPLIT, num_official=-1)}}, "splits is .*-1"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        rs.write_results(result(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reading_errors(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(ValueError, match="results not found"):
        rs.read_results(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        rs.read_results(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds list"):
        rs.read_results(path)
    content = rs.to_dict(result())
    path.write_text(json.dumps({**content, "extra": 1}))
    with pytest.raises(ValueError, match=r"unknown entries \['extra'\]"):
        rs.read_results(path)
    del content["seed"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="seed is absent"):
        rs.read_results(path)


def test_predictions_are_the_published_pickle(tmp_path):
    scores, labels = torch.randn(3, 5, dtype=torch.float64), torch.tensor([1, 0, 4], dtype=torch.int32)
    rs.save_predictions(scores, labels, tmp_path / "preds" / "out.pkl")
    with (tmp_path / "preds" / "out.pkl").open("rb") as file:
        loaded = pickle.load(file)
    assert isinstance(loaded, list)
    assert torch.equal(loaded[0], scores.float())
    assert torch.equal(loaded[1], labels.long())
    assert (loaded[0].dtype, loaded[1].dtype) == (torch.float32, torch.int64)


def test_predictions_of_wrong_shapes(tmp_path):
    with pytest.raises(ValueError, match=r"scores \(3, 5\) and labels \(4,\)"):
        rs.save_predictions(torch.zeros(3, 5), torch.zeros(4), tmp_path / "x.pkl")


def test_lists_that_are_not_the_published_ones():
    counts = {"a": (6, None), "b": (8, 8), "c": (7, 8)}
    splits = {
        name: dataclasses.replace(SPLIT, num_videos=rows, num_official=official)
        for name, (rows, official) in counts.items()
    }
    assert result(splits=splits).unlike_official() == {"c": (7, 8)}
