import pytest

from slowfast.protocols.base import TableRequest
from slowfast.protocols.build import build_protocol
from slowfast.protocols.fully_supervised import FullySupervised

NAMES = ["run", "jump"]
ROWS = [("a.mp4", 0), ("b.mp4", 1)]


def lists(*names):
    return dict.fromkeys(names, ("index2cls.json", NAMES, ROWS))


@pytest.mark.parametrize(
    ("traits", "prepared", "expected"),
    [
        ("", ("full/train", "full/val", "full/test"), ("full/train", "full/val", "full/test")),
        ("scored: val", ("full/train", "full/val", "full/test"), ("full/train", "full/val", "full/val")),
        ("", ("full/train", "full/val"), ("full/train", "full/val", "full/val")),
        ("", ("full/train", "full/test"), ("full/train", "full/test", "full/test")),
        ("", ("full/test", "split2/train", "split2/test"), ("split2/train", "split2/test", "split2/test")),
    ],
)
def test_which_lists(prepare, cfg, traits, prepared, expected):
    folder = prepare("mine", lists(*prepared))
    if traits:
        (folder / "dataset.yaml").write_text(traits)
    cfg.PROTOCOL, cfg.SPLITS.DATASET, cfg.SPLITS.NUMBER = "fully_supervised", "mine", 2
    protocol = build_protocol(cfg)
    (test,) = protocol.eval_splits()
    found = [split.csv for split in (protocol.train_split(), protocol.val_split(), test)]
    assert [f"{csv.parent.name}/{csv.stem}" for csv in found] == list(expected)
    assert (test.mode, test.views) == ("test", 3)


def test_one_training_per_official_split(prepare, cfg):
    prepare("ucf101", lists("split1/train", "split1/test", "split2/train", "split2/test"))
    prepare("k400", lists("full/train", "full/val"))
    request = TableRequest(label_db=cfg.SPLITS.LABEL_DB, trains=True, datasets=["ucf101", "k400"])
    jobs = FullySupervised.jobs(request)
    assert [job.name for job in jobs] == ["ucf101_split1", "ucf101_split2", "k400"]
    results = {job.name: (job, {"top1_acc": 10.0 * i, "top5_acc": 50.0}) for i, job in enumerate(jobs)}
    cells = FullySupervised.cells(results)
    assert (cells["ucf101"]["top1"].mean, cells["ucf101"]["top1"].std) == (5.0, 5.0)
    assert (cells["k400"]["top1"].mean, cells["k400"]["top1"].std) == (20.0, None)
