"""Descriptors of classes: where their files are found, how classes find their rows, and what is wrong with a file."""

import json
import re
from pathlib import Path

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.text.class_lists import own_names
from slowfast.text.descriptors import TEMPLATES, descriptor_bank, file_classes, find_file, read_descriptors
from slowfast.text.tokenizer import Tokenizer

LABEL_DB = Path(__file__).resolve().parents[3] / "label_db"
WITH_DESCRIPTORS = ("k400", "k600", "ucf101", "hmdb51", "ssv2")
CLASS_LISTS = [
    *(LABEL_DB / f"{dataset}-index2cls.json" for dataset in WITH_DESCRIPTORS),
    *sorted(
        file
        for dataset in WITH_DESCRIPTORS
        for file in (LABEL_DB / dataset).rglob("*index2cls.json")
        # Those of Kinetics-600 are for the 217 classes that Kinetics-400 does not have.
        if file != LABEL_DB / "k600" / "index2cls.json"
    ),
]
NAMES = ("surfing", "Pouring Tea", "jump")
EMPTY = {"spatial": "", "temporal": ""}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def listed(names):
    return {str(number): name for number, name in enumerate(names)}


def bank_of(label_set, files=EMPTY, *, count=2, classes=""):
    return descriptor_bank(label_set, files, count=count, classes=classes, tokenizer=Tokenizer())


@pytest.fixture
def folder(tmp_path):
    """A dataset with files of two and of four descriptors per class."""
    dataset = tmp_path / "label_db" / "toy"
    write(dataset / "index2cls.json", listed(NAMES))
    for kind in ("spatio", "temporal"):
        for count in (2, 4, 8):
            if (kind, count) != ("temporal", 8):
                rows = {str(n): [f"{kind} {count} {name} {i}" for i in range(count)] for n, name in enumerate(NAMES)}
                write(dataset / "descriptors" / f"{kind}_descriptors" / f"{count}_descriptors.json", rows)
    return dataset


# ------------------------------------------------------------------------------------------------------- shipped files


@pytest.mark.parametrize("file", CLASS_LISTS, ids=lambda file: str(file.relative_to(LABEL_DB)))
def test_every_shipped_class_list_has_its_descriptors(file):
    """Rows are those of the class of that name in the dataset's own list, whatever the list at hand calls it."""
    label_set = LabelSet.from_json(file)
    bank = bank_of(label_set, count=4)
    assert bank.tokens.shape == (len(label_set), 8, 77)
    dataset = next(name for name in WITH_DESCRIPTORS if name in (file.name.split("-")[0], *file.parts))
    spelled = LabelSet.from_json(LABEL_DB / dataset / "index2cls.json").names
    own = own_names(file, dataset=spelled)
    folder = LABEL_DB / dataset / "descriptors"
    assert len(CLASS_LISTS) > 20
    for place, kind in ((0, "spatio"), (4, "temporal")):
        path = folder / f"{kind}_descriptors" / "4_descriptors.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        numbers = {name: number for number, name in enumerate(LabelSet.from_json(file_classes(path)).names)}
        for name, texts in zip(own, bank.texts, strict=True):
            found = numbers[name] if name in numbers else by_letters(numbers, name)
            assert list(texts[place : place + 4]) == rows[str(found)], name


def by_letters(numbers, name):
    def letters(text):
        return re.sub("[^a-z0-9]", "", text.lower())

    (found,) = {number for own, number in numbers.items() if letters(own) == letters(name)}
    return found


def test_published_tokens(tmp_path):
    files = {
        kind: write(tmp_path / f"{kind}.json", {"0": [text]})
        for kind, text in (("spatial", "hairbrush"), ("temporal", "Grab the hairbrush"))
    }
    bank = bank_of(LabelSet.from_names(["brush hair"]), files, count=1)
    for row, expected in zip(
        bank.tokens[0].tolist(),
        (
            [49406, 589, 533, 320, 1455, 781, 4658, 8594, 49407],
            [49406, 320, 1455, 539, 8594, 2225, 8296, 6197, 4646, 518, 4658, 8594, 49407],
        ),
        strict=True,
    ):
        assert row == expected + [0] * (77 - len(expected))


# ---------------------------------------------------------------------------------------------------------- near lists


