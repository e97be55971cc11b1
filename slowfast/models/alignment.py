"""Matching frames: transport plans between frames and texts, ordered alignments between frames and frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from slowfast.models.similarity import at_least_fp32, without_autocast


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkhornOptions:
    """How a transport plan is computed; the defaults are OST's.

    Raises:
        ValueError: if a number is out of range.
    """

    eps: float = 0.1
    """Weight of the plan's entropy, > 0, in units of the cost."""
    max_iterations: int = 100
    """Iterations that are never exceeded, >= 1."""
    tolerance: float = 1e-2
    """Mean absolute change of the frames' scaling factors, >= 0, below which a problem is solved."""
    stop: Literal["each", "batch"] = "each"
    """Over what the change is averaged: the frames of each problem, which then ends on its own; or also over all
    problems of an entry of the first axis, as published."""
    log_domain: bool = False
    """Iterate on logarithms of the scaling factors: slower, and needed where exp(-2 / eps) nears the smallest float."""

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps: is {self.eps}; it must be above 0")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations: is {self.max_iterations}; it must be at least 1")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance: is {self.tolerance}; it must be at least 0")


class Transport(NamedTuple):
    """Transport plans and how they were found; constants, without gradient."""

    plan: Tensor
    """Mass that goes from frame to descriptor, (..., T, N): total 1, columns exactly 1 / N, rows about 1 / T."""
    iterations: Tensor
    """How many each problem took, (...), int64."""
    change: Tensor
    """Mean change of the scaling factors in the last of them, (...)."""


def sinkhorn(cosines: Tensor, options: SinkhornOptions) -> Transport:
    """Entropy-regularised optimal transport between uniform weights of frames and of descriptors, cost 1 - cosine.

    Every problem is iterated until its own end; what has ended stays as it is while others go on. On a device the
    number of iterations is `max_iterations`, so that the host never waits for a value; on a CPU, where reading one is
    free, the loop ends with the last problem. Not a number, once there, stays in its own problem.

    Args:
        cosines: similarities of frames and descriptors, (..., T, N), no unit; at least one leading axis if
            `options.stop` is "batch". Half precision is widened, autocast is off.
        options: regularisation and stopping.

    Source: Cuturi, "Sinkhorn Distances" (2013), as in OST (CVPR 2024), whose scaling starts from ones and updates the
    frames first.
    """
    with torch.no_grad(), without_autocast(cosines.device.type):
        wide = at_least_fp32(cosines)
        *leading, num_frames, num_texts = wide.shape
        solve = _solve_logs if options.log_domain else _solve
        rule = _change_rule(leading, options)
        flat = wide.reshape(-1, num_frames, num_texts)
        parts = []
        for problems in flat.split(_part_size(flat, options)):
            # Problems last: every step is a sum over leading axes of contiguous rows, whatever T and N are.
            exponent = (problems.permute(2, 1, 0).contiguous() - 1) / options.eps  # (N, T, P)
            plan, iterations, change = solve(exponent, rule, options)
            parts.append((plan.permute(2, 1, 0), iterations, change))
        plan, iterations, change = (torch.cat(part) for part in zip(*parts, strict=True))
        return Transport(plan.view(*leading, num_frames, num_texts), iterations.view(leading), change.view(leading))


_CACHED = 1 << 17
"""Numbers that stay in the cache of a core."""


