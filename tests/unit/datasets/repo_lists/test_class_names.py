import json
import random
import re

import pytest

from slowfast.datasets.repo_lists.class_names import KnownClasses

BASE, NOVEL = ("base_to_novel/base_index2cls.json", "base_to_novel/novel_index2cls.json")


def camel_case(name):
    return "".join(word[:1].upper() + word[1:] for word in name.split())


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "k400", "ssv2"])
@pytest.mark.parametrize("spell", [str, str.upper, camel_case, lambda name: name.replace(" ", "_")])
def test_shuffled_classes_in_another_spelling(label_db, names_of, dataset, spell):
    known, names = KnownClasses.read(label_db / dataset, "index2cls.json"), names_of(dataset)
    order = random.Random(0).sample(range(len(names)), len(names))
    assert list(known.match([spell(names[number]) for number in order], "labels.csv")) == order


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "k400"])
@pytest.mark.parametrize("half", [BASE, NOVEL])
def test_halves_keep_their_order_and_take_both_spellings(label_db, names_of, dataset, half):
    known, own, whole = KnownClasses.read(label_db / dataset, half), names_of(dataset, half), names_of(dataset)
    ids = json.loads((label_db / dataset / half.replace("index2cls", "ids")).read_text())
    order = random.Random(1).sample(range(len(own)), len(own))
    assert known.match(own, "labels.csv") == tuple(range(len(own)))
    assert list(known.match([own[number] for number in order], "labels.csv")) == order
    assert list(known.match([whole[ids[number]] for number in order], "labels.csv")) == order


def test_names_cut_to_the_same_words_go_by_their_place(label_db, names_of):
    known, own = KnownClasses.read(label_db / "ssv2", NOVEL), names_of("ssv2", NOVEL)
    assert len(set(own)) < len(own)
    assert known.match(own, "labels.csv") == tuple(range(len(own)))
    with pytest.raises(ValueError, match=r"labels.csv: \"Putting something that can't roll .* stands for several"):
        known.match(own[::-1], "labels.csv")


def test_whole_names_tell_the_cut_ones_apart_in_any_order(label_db, names_of):
    known, whole = KnownClasses.read(label_db / "ssv2", NOVEL), names_of("ssv2")
    ids = json.loads((label_db / "ssv2" / "base_to_novel" / "novel_ids.json").read_text())
    order = random.Random(2).sample(range(len(ids)), len(ids))
    assert list(known.match([whole[ids[number]] for number in order], "labels.csv")) == order


def test_cut_names_of_the_whole_list(label_db, names_of):
    known = KnownClasses.read(label_db / "ssv2", "index2cls.json")
    cut = [name.partition(",")[0] for name in names_of("ssv2")]
    assert known.match(cut, "labels.csv") == tuple(range(174))


def test_another_spelling_at_the_same_place(label_db, names_of, caplog):
    caplog.set_level("INFO", logger="slowfast")
    known, names = KnownClasses.read(label_db / "ucf101", "index2cls.json"), names_of("ucf101")
    names[names.index("Playing Daf")] = "Playing Daff"
    assert known.match(names, "labels.csv") == tuple(range(101))
    assert "labels.csv: 'Playing Daff' is taken for another spelling of 'Playing Daf'" in caplog.text
    with pytest.raises(ValueError, match=r"labels.csv: 'Playing Daff' \(label \d+\) is no class of .*ucf101"):
        known.match(names[::-1], "labels.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names[:-1], "labels.csv: has 50 classes, "),
        (lambda names: [*names[:-1], "flying"], "labels.csv: 'flying' (label 50) is no class of "),
        (lambda names: [*names[:-1], names[0]], "'brush hair' (label 50) is class 'brush hair' once more"),
    ],
)
def test_other_classes_are_refused(label_db, names_of, change, message):
    known = KnownClasses.read(label_db / "hmdb51", "index2cls.json")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        known.match(change(names_of("hmdb51")), "labels.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", '{"0": 1}', "[0, 51]", '["0"]'])
def test_damaged_numbers_of_a_half(tmp_path, text):
    for file, names in (("index2cls.json", ["run", "walk"]), (BASE, ["run"])):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(json.dumps({str(label): name for label, name in enumerate(names)}))
    with pytest.raises(ValueError, match=r"base_ids.json: cannot be read"):
        KnownClasses.read(tmp_path, "index2cls.json")
    (tmp_path / "base_to_novel" / "base_ids.json").write_text(text)
    with pytest.raises(ValueError, match=r"base_ids.json: "):
        KnownClasses.read(tmp_path, "index2cls.json")


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "k400", "ssv2"])
def test_halves_partition_the_classes(label_db, dataset):
    ids = [
        number
        for half in ("base", "novel")
        for number in json.loads((label_db / dataset / "base_to_novel" / f"{half}_ids.json").read_text())
    ]
    assert sorted(ids) == list(range(len(ids)))
