import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slowfast.engine import checkpoint as ck
from slowfast.engine.checkpoint_files import checkpoint_path
from slowfast.engine.optim import OptimizerConfig, make_optimizer
from slowfast.engine.progress import Progress
from slowfast.models.build import build_clip
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.weights import random_clip_state_dict


class Tiny(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.model = nn.Linear(width, 2)
        self.projector_v = nn.Linear(2, 2, bias=False)
        self.raw_model = nn.Linear(width, 2)


def tiny(seed=0, width=3):
    torch.manual_seed(seed)
    return Tiny(width)


def optimizer_of(module):
    config = OptimizerConfig(method="adamw", base_lr=0.1, weight_decay=0.1, zero_wd_1d=True)
    return make_optimizer(module.named_parameters(), config)


def step(module, optimizer, seed):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    module.projector_v(module.model(x)).pow(2).sum().backward()
    optimizer.step()


def save(folder, module, optimizer=None, epoch=0, **more):
    state = optimizer.state_dict() if optimizer else None
    path = checkpoint_path(folder, epoch)
    ck.save_checkpoint(
        path,
        progress=Progress(epoch=epoch + 1),
        model_state=module.state_dict(),
        optimizer_state=state,
        cfg_text="A: 1\n",
        **more,
    )
    return path


def test_content_is_pyslowfast_s_and_loads_safely(tmp_path):
    module = tiny()
    extra = {"clip_sizes": {"patch_size": 16}, "provenance": {"torch": "x"}}
    path = save(tmp_path, module, optimizer_of(module), epoch=4, scaler_state={"scale": 2.0}, extra=extra)
    content = torch.load(path, weights_only=True)
    assert content["epoch"] == 4
    assert content["cfg"] == "A: 1\n"
    assert content["scaler_state"] == {"scale": 2.0}
    assert set(content["model_state"]) == {"model.weight", "model.bias", "projector_v.weight"}
    assert ck.read_checkpoint(path).extra == extra
    assert "scaler_state" not in torch.load(save(tmp_path, module), weights_only=True)


def test_only_rank_zero_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(ck, "is_master", lambda: False)
    assert not save(tmp_path, tiny()).exists()
    assert not (tmp_path / "checkpoints").exists()


def test_progress_travels(tmp_path):
    progress = Progress(epoch=2, videos=12, report={"rate": 0.5}, bad_videos={"a.mp4": "a.mp4: broken"}, nonfinite=1)
    path = tmp_path / "x.pyth"
    ck.save_checkpoint(path, progress=progress, model_state=tiny().state_dict(), cfg_text="", inputs_sha256="ab")
    read = ck.read_checkpoint(path)
    assert (read.progress, read.epoch, read.inputs_sha256, read.is_ours) == (progress, 1, "ab", True)
    assert ck.resume(read, tiny(), allow_missing=("raw_model.",)) == progress


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        ([1], "progress is not one of a training"),
        ({"epochs": 1}, "progress is not one of a training"),
        ({"epoch": "1"}, r"progress counts \('1', 0, 0\), expected integers >= 0"),
        ({"videos": -4}, r"progress counts \(0, -4, 0\), expected integers >= 0"),
        ({"bad_videos": ["a"]}, "progress is not one of a training"),
    ],
)
def test_damaged_progress(tmp_path, progress, message):
    path = tmp_path / "x.pyth"
    torch.save({"epoch": 0, "progress": progress, "model_state": {"model.weight": torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match=f"x.pyth: not a checkpoint: {message}$"):
        ck.read_checkpoint(path)


def test_files_of_other_projects_resume_at_their_epoch(tmp_path):
    path = tmp_path / "x.pyth"
    torch.save({"epoch": 4, "model_state": {"model.weight": torch.zeros(1)}}, path)
    read = ck.read_checkpoint(path)
    assert (read.progress, read.is_ours) == (Progress(epoch=5), False)


def test_resume_is_bit_equal(tmp_path):
    module = tiny()
    optimizer = optimizer_of(module)
    step(module, optimizer, 1)
    path = save(tmp_path, module, optimizer, epoch=6)
    step(module, optimizer, 2)

    other = tiny(seed=9)
    other_optimizer = optimizer_of(other)
    start = ck.resume(ck.read_checkpoint(path), other, optimizer=other_optimizer, allow_missing=("raw_model.",))
    step(other, other_optimizer, 2)
    assert start == Progress(epoch=7)
    for name, value in other.state_dict().items():
        if not name.startswith("raw_model."):
            assert torch.equal(value, module.state_dict()[name])


def test_epoch_reset_takes_only_weights(tmp_path):
    module = tiny()
    optimizer = optimizer_of(module)
    step(module, optimizer, 1)
    read = ck.read_checkpoint(save(tmp_path, module, optimizer, epoch=6))
    fresh = tiny(seed=3)
    fresh_optimizer = optimizer_of(fresh)
    kwargs = {"optimizer": fresh_optimizer, "allow_missing": ("raw_model.",)}
    assert ck.resume(read, fresh, epoch_reset=True, **kwargs) == Progress()
    assert not fresh_optimizer.state
    assert torch.equal(fresh.model.weight, module.model.weight)


def test_machine_flags_of_the_optimizer_stay_those_of_this_machine(tmp_path):
    module = tiny()
    optimizer = optimizer_of(module)
    step(module, optimizer, 1)
    state = optimizer.state_dict()
    state["param_groups"] = [{**group, "fused": None, "foreach": True} for group in state["param_groups"]]
    path = checkpoint_path(tmp_path, 0)
    ck.save_checkpoint(
        path, progress=Progress(epoch=1), model_state=module.state_dict(), optimizer_state=state, cfg_text=""
    )
    ck.resume(ck.read_checkpoint(path), module, optimizer=optimizer, allow_missing=("raw_model.",))
    assert [(g["fused"], g["foreach"]) for g in optimizer.param_groups] == [(True, None)] * 2


def test_resume_with_scaler(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    path = save(tmp_path, tiny(), epoch=0, scaler_state=scaler.state_dict())
    other = torch.amp.GradScaler("cpu")
    ck.resume(ck.read_checkpoint(path), tiny(), scaler=other, allow_missing=("raw_model.",))
    assert other.get_scale() == 8.0


def test_optimizer_of_another_model(tmp_path):
    module = tiny()
    read = ck.read_checkpoint(save(tmp_path, module, optimizer_of(module)))
    module.raw_model.requires_grad_(False)
    kwargs = {"optimizer": optimizer_of(module), "allow_missing": ("raw_model.",)}
    with pytest.raises(ValueError, match=r"epoch_00001\.pyth: optimizer_state has groups of \[3, 2\].*has \[2, 1\]"):
        ck.resume(read, module, **kwargs)


def test_epoch_without_optimizer(tmp_path):
    module = tiny()
    read = ck.read_checkpoint(save(tmp_path, module))
    kwargs = {"optimizer": optimizer_of(module), "allow_missing": ("raw_model.",)}
    with pytest.raises(ValueError, match="no optimizer_state"):
        ck.resume(read, module, **kwargs)


def test_averaged_weights_start_at_epoch_zero(tmp_path):
    module = tiny()
    torch.save({"model_state": module.state_dict()}, tmp_path / "swa.pth")
    read = ck.read_checkpoint(tmp_path / "swa.pth")
    assert ck.resume(read, tiny(seed=2), optimizer=optimizer_of(module)) == Progress()


def test_whitelists_and_module_prefix():
    module, state = tiny(), {f"module.{k}": v for k, v in tiny(seed=5).state_dict().items()}
    del state["module.projector_v.weight"]
    state["module.old.x"] = torch.zeros(1)
    report = ck.load_model_state(
        module, state, source="f.pyth", allow_missing=("projector_v.",), allow_unexpected=("old.",)
    )
    assert report == ck.LoadReport(missing=("projector_v.weight",), unused=("old.x",))
    assert torch.equal(module.model.weight, tiny(seed=5).model.weight)


def test_strict_by_default_and_nothing_is_loaded_on_error():
    module = tiny()
    before = module.model.bias.clone()
    state = tiny(seed=5, width=4).state_dict()
    del state["projector_v.weight"]
    state["head.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"^f\.pyth: weights do not fit") as caught:
        ck.load_model_state(module, state, source="f.pyth")
    message = str(caught.value)
    assert "1 missing (projector_v.weight)" in message
    assert "1 unexpected (head.weight)" in message
    assert "2 of another shape (model.weight is (2, 4) instead of (2, 3)" in message
    assert "\n" not in message
    assert torch.equal(module.model.bias, before)


def test_teacher_entries_of_published_checkpoints_are_passed_over():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(3, 2)

    state = {k: v for k, v in tiny().state_dict().items() if not k.startswith("projector_v")}
    report = ck.load_model_state(Student(), state, source="f")
    assert report.unused == ("raw_model.weight", "raw_model.bias")


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model_state": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_bare_clip_gets_the_prefix(tmp_path, wrap):
    clip = {"text_projection": torch.ones(2, 2), "visual.conv1.weight": torch.ones(1)}
    torch.save(wrap(clip), tmp_path / "clip.pt")
    assert set(ck.read_checkpoint(tmp_path / "clip.pt").model_state) == {f"model.{name}" for name in clip}


def test_size_entries_of_openai_archives_are_dropped(tmp_path):
    torch.save({"text_projection": torch.ones(2), "vocab_size": torch.tensor(7)}, tmp_path / "clip.pt")
    assert set(ck.read_checkpoint(tmp_path / "clip.pt").model_state) == {"model.text_projection"}


def test_bare_state_dict_of_a_method(tmp_path):
    state = {"model.text_projection": torch.ones(2), "projector_v.0.weight": torch.ones(1)}
    torch.save(state, tmp_path / "m.pt")
    assert set(ck.read_checkpoint(tmp_path / "m.pt").model_state) == set(state)


def small_clip(seed=0):
    sizes = ClipSizes(
        image_size=16, patch_size=8, vision_width=64, vision_layers=1, embed_dim=8,
        text_width=64, text_layers=1, context_length=8, vocab_size=20,
    )  # fmt: skip
    return random_clip_state_dict(sizes, seed=seed)


def test_safetensors(tmp_path):
    state = {f"model.{name}": tensor for name, tensor in small_clip().items()} | {"projector_v.0.weight": torch.ones(2)}
    save_file(state, tmp_path / "x.safetensors", metadata={"clip_activation": "gelu"})
    read = ck.read_checkpoint(tmp_path / "x.safetensors")
    assert set(read.model_state) == set(state)
    assert all(torch.equal(read.model_state[name], tensor) for name, tensor in state.items())
    assert (read.epoch, read.optimizer_state, read.activation) == (None, None, "gelu")
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "y.safetensors")
    with pytest.raises(
        ValueError, match=r"y\.safetensors: not a checkpoint: found 1 entries such as fc\.weight; known are names that"
    ):
        ck.read_checkpoint(tmp_path / "y.safetensors")


@pytest.mark.parametrize("wrap", ["model", "state_dict", None])
def test_foreign_clips_get_our_names(tmp_path, wrap):
    """OST's names; its epoch and optimiser are not ours to resume from."""
    ours, theirs = small_clip(), {}
    for name, tensor in ours.items():
        short = f"image_encoder.{name[7:]}" if name.startswith("visual.") else f"text_encoder.{name}"
        theirs[f"module.{'logit_scale' if name == 'logit_scale' else short}"] = tensor
    theirs["module.prompt_learner.token_prefix"] = torch.ones(2)
    torch.save({wrap: theirs, "epoch": 3, "optimizer": {}} if wrap else theirs, tmp_path / "ost.pth")
    read = ck.read_checkpoint(tmp_path / "ost.pth")
    assert set(read.model_state) == {f"model.{name}" for name in ours}
    assert all(torch.equal(read.model_state[f"model.{name}"], tensor) for name, tensor in ours.items())
    assert (read.epoch, read.extra, read.activation) == (None, {}, "quick_gelu")


def test_learned_prompts_of_vifi_get_our_names(tmp_path):
    """With a table of tokens, which a file of official code lacks: then the converter is the way."""
    theirs = {f"module.text_encoder.{name}": t for name, t in small_clip().items() if not name.startswith("visual.")}
    theirs["module.logit_scale"] = theirs.pop("module.text_encoder.logit_scale")
    prompts = {
        "prompt_learner.ctx": "prompt_learner.ctx",
        "image_encoder.VPT": "model.visual.VPT",
        "image_encoder.transformer.resblocks.1.VPT_shallow": "model.visual.transformer.resblocks.1.VPT_shallow",
        "text_encoder.transformer.resblocks.1.VPT_shallow": "model.transformer.resblocks.1.VPT_shallow",
    }
    torch.save({"model": theirs | {f"module.{name}": torch.ones(2) for name in prompts}}, tmp_path / "vifi.pth")
    assert set(prompts.values()) < set(ck.read_checkpoint(tmp_path / "vifi.pth").model_state)


def test_a_licence_of_published_weights_is_that_of_their_layout(tmp_path):
    theirs = {"module.image_encoder.proj": torch.ones(2), "module.text_encoder.token_embedding.weight": torch.ones(2)}
    torch.save({"model": theirs}, tmp_path / "ost.pth")
    assert ck.read_checkpoint(tmp_path / "ost.pth").license == "CC-BY-NC-SA-4.0"
    torch.save({"model": theirs, "clip_activation": "quick_gelu"}, tmp_path / "own.pth")
    assert ck.read_checkpoint(tmp_path / "own.pth").license == ""


@pytest.mark.parametrize("tower", ["image_encoder.", "text_encoder."])
def test_a_foreign_clip_with_a_wrong_prefix(tmp_path, tower):
    theirs = {f"module.{name}proj": torch.ones(2) for name in {"image_encoder.", "text_encoder."} - {tower}}
    torch.save({"model": theirs | {"module.encoder.proj": torch.ones(2)}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=rf"found 1 entries such as encoder\.proj; known are .* begins with {tower}$"):
        ck.read_checkpoint(tmp_path / "x.pth")
    torch.save({"model": {"module.encoder.proj": torch.ones(2)}, "epoch": 1}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: not a checkpoint: found 1 entries such as encoder\.proj; known are"):
        ck.read_checkpoint(tmp_path / "x.pth")


def test_vifi_without_its_table_of_tokens(tmp_path):
    torch.save({"module.image_encoder.proj": torch.ones(2), "logit_scale": torch.ones(())}, tmp_path / "vifi.pth")
    with pytest.raises(ValueError, match=r"vifi\.pth: lacks token_embedding\.weight.* --clip ViT-B/16 takes it from"):
        ck.read_checkpoint(tmp_path / "vifi.pth")


class Holder(nn.Module):
    """A method as far as its state dict goes."""

    def __init__(self, activation="quick_gelu"):
        super().__init__()
        self.model = build_clip(small_clip(), activation=activation)
        self.projector_v = nn.Linear(2, 2, bias=False)


FITS = {"allow_missing": ("projector_v.", "raw_model."), "allow_unexpected": ("projector_v.", "raw_model.")}


@pytest.mark.parametrize("prefix", ["net.", "model.model.", "raw_model.", "module.net.", "Model."])
def test_a_file_of_which_nothing_fits_is_refused(tmp_path, prefix):
    """As many entries as CLIP has, under names that are not its: nothing may be loaded, least of all in silence."""
    torch.save({"model_state": {prefix + k: v for k, v in small_clip(1).items()}}, tmp_path / "x.pyth")
    method = Holder()
    before = method.state_dict()["model.visual.proj"].clone()
    state = ck.read_checkpoint(tmp_path / "x.pyth").model_state
    with pytest.raises(
        ValueError, match=rf"x\.pyth: weights do not fit the model: {len(small_clip())} missing \(model\."
    ):
        ck.load_model_state(method, state, source=tmp_path / "x.pyth", **FITS)
    assert torch.equal(method.state_dict()["model.visual.proj"], before)


def test_a_file_with_only_a_projector_is_refused(tmp_path):
    torch.save({"model_state": {"module.projector_v.weight": torch.ones(2, 2)}}, tmp_path / "x.pyth")
    state = ck.read_checkpoint(tmp_path / "x.pyth").model_state
    with pytest.raises(ValueError, match=rf"weights do not fit the model: {len(small_clip())} missing"):
        ck.load_model_state(Holder(), state, source="x", **FITS)
    torch.save({"model_state": {}}, tmp_path / "x.pyth")
    with pytest.raises(ValueError, match=r"not a checkpoint|missing"):
        ck.load_model_state(Holder(), ck.read_checkpoint(tmp_path / "x.pyth").model_state, source="x", **FITS)


@pytest.mark.parametrize("trained", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("built", ["gelu", "quick_gelu"])
def test_the_activation_travels_with_the_weights(tmp_path, trained, built):
    path, state = checkpoint_path(tmp_path, 0), Holder(trained).state_dict()
    ck.save_checkpoint(path, progress=Progress(epoch=1), model_state=state, cfg_text="", activation=trained)
    method, read = Holder(built), ck.read_checkpoint(path)
    assert (read.activation, read.extra) == (trained, {})
    if trained == built:
        ck.check_activation(method, read.activation, source=path)
    else:
        with pytest.raises(ValueError, match=rf"was trained with the activation {trained}, but the model has {built}"):
            ck.check_activation(method, read.activation, source=path)
        with pytest.raises(ValueError, match="was trained with the activation"):
            ck.resume(read, method, epoch_reset=True)
    ck.check_activation(method, None, source=path)
    ck.check_activation(tiny(), trained, source=path)


def test_clear_name_pattern(tmp_path):
    torch.save({"model_state": {"ema.model.ema.w": torch.ones(1)}}, tmp_path / "a.pth")
    assert set(ck.read_checkpoint(tmp_path / "a.pth", clear_name_patterns=["ema."]).model_state) == {"model.ema.w"}
    torch.save({"model_state": {"a.w": torch.ones(1), "w": torch.ones(1)}}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="two entries of the name 'w'"):
        ck.read_checkpoint(tmp_path / "b.pth", clear_name_patterns=["a."])


@pytest.mark.parametrize("content", [[1, 2], {"features": torch.ones(2)}, {"model_state": 3}, {}, torch.ones(2)])
def test_files_that_are_no_checkpoints(tmp_path, content):
    torch.save(content, tmp_path / "x.pyth")
    with pytest.raises(ValueError, match=r"x\.pyth: not a checkpoint"):
        ck.read_checkpoint(tmp_path / "x.pyth")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"epoch": "7"}, "epoch is '7', expected an integer >= -1"),
        ({"epoch": True}, "epoch is True, expected an integer >= -1"),
        ({"epoch": -5}, "epoch is -5, expected an integer >= -1"),
        ({"optimizer_state": [1]}, "optimizer_state is not the state dict of an optimiser"),
        ({"optimizer_state": {}}, "optimizer_state is not the state dict of an optimiser"),
        ({"optimizer_state": {"state": {}, "param_groups": [{}]}}, "optimizer_state is not the state dict of an"),
    ],
)
def test_checkpoints_with_entries_of_another_kind(tmp_path, entry, message):
    path = save(tmp_path, tiny(), epoch=0)
    torch.save({**torch.load(path, weights_only=True), **entry}, path)
    with pytest.raises(ValueError, match="not a checkpoint") as caught:
        ck.read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: not a checkpoint: {message}")
