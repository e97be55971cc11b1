import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slowfast.models.clip.layers import Attention, LayerNorm, QuickGELU, ResidualBlock

WIDTH = 192  # three heads


def twins():
    """Our attention and PyTorch's with the same random parameters."""
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True)
    nn.init.normal_(reference.in_proj_bias)
    nn.init.normal_(reference.out_proj.bias)
    ours = Attention(WIDTH)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_that_of_pytorch(causal):
    ours, reference = twins()
    x = torch.randn(4, 7, WIDTH)
    mask = torch.full((7, 7), float("-inf")).triu(1) if causal else None
    expected, _ = reference(x, x, x, attn_mask=mask, need_weights=False)
    assert torch.allclose(ours(x, causal=causal), expected, atol=1e-5)


def test_gradients_of_attention_are_those_of_pytorch():
    ours, reference = twins()
    x = torch.randn(4, 7, WIDTH)
    ours(x).pow(2).sum().backward()
    reference(x, x, x, need_weights=False)[0].pow(2).sum().backward()
    for (name, found), (_, expected) in zip(ours.named_parameters(), reference.named_parameters(), strict=True):
        scale = expected.grad.abs().max()
        assert (found.grad - expected.grad).abs().max() <= 1e-5 * scale, name


def test_parts_of_the_projection():
    ours, _ = twins()
    x = torch.randn(2, 3, 5, WIDTH)
    q, k, v = ours.project(x).unflatten(-1, (3, 3, 64)).unbind(-3)
    found_k, found_v = ours.keys_values(x)
    for found, expected in ((ours.queries(x), q), (found_k, k), (found_v, v)):
        assert found.shape == (2, 3, 5, 3, 64)
        assert torch.allclose(found, expected, atol=1e-5)


def test_tokens_as_keys_and_values():
    """A query through the keys' weights meets tokens as it meets keys, but for a constant; values likewise."""
    ours, _ = twins()
    ours.double()
    x = torch.randn(4, 7, WIDTH, dtype=torch.float64)
    q, (k, v) = ours.queries(x[:, 0]), ours.keys_values(x)
    scores = torch.einsum("nhd,nlhd->nhl", q, k)
    through = torch.einsum("nhw,nlw->nhl", ours.through_keys(q), x)
    constant = torch.einsum("nhd,hd->nh", q, ours.in_proj_bias.chunk(3)[1].unflatten(0, (3, 64)))
    assert torch.allclose(through + constant[..., None], scores)
    weights = scores.softmax(dim=-1)
    expected = torch.einsum("nhl,nlhd->nhd", weights, v)
    values = ours.through_values(torch.einsum("nhl,nlw->nhw", weights, x))
    assert torch.allclose(values + ours.in_proj_bias.chunk(3)[2].unflatten(0, (3, 64)), expected)


def test_first_token_alone():
    ours, _ = twins()
    x = torch.randn(2, 3, 7, WIDTH)
    assert torch.allclose(ours.attend_first(x), ours.attend(ours.project(x))[..., 0, :], atol=1e-5)


def test_every_leading_axis_is_a_batch_axis():
    ours, _ = twins()
    x = torch.randn(2, 3, 5, WIDTH)
    assert torch.allclose(ours(x).flatten(0, 1), ours(x.flatten(0, 1)), atol=1e-6)


def test_layer_norm_computes_in_fp32_and_keeps_the_dtype():
    norm = LayerNorm(WIDTH)
    nn.init.normal_(norm.weight)
    x = (100 * torch.randn(3, WIDTH)).to(torch.bfloat16)
    found = norm(x)
    assert found.dtype == torch.bfloat16
    expected = F.layer_norm(x.double(), (WIDTH,), norm.weight.double(), norm.bias.double(), norm.eps)
    assert torch.allclose(found.double(), expected, atol=0.02, rtol=0.01)


def test_quick_gelu():
    x = torch.linspace(-4, 4, 9)
    expected = torch.tensor([float(v / (1 + torch.exp(-1.702 * v))) for v in x])
    assert torch.allclose(QuickGELU()(x), expected)


def test_causal_block_never_looks_ahead():
    torch.manual_seed(0)
    block = ResidualBlock(64, causal=True)
    x = torch.randn(1, 6, 64)
    changed = x.clone()
    changed[:, 4:] = 0
    assert torch.equal(block(x)[:, :4], block(changed)[:, :4])
    assert not torch.equal(block(x)[:, 4], block(changed)[:, 4])
