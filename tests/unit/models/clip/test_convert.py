from collections import Counter

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from slowfast.engine.checkpoint import read_checkpoint
from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.convert import Rules, check_target, convert, groups, target_state, write_weights
from slowfast.models.clip.files import read_weight_file
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.weights import clip_activation, weights_license

ADAPTERS = {
    "visual.transformer.resblocks.0.stadapt_down_1.weight": torch.randn(4, 8, 1, 1, 1),
    "visual.transformer.resblocks.0.stadapt_conv3d_1.weight": torch.randn(4, 1, 3, 1, 1),
    "visual.transformer.resblocks.1.message_attn.in_proj_weight": torch.randn(6, 2),
    "visual.transformer.resblocks.2.experts_head.0.c_fc.weight": torch.randn(4, 2),
    "visual.transformer.resblocks.2.experts_tail.0.c_proj.bias": torch.randn(2),
    "visual.transformer.resblocks.2.routing1.weight": torch.randn(2, 2),
    "visual.transformer.resblocks.2.routing2.bias": torch.randn(2),
}
BESIDE = {
    "projector_v.0.weight": torch.randn(2, 2),
    "projector_t.2.weight": torch.randn(2, 2),
    "head": torch.randn(3, 2),
    "prompt_embed": torch.randn(4, 2),
}


BLOCK = "transformer.resblocks."


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def ours(state):
    return {f"model.{name}": tensor for name, tensor in state.items()}


@pytest.fixture
def checkpoint(small_state):
    """A checkpoint with everything that the family knows."""
    teacher = {f"raw_model.{name}": torch.zeros_like(tensor) for name, tensor in small_state.items()}
    return {**ours(small_state | ADAPTERS), **BESIDE, **teacher}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["openai", "open_clip_training", "open_clip_custom_text", "hf", "ost", "pyslowfast"])
def test_foreign_to_ours_to_openai_and_back(name, suffix, in_layout, small_state, tmp_path):
    first = convert(in_layout(name), Rules(), source=name)
    assert first.faults == {}
    path = tmp_path / f"ours{suffix}"
    write_weights(first, path, to="ours", activation="gelu")
    expected = ours(small_state)
    if name == "pyslowfast":
        expected |= {key: torch.ones(2, 2) for key in ("projector_v.0.weight", "projector_v.2.weight")}
    assert_same(read_weight_file(path).tensors(), expected)
    assert_same(read_checkpoint(path).model_state, expected)

    second = convert(read_weight_file(path).tensors(), Rules(to="openai"), source="ours")
    write_weights(second, tmp_path / f"openai{suffix}", to="openai", activation="gelu")
    assert_same(read_weight_file(tmp_path / f"openai{suffix}").tensors(), small_state)

    third = convert(read_weight_file(tmp_path / f"openai{suffix}").tensors(), Rules(), source="openai")
    write_weights(third, tmp_path / f"again{suffix}", to="ours", activation="gelu")
    assert_same(read_weight_file(tmp_path / f"again{suffix}").tensors(), ours(small_state))
    for file in ("ours", "openai", "again"):
        assert clip_activation(tmp_path / f"{file}{suffix}") == "gelu"


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_the_same_weights_give_the_same_file(in_layout, tmp_path, suffix):
    """Whatever order the source has; several times, since the order of safetensors' metadata is a random one."""
    contents = set()
    for name in ("openai", "hf", "ost") * 3:
        path = tmp_path / f"{name}{suffix}"
        write_weights(convert(in_layout(name), Rules(), source=name), path, to="ours", activation="gelu")
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_checkpoints_keep_all_but_the_teacher(checkpoint, small_state):
    found = convert(checkpoint, Rules(), source="f")
    assert found.faults == {}
    assert_same(found.adapters, ADAPTERS)
    assert_same(found.beside, BESIDE)
    assert found.left == {"raw_model.*": len(small_state)}
    assert_same(target_state(found, "ours"), {k: v for k, v in checkpoint.items() if not k.startswith("raw_model.")})


