"""What is built: which parameters learn, what a checkpoint holds, and what is refused."""

import re

import pytest
import torch

from slowfast.engine.tested_weights import load_into
from slowfast.methods.build import build_method, text_files
from slowfast.methods.clip_fsar.method import ClipFsar
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.resnet import ModifiedResNet
from slowfast.models.clip.vision import VisionTransformer
from slowfast.models.clip.weights import random_clip_state_dict

TRANSFORMER = {
    f"head.context2.layers.{{}}.{name}"
    for name in (
        "0.norm.weight", "0.norm.bias", "0.fn.to_q.weight", "0.fn.to_k.weight", "0.fn.to_v.weight",
        "0.fn.to_out.0.weight", "0.fn.to_out.0.bias", "1.net.0.weight", "1.net.0.bias", "1.net.3.weight",
        "1.net.3.bias",
    )
}  # fmt: skip


def names_of_transformer(depth):
    return {name.format(number) for number in range(depth) for name in TRANSFORMER}


@pytest.mark.parametrize("depth", [1, 2])
def test_names_are_the_official_ones(make, tower_weights, depth):
    """OpenAI's of the image tower, those of the transformer, the scale; nothing of the text tower."""
    method = make(TRANSFORMER_DEPTH=depth, **{"MODEL.CLIP_WEIGHTS": str(tower_weights)})
    clip = torch.load(tower_weights, weights_only=True)
    tower = {f"head.backbone.{name.removeprefix('visual.')}" for name in clip if name.startswith("visual.")}
    expected = tower | names_of_transformer(depth) | {"head.scale"}
    assert set(method.state_dict()) == set(method.checkpoint_state()) == expected
    assert set(dict(method.named_buffers())) - expected == {"texts", "pixel_mean", "pixel_std"}
    assert method.state_dict()["head.scale"].tolist() == [1.0]
    for name in tower:
        assert torch.equal(method.state_dict()[name], clip[f"visual.{name.removeprefix('head.backbone.')}"]), name


def test_towers(make, tiny_weights, resnet_weights):
    found = [type(make(**{"MODEL.CLIP_WEIGHTS": str(path)}).head.backbone) for path in (tiny_weights, resnet_weights)]
    assert found == [VisionTransformer, ModifiedResNet]


def test_the_seed_makes_the_transformer(make):
    first, again, other = make(), make(), make(RNG_SEED=5)
    torch.manual_seed(9)  # the state outside does not count, and stays
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(make().parameters(), first.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    name = "head.context2.layers.0.0.fn.to_q.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    limit = first.head.context2.layers[0][0].fn.to_q.in_features ** -0.5  # PyTorch's own start
    assert 0.9 * limit < first.state_dict()[name].abs().max() <= limit


def test_dropout_is_the_published_one(make):
    dropout = [m.p for m in make().modules() if isinstance(m, torch.nn.Dropout)]
    assert dropout == [0.2, 0.05, 0.05]


@pytest.mark.parametrize(
    ("keys", "transformer", "scale"),
    [
        ({}, True, True),
        ({"USE_CLASSIFICATION": False}, True, False),
        ({"USE_CLASSIFICATION_ONLY": True, "HEAD": "otam"}, False, True),
        ({"USE_CLASSIFICATION": False, "USE_CLASSIFICATION_ONLY": True, "EVAL_TEXT": True}, False, True),
        ({"TRAIN": False, "HEAD": "prototype"}, False, True),
        ({"TRAIN": False, "EVAL_TEXT": True, "USE_CLASSIFICATION": False}, False, True),
    ],
)
def test_what_learns(make, keys, transformer, scale):
    method = make(**keys)
    learns = {name for name, _ in method.trainable_parameters()}
    assert ("head.scale" in learns) is scale
    assert names_of_transformer(1) & learns == (names_of_transformer(1) if transformer else set())
    assert all(name in learns for name, _ in method.named_parameters() if name.startswith("head.backbone."))
    left_out = set(method.state_dict()) - set(method.checkpoint_state())
    assert left_out == (set() if transformer else names_of_transformer(1))
    assert method.texts.shape == (6, 32)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"TRAIN": False}, "EPISODES.TRAIN: False"),
        ({"TRAIN": False, "COMBINE": True}, "EPISODES.TRAIN: False"),
        ({"USE_CLASSIFICATION_ONLY": True}, "CLIP_FSAR.USE_CLASSIFICATION_ONLY: True"),
    ],
)
def test_a_transformer_that_would_stay_random(make, keys, what):
    message = (
        f"{what} leaves the temporal transformer as it is, random, and EPISODES.HEAD is 'own'; allowed with it: "
        "EPISODES.HEAD prototype or otam, or CLIP_FSAR.EVAL_TEXT True"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make(**keys)
    make(training=False, **keys)  # tests of weights that have one
    make(**keys, **{"TRAIN.ENABLE": False})


def test_single_videos_leave_the_transformer_out(tiny_cfg, labels):
    method = build_method(tiny_cfg(METHOD="clip_fsar"), labels)
    assert {name for name, _ in method.trainable_parameters()} == set(method.checkpoint_state())
    assert method.needs_weights == ""


def test_a_joint_space_that_the_heads_do_not_divide(make, tmp_path):
    sizes = ClipSizes(
        image_size=32, patch_size=8, vision_width=64, vision_layers=1, embed_dim=20, text_width=64, text_layers=1
    )
    path = tmp_path / "narrow.pt"
    torch.save(random_clip_state_dict(sizes, seed=0), path)
    message = f"MODEL.CLIP_WEIGHTS: {path} has a joint space of 20; allowed: multiples of 8, the heads of the temporal"
    with pytest.raises(ValueError, match=f"^{re.escape(message)} transformer$"):
        make(**{"MODEL.CLIP_WEIGHTS": str(path)})


def test_weights_are_wanted_where_the_transformer_is_read(make):
    wanted = "CLIP_FSAR: the temporal transformer is random"
    assert make(training=False).needs_weights == wanted
    assert make(training=False, COMBINE=True).needs_weights == wanted
    assert make(training=False, EVAL_TEXT=True).needs_weights == ""
    assert make(training=False, HEAD="otam").needs_weights == ""


def test_no_files_of_texts(fsar_cfg, labels):
    assert text_files(fsar_cfg(), labels) == []


# ---------------------------------------------------------------------------------------------------------- checkpoints


def official_style(make, weights):
    """Entries as an official file has them: those of the head alone."""
    generator = torch.Generator().manual_seed(2)
    state = make(**{"MODEL.CLIP_WEIGHTS": str(weights)}).state_dict()
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value + 3
        for name, value in state.items()
    }


