"""Episodic lists made by class: rules, order, classes that validate, what is left out."""

import json
from collections import Counter

import pytest

from slowfast.datasets.annotations.class_names import ClassNames
from slowfast.datasets.annotations.episodic import BENCHMARKS, PARTS, episodic_lists, held_out_ids, lists_to_import
from slowfast.datasets.annotations.files import AnnotationRequest
from slowfast.datasets.draws import draw_shots, restrict
from slowfast.datasets.label_set import LabelSet, class_key
from slowfast.datasets.prepared import DraftList
from slowfast.datasets.repo_lists.layouts import rules_of


@pytest.fixture
def build(ask, label_db, tmp_path):
    """build(dataset, {subset: list}, ...) -> its episodic lists."""

    def make(dataset, subsets, **options):
        names = ClassNames(label_db / dataset / "index2cls.json")
        request = ask(dataset, tmp_path, **{"any_counts": True, **options})
        return episodic_lists(request, names, subsets)

    return make


def every_class(count, prefix, num_classes):
    """Video after video, so that the rows are not in the order of the classes."""
    rows = tuple((f"{prefix}/{label}_{clip}", label) for clip in range(count) for label in range(num_classes))
    return DraftList(rows=rows, classes="index2cls.json", origin=f"{prefix}.txt")


NUM_CLASSES = {"ucf101": 101, "hmdb51": 51, "k400": 400, "ssv2": 174}


def test_every_benchmark_has_classes_and_a_rule(label_db):
    found = {(file.parts[-4], file.parts[-2]) for file in label_db.glob("*/episodic/*/train_index2cls.json")}
    assert found == {(dataset, benchmark) for dataset, rules in BENCHMARKS.items() for benchmark in rules}


def test_published_counts_are_those_that_are_expected_of_checkouts():
    for dataset, rules in BENCHMARKS.items():
        published = {rule.name: rule.counts for _, unexpanded in rules_of(dataset) for rule in unexpanded.expand()}
        for benchmark, rule in rules.items():
            for part, count in rule.official.items():
                assert published[f"episodic/{benchmark}/{part}"] == (count,)


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_all_videos_of_the_classes(build, names_of, dataset):
    every = every_class(3, "all", NUM_CLASSES[dataset])
    lists = build(dataset, {"every": every})
    assert list(lists) == [f"episodic/{dataset}/{part}" for part in PARTS]
    assert {row for entry in lists.values() for row, _ in entry.rows} == dict(every.rows).keys()
    assert sum(len(entry.rows) for entry in lists.values()) == len(every.rows)
    names = names_of(dataset)
    for part in ("train", "test"):
        entry = lists[f"episodic/{dataset}/{part}"]
        assert entry.classes == f"episodic/{dataset}/{part}_index2cls.json"
        assert entry.origin.endswith(" classes of all.txt")
        ours = names_of(dataset, entry.classes.removesuffix(".json"))
        assert [label for _, label in entry.rows] == sorted(3 * list(range(len(ours))))
        for video, label in entry.rows:
            whole = int(video.partition("/")[2].partition("_")[0])
            assert class_key(names[whole]) == class_key(ours[label])


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_the_other_classes_validate_in_the_order_of_the_dataset(build, names_of, label_db, dataset):
    lists = build(dataset, {"every": every_class(1, "all", NUM_CLASSES[dataset])})
    file = f"splits/episodic/{dataset}/val_index2cls.json"
    assert lists[f"episodic/{dataset}/val"].classes == file
    ids = held_out_ids(label_db / dataset, ClassNames(label_db / dataset / "index2cls.json"), lists)
    assert list(ids) == [file]
    assert len(ids[file]) == 10
    assert list(ids[file]) == sorted(ids[file])
    taken = {
        class_key(name)
        for part in ("train", "test")
        for name in names_of(dataset, f"episodic/{dataset}/{part}_index2cls")
    }
    assert {class_key(names_of(dataset)[label]) for label in ids[file]}.isdisjoint(taken)
    assert [video for video, _ in lists[f"episodic/{dataset}/val"].rows] == [f"all/{label}_0" for label in ids[file]]
    assert held_out_ids(label_db / dataset, ClassNames(label_db / dataset / "index2cls.json"), {}) == {}


def test_published_counts_are_checked(build):
    every = every_class(3, "all", 51)
    assert build("hmdb51", {"every": every})["episodic/hmdb51/val"].official == 1194
    with pytest.raises(ValueError, match=r"list episodic/hmdb51/train \(31 classes of all.txt\) has 93 rows, .* 4280"):
        build("hmdb51", {"every": every}, any_counts=False)


def test_ssv2_full_trains_on_training_and_tests_on_validation_videos(build):
    subsets = {"train": every_class(2, "train", 174), "val": every_class(2, "val", 174)}
    lists = build("ssv2", subsets)
    assert list(lists) == [
        f"episodic/{name}/{part}" for name in ("ssv2_full", "ssv2_small") for part in ("train", "test")
    ]
    for part, subset, official in (("train", "train", 67_013), ("test", "val", 2857)):
        entry = lists[f"episodic/ssv2_full/{part}"]
        assert {video.partition("/")[0] for video, _ in entry.rows} == {subset}
        assert (entry.official, entry.origin.partition(" classes of ")[2]) == (official, f"{subset}.txt")


