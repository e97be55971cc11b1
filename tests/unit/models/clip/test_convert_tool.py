"""The command line of tools/convert_weights.py."""

import hashlib
import importlib.util
import json
import os
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from slowfast.models.clip.files import read_weight_file
from slowfast.models.clip.weights import clip_activation, load_clip_state_dict, weights_license

SCRIPT = Path(__file__).resolve().parents[4] / "tools" / "convert_weights.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, capsys):
    """Runs the command; returns its status, the report as a dict, and the error."""

    def call(*args):
        status = tool.main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        report = {line[:13].strip(): line[13:] for line in out.splitlines()}
        assert err.count("\n") == (status != 0)
        return status, report, err.removeprefix("error: ").rstrip("\n")

    return call


@pytest.fixture
def save(tmp_path, in_layout):
    def write(layout, *, wrap=None, drop=(), **more):
        path = tmp_path / "source.pt"
        state = {name: t for name, t in in_layout(layout).items() if not name.endswith(drop or "\0")}
        torch.save({wrap: state, **more} if wrap else state | more, path)
        return path

    return write


def assert_same(found, expected):
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def assert_nothing_written(tmp_path):
    assert {path.name for path in tmp_path.iterdir()} <= {"source.pt", "open_clip_config.json"}


def test_report(run, save, small_state, tmp_path):
    target = tmp_path / "new" / "ours.pth"
    status, report, _ = run(save("pyslowfast_parallel", wrap="model_state", epoch=3), target)
    assert status == 0
    assert report == {
        "source": str(tmp_path / "source.pt"),
        "kind": "torch.save, entry model_state, 150 tensors",
        "layout": "ours: this project and its relatives (Open-VCLIP, FROSTER, STDD)",
        "prefix": "module.model.",
        "model": "sizes of its own: 32 px, patches of 8 px, image tower 3 x 128, text tower 2 x 64, 16 tokens of 50, "
        "joint space 32",
        "dtype": "float16 22, float32 54",
        "loaded": "74 of CLIP's 74 entries",
        "renamed": "74 entries, whose names are not OpenAI's",
        "beside CLIP": "projector_v.* 2",
        "left behind": "raw_model.* 74",
        "missing": "0",
        "unexpected": "0",
        "wrong shape": "0",
        "activation": "quick_gelu, as the source says",
        "wrote": f"{target}, layout ours, 76 entries",
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
    }
    assert_same(load_clip_state_dict(target), small_state)


def test_to_openai(run, save, small_state, tmp_path):
    status, report, _ = run(save("hf"), tmp_path / "x.safetensors", "--to", "openai", "--activation", "gelu")
    assert status == 0
    assert report["layout"] == "hf: Hugging Face CLIPModel"
    assert report["renamed"] == "93 entries, whose names are not OpenAI's"
    assert report["left behind"] == "*.position_ids 2"
    assert report["activation"] == "gelu, as --activation says"
    assert_same(load_file(tmp_path / "x.safetensors"), small_state)
    assert clip_activation(tmp_path / "x.safetensors") == "gelu"


