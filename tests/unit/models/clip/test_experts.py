import re

import pytest
import torch

from slowfast.models.build import ExpertOptions, build_clip
from slowfast.models.clip.experts import experts_like_clip, record_routing, routing_penalty, take_routing
from slowfast.models.clip.layers import ResidualBlock
from slowfast.models.temporal import TEMPORAL_BLOCKS

TYPES = [None if name == "None" else name for name in TEMPORAL_BLOCKS]


def build(state, *, kind=None, count=2, layers=(1,), routing_type="patch-level"):
    experts = ExpertOptions(count=count, layers=layers, routing_type=routing_type)
    return build_clip(state, temporal_modeling_type=kind, experts=experts)


@pytest.fixture
def mixture(tiny_state):
    """A mixture whose experts all differ, and the block's own feed-forward part."""
    block = build(tiny_state).visual.transformer.resblocks[1]
    for parameter in block.mixture.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block.mixture, block.mlp


def naive(mixture, mlp, x, *, image_level=False):
    """Token by token, expert by expert: (T, L, D) -> (T, L, D)."""
    heads = [mlp.c_fc, *(expert.c_fc for expert in mixture.experts_head)]
    tails = [mlp.c_proj, *(expert.c_proj for expert in mixture.experts_tail)]
    hidden = torch.zeros(*x.shape[:2], 4 * x.shape[2])
    for t in range(x.shape[0]):
        for token in range(x.shape[1]):
            shares = mixture.routing1(x[t, 0 if image_level else token]).softmax(0)
            h = sum(share * head(x[t, token]) for share, head in zip(shares, heads, strict=True))
            hidden[t, token] = h * torch.sigmoid(1.702 * h)
    out = torch.zeros_like(x)
    for t in range(x.shape[0]):
        for token in range(x.shape[1]):
            shares = mixture.routing2(hidden[t, 0 if image_level else token]).softmax(0)
            out[t, token] = sum(share * tail(hidden[t, token]) for share, tail in zip(shares, tails, strict=True))
    return out


@pytest.mark.parametrize("routing_type", ["patch-level", "image-level"])
def test_mixture_against_a_loop(mixture, routing_type):
    module, mlp = mixture
    module.routing_type = routing_type
    x = torch.randn(3, 5, 64)
    with torch.no_grad():
        found, expected = module(x, mlp), naive(module, mlp, x, image_level=routing_type == "image-level")
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("kind", TYPES)
def test_experts_start_as_copies_so_that_nothing_changes(tiny_state, tiny_frames, kind):
    plain = build_clip(tiny_state, temporal_modeling_type=kind).eval()
    mixed = build(tiny_state, kind=kind, layers=(0, 1))
    mixed.load_state_dict(plain.state_dict(), strict=False)
    mixed.eval()
    with torch.no_grad():
        assert torch.allclose(mixed.encode_video(tiny_frames), plain.encode_video(tiny_frames), atol=1e-5)


def test_published_names(tiny_state):
    clip = build(tiny_state, count=2, layers=(1,))
    own = set(clip.state_dict()) - set(tiny_state)
    block = "visual.transformer.resblocks.1."
    expected = {f"{block}experts_head.{i}.c_fc.{kind}" for i in range(2) for kind in ("weight", "bias")}
    expected |= {f"{block}experts_tail.{i}.c_proj.{kind}" for i in range(2) for kind in ("weight", "bias")}
    expected |= {f"{block}routing{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    assert own == expected
    assert clip.state_dict()[f"{block}routing2.weight"].shape == (3, 256)


def test_experts_of_a_file_are_kept(tiny_state):
    clip = build(tiny_state)
    state = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    name = "visual.transformer.resblocks.1.experts_tail.1.c_proj.weight"
    state[name].normal_()
    assert torch.equal(build(state).state_dict()[name], state[name])


def test_layer_that_does_not_exist(tiny_state):
    message = "MODEL.EXPERT_INSERT_LAYERS: [1, 10] names block 10, but the image tower has blocks 0 to 1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(tiny_state, layers=(1, 10))


@pytest.mark.parametrize(("routing_type", "tokens"), [("patch-level", 17), ("image-level", 1)])
def test_shares_are_handed_out_once(tiny_state, tiny_frames, routing_type, tokens):
    clip = build(tiny_state, layers=(0, 1), routing_type=routing_type).train()
    clip.encode_video(tiny_frames)
    assert take_routing(clip) == []
    record_routing(clip)
    clip.encode_video(tiny_frames)
    shares = take_routing(clip)
    assert [tuple(share.shape) for share in shares] == [(2, 4, tokens, 3)] * 4
    assert all(torch.allclose(share.sum(dim=-1), torch.ones(2, 4, tokens)) for share in shares)
    assert take_routing(clip) == []
    clip.eval().encode_video(tiny_frames)
    assert take_routing(clip) == []


def test_penalty_against_the_formula():
    shares = [torch.tensor([[0.2, 0.8], [0.7, 0.3]]), torch.tensor([[0.5, 0.5], [0.1, 0.9]])]
    gaps = [0.3, -0.2, 0.0, 0.4]
    assert routing_penalty(shares, target=0.5, kind="mse").item() == pytest.approx(sum(g * g for g in gaps) / 4)
    assert routing_penalty(shares, target=0.5, kind="hinge").item() == pytest.approx(sum(max(g, 0) for g in gaps) / 4)


def test_raw_clip_as_a_mixture(tiny_state):
    clip = build(tiny_state, count=1)
    found = experts_like_clip(tiny_state, clip.state_dict())
    block = "visual.transformer.resblocks.1."
    assert set(found) == {f"{block}experts_{end}" for end in ("head.0.c_fc.weight", "head.0.c_fc.bias")} | {
        f"{block}experts_tail.0.c_proj.{kind}" for kind in ("weight", "bias")
    }
    assert torch.equal(found[f"{block}experts_head.0.c_fc.weight"], tiny_state[f"{block}mlp.c_fc.weight"])


def test_mixture_keeps_the_precision_of_the_residual_stream():
    block = ResidualBlock(64)
    block.add_experts(2)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert block.feed_forward(torch.randn(1, 3, 64, dtype=dtype)).dtype == dtype
