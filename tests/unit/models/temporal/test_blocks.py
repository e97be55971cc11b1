"""What every temporal module promises, over the whole table."""

import dataclasses

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from slowfast.models.clip.layers import ResidualBlock
from slowfast.models.temporal import TEMPORAL_BLOCKS
from slowfast.utils.registry import resolve

WIDTH = 128
VARIANTS = [(name, {}) for name in TEMPORAL_BLOCKS] + [("expand_temporal_view_step2", {"expand_view_masked": True})]
every_block = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=[f"{n}-{''.join(o)}" for n, o in VARIANTS])


def clip(num_videos=2, num_frames=4, seed=1):
    return torch.randn(num_videos, num_frames, 5, WIDTH, generator=torch.Generator().manual_seed(seed))


@every_block
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 8)])
def test_maps_tokens_to_tokens(make_block, name, options, shape):
    tokens = clip(*shape)
    found = make_block(name, **options)(tokens)
    assert found.shape == tokens.shape
    assert found.isfinite().all()


@every_block
def test_gradients_reach_every_parameter(make_block, name, options):
    block = make_block(name, **options).train()
    x = clip().requires_grad_()
    block(x).square().sum().backward()
    assert x.grad.abs().sum(dim=(2, 3)).ne(0).all()
    for parameter_name, parameter in block.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name


@every_block
def test_a_video_does_not_depend_on_the_others_of_its_batch(make_block, name, options):
    block = make_block(name, **options)
    first, second = clip(seed=1), clip(seed=2)
    mixed = torch.cat((first[:1], second[1:]))
    assert torch.allclose(block(first)[0], block(mixed)[0], atol=1e-6)
    assert torch.allclose(block(first)[1], block(first[1:])[0], atol=1e-5)
    x = first.requires_grad_()
    block(x)[0].sum().backward()
    assert not x.grad[1].any()


@every_block
def test_evaluation_draws_no_random_number(make_block, name, options):
    block, x = make_block(name, **options), clip()
    state = torch.get_rng_state()
    assert torch.equal(block(x), block(x))
    assert torch.equal(torch.get_rng_state(), state)


@every_block
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_compiles_as_one_graph(make_block, name, options, train):
    torch._dynamo.reset()
    block, x = make_block(name, **options).train(train), clip()
    compiled = torch.compile(block, fullgraph=True, dynamic=False, backend="aot_eager")
    results = []
    for function in (compiled, block):
        torch.manual_seed(4)
        block.zero_grad()
        output = function(x)
        output.square().sum().backward()
        results.append((output.detach(), {n: p.grad.clone() for n, p in block.named_parameters()}))
    (found, found_gradients), (expected, expected_gradients) = results
    assert torch.allclose(found, expected, atol=1e-5)
    for parameter_name, gradient in expected_gradients.items():
        scale = max(1.0, gradient.abs().max().item())
        assert torch.allclose(found_gradients[parameter_name], gradient, atol=1e-4 * scale), parameter_name


@every_block
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_dtype_of_the_residual(make_block, name, options, dtype):
    block = make_block(name, **options)
    x = clip().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block(x)
        found.float().square().sum().backward()
    assert found.dtype == dtype
    expected = block(x.float())
    assert (found.float() - expected).abs().max() < 0.03 * expected.abs().max()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in block.parameters())


@every_block
def test_runs_without_data(make_block, name, options):
    """On the meta device there are no values to look at, so nothing in the forward may wait for them."""
    block = make_block(name, **options).train().to("meta")
    assert block(clip().to("meta")).shape == clip().shape


@every_block
def test_recomputation_gives_the_same_gradients(make_block, name, options):
    block = make_block(name, **options).train()
    gradients = []
    for function in (block, lambda x: checkpoint(block, x, use_reentrant=False)):
        torch.manual_seed(6)
        block.zero_grad()
        function(clip().requires_grad_()).square().sum().backward()
        gradients.append([p.grad.clone() for p in block.parameters()])
    assert all(torch.equal(kept, recomputed) for kept, recomputed in zip(*gradients, strict=True))


@every_block
def test_leaves_its_input_alone(make_block, name, options):
    x = clip()
    make_block(name, **options).train()(x)
    assert torch.equal(x, clip())


@every_block
def test_feed_forward_part_can_be_exchanged(make_block, monkeypatch, name, options):
    block, calls = make_block(name, **options), []
    monkeypatch.setattr(block, "feed_forward", lambda x: calls.append(x.shape) or torch.zeros_like(x))
    block(clip())
    assert calls == [clip().shape]


@pytest.mark.parametrize("name", TEMPORAL_BLOCKS)
def test_state_dict_is_clips_and_the_published_names(make_block, name):
    parts = {
        "cross_frame_attend": {
            "message_fc.weight",
            "message_fc.bias",
            "message_ln.weight",
            "message_ln.bias",
            "message_attn.in_proj_weight",
            "message_attn.in_proj_bias",
            "message_attn.out_proj.weight",
            "message_attn.out_proj.bias",
        },
        "stadapt_zeroinit": {
            f"stadapt_{layer}_1.{kind}" for layer in ("down", "conv3d", "up") for kind in ("weight", "bias")
        },
    }
    block = make_block(name)
    assert set(block.state_dict()) == set(ResidualBlock(WIDTH).state_dict()) | parts.get(name, set())


@pytest.mark.parametrize("name", TEMPORAL_BLOCKS)
def test_options_are_a_frozen_dataclass_with_defaults(name):
    block_class = resolve(TEMPORAL_BLOCKS, name, key="name")
    assert issubclass(block_class, ResidualBlock)
    assert block_class.Options is block_class.options_class
    options = block_class.options_class()
    assert block_class.options_class.__dataclass_params__.frozen
    assert dataclasses.asdict(options) is not None
