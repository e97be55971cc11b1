"""The method against the one that is written straightforwardly, see tests/oracles: equal logits, equal gradients."""

import pytest
import torch
from torch.nn import functional as F

LEVELS = "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL"
SETTINGS = {
    "default": {},
    "two levels": {LEVELS: [2, 3]},
    "first level": {LEVELS: [1]},
    "all levels": {LEVELS: [-1, -2, -3]},
    "no level": {LEVELS: []},
    "few seeds": {"TC_CLIP.CONTEXT_TOKEN_K": 50},
    "one seed": {"TC_CLIP.SEED_TOKEN_A": 0.0, "TC_CLIP.CONTEXT_TOKEN_K": 1},
    "all patches": {"TC_CLIP.SEED_TOKEN_A": 1.0, "TC_CLIP.TOME_R": 40},
    "small steps": {"TC_CLIP.TOME_R": 2, "TC_CLIP.TOME_D": 0.5},
    "steps of nothing": {"TC_CLIP.TOME_R": 3, "TC_CLIP.TOME_D": 1.0},
    "no bias": {"TC_CLIP.LOCAL_GLOBAL_BIAS": False},
    "joint positions": {"TC_CLIP.POSITIONAL_EMBEDDING_TYPE": "joint"},
    "gradient into the context": {"TC_CLIP.IM_STOP_GRAD": False},
    "gradient into two contexts": {"TC_CLIP.IM_STOP_GRAD": False, LEVELS: [2, 3]},
    "gradient into an early context": {"TC_CLIP.IM_STOP_GRAD": False, LEVELS: [2]},
    "no context": {"TC_CLIP.TEMPORAL_CONTEXT": False},
    "no context, two levels, gradient": {
        "TC_CLIP.TEMPORAL_CONTEXT": False,
        LEVELS: [1, 3],
        "TC_CLIP.IM_STOP_GRAD": False,
    },
    "neither": {"TC_CLIP.TEMPORAL_CONTEXT": False, LEVELS: []},
    "joined": {"TC_CLIP.CONTEXT_ATTENTION": "joined"},
    "one word": {"TC_CLIP.N_CTX": 1, "TC_CLIP.CTX_INIT": ""},
    "exact gelu": {"MODEL.CLIP_ACTIVATION": "gelu"},
    "prompts at random": {"TC_CLIP.PROMPT_GENERATION_LAYER_INIT": "random"},
}


def logits_and_gradients(method, score, batch):
    logits = score(batch)
    names, parameters = zip(*method.trainable_parameters(), strict=True)
    gradients = torch.autograd.grad(F.cross_entropy(logits, batch.label), parameters, allow_unused=True)
    zeros = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True))
    return logits, dict(zip(names, zeros, strict=True))


def assert_equal(method, plain, batch, tolerance=1e-10):
    logits, gradients = logits_and_gradients(method, lambda batch: method(batch).logits, batch)
    expected, expected_gradients = logits_and_gradients(method, lambda batch: plain(batch.frames), batch)
    assert (logits - expected).abs().max() <= tolerance * expected.abs().max()
    largest = max(gradient.abs().max().item() for gradient in expected_gradients.values())
    assert largest > 0
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).abs().max() <= tolerance * gradient.abs().max() + 1e-4 * tolerance, name
    with torch.no_grad():
        method.eval()
        assert (method(batch).logits - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(build, plain_tc_clip, make_clips, name):
    method = build(**SETTINGS[name]).train()
    assert_equal(method, plain_tc_clip(method), make_clips())


@pytest.mark.parametrize("num_videos", [1, 3])
@pytest.mark.parametrize("num_classes", [1, 5])
def test_videos_and_classes(build, plain_tc_clip, make_clips, num_videos, num_classes):
    method = build(num_classes=num_classes, **{"TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL": [2, 3]}).train()
    batch = make_clips(num_videos, num_classes=num_classes)
    if num_classes > 1:
        return assert_equal(method, plain_tc_clip(method), batch)
    # Cross entropy of one class has no gradient; the logits do.
    logits, expected = method(batch).logits, plain_tc_clip(method)(batch.frames)
    assert (logits - expected).abs().max() <= 1e-10 * expected.abs().max()
    parameters = [p for _, p in method.trainable_parameters()]
    for found, gradient in zip(
        torch.autograd.grad(logits.sum(), parameters), torch.autograd.grad(expected.sum(), parameters), strict=True
    ):
        assert (found - gradient).abs().max() <= 1e-10 * gradient.abs().max() + 1e-14
    return None


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_number_of_frames(build, plain_tc_clip, make_clips, num_frames):
    method = build().train()
    assert_equal(method, plain_tc_clip(method), make_clips(num_frames=num_frames))


def test_a_joint_space_that_is_not_as_wide_as_the_text_tower(build, plain_tc_clip, tiny_weights, make_clips):
    keys = {"MODEL.CLIP_WEIGHTS": str(tiny_weights), "TC_CLIP.IM_STOP_GRAD": False}
    method = build(**keys, **{"TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL": [1, 2]}).train()
    assert method.model.sizes.embed_dim != method.model.sizes.text_width
    assert_equal(method, plain_tc_clip(method), make_clips(side=32))


def test_single_precision(build, plain_tc_clip, make_clips):
    method = build(torch.float32).train()
    assert_equal(method, plain_tc_clip(method), make_clips(), tolerance=1e-4)


def test_shorter_texts_are_the_same(build, plain_tc_clip, make_clips):
    method, batch = build().eval(), make_clips()
    with torch.no_grad():
        long, short = (plain_tc_clip(method, context_length=length)(batch.frames) for length in (None, 20))
    assert torch.allclose(long, short, rtol=1e-12, atol=1e-12)
