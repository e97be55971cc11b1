"""What STDD explains, against explicit softmaxes over the inputs of its blocks and a naive reading of the mask."""

import math

import pytest
import torch
from torch.nn import functional as F

from slowfast.methods.build import build_method
from slowfast.methods.explanation import Explanation, PatchView
from slowfast.models.temporal import TEMPORAL_BLOCKS

TYPES = [None if name == "None" else name for name in TEMPORAL_BLOCKS]


@pytest.fixture
def build(tiny_cfg, tiny_labels):
    def make(kind="stcross_attend", **keys):
        return build_method(tiny_cfg(**{"MODEL.TEMPORAL_MODELING_TYPE": kind, **keys}), tiny_labels, training=False)

    return make


def whole_forward(method, batch):
    """Inputs of all blocks, every block computed in full, one after the other."""
    tower = method.model.visual
    images = method.normalise(batch.frames).transpose(1, 2).flatten(0, 1)
    patches = tower.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat((tower.class_embedding.expand(len(patches), 1, -1), patches), dim=1) + tower.positional_embedding
    x = tower.ln_pre(x).unflatten(0, (len(batch), -1))
    inputs = []
    for block in tower.transformer.resblocks:
        inputs.append(x)
        x = block(x)
    return inputs


def shares(block, tokens):
    """The class token's softmax over all tokens of one frame, (L, D) -> (P * P,), one head at a time."""
    width = tokens.shape[1]
    normed = F.layer_norm(tokens, (width,), block.ln_1.weight, block.ln_1.bias)
    q, k, _ = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).split(width, dim=1)
    heads = [
        (k[:, start : start + 64] @ q[0, start : start + 64] / math.sqrt(64)).softmax(0)
        for start in range(0, width, 64)
    ]
    return torch.stack(heads).mean(0)[1:]


@torch.no_grad()
@pytest.mark.parametrize("kind", [None, "stcross_attend"])
def test_attention_is_the_softmax_over_the_own_frame(build, make_batch, kind):
    method, batch = build(kind).eval(), make_batch()
    explanations = method.explain(batch)
    for number, x in enumerate(whole_forward(method, batch)):
        block = method.model.visual.transformer.resblocks[number]
        for clip, explanation in enumerate(explanations):
            view = explanation.patches[number]
            assert view.layer == number + 1
            for t in range(4):
                expected = shares(block, x[clip, t]).view(4, 4)
                assert torch.allclose(view.attention[t], expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_kept_patches_are_those_of_the_mask(build, make_batch, rate):
    """In cells of 2 x 2 patches, numbered along their rows, k are masked from phase t on, cyclically."""
    (explanation, _) = build(**{"MODEL.MASK_RATE": rate}).eval().explain(make_batch())
    masked = int(rate * 16) // 4
    for view in explanation.patches:
        assert (view.what, view.group) == ("kept by the mask", None)
        for t in range(4):
            for row in range(4):
                for column in range(4):
                    slot = 2 * (row % 2) + column % 2
                    assert bool(view.chosen[t, row, column]) is not ((slot - t) % 4 < masked)


def test_a_shuffled_mask_is_that_of_the_forward(build, make_batch):
    method, batch = build(**{"MODEL.TEMPORAL_SHUFFLE_EVAL": True}).eval(), make_batch(num_frames=8)
    blocks, used = method.model.visual.transformer.resblocks, []

    def recording(kept):
        return lambda *sizes: used.append(kept(*sizes)) or used[-1]

    for block in blocks:
        block.kept = recording(block.kept)
    torch.manual_seed(3)
    with torch.no_grad():
        method(batch)
    forward, used[:] = list(used), []
    torch.manual_seed(3)
    explanations = method.explain(batch)
    assert not torch.equal(forward[0], forward[1])
    for number, kept in enumerate(forward):
        for clip, explanation in enumerate(explanations):
            for t in range(8):
                chosen = torch.nonzero(explanation.patches[number].chosen[t].flatten()).flatten() + 1
                assert chosen.tolist() == sorted(set(kept[clip, t].tolist()) - {0})


@pytest.mark.parametrize("kind", TYPES)
def test_every_temporal_module_has_attention_to_show(build, make_batch, kind):
    for explanation in build(kind).explain(make_batch()):
        assert [view.layer for view in explanation.patches] == [1, 2]
        for view in explanation.patches:
            assert view.attention.sum(dim=(1, 2)).min() > 0
            assert bool(view.what) is view.chosen.any().item() is (kind == "stcross_attend")


def test_views_are_in_full_precision(build, make_batch):
    method, batch = build(), make_batch()
    expected = method.explain(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = method.explain(batch)
    for one, other in zip(expected, found, strict=True):
        for own, same in zip(one.patches, other.patches, strict=True):
            assert torch.equal(own.attention, same.attention)


def test_views_are_checked():
    good = {"layer": 1, "attention": torch.zeros(2, 3, 3), "chosen": torch.zeros(2, 3, 3, dtype=torch.bool), "what": ""}
    assert PatchView(**good).group is None
    for wrong in (
        {"attention": torch.zeros(2, 9)},
        {"attention": torch.zeros(2, 3, 3).double()},
        {"chosen": torch.zeros(2, 3, 3)},
        {"chosen": torch.zeros(2, 9, dtype=torch.bool)},
        {"group": torch.zeros(2, 3, 3)},
    ):
        with pytest.raises(AssertionError):
            PatchView(**{**good, **wrong})
    with pytest.raises(AssertionError, match="out of order"):
        Explanation((PatchView(**good), PatchView(**good)))