def test_the_teacher_if_asked_for(checkpoint):
    found = convert(checkpoint, Rules(keep_teacher=True), source="f")
    assert_same(target_state(found, "ours"), checkpoint)


def test_openai_s_layout_has_no_place_for_what_changes_the_model(checkpoint, small_state):
    found = convert(checkpoint, Rules(to="openai"), source="f")
    assert set(found.faults) == {"unexpected"}
    assert set(found.unexpected) == {*ADAPTERS, "head", "prompt_embed"}
    assert found.left == {"raw_model.*": len(small_state), "projector_v.*": 1, "projector_t.*": 1}
    leave = ("visual.transformer.resblocks.0.stadapt", "*.message_*", "*.experts_head*", "*.experts_tail*")
    found = convert(checkpoint, Rules(to="openai", leave=(*leave, "*.routing*", "head", "prompt_embed")), source="f")
    assert set(found.unexpected) == {name for name in ADAPTERS if "routing" in name}
    groups = ("*.routing1*", "*.routing2*", "head", "prompt_embed")
    found = convert(checkpoint, Rules(to="openai", leave=(*leave, *groups)), source="f")
    assert found.faults == {}
    assert_same(target_state(found, "openai"), small_state)


def test_missing(small_state):
    state = {name: t for name, t in small_state.items() if not name.startswith("visual.ln_post")}
    found = convert(state, Rules(), source="f")
    assert found.faults == {"missing": ["visual.ln_post.weight", "visual.ln_post.bias"]}
    assert convert(state, Rules(allow_missing=("visual.ln_post.",)), source="f").faults == {}
    found = convert(state, Rules(allow_missing=("visual.ln_post.b",)), source="f")
    assert (found.missing, found.allowed) == (["visual.ln_post.weight"], ["visual.ln_post.bias"])


def test_a_block_in_the_middle_is_missed(small_state):
    state = {name: t for name, t in small_state.items() if not name.startswith("transformer.resblocks.0.")}
    found = convert(state, Rules(), source="f")
    assert found.sizes.text_layers == 2
    assert len(found.missing) == 12
    assert all(name.startswith("transformer.resblocks.0.") for name in found.missing)


def test_unexpected(small_state):
    state = {**small_state, "visual.transformer.resblocks.0.ls_1.gamma": torch.ones(4), "logit_bias_2": torch.ones(())}
    found = convert(state, Rules(), source="f")
    assert found.faults == {"unexpected": ["visual.transformer.resblocks.0.ls_1.gamma", "logit_bias_2"]}
    found = convert(state, Rules(leave=("logit_bias_2", "visual.*")), source="f")
    assert found.faults == {}
    assert found.left == {"visual.*": 1, "logit_bias_2": 1}


def test_what_lacks_the_prefix_is_left_and_named(small_state):
    state = {f"module.net.{name}": tensor for name, tensor in small_state.items()} | {"module.fc.weight": torch.ones(1)}
    found = convert(state, Rules(strip_prefix="net."), source="f")
    assert found.faults == {}
    assert found.left == {"fc.*": 1}
    assert found.renamed == len(small_state)


def test_clip_itself_cannot_be_left(small_state):
    found = convert(small_state, Rules(leave=("visual.", "ln_final")), source="f")
    assert_same(found.clip, small_state)


def test_wrong_shape_and_kind(small_state):
    state = {**small_state, "ln_final.bias": torch.zeros(3), "visual.ln_pre.weight": torch.zeros(128, dtype=torch.int8)}
    assert convert(state, Rules(), source="f").faults == {
        "wrong shape": [
            "visual.ln_pre.weight is torch.int8 instead of a floating-point type",
            "ln_final.bias is (3,) instead of (64,)",
        ]
    }


@pytest.mark.parametrize("shape", [(3,), (4, 4, 4)])
def test_a_shape_that_carries_a_size(small_state, shape):
    state = {**small_state, "visual.positional_embedding": torch.zeros(shape)}
    with pytest.raises(ValueError, match=r"^f: not a CLIP state dict: shapes are \{'visual\.conv1"):
        convert(state, Rules(), source="f")


