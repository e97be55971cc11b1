"""The method against the one that is written straightforwardly, see tests/oracles: equal scores, losses, gradients."""

from dataclasses import replace

import pytest
import torch

SETTINGS = {
    "default": {},
    "common end": {"OST.STOP": "batch"},
    "spatial alone": {"OST.KINDS": ["spatial"]},
    "other order": {"OST.KINDS": ["temporal", "spatial"]},
    "one descriptor": {"OST.N": 1},
    "two descriptors": {"OST.N": 2},
    "strong regularisation": {"OST.EPS": 1.0},
    "few iterations": {"OST.MAX_ITERATIONS": 2, "OST.STOP": "batch"},
    "image tower": {"OST.USE": "image"},
    "text tower": {"OST.USE": "text"},
    "recomputed": {"MODEL.USE_CHECKPOINT": True},
}


def losses_and_gradients(method, score):
    losses = torch.stack(list(score()))
    names, parameters = zip(*method.trainable_parameters(), strict=True)
    return losses, dict(zip(names, torch.autograd.grad(losses.sum(), parameters), strict=True))


def assert_equal(method, plain, batch, tolerance=1e-10):
    found, gradients = losses_and_gradients(method, lambda: method.train()(batch).losses.values())
    expected, others = losses_and_gradients(method, lambda: plain.losses(batch.frames, batch.label))
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert max(gradient.abs().max() for gradient in others.values()) > 0
    for name, gradient in others.items():
        assert (gradients[name] - gradient).abs().max() <= tolerance * gradient.abs().max() + 1e-3 * tolerance, name
    with torch.no_grad():
        logits, scores = method.eval()(batch).logits, plain(batch.frames)
    assert (logits - scores).abs().max() <= tolerance * scores.abs().max()


@pytest.fixture
def batch(make_batch):
    """Three videos, two of one class."""
    return replace(make_batch(3, 2), label=torch.tensor([3, 0, 3]))


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(build, plain_ost, batch, name):
    method = build(**SETTINGS[name])
    assert_equal(method, plain_ost(method), batch)


@pytest.mark.parametrize("num_frames", [1, 5])
def test_number_of_frames(build, plain_ost, make_batch, num_frames):
    method = build()
    assert_equal(method, plain_ost(method), replace(make_batch(2, num_frames), label=torch.tensor([1, 0])))


@pytest.mark.parametrize("label", [[4, 4], [2], [0, 1, 2, 3, 4]])
def test_classes_of_a_batch(build, plain_ost, make_batch, label):
    method = build(**{"OST.STOP": "batch"})
    batch = replace(make_batch(len(label), 2), label=torch.tensor(label))
    plain = plain_ost(method)
    if len(set(label)) > 1:
        return assert_equal(method, plain, batch)
    # One class alone has a loss without use, near zero, that is rounding where there is one video.
    losses, expected = method.train()(batch).losses.values(), plain.losses(batch.frames, batch.label)
    assert (torch.stack(list(losses)) - torch.stack(expected)).abs().max() <= 1e-10
    return None


def test_single_precision(build, plain_ost, batch):
    method = build(torch.float32)
    assert_equal(method, plain_ost(method), batch, tolerance=1e-3)


def test_one_class(build, plain_ost, make_batch):
    method, batch = build(names=("push_up",)).eval(), make_batch(2, 3)
    with torch.no_grad():
        logits, expected = method(batch).logits, plain_ost(method)(batch.frames)
    assert logits.shape == (2, 1)
    assert (logits - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_scores_over_fewer_classes_are_columns(build, batch):
    all_classes, some = build().eval(), build(names=("push_up", "surfing")).eval()
    with torch.no_grad():
        whole, part = (method(batch).logits for method in (all_classes, some))
    assert (whole[:, [4, 0]] - part).abs().max() <= 1e-10 * whole.abs().max()
