"""CLIP with a ResNet image tower: features in both modes, statistics, gradients, and the whole model.

The recording has a text tower 32 wide with one head; ours has heads 64 wide. A tower that has every channel twice
computes the same: norms see the same mean and deviation, and what reads a channel reads both halves of it.
"""

import pytest
import torch

from slowfast.models.build import build_clip
from slowfast.models.clip.arch import HEAD_WIDTH, read_sizes
from slowfast.models.clip.weights import clip_entries

NOISE = 1e-6  # of the largest gradient: what the softmax cancels, as the keys' bias


def widened(state, factor):
    """The same CLIP with every channel of the text tower, and of its one head, that many times."""
    if factor == 1:
        return state

    def outputs(tensor):
        return tensor.repeat_interleave(factor, dim=0)

    def inputs(tensor):
        return tensor.repeat_interleave(factor, dim=1) / factor

    found = dict(state)
    for name in ("positional_embedding", "token_embedding.weight"):
        found[name] = state[name].repeat_interleave(factor, dim=1)
    found["text_projection"] = outputs(state["text_projection"]) / factor
    for name in (name for name in state if name.startswith(("ln_final.", "transformer."))):
        if ".attn.in_proj_" in name:
            parts = [outputs(part) for part in state[name].chunk(3)]
            parts[0] = parts[0] * factor**-0.5  # products are a factor larger, and heads scale them by its root
            found[name] = torch.cat(parts)
        else:
            found[name] = outputs(state[name])
        if state[name].ndim == 2:
            found[name] = inputs(found[name])
    return found


@pytest.fixture(scope="module")
def build(golden_resnet):
    """Builds the recorded CLIP, in either mode."""
    recorded = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in
                golden_resnet["clip_sd"].items()}  # fmt: skip
    width = recorded["ln_final.weight"].shape[0]
    state = widened(recorded, max(1, HEAD_WIDTH // width))
    return lambda train=False: build_clip(clip_entries(state, source="recording")).train(train)


@pytest.fixture(scope="module")
def frames(golden_resnet):
    """The recorded images as the frames of one video, (1, 3, T, H, W)."""
    return golden_resnet["images"].float().transpose(0, 1)[None]


def test_sizes(golden_resnet, build):
    meta, sizes = golden_resnet["meta"], build().sizes
    assert read_sizes(build().state_dict()) == sizes
    assert (sizes.image_size, sizes.embed_dim) == (meta["image"], meta["embed"])
    assert (sizes.vision_width, list(sizes.vision_layers)) == (meta["width"], list(meta["layers"]))
    assert (sizes.context_length, sizes.vocab_size) == (meta["context"], meta["vocab"])


def test_names_are_those_of_the_recording(golden_resnet, build):
    assert build().state_dict().keys() == golden_resnet["clip_sd"].keys()


def test_evaluation(golden_resnet, build, frames, assert_close):
    clip = build()
    with torch.no_grad():
        found = clip.encode_video(frames)[0]
        text = clip.encode_text(golden_resnet["tokens"])
    assert_close(found, golden_resnet["image_features_eval"])
    assert_close(text, golden_resnet["text_features"])
    image, text = (features / features.norm(dim=1, keepdim=True) for features in (found, text))
    assert_close(clip.logit_scale.exp() * image @ text.T, golden_resnet["logits"])


def test_evaluation_in_double_precision(golden_resnet, build, frames, assert_close):
    with torch.no_grad():
        assert_close(build().double().encode_video(frames)[0], golden_resnet["image_features_eval"])


def test_training_takes_the_statistics_of_the_batch(golden_resnet, build, frames, assert_close):
    clip = build(train=True)
    found = clip.encode_video(frames)[0]
    assert_close(found, golden_resnet["image_features_train"])
    loss = (found * torch.linspace(-1, 1, found.shape[1])).sum()
    assert_close(loss, golden_resnet["loss_train"])
    own = dict(clip.named_buffers())
    for name, expected in golden_resnet["running_after_one_train_forward"].items():
        assert_close(own[name], expected)

    loss.backward()
    recorded = golden_resnet["grad_norms_train"]
    largest = max(float(norm) for norm in recorded.values())
    norms = {name: parameter.grad.norm().item() for name, parameter in clip.visual.named_parameters()}
    assert norms.keys() == recorded.keys()
    for name, expected in recorded.items():
        assert norms[name] == pytest.approx(float(expected), rel=2e-5, abs=NOISE * largest), name


def test_one_train_forward_then_evaluation(build, frames):
    """The running statistics are what evaluation uses, whatever the frames come with."""
    clip = build(train=True)
    before = build().encode_video(frames)
    clip.encode_video(frames)
    clip.eval()
    with torch.no_grad():
        whole, single = clip.encode_video(frames), clip.encode_video(frames[:, :, :1])
    assert not torch.allclose(whole, before, atol=1e-4)
    assert torch.allclose(whole[:, :1], single, atol=1e-5)
