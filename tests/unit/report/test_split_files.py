import csv

import pytest
import torch

from slowfast.report.split_files import SplitFiles, remove_other_splits, write_episodes

NAMES = ['run, "fast"', "jump", "climb"]


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_files_of_a_split(tmp_path):
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 0.5]])
    with SplitFiles(tmp_path / "split1", names=NAMES, paths=["a.mp4", "b,b.mp4", "c.mp4", "d.mp4"]) as files:
        files.add(torch.tensor([0, 1]), torch.tensor([0, 0]), scores[:2])
        files.add(torch.tensor([]).long(), torch.tensor([]).long(), scores[:0])
        files.add(torch.tensor([3]), torch.tensor([1]), scores[2:])
    folder = tmp_path / "split1"
    assert rows(folder / "predictions.csv") == [
        ["video", "label", "predicted", "in_top5"],
        ["a.mp4", NAMES[0], NAMES[0], "1"],
        ["b,b.mp4", NAMES[0], "jump", "1"],
        ["d.mp4", "jump", "jump", "1"],
    ]
    assert rows(folder / "per_class.csv")[1:] == [
        [NAMES[0], "2", "50.00", "100.00", "jump", "50.00"],
        ["jump", "1", "100.00", "100.00", "", ""],
        ["climb", "0", "", "", "", ""],
    ]
    assert rows(folder / "confusion.csv") == [
        ["class", *NAMES],
        [NAMES[0], "1", "1", "0"],
        ["jump", "0", "1", "0"],
        ["climb", "0", "0", "0"],
    ]


def fail_half_way(folder):
    with SplitFiles(folder, names=NAMES, paths=["a"]) as files:
        files.add(torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 3))
        raise RuntimeError


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_splits_of_an_earlier_test_go_and_other_files_stay(tmp_path):
    for name in ("split1", "half0", "mine"):
        with SplitFiles(tmp_path / name, names=NAMES, paths=["a"]) as files:
            files.add(torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 3))
    (tmp_path / "mine" / "notes.txt").write_text("seen")
    (tmp_path / "notes.txt").write_text("seen")
    remove_other_splits(tmp_path, ["split1"])
    remove_other_splits(tmp_path / "absent", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "notes.txt", "split1"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert len(list((tmp_path / "split1").iterdir())) == 3


def test_right_answers_by_episode(tmp_path):
    path = tmp_path / "episodes.csv"
    write_episodes(path, iter([(0, 5), (2, 0), (10, 3)]), num_queries=5)
    assert rows(path) == [["episode", "right", "queries"], ["0", "5", "5"], ["2", "0", "5"], ["10", "3", "5"]]
    write_episodes(path, [], num_queries=5)
    assert path.read_bytes() == b"episode,right,queries\n"


def test_an_error_leaves_the_episodes_of_before(tmp_path):
    path = tmp_path / "episodes.csv"
    write_episodes(path, [(0, 1)], num_queries=5)

    def failing():
        yield 0, 2
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_episodes(path, failing(), num_queries=5)
    assert [file.name for file in tmp_path.iterdir()] == ["episodes.csv"]
    assert rows(path)[1:] == [["0", "1", "5"]]


def test_episodes_of_an_earlier_test_go_too(tmp_path):
    (tmp_path / "val").mkdir()
    write_episodes(tmp_path / "val" / "episodes.csv", [(0, 1)], num_queries=5)
    remove_other_splits(tmp_path, ["test"])
    assert list(tmp_path.iterdir()) == []
