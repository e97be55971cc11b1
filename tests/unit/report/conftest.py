"""Folders of runs, written by hand in the formats of their files, and a strict reader of pages."""

import csv
import json
from html.parser import HTMLParser

import pytest

SHA = "a" * 64
LOG = """\
json_stats: {"_type": "train_epoch", "epoch": "1/2", "loss": 2.5, "loss_classification": 2.0, "lr": 0.001, "dt": 1.0, "eta": "0:00:01", "top1_err": 70.0}
json_stats: {"_type": "val_epoch", "epoch": "1/2", "top1_err": 60.0}
json_stats: {"_type": "train_epoch", "epoch": "2/2", "loss": 1.5, "loss_classification": 1.0, "lr": 0.0005, "dt": 1.0, "eta": "0:00:00", "top1_err": 50.0}
json_stats: {"_type": "val_epoch", "epoch": "2/2", "top1_err": 45.5}
json_stats: {"split": "test_final", "top1_acc": "54.50", "top5_acc": "90.00"}
"""  # noqa: E501


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_split_files(folder, names, counts, videos):
    """Class files of a split; `videos` maps (true, predicted) to paths."""
    header = ("class", "videos", "top1", "top5", "most_confused_with", "share")
    rows = []
    for row, name in enumerate(names):
        total, wrong = sum(counts[row]), [0 if i == row else n for i, n in enumerate(counts[row])]
        best = max(range(len(names)), key=wrong.__getitem__)
        confused = (names[best], f"{100 * wrong[best] / total:.2f}") if any(wrong) else ("", "")
        rows.append(
            (name, total, *([f"{100 * counts[row][row] / total:.2f}", "100.00"] if total else ["", ""]), *confused)
        )
    write_csv(folder / "per_class.csv", [header, *rows])
    write_csv(folder / "confusion.csv", [("class", *names), *((n, *c) for n, c in zip(names, counts, strict=True))])
    lines = [(path, true, best, int(true == best)) for (true, best), paths in videos.items() for path in paths]
    write_csv(folder / "predictions.csv", [("video", "label", "predicted", "in_top5"), *lines])


def results(**changes):
    """Content of a results.json of format 2 with two splits."""
    split = {"top5_acc": 90.0, "mean_class_acc": 55.0, "num_videos": 20, "num_scored": 20, "num_classes": 3,
             "num_official": None, "csv": "lists/test.csv"}  # fmt: skip
    content = {
        "format": "slowfast-stdd/results/2",
        "protocol": "zero_shot",
        "dataset": "hmdb51",
        "metrics": {"split1_top1": 60.0, "split2_top1": 50.0, "split_mean_top1": 55.0, "split_std_top1": 5.0},
        "splits": {"split1": {"top1_acc": 60.0, **split}, "split2": {"top1_acc": 50.0, **split}},
        "coverage": 1.0,
        "num_videos": 40,
        "num_scored": 40,
        "missing": [],
        "seed": 0,
        "config_sha256": SHA,
        "model_sha256": SHA,
        "weights": "runs/a/weights.pyth",
        "weights_sha256": SHA,
        "versions": {"torch": "2.10.0"},
        "git_revision": "0123abc",
    }
    return content | changes


class PageReader(HTMLParser):
    """Checks that tags are balanced; collects elements and visible text."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self._open = [], [], []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="session")
def read_page():
    """Reads a page; fails where it is not well formed."""
    return PageReader


@pytest.fixture(scope="session")
def split_files():
    """Writes the class files of a split."""
    return write_split_files


@pytest.fixture(scope="session")
def results_of():
    """Content of a results.json."""
    return results


@pytest.fixture
def trained(tmp_path):
    """A run that was trained and not yet tested."""
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "config.yaml").write_text("SOLVER:\n  MAX_EPOCH: 2\nRNG_SEED: 0\n")
    (folder / "json_stats.log").write_text(LOG)
    return folder


@pytest.fixture
def tested(tmp_path):
    """A run of two splits, one of which has class files."""
    folder = tmp_path / "tested"
    folder.mkdir()
    (folder / "config.yaml").write_text("SOLVER:\n  MAX_EPOCH: 3\nRNG_SEED: 0\n")
    (folder / "results.json").write_text(json.dumps(results()))
    names = ["clap", "wave", "sit"]
    videos = {("clap", "wave"): ["/nowhere/clap_1.mp4"], ("wave", "wave"): ["/nowhere/wave_1.mp4"]}
    write_split_files(folder / "splits" / "split1", names, [[4, 3, 0], [1, 6, 0], [0, 0, 0]], videos)
    return folder
