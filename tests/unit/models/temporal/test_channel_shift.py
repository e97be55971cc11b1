"""The channel shift against a naive reading of its definition."""

import pytest
import torch

from slowfast.models.temporal.channel_shift import from_next, from_previous

WIDTH = 128


def shift(frames):
    """Shift the channels of one video: list over frames of (L, D)."""
    c = WIDTH // 4
    shifted = []
    for t, frame in enumerate(frames):
        new = frame.clone()
        new[:, :c] = frames[t + 1][:, :c] if t + 1 < len(frames) else 0
        new[:, c : 2 * c] = frames[t - 1][:, c : 2 * c] if t > 0 else 0
        shifted.append(new)
    return shifted


@pytest.mark.parametrize("num_frames", [1, 2, 5, 9])
def test_block_and_gradients_agree_with_the_naive_loops(make_block, naive, assert_agrees, num_frames):
    def one_video(p, video):
        projected = [naive.project(p, naive.norm(p, "ln_1", frame)) for frame in video]
        queries, keys, values = zip(*projected, strict=True)
        frames = zip(video, queries, shift(keys), shift(values), strict=True)
        return torch.stack([naive.add_mlp(p, frame + naive.attend(p, q, k, v)) for frame, q, k, v in frames])

    assert_agrees(make_block("channel_shift"), one_video, num_frames=num_frames)


def test_shifts_are_opposite_and_fill_with_zeros():
    x = torch.arange(1.0, 4.0).view(1, 3, 1, 1)
    assert from_next(x).flatten().tolist() == [2, 3, 0]
    assert from_previous(x).flatten().tolist() == [0, 1, 2]
    assert from_next(x[:, :1]).flatten().tolist() == from_previous(x[:, :1]).flatten().tolist() == [0]


@pytest.mark.parametrize("t", [0, 4, 7, 8, 15])
def test_a_frame_sees_its_neighbours_across_the_whole_clip(make_block, t):
    """The reference cut clips into runs of eight frames: frames 7 and 8 of sixteen did not meet."""
    x = torch.randn(1, 16, 5, WIDTH, requires_grad=True)
    make_block("channel_shift")(x)[0, t].sum().backward()
    seen = x.grad[0].abs().sum(dim=(1, 2)) > 0
    assert seen.nonzero().flatten().tolist() == [i for i in (t - 1, t, t + 1) if 0 <= i < 16]


def test_equal_frames_attend_as_one_plain_frame_between_the_ends(make_block):
    plain, block = make_block("None"), make_block("channel_shift")
    block.load_state_dict(plain.state_dict())
    x = torch.randn(2, 1, 5, WIDTH).expand(-1, 4, -1, -1)
    assert torch.allclose(block(x)[:, 1:3], plain(x)[:, 1:3], atol=1e-5)
    assert not torch.allclose(block(x)[:, 0], plain(x)[:, 0], atol=1e-3)
