import re

import pytest
import torch

from slowfast.models.build import build_clip
from slowfast.models.clip.layouts import LAYOUTS, clip_names, encoder_names, find_layout, unwrapped
from slowfast.models.clip.weights import clip_entries

FOUND = {
    "openai": "openai",
    "open_clip": "openai",
    "open_clip_training": "openai",
    "open_clip_custom_text": "open_clip",
    "hf": "hf",
    "ost": "ost",
    "vifi": "vifi",
    "vifi_prompted": "vifi",
    "tc_clip": "tc_clip",
    "pyslowfast": "ours",
    "pyslowfast_parallel": "ours",
}


WITHOUT_TABLE = ("vifi", "vifi_prompted", "tc_clip")


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", FOUND)
def test_every_layout_gives_the_same_tensors(name, in_layout, small_state):
    renamed = clip_names(in_layout(name), source="f.pt")
    assert renamed.layout == FOUND[name]
    expected = dict(small_state)
    if name in WITHOUT_TABLE:
        del expected["token_embedding.weight"]
    more = {key for key in renamed.clip if key.endswith(("local_global_bias_table", "VPT", "VPT_shallow"))}
    assert len(more) == {"tc_clip": 2, "vifi_prompted": 4}.get(name, 0)
    for key in more:
        del renamed.clip[key]
    assert_same(renamed.clip, expected)


@pytest.mark.parametrize("name", [name for name in FOUND if name not in WITHOUT_TABLE])
def test_every_layout_gives_the_same_features(name, in_layout, small_state):
    frames = torch.randn(1, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[48, 5, 49, 0]])
    models = [build_clip(clip_entries(state, source=name)) for state in (small_state, in_layout(name))]
    with torch.no_grad():
        for one, other in zip(*[(m.encode_video(frames), m.encode_text(tokens)) for m in models], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("openai", {"input_resolution"}),
        ("open_clip", {"attn_mask"}),
        ("open_clip_custom_text", {"text.attn_mask"}),
        ("hf", {"vision_model.embeddings.position_ids", "text_model.embeddings.position_ids"}),
        ("ost", set()),
        ("vifi", {"prompt_learner.complete_text_embeddings"}),
        ("vifi_prompted", {"prompt_learner.token_prefix", "prompt_learner.token_suffix"}),
        ("tc_clip", {"prompt_learner.token_prefix", "prompt_learner.token_suffix"}),
        ("pyslowfast", set()),
    ],
)
def test_what_is_no_weight_is_left(name, left, in_layout):
    assert set(clip_names(in_layout(name), source="f.pt").left) == left


def test_parts_beside_clip_keep_their_names(in_layout):
    beside = clip_names(in_layout("pyslowfast_parallel"), source="f.pt").beside
    assert {name.split(".")[0] for name in beside} == {"raw_model", "projector_v"}
    assert "projector_v.2.weight" in beside


def test_vifi_with_prompts_and_back(in_layout, vifi_prompted_state):
    official = in_layout("vifi_prompted")
    renamed = clip_names(official, source="f.pt")
    found = {f"model.{name}": tensor for name, tensor in renamed.clip.items()} | renamed.beside
    table = vifi_prompted_state["model.token_embedding.weight"]
    assert_same({**found, "model.token_embedding.weight": table}, vifi_prompted_state)
    back = encoder_names(renamed.clip | renamed.beside, projections_apart=False)
    assert_same(back, {k: t for k, t in official.items() if k.removeprefix("module.") not in renamed.left})


def test_an_unknown_part_of_vifi_is_not_dropped(in_layout):
    state = in_layout("vifi") | {"module.prompt_learner.more": torch.ones(1), "module.image_encoder.x": torch.ones(1)}
    assert {"prompt_learner.more", "visual.x"} < set(clip_names(state, source="f.pt").clip)


def test_ost_and_back(in_layout, small_state):
    official = in_layout("ost")
    assert_same(encoder_names(clip_names(official, source="f.pt").clip, projections_apart=False), official)


