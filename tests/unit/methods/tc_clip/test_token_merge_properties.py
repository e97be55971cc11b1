"""Merging of tokens against a naive loop, whatever the numbers."""

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.methods.tc_clip.token_merge import (
    group_means,
    group_sizes,
    merge_groups,
    merge_schedule,
    steps_by_layer,
)


def naive_merge(tokens, removals):
    """One sequence as lists of member numbers; (n, D) -> the groups in the order of the merged sequence."""
    groups = [[number] for number in range(len(tokens))]
    for removed in removals:
        unit = []
        for group in groups:
            mean = sum(tokens[i] for i in group) / len(group)
            unit.append(mean / mean.norm())
        even, odd = range(0, len(groups), 2), range(1, len(groups), 2)
        best = []
        for i in even:
            scores = [float(unit[i] @ unit[j]) for j in odd]
            score = max(scores)
            best.append((-score, i, odd[scores.index(score)]))
        best.sort(key=lambda item: item[0])  # stable
        joined = {j: list(groups[j]) for j in odd}
        for _, i, j in best[:removed]:
            joined[j] += groups[i]
        groups = [groups[i] for _, i, _ in best[removed:]] + [joined[j] for j in odd]
    return groups


def as_lists(group):
    return [sorted((group == number).nonzero().flatten().tolist()) for number in range(int(group.max()) + 1)]


@given(st.integers(1, 300), st.integers(1, 100), st.integers(0, 120))
def test_schedule_reaches_its_target(start, target, step):
    count = start
    for removed in merge_schedule(start, target, step):
        assert 1 <= removed <= count // 2
        assert removed <= step or not step or count - removed == target or removed == count // 2
        count -= removed
    assert count == min(start, target)


@given(st.integers(1, 24), st.integers(0, 3), st.integers(1, 5))
def test_mean_of_steps_is_the_step(layers, part, step):
    steps = steps_by_layer(layers + 1, 60 * step, part / 3)
    assert steps == sorted(steps)
    assert abs(sum(steps) / len(steps) - 60 * step) <= 1  # each is cut to an integer


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 12), st.integers(0, 1000))
def test_groups(start, target, step, seed):
    tokens = torch.randn(2, start, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    removals = merge_schedule(start, target, step)
    group = merge_groups(tokens, removals)
    count = start - sum(removals)
    assert count == min(start, target)
    assert group.shape == (2, start)
    assert group.dtype == torch.int64
    sizes = group_sizes(group, count)
    assert (sizes >= 1).all()  # none is empty: the groups partition the tokens
    assert sizes.sum(dim=1).tolist() == [start, start]
    merged = group_means(tokens, group, count)
    assert torch.allclose((merged * sizes[..., None]).sum(dim=1), tokens.sum(dim=1))
    for row in range(2):
        naive = naive_merge(tokens[row], removals)
        assert as_lists(group[row]) == [sorted(members) for members in naive]
        expected = torch.stack([tokens[row][members].mean(dim=0) for members in naive])
        assert torch.allclose(merged[row], expected)


@given(st.integers(2, 20), st.integers(0, 1000))
def test_ties_keep_their_order(start, seed):
    """Of equally alike pairs the first are joined, each with the first of its equally alike partners."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.eye(3, dtype=torch.float64)[torch.randint(3, (start,), generator=generator)]  # exact cosines
    removals = [start // 2 - start // 4] if start > 2 else [1]
    group = merge_groups(corners[None], removals)[0]
    assert as_lists(group) == [sorted(members) for members in naive_merge(corners, removals)]


def test_step_of_nothing_sorts_only():
    """As published, a step that removes nothing still puts the tokens at even places in order."""
    tokens = torch.randn(1, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    group = merge_groups(tokens, [0])[0]
    assert as_lists(group) == naive_merge(tokens[0], [0])
