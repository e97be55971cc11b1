import pytest
import torch

from slowfast.protocols.metrics import confusion_matrix, mean_class_accuracy, topk_accuracy, topk_correct

V, K = 50, 6


@pytest.fixture
def scored():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(V, K, generator=generator), torch.randint(K - 1, (V,), generator=generator)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_against_a_loop(scored, k):
    logits, label = scored
    hits = [
        int(true) in sorted(range(K), key=lambda c: -row[c])[:k]
        for row, true in zip(logits.tolist(), label, strict=True)
    ]
    assert topk_correct(logits, label, k=k).tolist() == hits
    assert topk_accuracy(logits, label, k=k) == pytest.approx(100 * sum(hits) / V)


def test_more_than_all_classes(scored):
    assert topk_accuracy(*scored, k=K + 3) == 100.0


def test_mean_over_the_classes_that_occur(scored):
    logits, label = scored
    best = logits.argmax(dim=1)
    per_class = [(best[label == c] == c).double().mean().item() for c in range(K) if (label == c).any()]
    assert len(per_class) == K - 1
    assert mean_class_accuracy(logits, label) == pytest.approx(100 * sum(per_class) / len(per_class))


def test_confusion_against_a_loop(scored):
    logits, label = scored
    expected = torch.zeros(K, K, dtype=torch.long)
    for row, true in zip(logits, label, strict=True):
        expected[true, row.argmax()] += 1
    assert torch.equal(confusion_matrix(logits, label), expected)


def test_no_video():
    logits, label = torch.zeros(0, K), torch.zeros(0, dtype=torch.long)
    assert topk_accuracy(logits, label, k=1) == mean_class_accuracy(logits, label) == 0.0
    assert not confusion_matrix(logits, label).any()