def _part_size(flat: Tensor, options: SinkhornOptions) -> int:
    """Problems to solve at a time, of (P, T, N): as many as stay in the cache of a core, where nothing joins them."""
    if flat.device.type != "cpu" or options.stop == "batch":
        return max(1, len(flat))
    return max(1, _CACHED // max(1, flat.shape[1] * flat.shape[2]))


_Rule = Callable[[Tensor], Tensor]


def _change_rule(leading: list[int], options: SinkhornOptions) -> _Rule:
    """What is compared with the tolerance: changes (T, P) -> one value for each problem, (P,)."""

    def each(change: Tensor) -> Tensor:
        return change.mean(dim=0)

    def batch(change: Tensor) -> Tensor:
        sets = change.mean(dim=0).unflatten(0, (leading[0], -1))
        return sets.mean(dim=1, keepdim=True).expand_as(sets).flatten()

    return each if options.stop == "each" else batch


def _solve(exponent: Tensor, rule: _Rule, options: SinkhornOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Scale exp(-cost / eps), (N, T, P) -> plan (N, T, P), iterations (P,), change (P,)."""
    kernel = exponent.exp()
    num_texts, num_frames, problems = kernel.shape

    def step(columns: Tensor) -> tuple[Tensor, Tensor]:
        rows = (1 / num_frames) / (kernel * columns[:, None]).sum(dim=0)
        return rows, (1 / num_texts) / (kernel * rows).sum(dim=1)

    start = kernel.new_ones(num_frames, problems), kernel.new_ones(num_texts, problems)
    (rows, columns), iterations, change = _iterate(step, start, lambda rows: rows, rule, options)
    return rows * kernel * columns[:, None], iterations, change


def _solve_logs(exponent: Tensor, rule: _Rule, options: SinkhornOptions) -> tuple[Tensor, Tensor, Tensor]:
    """The same on logarithms of the scaling factors; one beyond the largest float never counts as unchanged."""
    num_texts, num_frames, problems = exponent.shape

    def step(columns: Tensor) -> tuple[Tensor, Tensor]:
        rows = -math.log(num_frames) - (exponent + columns[:, None]).logsumexp(dim=0)
        return rows, -math.log(num_texts) - (exponent + rows).logsumexp(dim=1)

    start = exponent.new_zeros(num_frames, problems), exponent.new_zeros(num_texts, problems)
    (rows, columns), iterations, change = _iterate(step, start, torch.exp, rule, options)
    return (rows + exponent + columns[:, None]).exp(), iterations, change


def _iterate(
    step: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: tuple[Tensor, Tensor],
    linear: Callable[[Tensor], Tensor],
    rule: _Rule,
    options: SinkhornOptions,
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Repeat a step until every problem is solved or the iterations are used up.

    Args:
        step: factors of the columns (N, P) -> new factors of the rows (T, P) and of the columns.
        start: first factors of rows and columns.
        linear: factors of the rows as they are compared.
        rule: what becomes of their changes.
        options: bounds.

    Returns:
        Factors of rows and columns; iterations and last change of each problem, (P,).
    """
    rows, columns = start
    running = torch.ones_like(rows[0], dtype=torch.bool)
    iterations, change = torch.zeros_like(running, dtype=torch.long), torch.full_like(rows[0], torch.inf)
    for _ in range(options.max_iterations):
        new_rows, new_columns = step(columns)
        found = rule((linear(new_rows) - linear(rows)).abs())
        iterations = iterations + running
        change = torch.where(running, found, change)
        rows, columns = torch.where(running, new_rows, rows), torch.where(running, new_columns, columns)
        running = running & ~(found < options.tolerance)
        if rows.device.type == "cpu" and not running.any():
            break
    return (rows, columns), iterations, change


def otam(distances: Tensor, *, smoothing: float) -> Tensor:
    """Soft length of the best ordered alignment of two sequences, which may begin and end anywhere in the second.

    With a column of zeros before and behind the distances, and smin the soft minimum ``-smoothing * log sum exp``, the
    published recurrence of cell (l, m) is::

        A[0, m] = D[0, m] + A[0, m-1],   A[l, 0] = 0
        A[l, 1] = D[l, 1] + smin(A[l-1, 0], A[l-1, 1], A[l, 0])
        A[l, m] = D[l, m] + smin(A[l-1, m-1], A[l, m-1])             1 < m <= C
        A[l, C+1] = smin(A[l-1, C], A[l-1, C+1], A[l, C])

    and its result A[R-1, C+1]. A cell reads the column before it alone, but for the first and the last column, which
    are sums along the rows in closed form. So there is one step per column, for all rows and problems at once, on
    logarithms: stable for any smoothing, and without a value that the host would wait for.

    Args:
        distances: of R frames of one sequence and C of the other, (..., R, C), finite.
        smoothing: lambda of the soft minimum, > 0, in units of the distances.

    Returns:
        (...), at least fp32; may be negative.

    Raises:
        ValueError: if the smoothing is not positive, or a sequence is empty.

    Source: Cao et al., "Few-Shot Video Classification via Temporal Alignment" (CVPR 2020), as in CLIP-FSAR (IJCV 2023).
    """
    if not smoothing > 0:
        raise ValueError(f"smoothing: is {smoothing}; it must be above 0")
    *leading, num_rows, num_columns = distances.shape
    if not num_rows or not num_columns:
        raise ValueError(f"distances have shape {tuple(distances.shape)}; expected at least one row and one column")
    with without_autocast(distances.device.type):
        wide = at_least_fp32(distances)
        # Problems last, a column at a time: (C, R, P). A is -smoothing times the logarithm that is followed here.
        first, *others = (wide.reshape(-1, num_rows, num_columns).permute(2, 1, 0) / -smoothing).unbind()
        column = _first_column(first)
        for own in others:
            above = torch.cat((torch.full_like(column[:1], -torch.inf), column[:-1]))
            column = own + torch.logaddexp(above, column)
        # Every cell of the last column is left twice, to the side and from the row below, but for the last one.
        left = torch.cat((column[:-1], column)) if num_rows > 1 else column
        return (-smoothing * left.logsumexp(dim=0)).reshape(leading)


def _first_column(cells: Tensor) -> Tensor:
    """Logarithms of the first column, (R, P) -> (R, P).

    With y the exponentials and a those of the cells, y[l] = a[l] (2 + y[l-1]) and y[0] = a[0]. Divided by the product
    of a up to l this is a cumulative sum.
    """
    product = cells.cumsum(dim=0)
    terms = torch.cat((torch.zeros_like(cells[:1]), math.log(2) - product[:-1]))
    return product + terms.logcumsumexp(dim=0)
