"""Projections of STDD's scales, derived and their own; and the whole block against the published one."""

import copy
import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.temporal.st_cross import SpaceTimeCrossBlock, StCrossOptions, take_tokens

WIDTH, GRID = 128, 4
ORACLE = Path(__file__).resolve().parents[3] / "oracles" / "published_stdd.py"


def make_block(*, train=False, width=WIDTH, **options):
    sizes = ClipSizes(
        image_size=8 * GRID,
        patch_size=8,
        vision_width=width,
        vision_layers=1,
        embed_dim=32,
        text_width=64,
        text_layers=1,
    )
    torch.manual_seed(11)
    block = SpaceTimeCrossBlock(sizes, StCrossOptions(**{"channel_fold": 16, **options})).train(train)
    for parameter in block.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return block


@pytest.fixture(scope="module")
def published_block():
    spec = importlib.util.spec_from_file_location("published_stdd", ORACLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PublishedBlock


def forward_and_gradients(block, x, function):
    tokens = x.clone().requires_grad_()
    torch.manual_seed(3)
    block.zero_grad()
    output = function(tokens)
    (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    return {"output": output.detach(), "input": tokens.grad, **{n: p.grad for n, p in block.named_parameters()}}


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= tolerance * max(1.0, value.abs().max().item()), name


CASES = [
    {"mask_rate": rate, "temporal_scale": scale, "stcross_mlp_input": read}
    for rate in (0.0, 0.3, 0.5, 0.75, 1.0)
    for scale, read in (([1], "unmerged"), ([1, 2], "merged"), ([2, 5], "unmerged"), ([1, 2], "unmerged"))
]


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
def test_published_block(published_block, options, num_frames, train):
    """Both ways of projecting, and the block as published: outputs and all gradients, with the same random masks."""
    block = make_block(train=train, temporal_shuffle_eval=True, **options)
    own = make_block(train=train, temporal_shuffle_eval=True, stcross_qkv="own", **options)
    rest = {name: value for name, value in options.items() if name != "stcross_mlp_input"}
    published = published_block(
        WIDTH,
        num_frames=num_frames,
        channel_fold=16,
        temporal_shuffle_eval=True,
        reads_merged=options["stcross_mlp_input"] == "merged",
        **rest,
    ).train(train)
    published.load_state_dict(block.state_dict())
    x = torch.randn(2, num_frames, 1 + GRID**2, WIDTH)

    def in_clips_layout(tokens):
        return published(tokens.flatten(0, 1).transpose(0, 1)).transpose(0, 1).unflatten(0, tokens.shape[:2])

    expected = forward_and_gradients(published, x, in_clips_layout)
    assert_close(forward_and_gradients(block, x, block), expected)
    assert_close(forward_and_gradients(own, x, own), expected)


@pytest.mark.parametrize("fold", [2, 3, 16, 1000])
def test_shared_and_own_projections_agree(fold):
    """From no channel to all channels changed."""
    results = []
    for choice in ("own", "shared"):
        block = make_block(train=True, temporal_scale=[1, 2], channel_fold=fold, stcross_qkv=choice)
        results.append(forward_and_gradients(block, torch.randn(2, 4, 17, WIDTH), block))
    assert_close(*results)


def extreme(name, width):
    x = torch.randn(2, 4, 17, width, generator=torch.Generator().manual_seed(5))
    if name == "large offset":
        x += 100
    if name == "outlier that moves":
        x[:, :, ::3, 2] += 100
    if name == "outlier that stays":
        x[:, :, ::3, width // 2] -= 1000
    if name == "small":
        x *= 1e-3
    return x


def projections(block, x):
    """Own and derived projections of all scales, and in fp64 what they should be."""
    exact = copy.deepcopy(block).double()
    kept = block.kept(*x.shape[:2])
    with torch.no_grad():
        tokens = take_tokens(x, kept)
        mixed = block.mix(tokens)
        own = block.attn.project(block.normed(tokens, mixed))
        derived = block.corrected(take_tokens(block.attn.project(block.ln_1(x)), kept), tokens, mixed)
        rest = tokens[..., mixed.shape[-1] :].expand(*mixed.shape[:-1], -1)
        normed = F.layer_norm(
            torch.cat((mixed, rest), dim=-1).double(), x.shape[-1:], exact.ln_1.weight, exact.ln_1.bias, exact.ln_1.eps
        )
        return own.double(), derived.double(), exact.attn.project(normed)


@pytest.mark.parametrize("name", ["plain", "large offset", "outlier that moves", "outlier that stays", "small"])
def test_derived_projections_of_extreme_tokens(name):
    """Variances do not cancel, and an outlier that a token loses costs a few bits of 24."""
    block = make_block(width=768, temporal_scale=[1, 2], channel_fold=32)
    own, derived, exact = projections(block, extreme(name, 768))
    error, own_error = ((found - exact).abs().max() / exact.abs().max() for found in (derived, own))
    assert error <= max(1e-5, 1.5 * own_error)


def test_derived_projections_under_autocast():
    """Ordinary tokens lose little in bfloat16, too, for whoever asks for it there."""
    block = make_block(width=768, temporal_scale=[1, 2], channel_fold=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own, derived, _ = projections(block, extreme("plain", 768))
    _, _, exact = projections(block, extreme("plain", 768))
    error, own_error = ((found - exact).square().mean() for found in (derived, own))
    assert error <= 1.5**2 * own_error


@pytest.mark.parametrize(("dtype", "choice"), [(torch.float32, "shared"), (torch.bfloat16, "own")])
def test_precision_decides_where_the_option_does_not(dtype, choice):
    found, x = [], torch.randn(1, 4, 17, WIDTH)
    block = make_block(temporal_scale=[1, 2])
    for option in ("auto", choice):
        block.options = dataclasses.replace(block.options, stcross_qkv=option)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            found.append(block(x))
    assert torch.equal(*found)


@pytest.mark.parametrize("choice", ["own", "shared"])
def test_both_compile(choice):
    torch._dynamo.reset()
    block, x = make_block(train=True, temporal_scale=[1, 2], stcross_qkv=choice), torch.randn(2, 4, 17, WIDTH)
    compiled = torch.compile(block, fullgraph=True, dynamic=False, backend="aot_eager")
    assert_close(forward_and_gradients(block, x, compiled), forward_and_gradients(block, x, block))
