"""Merging of tokens: figures worked out elsewhere, shapes and gradients."""

import numpy as np
import pytest
import torch

from slowfast.methods.tc_clip.token_merge import (
    group_means,
    group_sizes,
    merge_groups,
    merge_schedule,
    steps_by_layer,
)


def test_worked_example():
    """Numbers of another implementation."""
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


@pytest.mark.parametrize(
    ("inflection", "expected"), [(0.0, [100] * 5), (1.0, [0, 50, 100, 150, 200]), (-1.0, [200, 150, 100, 50, 0])]
)
def test_steps_by_layer(inflection, expected):
    assert steps_by_layer(5, 100, inflection) == expected


def test_steps_of_a_single_layer():
    assert steps_by_layer(1, 100, 0.0) == [100]
    assert steps_by_layer(1, 100, 1.0) == [0]


def test_equal_tokens():
    tokens = torch.ones(1, 6, 4)
    assert merge_groups(tokens, [2]).tolist() == [[1, 1, 1, 2, 0, 3]]


@pytest.mark.parametrize("count", [40, 1000])
def test_many_equal_tokens(count):
    """All pairs are alike, so the first tokens at even places join the first at an odd place."""
    tokens = torch.eye(4)[:1].expand(1, count, -1)  # of length 1, exactly
    removed, left = count // 4, count // 2 - count // 4
    group = merge_groups(tokens, [removed])[0]
    assert torch.equal(group[1::2], left + torch.arange(count // 2))
    assert torch.equal(group[0::2][:removed], torch.full((removed,), left))
    assert torch.equal(group[0::2][removed:], torch.arange(left))


def test_scale_of_tokens_does_not_matter():
    tokens = torch.randn(2, 12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(merge_groups(tokens, [4]), merge_groups(1000 * tokens, [4]))


def test_no_step():
    tokens = torch.randn(2, 5, 4)
    group = merge_groups(tokens, [])
    assert torch.equal(group, torch.arange(5).expand(2, 5))
    assert torch.equal(group_means(tokens, group, 5), tokens)


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
