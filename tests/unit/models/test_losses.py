import math

import pytest
import torch

from slowfast.config.validate import CHOICES
from slowfast.models.losses import LOSSES, cross_entropy, soft_cross_entropy
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