def test_vifi_with_the_table_of_raw_clip(in_layout, small_state):
    table = small_state["token_embedding.weight"]
    found = convert(in_layout("vifi"), Rules(), source="f", token_embedding=table)
    assert found.faults == {}
    assert_same(target_state(found, "openai"), small_state)
    assert found.left == {"prompt_learner.*": 1}
    wrong = convert(in_layout("vifi"), Rules(), source="f", token_embedding=table[:, :32])
    assert wrong.faults == {"wrong shape": ["token_embedding.weight is (50, 32) instead of (50, 64)"]}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_ost_to_ours_and_back(in_layout, tmp_path, suffix):
    official = in_layout("ost")
    write_weights(convert(official, Rules(), source="f"), tmp_path / f"x{suffix}", to="ours", activation="quick_gelu")
    back = convert(read_weight_file(tmp_path / f"x{suffix}").tensors(), Rules(to="ost"), source="f")
    assert (back.faults, back.left) == ({}, {})
    write_weights(back, tmp_path / f"y{suffix}", to="ost", activation="quick_gelu")
    file = read_weight_file(tmp_path / f"y{suffix}")
    assert (file.entry, file.recorded_license) == ("" if suffix == ".safetensors" else "model", "")
    assert_same(file.tensors(), official)


def test_full_size_ost_and_vifi(in_layout_of):
    """Every entry of the official models of ViT-B/16 has its place in CLIP."""
    sizes = PUBLISHED["vitb16"].sizes
    with torch.device("meta"):
        clip = CLIP(sizes).state_dict()
        official = {name: in_layout_of(name, clip, sizes) for name in ("ost", "vifi")}
    towers = Counter(name.split(".")[1] for name in official["ost"])
    assert towers == {"image_encoder": 152, "text_encoder": 149, "logit_scale": 1}
    assert sum(tensor.numel() for tensor in official["ost"].values()) == 149_620_737
    for name, table in (("ost", None), ("vifi", clip["token_embedding.weight"])):
        found = convert(official[name], Rules(), source="f", token_embedding=table)
        assert (found.faults, len(found.clip)) == ({}, 302)


@pytest.mark.parametrize("name", ["vifi", "vifi_prompted"])
def test_vifi_to_ours_and_back(in_layout, small_state, vifi_prompted_state, tmp_path, name):
    """Bit by bit, but for the texts of the training classes."""
    official = in_layout(name)
    found = convert(official, Rules(), source="f", token_embedding=small_state["token_embedding.weight"])
    assert found.faults == {}
    if name == "vifi_prompted":
        assert (groups(found.adapters), groups(found.beside)) == (
            {"*.VPT": 1, "*.VPT_shallow": 3},
            {"prompt_learner.*": 1},
        )
        assert found.left == {"prompt_learner.*": 2}
    write_weights(found, tmp_path / "x.pth", to="ours", activation="quick_gelu")
    state = read_checkpoint(tmp_path / "x.pth").model_state
    assert_same(state, vifi_prompted_state if name == "vifi_prompted" else ours(small_state))
    back = convert(state, Rules(to="vifi"), source="f")
    assert (back.faults, back.left) == ({}, {"token_embedding.*": 1})
    write_weights(back, tmp_path / "y.pth", to="vifi", activation="quick_gelu")
    content = torch.load(tmp_path / "y.pth", weights_only=True)
    assert content.keys() == {"model", "clip_activation"}
    texts = ("complete_text_embeddings", "token_prefix", "token_suffix")
    assert_same(content["model"], {key: t for key, t in official.items() if not key.endswith(texts)})


