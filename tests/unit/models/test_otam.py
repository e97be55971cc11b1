"""Ordered alignment of two sequences, against the recurrence cell by cell."""

import math

import pytest
import torch

from slowfast.models.alignment import otam


def softmin(values, smoothing):
    least = min(values)
    return least - smoothing * math.log(sum(math.exp((least - value) / smoothing) for value in values))


def cell_by_cell(rows, smoothing):
    """One problem, as published: a list of rows of distances."""
    padded = [[0.0, *row, 0.0] for row in rows]
    last = len(padded[0]) - 1
    table = [[0.0] * (last + 1) for _ in padded]
    for m in range(1, last + 1):
        table[0][m] = padded[0][m] + table[0][m - 1]
    for number, row in enumerate(padded[1:], start=1):
        above, own = table[number - 1], table[number]
        for m in range(1, last + 1):
            reached = [above[m - 1], own[m - 1]]
            if m in (1, last):
                reached.append(above[m])
            own[m] = row[m] + softmin(reached, smoothing)
    return table[-1][-1]


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (1, 1), (1, 5), (5, 1), (2, 3), (3, 2), (6, 9), (16, 4)])
def test_against_the_recurrence(rows, columns, smoothing):
    distances = 2 * torch.rand(3, 2, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    expected = [[cell_by_cell(one.tolist(), smoothing) for one in row] for row in distances]
    found = otam(distances, smoothing=smoothing)
    assert found.shape == (3, 2)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("value", "expected"), [(0.0, -4.217774601187863), (1.0, 4.203566940839695)])
def test_constant_distances(value, expected):
    found = otam(torch.full((8, 8), value, dtype=torch.float64), smoothing=0.5)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.05, 0.5])
def test_gradients(smoothing):
    distances = torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: otam(d, smoothing=smoothing), distances)


def test_large_distances_do_not_overflow():
    """The plain formula gives infinity from about a hundred times the smoothing on."""
    distances = torch.full((8, 8), 200.0).requires_grad_()
    length = otam(distances, smoothing=0.1)
    length.backward()
    assert length.item() == pytest.approx(cell_by_cell(distances.tolist(), 0.1), rel=1e-5)
    assert distances.grad.isfinite().all()


def test_without_smoothing_it_is_the_shortest_way():
    """The diagonal of zeros: everything else is dear."""
    distances = 1 - torch.eye(6, dtype=torch.float64)
    assert otam(distances, smoothing=1e-4).item() == pytest.approx(0.0, abs=1e-2)
    assert otam(distances.flip(0), smoothing=1e-4).item() > 1


def test_half_precision_is_widened():
    distances = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        found = otam(distances.bfloat16(), smoothing=0.5)
    assert found.dtype == torch.float32
    assert torch.equal(found, otam(distances.bfloat16().float(), smoothing=0.5))


def test_one_compiled_graph():
    distances = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    compiled = torch.compile(lambda d: otam(d, smoothing=0.5), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(distances), otam(distances, smoothing=0.5))


def test_nothing_waits_for_the_device():
    assert otam(torch.rand(2, 3, 8, 8, device="meta"), smoothing=0.5).shape == (2, 3)


@pytest.mark.parametrize("smoothing", [0.0, -1.0, float("nan")])
def test_smoothing_must_be_positive(smoothing):
    with pytest.raises(ValueError, match=r"^smoothing: is .*; it must be above 0$"):
        otam(torch.zeros(2, 2), smoothing=smoothing)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_sequences(shape):
    with pytest.raises(ValueError, match=r"expected at least one row and one column$"):
        otam(torch.zeros(shape), smoothing=0.5)
