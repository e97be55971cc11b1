"""Merging of tokens: figures worked out elsewhere, a naive loop, and what holds for any numbers."""

import numpy as np
import pytest
import torch
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


def test_worked_example():
    """Section "ToMe" of the notes that this was written from."""
    x = torch.from_numpy(np.random.RandomState(3).standard_normal((1, 11, 4)))
    removals = merge_schedule(11, 3, 3)
    assert removals == [3, 3, 2]
    sizes = [[1, 1, 1, 2, 1, 1, 1, 3], [1, 2, 3, 2, 3], [1, 5, 5]]
    for steps, expected in enumerate(sizes, start=1):
        group = merge_groups(x, removals[:steps])
        assert group_sizes(group, len(expected)).tolist() == [expected]
    merged = group_means(x, group, 3)
    expected = [
        [-0.043818, -0.477218, -1.313865, 0.884622],
        [-0.094970, 0.362316, -0.219249, -1.411479],
        [-0.889364, -0.743805, 0.992559, 0.163866],
    ]
    assert torch.allclose(merged[0], torch.tensor(expected, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(
    ("start", "target", "step", "expected"),
    [
        (928, 96, 100, [100] * 8 + [32]),
        (464, 96, 100, [100, 100, 100, 68]),
        (232, 24, 50, [50, 50, 50, 41, 17]),
        (96, 96, 100, []),
        (5, 96, 100, []),
        (10, 1, 1, [1] * 9),
        (10, 1, 100, [5, 2, 1, 1]),
        (10, 1, 0, [5, 2, 1, 1]),
        (3, 2, 0, [1]),
    ],
)
def test_schedule(start, target, step, expected):
    assert merge_schedule(start, target, step) == expected


def test_published_number_of_steps_for_32_frames():
    assert len(merge_schedule(32 * 58, 96, 100)) == 18


@given(st.integers(1, 300), st.integers(1, 100), st.integers(0, 120))
def test_schedule_reaches_its_target(start, target, step):
    count = start
    for removed in merge_schedule(start, target, step):
        assert 1 <= removed <= count // 2
        assert removed <= step or not step or count - removed == target or removed == count // 2
        count -= removed
    assert count == min(start, target)


@pytest.mark.parametrize(
    ("inflection", "expected"), [(0.0, [100] * 5), (1.0, [0, 50, 100, 150, 200]), (-1.0, [200, 150, 100, 50, 0])]
)
def test_steps_by_layer(inflection, expected):
    assert steps_by_layer(5, 100, inflection) == expected


def test_steps_of_a_single_layer():
    assert steps_by_layer(1, 100, 0.0) == [100]
    assert steps_by_layer(1, 100, 1.0) == [0]


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


def test_equal_tokens():
    tokens = torch.ones(1, 6, 4)
    assert merge_groups(tokens, [2]).tolist() == [[1, 1, 1, 2, 0, 3]]


def test_scale_of_tokens_does_not_matter():
    tokens = torch.randn(2, 12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(merge_groups(tokens, [4]), merge_groups(1000 * tokens, [4]))


def test_no_step():
    tokens = torch.randn(2, 5, 4)
    group = merge_groups(tokens, [])
    assert torch.equal(group, torch.arange(5).expand(2, 5))
    assert torch.equal(group_means(tokens, group, 5), tokens)


def test_step_of_nothing_sorts_only():
    """As published, a step that removes nothing still puts the tokens at even places in order."""
    tokens = torch.randn(1, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    group = merge_groups(tokens, [0])[0]
    assert as_lists(group) == naive_merge(tokens[0], [0])


def test_gradient_is_shared_within_a_group():
    tokens = torch.randn(2, 9, 4, dtype=torch.float64).requires_grad_()
    group = merge_groups(tokens, [3, 2])
    assert not group.requires_grad
    sizes = group_sizes(group, 4)
    group_means(tokens, group, 4).sum().backward()
    assert torch.allclose(tokens.grad, (1 / sizes.double().gather(1, group))[..., None].expand_as(tokens))
    assert torch.autograd.gradcheck(lambda x: group_means(x, group, 4), tokens)


def test_half_precision_is_summed_in_single():
    tokens = (1000 + torch.randn(1, 64, 4)).bfloat16()
    group = torch.zeros(1, 64, dtype=torch.long)
    found = group_means(tokens, group, 1)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found[0, 0], tokens[0].float().mean(dim=0).bfloat16())
