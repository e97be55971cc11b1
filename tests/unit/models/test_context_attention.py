"""Attention to a frame and to the context of its video, against a matrix of probabilities."""

import pytest
import torch

from slowfast.models import context_attention as module
from slowfast.models.context_attention import Context, CpuKernel, PlainKernel, context_attention

B, T, HEADS = 2, 3, 2
SHAPES = {"all tokens": (7, 7, 5), "a few": (2, 7, 5), "one of one": (1, 1, 1), "many": (40, 40, 33)}
"""Rows of a frame that ask, tokens of a frame, tokens of the context."""
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
    ),
]
NAMES = ("q", "k", "v", "context_k", "context_v", "bias")


def make_inputs(rows, tokens, context, *, bias=True, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(device, dtype).requires_grad_()

    q = draw(B, T, rows, HEADS, 64)
    k, v = draw(B, T, tokens, HEADS, 64), draw(B, T, tokens, HEADS, 64)
    keys, values = draw(B, context, HEADS, 64), draw(B, context, HEADS, 64)
    return q, k, v, keys, values, draw(HEADS) if bias else None


def attend(inputs, way):
    q, k, v, keys, values, bias = inputs
    return context_attention(q, k, v, Context(keys, values, bias), way=way)


def explicit(inputs):
    """One video, frame and head after the other."""
    q, k, v, keys, values, bias = inputs
    videos = []
    for b in range(q.shape[0]):
        frames = []
        for t in range(q.shape[1]):
            heads = []
            for h in range(q.shape[3]):
                own = q[b, t, :, h] @ k[b, t, :, h].T / 8
                shared = q[b, t, :, h] @ keys[b, :, h].T / 8
                shared = shared if bias is None else shared + bias[h]
                weights = torch.cat((own, shared), dim=1).softmax(dim=1)
                heads.append(weights @ torch.cat((v[b, t, :, h], values[b, :, h])))
            frames.append(torch.stack(heads, dim=1))
        videos.append(torch.stack(frames))
    return torch.stack(videos)


def with_gradients(function, inputs):
    given = [x for x in inputs if x is not None]
    output = function(inputs)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype, device=output.device).view(output.shape)
    gradients = torch.autograd.grad((output * weights).sum(), given)
    return {"output": output.detach(), **dict(zip(NAMES, gradients, strict=False))}


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        error = (found[name].double() - value.double()).abs().max()
        assert error <= tolerance * max(1.0, value.abs().max().item()), name


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["auto", "parts", "joined"])
def test_against_probabilities(way, shape, bias):
    inputs = make_inputs(*SHAPES[shape], bias=bias)
    expected = with_gradients(explicit, inputs)
    assert_close(with_gradients(lambda inputs: attend(inputs, way), inputs), expected, 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("way", ["auto", "parts", "joined"])
def test_other_precisions(device, way, dtype, tolerance):
    if way == "parts" and device not in module.KERNELS:
        way = "joined"
    inputs = make_inputs(40, 40, 33, dtype=dtype, device=device)
    found = with_gradients(lambda inputs: attend(inputs, way), inputs)
    assert all(value.dtype == dtype for value in found.values())
    exact = [x.detach().double().cpu().requires_grad_() for x in inputs]
    assert_close({name: value.cpu() for name, value in found.items()}, with_gradients(explicit, exact), tolerance)


@pytest.mark.parametrize("shape", [(2, 3, 2), (3, 3, 1)])
def test_gradient_is_that_of_differences(shape):
    rows, tokens, context = shape
    inputs = [x.detach()[:1, :2].requires_grad_() if x.ndim == 5 else x for x in make_inputs(rows, tokens, context)]
    inputs[3:5] = [x.detach()[:1].requires_grad_() for x in inputs[3:5]]
    assert torch.autograd.gradcheck(lambda *inputs: attend(inputs, "parts"), inputs, fast_mode=True)


@pytest.mark.parametrize("kernel", [CpuKernel(), PlainKernel()], ids=["flash", "plain"])
@pytest.mark.parametrize("bias", [-80.0, 0.0, 80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bias_from_nothing_to_everything(monkeypatch, kernel, bias, dtype):
    """Either part may have a weight that is zero in floating point."""
    monkeypatch.setitem(module.KERNELS, "cpu", kernel)
    inputs = [x.detach().requires_grad_() for x in make_inputs(7, 7, 5, dtype=dtype)]
    inputs[5] = torch.full((HEADS,), bias, dtype=dtype, requires_grad=True)
    found = with_gradients(lambda inputs: attend(inputs, "parts"), inputs)
    assert all(value.isfinite().all() for value in found.values())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_close(found, with_gradients(explicit, inputs), tolerance)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_kernels_agree(monkeypatch, bias):
    inputs = make_inputs(7, 9, 5, bias=bias)
    expected = with_gradients(lambda inputs: attend(inputs, "parts"), inputs)
    monkeypatch.setitem(module.KERNELS, "cpu", PlainKernel())
    assert_close(with_gradients(lambda inputs: attend(inputs, "parts"), inputs), expected, 1e-12)


def test_normaliser_of_the_kernels():
    q, k, v = (torch.randn(2, 3, 5, 64, dtype=torch.float64) for _ in range(3))
    expected = (q @ k.transpose(-1, -2) / 8).logsumexp(dim=-1)
    for kernel in (CpuKernel(), PlainKernel()):
        _, lse = kernel.forward(q, k, v)
        assert torch.allclose(lse, expected)
        assert kernel.forward(q.float(), k.float(), v.float())[1].dtype == torch.float32


@pytest.mark.parametrize("way", ["auto", "parts", "joined"])
def test_shapes_alone(way):
    inputs = make_inputs(2, 7, 5, dtype=torch.float32, device="meta")
    found = with_gradients(lambda inputs: attend(inputs, way), inputs)
    assert all(value.is_meta for value in found.values())
    assert found["output"].shape == (B, T, 2, HEADS, 64)
    assert [found[name].shape for name in NAMES] == [x.shape for x in inputs]


def test_auto_computes_in_parts_on_a_cpu(monkeypatch):
    inputs = make_inputs(7, 7, 5, dtype=torch.float32)
    assert torch.equal(attend(inputs, "auto"), attend(inputs, "parts"))
    monkeypatch.setattr(module, "joined_attention", lambda *_: None)
    assert attend(inputs, "auto") is not None
    assert attend(inputs, "joined") is None


def test_device_without_kernels(monkeypatch):
    monkeypatch.delitem(module.KERNELS, "cpu")
    message = r"^TC_CLIP.CONTEXT_ATTENTION: 'parts' has no kernels for cpu; allowed: auto, joined$"
    with pytest.raises(ValueError, match=message):
        attend(make_inputs(7, 7, 5), "parts")
    attend(make_inputs(7, 7, 5), "joined")


def test_frames_share_the_context_and_nothing_else():
    q, k, v, keys, values, bias = make_inputs(7, 7, 5)
    before = attend((q, k, v, keys, values, bias), "parts")
    other = v.detach().clone()
    other[:, 1] += 1
    after = attend((q, k, other, keys, values, bias), "parts")
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])
    after = attend((q, k, v, keys, values.detach() + 1, bias), "parts")
    assert ((after - before).abs().amax(dim=(2, 3, 4)) > 0.01).all()
