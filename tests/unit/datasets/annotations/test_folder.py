"""Lists of a folder of class folders."""

from collections import Counter

import pytest

from slowfast.datasets.annotations.folder import read_folder


def videos(**counts):
    return [f"{name}/{number:02d}.mp4" for name, count in counts.items() for number in range(count)]


def test_classes_are_folders_and_shares_hold_in_each_class():
    names, lists = read_folder(videos(b_two=20, a_one=10, c=7), val_share=0.1, test_share=0.2)
    assert names == ("a one", "b two", "c")
    sides = {name: Counter(label for _, label in entry.rows) for name, entry in lists.items()}
    assert sides == {
        "full/train": {0: 7, 1: 14, 2: 5},
        "full/val": {0: 1, 1: 2, 2: 1},
        "full/test": {0: 2, 1: 4, 2: 1},
    }
    assert sorted(video for entry in lists.values() for video, _ in entry.rows) == sorted(
        videos(b_two=20, a_one=10, c=7)
    )


def test_seed_decides_and_order_does_not():
    paths = videos(a=30, b=30)
    again = read_folder(paths[::-1], seed=0)[1]["full/test"].rows
    assert set(read_folder(paths, seed=0)[1]["full/test"].rows) == set(again)
    assert set(read_folder(paths, seed=1)[1]["full/test"].rows) != set(again)


@pytest.mark.parametrize(("count", "sides"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1))])
def test_small_classes_train_first(count, sides):
    lists = read_folder(videos(a=count))[1]
    assert (
        tuple(len(lists[f"full/{side}"].rows) if f"full/{side}" in lists else 0 for side in ("train", "val", "test"))
        == sides
    )


def test_shares_of_zero_leave_lists_out():
    assert list(read_folder(videos(a=9), val_share=0, test_share=0)[1]) == ["full/train"]


def test_folders_may_divide_the_videos():
    paths = ["train/a/x.mp4", "train/b/y.mp4", "test/a/deep/er/z.mp4", "test/c/w.mp4"]
    names, lists = read_folder(paths)
    assert names == ("a", "b", "c")
    assert lists["full/train"].rows == (("train/a/x.mp4", 0), ("train/b/y.mp4", 1))
    assert lists["full/test"].rows == (("test/a/deep/er/z.mp4", 0), ("test/c/w.mp4", 2))
    assert "full/val" not in lists


def test_a_class_may_be_called_train():
    names, _ = read_folder(["train/a.mp4", "plane/b.mp4", "bus/c.mp4"])
    assert names == ("bus", "plane", "train")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a/x.mp4", "y.mp4"], r"^y\.mp4: lies in no class folder; expected class/video$"),
        (["train/a/x.mp4", "more/b/y.mp4"], "folder train holds class folders but more lies beside it"),
        (["a_b/x.mp4", "a b/y.mp4"], "class folders 'a b' and 'a_b' have one name, 'a b'"),
        (["_/x.mp4"], "class folder '_': has no name"),
    ],
)
def test_faults_are_named(paths, message):
    with pytest.raises(ValueError, match=message):
        read_folder(paths)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.0)])
def test_shares_out_of_range(shares):
    with pytest.raises(ValueError, match="--val-share"):
        read_folder(videos(a=3), val_share=shares[0], test_share=shares[1])
