import json
from pathlib import Path

import pytest

from slowfast.protocols.base import TableRequest
from slowfast.protocols.base_to_novel import BaseToNovel
from slowfast.protocols.build import build_protocol

LABEL_DB = Path(__file__).resolve().parents[3] / "label_db"


@pytest.fixture
def ssv2(prepare, cfg):
    base, novel = (
        ("base_to_novel/base_index2cls.json", ["roll"]),
        ("base_to_novel/novel_index2cls.json", ["put", "put"]),
    )
    prepare(
        "ssv2",
        {
            "base_to_novel/seed2/train": (*base, [("a.mp4", 0)]),
            "base_to_novel/base_test": (*base, [("b.mp4", 0)]),
            "base_to_novel/novel_test": (*novel, [("c.mp4", 0), ("d.mp4", 1)]),
        },
    )
    cfg.PROTOCOL, cfg.SPLITS.DATASET, cfg.SPLITS.SEED = "base_to_novel", "ssv2", 2
    return cfg


def test_halves_are_scored_over_their_own_classes(ssv2):
    protocol = build_protocol(ssv2)
    assert protocol.train_split().label_set.names == ("roll",)
    assert protocol.val_split().csv.name == "base_test.csv"
    base, novel = protocol.eval_splits()
    assert (base.name, len(base.label_set), novel.name, len(novel.label_set)) == ("base", 1, "novel", 2)


def test_harmonic_mean(ssv2, score):
    summary = build_protocol(ssv2).summarise({"base": score(3, 1), "novel": score(1, 3)})
    assert (summary["base_top1"], summary["novel_top1"], summary["hm_top1"]) == (75.0, 25.0, pytest.approx(37.5))
    assert build_protocol(ssv2).summarise({"base": score(0, 1), "novel": score(0, 1)})["hm_top1"] == 0.0


def test_a_draw_that_was_not_made(ssv2):
    ssv2.SPLITS.SEED = 4
    with pytest.raises(ValueError, match=r"has no list 'base_to_novel/seed4/train'"):
        build_protocol(ssv2).train_split()


def test_the_harmonic_mean_of_a_table_is_that_of_the_means():
    jobs = BaseToNovel.jobs(TableRequest(label_db="x", trains=True, datasets=["k400"]))
    assert [(job.name, job.options["SPLITS.SEED"]) for job in jobs] == [
        ("k400_seed1", 1),
        ("k400_seed2", 2),
        ("k400_seed3", 3),
    ]
    values = [(80.0, 40.0), (60.0, 20.0), (70.0, 60.0)]
    results = {
        job.name: (job, {"base_top1": b, "novel_top1": n, "hm_top1": 2 * b * n / (b + n)})
        for job, (b, n) in zip(jobs, values, strict=True)
    }
    cells = BaseToNovel.cells(results)["k400"]
    assert (cells["base"].mean, cells["novel"].mean) == (70.0, 40.0)
    assert cells["hm"].mean == pytest.approx(2 * 70 * 40 / 110)
    assert cells["hm_of_seeds"].mean == pytest.approx(sum(2 * b * n / (b + n) for b, n in values) / 3)
    assert cells["novel"].std == pytest.approx((800 / 3) ** 0.5)


def test_given_weights_are_scored_once():
    jobs = BaseToNovel.jobs(TableRequest(label_db="x", trains=False))
    assert [(job.name, job.trains) for job in jobs] == [(name, False) for name in ("k400", "hmdb51", "ucf101", "ssv2")]


@pytest.mark.parametrize("dataset", ["k400", "hmdb51", "ucf101", "ssv2"])
def test_base_and_novel_classes_are_disjoint_and_complete(dataset):
    folder = LABEL_DB / dataset
    ids = [json.loads((folder / "base_to_novel" / f"{half}_ids.json").read_text()) for half in ("base", "novel")]
    names = json.loads((folder / "index2cls.json").read_text())
    assert not set(ids[0]) & set(ids[1])
    assert sorted(ids[0] + ids[1]) == list(range(len(names)))
