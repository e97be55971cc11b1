"""The lists of Something-Something v2 in the format of the release."""

import json

import pytest

from slowfast.datasets.annotations.ssv2 import read_ssv2


def test_published_numbers_of_rows(ssv2_files, write_files, ask, names_of):
    lists = read_ssv2(ask("ssv2", write_files("labels", ssv2_files).parent))
    assert {name: len(entry.rows) for name, entry in lists.items()} == {
        "full/train": 168_913,
        "full/val": 24_777,
        **{f"few_shot/{shots}/train": 174 * shots for shots in (2, 4, 8, 16)},
        **{f"base_to_novel/seed{run}/train": 1392 for run in (1, 2, 3)},
        "base_to_novel/base_test": 17_562,
        "base_to_novel/novel_test": 7_215,
        "episodic/ssv2_full/train": 67_013,
        "episodic/ssv2_full/test": 2_857,
        "episodic/ssv2_small/train": 6_400,
        "episodic/ssv2_small/test": 2_400,
    }
    assert lists["full/train"].rows[0] == ("1.webm", 0)
    assert lists["full/train"].rows[-1] == ("168913.webm", 173)


ENTRY = {"id": "7", "label": "x", "template": "Closing [something]", "placeholders": ["a box"]}


def small(**changed):
    files = {"labels.json": None, "train.json": [ENTRY], "validation.json": [{**ENTRY, "id": "8"}], **changed}
    return {name: json.dumps(content) for name, content in files.items() if content is not None}


def test_new_names_without_labels_and_one_subset(write_files, ask, names_of):
    lists = read_ssv2(ask("ssv2", write_files("ssv2", small()), any_counts=True))
    closing = names_of("ssv2").index("Closing something")
    assert lists["full/train"].rows == (("7.webm", closing),)
    assert lists["full/train"].official == 168_913
    only = read_ssv2(ask("ssv2", write_files("val", small()), any_counts=True, subsets=("val",)))
    assert list(only) == [
        "full/val", "base_to_novel/base_test", "base_to_novel/novel_test", "episodic/ssv2_full/test"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train.json": [{**ENTRY, "template": "Cloxsing [something]"}]},
            r"train\.json: entry 1: unknown class 'Cloxsing something', .*nearest is 'Closing something'",
        ),
        ({"train.json": [{"id": "7"}]}, r"train\.json: entry 1: expected an object with id and template"),
        ({"train.json": {"7": ENTRY}}, r"train\.json: expected a list of videos, found dict"),
        ({"train.json": [ENTRY, ENTRY]}, r"train\.json: entry 2: '7\.webm' occurs twice, first at .*entry 1$"),
        ({"validation.json": [ENTRY]}, r"validation\.json: entry 1: '7\.webm' is a training video too, at .*train"),
        ({"labels.json": {"Closing something": "0"}}, r"labels\.json: has no class 'Approaching something with your"),
        ({"labels.json": {"Nothing": "0"}}, r"labels\.json: unknown class 'Nothing'"),
        ({"validation.json": None}, r"has no something-something-v2-validation\.json; expected"),
        ({"something-something-v2-train.json": []}, r"has both .*train\.json and .*train\.json"),
    ],
)
def test_faults_are_named(write_files, ask, changed, message):
    with pytest.raises(ValueError, match=message):
        read_ssv2(ask("ssv2", write_files("ssv2", small(**changed)), any_counts=True))


def test_numbers_of_rows_are_checked(write_files, ask):
    with pytest.raises(ValueError, match=r"list full/train \(train\.json\) has 1 rows, the official one has 168913"):
        read_ssv2(ask("ssv2", write_files("ssv2", small())))
