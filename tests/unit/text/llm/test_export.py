import json
import re

import pytest
import yaml

from slowfast.text.llm.export import (
    STORES,
    graph_entry,
    graph_record,
    prompt_entry,
    prompt_record,
    read_class_names,
    read_descriptors,
    read_rephrased,
    write_descriptors,
    write_from_records,
    write_rephrased,
)
from slowfast.text.llm.prompts import DESCRIPTORS_EXAMPLES, GRAPH_EXAMPLE, PROMPTS_EXAMPLE, REPHRASE_EXAMPLE
from slowfast.text.prompt_bank import read_graphs, read_prompts

NAME = GRAPH_EXAMPLE.name
DESCRIPTORS_EXAMPLE = DESCRIPTORS_EXAMPLES[4]
EXAMPLES = (GRAPH_EXAMPLE, PROMPTS_EXAMPLE, REPHRASE_EXAMPLE, DESCRIPTORS_EXAMPLE)


def of_class(record, name):
    return record.model_copy(update={"name": name})


def test_entries_and_back():
    assert graph_record(NAME, graph_entry(GRAPH_EXAMPLE)) == GRAPH_EXAMPLE
    assert prompt_record(NAME, prompt_entry(PROMPTS_EXAMPLE)) == PROMPTS_EXAMPLE


@pytest.mark.parametrize(
    "record",
    [*EXAMPLES, DESCRIPTORS_EXAMPLES[2], DESCRIPTORS_EXAMPLES[8]],
    ids=lambda record: type(record).__name__,
)
def test_round_trip_through_files(tmp_path, record):
    store = STORES[type(record)]
    path = tmp_path / "new" / "output"
    assert not store.exists(path)
    write_from_records(path, [of_class(record, "b"), record], names=[NAME, "b"])
    assert store.exists(path)
    entries = store.read(path, [NAME, "b"])
    assert list(entries) == [NAME, "b"]
    assert store.record(NAME, entries[NAME]) == record
    assert store.entry(record) == entries[NAME]


def test_published_layouts(tmp_path):
    names = [NAME, "b"]
    for record, file in zip(EXAMPLES, ("graphs.yml", "prompts.yml", "names.json", "texts"), strict=True):
        write_from_records(tmp_path / file, [record, of_class(record, "b")], names=names)
    assert graph_entry(GRAPH_EXAMPLE) == read_graphs(tmp_path / "graphs.yml")[NAME]
    assert prompt_entry(PROMPTS_EXAMPLE) == read_prompts(tmp_path / "prompts.yml")[NAME]
    assert yaml.safe_load((tmp_path / "graphs.yml").read_text())["b"]["label"] == "b"
    assert json.loads((tmp_path / "names.json").read_text()) == {
        "0": REPHRASE_EXAMPLE.text,
        "1": f"b: {REPHRASE_EXAMPLE.sentence}",
    }
    for kind, texts in (("spatio", DESCRIPTORS_EXAMPLE.spatial), ("temporal", DESCRIPTORS_EXAMPLE.temporal)):
        content = json.loads((tmp_path / "texts" / f"{kind}_descriptors" / "4_descriptors.json").read_text())
        assert content == {"0": list(texts), "1": list(texts)}


def test_writers_number_records_in_their_order(tmp_path):
    write_rephrased(tmp_path / "names.json", [of_class(REPHRASE_EXAMPLE, "b"), REPHRASE_EXAMPLE])
    assert list(read_rephrased(tmp_path / "names.json", ["b", NAME])) == ["b", NAME]
    write_descriptors(tmp_path, [DESCRIPTORS_EXAMPLE])
    assert list(read_descriptors(tmp_path, [NAME])) == [NAME]


def test_files_of_descriptors_are_named_by_their_number(tmp_path):
    for count in (2, 8):
        write_descriptors(tmp_path, [DESCRIPTORS_EXAMPLES[count]])
    assert sorted(path.name for path in tmp_path.glob("spatio_descriptors/*")) == [
        "2_descriptors.json",
        "8_descriptors.json",
    ]
    for count in (2, 8):
        (entry,) = read_descriptors(tmp_path, [NAME], count=count).values()
        assert [len(texts) for texts in entry] == [count, count]
    with pytest.raises(ValueError, match=r"4_descriptors\.json: no such file"):
        read_descriptors(tmp_path, [NAME])


def test_an_absent_class_leaves_its_number_out(tmp_path):
    store = STORES[type(REPHRASE_EXAMPLE)]
    store.write(tmp_path / "names.json", {"b": "b: x"}, ["a", "b"])
    assert json.loads((tmp_path / "names.json").read_text()) == {"1": "b: x"}
    assert store.read(tmp_path / "names.json", ["a", "b"]) == {"b": "b: x"}


@pytest.mark.parametrize(
    ("records", "names", "message"),
    [
        ([REPHRASE_EXAMPLE], [NAME, "b"], "1 of 2 classes have no record, the first is 'b'"),
        ([REPHRASE_EXAMPLE] * 2, [NAME], f"class '{NAME}' has two records"),
        ([REPHRASE_EXAMPLE, of_class(REPHRASE_EXAMPLE, "b")], [NAME], "class 'b' is not in the list of classes"),
    ],
)
def test_records_must_cover_the_classes(tmp_path, records, names, message):
    path = tmp_path / "file"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        write_from_records(path, records, names=names)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[1]", "expected a JSON object with label numbers as keys"),
        ("3", "expected a JSON object with label numbers as keys"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"2": "c: x"}', 'key \'2\' is not one of "0" to "1"'),
        ('{"0": "a: x", "0": "a: y"}', "key '0' occurs twice"),
        ('{"0": 3}', "a: expected a text, found int"),
        ('{"0": "b: x"}', "label 0 is 'a', found 'b: x'"),
        ("\xff", "not readable as JSON"),
    ],
)
def test_bad_rephrased_file(tmp_path, text, message):
    path = tmp_path / "names.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}") as caught:
        read_rephrased(path, ["a", "b"])
    assert "\n" not in str(caught.value)


def test_bad_descriptor_files(tmp_path, monkeypatch):
    write_descriptors(tmp_path, [of_class(DESCRIPTORS_EXAMPLE, "a")])
    spatial = tmp_path / "spatio_descriptors" / "4_descriptors.json"
    for text, message in (
        ("{}", "'a' has spatial or temporal descriptors, not both"),
        ('{"0": "x"}', "a: expected a list of texts"),
        ('{"0": [3]}', "a: expected a list of texts"),
    ):
        spatial.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_descriptors(tmp_path, ["a"])
    spatial.unlink()
    with pytest.raises(ValueError, match="no such file"):
        read_descriptors(tmp_path, ["a"])
    monkeypatch.setattr("slowfast.text.llm.export.MAX_FILE_BYTES", 3)
    spatial.write_text("{   }")
    with pytest.raises(ValueError, match="has 5 bytes; allowed: 3"):
        read_descriptors(tmp_path, ["a"])


def test_class_names(tmp_path):
    (tmp_path / "a.yml").write_text("classes: [b, a]\ntemplates: ['{}']")
    (tmp_path / "a.json").write_text('{"0": "b", "1": "a"}')
    assert read_class_names(tmp_path / "a.yml") == read_class_names(tmp_path / "a.json") == ("b", "a")
    (tmp_path / "a.json").write_text('{"0": "b", "1": "b"}')
    with pytest.raises(ValueError, match="class 'b' occurs twice"):
        read_class_names(tmp_path / "a.json")
