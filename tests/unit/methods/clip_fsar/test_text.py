"""The frozen text tower: what it embeds, and that nothing of the model touches it."""

import copy

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.models.build import build_clip
from slowfast.models.clip.model import CLIP
from slowfast.text.tokenizer import Tokenizer


@pytest.fixture
def tower(tiny_state):
    """CLIP's own text features of sentences, in fp32."""
    clip = build_clip(tiny_state).eval()

    def embed(sentences):
        with torch.no_grad():
            return clip.encode_text(Tokenizer()(sentences))

    return embed


@pytest.mark.parametrize("prompt", ["a photo of {}", "{}", "a video of {}, filmed"])
def test_features_are_clips(make, labels, tower, prompt):
    """Of the names as they are written, underscores and brackets included; not of unit length."""
    found = make(PROMPT=prompt).texts
    assert found.dtype == torch.float32
    expected = tower([prompt.format(name) for name in labels.names])
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert not torch.allclose(found.norm(dim=1), torch.ones(6), atol=0.1)
    assert not torch.allclose(found[2:3], tower([prompt.format("draw sword")]), atol=1e-2)


def test_a_name_that_is_too_long(make):
    method, name = make(), "very " * 80
    with pytest.raises(ValueError, match="too long"):
        method.text_bank(LabelSet.from_names([name]))


def test_it_is_no_part_of_the_model(make):
    method = make()
    assert not any(isinstance(module, CLIP) for module in method.modules())
    assert all(name.startswith("head.") for name, _ in method.named_parameters())
    assert all(parameter.device.type == "meta" for parameter in copy.deepcopy(method).to("meta").parameters())
    assert all(not p.requires_grad and p.device.type == "cpu" for p in tower_of(method).parameters())
    assert not hasattr(tower_of(method).visual, "conv1")


def tower_of(method):
    return method._text._clip


def test_a_copy_shares_it(make):
    method = make()
    twin = copy.deepcopy(method)
    assert twin._text is method._text
    assert twin.head.scale is not method.head.scale
    assert torch.equal(twin.texts, method.texts)


def test_it_follows_the_method_nowhere(make, labels):
    """Nor to another device, dtype or mode."""
    method = make()
    before = method.texts.clone()
    method.double().train()
    assert next(tower_of(method).parameters()).dtype == torch.float32
    assert not tower_of(method).training
    method.set_label_set(labels, method.text_bank(labels))
    assert torch.equal(method.texts, before)


def test_training_does_not_touch_it(make, make_episodes):
    method = make().train()
    before = {name: value.clone() for name, value in tower_of(method).state_dict().items()}
    texts = method.texts.clone()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(method(make_episodes()).losses.values()).backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in tower_of(method).state_dict().items())
    assert all(parameter.grad is None for parameter in tower_of(method).parameters())
    assert torch.equal(method.texts, texts)


@pytest.mark.parametrize("outside", ["autocast", "inference mode"])
def test_what_it_embeds_does_not_depend_on_where(make, labels, outside):
    """In full precision, and fit for training."""
    method = make()
    before = method.texts.clone()
    context = torch.autocast("cpu", dtype=torch.bfloat16) if outside == "autocast" else torch.inference_mode()
    with context:
        method.set_label_set(labels, method.text_bank(labels))
    assert torch.equal(method.texts, before)
    assert not method.texts.is_inference()
    assert not method.texts.requires_grad


def test_classes_of_a_test_are_embedded_for_its_head(make, labels):
    method = make(training=False)
    other = LabelSet.from_names(labels.names[::-1])
    head = method.episode_head(other)
    assert torch.allclose(head._texts, method.texts.flip(0), atol=1e-6)
    assert torch.equal(method.texts, make(training=False).texts)  # the method itself keeps its classes
