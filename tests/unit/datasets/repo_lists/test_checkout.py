import re
from pathlib import PurePosixPath

import pytest

from slowfast.datasets.repo_lists.checkout import Checkout


def scan(fake):
    return Checkout.scan(fake.root)


def rows_of(fake, text, form="path label"):
    fake.write("list.csv", text)
    return [(row.path, row.label, row.line) for row in scan(fake).rows(PurePosixPath("list.csv"), form)]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("a/v_1.avi,7", "a/v_1.avi"),
        ("a/v_1.avi , 7", "a/v_1.avi"),
        ("a/v_1.avi 7", "a/v_1.avi"),
        ("air drumming/v 1.mp4 7", "air drumming/v 1.mp4"),
        ("air drumming/v 1.mp4,7", "air drumming/v 1.mp4"),
        ("a/v_1.avi\t7", "a/v_1.avi"),
        ("v_1.avi,anything,7", "v_1.avi"),
        ("eating, drinking/v_1.avi,7", "eating, drinking/v_1.avi"),
        ("eating, drinking/v_1.avi 7", "eating, drinking/v_1.avi"),
    ],
)
def test_lines_of_path_and_label(fake, line, path):
    assert rows_of(fake, f"\n{line}\n\n") == [(path, 7, 2)]


def test_windows_line_ends_and_byte_order_mark(fake):
    assert rows_of(fake, "\ufeffa.avi,0\r\nb.avi,1\r\n") == [("a.avi", 0, 1), ("b.avi", 1, 2)]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("train8/1234", "1234"),
        ("train8//videos/brush_hair/a b.avi", "videos/brush_hair/a b.avi"),
        ("val8//val_256/air_drumming/x.mp4", "val_256/air_drumming/x.mp4"),
    ],
)
def test_lines_of_class_and_path(fake, line, path):
    assert rows_of(fake, f"{line}\n", "class/path") == [(path, 8, 1)]


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("a.avi", "path label"),
        ("a.avi,x", "path label"),
        ("a.avi,-1", "path label"),
        (",3", "path label"),
        ("a.avi 3", "class/path"),
        ("train/1234", "class/path"),
        ("train8/", "class/path"),
    ],
)
def test_malformed_line_is_named(fake, line, form):
    good = {"path label": "a.avi 0", "class/path": "train0/1"}[form]
    with pytest.raises(ValueError, match=re.escape("list.csv:2: expected")) as caught:
        rows_of(fake, f"{good}\n{line}\n", form)
    assert repr(line) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_list(fake):
    with pytest.raises(ValueError, match=r"list.csv: holds no video"):
        rows_of(fake, "\n\n")


def test_text_that_is_none(fake):
    fake.write("list.csv", "").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"list.csv: not UTF-8 text"):
        scan(fake).rows(PurePosixPath("list.csv"), "path label")


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="nothing: no such folder"):
        Checkout.scan(tmp_path / "nothing")


def test_hidden_folders_are_left_out(fake):
    fake.write(".git/list.csv", "a 0\n")
    fake.write("list.csv", "a 0\n")
    fake.write("video.avi", "")
    assert scan(fake).files == (PurePosixPath("list.csv"),)


def test_patterns_match_the_end_of_a_path_also_that_of_the_root(fake):
    for path in ("zs_label_db/UCF101_full/test.csv", "ucf101_full/test.csv", "ucf101_full/more/test.csv"):
        fake.write(path, "a 0\n")
    found = [str(path) for path in scan(fake).find("ucf*_full/test.csv")]
    assert found == ["ucf101_full/test.csv", "zs_label_db/UCF101_full/test.csv"]
    inside = Checkout.scan(fake.root / "ucf101_full")
    assert [str(path) for path in inside.find("ucf*_full/test.csv")] == ["test.csv"]


def test_near_prefers_the_files_that_share_folders(fake):
    for path in ("one/labels/x.csv", "two/labels/x.csv", "two/lists/val.txt", "two/lists/y.csv"):
        fake.write(path, "a 0\n")
    checkout, file = scan(fake), PurePosixPath("two/lists/val.txt")
    assert [str(path) for path in checkout.near("labels/x.csv", file)] == ["two/labels/x.csv"]
    assert [str(path) for path in checkout.near("./*.csv", file)] == ["two/lists/y.csv"]
    assert checkout.near("z.csv", file) == []


def names_in(fake, path, text, part="train"):
    fake.write(path, text)
    return scan(fake).class_names(PurePosixPath(path), part)


def test_json_goes_by_its_keys_and_sentences_are_cut(fake):
    assert names_in(fake, "a.json", '{"1": "Run: to move fast", "0": "Walk"}') == ["Walk", "Run"]


def test_json_of_llm_labels_goes_by_its_order(fake):
    assert names_in(fake, "ucf_101_llm_labels.json", '{"1": "Run: fast", "0": "Walk: slow"}') == ["Run", "Walk"]


@pytest.mark.parametrize("text", ["[]", '{"Run": "x"}', '{"0": ["Run"]}', '{"0": "Run", "2": "Walk"}'])
def test_json_that_is_no_class_list(fake, text):
    assert names_in(fake, "a.json", text) is None


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_a_list_nested_without_end(fake, name):
    with pytest.raises(ValueError, match=rf"{name}(:1)?: not valid (JSON|YAML) "):
        names_in(fake, name, "[" * 100_000)


def test_csv_goes_by_its_rows_and_keeps_commas(fake):
    text = 'id,name\n5,Walk\n0,"Removing it, slowly"\n\n1,Removing it, fast\n'
    assert names_in(fake, "labels.csv", text) == ["Walk", "Removing it, slowly", "Removing it, fast"]
    assert names_in(fake, "labels.csv", "5,Walk\n0,Run\n") == ["Walk", "Run"]
    assert names_in(fake, "list.csv", "a.avi,0\nb.avi,1\n") is None
    assert names_in(fake, "empty.csv", "id,name\n") is None


def test_configuration_names_classes_to_train_and_to_test_on(fake):
    text = "TRAIN:\n  CLASS_NAME: [run, walk]\nTEST:\n  CLASS_NAME: [sit]\n"
    assert names_in(fake, "a.yaml", text) == ["run", "walk"]
    assert names_in(fake, "a.yaml", text, "test") == ["sit"]
    assert names_in(fake, "a.yaml", "TRAIN: {WAY: 5}\n") is None


@pytest.mark.parametrize(("path", "text"), [("a.json", "{\n!"), ("a.yaml", "a: [b\nc: d\n")])
def test_damaged_class_file_is_named_in_one_line(fake, path, text):
    with pytest.raises(ValueError, match=path) as caught:
        names_in(fake, path, text)
    assert "\n" not in str(caught.value)


def test_lists_are_told_from_other_texts(fake):
    fake.write("val.txt", "a.avi 0\n")
    fake.write("train_few_shot.txt", "train0//a.avi\n")
    fake.write("labels.csv", "id,name\n")
    fake.write("notes.txt", "some words\n")
    fake.write("empty.txt", "")
    fake.write("bytes.txt", "").write_bytes(b"\xff\xfe\x00")
    checkout = scan(fake)
    assert [str(file) for file in checkout.files if checkout.is_list(file)] == ["train_few_shot.txt", "val.txt"]
