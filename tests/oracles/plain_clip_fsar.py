"""CLIP-FSAR's head written straightforwardly: an oracle for numbers, and what speed is measured against.

Videos of an episode come in any order with their labels, as the published code has them. Classes and pairs of videos
are loops, and so are the cells of an alignment, each a step of autograd of its own.

Source: CLIP-FSAR (IJCV 2023), from its description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

OFFSET = 0.01
PLACES_OF_DROPOUT = (0.2, 0.05, 0.05)
"""Probabilities behind the attention, behind the activation, and behind the last linear layer."""

Drop = Callable[[Tensor, float], Tensor]


def keep_all(x: Tensor, probability: float) -> Tensor:
    return x


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Of two vectors, (D,), (D,) -> scalar."""
    return (x * y).sum() / ((x * x).sum().sqrt() * (y * y).sum().sqrt() + OFFSET)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Of the vectors of two lists, (N, D), (M, D) -> (N, M)."""
    products = x @ y.T
    lengths = torch.outer(x.norm(dim=1), y.norm(dim=1))
    return products / (lengths + OFFSET)


def softmin(values: list[Tensor], smoothing: float) -> Tensor:
    return -smoothing * torch.logsumexp(-torch.stack(values) / smoothing, dim=0)


def align(distances: Tensor, smoothing: float) -> Tensor:
    """The published recurrence, cell by cell, (..., R, C) -> (...)."""
    *_, num_rows, num_columns = distances.shape
    nothing = torch.zeros_like(distances[..., 0, 0])
    last = num_columns + 1

    def cost(row: int, column: int) -> Tensor:
        return nothing if column == last else distances[..., row, column - 1]

    above = [nothing]
    for column in range(1, last + 1):
        above.append(cost(0, column) + above[column - 1])
    for row in range(1, num_rows):
        own = [nothing]
        for column in range(1, last + 1):
            reached = [above[column - 1], own[column - 1]]
            if column in (1, last):
                reached.append(above[column])
            own.append(cost(row, column) + softmin(reached, smoothing))
        above = own
    return above[last]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """Features of the frames of its videos, and their labels, 0 to W - 1."""

    support: Tensor
    """(S, T, D)."""
    support_labels: Tensor
    """(S,)."""
    query: Tensor
    """(Q, T, D)."""
    query_labels: Tensor
    """(Q,)."""

    @property
    def classes(self) -> list[int]:
        return sorted(set(self.support_labels.tolist()))


class PlainClipFsar:
    """The head with the parameters of a dict, whose gradients it therefore fills.

    Args:
        weights: `scale` and `context2.*` by name.
        num_heads: heads of the temporal transformer.
        smoothing: lambda of the alignment.
        merge_before: average the shots of a class before the transformer, not behind it.
        single_direct: align queries to prototypes alone, not the other way too.
        drop: what dropout does; by default nothing.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        num_heads: int = 8,
        smoothing: float = 0.5,
        merge_before: bool = False,
        single_direct: bool = False,
        drop: Drop = keep_all,
    ) -> None:
        self.weights, self.num_heads, self.smoothing, self.drop = weights, num_heads, smoothing, drop
        self.merge_before, self.single_direct = merge_before, single_direct
        self.depth = len({name.split(".")[2] for name in weights if name.startswith("context2.")})

    # ---------------------------------------------------------------------------------------------------- transformer

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def attention(self, x: Tensor, name: str) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        normed = F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.norm.weight"], self.weights[f"{name}.norm.bias"])
        width = x.shape[-1] // self.num_heads
        parts = []
        for number in range(self.num_heads):
            own = slice(number * width, (number + 1) * width)
            q, k, v = (self.linear(normed, f"{name}.fn.to_{part}")[..., own] for part in "qkv")
            weights = (q @ k.transpose(1, 2) / width**0.5).softmax(dim=-1)
            parts.append(weights @ v)
        return self.linear(torch.cat(parts, dim=-1), f"{name}.fn.to_out.0")

    def transformer(self, x: Tensor) -> Tensor:
        """Tokens (N, L, D) -> (N, L, D)."""
        attended, hidden, last = PLACES_OF_DROPOUT
        for number in range(self.depth):
            layer = f"context2.layers.{number}"
            x = x + self.drop(self.attention(x, f"{layer}.0"), attended)
            inner = self.drop(F.gelu(self.linear(x, f"{layer}.1.net.0")), hidden)
            x = x + self.drop(self.linear(inner, f"{layer}.1.net.3"), last)
        return x

    def query_tokens(self, episode: Episode) -> Tensor:
        return self.transformer(episode.query)

    def support_tokens(self, episode: Episode, texts: Tensor) -> Tensor:
        """Of each video, or of each class where shots are merged before, and of its text; (., T + 1, D)."""
        if self.merge_before:
            sequences = [own.mean(dim=0) for own in self.by_class(episode, episode.support)]
            words = [own.mean(dim=0) for own in self.by_class(episode, texts)]
        else:
            sequences, words = list(episode.support), list(texts)
        both = [torch.cat((frames, word[None])) for frames, word in zip(sequences, words, strict=True)]
        return self.transformer(torch.stack(both))

    def by_class(self, episode: Episode, rows: Tensor) -> list[Tensor]:
        """What rows of support videos each class has."""
        return [rows[episode.support_labels == number] for number in episode.classes]

    def prototypes(self, episode: Episode, texts: Tensor) -> Tensor:
        """Sequences of classes, (W, T, D); a text of each support video, (S, D)."""
        frames = self.support_tokens(episode, texts)[:, :-1]
        if self.merge_before:
            return frames
        return torch.stack([own.mean(dim=0) for own in self.by_class(episode, frames)])

    # ------------------------------------------------------------------------------------------------------- matching

    def frame_distances(self, queries: Tensor, prototypes: Tensor) -> Tensor:
        """(Q, T, D), (W, T, D) -> (Q, W, T, T)."""
        return torch.stack([torch.stack([1 - cosines(query, own) for own in prototypes]) for query in queries])

    def directions(self, frame_distances: Tensor) -> list[Tensor]:
        """Lengths of alignments, one or both ways, each (Q, W)."""
        both = [align(frame_distances, self.smoothing)]
        if not self.single_direct:
            both.append(align(frame_distances.transpose(-2, -1), self.smoothing))
        return both

    def distances(self, episode: Episode, texts: Tensor) -> Tensor:
        """Of queries to classes, (Q, W)."""
        queries = self.query_tokens(episode)  # dropout draws for queries first
        return sum(self.directions(self.frame_distances(queries, self.prototypes(episode, texts))))

    # --------------------------------------------------------------------------------------------------------- losses

    def video_text_logits(self, features: Tensor, texts: Tensor) -> Tensor:
        """Features (N, T, D), texts of all training classes (B, D) -> (N, B)."""
        rows = []
        for video in features:
            whole = video.mean(dim=0)
            rows.append(torch.stack([self.weights["scale"][0] * cosine(whole, text) for text in texts]))
        return torch.stack(rows)

    def losses(
        self, episode: Episode, support_numbers: Tensor, query_numbers: Tensor, texts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross entropies of queries among the classes of the episode, and of all videos among all training classes.

        Args:
            episode: features.
            support_numbers: rows of `texts` that support videos belong to, (S,).
            query_numbers: the same of query videos, (Q,).
            texts: of all training classes, (B, D).
        """
        few_shot = F.cross_entropy(-self.distances(episode, texts[support_numbers]), episode.query_labels)
        videos, numbers = torch.cat((episode.support, episode.query)), torch.cat((support_numbers, query_numbers))
        return few_shot, F.cross_entropy(self.video_text_logits(videos, texts), numbers)

    # ----------------------------------------------------------------------------------------------------- evaluation

    def text_probabilities(self, episode: Episode, texts: Tensor) -> Tensor:
        """By the texts of the support videos alone, (S, D) -> (Q, W)."""
        classes = torch.stack([own.mean(dim=0) for own in self.by_class(episode, texts)])
        rows = []
        for video in episode.query:
            whole = video.mean(dim=0)
            scores = [(whole / whole.norm()) @ (text / text.norm()) for text in classes]
            rows.append((self.weights["scale"] * torch.stack(scores)).softmax(dim=0))
        return torch.stack(rows)

    def visual_probabilities(self, episode: Episode, texts: Tensor) -> Tensor:
        """By distances, (Q, W)."""
        return ((8 - self.distances(episode, texts)) / 8).softmax(dim=1)

    def combined(self, episode: Episode, texts: Tensor, beta: float) -> Tensor:
        """The weighted geometric mean of both, which no longer adds up to one, (Q, W)."""
        by_text, by_sight = self.text_probabilities(episode, texts), self.visual_probabilities(episode, texts)
        return by_text**beta * by_sight ** (1 - beta)