def test_a_tuned_table_of_tokens_is_not_left_in_silence(in_layout):
    found = convert(in_layout("ost"), Rules(to="vifi"), source="f")
    assert found.faults == {"unexpected": ["token_embedding.weight"]}
    found = convert(in_layout("ost"), Rules(to="vifi", leave=("token_embedding.*",)), source="f")
    assert (found.faults, found.left) == ({}, {"token_embedding.*": 1})


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"prompt_learner.ctx": None}, {"missing": ["prompt_learner.ctx"]}),
        ({"model.visual.VPT": None}, {"missing": ["visual.VPT"]}),
        ({f"model.visual.{BLOCK}1.VPT_shallow": None}, {"missing": [f"visual.{BLOCK}1.VPT_shallow"]}),
        (
            {f"model.visual.{BLOCK}0.VPT_shallow": torch.ones(3, 128)},
            {"unexpected": [f"visual.{BLOCK}0.VPT_shallow"]},
        ),
        (
            {f"model.{BLOCK}1.VPT_shallow": torch.ones(4, 64)},
            {"wrong shape": [f"{BLOCK}1.VPT_shallow is (4, 64) instead of (5, 64)"]},
        ),
        ({"model.visual.VPT": torch.ones(3, 64)}, {"wrong shape": ["visual.VPT is (3, 64) instead of (3, 128)"]}),
        (
            {"prompt_learner.ctx": torch.ones(5, 2)},
            {"wrong shape": ["prompt_learner.ctx is (5, 2) instead of (5, 64)"]},
        ),
        ({"prompt_learner.more": torch.ones(5)}, {"unexpected": ["prompt_learner.more"]}),
        ({"model.visual.VPT_deep": torch.ones(5)}, {"unexpected": ["visual.VPT_deep"]}),
        (
            {f"model.visual.{BLOCK}2.attn.local_global_bias_table": torch.ones(2, 1, 2)},
            {"unexpected": 1},
        ),
    ],
)
@pytest.mark.parametrize("to", ["ours", "vifi"])
def test_faults_of_prompts(vifi_prompted_state, change, faults, to):
    state = {name: t for name, t in (vifi_prompted_state | change).items() if t is not None}
    found = convert(state, Rules(to=to), source="f").faults
    if faults == {"unexpected": 1}:  # to ours, half of a TC-CLIP and half of a ViFi-CLIP
        assert found["unexpected"]
    else:
        assert found == faults


def test_prompts_of_some_blocks_and_of_texts_alone(vifi_prompted_state):
    shallow = {name: t for name, t in vifi_prompted_state.items() if not name.endswith("VPT_shallow")}
    texts = {
        name: t for name, t in vifi_prompted_state.items() if not name.startswith("model.visual.") or "VPT" not in name
    }
    for state in (shallow, texts):
        for to in ("ours", "vifi"):
            assert convert(state, Rules(to=to), source="f").faults == {}


@pytest.mark.parametrize("to", ["openai", "ost"])
def test_clip_has_no_place_for_prompts(vifi_prompted_state, small_state, to):
    found = convert(vifi_prompted_state, Rules(to=to), source="f")
    assert (set(found.faults), len(found.unexpected)) == ({"unexpected"}, 5)
    found = convert(vifi_prompted_state, Rules(to=to, leave=("*.VPT", "*.VPT_shallow", "prompt_learner.*")), source="f")
    assert found.faults == {}
    assert_same(found.clip, small_state)


@pytest.mark.parametrize("to", ["ost", "vifi"])
def test_adapters_have_no_place_in_vifi(checkpoint, to):
    found = convert(checkpoint, Rules(to=to), source="f")
    assert set(found.unexpected) == {*ADAPTERS, "head", "prompt_embed"}
    assert found.left["projector_v.*"] == 1


def test_a_tc_clip_is_no_vifi(tc_clip_state):
    assert len(convert(tc_clip_state, Rules(to="vifi"), source="f").unexpected) == 16