def test_the_activation_must_be_known(run, save, tmp_path):
    source = save("open_clip_training", wrap="state_dict")
    status, report, error = run(source, tmp_path / "x.pth")
    assert status == 1
    assert error == (
        f"{source}: does not say which activation its model has; add --activation quick_gelu (OpenAI's, and models "
        "called quickgelu) or --activation gelu (most of laion's)"
    )
    assert report["unexpected"] == "0"
    assert_nothing_written(tmp_path)
    model = {"vision_cfg": {}, "text_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}), encoding="utf-8")
    status, _, error = run(source, tmp_path / "x.pth", "--activation", "quick_gelu")
    assert (status, error) == (1, f"{source}: has the activation gelu; --activation quick_gelu contradicts it")
    assert_nothing_written(tmp_path)
    assert run(source, tmp_path / "x.pth")[0] == 0
    assert clip_activation(tmp_path / "x.pth") == "gelu"


def test_a_wrong_prefix_fails(run, in_layout, small_state, tmp_path):
    source = tmp_path / "source.pt"
    torch.save({f"backbone.{name}": tensor for name, tensor in small_state.items()}, source)
    status, report, error = run(source, tmp_path / "x.pth", "--activation", "gelu")
    assert status == 1
    assert report["layout"] == "not recognised"
    assert error == (
        f"{source}: not a CLIP state dict: found 74 entries such as backbone.positional_embedding, "
        "backbone.text_projection, ...; tools/convert_weights.py with --strip-prefix backbone. reads it"
    )
    assert_nothing_written(tmp_path)
    status, report, _ = run(source, tmp_path / "x.pth", "--activation", "gelu", "--strip-prefix", "backbone.")
    assert status == 0
    assert (report["prefix"], report["layout"][:7]) == ("backbone.", "openai:")
    assert_same(load_clip_state_dict(tmp_path / "x.pth"), small_state)


def test_a_layout_that_the_source_does_not_have(run, save, tmp_path):
    status, _, error = run(save("hf"), tmp_path / "x.pth", "--from", "vifi")
    assert status == 1
    assert "no entry has a name of the layout vifi (ViFi-CLIP: image_encoder., text_encoder.)" in error


def test_missing_entries(run, save, tmp_path):
    source = save("openai", drop=("ln_post.bias", "ln_post.weight"))
    args = (source, tmp_path / "x.pth", "--activation", "quick_gelu")
    status, report, error = run(*args)
    assert (status, error) == (1, f"{source}: not converted: 2 missing; nothing was written")
    assert report["missing"] == "2: visual.ln_post.weight, visual.ln_post.bias"
    assert report["loaded"] == "72 of CLIP's 74 entries"
    assert_nothing_written(tmp_path)
    status, report, _ = run(*args, "--allow-missing", "visual.ln_post.")
    assert (status, report["missing"]) == (0, "0")
    assert report["MISSING"] == "as allowed: visual.ln_post.weight, visual.ln_post.bias"


def test_wrong_shapes_and_unexpected_entries(run, save, tmp_path):
    more = {"visual.ln_pre.bias": torch.ones(5), "visual.transformer.resblocks.0.ls_1.gamma": torch.ones(4)}
    source = save("openai", **more)
    status, report, error = run(source, tmp_path / "x.pth", "--leave", "visual.trans", "--activation", "gelu")
    assert (status, error) == (1, f"{source}: not converted: 1 wrong shape; nothing was written")
    assert report["wrong shape"] == "1: visual.ln_pre.bias is (5,) instead of (128,)"
    assert report["left behind"] == "visual.* 1"
    status, report, error = run(source, tmp_path / "x.pth", "--activation", "gelu")
    assert error == f"{source}: not converted: 1 unexpected, 1 wrong shape; nothing was written"
    assert report["unexpected"] == "1: visual.transformer.resblocks.0.ls_1.gamma"
    assert_nothing_written(tmp_path)


def test_an_existing_target(run, save, tmp_path):
    target = tmp_path / "there.pth"
    target.write_text("precious", encoding="utf-8")
    status, report, error = run(save("pyslowfast"), target)
    assert (status, report, error) == (1, {}, f"{target}: exists already; --force replaces it")
    assert target.read_text(encoding="utf-8") == "precious"
    assert run(save("pyslowfast"), target, "--force")[0] == 0


def test_wide_heads(run, small_state, tmp_path):
    source = tmp_path / "source.pt"
    torch.save({**small_state, "visual.conv1.weight": torch.zeros(1664, 3, 8, 8)}, source)
    status, _, error = run(source, tmp_path / "x.pth", "--activation", "gelu")
    assert (status, error) == (
        1,
        f"{source}: vision width 1664 is that of ViT-bigG, whose attention heads are 104 wide; only models with heads "
        "64 wide are supported",
    )


def test_resnet_without_its_pooling(run, small_state, tmp_path):
    source = tmp_path / "source.pt"
    state = {**small_state, "visual.layer1.0.conv1.weight": torch.zeros(1)}
    torch.save(state, source)
    status, _, error = run(source, tmp_path / "x.pth")
    assert status == 1
    missing = "visual.attnpool.positional_embedding is missing"
    assert error == f"{source}: not a CLIP state dict: {missing} (found {len(state)} entries)"


def test_vifi_needs_raw_clip_for_the_tokens(run, save, small_state, tmp_path):
    source, clip = save("vifi", wrap="model", epoch=3), tmp_path / "clip.pth"
    status, _, error = run(source, tmp_path / "x.pth")
    assert (status, error) == (
        1,
        f"{source}: lacks token_embedding.weight (ViFi-CLIP does not save it); --clip ViT-B/16, or whatever CLIP it "
        "was tuned from, supplies it",
    )
    torch.save(small_state, clip)
    status, report, _ = run(source, tmp_path / "x.pth", "--clip", clip)
    assert status == 0
    assert report["BORROWED"].startswith(f"token_embedding.weight from {clip}, since {source} has none")
    assert report["layout"] == "vifi: ViFi-CLIP"
    assert "LICENCE" not in report
    assert_same(load_clip_state_dict(tmp_path / "x.pth"), small_state)
    status, _, error = run(save("ost", wrap="model"), tmp_path / "y.pth", "--clip", clip)
    assert (status, error) == (1, f"--clip {clip}: {source} has a token_embedding.weight of its own")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_a_pickle_with_foreign_objects(run, in_layout, small_state, tmp_path):
    """OST's checkpoint with a settings object, and with one that would run a command; on the real command line."""
    from yacs.config import CfgNode

    source, target, mark = tmp_path / "ost.pth", tmp_path / "ours.pth", tmp_path / "mark"
    torch.save({"model": in_layout("ost"), "config": CfgNode({"A": 1}), "optimizer": Evil(mark)}, source)
    status, _, error = run(source, target)
    assert status == 1
    assert error.startswith(f"{source}: weight file is damaged or holds objects that are unsafe to load (")
    assert error.endswith(
        f"; to take its tensors out: python tools/convert_weights.py {source} ost.safetensors --allow-pickle"
    )
    command = [sys.executable, str(SCRIPT), str(source), str(target), "--allow-pickle"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kind         torch.save, read for its tensors alone, entry model, 74 tensors\n" in done.stdout
    assert not mark.exists()
    assert_same(load_clip_state_dict(target), small_state)


@pytest.fixture
def ost_file(in_layout, tmp_path):
    """A checkpoint as OST's authors published it: with settings of yacs, a set in them, and the optimiser's state."""
    from yacs.config import CfgNode

    settings = CfgNode({"TRAIN": {"EPOCHS": 10}, "BASE": [""]})
    settings.freeze()
    state = in_layout("ost")
    moments = {i: {"step": 1, "exp_avg": torch.zeros_like(t)} for i, t in enumerate(state.values())}
    more = {"lr_scheduler": {"t": 1}, "max_accuracy": 77.1, "epoch": 9, "config": settings}
    path = tmp_path / "OST_10_epochs_k400_finetuned.pth"
    torch.save({"model": state, "optimizer": {"state": moments}, **more}, path)
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        assert {"__builtin__ set", "yacs.config CfgNode"} <= {a for _, a, _ in pickletools.genops(archive.read(name))}
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_official_ost_checkpoint(run, ost_file, in_layout, small_state, tmp_path, suffix):
    ours, official = tmp_path / f"ours{suffix}", tmp_path / f"official{suffix}"
    status, report, _ = run(ost_file, ours, "--allow-pickle")
    assert status == 0
    assert report["layout"] == "ost: OST, a ViFi-CLIP with its table of tokens"
    assert report["loaded"] == "74 of CLIP's 74 entries"
    assert (report["prefix"], report["left behind"], report["missing"]) == ("module.", "nothing", "0")
    assert report["LICENCE"] == (
        "CC-BY-NC-SA-4.0, non-commercial: that of the weights that OST's authors published; recorded, and passed on "
        "to what is made of it"
    )
    assert_same(load_clip_state_dict(ours), small_state)
    status, report, _ = run(ours, official, "--to", "ost")
    assert (status, report["left behind"]) == (0, "nothing")
    assert_same(read_weight_file(official).tensors(), in_layout("ost"))
    assert run(ours, tmp_path / f"openai{suffix}", "--to", "openai")[0] == 0
    for name in ("ours", "official", "openai"):
        assert weights_license(tmp_path / f"{name}{suffix}") == "CC-BY-NC-SA-4.0"


def test_the_licence_is_told_behind_a_prefix(run, in_layout, tmp_path):
    state = {f"net.{name.removeprefix('module.')}": tensor for name, tensor in in_layout("ost").items()}
    torch.save({**state, "visual.proj": torch.ones(1)}, tmp_path / "x.pth")
    status, report, _ = run(
        tmp_path / "x.pth", tmp_path / "y.pth", "--strip-prefix", "net.", "--activation", "quick_gelu"
    )
    assert (status, report["left behind"]) == (0, "visual.* 1")
    assert report["LICENCE"].startswith("CC-BY-NC-SA-4.0, non-commercial: that of the weights that OST's")


def test_own_weights_in_the_layout_of_ost_have_no_licence(run, small_state, tmp_path):
    torch.save({"model_state": {f"model.{name}": t for name, t in small_state.items()}}, tmp_path / "own.pth")
    for source, target, to in (("own", "x", "ost"), ("x", "y", "ours")):
        status, report, _ = run(tmp_path / f"{source}.pth", tmp_path / f"{target}.pth", "--to", to)
        assert (status, "LICENCE" in report) == (0, False)


def test_vifi_with_learned_prompts(run, save, in_layout, small_state, vifi_prompted_state, tmp_path):
    source, clip = save("vifi_prompted", wrap="model", epoch=9), tmp_path / "clip.pth"
    torch.save(small_state, clip)
    status, report, _ = run(source, tmp_path / "ours.pth", "--clip", clip)
    assert status == 0
    assert (report["loaded"], report["adapters"]) == ("74 of CLIP's 74 entries", "*.VPT 1, *.VPT_shallow 3")
    assert (report["beside CLIP"], report["left behind"]) == ("prompt_learner.* 1", "prompt_learner.* 2")
    assert "LICENCE" not in report
    assert_same(torch.load(tmp_path / "ours.pth", weights_only=True)["model_state"], vifi_prompted_state)
    status, report, _ = run(tmp_path / "ours.pth", tmp_path / "back.pth", "--to", "vifi")
    assert (status, report["left behind"]) == (0, "token_embedding.* 1")
    assert report["wrote"].endswith("back.pth, layout vifi, 78 entries")
    source = save("vifi_prompted", wrap="model", drop=("image_encoder.transformer.resblocks.1.VPT_shallow",))
    status, report, error = run(source, tmp_path / "x.pth", "--clip", clip)
    assert (status, error) == (1, f"{source}: not converted: 1 missing; nothing was written")
    assert report["missing"] == "1: visual.transformer.resblocks.1.VPT_shallow"


def test_wrong_prefixes_of_towers_fail(tmp_path, in_layout):
    """On the real command line: one line, another status than 0, and no file."""
    source = tmp_path / "source.pt"
    for wrong, found in (
        ({"image_encoder.": "visual_encoder."}, "found 44 entries such as visual_encoder."),
        ({"image_encoder.": "visual_encoder.", "text_encoder.": "encoder."}, "found 74 entries such as encoder."),
    ):
        state = {}
        for name, tensor in in_layout("ost").items():
            for right, other in wrong.items():
                name = name.replace(right, other)
            state[name] = tensor
        torch.save({"model": state}, source)
        command = [sys.executable, str(SCRIPT), str(source), str(tmp_path / "x.pth")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"error: {source}: not a CLIP state dict: {found}")
        assert "; known are " in done.stderr
        assert_nothing_written(tmp_path)


def make_foreign(module, name):
    """A class of a package that is not installed, for pickling only."""
    import types

    package, _, _ = module.partition(".")
    for part in (package, module):
        sys.modules[part] = types.ModuleType(part)
    kind = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, kind)
    return kind


@pytest.fixture
def tc_clip_file(in_layout, tmp_path):
    """An official checkpoint, with the settings of a package that is not there, and what would run if it were asked."""
    before = set(sys.modules)
    settings = make_foreign("omegaconf.dictconfig", "DictConfig")()
    settings.content = {"trainer_name": "TCCLIP", "evil": Evil(tmp_path / "mark")}
    path = tmp_path / "zero_shot_k400_tc_clip.pth"
    more = {"optimizer": {"state": {0: torch.ones(3)}}, "lr_scheduler": {"t": 1}, "max_accuracy": 81.5, "epoch": 9}
    torch.save({"model": in_layout("tc_clip"), **more, "config": settings}, path)
    for name in set(sys.modules) - before:
        del sys.modules[name]
    return path


def test_an_official_tc_clip_checkpoint(run, tc_clip_file, small_state, tc_clip_state, tmp_path):
    source, clip, target = tc_clip_file, tmp_path / "clip.pth", tmp_path / "ours.pth"
    torch.save(small_state, clip)
    assert run(source, target, "--clip", clip)[2].startswith(f"{source}: weight file is damaged or holds objects")
    status, _, error = run(source, target, "--allow-pickle")
    assert (status, error.split(";")[0]) == (1, f"{source}: lacks token_embedding.weight (TC-CLIP does not save it)")
    status, report, _ = run(source, target, "--allow-pickle", "--clip", clip)
    assert status == 0
    assert not (tmp_path / "mark").exists()
    assert "omegaconf" not in sys.modules
    assert report["layout"] == "tc_clip: TC-CLIP"
    assert report["loaded"] == "74 of CLIP's 74 entries"
    assert report["adapters"] == "*.local_global_bias_table 2"
    assert report["beside CLIP"] == "prompt_generation_layer.* 14, prompt_learner.* 1"
    assert report["left behind"] == "prompt_learner.* 2"
    assert report["LICENCE"] == (
        "CC-BY-NC-4.0, non-commercial: that of the weights that TC-CLIP's authors published; recorded, and passed on "
        "to what is made of it"
    )
    assert_same(torch.load(target, weights_only=True)["model_state"], tc_clip_state)
    assert weights_license(target) == "CC-BY-NC-4.0"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_licence_goes_along(run, tc_clip_file, small_state, in_layout, tmp_path, suffix):
    torch.save(small_state, tmp_path / "clip.pth")
    ours, official = tmp_path / f"ours{suffix}", tmp_path / f"official{suffix}"
    assert run(tc_clip_file, ours, "--allow-pickle", "--clip", tmp_path / "clip.pth")[0] == 0
    status, report, _ = run(ours, official, "--to", "tc_clip")
    assert (status, report["left behind"]) == (0, "token_embedding.* 1")
    assert report["LICENCE"] == "CC-BY-NC-4.0, as the source says; recorded, and passed on to what is made of it"
    expected = {k: t for k, t in in_layout("tc_clip").items() if not k.endswith(("token_prefix", "token_suffix"))}
    assert_same(read_weight_file(official).tensors(), expected)
    leave = ("--leave", "prompt_learner.*", "--leave", "prompt_generation_layer.*")
    leave += ("--leave", "*.local_global_bias_table")
    assert run(ours, tmp_path / f"openai{suffix}", "--to", "openai", *leave)[0] == 0
    for name in ("ours", "official", "openai"):
        assert weights_license(tmp_path / f"{name}{suffix}") == "CC-BY-NC-4.0"
    again = run(official, tmp_path / "again.pth", "--clip", tmp_path / "clip.pth")[1]
    assert again["LICENCE"].startswith("CC-BY-NC-4.0, as the source says")


def test_own_weights_in_the_layout_of_tc_clip_have_no_licence(run, tc_clip_state, small_state, tmp_path):
    torch.save({"model_state": tc_clip_state}, tmp_path / "own.pth")
    torch.save(small_state, tmp_path / "clip.pth")
    status, report, _ = run(tmp_path / "own.pth", tmp_path / "x.pth", "--to", "tc_clip")
    assert (status, "LICENCE" in report) == (0, False)
    status, report, _ = run(tmp_path / "x.pth", tmp_path / "y.pth", "--clip", tmp_path / "clip.pth")
    assert (status, "LICENCE" in report) == (0, False)


def test_a_licence_by_hand(run, save, tmp_path):
    """FROSTER's layout is that of others, so its files do not tell."""
    status, report, _ = run(save("pyslowfast"), tmp_path / "x.pth", "--license", "CC-BY-NC-SA-4.0")
    assert status == 0
    assert report["LICENCE"].startswith("CC-BY-NC-SA-4.0, as --license says")
    assert weights_license(tmp_path / "x.pth") == "CC-BY-NC-SA-4.0"
    status, _, error = run(tmp_path / "x.pth", tmp_path / "y.pth", "--license", "MIT")
    assert (status, error) == (
        1,
        f"{tmp_path / 'x.pth'}: has the licence CC-BY-NC-SA-4.0; --license MIT contradicts it",
    )


def test_published_names_lead_to_the_cache(run, tmp_path, monkeypatch):
    monkeypatch.setattr("slowfast.models.clip.weights.DEFAULT_CACHE", tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("offline")))
    status, _, error = run("ViT-B/32", tmp_path / "x.pth")
    assert status == 1
    assert error.startswith("cannot download ViT-B/32 from https://")
    assert run("ViT-B/99", tmp_path / "x.pth")[2].startswith("CLIP weights 'ViT-B/99': no such file")


@pytest.mark.parametrize("args", [[], ["a"], ["a", "b.pth", "--to", "hf"], ["a", "b.pth", "--leave", ""]])
def test_wrong_requests_end_with_2(tool, capsys, args):
    with pytest.raises(SystemExit) as caught:
        tool.main(args)
    assert caught.value.code == 2


def test_choices_are_those_of_the_package(tool):
    from slowfast.models.clip.convert import TargetLayout
    from slowfast.models.clip.layers import ACTIVATIONS
    from slowfast.models.clip.layouts import LAYOUTS

    assert set(tool.LAYOUTS) == {"auto", *LAYOUTS}
    assert set(tool.ACTIVATIONS) == set(ACTIVATIONS)
    assert get_args(TargetLayout) == tool.TARGETS
