import pytest

from slowfast.protocols.base import TableRequest
from slowfast.protocols.build import build_protocol
from slowfast.protocols.zero_shot import ZeroShot

NAMES = ["run", "jump"]
ROWS = [("a.mp4", 0), ("b.mp4", 1)]


@pytest.fixture
def ucf(prepare, cfg):
    lists = {f"split{n}/test": ("index2cls.json", NAMES, ROWS) for n in (1, 2, 3)}
    lists |= {"split1/train": ("index2cls.json", NAMES, ROWS), "full/test": ("index2cls.json", NAMES, ROWS)}
    lists |= {f"half{n}/test": (f"splits/half{n}/index2cls.json", NAMES[n:][:1], ROWS[:1]) for n in (0, 1)}
    prepare("ucf101", lists)
    cfg.PROTOCOL, cfg.SPLITS.DATASET = "zero_shot", "ucf101"
    return cfg


def test_splits_of_a_dataset(ucf):
    splits = build_protocol(ucf).eval_splits()
    assert [split.name for split in splits] == ["split1", "split2", "split3", "full"]
    assert {(split.mode, split.views, split.prefix, split.separator, split.official) for split in splits} == {
        ("test", 3, "/videos", ",", 1000)
    }
    assert splits[0].label_set.names == ("run", "jump")


def test_half_class_draws_come_on_request(ucf):
    ucf.SPLITS.HALVES = True
    splits = {split.name: split for split in build_protocol(ucf).eval_splits()}
    assert list(splits)[-2:] == ["half0", "half1"]
    assert [splits[f"half{n}"].label_set.names for n in (0, 1)] == [("run",), ("jump",)]


def test_rephrased_names_and_another_folder_of_videos(ucf):
    ucf.SPLITS.NAMES, ucf.DATA.PATH_PREFIX = "rephrased", "/elsewhere"
    split = build_protocol(ucf).eval_splits()[0]
    assert (split.label_set.names[0], split.prefix) == ("run: to run", "/elsewhere")


def test_it_trains_on_the_source(ucf, prepare):
    prepare("k400", {f"full/{part}": ("index2cls.json", ["swim"], [("c.mp4", 0)]) for part in ("train", "val")})
    protocol = build_protocol(ucf)
    assert protocol.train_split().csv.parts[-4:] == ("k400", "splits", "full", "train.csv")
    assert (protocol.val_split().mode, protocol.val_split().views) == ("val", 1)
    assert protocol.train_split().label_set.names == ("swim",)


def test_summary_has_mean_and_population_deviation(ucf, score):
    scores = {"split1": score(8, 2), "split2": score(6, 4), "split3": score(7, 3), "full": score(9, 11, listed=40)}
    summary = build_protocol(ucf).summarise(scores)
    assert summary["split1_top1"] == 80.0
    assert summary["split_mean_top1"] == summary["top1_acc"] == pytest.approx(70.0)
    assert summary["split_std_top1"] == pytest.approx((200 / 3) ** 0.5)
    assert summary["full_top1"] == 45.0
    assert summary["coverage"] == pytest.approx(100 * 50 / 70)
    assert build_protocol(ucf).summarise({"full": score(1, 1)})["top1_acc"] == 50.0


def test_jobs_and_cells(score, ucf):
    request = TableRequest(label_db="x", trains=False)
    jobs = ZeroShot.jobs(request)
    assert [(job.name, job.trains, job.weights_from) for job in jobs] == [
        ("ucf101", False, ""),
        ("hmdb51", False, ""),
        ("k600", False, ""),
    ]
    summary = build_protocol(ucf).summarise({"split1": score(1, 1), "split2": score(3, 1), "full": score(2, 2)})
    k600 = build_protocol(ucf).summarise({"zero_shot_split1": score(1, 3), "zero_shot_split2": score(3, 1)})
    cells = ZeroShot.cells({"ucf101": (jobs[0], summary), "k600": (jobs[2], k600)})
    assert (cells["ucf101"]["split_mean"].mean, cells["ucf101"]["split_mean"].std) == (62.5, 12.5)
    assert (cells["ucf101"]["full"].mean, cells["ucf101"]["full"].std) == (50.0, None)
    assert cells["k600"]["split_mean"].values == (25.0, 75.0)
    assert "full" not in cells["k600"]


def test_training_comes_first_and_serves_every_test():
    jobs = ZeroShot.jobs(TableRequest(label_db="x", trains=True, datasets=["ucf101", "k600"], source="mine"))
    assert [(job.name, job.trains, job.tests, job.weights_from) for job in jobs] == [
        ("train_mine", True, False, ""),
        ("ucf101", False, True, "train_mine"),
        ("k600", False, True, "train_mine"),
    ]
    assert jobs[0].options["SPLITS.SOURCE"] == "mine"


def test_nothing_to_test_on(prepare, cfg):
    prepare("mine", {"full/train": ("index2cls.json", NAMES, ROWS)})
    cfg.PROTOCOL, cfg.SPLITS.DATASET = "zero_shot", "mine"
    with pytest.raises(ValueError, match=r"mine: has no list to test on; wanted: splits, full/test"):
        build_protocol(cfg).eval_splits()


def test_a_dataset_that_was_not_prepared(cfg):
    cfg.PROTOCOL, cfg.SPLITS.DATASET = "zero_shot", "hmdb51"
    with pytest.raises(ValueError, match=r"manifest\.json: no such file; it is made by tools/prepare_data\.py hmdb51"):
        build_protocol(cfg).eval_splits()


def test_halves_are_scored_where_there_are_some(ucf, prepare):
    prepare("k600", {"zero_shot_split1/test": ("index2cls.json", NAMES, ROWS)})
    request = TableRequest(label_db=ucf.SPLITS.LABEL_DB, trains=False, datasets=["ucf101", "k600"], halves=True)
    assert [job.options["SPLITS.HALVES"] for job in ZeroShot.jobs(request)] == [True, False]
