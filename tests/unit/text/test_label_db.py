"""Every kind of fault, planted in a small folder of texts, is found and said in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slowfast.text.prompt_bank import (
    ClassFile,
    GraphEntry,
    PromptEntry,
    write_class_file,
    write_graphs,
    write_prompts,
)

pytest.importorskip("pydantic")

from slowfast.text.label_db import DATASETS, DatasetTexts, check_dataset

ROOT = Path(__file__).resolve().parents[3]
NAMES = ["surfing", "pouring tea", "sleeping"]
TOY = DatasetTexts(name="toy", num_classes=3)


def graph_of(name):
    objects = tuple(f"thing {letter}" for letter in "abcde")
    steps = tuple(f"step {letter}" for letter in "abcde")
    return GraphEntry(
        objects=objects,
        object_triples=tuple((objects[i], "touches", objects[(i + 1) % 5]) for i in range(5)),
        action_triples=tuple((name, "needs", thing) for thing in objects),
        sub_actions=steps,
        sub_action_triples=tuple((steps[i], "precedes", steps[(i + 1) % 5]) for i in range(5)),
    )


def tails_of(name):
    words = {"surfing": "waves", "pouring tea": "cups", "sleeping": "beds"}[name]
    kinds = {
        kind: tuple(f"{kind} number {i} of the {words}" for i in "abcde") for kind in ("with thing", "which", "then")
    }
    return PromptEntry(object_tails=kinds["with thing"], action_tails=kinds["which"], sub_action_tails=kinds["then"])


def write_json(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({str(number): text for number, text in enumerate(texts)}))


def sentence(name):
    return f"{name}: a person does what is called by the number {NAMES.index(name)} in this list"


@pytest.fixture
def folder(tmp_path):
    write_json(tmp_path / "toy-index2cls.json", NAMES)
    write_json(tmp_path / "toy" / "index2cls.json", NAMES)
    write_json(tmp_path / "toy" / "halves" / "base_index2cls.json", NAMES[:2])
    write_json(tmp_path / "toy" / "halves" / "base_rephrased.json", [sentence(name) for name in NAMES[:2]])
    write_json(tmp_path / "toy" / "rephrased.json", [sentence(name) for name in NAMES])
    write_json(tmp_path / "toy" / "episodic" / "toy" / "train_index2cls.json", ["Pouring [tea]", "sleeping"])
    write_json(tmp_path / "toy" / "episodic" / "toy" / "test_index2cls.json", ["Surfing"])
    write_json(tmp_path / "toy" / "splits" / "episodic" / "toy" / "val_index2cls.json", ["made here, not checked"])
    for kind in ("spatio", "temporal"):
        texts = [[f"{kind} sight {i} of class number {n}" for i in range(4)] for n in range(3)]
        write_json(tmp_path / "toy" / "descriptors" / f"{kind}_descriptors" / "4_descriptors.json", texts)
    write_class_file(
        tmp_path / "classes_label_toy.yml", ClassFile(classes=tuple(NAMES), templates=("a video of {}.", "{}"))
    )
    write_graphs(tmp_path / "classes_ASKG_toy.yml", {name: graph_of(name) for name in NAMES})
    write_prompts(tmp_path / "classes_xprompt_toy.yml", {name: tails_of(name) for name in NAMES})
    return tmp_path


def test_a_sound_folder_gives_figures(folder):
    report = check_dataset(folder, TOY)
    assert report.faults == []
    assert report.figures == {
        "classes": "3", "objects": "5.0", "steps": "5.0", "oo": "5.0", "ao": "5.0", "aa": "5.0", "tails": "45",
        "own tails": "100.00 %", "longest": "16 tokens", "rephrased": "5", "descriptors": "24", "partial lists": "1",
        "episodic lists": "2",
    }  # fmt: skip


def in_text(file, old, new):
    def plant(folder):
        path = folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return plant


def in_prompts(name, **tails):
    def plant(folder):
        entries = {known: tails_of(known) for known in NAMES}
        kept = {key: getattr(entries[name], key) for key in ("object_tails", "action_tails", "sub_action_tails")}
        entries[name] = PromptEntry(**(kept | {key: tuple(value) for key, value in tails.items()}))
        write_prompts(folder / "classes_xprompt_toy.yml", entries)

    return plant


def in_graph(name, **changes):
    def plant(folder):
        graphs = {known: graph_of(known) for known in NAMES}
        kept = {key: getattr(graphs[name], key) for key in GraphEntry.__dataclass_fields__}
        graphs[name] = GraphEntry(**(kept | changes))
        write_graphs(folder / "classes_ASKG_toy.yml", graphs)

    return plant


def reordered(file, read, write):
    def plant(folder):
        entries = {name: read(name) for name in [NAMES[1], NAMES[0], NAMES[2]]}
        write(folder / file, entries)

    return plant


def without(file):
    return lambda folder: (folder / file).unlink()


def with_half(*, ids):
    def plant(folder):
        write_json(folder / "toy" / "base_to_novel" / "base_index2cls.json", NAMES[:2])
        (folder / "toy" / "base_to_novel" / "base_ids.json").write_text(json.dumps(ids))

    return plant


TAILS = tails_of("surfing").object_tails
BASE = "toy/halves/base"
SPATIAL = "toy/descriptors/spatio_descriptors/4_descriptors.json"
FAULTS = {
    "gap in the class list": (in_text("toy-index2cls.json", '"2"', '"3"'), 'toy-index2cls.json: key "2" is missing'),
    "class twice": (
        in_text("toy-index2cls.json", "sleeping", "Surfing"),
        "toy-index2cls.json: class 'surfing' occurs 2 times",
    ),
    "too few classes": (
        lambda folder: write_json(folder / "toy-index2cls.json", NAMES[:2]),
        "toy-index2cls.json: has 2 classes; expected 3",
    ),
    "other name in the label file": (
        in_text("classes_label_toy.yml", "sleeping", "dreaming"),
        "classes_label_toy.yml: class 'sleeping' is missing",
    ),
    "order of the label file": (
        lambda folder: write_class_file(
            folder / "classes_label_toy.yml", ClassFile(classes=tuple(NAMES[::-1]), templates=("{}",))
        ),
        "classes_label_toy.yml: not in label order: has 'sleeping' for label 0, which is 'surfing'",
    ),
    "no label file": (without("classes_label_toy.yml"), "classes_label_toy.yml: no such file"),
    "other list beside": (in_text("toy/index2cls.json", "tea", "milk"), "toy/index2cls.json: 'pouring milk' is not a"),
    "no graphs": (without("classes_ASKG_toy.yml"), "classes_ASKG_toy.yml: no such file"),
    "graph missing": (
        lambda folder: write_graphs(folder / "classes_ASKG_toy.yml", {n: graph_of(n) for n in NAMES[:2]}),
        "classes_ASKG_toy.yml: class 'sleeping' is missing",
    ),
    "graph of no class": (
        lambda folder: write_graphs(folder / "classes_ASKG_toy.yml", {n: graph_of(n) for n in [*NAMES, "flying"]}),
        "classes_ASKG_toy.yml: 'flying' is not a class",
    ),
    "graphs out of order": (
        reordered("classes_ASKG_toy.yml", graph_of, write_graphs),
        "classes_ASKG_toy.yml: not in label order: has 'pouring tea' for label 0, which is 'surfing'",
    ),
    "graph twice": (in_text("classes_ASKG_toy.yml", "\nsleeping:", "\nsurfing:"), "key 'surfing' occurs twice"),
    "few objects": (in_graph("surfing", objects=("thing a",)), "classes_ASKG_toy.yml: surfing: objects: Tuple should"),
    "triple leads out": (
        in_graph("sleeping", action_triples=tuple(("sleeping", f"needs {i}", "pillow") for i in range(5))),
        "classes_ASKG_toy.yml: sleeping: action_triples: 'pillow' is not one of",
    ),
    "characters": (
        in_graph("surfing", sub_actions=("a: b", "c", "d", "e")),
        "surfing: sub_actions.0: 'a: b': expected",
    ),
    "no prompts": (without("classes_xprompt_toy.yml"), "classes_xprompt_toy.yml: no such file"),
    "prompts out of order": (
        reordered("classes_xprompt_toy.yml", tails_of, write_prompts),
        "classes_xprompt_toy.yml: not in label order",
    ),
    "tail without triple": (
        in_prompts("surfing", object_tails=[*TAILS, "with one more thing"]),
        "classes_xprompt_toy.yml: surfing: object_tails: has 6 entries for 5 triples",
    ),
    "class name in a tail": (
        in_prompts("surfing", object_tails=[*TAILS[:4], "a day of surfing fun"]),
        "classes_xprompt_toy.yml: surfing: 'a day of surfing fun': contains the class name 'surfing'",
    ),
    "tail twice": (in_prompts("surfing", object_tails=[*TAILS[:4], TAILS[0]]), "surfing: tails: "),
    "tails of another class": (
        in_prompts("surfing", object_tails=tails_of("sleeping").object_tails),
        "classes_xprompt_toy.yml: 22.2 % of the tails occur with several classes",
    ),
    "long prompt": (
        in_prompts("surfing", object_tails=[*TAILS[:4], " ".join(["antidisestablishmentarianism"] * 20)]),
        "tokens; allowed: 77",
    ),
    "no rephrased names": (without("toy/rephrased.json"), "toy/rephrased.json: cannot read the label file"),
    "rephrased name of another class": (
        in_text("toy/rephrased.json", "sleeping", "dreaming"),
        "toy/rephrased.json: class 'sleeping' is missing",
    ),
    "short sentence": (
        in_text("toy/rephrased.json", sentence("sleeping"), "sleeping: lying down"),
        "toy/rephrased.json: sleeping: sentence: 'lying down': has 2 words; allowed: 8 to 26",
    ),
    "same sentence": (
        in_text("toy/rephrased.json", "number 2", "number 1"),
        "toy/rephrased.json: 'pouring tea' has the sentence of another class",
    ),
    "no rephrased part": (without(f"{BASE}_rephrased.json"), f"{BASE}_rephrased.json: cannot read the label file"),
    "part out of order": (
        lambda folder: write_json(folder / f"{BASE}_rephrased.json", [sentence(name) for name in NAMES[1::-1]]),
        f"{BASE}_rephrased.json: not in label order",
    ),
    "class twice in a part": (
        in_text(f"{BASE}_index2cls.json", "pouring tea", "surfing"),
        f"{BASE}_index2cls.json: class 'surfing' occurs 2 times",
    ),
    "episodic class that is none": (
        in_text("toy/episodic/toy/train_index2cls.json", "Pouring [tea]", "Pouring [milk]"),
        "toy/episodic/toy/train_index2cls.json: 'Pouring [milk]' is not a class",
    ),
    "class to train and to test on": (
        in_text("toy/episodic/toy/test_index2cls.json", "Surfing", "Sleeping"),
        "class 'sleeping' is in test_index2cls.json too",
    ),
    "episodic class twice": (
        in_text("toy/episodic/toy/train_index2cls.json", "Pouring [tea]", "Sleeping"),
        "toy/episodic/toy/train_index2cls.json: class 'sleeping' occurs 2 times",
    ),
    "gap in an episodic list": (
        in_text("toy/episodic/toy/train_index2cls.json", '"1"', '"2"'),
        'toy/episodic/toy/train_index2cls.json: key "1" is missing',
    ),
    "half of the classes": (with_half(ids=[0, 1]), "toy/base_to_novel: class 2 'sleeping' is in none of the lists"),
    "half at the wrong positions": (
        with_half(ids=[0, 2]),
        "toy/base_to_novel/base_ids.json: entry 1: 'pouring tea' cannot be class 2 of the dataset, 'sleeping'",
    ),
    "no descriptors": (without(SPATIAL), f"{SPATIAL}: No such file"),
    "descriptors of too few classes": (
        lambda folder: write_json(folder / SPATIAL, [["a b c", "d e f", "g h i", "j k l"]]),
        f'{SPATIAL}: has 1 keys, not "0" to "2" in order',
    ),
    "descriptors twice": (in_text(SPATIAL, '"1"', '"0"'), f"{SPATIAL}: not readable as JSON (key '0' occurs twice)"),
    "three descriptors": (
        in_text(SPATIAL, '"spatio sight 3 of class number 0"', '"spatio sight 2 of class number 0"'),
        "0 surfing: spatial: 'spatio sight 2 of class number 0' occurs twice",
    ),
    "descriptors that are no texts": (in_text(SPATIAL, '"spatio sight 0 of class number 0"', "7"), "0: is not a list"),
    "descriptors that are no object": (lambda folder: (folder / SPATIAL).write_text("[]"), f"{SPATIAL}: holds list"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_planted_fault_is_found(folder, kind):
    plant, message = FAULTS[kind]
    plant(folder)
    faults = check_dataset(folder, TOY).faults
    assert any(message in fault for fault in faults), faults
    assert all("\n" not in fault for fault in faults)


def test_a_part_of_a_dataset_may_be_rephrased_list_by_list(folder):
    part = DatasetTexts(name="toy", num_classes=3, is_part=True)
    write_json(folder / "toy" / "index2cls.json", [*NAMES, "flying"])
    assert check_dataset(folder, part).faults == []
    (folder / "toy" / "rephrased.json").unlink()
    assert check_dataset(folder, part).faults == [f"{folder / 'toy'}: no list has 'sleeping' rephrased"]


def test_a_dataset_without_graphs_and_with_cut_names(folder):
    for file in ("classes_ASKG_toy.yml", "classes_xprompt_toy.yml"):
        (folder / file).unlink()
    write_json(folder / "toy" / "halves" / "base_index2cls.json", ["surfing", "surfing"])
    write_json(folder / "toy" / "halves" / "base_rephrased.json", [sentence("surfing")] * 2)
    cut = DatasetTexts(name="toy", num_classes=3, has_graphs=False, cuts_names=True)
    assert check_dataset(folder, cut).faults == []


def run(*arguments):
    command = [sys.executable, str(ROOT / "utils" / "check_label_db.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_ends_with_1_and_names_the_faults(tmp_path):
    done = run("--root", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{tmp_path / dataset.name}-index2cls.json: cannot read the label file (No such file or directory)"
        for dataset in DATASETS
    ]
    done = run("--root", tmp_path, "--dataset", "ucf102")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "dataset",
    [dataset for dataset in DATASETS if (ROOT / "label_db" / f"{dataset.name}-index2cls.json").is_file()],
    ids=lambda dataset: dataset.name,
)
def test_shipped_texts(dataset):
    assert check_dataset(ROOT / "label_db", dataset).faults == []
