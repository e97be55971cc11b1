import re

import pytest
import yaml

from slowfast.text.prompt_bank import (
    ClassFile,
    GraphEntry,
    PromptEntry,
    read_class_file,
    read_graphs,
    read_prompts,
    write_class_file,
    write_graphs,
    write_prompts,
)

GRAPH = GraphEntry(
    objects=("board", "wave"),
    object_triples=(("board", "lies on", "wave"),),
    action_triples=(("surfing", "uses", "board"),),
    sub_actions=("paddling out", "standing up"),
    sub_action_triples=(("paddling out", "happens before", "standing up"),),
)
PROMPT = PromptEntry(
    object_tails=("where a board: 'lies' on a wave", "where foam flies"),
    action_tails=("which uses a board",),
    sub_action_tails=("starting with paddling - then: # standing", "where foam flies"),
)


def test_round_trip(tmp_path):
    classes = ClassFile(classes=("surfing", "yes", "yoga: hot"), templates=("a photo of {}.",))
    for write, read, value in (
        (write_class_file, read_class_file, classes),
        (write_graphs, read_graphs, {"surfing": GRAPH, "yes": GRAPH}),
        (write_prompts, read_prompts, {"yes": PROMPT, "surfing": PROMPT}),
    ):
        path = tmp_path / "file.yml"
        write(path, value)
        assert read(path) == value
        if isinstance(value, dict):
            assert list(read(path)) == list(value)
            assert list(yaml.safe_load(path.read_text())) == list(value)


def test_published_layout(tmp_path):
    write_graphs(tmp_path / "graphs.yml", {"surfing": GRAPH})
    write_prompts(tmp_path / "prompts.yml", {"surfing": PROMPT})
    entry = yaml.safe_load((tmp_path / "graphs.yml").read_text())["surfing"]
    assert list(entry) == [
        "label", "obj_en_li", "obj_rel_triples", "act_obj_triples", "sub_act_en_li", "act_rel_triples",
    ]  # fmt: skip
    assert entry["obj_rel_triples"] == ["<board, lies on, wave>"]
    entry = yaml.safe_load((tmp_path / "prompts.yml").read_text())["surfing"]
    assert list(entry) == ["label", "xprompt_oo", "xprompt_ao", "xprompt_aa"]


def test_tails_are_mixed_in_order_and_once():
    assert PROMPT.mixed() == (
        "where a board: 'lies' on a wave",
        "where foam flies",
        "which uses a board",
        "starting with paddling - then: # standing",
    )


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "not readable as YAML (aliases are not allowed"),
        ("a: {label: a, xprompt_oo: [x], xprompt_ao: [x]}", "a: xprompt_aa is missing"),
        (
            "a: {xprompt_oo: [x], xprompt_ao: [x], xprompt_aa: [x], other: 1}",
            "a: unknown entry 'other'; allowed: label",
        ),
        ("a: {xprompt_oo: [x], xprompt_ao: x, xprompt_aa: [x]}", "a: xprompt_ao: expected a list of texts, found 'x'"),
        ("a: {xprompt_oo: [x], xprompt_ao: [], xprompt_aa: [x]}", "a: xprompt_ao: expected a list of texts, found []"),
        ("a: {xprompt_oo: [x], xprompt_ao: [3], xprompt_aa: [x]}", "a: xprompt_ao: 3 is not a text"),
        ("a: {xprompt_oo: [x]}\na: {xprompt_oo: [y]}", "not readable as YAML (key 'a' occurs twice"),
        ("a: [1]", "a: holds list; expected a mapping"),
        ("3: {}", "key 3 is not a class name"),
        ("- a", "holds list; expected a mapping"),
        ("a: !!python/object/apply:os.system ['true']", "not readable as YAML (could not determine a constructor"),
        ("a: [", "not readable as YAML (while parsing"),
        ("[" * 3000, "not readable as YAML ("),
    ],
)
def test_bad_file(tmp_path, text, message):
    path = tmp_path / "prompts.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        read_prompts(path)


@pytest.mark.parametrize("triple", ["<a, b>", "<a, b, c, d>", "<a, , c>", "a"])
def test_bad_triple(tmp_path, triple):
    path = tmp_path / "graphs.yml"
    write_graphs(path, {"surfing": GRAPH})
    path.write_text(path.read_text().replace("<board, lies on, wave>", triple))
    with pytest.raises(ValueError, match=re.escape(f"surfing: obj_rel_triples: {triple!r} is not a triple")):
        read_graphs(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a, a]\ntemplates: ['{}']", "classes: 'a' occurs twice"),
        ("classes: [a]\ntemplates: ['a photo']", "templates: 'a photo' must have one {} for the class name"),
        ("classes: [a]", "templates: expected a list of texts, found None"),
    ],
)
def test_bad_class_file(tmp_path, text, message):
    path = tmp_path / "classes.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        read_class_file(path)


def test_absent_and_huge_files(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no such file"):
        read_prompts(tmp_path / "absent.yml")
    monkeypatch.setattr("slowfast.text.prompt_bank.MAX_FILE_BYTES", 10)
    write_prompts(tmp_path / "prompts.yml", {"surfing": PROMPT})
    with pytest.raises(ValueError, match="allowed: 10"):
        read_prompts(tmp_path / "prompts.yml")
