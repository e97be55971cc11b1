"""Names and shapes of parameters, and which of them train."""

import math

import pytest
import torch

from slowfast.methods.tc_clip.context_tokens import ContextOptions, ContextTower
from slowfast.methods.tc_clip.method import TCCLIP
from slowfast.methods.tc_clip.prompts import PromptedText
from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.model import CLIP
from slowfast.models.losses import cross_entropy

OF_ONE_CLASS_LIST = ("prompt_learner.token_prefix", "prompt_learner.token_suffix")
NOT_IN_CHECKPOINTS = {"model.token_embedding.weight"}


def assert_names(method, entries, official):
    """Every entry is a parameter of ours or a part of one, and the other way round."""
    own, filled = dict(method.named_parameters()), {}
    for name, shape in entries.items():
        if name.endswith(OF_ONE_CLASS_LIST):
            continue
        ours, part = official.own_name(name)
        assert official.pick(own[ours], part).shape == tuple(shape), name
        filled[ours] = filled.get(ours, 0) + math.prod(shape)
    assert filled == {name: p.numel() for name, p in own.items() if name not in NOT_IN_CHECKPOINTS}


def test_tiny_model(golden_tc_clip, build_tc, official):
    assert_names(build_tc(), golden_tc_clip["state_dict_keys"], official)


def test_full_size(golden_tc_clip, official):
    recorded, sizes = golden_tc_clip["full_size_state_dict"], PUBLISHED["vitb16"].sizes
    num_words = recorded["entries"]["module.prompt_learner.ctx"][0]
    suffix = recorded["entries"]["module.prompt_learner.token_suffix"]
    assert (suffix[0], suffix[2]) == (recorded["classes"], sizes.text_width)
    with torch.device("meta"):
        tower = ContextTower(sizes, ContextOptions(), levels=(sizes.vision_layers - 1,))
        words = torch.empty(num_words, sizes.text_width)
        text = PromptedText(sizes, words=words, levels=(sizes.text_layers - 1,))
        method = TCCLIP(
            CLIP(sizes, visual=tower), text=text, loss=cross_entropy, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
        )
    assert_names(method, recorded["entries"], official)
    assert sum(p.numel() for _, p in method.trainable_parameters()) == recorded["parameters"]
    buffers = [name for name in recorded["entries"] if name.endswith(OF_ONE_CLASS_LIST)]
    thirds = 2 * 2 * sizes.vision_layers  # weight and bias as three entries each
    trained = sum(1 for _ in method.trainable_parameters())
    assert len(recorded["entries"]) == trained + thirds + len(buffers)


@pytest.mark.parametrize("freeze", [None, "backbone", "image", "text"])
def test_trainable(golden_tc_clip, build_tc, official, freeze):
    method = build_tc(**{"TC_CLIP.FREEZE": freeze or ""})
    found = {name for name, _ in method.trainable_parameters()}
    assert set(golden_tc_clip["trainable"]) == {"None", "backbone", "image", "text"}
    assert found == {official.own_name(name)[0] for name in golden_tc_clip["trainable"][str(freeze)]}