def test_an_official_file_is_loaded_to_the_letter(make, tower_weights):
    state = official_style(make, tower_weights)
    method = make(training=False, **{"MODEL.CLIP_WEIGHTS": str(tower_weights)})
    assert isinstance(method, ClipFsar)
    load_into(method, state, source="official.pyth")
    assert all(torch.equal(method.state_dict()[name], value) for name, value in state.items())
    assert not method.load_state_dict(state, strict=True).missing_keys


@pytest.mark.parametrize("gone", ["head.scale", "head.context2.layers.0.1.net.3.bias", "head.backbone.proj"])
def test_a_test_wants_every_entry(make, tiny_weights, gone):
    state = official_style(make, tiny_weights)
    del state[gone]
    with pytest.raises(ValueError, match=rf"^a\.pyth: weights do not fit the model: 1 missing \({re.escape(gone)}\)"):
        load_into(make(training=False), state, source="a.pyth")


@pytest.mark.parametrize("keys", [{"EVAL_TEXT": True}, {"HEAD": "prototype"}, {"HEAD": "otam"}])
def test_a_test_that_reads_no_transformer_does_without(make, tiny_weights, keys):
    state = official_style(make, tiny_weights)
    rest = {name: value for name, value in state.items() if not name.startswith("head.context2.")}
    for entries in (state, rest):
        method = make(training=False, **keys)
        load_into(method, entries, source="a.pyth")
        assert torch.equal(method.head.scale, state["head.scale"])


def test_training_may_start_from_weights_without_a_transformer_or_a_scale(make, tiny_weights):
    state = official_style(make, tiny_weights)
    tower = {name: value for name, value in state.items() if name.startswith("head.backbone.")}
    method, fresh = make(), make()
    load_into(method, tower, source="a.pyth")
    for name, value in method.state_dict().items():
        assert torch.equal(value, tower[name] if name in tower else fresh.state_dict()[name]), name
    del tower["head.backbone.proj"]
    with pytest.raises(ValueError, match=r"1 missing \(head\.backbone\.proj\)"):
        load_into(make(), tower, source="a.pyth")


def test_other_classes(make, fsar_cfg, labels):
    """The text bank of another label set replaces the classes; one of the wrong length is refused."""
    method = make(training=False)
    few = type(labels).from_names(labels.names[:2])
    bank = method.text_bank(few)
    with pytest.raises(ValueError, match=r"^text prompts have 2 rows, but the label set has 6 classes$"):
        method.set_label_set(labels, bank)
    before = method.texts
    method.set_label_set(few, bank)
    assert torch.allclose(method.texts, before[:2], atol=1e-6)
