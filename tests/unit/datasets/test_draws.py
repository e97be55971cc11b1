"""Draws: of the right size, independent where they should be, the same for everybody."""

import random
from collections import Counter

import pytest

from slowfast.datasets.draws import (
    base_to_novel_lists,
    draw_shots,
    few_shot_lists,
    half_classes,
    half_lists,
    restrict,
)
from slowfast.datasets.prepared import DraftList

ROWS = tuple((f"class{label}/video{clip:02d}.avi", label) for label in range(5) for clip in range(20))
TRAIN = DraftList(rows=ROWS, classes="index2cls.json", origin="train.txt")


def test_each_class_has_its_shots():
    drawn = draw_shots(ROWS, 4, key=("x", 0))
    assert Counter(label for _, label in drawn) == dict.fromkeys(range(5), 4)
    assert set(drawn) <= set(ROWS)
    assert [label for _, label in drawn] == sorted(label for _, label in drawn)


def test_a_draw_depends_on_key_and_video_alone():
    drawn = draw_shots(ROWS, 4, key=("x", 0))
    shuffled = list(ROWS)
    random.Random(0).shuffle(shuffled)
    assert set(draw_shots(shuffled, 4, key=("x", 0))) == set(drawn)
    assert draw_shots([row for row in ROWS if row[1] == 3], 4, key=("x", 0)) == drawn[12:16]
    assert draw_shots(ROWS, 4, key=("x", 1)) != drawn


def test_a_known_draw():
    """Changed draws would change published figures."""
    assert [video for video, _ in draw_shots(ROWS, 2, key=("few_shot", 0, 2))][:4] == [
        "class0/video05.avi",
        "class0/video19.avi",
        "class1/video03.avi",
        "class1/video05.avi",
    ]


def test_every_video_has_the_same_chance():
    counts = Counter(video for seed in range(300) for video, label in draw_shots(ROWS[:20], 5, key=(seed,)))
    assert len(counts) == 20
    assert max(abs(count - 75) for count in counts.values()) < 30


def test_too_few_videos():
    with pytest.raises(ValueError, match="class 0 has 20 videos, 21 are to be drawn; --any-counts"):
        draw_shots(ROWS, 21, key=("x",))
    assert draw_shots(ROWS, 21, key=("x",), fewer=True) == ROWS


def test_restriction_numbers_the_classes_anew():
    assert restrict(ROWS[::20], (3, 0)) == (("class0/video00.avi", 1), ("class3/video00.avi", 0))


def test_few_shot_draws_are_independent():
    lists = few_shot_lists(TRAIN, seed=7)
    assert list(lists) == [f"few_shot/{shots}/train" for shots in (2, 4, 8, 16)]
    assert not set(lists["few_shot/2/train"].rows) <= set(lists["few_shot/4/train"].rows)
    assert lists["few_shot/4/train"].origin == "4 per class of train.txt, seed 7"
    assert lists["few_shot/4/train"].official is None
    assert few_shot_lists(TRAIN, seed=8) != lists


def test_base_to_novel():
    halves = {"base": (4, 1), "novel": (0, 2, 3)}
    lists = base_to_novel_lists(train=TRAIN, test=TRAIN, halves=halves, seed=0, published={"base": 40})
    assert {name: len(entry.rows) for name, entry in lists.items()} == {
        **{f"base_to_novel/seed{run}/train": 32 for run in (1, 2, 3)},
        "base_to_novel/base_test": 40,
        "base_to_novel/novel_test": 60,
    }
    assert lists["base_to_novel/base_test"].official == 40
    assert lists["base_to_novel/novel_test"].official is None
    for video, label in lists["base_to_novel/seed1/train"].rows:
        assert video.startswith(f"class{halves['base'][label]}/")
    assert lists["base_to_novel/seed1/train"].classes == "base_to_novel/base_index2cls.json"
    assert lists["base_to_novel/novel_test"].classes == "base_to_novel/novel_index2cls.json"
    assert len({lists[f"base_to_novel/seed{run}/train"].rows for run in (1, 2, 3)}) == 3


def test_half_classes_follow_one_generator():
    generator = random.Random(2023)
    labels = list(range(101))
    generator.shuffle(labels)
    first = tuple(sorted(labels[:50]))
    generator.shuffle(labels)
    halves = half_classes(101)
    assert halves[:2] == (first, tuple(sorted(labels[:50])))
    assert halves[0][:8] == (0, 1, 5, 10, 11, 13, 14, 17)
    assert halves[9][:8] == (0, 1, 3, 10, 11, 12, 13, 14)
    assert len(set(halves)) == 10
    assert {len(half) for half in half_classes(51)} == {25}


def test_half_lists():
    lists = half_lists(TRAIN, num_classes=5)
    assert len(lists) == 10
    assert all(len(entry.rows) == 40 for entry in lists.values())
    assert {label for _, label in lists["half9/test"].rows} == {0, 1}
    assert lists["half9/test"].classes == "splits/half9/index2cls.json"
