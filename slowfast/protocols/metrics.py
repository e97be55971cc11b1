"""Figures of merit as pure functions of scores and labels, and counts that add up over batches."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor


def topk_correct(logits: Tensor, label: Tensor, *, k: int) -> Tensor:
    """Whether each label is among the k best classes, (V, K) and (V,) -> bool (V,)."""
    return label_rank(logits, label) < k


def label_rank(logits: Tensor, label: Tensor) -> Tensor:
    """How many classes come before each label's, (V, K) and (V,) -> int64 (V,), 0 for the best.

    Of equal scores the class with the lower number comes first, as with ``argmax``. A score that is not a number comes
    before every other, and a label with such a score is never right: its rank is K at least.
    """
    own = logits.gather(1, label[:, None])  # (V, 1)
    number = torch.arange(logits.shape[1], device=logits.device)
    earlier = (logits == own) & (number < label[:, None])
    return (~(logits <= own) | earlier).sum(dim=1)


class Tally:
    """Right and wrong answers per class: all that the figures of a split need, whatever the number of its videos.

    Counts are integers, so the figures do not depend on the order of the videos nor on how batches were cut.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        """Videos by true class (row) and best-scored class (column), (K, K)."""
        self.top1 = torch.zeros(num_classes, dtype=torch.int64)
        """Videos of each class whose label is scored best, (K,): the diagonal, but for scores that are no numbers."""
        self.top5 = torch.zeros(num_classes, dtype=torch.int64)
        """Videos of each class whose label is among the five best, (K,)."""

    def add(self, logits: Tensor, label: Tensor) -> None:
        """Count V videos: logits (V, K) and class numbers (V,) in [0, K), on the CPU; nothing if V is 0."""
        if not len(label):
            return
        assert logits.shape == (len(label), self.num_classes), f"logits {tuple(logits.shape)}, {self.num_classes=}"
        cells = label * self.num_classes + logits.argmax(dim=1)
        self.confusion += torch.bincount(cells, minlength=self.num_classes**2).view_as(self.confusion)
        rank = label_rank(logits, label)
        self.top1 += torch.bincount(label[rank < 1], minlength=self.num_classes)
        self.top5 += torch.bincount(label[rank < 5], minlength=self.num_classes)

    def merge(self, other: Tally) -> None:
        """Add the counts of other videos, of the same classes."""
        self.confusion += other.confusion
        self.top1 += other.top1
        self.top5 += other.top5

    @property
    def videos(self) -> Tensor:
        """Videos of each class, (K,), int64."""
        return self.confusion.sum(dim=1)

    @property
    def num_scored(self) -> int:
        """Videos counted."""
        return int(self.confusion.sum())

    @property
    def top1_acc(self) -> float:
        """Share of videos whose label is scored best, percent; 0 if there is no video."""
        return _percent(int(self.top1.sum()), self.num_scored)

    @property
    def top5_acc(self) -> float:
        """Share of videos whose label is among the five best, percent; 0 if there is no video."""
        return _percent(int(self.top5.sum()), self.num_scored)

    @property
    def mean_class_acc(self) -> float:
        """Top-1 accuracy averaged over the classes that occur, percent; 0 if there is no video."""
        pairs = zip(self.top1.tolist(), self.videos.tolist(), strict=True)
        per_class = [_percent(right, total) for right, total in pairs if total]
        return mean(per_class) if per_class else 0.0


class EpisodeTally:
    """How many episodes had how many right answers: all that their mean and its interval need.

    Counts are integers, so the figures do not depend on the order of the episodes.

    Args:
        num_queries: of each episode, Q.
    """

    def __init__(self, num_queries: int) -> None:
        self.num_queries = num_queries
        self.counts = torch.zeros(num_queries + 1, dtype=torch.int64)
        """Episodes by number of right answers, (Q + 1,)."""

    def add(self, right: Tensor) -> None:
        """Count episodes by their numbers of right answers, (E,), int64."""
        self.counts += torch.bincount(right, minlength=self.num_queries + 1)

    def merge(self, other: EpisodeTally) -> None:
        """Add the counts of other episodes, with as many queries each."""
        self.counts += other.counts

    @property
    def num_episodes(self) -> int:
        """Episodes counted."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Mean over the episodes of their share of right answers, percent; 0 if there is none."""
        right = int((self.counts * torch.arange(self.num_queries + 1)).sum())
        return _percent(right, self.num_episodes * self.num_queries)

    @property
    def interval(self) -> float:
        """Half of the 95 % interval of that mean, 1.96 standard errors, in percentage points; 0 for one episode."""
        total = self.num_episodes
        if total < 2:
            return 0.0
        accuracies = 100.0 * torch.arange(self.num_queries + 1, dtype=torch.float64) / self.num_queries
        squares = (self.counts * (accuracies - self.accuracy) ** 2).sum()
        return 1.96 * math.sqrt(float(squares) / (total - 1) / total)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return statistics.fmean(values)


def population_std(values: Sequence[float]) -> float:
    """Standard deviation of at least one value, with n in the denominator, as papers report it over splits."""
    return statistics.pstdev(values)


def harmonic_mean(a: float, b: float) -> float:
    """Harmonic mean of two figures >= 0, e.g. accuracy on base and novel classes; 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
