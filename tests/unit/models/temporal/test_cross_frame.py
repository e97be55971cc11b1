"""X-CLIP's block against a naive reading of its definition."""

import pytest
import torch
from torch import nn

WIDTH = 128
OWN = {
    "message_fc.weight": (WIDTH, WIDTH),
    "message_fc.bias": (WIDTH,),
    "message_ln.weight": (WIDTH,),
    "message_ln.bias": (WIDTH,),
    "message_attn.in_proj_weight": (3 * WIDTH, WIDTH),
    "message_attn.in_proj_bias": (3 * WIDTH,),
    "message_attn.out_proj.weight": (WIDTH, WIDTH),
    "message_attn.out_proj.bias": (WIDTH,),
}


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_block_and_gradients_agree_with_the_naive_loops(make_block, naive, assert_agrees, num_frames):
    def one_video(p, video):
        messages = torch.stack([frame[0] @ p["message_fc.weight"].T + p["message_fc.bias"] for frame in video])
        q, k, v = naive.project(p, naive.norm(p, "message_ln", messages), "message_attn")
        messages = messages + naive.attend(p, q, k, v, "message_attn")
        frames = []
        for frame, message in zip(video, messages, strict=True):
            q, k, v = naive.project(p, naive.norm(p, "ln_1", torch.cat((frame, message[None]))))
            frames.append(naive.add_mlp(p, frame + naive.attend(p, q, k, v)[:-1]))
        return torch.stack(frames)

    assert_agrees(make_block("cross_frame_attend"), one_video, num_frames=num_frames)


def test_parameters_have_the_published_names_and_shapes(make_block):
    block = make_block("cross_frame_attend")
    assert {n: tuple(p.shape) for n, p in block.named_parameters() if n.startswith("message")} == OWN


def test_message_attention_takes_the_weights_of_a_stock_attention(make_block):
    own = make_block("cross_frame_attend").message_attn
    stock = nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True)
    stock.load_state_dict(own.state_dict())
    messages = torch.randn(3, 6, WIDTH)
    assert torch.allclose(own(messages), stock(messages, messages, messages, need_weights=False)[0], atol=1e-5)


def test_a_fresh_block_starts_as_published(make_block):
    """Not at CLIP: only biases are zero, as in PyTorch's own attention."""
    block = make_block("cross_frame_attend", fresh=True)
    assert not block.message_attn.in_proj_bias.any()
    assert not block.message_attn.out_proj.bias.any()
    bound = (6 / (4 * WIDTH)) ** 0.5  # Xavier, of the packed matrix
    assert 0.95 * bound < block.message_attn.in_proj_weight.abs().max() <= bound
    for layer in (block.message_fc, block.message_attn.out_proj):
        assert 0.95 * WIDTH**-0.5 < layer.weight.abs().max() <= WIDTH**-0.5
    plain = make_block("None", fresh=True)
    plain.load_state_dict({n: p for n, p in block.state_dict().items() if n not in OWN})
    x = torch.randn(1, 3, 5, WIDTH)
    assert not torch.allclose(block(x), plain(x), atol=1e-3)


def test_every_frame_hears_every_other(make_block):
    x = torch.randn(1, 6, 5, WIDTH, requires_grad=True)
    make_block("cross_frame_attend")(x)[0, 2].sum().backward()
    heard = x.grad[0].abs().sum(dim=-1) > 0  # (T, L)
    assert heard[2].all()
    assert heard[:, 0].all()  # through the messages, which are made of class tokens
    assert not heard[[0, 1, 3, 4, 5], 1:].any()
