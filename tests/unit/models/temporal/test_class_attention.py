"""The class token's attention, against a softmax over the keys of one frame at a time."""

import math

import pytest
import torch

from slowfast.models.clip.class_attention import class_attention

NUM_FRAMES, NUM_TOKENS = 5, 5


def mean_shares(q, k):
    """Softmax of a query over keys, (D,) and (L, D) -> (L,), mean over heads of 64 channels."""
    parts = [slice(start, start + 64) for start in range(0, len(q), 64)]
    return torch.stack([(k[:, part] @ q[part] / math.sqrt(64)).softmax(0) for part in parts]).mean(0)


def normed_keys(naive, p, video):
    """Queries and keys of a video's frames, (T, L, D) each."""
    pairs = [naive.project(p, naive.norm(p, "ln_1", frame))[:2] for frame in video]
    return [torch.stack(part) for part in zip(*pairs, strict=True)]


def plain(naive, p, video, block):
    q, k = normed_keys(naive, p, video)
    return torch.stack([mean_shares(q[t, 0], k[t])[1:] for t in range(NUM_FRAMES)])


def expanded(naive, p, video, block):
    q, k = normed_keys(naive, p, video)
    rows = []
    for t in range(NUM_FRAMES):
        window = [
            k[s] if 0 <= s < NUM_FRAMES else torch.zeros_like(k[0])
            for s in range(t - block.reach, t + block.reach + 1)
            if 0 <= s < NUM_FRAMES or not block.options.expand_view_masked
        ]
        own = block.reach if not block.options.expand_view_masked else min(t, block.reach)
        rows.append(mean_shares(q[t, 0], torch.cat(window)).view(-1, NUM_TOKENS)[own, 1:])
    return torch.stack(rows)


def shifted(naive, p, video, block):
    q, k = normed_keys(naive, p, video)
    share, mixed = k.shape[-1] // 4, k.clone()
    mixed[:, :, : 2 * share] = 0
    mixed[:-1, :, :share] = k[1:, :, :share]
    mixed[1:, :, share : 2 * share] = k[:-1, :, share : 2 * share]
    return torch.stack([mean_shares(q[t, 0], mixed[t])[1:] for t in range(NUM_FRAMES)])


def with_message(naive, p, video, block):
    return plain(naive, p, block.extended(video[None].float())[0].double(), block)[:, :-1]


def adapted(naive, p, video, block):
    tokens = video[None].float()
    return plain(naive, p, (tokens + block.adapt(tokens))[0].double(), block)


@pytest.mark.parametrize(
    ("name", "options", "oracle"),
    [
        ("None", {}, plain),
        ("stcross_attend", {}, plain),
        ("expand_temporal_view", {}, expanded),
        ("expand_temporal_view_step2", {"expand_view_masked": True}, expanded),
        ("expand_temporal_view_step3", {}, expanded),
        ("channel_shift", {}, shifted),
        ("cross_frame_attend", {}, with_message),
        ("stadapt_zeroinit", {}, adapted),
    ],
)
@torch.no_grad()
def test_attention_to_the_patches_of_the_own_frame(make_block, naive, name, options, oracle):
    block = make_block(name, **options)
    x = torch.randn(2, NUM_FRAMES, NUM_TOKENS, 128, generator=torch.Generator().manual_seed(3))
    found = class_attention(block, x)
    assert found.dtype == torch.float32
    p = {name: parameter.double() for name, parameter in block.named_parameters()}
    expected = torch.stack([oracle(naive, p, video.double(), block) for video in x])
    assert torch.allclose(found.double(), expected, atol=1e-6)


@torch.no_grad()
def test_half_precision_is_computed_in_single(make_block):
    block = make_block("None")
    x = torch.randn(1, 2, NUM_TOKENS, 128, generator=torch.Generator().manual_seed(3)).bfloat16()
    assert class_attention(block, x).dtype == torch.float32