@pytest.mark.parametrize(("dataset", "benchmark"), [("ssv2", "ssv2_small"), ("k400", "kinetics100")])
def test_drawn_lists(build, label_db, dataset, benchmark):
    train, val = every_class(80, "train", NUM_CLASSES[dataset]), every_class(40, "val", NUM_CLASSES[dataset])
    lists = build(dataset, {"train": train, "val": val}, seed=3)
    names = ClassNames(label_db / dataset / "index2cls.json")
    for part, num_classes in (("train", 64), ("test", 24)):
        entry = lists[f"episodic/{benchmark}/{part}"]
        assert Counter(label for _, label in entry.rows) == dict.fromkeys(range(num_classes), 100)
        assert (entry.official, entry.origin) == (None, "100 per class of train.txt and val.txt, seed 3")
        chosen = LabelSet.from_json(label_db / dataset / entry.classes).names
        rows = restrict(train.rows + val.rows, [names.match(name, "") for name in chosen])
        assert entry.rows == draw_shots(rows, 100, key=("episodic", benchmark, 3))
    assert build(dataset, {"train": train, "val": val}, seed=4) != lists


def test_too_few_videos_to_draw(build):
    subsets = {"train": every_class(50, "train", 400), "val": every_class(49, "val", 400)}
    with pytest.raises(
        ValueError, match=r"list episodic/kinetics100/train: class 0 has 99 videos, 100 are to be drawn; --any"
    ):
        build("k400", subsets, any_counts=False)
    assert len(build("k400", subsets)["episodic/kinetics100/train"].rows) == 99 * 64


def test_lists_without_their_subsets_are_left_out(build):
    train, val = every_class(1, "train", 174), every_class(1, "val", 174)
    assert list(build("ssv2", {"train": train, "val": None})) == ["episodic/ssv2_full/train"]
    assert list(build("ssv2", {"val": val})) == ["episodic/ssv2_full/test"]
    assert build("k400", {"val": every_class(1, "val", 400)}) == {}


def test_validation_lists_that_only_a_checkout_has():
    lists = dict.fromkeys(f"episodic/{name}/train" for name in ("ssv2_full", "ssv2_small"))
    assert lists_to_import("ssv2", lists) == ["episodic/ssv2_full/val", "episodic/ssv2_small/val"]
    assert lists_to_import("ssv2", {**lists, "episodic/ssv2_full/val": None}) == ["episodic/ssv2_small/val"]
    assert lists_to_import("ssv2", {}) == lists_to_import("hmdb51", lists) == lists_to_import("mine", lists) == []


# ---------------------------------------------------------------------------------------------- benchmarks of one's own


@pytest.fixture
def own(tmp_path):
    """own({file: names}) -> the lists of a dataset of five classes with the class files of a benchmark."""

    def make(**files):
        folder = tmp_path / "mine"
        for file, names in {"index2cls": ["a", "b b", "c", "d", "e"], **files}.items():
            path = folder / (f"{file}.json" if file == "index2cls" else f"episodic/toy/{file}_index2cls.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dict(enumerate(names))), encoding="utf-8")
        subsets = {name: every_class(2, name, 5) for name in ("train", "test")}
        names = ClassNames(folder / "index2cls.json")
        return episodic_lists(AnnotationRequest(annotations=tmp_path, class_files=folder), names, subsets)

    return make


def test_ones_own_benchmark_has_all_videos_of_its_classes(own):
    lists = own(train=["c", "a"], test=["B_b"])
    assert list(lists) == ["episodic/toy/train", "episodic/toy/test"]
    assert lists["episodic/toy/test"] == DraftList(
        rows=(("train/1_0", 0), ("train/1_1", 0), ("test/1_0", 0), ("test/1_1", 0)),
        classes="episodic/toy/test_index2cls.json",
        origin="1 classes of train.txt and test.txt",
    )
    assert [video for video, _ in lists["episodic/toy/train"].rows][:5] == [
        "train/2_0", "train/2_1", "test/2_0", "test/2_1", "train/0_0"
    ]  # fmt: skip
    assert list(own(val=["d", "e"])) == ["episodic/toy/train", "episodic/toy/val", "episodic/toy/test"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train": ["a"], "test": ["f"]},
            r"test_index2cls\.json: unknown class 'f', not in .*index2cls\.json; the nearest",
        ),
        (
            {"train": ["a", "b b"], "test": ["bb"]},
            r"test_.*: has the class 'bb', which .*train_index2cls\.json has too",
        ),
        ({"train": ["a", "A"]}, r"train_index2cls\.json: has the class 'A', which .*train_index2cls\.json has too"),
    ],
)
def test_classes_that_are_wrong(own, files, message):
    with pytest.raises(ValueError, match=message) as caught:
        own(**files)
    assert "\n" not in str(caught.value)
