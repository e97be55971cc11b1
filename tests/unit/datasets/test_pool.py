from pathlib import Path

import pytest
import torch

from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.pool import join_label_sets, pool_splits
from slowfast.datasets.types import Split


def part(name, classes, rows):
    split = Split(name=name, csv=Path(f"{name}.csv"), label_set=LabelSet.from_names(classes), mode="test")
    return split, [VideoRecord(path, label, line) for line, (path, label) in enumerate(rows, start=1)]


def test_videos_and_classes_of_several_splits_occur_once():
    pool = pool_splits(
        [
            part("a", ["run", "jump"], [("1.mp4", 1), ("2.mp4", 0)]),
            part("b", ["climb", "jump"], [("3.mp4", 0), ("1.mp4", 1)]),
        ]
    )
    assert pool.label_set.names == ("run", "jump", "climb")
    assert [record[:2] for record in pool.records] == [("1.mp4", 1), ("2.mp4", 0), ("3.mp4", 2)]
    assert [member.columns.tolist() for member in pool.members.values()] == [[0, 1], [2, 1]]
    assert [member.rows.tolist() for member in pool.members.values()] == [[0, 1], [2, 0]]
    assert [member.num_videos for member in pool.members.values()] == [2, 2]


def test_a_member_selects_its_videos_and_classes():
    pool = pool_splits(
        [
            part("a", ["run", "jump"], [("1.mp4", 1), ("2.mp4", 0)]),
            part("b", ["climb", "jump"], [("3.mp4", 0), ("1.mp4", 1)]),
        ]
    )
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    ids, label, own = pool.members["b"].select(torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2]), logits)
    assert ids.tolist() == [0, 2]
    assert label.tolist() == [1, 0]
    assert own.tolist() == [[2.0, 1.0], [8.0, 7.0]]
    nothing = pool.members["a"].select(torch.tensor([2]), torch.tensor([2]), logits[2:])
    assert [len(tensor) for tensor in nothing] == [0, 0, 0]


def test_a_row_that_is_repeated_counts_twice():
    pool = pool_splits([part("a", ["run"], [("1.mp4", 0), ("1.mp4", 0)]), part("b", ["run"], [("1.mp4", 0)])])
    assert [record.path for record in pool.records] == ["1.mp4", "1.mp4"]
    assert [member.rows.tolist() for member in pool.members.values()] == [[0, 1], [0]]


def test_a_video_has_one_class():
    splits = [part("a", ["run", "jump"], [("1.mp4", 0)]), part("b", ["jump"], [("2.mp4", 0), ("1.mp4", 0)])]
    with pytest.raises(ValueError, match=r"^b\.csv:2: 1\.mp4 is 'jump' here, but 'run' elsewhere$"):
        pool_splits(splits)


def test_a_name_that_occurs_twice_stands_for_two_classes():
    joint, columns = join_label_sets([LabelSet.from_names(["roll", "put", "put"]), LabelSet.from_names(["put", "run"])])
    assert joint.names == ("roll", "put", "put", "run")
    assert columns == [[0, 1, 2], [1, 3]]
