"""The command that encodes prompts, run as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slowfast.text.prompt_bank import (
    ClassFile,
    GraphEntry,
    PromptEntry,
    write_class_file,
    write_graphs,
    write_prompts,
)
from slowfast.text.text_bank import load_feature_file

UTILS = Path(__file__).resolve().parents[3] / "utils"
NAMES = ["surfing", "pouring tea", "sleeping"]


@pytest.fixture
def label_db(tmp_path):
    folder = tmp_path / "label_db"
    templates = ("a video of {}.", "the man is {}.", "{}")
    write_class_file(folder / "classes_label_toy.yml", ClassFile(classes=tuple(NAMES), templates=templates))
    tails = {
        name: PromptEntry(
            object_tails=tuple(f"with thing {i} of {name}" for i in range(count)),
            action_tails=("which is done",),
            sub_action_tails=("then it ends",),
        )
        for name, count in zip(NAMES, [1, 2, 3], strict=True)
    }
    write_prompts(folder / "classes_xprompt_toy.yml", tails)
    graph = GraphEntry(
        objects=("cup",),
        object_triples=(("cup", "beside", "cup"),),
        action_triples=(("surfing", "needs", "cup"),),
        sub_actions=("standing",),
        sub_action_triples=(("standing", "before", "standing"),),
    )
    write_graphs(folder / "classes_ASKG_toy.yml", dict.fromkeys(NAMES, graph))
    return folder


@pytest.fixture
def run(label_db, tiny_weights, tmp_path):
    def call(*extra, command="text_prompts.py", encode=True):
        defaults = ["--dataset", "toy", "--clip", str(tiny_weights), "--output", str(tmp_path), "--templates", "2"]
        arguments = ["--root", str(label_db), *(defaults if encode else []), *map(str, extra)]
        return subprocess.run(
            [sys.executable, str(UTILS / command), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    return call


def test_features_are_written_once(run, tmp_path):
    done = run()
    assert done.returncode == 0, done.stderr
    path = tmp_path / "classes_text_feats_toy_tpl2_xmix_tiny.pt"
    assert "3 classes, 2 templates, xmix: 8 to 12 prompts per class, 10.0 on average; 30 different texts" in done.stdout
    assert f"wrote {path}: [3, 12, 32] fp32 with mask, in" in done.stdout
    bank = load_feature_file(path, names=NAMES, embed_dim=32)
    assert bank.mask.sum(dim=1).tolist() == [8, 10, 12]
    again = run(command="text2feature.py")
    assert again.returncode == 0, again.stderr
    assert f"kept {path}: it has these prompts and weights" in again.stdout
    other = run("--activation", "gelu")
    assert (other.returncode, other.stderr) == (
        1, f"error: {path}: exists and holds other features, or does not say which; --force replaces it\n"
    )  # fmt: skip
    assert run("--activation", "gelu", "--force").returncode == 0


def test_published_form_and_safetensors(run, tmp_path):
    done = run("--pad", "--stem", "classes_feats")
    assert done.returncode == 0, done.stderr
    padded = torch.load(tmp_path / "classes_feats_toy_tpl2_xmix_tiny.pt", weights_only=True)
    assert padded.shape == (3, 12, 32)
    done = run("--format", "safetensors", "--type", "xao")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "classes_text_feats_toy_tpl2_xao_tiny.safetensors"
    assert load_feature_file(path, names=NAMES, embed_dim=32).mask is None  # as many tails for every class


def test_some_classes_in_an_order_of_their_own(run, tmp_path):
    some = tmp_path / "half_index2cls.json"
    some.write_text(json.dumps({"0": "sleeping", "1": "surfing"}))
    done = run("--classes", some)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "classes_text_feats_toy_half_tpl2_xmix_tiny.pt"
    assert load_feature_file(path, names=["sleeping", "surfing"], embed_dim=32).mask.sum(dim=1).tolist() == [12, 8]


def test_lists_that_spell_classes_in_their_own_way(run, label_db, tmp_path):
    folder = label_db / "toy" / "base_to_novel"
    folder.mkdir(parents=True)
    (folder.parent / "index2cls.json").write_text(json.dumps(dict(enumerate(NAMES))))
    for half, names, ids in (("base", ["sleeping", "surf-ing"], [2, 0]), ("novel", ["pouring a tea"], [1])):
        (folder / f"{half}_index2cls.json").write_text(json.dumps(dict(enumerate(names))))
        (folder / f"{half}_ids.json").write_text(json.dumps(ids))
    assert run().returncode == 0
    done = run("--classes", folder / "base_index2cls.json", folder / "novel_index2cls.json")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "classes_text_feats_toy_base_novel_tpl2_xmix_tiny.pt"
    assert torch.load(path, weights_only=True)["names"] == ["sleeping", "surf-ing", "pouring a tea"]
    own = load_feature_file(tmp_path / "classes_text_feats_toy_tpl2_xmix_tiny.pt", names=NAMES, embed_dim=32)
    for names, rows in ((["pouring a tea"], [1]), (["surfing", "sleeping"], [0, 2])):
        bank = load_feature_file(path, names=names, embed_dim=32)
        assert torch.equal(bank.mask, own.mask[rows])
        assert torch.allclose(bank.features, own.features[rows], atol=1e-6)
    (folder / "novel_ids.json").write_text("[0]")
    done = run("--classes", folder / "novel_index2cls.json")
    message = f"{folder / 'novel_ids.json'}: entry 0: 'pouring a tea' cannot be class 0 of the dataset, 'surfing'"
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


def test_a_class_is_shown_and_drawn(run, tmp_path):
    pytest.importorskip("matplotlib")
    done = run("--show", "Surfing", "--plot", tmp_path / "graph.svg", encode=False)
    assert done.returncode == 0, done.stderr
    assert "<surfing, needs, cup>" in done.stdout
    assert "surfing, with thing 0 of surfing" in done.stdout
    assert (tmp_path / "graph.svg").read_text().startswith("<?xml")


def test_mistakes_are_one_line(run, label_db, tmp_path):
    for arguments, message in (
        (["--templates", 4], f"error: --templates: 4, but {label_db / 'classes_label_toy.yml'} has 3\n"),
        (["--device", "cuda:99"], "error: --device: is cuda:99, but this machine has "),
        (["--device", "abc"], "error: --device: unknown device 'abc'; allowed: cpu, cuda, cuda:1\n"),
        (["--dataset", "none"], f"error: {label_db / 'classes_label_none.yml'}: no such file\n"),
        (["--clip", "random:ViT-X"], "error: --clip: unknown model 'random:ViT-X'; allowed: random:ViT-B/32, "),
        (
            ["--clip", tmp_path / "absent.pt"],
            f"error: CLIP weights '{tmp_path / 'absent.pt'}': no such file; allowed: ",
        ),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1
    prompts = label_db / "classes_xprompt_toy.yml"
    prompts.write_text(prompts.read_text().replace("pouring tea", "pouring milk"))
    done = run()
    message = (
        f"{prompts}: class 'pouring tea': not among the 3 classes that have sentence tails; nearest is 'pouring milk'"
    )
    assert done.stderr == f"error: {message}\n"


def test_wrong_requests_end_with_the_usage(run):
    for arguments in ([], ["--plot", "a.svg"], ["--dataset", "toy", "--clip", "x"]):
        done = run(*arguments, encode=False)
        assert done.returncode == 2
        assert "usage:" in done.stderr


def test_benchmark_compares_two_ways_to_the_same_features(label_db):
    tool = UTILS.parent / "tools" / "benchmark.py"
    options = ["--root", label_db, "--dataset", "toy", "--templates", "2", "--repeat", "1", "--batch-size", "5"]
    done = subprocess.run(
        [sys.executable, str(tool), "text", *map(str, options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("largest difference ")[1].split()[0]) < 1e-4
    assert [row.split("|")[2].strip() for row in done.stdout.splitlines()[-2:]] == ["36", "30"]
