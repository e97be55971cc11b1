"""Averages against an oracle that stacks everything in fp64."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slowfast.engine import average as av
from slowfast.engine.average_run import average_run
from slowfast.engine.checkpoint import read_checkpoint
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.weights import random_clip_state_dict

ROOT = Path(__file__).resolve().parents[3]
SHAPES = {"model.w": (3, 4), "model.b": (4,), "model.logit_scale": (), "adapter.w": (2, 2)}


def state(seed, *, half=False):
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    tensors["model.count"] = torch.tensor(seed)
    tensors["raw_model.w"] = torch.zeros(3, 4)
    return {k: v.half() if half and v.is_floating_point() else v for k, v in tensors.items()}


def write(folder, epochs, prefix=""):
    for epoch in epochs:
        torch.save(
            {"model_state": state(epoch), "epoch": epoch - 1}, folder / f"{prefix}checkpoint_epoch_{epoch:05d}.pyth"
        )


def clip(seed=100):
    """Raw CLIP in half precision, without adapters."""
    return {k.removeprefix("model."): v for k, v in state(seed, half=True).items() if k.startswith("model.")}


def published_weights(method, epochs, start, end):
    """The formulas as one writes them down, over a full window."""
    n = end - start + 1
    if method == "swa":
        return [1 / n] * n
    if method == "gwa":
        raw = [math.exp(-((e - 15) ** 2) / (2 * 10**2)) / (10 * math.sqrt(2 * math.pi)) for e in epochs]
    else:
        raw = [1 / (math.pi * math.sqrt(x * (1 - x))) for x in ((j + 0.5) / n for j in range(n))]
    return [value / sum(raw) for value in raw]


def oracle(method, states, start, end):
    names = [name for name in states[0] if states[0][name].is_floating_point() and not name.startswith("raw_model.")]
    stacked = {name: torch.stack([s[name].double() for s in states]) for name in names}
    if method == "ewa":
        result = {}
        for name, values in stacked.items():
            mean = values[0]
            for value in values[1:]:
                mean = 0.9 * mean + 0.1 * value
            result[name] = mean
        return result
    weights = torch.tensor(published_weights(method, range(start, end + 1), start, end), dtype=torch.double)
    return {name: torch.tensordot(weights, values, dims=1) for name, values in stacked.items()}


def close(found, expected):
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", av.METHODS)
def test_full_window_is_the_published_formula(tmp_path, method):
    write(tmp_path, range(1, 9))
    config = av.AverageConfig(start=2, end=7)
    result = av.average(av.find_members(tmp_path, config), [method], config)[method]
    close(result.state, oracle(method, [state(epoch) for epoch in range(2, 8)], 2, 7))
    assert sum(result.weights.values()) == pytest.approx(1.0)
    assert set(result.state) == {*SHAPES, "model.count"}
    assert result.state["model.count"] == 7


@pytest.mark.parametrize("method", av.METHODS)
def test_raw_clip_is_epoch_zero_and_adapters_are_averaged_without_it(tmp_path, method):
    write(tmp_path, range(1, 6))
    config = av.AverageConfig(start=0, end=5)
    members = [av.clip_member(clip, name="clip.pt"), *av.find_members(tmp_path, config)]
    result = av.average(members, [method], config)[method]
    whole = [{**state(100, half=True)}, *(state(epoch) for epoch in range(1, 6))]
    expected = oracle(method, whole, 0, 5)
    if method == "ewa":
        rest = oracle("ewa", whole[1:], 1, 5)["adapter.w"]
    else:
        weights = published_weights(method, range(6), 0, 5)[1:]
        rest = sum(w / sum(weights) * s["adapter.w"].double() for w, s in zip(weights, whole[1:], strict=True))
    close(result.state, {**expected, "adapter.w": rest})


def test_weights_belong_to_epochs_when_some_are_missing():
    config = av.AverageConfig(start=2, end=22)
    full = av.epoch_weights("gwa", list(range(2, 23)), config)
    part = av.epoch_weights("gwa", [2, 15, 22], config)
    assert part[15] / part[2] == pytest.approx(full[15] / full[2])
    assert sum(part.values()) == pytest.approx(1.0)
    beta = av.epoch_weights("bwa", [2, 12], config)
    whole = av.epoch_weights("bwa", list(range(2, 23)), config)
    assert beta[2] / beta[12] == pytest.approx(whole[2] / whole[12])


def test_one_pass_serves_all_methods_and_holds_one_checkpoint(tmp_path):
    live, most, reads = 0, 0, 0

    class Counted(dict):
        def __init__(self, content):
            nonlocal live, most, reads
            super().__init__(content)
            live, reads = live + 1, reads + 1
            most = max(most, live)

        def __del__(self):
            nonlocal live
            live -= 1

    config = av.AverageConfig(start=1, end=4)
    members = [av.EpochWeights(epoch=e, name=f"e{e}", load=lambda e=e: Counted(state(e))) for e in range(1, 5)]
    results = av.average(members, av.METHODS, config)
    assert (most, reads) == (1, 4)
    for method in av.METHODS:
        close(results[method].state, oracle(method, [state(e) for e in range(1, 5)], 1, 4))


def test_missing_epochs_are_named(tmp_path):
    write(tmp_path, [1, 2, 4, 6])
    config = av.AverageConfig(start=0, end=5)
    members = av.find_members(tmp_path, config)
    assert [member.epoch for member in members] == [1, 2, 4]
    assert av.missing_epochs(members, config) == [0, 3, 5]


def members_of(*states):
    return [av.EpochWeights(epoch=i, name=f"e{i}.pyth", load=lambda s=s: s) for i, s in enumerate(states, start=1)]


def test_keys_and_shapes_must_agree():
    config = av.AverageConfig(start=1, end=2)
    less, more, other = state(2), {**state(2), "x": torch.ones(1)}, {**state(2), "model.b": torch.ones(5)}
    del less["model.w"]
    for wrong, text in [
        (less, r"lacks 1 weights \(model\.w\)"),
        (more, r"has besides the others' 1 weights \(x\)"),
        (other, r"has in another shape 1 weights \(model\.b\)"),
    ]:
        with pytest.raises(ValueError, match=rf"^e2\.pyth: .*{text}"):
            av.average(members_of(state(1), wrong), ["swa"], config)


def test_raw_clip_of_another_size():
    raw = {"w": torch.ones(9)}
    members = [av.clip_member(lambda: raw, name="clip.pt"), *members_of(state(1))]
    with pytest.raises(ValueError, match=r"e1\.pyth: .*another shape 1 weights \(model\.w\)"):
        av.average(members, ["swa"], av.AverageConfig(start=0, end=1))
    with pytest.raises(ValueError, match="at least one checkpoint"):
        av.average(members[:1], ["swa"], av.AverageConfig(start=0, end=1))


def test_find_members_errors(tmp_path):
    config = av.AverageConfig(start=2, end=3)
    with pytest.raises(ValueError, match="no such folder"):
        av.find_members(tmp_path / "no", config)
    write(tmp_path, [1])
    with pytest.raises(ValueError, match=r"no file '\*_epoch_\*\.pyth' of epochs 2\.\.3"):
        av.find_members(tmp_path, config)
    write(tmp_path, [2])
    write(tmp_path, [2], prefix="ssl_")
    with pytest.raises(ValueError, match="are of one epoch"):
        av.find_members(tmp_path, config)
    (found,) = av.find_members(tmp_path, config, pattern="ssl_*")
    assert found.name == "ssl_checkpoint_epoch_00002.pyth"


@pytest.mark.parametrize(
    "settings", [{"start": 3, "end": 2}, {"start": -1, "end": 2}, {"start": 0, "end": 1, "gwa_std": 0}]
)
def test_bad_config(settings):
    with pytest.raises(ValueError, match=r"window|std"):
        av.AverageConfig(**settings)


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown value 'fwa'"):
        av.epoch_weights("fwa", [1], av.AverageConfig(start=1, end=1))


def tool(*args, **kwargs):
    command = [sys.executable, str(ROOT / "weight_average_tool.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **kwargs)


def test_tool_end_to_end_with_raw_clip(tmp_path):
    sizes = ClipSizes(
        image_size=16, patch_size=8, vision_width=64, vision_layers=1, embed_dim=8,
        text_width=64, text_layers=1, context_length=77, vocab_size=50,
    )  # fmt: skip
    states = [random_clip_state_dict(sizes, seed=seed) for seed in range(3)]
    torch.save({name: value.half() for name, value in states[0].items()}, tmp_path / "clip.pt")
    for epoch in (1, 2):
        tuned = {f"model.{name}": value for name, value in states[epoch].items()}
        torch.save({"model_state": tuned}, tmp_path / f"checkpoint_epoch_{epoch:05d}.pyth")
    out = tmp_path / "out"
    run = tool("--source-dir", tmp_path, "--output-dir", out, "--start", 0, "--end", 3, "--clip", tmp_path / "clip.pt")
    assert run.returncode == 0, run.stderr
    assert "missing epochs: 3" in run.stdout
    assert "clip.pt" in run.stdout
    assert sorted(path.name for path in out.iterdir()) == [f"{m}_0_3.pth" for m in ("bwa", "ewa", "gwa", "swa")]
    mean = torch.load(out / "swa_0_3.pth", weights_only=True)
    assert set(mean) == {"model_state", "clip_activation"}
    assert mean["clip_activation"] == "quick_gelu"
    expected = (states[0]["visual.proj"].half().float() + states[1]["visual.proj"] + states[2]["visual.proj"]) / 3
    torch.testing.assert_close(mean["model_state"]["model.visual.proj"], expected)


def test_the_licence_of_an_average(tmp_path):
    sizes = ClipSizes(
        image_size=16, patch_size=8, vision_width=64, vision_layers=1, embed_dim=8,
        text_width=64, text_layers=1, context_length=77, vocab_size=50,
    )  # fmt: skip
    tuned = {f"model.{name}": value for name, value in random_clip_state_dict(sizes, seed=1).items()}
    torch.save({"model_state": tuned}, tmp_path / "checkpoint_epoch_00001.pyth")
    torch.save({"model_state": tuned, "license": "CC-BY-NC-4.0"}, tmp_path / "checkpoint_epoch_00002.pyth")
    report = average_run(tmp_path, tmp_path / "out", methods=["swa"], config=av.AverageConfig(start=1, end=2))
    assert read_checkpoint(report.paths["swa"]).license == "CC-BY-NC-4.0"
    torch.save({"model_state": tuned, "license": "X"}, tmp_path / "clip.pt")
    report = average_run(
        tmp_path,
        tmp_path / "out",
        methods=["swa"],
        config=av.AverageConfig(start=0, end=2),
        clip=str(tmp_path / "clip.pt"),
    )
    assert read_checkpoint(report.paths["swa"]).license == "CC-BY-NC-4.0 AND X"


def test_tool_exit_codes(tmp_path):
    missing = tool("--source-dir", tmp_path / "no", "--output-dir", tmp_path)
    assert missing.returncode == 1
    assert "no such folder" in missing.stderr
    assert "Traceback" not in missing.stderr
    write(tmp_path, [1])
    (tmp_path / "file").touch()
    window = ("--start", 1, "--end", 1)
    unwritable = tool("--source-dir", tmp_path, "--output-dir", tmp_path / "file" / "x", *window, "--methods", "swa")
    assert unwritable.returncode == 1
    assert tool("--source-dir", tmp_path, "--output-dir", tmp_path, *window, "--clip", "c").returncode == 2
    assert tool("--methods", "fwa").returncode == 2
    assert tool("--source-dir", tmp_path, "--output-dir", tmp_path, "--start", 3, "--end", 1).returncode == 2


def test_tool_help_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['x', '--help']; import runpy;"
        "runpy.run_path('weight_average_tool.py', run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    assert "--source-dir" in run.stdout


def test_patching_mixes_in_fp32_and_copies_the_rest():
    clip = {"a": torch.randn(3, generator=torch.Generator().manual_seed(1)).half(), "b": torch.ones(2)}
    state = {"model.a": torch.full((3,), 0.3), "model.b": torch.zeros(2), "projector_v.w": torch.ones(1)}
    patched = av.patch_state(clip, state, ratio=0.7)
    assert torch.equal(patched["model.a"], clip["a"].float() * 0.7 + state["model.a"] * (1 - 0.7))
    assert torch.equal(patched["model.b"], torch.full((2,), 0.7))
    assert patched["projector_v.w"] is state["projector_v.w"]
    assert torch.equal(state["model.b"], torch.zeros(2))


def test_patching_mixes_every_weight_of_clip(tiny_state):
    """OST's share of 0.2 for both towers, the table of tokens and the logarithm of the scale."""
    raw = {**tiny_state, "logit_scale": torch.tensor(4.6052)}
    tuned = {f"model.{name}": tensor + 1 for name, tensor in raw.items()} | {"model.logit_scale": torch.tensor(4.7)}
    patched = av.patch_state(raw, tuned, ratio=0.2)
    assert patched.keys() == tuned.keys()
    assert {"model.logit_scale", "model.token_embedding.weight", "model.visual.positional_embedding"} < patched.keys()
    assert patched["model.logit_scale"].item() == pytest.approx(4.68104, abs=1e-6)
    for name, tensor in raw.items():
        expected = 0.2 * tensor.double() + 0.8 * tuned[f"model.{name}"].double()
        torch.testing.assert_close(patched[f"model.{name}"].double(), expected, atol=1e-6, rtol=1e-6)


