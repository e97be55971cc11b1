import math
import statistics

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.protocols.metrics import (
    EpisodeTally,
    Tally,
    harmonic_mean,
    label_rank,
    mean,
    population_std,
    topk_correct,
)

# Few different scores, so that ties are common.
scores = st.sampled_from([-1.0, 0.0, 0.0, 1.0, 2.0, math.inf, -math.inf]) | st.floats(-3, 3, width=32)
scores_or_nan = scores | st.just(math.nan)


@st.composite
def answers(draw, score=scores_or_nan):
    """Logits (V, K) and labels (V,)."""
    classes, videos = draw(st.integers(1, 8)), draw(st.integers(0, 10))
    row = st.lists(score, min_size=classes, max_size=classes)
    logits = draw(st.lists(row, min_size=videos, max_size=videos))
    label = draw(st.lists(st.integers(0, classes - 1), min_size=videos, max_size=videos))
    return torch.tensor(logits).reshape(videos, classes), torch.tensor(label, dtype=torch.long)


def oracle_rank(row, label):
    """Place of the label among the classes, best first; a score that is no number comes first, and is never right."""
    if math.isnan(row[label]):
        return len(row)
    order = sorted(range(len(row)), key=lambda k: (not math.isnan(row[k]), 0 if math.isnan(row[k]) else -row[k], k))
    return order.index(label)


@given(answers(), st.integers(1, 9))
def test_top_k_against_sorting(case, k):
    logits, label = case
    expected = [oracle_rank(row, true) for row, true in zip(logits.tolist(), label.tolist(), strict=True)]
    assert label_rank(logits, label).clamp(max=logits.shape[1]).tolist() == expected
    assert topk_correct(logits, label, k=min(k, logits.shape[1])).tolist() == [
        rank < min(k, logits.shape[1]) for rank in expected
    ]


def tally_of(logits, label):
    tally = Tally(logits.shape[1])
    tally.add(logits, label)
    return tally


def figures(tally):
    return (
        tally.confusion.tolist(), tally.top1.tolist(), tally.top5.tolist(), tally.videos.tolist(),
        tally.num_scored, tally.top1_acc, tally.top5_acc, tally.mean_class_acc,
    )  # fmt: skip


@given(answers(), st.data())
def test_counts_add_up_in_any_order_and_grouping(case, data):
    logits, label = case
    whole = figures(tally_of(logits, label))
    order = data.draw(st.permutations(range(len(label))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(label)), min_size=2, max_size=2)))
    groups = [order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]]
    for arrangement in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        total = Tally(logits.shape[1])
        for group in arrangement:
            total.merge(tally_of(logits[groups[group]], label[groups[group]]))
        assert figures(total) == whole
    # (a + b) + c and a + (b + c)
    first, rest = tally_of(logits[groups[0]], label[groups[0]]), tally_of(logits[groups[1]], label[groups[1]])
    rest.merge(tally_of(logits[groups[2]], label[groups[2]]))
    first.merge(rest)
    assert figures(first) == whole


@given(answers())
def test_figures_against_counting(case):
    logits, label = case
    tally = tally_of(logits, label)
    ranks = [oracle_rank(row, true) for row, true in zip(logits.tolist(), label.tolist(), strict=True)]
    videos = len(ranks)
    # With fewer than five classes a score that is no number still is not right.
    allowed = min(5, logits.shape[1])
    assert tally.num_scored == videos
    assert tally.top1_acc == (100 * sum(rank < 1 for rank in ranks) / videos if videos else 0)
    assert tally.top5_acc >= tally.top1_acc
    if logits.shape[1] >= 5:
        assert tally.top5_acc == (100 * sum(rank < allowed for rank in ranks) / videos if videos else 0)
    per_class = {}
    for true, rank in zip(label.tolist(), ranks, strict=True):
        per_class.setdefault(true, []).append(rank < 1)
    expected = statistics.fmean(100 * sum(hits) / len(hits) for hits in per_class.values()) if per_class else 0
    assert tally.mean_class_acc == pytest.approx(expected)


@given(answers(score=scores))
def test_the_diagonal_is_top_1_where_scores_are_numbers(case):
    tally = tally_of(*case)
    assert tally.confusion.diagonal().tolist() == tally.top1.tolist()


percents = st.floats(0, 100)


@given(percents, percents)
def test_harmonic_mean(a, b):
    found = harmonic_mean(a, b)
    assert found == harmonic_mean(b, a)
    assert min(a, b) - 1e-9 <= found <= math.sqrt(a * b) + 1e-9 <= (a + b) / 2 + 2e-9
    if min(a, b) > 1e-3:
        assert found == pytest.approx(statistics.harmonic_mean([a, b]))


@given(st.lists(percents, min_size=1, max_size=10))
def test_mean_and_deviation(values):
    assert min(values) - 1e-9 <= mean(values) <= max(values) + 1e-9
    assert 0 <= population_std(values) <= (max(values) - min(values)) / 2 + 1e-9


@given(st.integers(1, 9).flatmap(lambda q: st.tuples(st.just(q), st.lists(st.integers(0, q), max_size=30))), st.data())
def test_figures_of_episodes(case, data):
    queries, right = case
    cut = data.draw(st.integers(0, len(right)))
    tally = EpisodeTally(queries)
    for part in (data.draw(st.permutations(right[:cut])), right[cut:]):
        other = EpisodeTally(queries)
        other.add(torch.tensor(part, dtype=torch.long))
        tally.merge(other)
    accuracies = [100 * number / queries for number in right]
    assert tally.num_episodes == len(right)
    assert tally.accuracy == pytest.approx(statistics.fmean(accuracies) if right else 0)
    expected = 1.96 * statistics.stdev(accuracies) / math.sqrt(len(right)) if len(right) > 1 else 0
    assert tally.interval == pytest.approx(expected, abs=1e-9)
