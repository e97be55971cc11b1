import json
import re

import pytest
import torch
from safetensors.torch import save_file

from slowfast.models.clip.files import read_weight_file
from slowfast.models.clip.weights import clip_activation, load_clip_state_dict

OPEN_CLIP_MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 128, "patch_size": 8, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 16, "vocab_size": 50, "width": 64, "heads": 1, "layers": 2},
}
HF_CONFIG = {
    "model_type": "clip",
    "vision_config": {"hidden_size": 128, "num_attention_heads": 2, "hidden_act": "gelu"},
    "text_config": {"hidden_size": 64, "num_attention_heads": 1, "hidden_act": "gelu"},
}


@pytest.fixture
def write(tmp_path, in_layout):
    """Writes the small CLIP in a layout, with a configuration beside it."""

    def run(layout, *, suffix=".pt", config=None, metadata=None, wrap=None):
        path = tmp_path / f"weights{suffix}"
        state = in_layout(layout)
        if suffix == ".safetensors":
            save_file({name: t.clone() for name, t in state.items()}, path, metadata=metadata)
        else:
            torch.save(state if wrap is None else {wrap: state, **(metadata or {})}, path)
        if config is not None:
            name = "config.json" if layout == "hf" else "open_clip_config.json"
            (tmp_path / name).write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
        return path

    return run


def open_clip(**model):
    return {"model_cfg": {**OPEN_CLIP_MODEL, **model}, "preprocess_cfg": {}}


def hf(**towers):
    return {**HF_CONFIG, **{name: {**HF_CONFIG[name], **values} for name, values in towers.items()}}


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("layout", ["openai", "open_clip_training", "open_clip_custom_text", "hf", "ost", "pyslowfast"])
def test_every_file_is_read_directly(write, layout, suffix, small_state):
    found = load_clip_state_dict(write(layout, suffix=suffix))
    assert set(found) == set(small_state)
    assert all(torch.equal(found[name], tensor) for name, tensor in small_state.items())


@pytest.mark.parametrize(
    ("layout", "wrap"), [("open_clip_training", "state_dict"), ("ost", "model"), ("pyslowfast", "model_state")]
)
def test_entry_that_is_the_state_dict(write, layout, wrap):
    file = read_weight_file(write(layout, wrap=wrap, metadata={"epoch": 3}))
    assert (file.entry, file.entries) == (wrap, {"epoch": 3})
    assert file.is_state_dict


@pytest.mark.parametrize(
    ("layout", "options", "activation"),
    [
        ("open_clip", {"config": open_clip()}, "gelu"),
        ("open_clip", {"config": open_clip(quick_gelu=True)}, "quick_gelu"),
        ("open_clip_custom_text", {"config": open_clip(quick_gelu=False)}, "gelu"),
        ("open_clip", {}, None),
        ("openai", {}, None),
        ("openai", {"suffix": ".safetensors", "metadata": {"clip_activation": "gelu"}}, "gelu"),
        ("hf", {"config": HF_CONFIG}, "gelu"),
        ("hf", {"config": {"model_type": "clip"}}, "quick_gelu"),
        ("hf", {"config": {"model_type": "clip", "vision_config": {}, "text_config": None}}, "quick_gelu"),
        ("hf", {}, None),
        ("ost", {"wrap": "model"}, "quick_gelu"),
        ("pyslowfast", {"wrap": "model_state"}, "quick_gelu"),
        ("pyslowfast", {"wrap": "model_state", "metadata": {"clip_activation": "gelu"}}, "gelu"),
        ("pyslowfast", {"suffix": ".safetensors", "metadata": {"clip_activation": "gelu"}}, "gelu"),
    ],
)
def test_activation(write, layout, options, activation):
    assert clip_activation(write(layout, **options)) == activation


def test_activation_of_published_models_needs_no_file(tmp_path):
    assert clip_activation("ViT-B/16", cache_dir=tmp_path) == "quick_gelu"
    assert clip_activation("vitl14", cache_dir=tmp_path) == "quick_gelu"
    with pytest.raises(ValueError, match=r"^CLIP weights 'vitb8': no such file; allowed: a file or one of vitb32, "):
        clip_activation("vitb8")


def test_sizes_beside_the_weights_tell_openai(small_state, tmp_path):
    names = ("input_resolution", "context_length", "vocab_size")
    torch.save({**small_state, **dict.fromkeys(names, torch.tensor(7))}, tmp_path / "state.pt")
    assert clip_activation(tmp_path / "state.pt") == "quick_gelu"
    torch.save({**small_state, **dict.fromkeys(names, 7)}, tmp_path / "numbers.pt")
    assert clip_activation(tmp_path / "numbers.pt") == "quick_gelu"
    assert set(load_clip_state_dict(tmp_path / "numbers.pt")) == set(small_state)