def test_positions_of_every_frame_are_mixed_with_those_of_clip():
    name = "visual.positional_embedding"
    tuned = {f"model.{name}": torch.arange(12.0).view(2, 3, 2)}
    found = av.patch_state({name: torch.ones(3, 2)}, tuned, ratio=0.5)[f"model.{name}"]
    assert torch.equal(found, (torch.arange(12.0).view(2, 3, 2) + 1) / 2)


@pytest.mark.parametrize("method", av.METHODS)
def test_raw_clip_as_epoch_zero_has_its_positions_in_every_frame(method):
    name, config = "visual.positional_embedding", av.AverageConfig(start=0, end=1)
    tuned, raw = torch.arange(12.0).view(2, 3, 2), torch.ones(3, 2).half()
    members = [
        av.clip_member(lambda: {name: raw}, name="clip"),
        av.EpochWeights(epoch=1, name="first", load=lambda: {f"model.{name}": tuned, "prompt_learner.ctx": tuned[0]}),
    ]
    found = av.average(members, [method], config)[method]
    weights = found.weights
    torch.testing.assert_close(found.state[f"model.{name}"], weights[0] * raw.float() + weights[1] * tuned)
    torch.testing.assert_close(found.state["prompt_learner.ctx"], tuned[0])
    with pytest.raises(ValueError, match="in another shape 1 weights"):
        av.average([av.clip_member(lambda: {name: torch.ones(4, 2)}, name="clip"), members[1]], [method], config)


def test_patching_errors():
    with pytest.raises(ValueError, match="lacks 1 of CLIP's weights"):
        av.patch_state({"a": torch.ones(1)}, {"model.b": torch.ones(1)}, ratio=0.5)
    with pytest.raises(ValueError, match=r"a is \(2,\), in CLIP \(1,\)"):
        av.patch_state({"a": torch.ones(1)}, {"model.a": torch.ones(2)}, ratio=0.5)
    with pytest.raises(ValueError, match=r"TEST\.PATCHING_RATIO: 1\.5"):
        av.patch_state({}, {}, ratio=1.5)
