import re

import pytest
import torch

from slowfast.engine.complexity import count_gflops, count_parameters, describe, synthetic_clip

WIDTH, TOKENS, PATCH, EMBED = 64, 17, 8, 32


def naive_gflops(num_frames, num_classes):
    """Multiplications and additions of two blocks, patches, projection and classifier.

    The last block is applied to the class token: products of one row, and attention of one head over the tokens.
    """
    attention = 4 * TOKENS * WIDTH * WIDTH + 2 * TOKENS * TOKENS * WIDTH
    mlp = 2 * TOKENS * WIDTH * 4 * WIDTH
    last = 12 * WIDTH * WIDTH + 2 * TOKENS * WIDTH
    patches = (TOKENS - 1) * 3 * PATCH * PATCH * WIDTH
    per_frame = attention + mlp + last + patches + WIDTH * EMBED
    return 2 * (num_frames * per_frame + EMBED * num_classes) / 1e9


def test_operations_against_a_formula(stdd):
    method = stdd(None)
    found = count_gflops(method, synthetic_clip(num_frames=4, side=32))
    assert found == pytest.approx(naive_gflops(4, 3), rel=1e-3)


def test_operations_of_training_against_a_formula(stdd):
    """Backward costs twice the forward, but for gradients of pixels and of the class embeddings, which nobody needs."""
    method, frames = stdd(None), 4
    found = count_gflops(method, synthetic_clip(num_frames=frames, side=32), training=True)
    patches = 2 * frames * (TOKENS - 1) * 3 * PATCH * PATCH * WIDTH / 1e9
    classifier = 2 * EMBED * 3 / 1e9
    assert found == pytest.approx(3 * naive_gflops(frames, 3) - patches - classifier, rel=1e-3)


def test_counting_leaves_everything_as_it_was(stdd):
    method = stdd("stcross_attend").train()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in method.state_dict().items()}
    for training in (False, True):
        clip = synthetic_clip(num_frames=4, side=32)
        assert count_gflops(method, clip, training=training) > naive_gflops(4, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert method.training
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())


def test_parameters(make_method):
    method = make_method()
    head = 96 * 7 + 7
    assert count_parameters(method) == (head + 2 * 2 + 2, head)


def test_description(stdd):
    text = describe(stdd(None), num_frames=4, side=32)
    assert re.fullmatch(
        r"\d+\.\d\d M parameters, \d+\.\d\d M trained; \d+\.\d GFLOPs for a clip of 4 frames, 32 x 32 pixels", text
    )


def test_synthetic_clip():
    clip = synthetic_clip(num_frames=3, side=8)
    assert clip.frames.shape == (1, 3, 3, 8, 8)
    assert clip.frames.dtype == torch.uint8