def test_ost_is_told_from_vifi_by_its_table_of_tokens(in_layout):
    """What is ViFi-CLIP's otherwise, and has the table too, is not OST's."""
    ost = in_layout("ost")
    for more in ("complete_text_embeddings", "ctx"):
        assert clip_names({**ost, f"module.prompt_learner.{more}": torch.zeros(1)}, source="f.pt").layout == "vifi"
    assert clip_names(ost, source="f.pt", layout="vifi").layout == "ost"
    table = "module.text_encoder.token_embedding.weight"
    assert clip_names({**in_layout("tc_clip"), table: ost[table]}, source="f.pt").layout == "tc_clip"
    with pytest.raises(
        ValueError, match=r"^f\.pt: no entry has a name of the layout ost \(OST, a ViFi-CLIP with its table"
    ):
        clip_names(in_layout("vifi"), source="f.pt", layout="ost")


@pytest.mark.parametrize("name", ["ost", "vifi", "vifi_prompted", "tc_clip"])
@pytest.mark.parametrize(("right", "wrong"), [("image_encoder.", "visual_encoder."), ("text_encoder.", "encoder.")])
def test_a_tower_of_another_name(name, right, wrong, in_layout):
    """The other tower is there, and must not be loaded on its own."""
    state = {key.replace(f"module.{right}", f"module.{wrong}"): tensor for key, tensor in in_layout(name).items()}
    message = (
        rf"^f\.pt: not a CLIP state dict: found \d+ entries such as {wrong}\S+, {wrong}\S+, \.\.\.; "
        rf"known are image_encoder\. and text_encoder\., and none begins with {right}$"
    )
    with pytest.raises(ValueError, match=message):
        clip_names(state, source="f.pt")


