"""Open-VCLIP's block against a naive reading of its definition."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from slowfast.models.temporal.expand_view import FrameWindows, frame_windows

REACH = {"expand_temporal_view": 1, "expand_temporal_view_step2": 2, "expand_temporal_view_step3": 3}
WIDTH = 128


@pytest.mark.parametrize("masked", [False, True], ids=["zeros", "masked"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7])
@pytest.mark.parametrize("name", REACH)
def test_block_and_gradients_agree_with_the_naive_loops(make_block, naive, assert_agrees, name, num_frames, masked):
    def one_video(p, video):
        projected = [naive.project(p, naive.norm(p, "ln_1", frame)) for frame in video]
        frames = []
        for t, frame in enumerate(video):
            keys, values = [projected[t][1]], [projected[t][2]]
            for distance in range(1, REACH[name] + 1):
                for neighbour in (t + distance, t - distance):
                    if 0 <= neighbour < len(video):
                        keys.append(projected[neighbour][1])
                        values.append(projected[neighbour][2])
                    elif not masked:
                        keys.append(torch.zeros_like(keys[0]))
                        values.append(torch.zeros_like(values[0]))
            attended = naive.attend(p, projected[t][0], torch.cat(keys), torch.cat(values))
            frames.append(naive.add_mlp(p, frame + attended))
        return torch.stack(frames)

    assert_agrees(make_block(name, expand_view_masked=masked), one_video, num_frames=num_frames)


@pytest.mark.parametrize("name", REACH)
def test_away_from_the_ends_of_the_clip_masking_changes_nothing(make_block, name):
    reach = REACH[name]
    x = torch.randn(2, 2 * reach + 3, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    zeros, masked = make_block(name)(x), make_block(name, expand_view_masked=True)(x)
    assert torch.allclose(zeros[:, reach:-reach], masked[:, reach:-reach], atol=1e-5)
    for t in (*range(reach), *range(-reach, 0)):
        assert not torch.allclose(zeros[:, t], masked[:, t], atol=1e-3)


def test_one_masked_frame_is_a_plain_block(make_block):
    plain = make_block("None")
    block = make_block("expand_temporal_view", expand_view_masked=True)
    block.load_state_dict(plain.state_dict())
    x = torch.randn(2, 1, 5, WIDTH)
    assert torch.allclose(block(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("name", REACH)
def test_a_frame_reaches_its_neighbours_and_no_further(make_block, name):
    x = torch.randn(1, 9, 5, WIDTH, requires_grad=True)
    make_block(name)(x)[0, 4].sum().backward()
    seen = x.grad[0].abs().sum(dim=(1, 2)) > 0
    assert seen.nonzero().flatten().tolist() == list(range(4 - REACH[name], 4 + REACH[name] + 1))


@pytest.mark.parametrize("reach", [1, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_windows(reach, num_frames):
    x = torch.arange(1.0, 1 + num_frames * 6).view(num_frames, 2, 3)
    windows = frame_windows(x, reach)
    assert windows.shape == (num_frames, (2 * reach + 1) * 2, 3)
    for t in range(num_frames):
        for slot, neighbour in enumerate(range(t - reach, t + reach + 1)):
            tokens = windows[t, 2 * slot : 2 * slot + 2]
            assert torch.equal(tokens, x[neighbour] if 0 <= neighbour < num_frames else torch.zeros(2, 3))


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_gradient_of_the_windows(num_frames):
    x = torch.randn(num_frames, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: FrameWindows.apply(x, 2), (x,))


@pytest.mark.parametrize("num_videos", [1, 2])
@pytest.mark.parametrize("masked", [False, True], ids=["zeros", "masked"])
def test_keys_and_values_are_views_in_the_precision_of_the_step(make_block, monkeypatch, num_videos, masked):
    seen = []
    attention = F.scaled_dot_product_attention

    def record(q, k, v, **options):
        seen.extend((k, v))
        return attention(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    block = make_block("expand_temporal_view_step2", expand_view_masked=masked)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(torch.randn(num_videos, 6, 5, WIDTH))
    for tensor in seen:
        assert tensor.dtype == torch.bfloat16
        assert tensor.shape[-2] == 5 * 5  # tokens of five frames
        assert tensor.untyped_storage().nbytes() == num_videos * (6 + 2 * 2) * 5 * WIDTH * 2


def test_number_of_operations_does_not_grow_with_the_frames(make_block):
    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += 1
            return function(*args, **(kwargs or {}))

    block = make_block("expand_temporal_view_step3", expand_view_masked=True)
    counts = []
    for num_frames in (8, 16):
        x = torch.zeros(1, num_frames, 5, WIDTH, requires_grad=True)
        with Counter() as counter:
            block(x).sum().backward()
        counts.append(counter.count)
    assert counts[0] == counts[1]
