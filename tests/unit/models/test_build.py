import re

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.config.values import TEMPORAL_MODELING_TYPES
from slowfast.models.build import ExpertOptions, block_option_names, build_clip, freeze
from slowfast.models.temporal import TEMPORAL_BLOCKS
from slowfast.models.temporal.plain import PlainBlock
from slowfast.models.temporal.st_cross import SpaceTimeCrossBlock
from slowfast.utils.registry import resolve


def test_configuration_and_table_name_the_same_types():
    assert [str(name) for name in TEMPORAL_MODELING_TYPES] == list(TEMPORAL_BLOCKS)


@pytest.mark.parametrize("name", TEMPORAL_BLOCKS)
def test_defaults_of_the_options_are_those_of_the_configuration(name):
    model = get_cfg().MODEL
    options = resolve(TEMPORAL_BLOCKS, name, key="x").options_class()
    for field in options.__dataclass_fields__:
        default, configured = getattr(options, field), getattr(model, field.upper())
        assert (list(default) if isinstance(default, tuple) else default) == configured, field


@pytest.mark.parametrize("name", TEMPORAL_BLOCKS)
def test_every_block_maps_tokens_to_tokens(name, tiny_sizes):
    block_class = resolve(TEMPORAL_BLOCKS, name, key="x")
    block = block_class(tiny_sizes, block_class.options_class())
    tokens = torch.randn(2, 3, 17, 64)
    assert block(tokens).shape == tokens.shape
    block(tokens).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize(("kind", "block"), [(None, PlainBlock), ("stcross_attend", SpaceTimeCrossBlock)])
def test_type_chooses_every_block(build_tiny, kind, block):
    assert [type(b) for b in build_tiny(kind).visual.transformer.resblocks] == [block] * 2


def test_weights_are_copied_in_fp32(tiny_state):
    clip = build_clip({name: tensor.half() for name, tensor in tiny_state.items()})
    for name, tensor in clip.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tiny_state[name].half().float())


def test_two_models_share_no_memory(tiny_state):
    first, second = build_clip(tiny_state), build_clip(tiny_state)
    with torch.no_grad():
        first.visual.proj.zero_()
    assert second.visual.proj.any()
    assert tiny_state["visual.proj"].any()


def test_options_reach_the_block(build_tiny):
    block = build_tiny("stcross_attend", mask_rate=0.25, temporal_scale=[1, 2]).visual.transformer.resblocks[1]
    assert (block.options.mask_rate, block.options.temporal_scale) == (0.25, [1, 2])


def test_options_of_other_types_are_ignored(build_tiny):
    build_tiny(None, mask_rate=0.25)


@pytest.mark.parametrize(("name", "hint"), [("mask_rat", "; did you mean 'mask_rate'?"), ("zzz", ";")])
def test_unknown_option(build_tiny, name, hint):
    message = f"unknown block option {name!r}{hint} allowed: {sorted(block_option_names())}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_tiny("stcross_attend", **{name: 1})


def test_unknown_type(build_tiny):
    message = (
        "MODEL.TEMPORAL_MODELING_TYPE: unknown value 'stcross'; did you mean 'stcross_attend'? "
        f"allowed: {sorted(TEMPORAL_BLOCKS)}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_tiny("stcross")


def test_missing_and_unexpected_entries(tiny_state):
    state = dict(tiny_state)
    del state["visual.ln_post.bias"]
    state["visual.extra"] = torch.zeros(1)
    message = "c.pt: does not fit the model: 1 entries missing ['visual.ln_post.bias'], 1 unexpected ['visual.extra']"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_clip(state, source="c.pt")


def test_wrong_shape(tiny_state):
    state = {**tiny_state, "visual.ln_post.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"^c\.pt: visual\.ln_post\.bias has shape \(3,\), the model \(64,\)$"):
        build_clip(state, source="c.pt")


def test_freeze(build_tiny):
    clip = build_tiny()
    freeze(clip)
    assert not clip.training
    assert not any(parameter.requires_grad for parameter in clip.parameters())


@pytest.mark.parametrize("kind", [None, "stcross_attend"])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_whole_tower_compiles_as_one_graph(build_tiny, tiny_frames, kind, train):
    torch._dynamo.reset()
    visual = build_tiny(kind).visual.train(train)
    compiled = torch.compile(visual, fullgraph=True, dynamic=False, backend="eager")
    torch.manual_seed(2)
    found = compiled(tiny_frames)
    torch.manual_seed(2)
    assert torch.allclose(found, visual(tiny_frames), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "experts", "dropped", "what"),
    [
        ("cross_frame_attend", None, "visual.transformer.resblocks.1.message_fc.bias", "temporal module"),
        (None, ExpertOptions(count=1, layers=[1]), "visual.transformer.resblocks.1.routing2.bias", "experts"),
    ],
)
def test_half_a_module_is_refused(tiny_state, kind, experts, dropped, what):
    state = build_clip(tiny_state, temporal_modeling_type=kind, experts=experts).state_dict()
    build_clip(state, temporal_modeling_type=kind, experts=experts, source="whole")
    del state[dropped]
    with pytest.raises(
        ValueError, match=rf"^half: holds \d+ of the \d+ parameters of the {what}; missing: \['{dropped}"
    ):
        build_clip(state, temporal_modeling_type=kind, experts=experts, source="half")
