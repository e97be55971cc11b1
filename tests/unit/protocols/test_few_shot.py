import pytest

from slowfast.protocols.base import TableRequest
from slowfast.protocols.build import build_protocol
from slowfast.protocols.few_shot import FewShot

NAMES = ["run", "jump"]
TRAINED = [("a.mp4", 0), ("b.mp4", 1)]


@pytest.fixture
def ucf(prepare, cfg):
    tests = {
        1: [("c.mp4", 0), ("d.mp4", 1)],
        2: [("a.mp4", 0), ("c.mp4", 0)],
        3: [("x/a.mp4", 0), ("x/b.mp4", 1)],
    }
    lists = {f"split{n}/test": ("index2cls.json", NAMES, rows) for n, rows in tests.items()}
    lists["few_shot/4/train"] = ("index2cls.json", NAMES, TRAINED)
    prepare("ucf101", lists)
    cfg.PROTOCOL, cfg.SPLITS.DATASET, cfg.SPLITS.SHOTS = "few_shot", "ucf101", 4
    return cfg


def test_split_1_alone_is_scored(ucf, score):
    protocol = build_protocol(ucf)
    assert protocol.train_split().csv.parts[-3:] == ("few_shot", "4", "train.csv")
    assert [split.name for split in protocol.eval_splits()] == ["split1"]
    assert protocol.summarise({"split1": score(3, 1)})["top1_acc"] == 75.0


def test_all_tests_count_what_was_trained_on(ucf, score):
    ucf.SPLITS.ALL_TESTS = True
    protocol = build_protocol(ucf)
    assert [split.name for split in protocol.eval_splits()] == ["split1", "split2", "split3"]
    summary = protocol.summarise({"split1": score(1, 1), "split2": score(2, 0), "split3": score(2, 0)})
    assert [summary[f"split{n}_trained_on"] for n in (1, 2, 3)] == [0, 1, 2]
    assert summary["top1_acc"] == 50.0
    assert summary["split_mean_top1"] == pytest.approx(250 / 3)


def test_a_dataset_without_splits_is_scored_on_its_validation_videos(prepare, cfg):
    lists = {"few_shot/2/train": ("index2cls.json", NAMES, TRAINED), "full/val": ("index2cls.json", NAMES, TRAINED)}
    prepare("ssv2", lists)
    cfg.PROTOCOL, cfg.SPLITS.DATASET, cfg.SPLITS.SHOTS = "few_shot", "ssv2", 2
    assert [split.name for split in build_protocol(cfg).eval_splits()] == ["full"]


def test_all_tests_of_a_dataset_without_splits_are_its_validation_videos(prepare, cfg, score):
    lists = {"few_shot/2/train": ("index2cls.json", NAMES, TRAINED), "full/val": ("index2cls.json", NAMES, TRAINED)}
    prepare("ssv2", lists)
    cfg.PROTOCOL, cfg.SPLITS.DATASET, cfg.SPLITS.SHOTS, cfg.SPLITS.ALL_TESTS = "few_shot", "ssv2", 2, True
    protocol = build_protocol(cfg)
    assert [split.name for split in protocol.eval_splits()] == ["full"]
    assert "full_trained_on" not in protocol.summarise({"full": score(3, 1)})


def test_a_number_of_shots_that_was_not_drawn(ucf):
    ucf.SPLITS.SHOTS = 3
    with pytest.raises(ValueError, match=r"has no list 'few_shot/3/train'; found: split1/test"):
        build_protocol(ucf).train_split()


def test_jobs_and_cells():
    request = TableRequest(label_db="x", trains=True, datasets=["ucf101"], shots=(2, 16))
    jobs = FewShot.jobs(request)
    assert [job.name for job in jobs] == ["ucf101_2shot", "ucf101_16shot"]
    results = {job.name: (job, {"top1_acc": value}) for job, value in zip(jobs, (40.0, 60.0), strict=True)}
    cells = FewShot.cells(results)["ucf101"]
    assert {metric: figure.mean for metric, figure in cells.items()} == {"shot2": 40.0, "shot16": 60.0}
    with pytest.raises(ValueError, match=r"^--weights: few-shot figures come from training"):
        FewShot.jobs(TableRequest(label_db="x", trains=False))