def test_tc_clip_to_ours_and_back(in_layout, small_state, tc_clip_state, tmp_path):
    """Bit by bit, but for the texts of the training classes, which only these classes could bring back."""
    official = in_layout("tc_clip")
    table = small_state["token_embedding.weight"]
    found = convert(official, Rules(), source="f", token_embedding=table)
    assert found.faults == {}
    assert found.left == {"prompt_learner.*": 2}
    assert {name.rsplit(".", 1)[-1] for name in found.adapters} == {"local_global_bias_table"}
    assert groups(found.adapters) == {"*.local_global_bias_table": 2}
    assert groups(found.beside) == {"prompt_generation_layer.*": 14, "prompt_learner.*": 1}
    write_weights(found, tmp_path / "x.pth", to="ours", activation="quick_gelu", license_="CC-BY-NC-4.0")
    file = read_weight_file(tmp_path / "x.pth")
    assert_same(file.tensors(), tc_clip_state)
    assert_same(read_checkpoint(tmp_path / "x.pth").model_state, tc_clip_state)

    back = convert(file.tensors(), Rules(to="tc_clip"), source="f")
    assert back.faults == {}
    assert back.left == {"token_embedding.*": 1}
    write_weights(back, tmp_path / "y.pth", to="tc_clip", activation="quick_gelu", license_=file.license())
    content = torch.load(tmp_path / "y.pth", weights_only=True)
    assert content.keys() == {"model", "clip_activation", "license"}
    texts = ("module.prompt_learner.token_prefix", "module.prompt_learner.token_suffix")
    assert_same(content["model"], {name: t for name, t in official.items() if name not in texts})


def test_tc_clip_has_a_place_for_its_own_only(small_state, tc_clip_state, checkpoint):
    plain = convert(small_state, Rules(to="tc_clip"), source="f")
    assert plain.faults == {"missing": ["prompt_learner.ctx"]}
    found = convert(checkpoint | tc_clip_state, Rules(to="tc_clip"), source="f")
    assert set(found.unexpected) == {*ADAPTERS, "head", "prompt_embed"}
    assert found.left["projector_v.*"] == 1
    found = convert(tc_clip_state, Rules(to="openai"), source="f")
    assert (found.missing, len(found.unexpected)) == ([], 17)
    leave = ("*.local_global_bias_table", "prompt_learner.*", "prompt_generation_layer.*")
    found = convert(tc_clip_state, Rules(to="openai", leave=leave), source="f")
    assert found.faults == {}
    assert_same(target_state(found, "openai"), small_state)


BLOCKS = "model.visual.transformer.resblocks."


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"prompt_learner.ctx": None}, {"missing": ["prompt_learner.ctx"]}),
        (
            {"prompt_learner.ctx": torch.ones(4, 8)},
            {"wrong shape": ["prompt_learner.ctx is (4, 8) instead of (4, 64)"]},
        ),
        (
            {"prompt_learner.ctx": torch.ones(())},
            {"wrong shape": ["prompt_learner.ctx is () instead of (1, 64)"]},
        ),
        (
            {f"{BLOCKS}2.attn.local_global_bias_table": None},
            {"missing": ["visual.transformer.resblocks.2.attn.local_global_bias_table"]},
        ),
        (
            {f"{BLOCKS}0.attn.local_global_bias_table": torch.ones(2, 1, 2)},
            {"unexpected": ["visual.transformer.resblocks.0.attn.local_global_bias_table"]},
        ),
        (
            {"prompt_generation_layer.1.ln_2.bias": torch.ones(64), "prompt_generation_layer.0.ln_1_kv.bias": None},
            {"missing": 14},
        ),
        (
            {"prompt_generation_layer.0.mlp.c_fc.bias": torch.ones(64)},
            {"wrong shape": ["prompt_generation_layer.0.mlp.c_fc.bias is (64,) instead of (256,)"]},
        ),
        (
            {"prompt_generation_layer.0.ln_3.bias": torch.ones(64)},
            {"unexpected": ["prompt_generation_layer.0.ln_3.bias"]},
        ),
        ({"prompt_learner.more": torch.ones(64)}, {"unexpected": ["prompt_learner.more"]}),
    ],
)
@pytest.mark.parametrize("to", ["ours", "tc_clip"])
def test_faults_of_tc_clip(tc_clip_state, change, faults, to):
    state = {name: t for name, t in (tc_clip_state | change).items() if t is not None}
    if "prompt_learner.ctx" in change and to == "tc_clip":
        assert convert(state, Rules(to=to), source="f").faults == faults
        return
    found = convert(state, Rules(to=to), source="f").faults
    assert {kind: len(names) if isinstance(faults[kind], int) else names for kind, names in found.items()} == faults


