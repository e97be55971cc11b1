import statistics

import pytest
import torch

from slowfast.protocols.metrics import (
    EpisodeTally,
    Tally,
    harmonic_mean,
    label_rank,
    mean,
    population_std,
    topk_correct,
)

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


def test_more_than_all_classes(scored):
    assert topk_correct(*scored, k=K + 3).all()


def tally(logits, label, *, chunk=V):
    counts = Tally(K)
    for start in range(0, V, chunk):
        counts.add(logits[start : start + chunk], label[start : start + chunk])
    return counts


def test_counts_against_a_loop(scored):
    logits, label = scored
    confusion, top5 = torch.zeros(K, K, dtype=torch.long), torch.zeros(K, dtype=torch.long)
    for row, true in zip(logits, label, strict=True):
        confusion[true, row.argmax()] += 1
        top5[true] += true in row.topk(5).indices
    found = tally(*scored)
    assert torch.equal(found.confusion, confusion)
    assert torch.equal(found.top5, top5)
    assert torch.equal(found.videos, confusion.sum(dim=1))
    assert torch.equal(found.top1, confusion.diagonal())
    assert found.num_scored == V


def test_figures_of_the_counts(scored):
    logits, label = scored
    found, right = tally(*scored), logits.argmax(dim=1) == label
    per_class = [right[label == c].double().mean().item() for c in range(K) if (label == c).any()]
    assert len(per_class) == K - 1
    assert found.top1_acc == pytest.approx(100 * right.double().mean().item())
    assert found.top5_acc == pytest.approx(100 * topk_correct(logits, label, k=5).double().mean().item())
    assert found.mean_class_acc == pytest.approx(100 * sum(per_class) / len(per_class))
    assert found.mean_class_acc != found.top1_acc


@pytest.mark.parametrize("chunk", [1, 7, 49])
def test_chunks_and_processes_count_alike(scored, chunk):
    whole, found = tally(*scored), tally(*scored, chunk=chunk)
    halves = [tally(*scored, chunk=V), Tally(K)]
    for part in (found, halves[1]):
        part.add(torch.empty(0, 0), torch.empty(0, dtype=torch.long))
    halves[1].merge(halves[0])
    for counts in (found, halves[1]):
        assert torch.equal(counts.confusion, whole.confusion)
        assert torch.equal(counts.top5, whole.top5)
        assert (counts.top1_acc, counts.mean_class_acc) == (whole.top1_acc, whole.mean_class_acc)


def test_equal_scores_go_to_the_lower_class():
    logits = torch.tensor([[1.0, 2, 2, 0, 2, 2]]).repeat(K, 1)
    label = torch.arange(K)
    assert label_rank(logits, label).tolist() == [4, 0, 1, 5, 2, 3]
    counts = Tally(K)
    counts.add(logits, label)
    assert counts.confusion.sum(dim=0).tolist() == [0, K, 0, 0, 0, 0]
    assert counts.top1.tolist() == topk_correct(logits, label, k=1).long().tolist()
    assert counts.top5.tolist() == [1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("wrong", [torch.full((1, K), torch.nan), torch.tensor([[torch.nan, 1, 2, 0, 0, 3]])])
def test_a_score_that_is_not_a_number_is_never_right(wrong):
    label = torch.zeros(1, dtype=torch.long)
    assert not topk_correct(wrong, label, k=K).any()
    counts = Tally(K)
    counts.add(wrong, label)
    assert (counts.num_scored, counts.top1_acc, counts.top5_acc, counts.mean_class_acc) == (1, 0, 0, 0)


def test_no_counts():
    empty = Tally(K)
    assert (empty.num_scored, empty.top1_acc, empty.top5_acc, empty.mean_class_acc) == (0, 0, 0, 0)


def test_means():
    assert harmonic_mean(80.0, 60.0) == pytest.approx(68.571428)
    assert harmonic_mean(0.0, 0.0) == harmonic_mean(0.0, 50.0) == 0
    assert mean([1.0, 2.0, 6.0]) == 3
    assert population_std([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == 2
    assert population_std([7.0]) == 0


# ------------------------------------------------------------------------------------------------------------ episodes


def episode_tally(right, *, queries=5, chunk=100):
    counts = EpisodeTally(queries)
    for start in range(0, len(right), chunk):
        counts.add(torch.tensor(right[start : start + chunk]))
    return counts


RIGHT = [5, 0, 3, 3, 4, 1, 2, 5, 5, 0, 4]


@pytest.mark.parametrize("right", [RIGHT, [2, 3], [0, 0, 5], [4] * 9, [0, 0], [5] * 3])
def test_mean_and_interval_over_episodes(right):
    accuracies = [20.0 * number for number in right]
    found = episode_tally(right)
    assert found.num_episodes == len(right)
    assert found.accuracy == pytest.approx(statistics.mean(accuracies))
    interval = 1.96 * statistics.stdev(accuracies) / len(right) ** 0.5
    assert found.interval == pytest.approx(interval, abs=1e-9)


def test_one_episode_has_no_interval():
    found = episode_tally([3])
    assert (found.num_episodes, found.accuracy, found.interval) == (1, 60.0, 0.0)


def test_no_episode():
    found = episode_tally([])
    assert (found.num_episodes, found.accuracy, found.interval) == (0, 0.0, 0.0)


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_episodes_count_alike_in_any_order_and_grouping(chunk):
    whole, reverse = episode_tally(RIGHT), episode_tally(RIGHT[::-1], chunk=chunk)
    merged = EpisodeTally(5)
    for part in (RIGHT[4:], RIGHT[:4], []):
        merged.merge(episode_tally(part, chunk=chunk))
    for found in (reverse, merged):
        assert torch.equal(found.counts, whole.counts)
        assert (found.accuracy, found.interval) == (whole.accuracy, whole.interval)


def test_ten_thousand_episodes():
    """As many as are published; nothing is rounded on the way."""
    generator = torch.Generator().manual_seed(6)
    right = torch.randint(0, 6, (10_000,), generator=generator).tolist()
    accuracies = [20.0 * number for number in right]
    found = episode_tally(right)
    assert found.accuracy == pytest.approx(statistics.fmean(accuracies), abs=1e-9)
    assert found.interval == pytest.approx(1.96 * statistics.stdev(accuracies) / 100, rel=1e-9)
