"""Names of an official checkpoint: each has a parameter of ours, of the same shape, and the other way round."""

import math

import torch

from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.convert import Rules, convert, target_state
from slowfast.models.clip.model import CLIP


def test_tiny_model(golden_ost, build_ost, official):
    recorded = {official.own_name(name): tuple(shape) for name, shape in golden_ost["state_dict_keys"].items()}
    assert len(recorded) == len(golden_ost["state_dict_keys"])
    assert recorded == {name: tuple(value.shape) for name, value in build_ost().checkpoint_state().items()}


def test_full_size(golden_ost):
    recorded = golden_ost["full_size_state_dict"]
    with torch.device("meta"):
        official = {name: torch.empty(tuple(shape)) for name, shape in recorded["entries"].items()}
        clip = CLIP(PUBLISHED["vitb16"].sizes)
    found = convert(official, Rules(), source="full size")
    assert not found.faults
    assert {name: tensor.shape for name, tensor in found.clip.items()} == {
        name: tensor.shape for name, tensor in clip.state_dict().items()
    }
    assert sum(math.prod(shape) for shape in recorded["entries"].values()) == recorded["parameters"]


def test_scores_of_converted_weights(golden_ost, build_ost, ost_batch, official, near):
    filled, method = build_ost(), build_ost()
    own = filled.checkpoint_state()
    state = {name: own[official.own_name(name)] for name in golden_ost["state_dict_keys"]}
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.fill_(1)
        method.load_state_dict(target_state(convert(state, Rules(), source="tiny"), "ours"))
        near(method.eval()(ost_batch).logits, golden_ost["inference"]["float32"]["logits"], relative=2e-5)
