"""Bipartite merging of tokens: many tokens become few, each the mean of a group of alike ones.

Every step pairs each token at an even place with the most similar one at an odd place, and joins the best pairs. A
joined token is the mean of all tokens that it was made of, so the similarity of means is that of sums, and the result
is one mean over each group: steps work on sums, without gradient and without sizes, and end in the number of the group
of every token. All shapes depend on counts alone, and nothing waits for the device.

Source: Bolya et al., "Token Merging: Your ViT But Faster" (ICLR 2023); schedule and order are those of TC-CLIP.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast.models.similarity import at_least_fp32, without_autocast


def merge_schedule(start: int, target: int, step: int) -> list[int]:
    """How many tokens each step of merging removes.

    Args:
        start: number of tokens.
        target: number wanted, >= 1.
        step: tokens that a step removes, at most half of those there are; 0: as many as there can be.

    Returns:
        Tokens removed step by step; empty where there are no more than wanted.
    """
    removals, count = [], start
    for _ in range(max(0, start - target) // step if step else 0):
        removals.append(min(step, count // 2))
        count -= removals[-1]
    while count > target:
        removals.append(min(count - target, count // 2))
        count -= removals[-1]
    return removals


def steps_by_layer(num_layers: int, step: int, inflection: float) -> list[int]:
    """Tokens that a step removes, layer by layer: a line whose mean is ``step``.

    Args:
        num_layers: layers of the image tower.
        step: TC_CLIP.TOME_R.
        inflection: TC_CLIP.TOME_D: 0, the same in all layers; 1, from 0 to twice the step; -1, the other way round.
    """
    first = int(step * (1 - inflection))
    slope = (2 * step - 2 * first) / max(1, num_layers - 1)
    return [int(first + slope * layer) for layer in range(num_layers)]


@torch.no_grad()
def merge_groups(tokens: Tensor, removals: list[int]) -> Tensor:
    """Sort tokens into groups of alike ones.

    Args:
        tokens: n tokens of each of B sequences, (B, n, D).
        removals: as `merge_schedule` makes them.

    Returns:
        Number of the group of each token, in the order of the merged sequence, (B, n), int64.
    """
    sums = at_least_fp32(tokens)
    group = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
    with without_autocast(tokens.device.type):  # in half precision many pairs would be equally alike
        for removed in removals:
            sums, place = _merge_step(sums, removed)
            group = place.gather(1, group)
    return group


def _merge_step(sums: Tensor, removed: int) -> tuple[Tensor, Tensor]:
    """Join the ``removed`` best pairs: sums of the tokens left, (B, c - removed, D), and new places of the old, (B, c).

    Even tokens that are left come first, the best paired in front, then the odd ones in their order.
    """
    even, odd, lengths = sums[:, 0::2], sums[:, 1::2], sums.norm(dim=-1)
    # Cosines but for the length of the even token, on which its best partner does not depend.
    best, partner = (even @ odd.transpose(1, 2) / lengths[:, None, 1::2]).max(dim=-1)  # (B, even)
    order = (best / lengths[:, 0::2]).argsort(dim=-1, descending=True, stable=True)
    joined, left = order[:, :removed], order[:, removed:]
    target = partner.gather(1, joined)
    num_left, num_odd = left.shape[1], odd.shape[1]
    odd = _add_rows(odd, target, _rows(even, joined))
    places = torch.arange(num_left + num_odd, device=sums.device).expand(len(sums), -1)
    of_even = torch.empty_like(order).scatter_(1, left, places[:, :num_left]).scatter_(1, joined, num_left + target)
    place = torch.empty(sums.shape[:2], dtype=torch.int64, device=sums.device)
    place[:, 0::2], place[:, 1::2] = of_even, places[:, num_left:]
    return torch.cat((_rows(even, left), odd), dim=1), place


def group_means(tokens: Tensor, group: Tensor, count: int) -> Tensor:
    """Mean of the tokens of each group.

    Args:
        tokens: (B, n, D).
        group: number of the group of each token, (B, n); every group has at least one.
        count: number of groups, K.

    Returns:
        Means, (B, K, D), computed in at least fp32.
    """
    wide = at_least_fp32(tokens)
    sums = _add_rows(wide.new_zeros(len(tokens), count, tokens.shape[-1]), group, wide)
    sizes = group_sizes(group, count).to(sums.dtype)
    return (sums / sizes[..., None]).to(tokens.dtype)


def group_sizes(group: Tensor, count: int) -> Tensor:
    """Tokens of each group, (B, n) -> (B, K), int64."""
    zeros = torch.zeros(len(group), count, dtype=torch.int64, device=group.device)
    return zeros.scatter_add_(1, group, torch.ones_like(group))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Pick rows of each sequence, (B, n, D) and (B, k) -> (B, k, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _add_rows(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Add rows to those of each sequence, (B, n, D), (B, k) and (B, k, D) -> (B, n, D)."""
    batch = x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    return x.flatten(0, 1).index_add(0, (index + batch).flatten(), rows.flatten(0, 1)).view_as(x)
