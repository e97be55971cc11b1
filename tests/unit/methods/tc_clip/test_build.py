"""What building makes: the same every time, with the chosen parts frozen."""

import dataclasses

import pytest
import torch

from slowfast.methods.build import build_method
from slowfast.methods.tc_clip.build import first_words
from slowfast.methods.tc_clip.config import TcClipConfig
from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.layers import QuickGELU
from slowfast.text.text_bank import TextBank
from slowfast.text.tokenizer import Tokenizer

LEVELS = "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL"


@pytest.fixture
def make(small_cfg, labels):
    """Builds the method as it starts."""
    return lambda **keys: build_method(small_cfg(**keys), labels())


def test_building_twice_gives_the_same(make):
    keys = {"TC_CLIP.PROMPT_GENERATION_LAYER_INIT": "random", "TC_CLIP.CTX_INIT": "", "RNG_SEED": 7}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = make(**keys).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    second = make(**keys).state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = make(**{**keys, "RNG_SEED": 8}).state_dict()
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    new = ("prompt_learner.", "prompt_generation_layer.")
    assert "prompt_learner.ctx" in differing
    assert all(name.startswith(new) or name.endswith("bias_table") for name in differing)
    assert any(name.endswith("bias_table") for name in differing)


def test_what_clip_has_is_clips(make, small_weights):
    state, own = torch.load(small_weights), make().model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert all("bias_table" in name for name in set(own) - set(state))


def test_positions_of_every_frame_start_as_those_of_clip(make, small_weights):
    state = torch.load(small_weights)["visual.positional_embedding"]
    found = make(**{"TC_CLIP.POSITIONAL_EMBEDDING_TYPE": "joint"}).model.visual.positional_embedding
    assert torch.equal(found, state.expand(4, -1, -1))
    assert found.is_contiguous()
    assert found.requires_grad


def test_prompt_layers_start_as_the_blocks_that_they_stand_before(make):
    method = make(**{LEVELS: [-1, 1]})
    assert method.text.levels == (0, 2)
    for level, layer in zip(method.text.levels, method.text.prompt_generation_layer, strict=True):
        block = method.model.transformer.resblocks[level]
        pairs = {"attn": "attn", "ln_1": "ln_1", "ln_1_kv": "ln_1", "ln_2": "ln_2", "mlp": "mlp"}
        for own, other in pairs.items():
            expected = getattr(block, other).state_dict()
            for name, tensor in getattr(layer, own).state_dict().items():
                assert torch.equal(tensor, expected[name])
        assert not {p.data_ptr() for p in layer.parameters()} & {p.data_ptr() for p in block.parameters()}


@pytest.mark.parametrize(("activation", "kind"), [("quick_gelu", QuickGELU), ("gelu", torch.nn.GELU)])
@pytest.mark.parametrize("start", ["clip", "random"])
def test_prompt_layers_have_the_activation_of_clip(make, activation, kind, start):
    keys = {"MODEL.CLIP_ACTIVATION": activation, "TC_CLIP.PROMPT_GENERATION_LAYER_INIT": start}
    method = make(**keys)
    assert isinstance(method.text.prompt_generation_layer[0].mlp.gelu, kind)
    assert isinstance(method.model.visual.transformer.resblocks[0].mlp.gelu, kind)


def test_prompt_layers_at_random(make):
    layer = make(**{"TC_CLIP.PROMPT_GENERATION_LAYER_INIT": "random"}).text.prompt_generation_layer[0]
    for name, parameter in layer.named_parameters():
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
        elif name.startswith("ln") and name.endswith("weight"):
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            assert not parameter.any(), name


def test_words_start_as_those_of_clip(make, small_cfg):
    method = make(**{"TC_CLIP.N_CTX": 5, "TC_CLIP.CTX_INIT": "a_photo of"})
    words, table = method.text.prompt_learner.ctx, method.model.token_embedding.weight
    tokens = Tokenizer().encode("a photo of")
    assert torch.equal(words[:3], table[tokens])
    assert words[3:].std().item() == pytest.approx(0.02, rel=0.3)
    config = TcClipConfig.from_cfg(small_cfg(**{"TC_CLIP.CTX_INIT": ""}))
    assert first_words(config, method.model).std().item() == pytest.approx(0.02, rel=0.3)


IMAGE, TEXT = ("model.visual.",), ("model.transformer.", "model.positional", "model.ln_final.", "model.text_proj")
NEW = {"model.logit_scale", "text.prompt_learner.ctx"}


@pytest.mark.parametrize(
    ("freeze", "trained"), [("", IMAGE + TEXT), ("image", TEXT), ("text", IMAGE), ("backbone", ())]
)
def test_frozen_parts(make, freeze, trained):
    method = make(**{"TC_CLIP.FREEZE": freeze})
    found = {name for name, _ in method.trainable_parameters()}
    names = {name for name, _ in method.named_parameters()}
    layer = {name for name in names if name.startswith("text.prompt_generation_layer.")}
    assert found == NEW | layer | {name for name in names if name.startswith(trained or ("nothing",))}
    assert "model.token_embedding.weight" not in found


def test_new_modules_of_the_text_learn_faster(make):
    method = make()
    assert method.learning_rate_factors == {"text.prompt_learner.": 10.0, "text.prompt_generation_layer.": 10.0}
    names = [name for name, _ in method.named_parameters()]
    for prefix in method.learning_rate_factors:
        assert any(name.startswith(prefix) for name in names)
    assert make(**{"TC_CLIP.LR_10X": False}).learning_rate_factors == {}


def test_names_of_the_state_dict(make):
    state = make(**{LEVELS: [2, 3]}).state_dict()
    heads = {name.split(".")[0] for name in state}
    assert heads == {"model", "prompt_learner", "prompt_generation_layer"}  # what is kept and the tokens are not saved
    assert "prompt_generation_layer.1.ln_1_kv.weight" in state


def test_random_weights_of_a_published_size(tiny_cfg, labels, small_sizes, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "vitb16", dataclasses.replace(PUBLISHED["vitb16"], sizes=small_sizes))
    cfg = tiny_cfg(**{"METHOD": "tc_clip", "MODEL.ARCH": "vitb16", "MODEL.CLIP_WEIGHTS": "random"})
    assert build_method(cfg, labels()).model.sizes == small_sizes


def test_label_set_of_another_length(make, labels):
    bank = TextBank(tokens=torch.zeros(2, 1, 77, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^text prompts have 2 rows, but the label set has 5 classes$"):
        make().set_label_set(labels(), bank)


def test_features_are_no_prompts(make, labels):
    bank = TextBank(features=torch.ones(5, 64))
    with pytest.raises(
        ValueError, match=r"^the text tower needs texts to embed, but the text bank holds features only$"
    ):
        make().set_label_set(labels(), bank)
