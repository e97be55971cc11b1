"""The method against the one that is written straightforwardly, see tests/oracles: equal logits, equal gradients."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from slowfast.models.similarity import unit_norm

NAMES = ("surfing", "pouring tea", "ApplyLipstick", "riding a very old bike down a hill", "push_up")


def vectors(vision=(0, 0), text=(0, 1), **keys):
    """Keys of learned vectors, (number, depth) of either tower."""
    return {
        "N_CTX_VISION": vision[0],
        "PROMPT_DEPTH_VISION": vision[1],
        "N_CTX_TEXT": text[0],
        "PROMPT_DEPTH_TEXT": text[1],
        **keys,
    }


SETTINGS = {
    "full": {},
    "bare names": {"ZS_EVAL": True},
    "no words": {"CTX_INIT": ""},
    "other words": {"CTX_INIT": "a_video showing somebody"},
    "image": {"USE": "image"},
    "text": {"USE": "text"},
    "vision, shallow": vectors(vision=(3, 1), PROMPT_MODEL=True),
    "vision, two": vectors(vision=(1, 2), PROMPT_MODEL=True),
    "vision, deep": vectors(vision=(3, 3), PROMPT_MODEL=True),
    "vision, all blocks": vectors(vision=(2, 4), PROMPT_MODEL=True),
    "text, shallow": vectors(text=(5, 1), PROMPT_MODEL=True),
    "text, two": vectors(text=(1, 2), CTX_INIT="", PROMPT_MODEL=True),
    "text, deep": vectors(text=(4, 3), PROMPT_MODEL=True),
    "text, all blocks": vectors(text=(6, 4), PROMPT_MODEL=True),
    "both": vectors(vision=(3, 3), text=(5, 4), PROMPT_MODEL=True),
    "both and the towers": vectors(vision=(3, 2), text=(5, 3)),
    "vectors and their tower": vectors(vision=(2, 4), USE="image"),
}


def write_texts(N_CTX_TEXT=0, CTX_INIT="a photo of a", ZS_EVAL=False, **rest):
    del rest
    if ZS_EVAL:
        return list(NAMES)
    if N_CTX_TEXT:
        return [" ".join(["X"] * N_CTX_TEXT) + f" {name.replace('_', ' ')}." for name in NAMES]
    return [f"{CTX_INIT.replace('_', ' ')} {name}." for name in NAMES]


@pytest.mark.parametrize("name", SETTINGS)
def test_equal_to_the_plain_method(build, make_clips, plain_vifi_clip, name):
    method, batch = build(**SETTINGS[name]), make_clips()
    plain = plain_vifi_clip(method, write_texts(**SETTINGS[name]))
    expected = plain(batch.frames)
    names, parameters = zip(*method.trainable_parameters(), strict=True)
    output = method.train()(batch)
    assert (output.logits - expected).abs().max() <= 1e-10
    loss = F.cross_entropy(expected, batch.label)
    assert abs(output.losses["classification"] - loss) <= 1e-10
    found = torch.autograd.grad(output.losses["classification"], parameters)
    for key, gradient, other in zip(names, found, torch.autograd.grad(loss, parameters), strict=True):
        assert (gradient - other).abs().max() <= 1e-10 * max(1.0, other.abs().max().item()), key
        assert other.any(), key
    with torch.no_grad():
        for _ in range(2):  # the second time with kept texts
            assert (method.eval()(batch).logits - expected).abs().max() <= 1e-10


def test_mixed_targets(build, make_clips, plain_vifi_clip):
    method, batch = build(**{"MODEL.LOSS_FUNC": "soft_cross_entropy"}), make_clips()
    weights = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1], [0.02, 0.48, 0.46, 0.02, 0.02]])
    output = method.train()(replace(batch, weights=weights))
    logits = plain_vifi_clip(method, write_texts())(batch.frames)
    expected = -(weights * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
    assert abs(output.losses["classification"] - expected) <= 1e-10


def test_frames_are_averaged_before_they_are_normalised(build, make_clips):
    method, batch = build(), make_clips()
    with torch.no_grad():
        frames = method.model.encode_video(method.normalise(batch.frames))
        frames[:, 0] *= 50  # a long frame counts more
        method.model.encode_video = lambda _: frames
        cosines = F.normalize(frames.mean(dim=1), dim=-1) @ method.text(method.model).T
        assert torch.allclose(method(batch).logits, method.model.logit_scale.exp() * cosines)


@pytest.mark.parametrize("name", ["full", "both"])
def test_a_score_does_not_depend_on_other_classes(build, make_clips, labels, name):
    method, few = build(**SETTINGS[name]).eval(), build(**SETTINGS[name]).eval()
    few.text.tokens = few.text.tokens[[3, 1]]
    with torch.no_grad():
        full, part = method(make_clips()).logits, few(make_clips()).logits
    assert torch.allclose(full[:, [3, 1]], part, rtol=1e-10)


@pytest.mark.parametrize("name", ["full", "vision, shallow", "vision, deep", "vision, all blocks"])
def test_explanation_is_the_attention_of_the_class_token_to_patches(build, make_clips, plain_vifi_clip, name):
    method, batch = build(torch.float32, **SETTINGS[name]), make_clips()
    plain = plain_vifi_clip(method, write_texts(**SETTINGS[name]))
    plain(batch.frames)
    explanations = method.explain(batch)
    assert len(explanations) == 2
    for clip, explanation in enumerate(explanations):
        assert [view.layer for view in explanation.patches] == [1, 2, 3, 4]
        for view, attention in zip(explanation.patches, plain.class_attention, strict=True):
            expected = attention.unflatten(0, (2, 3))[clip, :, 1:10].view(3, 3, 3)
            assert torch.allclose(view.attention, expected, atol=1e-6)
            assert not view.chosen.any()


def test_half_precision(build, make_clips):
    method, batch = build(torch.float32, **SETTINGS["both and the towers"]).train(), make_clips()
    logits = method(batch).logits.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch)
    output.losses["classification"].backward()
    assert output.logits.dtype == torch.float32
    assert (output.logits - logits).abs().max() < 0.05 * logits.abs().max()
    assert all(parameter.grad.isfinite().all() for _, parameter in method.trainable_parameters())


def test_texts_are_trimmed_and_of_unit_length(build):
    method = build(**SETTINGS["both"])
    tokens, found = method.text.tokens, method.text(method.model)
    assert tokens.shape == (5, int(tokens.argmax(dim=-1).max()) + 1)
    assert torch.allclose(found, unit_norm(found))