def test_the_smallest_file_that_is_large_enough(folder):
    source = folder / "index2cls.json"
    for count, expected in ((1, 2), (2, 2), (3, 4), (4, 4), (5, 8)):
        found = find_file("spatial", count=count, source=source)
        assert found == folder / "descriptors" / "spatio_descriptors" / f"{expected}_descriptors.json"
    bank = bank_of(LabelSet.from_json(source), count=3)
    assert bank.texts[0] == tuple(f"{kind} 4 surfing {i}" for kind in ("spatio", "temporal") for i in range(3))


def test_no_file_is_large_enough(folder):
    message = (
        f"OST.DES_TEMPORAL: is empty, and {folder}/descriptors has files of [2, 4] per class; allowed: a JSON file "
        "with 5 descriptors per class, which utils/descriptor_text_prompt.py makes"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bank_of(LabelSet.from_json(folder / "index2cls.json"), count=5)


@pytest.mark.parametrize("source", [None, "elsewhere"])
def test_no_files_at_all(tmp_path, source):
    source = None if source is None else write(tmp_path / source / "index2cls.json", listed(NAMES))
    where = source or "the class names, which are from no file"
    message = f"OST.DES_SPATIAL: is empty, and no folder of descriptors lies near {where}; allowed: a JSON file"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        find_file("spatial", count=4, source=source)


def test_no_files_of_a_kind(folder):
    (folder / "other" / "descriptors").mkdir(parents=True)
    source = write(folder / "other" / "index2cls.json", listed(NAMES))
    with pytest.raises(ValueError, match=r"/other/descriptors has no temporal_descriptors/N_descriptors.json; allowed"):
        find_file("temporal", count=1, source=source)


@pytest.mark.parametrize(
    "place",
    ["index2cls.json", "some_index2cls.json", "halves/base_index2cls.json", "episodic/toy/train_index2cls.json"],
)
def test_lists_in_a_dataset_find_its_files(folder, place):
    names = ["pouring_tea", "jump"]
    file = write(folder / place, listed(names if place != "index2cls.json" else NAMES))
    bank = bank_of(LabelSet.from_json(file))
    first = 0 if place != "index2cls.json" else 1
    assert bank.texts[first] == (
        "spatio 2 Pouring Tea 0",
        "spatio 2 Pouring Tea 1",
        "temporal 2 Pouring Tea 0",
        "temporal 2 Pouring Tea 1",
    )


def test_a_list_beside_the_folder_of_its_dataset(folder):
    file = write(folder.parent / "toy-index2cls.json", listed(NAMES))
    assert file_classes(find_file("spatial", count=2, source=file)) == file
    assert bank_of(LabelSet.from_json(file)).texts[2][0] == "spatio 2 jump 0"


def test_prompts_have_the_name_as_the_label_set_spells_it(folder):
    label_set = LabelSet.from_json(write(folder / "x_index2cls.json", listed(["pouring_tea"])))
    bank = bank_of(label_set, count=1)
    for place, kind in enumerate(("spatial", "temporal")):
        prompt = TEMPLATES[kind].format(name="pouring_tea", descriptor=bank.texts[0][place])
        assert torch.equal(bank.tokens[0, place], Tokenizer()([prompt])[0])


# --------------------------------------------------------------------------------------------------------- given files


@pytest.fixture
def given(tmp_path):
    """Writes one file for both kinds; returns the files and its path."""

    def make(content):
        path = write(tmp_path / "given.json", content)
        return {"spatial": path, "temporal": path}, path

    return make


def rows(count=2, names=NAMES):
    return {str(number): [f"{name} {i}" for i in range(count)] for number, name in enumerate(names)}


def test_rows_of_the_label_set_in_its_order(given):
    files, _ = given(rows())
    assert bank_of(LabelSet.from_names(["x", "y", "z"]), files).texts[1] == ("Pouring Tea 0", "Pouring Tea 1") * 2


def test_order_of_kinds_is_that_of_the_request(tmp_path):
    files = {kind: write(tmp_path / f"{kind}.json", {"0": [kind]}) for kind in ("temporal", "spatial")}
    assert bank_of(LabelSet.from_names(["x"]), files, count=1).texts == (("temporal", "spatial"),)


def test_a_class_list_numbers_the_rows(given, tmp_path):
    files, _ = given(rows())
    classes = write(tmp_path / "classes.json", listed(NAMES))
    bank = bank_of(LabelSet.from_names(["JUMP", "surfing"]), files, classes=classes)
    assert [texts[0] for texts in bank.texts] == ["jump 0", "surfing 0"]


def test_a_class_that_the_list_lacks(given, tmp_path):
    files, path = given(rows())
    classes = write(tmp_path / "classes.json", listed(NAMES))
    with pytest.raises(ValueError, match=rf"^OST.DES_SPATIAL: {re.escape(str(path))}, by .*knitting"):
        bank_of(LabelSet.from_names(["surfing", "knitting"]), files, classes=classes)


def test_a_row_that_the_file_lacks(given, tmp_path):
    files, path = given({"0": ["a", "b"], "1": ["c", "d"]})
    classes = write(tmp_path / "classes.json", listed(NAMES))
    message = f"OST.DES_SPATIAL: {path}: has no key \"2\", the number of class 'jump'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bank_of(LabelSet.from_names(["jump"]), files, classes=classes)


@pytest.mark.parametrize("found", [rows(names=NAMES[:2]), {str(n): ["a", "b"] for n in (0, 1, 3)}, rows(names="abcd")])
def test_another_number_of_classes(given, found):
    files, path = given(found)
    message = (
        f"OST.DES_SPATIAL: {path}: has {len(found)} classes, the label set 3; allowed: the keys 0 to 2, or a class "
        "list in OST.DES_CLASSES"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bank_of(LabelSet.from_names(list(NAMES)), files)


def test_too_few_descriptors(given):
    files, path = given({**rows(4), "1": ["a", "b", "c"]})
    message = f'OST.DES_SPATIAL: {path}: key "1": has 3 descriptors; OST.N wants 4'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bank_of(LabelSet.from_names(list(NAMES)), files, count=4)
    assert bank_of(LabelSet.from_names(list(NAMES)), files, count=3).tokens.shape == (3, 6, 77)


def test_a_descriptor_that_is_too_long(given):
    files, _ = given({"0": ["word " * 90]})
    with pytest.raises(ValueError, match=r"^OST\.DES_\w+( and OST\.DES_\w+)?: class 0: a prompt is too long"):
        bank_of(LabelSet.from_names(["x"]), files, count=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable ("),
        ("[" * 100000, "not readable ("),
        ("[]", 'expected a JSON object {"0": ["text", ...], ...}'),
        ("[1]", 'expected a JSON object {"0": ["text", ...], ...}'),
        ("3", 'expected a JSON object {"0": ["text", ...], ...}'),
        ('{"a": ["x"]}', "key 'a': expected each class number once, in decimal digits"),
        ('{"%s": ["x"]}' % ("1" * 5000), f"key '{'1' * 60}': expected each class number once, in decimal digits"),
        ('{"-1": ["x"]}', "key '-1': expected each class number once, in decimal digits"),
        ('{"01": ["x"]}', "key '01': expected each class number once, in decimal digits"),
        ('{"1.0": ["x"]}', "key '1.0': expected each class number once, in decimal digits"),
        ('{"٣": ["x"]}', "key '٣': expected each class number once, in decimal digits"),
        ('{"²": ["x"]}', "key '²': expected each class number once, in decimal digits"),
        ('{"0": ["x"], "0": ["y"]}', "key '0': expected each class number once, in decimal digits"),
        ('{"0": "text"}', 'key "0": expected a list of texts'),
        ('{"0": ["x", 1]}', 'key "0": expected a list of texts'),
        ('{"0": ["x", " "]}', 'key "0": expected a list of texts'),
        ('{"0": {"a": "x"}}', 'key "0": expected a list of texts'),
        ('{"0": {}}', 'key "0": expected a list of texts'),
        ('{"0": null}', 'key "0": expected a list of texts'),
    ],
)
def test_files_of_another_form(tmp_path, content, message):
    path = write(tmp_path / "d.json", content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'OST.DES_SPATIAL: {path}: {message}')}") as caught:
        read_descriptors(path, what=f"OST.DES_SPATIAL: {path}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "absent.json"
    with pytest.raises(ValueError, match=f"^{re.escape(f'OST.DES_TEMPORAL: {path}: no such file')}$"):
        bank_of(LabelSet.from_names(["x"]), {"temporal": path})


def test_a_list_of_no_texts_is_read_and_is_too_short(given):
    files, path = given({"0": []})
    assert read_descriptors(path, what="x") == {0: []}
    with pytest.raises(ValueError, match=r'key "0": has 0 descriptors; OST.N wants 1$'):
        bank_of(LabelSet.from_names(["x"]), files, count=1)
