"""The ST-Adapter against a naive reading of its definition and against PyTorch's convolutions."""

import pytest
import torch
from torch.nn import functional as F

from slowfast.models.temporal.st_adapter import TemporalConvolution

WIDTH = 128


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_block_and_gradients_agree_with_the_naive_loops(make_block, naive, assert_agrees, num_frames):
    def one_video(p, video):
        down, taps = p["stadapt_down_1.weight"].flatten(1), p["stadapt_conv3d_1.weight"].flatten(1)
        up = p["stadapt_up_1.weight"].flatten(1)
        narrow = [frame[1:] @ down.T + p["stadapt_down_1.bias"] for frame in video]
        frames = []
        for t, frame in enumerate(video):
            mixed = p["stadapt_conv3d_1.bias"]
            for tap, neighbour in enumerate((t - 1, t, t + 1)):
                if 0 <= neighbour < len(video):
                    mixed = mixed + narrow[neighbour] * taps[:, tap]
            adapted = torch.cat((frame[:1], frame[1:] + mixed @ up.T + p["stadapt_up_1.bias"]))
            q, k, v = naive.project(p, naive.norm(p, "ln_1", adapted))
            frames.append(naive.add_mlp(p, adapted + naive.attend(p, q, k, v)))
        return torch.stack(frames)

    assert_agrees(make_block("stadapt_zeroinit"), one_video, num_frames=num_frames)


def test_adapter_is_the_published_stack_of_convolutions(make_block):
    block = make_block("stadapt_zeroinit", grid=4)
    x = torch.randn(2, 5, 17, WIDTH)
    volume = x[:, :, 1:].unflatten(2, (4, 4)).permute(0, 4, 1, 2, 3)  # (B, D, T, P, P)
    volume = block.stadapt_up_1(block.stadapt_conv3d_1(block.stadapt_down_1(volume)))
    found = block.adapt(x)
    assert torch.allclose(found[:, :, 1:], volume.permute(0, 2, 3, 4, 1).flatten(2, 3), atol=1e-5)
    assert not found[:, :, 0].any()


def test_parameters_have_the_published_names_and_shapes(make_block):
    shapes = {n: list(p.shape) for n, p in make_block("stadapt_zeroinit").named_parameters() if n.startswith("stadapt")}
    narrow = WIDTH // 2
    assert shapes == {
        "stadapt_down_1.weight": [narrow, WIDTH, 1, 1, 1],
        "stadapt_down_1.bias": [narrow],
        "stadapt_conv3d_1.weight": [narrow, 1, 3, 1, 1],
        "stadapt_conv3d_1.bias": [narrow],
        "stadapt_up_1.weight": [WIDTH, narrow, 1, 1, 1],
        "stadapt_up_1.bias": [WIDTH],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_block_is_clip_exactly(make_block, dtype):
    block, plain = make_block("stadapt_zeroinit", fresh=True), make_block("None", fresh=True)
    plain.load_state_dict({n: p for n, p in block.state_dict().items() if not n.startswith("stadapt")})
    x = torch.randn(2, 4, 5, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(block(x), plain(x))


def test_a_fresh_block_learns(make_block):
    block = make_block("stadapt_zeroinit", fresh=True)
    block(torch.randn(1, 3, 5, WIDTH)).square().sum().backward()
    assert block.stadapt_up_1.weight.grad.any()
    assert block.stadapt_up_1.bias.grad.any()


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_temporal_convolution(num_frames):
    torch.manual_seed(2)
    x = torch.randn(2, num_frames, 3, 4, dtype=torch.float64, requires_grad=True)
    taps, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 3), (4,)))
    expected = F.conv2d(x.permute(0, 3, 1, 2), taps[:, None, :, None], bias, padding=(1, 0), groups=4)
    assert torch.allclose(TemporalConvolution.apply(x, taps, bias), expected.permute(0, 2, 3, 1))
    assert torch.autograd.gradcheck(TemporalConvolution.apply, (x, taps, bias))


def test_adapter_leaves_its_input_alone(make_block):
    x = torch.randn(1, 3, 5, WIDTH)
    before = x.clone()
    make_block("stadapt_zeroinit")(x)
    assert torch.equal(x, before)


def test_adapter_runs_in_the_precision_of_the_step(make_block, monkeypatch):
    seen = []
    convolve = TemporalConvolution.apply
    monkeypatch.setattr(TemporalConvolution, "apply", lambda *tensors: seen.extend(tensors) or convolve(*tensors))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        make_block("stadapt_zeroinit")(torch.randn(1, 3, 5, WIDTH))
    assert [tensor.dtype for tensor in seen] == [torch.bfloat16] * 3
