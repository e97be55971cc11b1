import json
import re

import pytest

from slowfast.datasets.label_set import LabelSet, class_key


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_from_json_orders_by_index(tmp_path):
    labels = LabelSet.from_json(write(tmp_path / "a.json", {"1": "surfing", "0": "archery", "2": "golf"}))
    assert labels.names == ("archery", "surfing", "golf")
    assert labels.ids == (0, 1, 2)
    assert len(labels) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0": "a", "2": "b"}, 'key "1" is missing; 2 classes need the keys "0" to "1", found \'2\' instead'),
        ({"1": "a", "2": "b"}, 'key "0" is missing'),
        ({"0": "a", "one": "b"}, 'key "1" is missing; 2 classes need the keys "0" to "1", found \'one\' instead'),
        ({"0": "a", "01": "b"}, "found '01' instead"),
        ({"0": "a", "1": 3}, 'key "1": expected a class name, found 3'),
        ({"0": " "}, "key \"0\": expected a class name, found ' '"),
        ('{"0": "a", "0": "b"}', 'key "0" occurs twice'),
        ({}, "an empty object"),
        (["a", "b"], "found list"),
        ('{"0": "a",\n}', "not valid JSON (line 2"),
    ],
)
def test_bad_file_is_named_with_its_key(tmp_path, content, message):
    path = write(tmp_path / "labels.json", content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        LabelSet.from_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json: cannot read the label file \(No such file or directory\)"):
        LabelSet.from_json(tmp_path / "none.json")


def test_binary_file(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        LabelSet.from_json(tmp_path / "a.json")


@pytest.mark.parametrize(("names", "ids"), [((), ()), (("a",), (0, 1)), (("a", "b"), (1, 1))])
def test_inconsistent_set_is_refused(names, ids):
    with pytest.raises(ValueError, match="LabelSet"):
        LabelSet(names, ids)


@pytest.mark.parametrize(
    "spellings",
    [
        ("ApplyEyeMakeup", "Apply Eye Makeup", "apply_eye_makeup", "apply-eye makeup"),
        ("YoYo", "Yo Yo", "Yoyo"),
        ("Closing [something]", "Closing something"),
        ("hurling (sport)", "hurling_(sport)"),
        ("doesn't", "doesn\N{RIGHT SINGLE QUOTATION MARK}t"),
    ],
)
def test_spellings_of_a_class_have_one_key(spellings):
    assert len({class_key(name) for name in spellings}) == 1


def test_different_classes_have_different_keys():
    assert class_key("kick") != class_key("kick ball")


@pytest.mark.parametrize("content", ["[" * 200_000, '{"0": ' + "9" * 5000 + "}", '{"0": "\\ud800"}'])
def test_what_json_chokes_on(tmp_path, content):
    path = tmp_path / "classes.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="classes") as caught:
        LabelSet.from_json(path)
    assert str(caught.value).startswith(f"{path}: ")
