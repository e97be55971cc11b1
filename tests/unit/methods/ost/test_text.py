"""Texts: embedded once as long as nothing changes, and each class of a batch once."""

import pytest
import torch

from slowfast.methods.ost.build import text_bank
from slowfast.methods.ost.config import OstConfig
from slowfast.methods.ost.text import DescriptorText, distinct
from slowfast.text.text_bank import TextBank


@pytest.fixture
def count_texts(monkeypatch):
    """Counts texts that a method's tower embeds."""

    def watch(method):
        shapes, encode = [], method.model.encode_text

        def counting(tokens):
            shapes.append(tuple(tokens.shape))
            return encode(tokens)

        monkeypatch.setattr(method.model, "encode_text", counting)
        return shapes

    return watch


def embed(method):
    with torch.no_grad():
        return method.text.all(method.model)


@pytest.mark.parametrize("label", [[0], [4, 4, 4], [3, 0, 3, 1], list(range(6)), [5, 4, 3, 5, 4, 3, 0]])
def test_distinct(label):
    tensor = torch.tensor(label)
    values, place = distinct(tensor, len(set(label)))
    assert values.tolist() == sorted(set(label))
    assert torch.equal(values[place], tensor)


def test_distinct_waits_for_no_device():
    values, place = distinct(torch.empty(7, dtype=torch.long, device="meta"), 3)
    assert (values.shape, place.shape) == ((3,), (7,))


def test_shape_and_length(build):
    text = embed(build())
    assert text.shape == (2, 5, 3, 32)
    assert text.dtype == torch.float64
    assert not text.requires_grad
    assert (text.norm(dim=-1) - 1).abs().max() < 1e-12


def test_kept_until_a_weight_changes(build, count_texts, make_batch):
    method = build(torch.float32).eval()
    shapes, batch = count_texts(method), make_batch(1, 2)
    for _ in range(3):
        with torch.no_grad():
            first = method(batch).logits
    assert sum(count for count, _ in shapes) == 2 * 5 * 3  # once
    assert max(length for _, length in shapes) == method.text.tokens.shape[-1] < 77
    shapes.clear()
    with torch.no_grad():
        method.model.ln_final.bias.add_(0.1)
        changed = method(batch).logits
        assert not torch.equal(changed, first)
        assert shapes
        shapes.clear()
        method.model.visual.ln_post.bias.add_(0.1)  # texts have nothing to do with it
        method.model.logit_scale.add_(0.1)
        method(batch)
        assert not shapes


def test_loading_weights_renews(build, make_batch):
    method, other, batch = build(torch.float32).eval(), build(torch.float32).eval(), make_batch(1, 2)
    with torch.no_grad():
        other.model.text_projection.mul_(-1)
        expected = other(batch).logits
        assert not torch.equal(method(batch).logits, expected)
        method.load_state_dict(other.state_dict())
        assert torch.equal(method(batch).logits, expected)


def test_a_step_of_an_optimiser_renews(build, make_batch):
    method, batch = build(torch.float32), make_batch(2, 2)
    before = embed(method)
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
    sum(method.train()(batch).losses.values()).backward()
    optimiser.step()
    after = embed(method)
    assert not torch.equal(before, after)
    method.text.forget()
    assert torch.equal(embed(method), after)


def test_other_classes_renew(build, ost_cfg, labels):
    method, fewer = build(), labels("push_up", "surfing")
    whole = embed(method)
    method.set_label_set(fewer, text_bank(OstConfig.from_cfg(ost_cfg()), fewer))
    assert (embed(method) - whole[:, [4, 0]]).abs().max() < 1e-12
    assert method.text.names == fewer.names


def test_conversion_renews(build):
    method = build(torch.float32)
    assert embed(method).dtype == torch.float32
    assert embed(method.double()).dtype == torch.float64


def test_training_embeds_each_class_of_a_batch_once_and_trimmed(build, count_texts):
    method = build().train()
    shapes, label = count_texts(method), torch.tensor([3, 4, 3, 3])
    text = method.text.of_labels(method.model, label, label.tolist())
    tokens = method.text.tokens[:, [3, 4]]
    lengths = (tokens.argmax(dim=-1) + 1).amax(dim=(1, 2)).tolist()
    assert shapes == [(2 * 3, length) for length in lengths]
    assert lengths[0] != lengths[1]  # each kind has its own
    assert text.requires_grad
    assert (text.detach() - embed(method)[:, label]).abs().max() < 1e-12


@pytest.mark.parametrize(("use", "renewed"), [("both", True), ("text", True), ("image", False)])
def test_training_uses_what_is_kept_where_texts_do_not_train(build, count_texts, make_batch, use, renewed):
    method, batch = build(torch.float32, **{"OST.USE": use}).train(), make_batch(2, 2)
    embed(method)
    shapes = count_texts(method)
    for _ in range(2):
        sum(method(batch).losses.values()).backward()
    assert bool(shapes) is renewed


def test_length_of_a_batch_is_that_of_its_classes(build, count_texts):
    method = build()
    shapes = count_texts(method)
    for number in (0, 3):
        label = torch.tensor([number])
        method.text.of_labels(method.model, label, [number])
    assert shapes[1][1] < shapes[3][1]  # "surfing" is shorter than riding a bike


def test_descriptors_as_they_were_written(build):
    text = build(names=("push_up", "surfing")).text
    assert text.of_kind(1, "spatial")[:2] == ("a surfing scene", "grass")
    assert text.of_kind(0, "temporal")[1] == "Go on with push_up until nothing is left to do"


def test_a_bank_without_tokens():
    text = DescriptorText(("spatial",), trains=True)
    with pytest.raises(ValueError, match=r"^descriptors are texts to embed, but the text bank holds features only$"):
        text.set_bank(("a",), TextBank(features=torch.ones(1, 4)))