def test_tc_clip_without_its_options(tc_clip_state):
    state = {name: t for name, t in tc_clip_state.items() if "bias_table" not in name and "generation" not in name}
    for to in ("ours", "tc_clip"):
        assert convert(state, Rules(to=to), source="f").faults == {}


def test_positions_of_every_frame(tc_clip_state, small_sizes):
    name = "model.visual.positional_embedding"
    state = tc_clip_state | {name: torch.stack([tc_clip_state[name] + frame for frame in range(4)])}
    for to in ("ours", "tc_clip"):
        found = convert(state, Rules(to=to), source="f")
        assert (found.faults, found.sizes) == ({}, small_sizes)
    assert "wrong shape" in convert(state, Rules(to="openai"), source="f").faults


def test_openai_s_layout_as_openai_reads_it(small_state, small_sizes, tmp_path):
    found = convert(small_state, Rules(to="openai"), source="f")
    write_weights(found, tmp_path / "quick.pt", to="openai", activation="quick_gelu")
    content = torch.load(tmp_path / "quick.pt", weights_only=True)
    sizes = {name: int(content.pop(name)) for name in ("input_resolution", "context_length", "vocab_size")}
    assert sizes == {"input_resolution": 32, "context_length": 16, "vocab_size": 50}
    assert_same(content, small_state)
    assert clip_activation(tmp_path / "quick.pt") == "quick_gelu"
    write_weights(found, tmp_path / "gelu.pt", to="openai", activation="gelu")
    assert set(torch.load(tmp_path / "gelu.pt", weights_only=True)) == {"state_dict", "clip_activation"}
    write_weights(found, tmp_path / "nc.pt", to="openai", activation="quick_gelu", license_="CC-BY-NC-4.0")
    assert set(torch.load(tmp_path / "nc.pt", weights_only=True)) == {"state_dict", "clip_activation", "license"}
    assert weights_license(tmp_path / "nc.pt") == "CC-BY-NC-4.0"


def test_metadata_of_safetensors(small_state, tmp_path):
    path = tmp_path / "new" / "folder" / "x.safetensors"
    write_weights(convert(small_state, Rules(), source="f"), path, to="ours", activation="gelu")
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "layout": "ours", "clip_activation": "gelu"}
    assert_same(load_file(path), ours(small_state))
    assert [entry.name for entry in path.parent.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_views_and_shared_memory_are_written_whole_and_once(small_state, tmp_path, suffix):
    """A row of a large table must not drag the table into the file."""
    whole = torch.randn(1000, 128)
    state = {**small_state, "visual.class_embedding": whole[7], "visual.ln_pre.weight": whole[8]}
    state["visual.ln_post.weight"] = state["visual.ln_pre.weight"]
    state["visual.proj"] = small_state["visual.proj"].T.contiguous().T
    path = tmp_path / f"x{suffix}"
    write_weights(convert(state, Rules(), source="f"), path, to="ours", activation="gelu")
    assert_same(read_weight_file(path).tensors(), ours(state))
    assert path.stat().st_size < sum(t.nbytes for t in state.values()) + 100_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.txt", "unknown suffix '.txt'; allowed: .pth"),
        ("there.pth", "exists already; --force replaces it"),
        ("d.pth", "is a folder"),
    ],
)
def test_targets_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "there.pth").touch()
    (tmp_path / "d.pth").mkdir()
    with pytest.raises(ValueError, match=message):
        check_target(tmp_path / name, force=False)
    if name == "there.pth":
        check_target(tmp_path / name, force=True)
