"""Classes are found whatever their case and punctuation."""

import json

import pytest

from slowfast.datasets.annotations.class_names import ClassNames


@pytest.fixture
def write(tmp_path):
    def make(*names):
        path = tmp_path / "index2cls.json"
        path.write_text(json.dumps(dict(enumerate(names))), encoding="utf-8")
        return path

    return make


@pytest.mark.parametrize(
    "spelling", ["HandstandPushups", "handstand_pushups", "Handstand  Pushups", "handstand-pushups"]
)
def test_spellings(write, spelling):
    assert ClassNames(write("surfing", "Handstand Pushups")).match(spelling, "list:1") == 1


def test_unknown_class_names_the_nearest(write):
    names = ClassNames(write("surfing water", "Handstand Pushups"))
    assert names.find("surfing") is None
    with pytest.raises(
        ValueError, match=r"list:7: unknown class 'surfing', not in .*; the nearest is 'surfing water'$"
    ):
        names.match(" surfing", "list:7")


def test_names_that_only_punctuation_tells_apart_are_refused(write):
    with pytest.raises(ValueError, match="'push up' and 'Push-Up' cannot be told apart"):
        ClassNames(write("Push-Up", "surfing", "push up"))


@pytest.mark.parametrize(
    "file",
    ["k400/index2cls", "k600/index2cls", "ucf101/index2cls", "hmdb51/index2cls", "ssv2/index2cls"],
)
def test_shipped_classes_can_be_told_apart(label_db, file):
    names = ClassNames(label_db / f"{file}.json")
    assert [names.find(name) for name in names.names] == list(range(len(names)))


def test_zero_shot_classes_are_classes_of_kinetics600_and_not_of_kinetics400(label_db):
    known, seen = ClassNames(label_db / "k600/index2cls.json"), ClassNames(label_db / "k400/index2cls.json")
    for split in (1, 2, 3):
        some = ClassNames(label_db / f"k600/zero_shot_split{split}_index2cls.json")
        assert len(some) == 160
        assert all(known.find(name) is not None and seen.find(name) is None for name in some.names)