def test_towers_of_other_names(in_layout):
    names = {"image_encoder.": "visual_encoder.", "text_encoder.": "encoder."}
    state = {}
    for key, tensor in in_layout("ost").items():
        tower = next((tower for tower in names if tower in key), "")
        state[key.replace(tower, names.get(tower, ""))] = tensor
    message = (
        "f.pt: not a CLIP state dict: found 74 entries such as encoder.positional_embedding, encoder.text_projection, "
        "...; known are names that begin with model.visual., visual., text.transformer., vision_model., image_encoder."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clip_names(state, source="f.pt")


def test_an_incomplete_triple_is_not_joined(in_layout):
    state = in_layout("hf")
    del state["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    names = clip_names(state, source="f.pt").clip
    assert "visual.transformer.resblocks.1.attn.in_proj_weight" not in names
    assert "visual.transformer.resblocks.1.attn.q_proj.weight" in names
    assert "visual.transformer.resblocks.1.attn.in_proj_bias" in names


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.module."])
def test_wrappers(prefix, small_state):
    assert_same(clip_names({prefix + k: v for k, v in small_state.items()}, source="f").clip, small_state)


def test_two_entries_of_one_name(small_state):
    state = {**small_state, "module.logit_scale": torch.zeros(())}
    with pytest.raises(ValueError, match=r"^f\.pt: two entries are 'logit_scale' but for a prefix$"):
        clip_names(state, source="f.pt")


@pytest.mark.parametrize(
    ("layout", "name", "twice"),
    [
        ("open_clip_custom_text", "ln_final.bias", "ln_final.bias"),
        ("ost", "text_encoder.logit_scale", "logit_scale"),
        ("ost", "visual.proj", "visual.proj"),
        ("hf", "visual.proj", "visual.proj"),
    ],
)
def test_two_entries_that_become_one(in_layout, layout, name, twice):
    """None of them may win in silence."""
    with pytest.raises(ValueError, match=rf"^f\.pt: (two entries are CLIP's '{twice}'|holds names of 2 layouts, .*)$"):
        clip_names({**in_layout(layout), name: torch.zeros(1)}, source="f.pt")


def test_a_prefix_to_strip(small_state):
    state = {f"module.backbone.clip.{name}": tensor for name, tensor in small_state.items()} | {"fc": torch.ones(1)}
    assert_same(clip_names(state, source="f", strip_prefix="backbone.clip.").clip, small_state)
    with pytest.raises(ValueError, match=r"^f: no entry begins with 'trunk\.' \(found module\.backbone"):
        unwrapped(state, source="f", strip_prefix="trunk.")


@pytest.mark.parametrize("name", ["openai", "hf", "ost"])
def test_a_foreign_prefix_is_refused_with_advice(name, in_layout):
    state = {f"net.{key.removeprefix('module.')}": tensor for key, tensor in in_layout(name).items()}
    with pytest.raises(ValueError, match=r"^f\.pt: not a CLIP state dict: found \d+ entries such as net\.") as caught:
        clip_names(state, source="f.pt")
    assert str(caught.value).endswith("; tools/convert_weights.py with --strip-prefix net. reads it")
    assert "\n" not in str(caught.value)


def test_projector_alone_is_no_clip():
    state = {"module.projector_v.0.weight": torch.ones(2), "module.projector_v.2.weight": torch.ones(2)}
    with pytest.raises(ValueError, match=r"^f\.pt: not a CLIP state dict: found 2 entries such as projector_v\.0"):
        clip_names(state, source="f.pt")
    with pytest.raises(ValueError, match=r"not a CLIP state dict: found no entries"):
        clip_names({}, source="f.pt")


def test_teacher_alone_is_no_clip(small_state):
    state = {f"raw_model.{name}": tensor for name, tensor in small_state.items()}
    with pytest.raises(ValueError, match="not a CLIP state dict"):
        clip_names(state, source="f.pt")


def test_mixed_layouts(small_state, in_layout):
    with pytest.raises(ValueError, match=r"^f\.pt: holds names of 2 layouts, ours and hf$"):
        clip_names(in_layout("pyslowfast") | in_layout("hf"), source="f.pt")


def test_a_layout_that_is_not_there(in_layout):
    message = (
        "f.pt: no entry has a name of the layout hf (Hugging Face CLIPModel: vision_model., text_model.); found "
        "positional_embedding, text_projection, ..."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clip_names(in_layout("openai"), source="f.pt", layout="hf")
    assert clip_names(in_layout("open_clip"), source="f.pt", layout="open_clip").layout == "openai"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("visual.trunk.blocks.0.norm1.weight", "an open_clip model with an image tower of timm"),
        ("text.transformer.embeddings.word_embeddings.weight", "an open_clip model whose text tower is not CLIP's"),
        ("logit_bias", "a SigLIP model"),
    ],
)  # fmt: skip
def test_relatives_are_refused_by_name(name, what, small_state):
    with pytest.raises(ValueError, match=f"^f\\.pt: holds {what}"):
        clip_names({**small_state, name: torch.ones(1)}, source="f.pt")


def test_tc_clip_and_back(in_layout, tc_clip_state):
    official = in_layout("tc_clip")
    renamed = clip_names(official, source="f.pt")
    found = {f"model.{name}": tensor for name, tensor in renamed.clip.items()} | renamed.beside
    assert_same({**found, "model.token_embedding.weight": tc_clip_state["model.token_embedding.weight"]}, tc_clip_state)
    back = encoder_names(renamed.clip | renamed.beside, projections_apart=True)
    assert_same(back, {k: t for k, t in official.items() if k.removeprefix("module.") not in renamed.left})


def test_tc_clip_without_prompt_generation_is_told_by_its_projections(in_layout):
    state = {name: t for name, t in in_layout("tc_clip").items() if "prompt_generation" not in name}
    assert clip_names(state, source="f.pt").layout == "tc_clip"


def test_an_unknown_part_of_tc_clip_is_not_dropped(in_layout):
    state = in_layout("tc_clip") | {
        "module.prompt_learner.more": torch.ones(1),
        "module.image_encoder.x": torch.ones(1),
    }
    assert {"prompt_learner.more", "visual.x"} < set(clip_names(state, source="f.pt").clip)


def test_names_of_no_clip():
    assert find_layout(["fc.weight", "conv1.weight", "text_encoder_2.weight"], source="f") is None


def test_marks_belong_to_one_layout(in_layout):
    for name, layout in FOUND.items():
        plain = unwrapped(in_layout(name), source="f")
        others = {key for key in LAYOUTS if LAYOUTS[key].is_of(plain)} - {layout}
        assert others <= {"open_clip": {"openai"}, "tc_clip": {"vifi"}, "ost": {"vifi"}}.get(layout, set())
