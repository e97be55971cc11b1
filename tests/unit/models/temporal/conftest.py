"""Blocks with random parameters and a naive reading of their common parts, one sequence and one head at a time."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.temporal import TEMPORAL_BLOCKS
from slowfast.utils.registry import resolve

WIDTH, HEAD, GRID = 128, 64, 2


@pytest.fixture(scope="session")
def make_block():
    """Makes a block by its name; unless asked for a fresh one, no parameter keeps a special value like zero."""

    def make(name, *, fresh=False, grid=GRID, **options):
        sizes = ClipSizes(
            image_size=8 * grid,
            patch_size=8,
            vision_width=WIDTH,
            vision_layers=1,
            embed_dim=32,
            text_width=64,
            text_layers=1,
        )
        block_class = resolve(TEMPORAL_BLOCKS, name, key="name")
        torch.manual_seed(11)
        block = block_class(sizes, block_class.options_class(**options))
        if not fresh:
            for parameter in block.parameters():
                parameter.data.add_(0.02 * torch.randn_like(parameter))
        return block.eval()

    return make


def project(p, tokens, prefix="attn"):
    """Queries, keys and values of one sequence, (L, D) each."""
    width = tokens.shape[1]
    weights, biases = p[f"{prefix}.in_proj_weight"].split(width), p[f"{prefix}.in_proj_bias"].split(width)
    return [tokens @ weight.T + bias for weight, bias in zip(weights, biases, strict=True)]


def attend(p, q, k, v, prefix="attn"):
    """Multi-head attention after the input projections and with the output projection, (L, D)."""
    heads = []
    for start in range(0, q.shape[1], HEAD):
        part = slice(start, start + HEAD)
        scores = q[:, part] @ k[:, part].T / math.sqrt(HEAD)
        heads.append(scores.softmax(dim=-1) @ v[:, part])
    return torch.cat(heads, dim=1) @ p[f"{prefix}.out_proj.weight"].T + p[f"{prefix}.out_proj.bias"]


def norm(p, name, tokens):
    return F.layer_norm(tokens, (tokens.shape[-1],), p[f"{name}.weight"], p[f"{name}.bias"])


def add_mlp(p, tokens):
    hidden = norm(p, "ln_2", tokens) @ p["mlp.c_fc.weight"].T + p["mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return tokens + hidden @ p["mlp.c_proj.weight"].T + p["mlp.c_proj.bias"]


@pytest.fixture(scope="session")
def naive():
    return SimpleNamespace(project=project, attend=attend, norm=norm, add_mlp=add_mlp)


def gradients(function, block, x, pull):
    """Output of a function of tokens, and gradients of its input and of the block's parameters."""
    tokens = x.clone().requires_grad_()
    block.zero_grad()
    output = function(tokens)
    (output * pull).sum().backward()
    return output.detach(), {"input": tokens.grad, **{n: p.grad.clone() for n, p in block.named_parameters()}}


@pytest.fixture(scope="session")
def assert_agrees():
    """Compares a block with a naive function of (parameters, tokens of one video), forward and backward."""

    def check(block, one_video, *, num_videos=2, num_frames=5, num_tokens=1 + GRID**2, tolerance=2e-5):
        generator = torch.Generator().manual_seed(3)
        x, pull = (torch.randn(num_videos, num_frames, num_tokens, WIDTH, generator=generator) for _ in range(2))

        def oracle(tokens):
            p = {name: parameter.double() for name, parameter in block.named_parameters()}
            return torch.stack([one_video(p, video) for video in tokens.double()])

        found, found_gradients = gradients(block, block, x, pull)
        expected, expected_gradients = gradients(oracle, block, x, pull)
        assert torch.allclose(found.double(), expected, atol=tolerance, rtol=0)
        for name, gradient in expected_gradients.items():
            error = (found_gradients[name] - gradient).abs().max().item()
            assert error <= tolerance * max(1.0, gradient.abs().max().item()), name

    return check
