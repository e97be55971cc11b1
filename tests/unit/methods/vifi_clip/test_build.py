"""What building makes: the same every time, with the chosen parts trained, and which weights it takes."""

import dataclasses

import pytest
import torch

from slowfast.engine.average import patch_state
from slowfast.engine.checkpoint import load_model_state
from slowfast.engine.tested_weights import load_into
from slowfast.methods.vifi_clip.build import text_bank
from slowfast.methods.vifi_clip.config import VifiClipConfig
from slowfast.models.clip.arch import PUBLISHED
from slowfast.text.text_bank import TextBank
from slowfast.text.tokenizer import Tokenizer

BOTH = {"N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 3, "N_CTX_TEXT": 5, "PROMPT_DEPTH_TEXT": 2}
PROMPTS = {
    "prompt_learner.ctx": (5, 64),
    "model.visual.VPT": (3, 128),
    "model.visual.transformer.resblocks.1.VPT_shallow": (3, 128),
    "model.visual.transformer.resblocks.2.VPT_shallow": (3, 128),
    "model.transformer.resblocks.1.VPT_shallow": (5, 64),
}


def test_names_of_learned_vectors_are_the_published_ones(make, small_weights):
    state, clip = make(**BOTH).checkpoint_state(), torch.load(small_weights)
    assert set(state) == {f"model.{name}" for name in clip} | set(PROMPTS)
    assert {name: tuple(state[name].shape) for name in PROMPTS} == PROMPTS
    assert all(torch.equal(state[f"model.{name}"], tensor) for name, tensor in clip.items())


def test_without_learned_vectors_it_is_clip(make, small_weights):
    keys = {"N_CTX_VISION": 3, "PROMPT_DEPTH_TEXT": 4}
    assert set(make(**keys).checkpoint_state()) == {f"model.{name}" for name in torch.load(small_weights)}


def test_building_twice_gives_the_same(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = make(**BOTH, RNG_SEED=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    second, other = make(**BOTH).state_dict(), make(**BOTH).state_dict()
    assert all(torch.equal(second[name], other[name]) for name in first)
    for name in PROMPTS:
        assert not torch.equal(first[name], second[name])
        assert first[name].std().item() == pytest.approx(0.02, rel=0.3)
        assert abs(first[name].mean().item()) < 0.005


def test_few_vectors_of_the_text_start_from_words(make):
    method = make(N_CTX_TEXT=4)
    tokens = Tokenizer().encode("a photo of a")
    assert torch.equal(method.text.prompt_learner.ctx, method.model.token_embedding.weight[tokens])
    other = make(N_CTX_TEXT=2, CTX_INIT="somebody_doing").text.prompt_learner.ctx
    assert torch.equal(other, method.model.token_embedding.weight[Tokenizer().encode("somebody doing")])
    assert make(N_CTX_TEXT=4, CTX_INIT="").text.prompt_learner.ctx.std().item() == pytest.approx(0.02, rel=0.3)


def test_texts(small_cfg, labels):
    def texts(**keys):
        return text_bank(VifiClipConfig.from_cfg(small_cfg(**keys)), labels()).tokens

    def tokens(make_text):
        return Tokenizer()([make_text(name) for name in labels().names])[:, None]

    assert torch.equal(texts(), tokens(lambda name: f"a photo of a {name}."))
    assert torch.equal(texts(ZS_EVAL=True), tokens(lambda name: name))
    assert torch.equal(texts(CTX_INIT="see:"), tokens(lambda name: f"see: {name}."))
    assert torch.equal(texts(N_CTX_TEXT=2), tokens(lambda name: f"X X {name.replace('_', ' ')}."))


IMAGE, TEXT = ("model.visual.",), ("model.transformer.", "model.positional", "model.ln_final.", "model.text_proj")


@pytest.mark.parametrize(
    ("keys", "trained"),
    [
        ({}, (*IMAGE, *TEXT, "model.logit_scale")),
        ({"USE": "image"}, IMAGE),
        ({"USE": "text"}, TEXT),
        (BOTH, (*IMAGE, *TEXT, "model.logit_scale", "text.prompt_learner.ctx")),
        ({"N_CTX_TEXT": 5, "PROMPT_DEPTH_TEXT": 3, "USE": "text"}, (*TEXT, "text.prompt_learner.ctx")),
        ({"N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 3, "USE": "image"}, IMAGE),
    ],
)
def test_what_trains(make, keys, trained):
    method = make(**keys)
    found = {name for name, _ in method.trainable_parameters()}
    assert found == {name for name, _ in method.named_parameters() if name.startswith(trained)}
    assert all(any(name.startswith(prefix) for name in found) for prefix in trained)


@pytest.mark.parametrize("use", ["both", "image", "text"])
def test_learned_vectors_alone(make, use):
    method = make(**BOTH, USE=use, PROMPT_MODEL=True)
    found = {name.removeprefix("text.") for name, _ in method.trainable_parameters()}
    assert found == set(PROMPTS)


def moved(method):
    """A state dict that a method never starts from."""
    return {name: tensor + 0.01 for name, tensor in method.checkpoint_state().items()}


def test_training_starts_learned_vectors_on_tuned_weights(make):
    tuned, method = moved(make()), make(**BOTH, PROMPT_MODEL=True)
    before = {name: method.state_dict()[name].clone() for name in PROMPTS}
    load_into(method, tuned, source="k400.pyth")
    state = method.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tuned.items())
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_a_test_refuses_weights_without_learned_vectors(make):
    method = make(training=False, **BOTH, PROMPT_MODEL=True)
    with pytest.raises(ValueError, match=r"^k400\.pyth: weights do not fit the model: 5 missing \(.*VPT.*, \.\.\.\)$"):
        load_into(method, moved(make()), source="k400.pyth")
    own = moved(make(**BOTH))
    load_into(method, own, source="prompts.pyth")
    assert all(torch.equal(method.state_dict()[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("training", [True, False])
def test_learned_vectors_that_the_model_lacks_are_refused(make, training):
    deeper = moved(make(**{**BOTH, "PROMPT_DEPTH_VISION": 4}))
    with pytest.raises(ValueError, match=r"1 unexpected \(model\.visual\.transformer\.resblocks\.3\.VPT_shallow\)$"):
        load_into(make(training=training, **BOTH), deeper, source="file")
    with pytest.raises(ValueError, match=r"5 unexpected \("):
        load_into(make(training=training), moved(make(**BOTH)), source="file")


def test_some_of_the_learned_vectors_are_refused(make):
    some = moved(make(**{**BOTH, "N_CTX_TEXT": 0}))
    method = make(**BOTH)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    message = (
        r"^VIFI_CLIP\.PROMPT_DEPTH_VISION, PROMPT_DEPTH_TEXT: the weights hold 3 of 5 tensors of learned vectors, "
        r"\S+ is missing; allowed: all or none$"
    )
    with pytest.raises(ValueError, match=message):
        load_model_state(method, some, source="file", allow_missing=method.optional_prefixes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())


def test_raw_clip_is_mixed_into_the_towers_alone(make, small_weights):
    """TEST.PATCHING_RATIOS: learned vectors stay as they are."""
    method, own = make(training=False, **BOTH), moved(make(**BOTH))
    mixed = patch_state(torch.load(small_weights), own, ratio=0.5)
    load_into(method, mixed, source="file")
    state = method.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in PROMPTS)
    assert torch.allclose(state["model.text_projection"], own["model.text_projection"] - 0.005)


def test_random_weights_of_a_published_size(make, small_sizes, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "vitb16", dataclasses.replace(PUBLISHED["vitb16"], sizes=small_sizes))
    assert make(**{"MODEL.ARCH": "vitb16", "MODEL.CLIP_WEIGHTS": "random"}).model.sizes == small_sizes


def test_banks_that_do_not_fit(make, labels):
    method = make()
    with pytest.raises(ValueError, match=r"^text prompts have 2 rows, but the label set has 5 classes$"):
        method.set_label_set(labels(), TextBank(tokens=torch.zeros(2, 1, 77, dtype=torch.long)))
    with pytest.raises(ValueError, match=r"^the text tower needs texts to embed, but the text bank holds features"):
        method.set_label_set(labels(), TextBank(features=torch.ones(5, 32)))
    tokens = Tokenizer()(["a photo of a cat.", "a photo of a dog.", "a photo of the cat.", "one", "two"])[:, None]
    with pytest.raises(ValueError, match=r"^texts of the classes do not share their first 5 tokens$"):
        method.set_label_set(labels(), TextBank(tokens=tokens))
