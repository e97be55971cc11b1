"""Lists of some of a dataset's classes in their own spelling, found again in the dataset's own list."""

import json
import re
from pathlib import Path

import pytest

from slowfast.datasets.label_set import LabelSet
from slowfast.text.class_lists import check_halves, ids_file, join_lists, own_names

LABEL_DB = Path(__file__).resolve().parents[3] / "label_db"
OWN = ["eating burger", "Yoyo", "rolling something, so it falls", "rolling something, so it stays", "C", "C++"]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_list(path, names):
    return write(path, {str(number): name for number, name in enumerate(names)})


@pytest.fixture
def folder(tmp_path):
    """A dataset whose halves spell names in their own way."""
    write_list(tmp_path / "index2cls.json", OWN)
    halves = tmp_path / "base_to_novel"
    for half, names, ids in (
        ("base", ["C++", "eating a burger", "YoYo"], [5, 0, 1]),
        ("novel", ["rolling something", "C", "rolling something"], [3, 4, 2]),
    ):
        write_list(halves / f"{half}_index2cls.json", names)
        write(halves / f"{half}_ids.json", ids)
    return tmp_path


def test_positions_lie_beside_a_list():
    assert ids_file("a/base_index2cls.json") == Path("a/base_ids.json")
    assert ids_file("half0/index2cls.json") == Path("half0/ids.json")


def test_positions_tell_what_spelling_does_not(folder):
    halves = folder / "base_to_novel"
    assert own_names(halves / "base_index2cls.json", dataset=OWN) == ("C++", "eating burger", "Yoyo")
    assert own_names(halves / "novel_index2cls.json", dataset=OWN) == (OWN[3], OWN[4], OWN[2])


def test_without_positions_letters_and_digits_count(tmp_path):
    file = write_list(tmp_path / "some_index2cls.json", ["Yo Yo", "eating_burger", "C++", "c", "eating a burger"])
    assert own_names(file, dataset=OWN) == ("Yoyo", "eating burger", "C++", "c", "eating a burger")


def test_lists_are_joined(folder):
    some = write_list(folder / "some_index2cls.json", ["eating burger", "Yoyo", "C"])
    base = folder / "base_to_novel" / "base_index2cls.json"
    names, own = join_lists([some, base], dataset=OWN)
    assert names == ("eating burger", "Yoyo", "C", "C++", "eating a burger")
    assert own == ("eating burger", "Yoyo", "C", "C++", "eating burger")


def test_two_classes_of_one_name_stay_alone(folder):
    base, novel = (folder / "base_to_novel" / f"{half}_index2cls.json" for half in ("base", "novel"))
    assert join_lists([novel], dataset=OWN) == (("rolling something", "C", "rolling something"), (OWN[3], "C", OWN[2]))
    message = (
        f"{novel}: 'rolling something' is the class {OWN[2]!r}, but that of {novel} is {OWN[3]!r}; "
        "such a list must be the only one"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        join_lists([base, novel], dataset=OWN)


def test_sound_halves(folder):
    assert list(check_halves(folder)) == []
    assert list(check_halves(folder / "base_to_novel")) == []


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("[5, 0", "not readable as JSON (Expecting ',' delimiter: line 1 column 6 (char 5))"),
        ({"0": 5}, "holds dict; expected a list of positions"),
        ([5, 0], "has 2 entries for the 3 classes of the list beside it"),
        ([5, 0, 6], "entry 2: is 6; expected a position from 0 to 5"),
        ([5, 0, -1], "entry 2: is -1; expected a position from 0 to 5"),
        ([5, True, 1], "entry 1: is True; expected a position from 0 to 5"),
        ([5, 1, 0], "entry 1: 'eating a burger' cannot be class 1 of the dataset, 'Yoyo'"),
    ],
)
def test_positions_that_do_not_fit(folder, ids, message):
    file = folder / "base_to_novel" / "base_ids.json"
    file.write_text(ids if isinstance(ids, str) else json.dumps(ids))
    assert next(check_halves(folder)) == f"{file}: {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}: {message}')}$"):
        own_names(file.with_name("base_index2cls.json"), dataset=OWN)


def test_absent_positions(folder):
    file = folder / "base_to_novel" / "base_ids.json"
    file.unlink()
    assert list(check_halves(folder)) == [f"{file}: cannot read the positions (No such file or directory)"]


def test_halves_that_do_not_part_the_classes(folder):
    halves = folder / "base_to_novel"
    write(halves / "novel_ids.json", [3, 5, 2])
    assert list(check_halves(folder)) == [
        f"{halves}: class 4 'C' is in none of the lists; expected one",
        f"{halves}: class 5 'C++' is in 2 of the lists; expected one",
    ]


@pytest.mark.parametrize("dataset", ["k400", "ucf101", "hmdb51", "ssv2"])
def test_shipped_halves(dataset):
    folder = LABEL_DB / dataset
    own = LabelSet.from_json(folder / "index2cls.json").names
    assert list(check_halves(folder)) == []
    halves = [own_names(folder / "base_to_novel" / f"{half}_index2cls.json", dataset=own) for half in ("base", "novel")]
    assert sorted([*halves[0], *halves[1]]) == sorted(own)


def test_shipped_spellings():
    own = LabelSet.from_json(LABEL_DB / "k400" / "index2cls.json").names
    names, found = join_lists(
        [LABEL_DB / "k400" / "base_to_novel" / f"{half}_index2cls.json" for half in ("base", "novel")], dataset=own
    )
    assert {name: row for name, row in zip(names, found, strict=True) if name != row} == {
        "eating a burger": "eating burger",
        "driving a tractor": "driving tractor",
        "driving a car": "driving car",
        "giving or receiving an award": "giving or receiving award",
        "barbecuing": "barbequing",
        "swimming breaststroke": "swimming breast stroke",
        "skiing cross-country": "skiing crosscountry",
        "skiing (not slalom or cross-country)": "skiing (not slalom or crosscountry)",
    }
