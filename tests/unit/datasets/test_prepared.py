"""The manifest of a prepared dataset."""

import json

import pytest

from slowfast.datasets.prepared import PreparedDataset, PreparedList, read_manifest, write_manifest


@pytest.fixture
def dataset(tmp_path):
    lists = {
        "split1/test": PreparedList(classes="index2cls.json", rows=3, official=3783, missing=2, dropped=1, origin="x"),
        "half0/test": PreparedList(classes="splits/half0/index2cls.json", rows=2),
    }
    return PreparedDataset(
        name="toy", folder=tmp_path / "toy", root="/videos", lists=lists, sources={"classé.txt": "00"}, seed=5
    )


def test_a_manifest_is_read_as_it_was_written(dataset, tmp_path):
    path = write_manifest(dataset)
    assert path == tmp_path / "toy" / "splits" / "manifest.json"
    assert read_manifest(tmp_path, "toy") == dataset


def test_lists_have_files_and_classes(dataset, tmp_path):
    assert dataset.csv("split1/test") == tmp_path / "toy/splits/split1/test.csv"
    for file, names in (("index2cls", ["a", "b"]), ("rephrased", ["a: x.", "b: y."])):
        for folder in ("toy", "toy/splits/half0"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / f"{file}.json").write_text(json.dumps(dict(enumerate(names))), encoding="utf-8")
    assert dataset.label_set("split1/test").names == ("a", "b")
    assert dataset.label_set("half0/test", names="rephrased").names == ("a: x.", "b: y.")


def test_an_unknown_list_names_the_known_ones(dataset):
    with pytest.raises(ValueError, match=r"has no list 'split2/test'; found: split1/test, half0/test$"):
        dataset.require("split2/test")
    with pytest.raises(ValueError, match="has no list"):
        dataset.label_set("split2/test")


def test_a_dataset_that_was_not_prepared_names_the_command(tmp_path):
    with pytest.raises(ValueError, match=r"no such file; .*tools/prepare_data\.py toy --root"):
        read_manifest(tmp_path, "toy")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "slowfast-stdd/splits/0"},
        {"dataset": "other"},
        {"lists": {"full/test": {"rows": 1}}},
        {"lists": {"full/test": {"classes": "x", "rows": 1, "more": 2}}},
        {"lists": []},
        {"seed": "none"},
    ],
)
def test_an_unusable_manifest_is_refused_in_one_line(dataset, tmp_path, change):
    path = write_manifest(dataset)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest\.json: not a usable manifest") as caught:
        read_manifest(tmp_path, "toy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "{}"])
def test_a_damaged_manifest_is_refused(dataset, tmp_path, text):
    write_manifest(dataset).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="not a usable manifest"):
        read_manifest(tmp_path, "toy")