@pytest.mark.parametrize("name", ["quick_gelu", "gelu"])
def test_activation_of_torchscript_is_in_its_code(name, tmp_path):
    class Layer(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.gelu(x) if name == "gelu" else x * torch.sigmoid(1.702 * x)

    import warnings

    path = tmp_path / "layer.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Layer(), torch.ones(2)).save(str(path))
    assert clip_activation(path, allow_torchscript=True) == name


@pytest.mark.parametrize(
    ("layout", "config", "message"),
    [
        ("open_clip", "{", "not a readable JSON file"),
        ("open_clip", "[" * 100_000, "not a readable JSON file"),
        ("open_clip", "[1]", "holds list, expected an object"),
        ("open_clip", {}, "has no model_cfg"),
        ("open_clip", open_clip(text_cfg=None), "model_cfg has no text_cfg"),
        (
            "open_clip",
            open_clip(vision_cfg={**OPEN_CLIP_MODEL["vision_cfg"], "head_width": 80}),
            "vision_cfg.head_width is 80; CLIP here has no such option",
        ),
        (
            "open_clip",
            open_clip(text_cfg={**OPEN_CLIP_MODEL["text_cfg"], "heads": 2}),
            "text_cfg: 2 attention heads on width 64; only heads 64 wide are supported",
        ),
        (
            "open_clip",
            open_clip(text_cfg={**OPEN_CLIP_MODEL["text_cfg"], "pool_type": "last"}),
            "text_cfg.pool_type is 'last'; CLIP here has no such option",
        ),
        (
            "open_clip_custom_text",
            open_clip(vision_cfg={**OPEN_CLIP_MODEL["vision_cfg"], "timm_model_name": "vit"}),
            "vision_cfg.timm_model_name is 'vit'; CLIP here has no such option",
        ),
        ("hf", {"model_type": "siglip"}, "model_type is 'siglip', expected 'clip'"),
        ("hf", hf(vision_config={"hidden_act": "relu"}), "vision_config: activation 'relu' is not one that CLIP has"),
        ("hf", hf(text_config={"hidden_act": "quick_gelu"}), "the towers have different activations"),
        ("hf", hf(text_config={"layer_norm_eps": 1e-6}), "text_config.layer_norm_eps is 1e-06, not 1e-05"),
        ("hf", hf(vision_config={"num_attention_heads": 4}), "vision_config: 4 attention heads on width 128"),
        ("hf", hf() | {"vision_config": [1]}, "vision_config is list, expected an object"),
    ],
)
def test_configurations_of_other_models_are_refused(write, layout, config, message):
    path = write(layout, config=config)
    name = "config.json" if layout == "hf" else "open_clip_config.json"
    for read in (clip_activation, load_clip_state_dict):
        with pytest.raises(
            ValueError, match=f"^{re.escape(str(path.with_name(name)))}: {re.escape(message)}"
        ) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_options_without_influence_are_fine(write):
    vision = {**OPEN_CLIP_MODEL["vision_cfg"], "patch_dropout": 0.5, "timm_pool": None, "no_ln_pre": False}
    assert clip_activation(write("open_clip", config=open_clip(vision_cfg=vision))) == "gelu"


def test_a_record_that_contradicts_the_configuration(write, tmp_path):
    path = write("open_clip", suffix=".safetensors", metadata={"clip_activation": "quick_gelu"}, config=open_clip())
    message = f"{path}: records the activation quick_gelu, but {tmp_path / 'open_clip_config.json'} says gelu"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clip_activation(path)


def test_a_record_that_is_none(write):
    path = write("pyslowfast", wrap="model_state", metadata={"clip_activation": "relu"})
    with pytest.raises(
        ValueError, match=r"weights\.pt: clip_activation: activation 'relu' is not one that CLIP has here"
    ):
        clip_activation(path)


def test_files_of_something_else_have_no_activation(tmp_path):
    for name, content in (("a.pt", {"fc.weight": torch.ones(2)}), ("b.pt", [1, 2]), ("c.pt", torch.ones(2))):
        torch.save(content, tmp_path / name)
        assert clip_activation(tmp_path / name) is None


def test_vifi_names_the_way_out(write):
    path = write("vifi", wrap="model")
    with pytest.raises(
        ValueError,
        match=rf"^{re.escape(str(path))}: lacks token_embedding\.weight, which ViFi-CLIP does not save; "
        rf"python tools/convert_weights\.py {re.escape(str(path))} TARGET --clip ViT-B/16 takes it from the raw CLIP$",
    ):
        load_clip_state_dict(path)


def test_pickles_name_the_way_out(in_layout, tmp_path):
    from yacs.config import CfgNode

    path = tmp_path / "ost.pth"
    torch.save({"model": in_layout("ost"), "config": CfgNode({"A": 1})}, path)
    advice = f"to take its tensors out: python tools/convert_weights.py {path} ost.safetensors --allow-pickle"
    with pytest.raises(ValueError, match=f"; {re.escape(advice)}$") as caught:
        load_clip_state_dict(path)
    assert "\n" not in str(caught.value)


def test_wide_heads_are_refused(small_state, tmp_path):
    wide = {name: tensor for name, tensor in small_state.items() if "resblocks" not in name}
    wide["visual.conv1.weight"] = torch.zeros(1280, 3, 14, 14)
    torch.save(wide, tmp_path / "h.pt")
    message = (
        "h.pt: vision width 1280 is that of ViT-H, whose attention heads are 80 wide; only models with heads 64 wide "
        "are supported"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        load_clip_state_dict(tmp_path / "h.pt")
