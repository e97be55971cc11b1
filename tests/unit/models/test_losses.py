import math

import pytest
import torch

from slowfast.config.values import CHOICES
from slowfast.models.losses import (
    LOSSES,
    bce_logit,
    contrastive_divergence,
    cross_entropy,
    mse,
    nce_loss,
    soft_cross_entropy,
)
from slowfast.utils.registry import resolve


@pytest.fixture
def logits():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def test_soft_targets_against_a_naive_loop(logits):
    weights = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    total = 0.0
    for row, target in zip(logits.tolist(), weights.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(z) for z in row))
        total -= sum(y * (z - normaliser) for y, z in zip(target, row, strict=True))
    assert soft_cross_entropy(logits, weights).item() == pytest.approx(total / 4, rel=1e-5)


def test_class_numbers_are_one_hot_targets(logits):
    label = torch.tensor([0, 2, 1, 1])
    one_hot = torch.eye(3)[label]
    assert torch.allclose(soft_cross_entropy(logits, label), soft_cross_entropy(logits, one_hot))
    assert torch.allclose(soft_cross_entropy(logits, label), cross_entropy(logits, label))


def test_reduction(logits):
    label = torch.tensor([0, 2, 1, 1])
    per_sample = soft_cross_entropy(logits, label, reduction="none")
    assert per_sample.shape == (4,)
    assert torch.allclose(per_sample.mean(), soft_cross_entropy(logits, label))
    with pytest.raises(ValueError, match=r"^reduction: unknown value 'sum'; allowed: mean, none$"):
        soft_cross_entropy(logits, label, reduction="sum")


def test_configuration_and_table_name_the_same_losses(logits):
    assert sorted(LOSSES) == sorted(CHOICES["MODEL.LOSS_FUNC"])
    for name in LOSSES:
        assert resolve(LOSSES, name, key="x")(logits, torch.zeros(4, dtype=torch.long)).ndim == 0


@pytest.mark.parametrize("loss", [bce_logit, mse, nce_loss])
def test_class_numbers_and_one_hot_rows_agree(loss):
    logits, label = torch.randn(4, 5), torch.tensor([0, 3, 4, 1])
    assert torch.allclose(loss(logits, label), loss(logits, torch.nn.functional.one_hot(label, 5).float()))


def test_binary_cross_entropy_and_squared_distance_by_hand():
    logits, label = torch.randn(2, 3), torch.tensor([2, 0])
    binary = squared = 0.0
    for b in range(2):
        for k in range(3):
            z, y = logits[b, k].double(), float(label[b] == k)
            binary -= (y * torch.sigmoid(z).log() + (1 - y) * torch.sigmoid(-z).log()).item()
            squared += (z.item() - y) ** 2
    assert bce_logit(logits, label).item() == pytest.approx(binary / 6, rel=1e-5)
    assert mse(logits, label).item() == pytest.approx(squared / 6, rel=1e-5)


def test_nce_loss_by_hand():
    logits, target = torch.randn(2, 3), torch.rand(2, 3)
    total = 0.0
    for b in range(2):
        wanted, found = (10 * target[b]).double().softmax(0), logits[b].double().log_softmax(0)
        total += float((wanted * (wanted.log() - found)).sum())
    assert nce_loss(logits, target).item() == pytest.approx(total / 3, rel=1e-5)


def test_losses_of_the_table_take_class_numbers():
    logits, label = torch.randn(2, 3), torch.tensor([2, 0])
    for name in LOSSES:
        assert resolve(LOSSES, name, key="MODEL.LOSS_FUNC")(logits, label).ndim == 0


@pytest.mark.parametrize("label", [[0], [3, 1, 3, 0], [2, 2, 2], [0, 1, 2, 3, 4]])
def test_contrastive_divergence_by_hand(label):
    generator = torch.Generator().manual_seed(len(label))
    logits = 5 * torch.randn(len(label), len(label), dtype=torch.float64, generator=generator)
    expected = []
    for scores in (logits.tolist(), logits.T.tolist()):
        total = 0.0
        for row, own in zip(scores, label, strict=True):
            wanted = [math.exp(10 * (own == other)) for other in label]
            wanted = [weight / sum(wanted) for weight in wanted]
            found = [math.exp(score) / sum(map(math.exp, row)) for score in row]
            total += sum(w * (math.log(w) - math.log(f)) for w, f in zip(wanted, found, strict=True))
        expected.append(total / len(label))
    found = contrastive_divergence(logits, torch.tensor(label))
    assert [loss.item() for loss in found] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_contrastive_divergence_vanishes_only_where_everything_fits():
    label = torch.tensor([0, 1, 0])
    perfect = 10.0 * (label[:, None] == label)
    assert sum(contrastive_divergence(perfect, label)).item() == pytest.approx(0, abs=1e-6)
    assert sum(contrastive_divergence(perfect[:, [1, 0, 2]], label)).item() > 1
