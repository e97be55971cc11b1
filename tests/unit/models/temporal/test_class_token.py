"""The last block of a tower computes its class token alone: the same numbers as from the whole block."""

import pytest
import torch
from torch import nn

from slowfast.models.build import ExpertOptions, build_clip
from slowfast.models.clip.experts import record_routing, take_routing
from slowfast.models.clip.layers import Attention, ResidualBlock, Transformer
from slowfast.models.temporal import TEMPORAL_BLOCKS

VARIANTS = [(name, {}) for name in TEMPORAL_BLOCKS] + [
    ("stcross_attend", {"stcross_mlp_input": "merged", "temporal_scale": [1, 2], "channel_fold": 16}),
    ("stcross_attend", {"mask_rate": 1.0}),
    ("stcross_attend", {"mask_rate": 0.0, "temporal_scale": [2, 5]}),
]
every_block = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=[f"{n}-{'-'.join(o)}" for n, o in VARIANTS])
TYPES = [None if name == "None" else name for name in TEMPORAL_BLOCKS]


def whole(block):
    """The slow twin: everything, of which the class token is taken."""
    return lambda x: block(x)[:, :, 0]


def run(block, function, *, seed=4):
    """Output, gradients of the input and of every parameter, and the random state behind it."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 5, 128, generator=generator).requires_grad_()
    pull = torch.randn(2, 3, 128, generator=generator)
    torch.manual_seed(seed)
    block.zero_grad()
    output = function(x)
    state = torch.get_rng_state()
    (output * pull).sum().backward()
    return output.detach(), {"input": x.grad, **{n: p.grad for n, p in block.named_parameters()}}, state


def assert_same(found, expected, tolerance=1e-5):
    """All parameters have a gradient where the slow twin has one, so that none is left over in a distributed run."""
    assert torch.allclose(found[0], expected[0], atol=tolerance)
    assert torch.equal(found[2], expected[2])
    for name, gradient in expected[1].items():
        assert (found[1][name] is None) == (gradient is None), name
        if gradient is not None:
            scale = max(1.0, gradient.abs().max().item())
            assert (found[1][name] - gradient).abs().max() <= tolerance * scale, name


@every_block
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_output_gradients_and_draws_are_those_of_the_whole_block(make_block, name, options, train):
    block = make_block(name, **options).train(train)
    assert_same(run(block, block.class_token), run(block, whole(block)))


@pytest.mark.parametrize("name", [name for name in TEMPORAL_BLOCKS if name in ("None", "stcross_attend")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(make_block, name, dtype):
    block = make_block(name)
    x = torch.randn(2, 3, 5, 128, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block.class_token(x)
        found.float().square().sum().backward()
    expected = whole(block)(x.float())
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < 0.03 * expected.abs().max()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in block.parameters())


@every_block
def test_experts_see_every_token(make_block, name, options):
    block = make_block(name, **options)
    block.add_experts(2)
    record_routing(block)
    block.train()
    expected = run(block, whole(block))
    shares = [share.shape for share in take_routing(block)]
    assert_same(run(block, block.class_token), expected)
    assert [share.shape for share in take_routing(block)] == shares
    assert all(5 in shape for shape in shares)


def test_a_block_with_a_forward_of_its_own_computes_everything():
    class Doubled(ResidualBlock):
        def forward(self, x):
            return 2 * super().forward(x)

    block, x = Doubled(64), torch.randn(1, 2, 5, 64)
    assert torch.equal(block.class_token(x), block(x)[:, :, 0])


def test_any_module_may_be_the_last_block():
    tower = Transformer([ResidualBlock(64), nn.Linear(64, 64)])
    x = torch.randn(1, 2, 5, 64)
    assert torch.equal(tower.class_token(x), tower(x)[:, :, 0])


def test_first_token_of_an_attention():
    torch.manual_seed(0)
    attention = Attention(192)
    nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(2, 3, 7, 192)
    expected = attention.attend(attention.project(x))[..., 0, :]
    assert torch.allclose(attention.attend_first(x), expected, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_tower(tiny_state, tiny_frames, kind):
    """Features, gradients and the random stream of a tower that computes the whole last block."""
    clip = build_clip(tiny_state, temporal_modeling_type=kind).train()
    *_, last = clip.visual.transformer.resblocks
    results = []
    for function in (last.class_token, whole(last)):
        last.class_token = function
        torch.manual_seed(3)
        clip.zero_grad()
        features = clip.encode_video(tiny_frames)
        features.square().sum().backward()
        gradients = {n: None if p.grad is None else p.grad.clone() for n, p in clip.visual.named_parameters()}
        results.append((features.detach(), gradients, torch.get_rng_state()))
    assert_same(*results)
    assert all(gradient is not None for gradient in results[0][1].values())


def test_tower_with_experts_in_its_last_block(tiny_state, tiny_frames):
    clip = build_clip(tiny_state, experts=ExpertOptions(count=1, layers=[1])).train()
    record_routing(clip)
    clip.encode_video(tiny_frames)
    assert [share.shape for share in take_routing(clip)] == [(2, 4, 17, 2)] * 2
