"""Splits of datasets that `tools/prepare_data.py` made, and sums over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from slowfast.datasets.prepared import SEPARATOR, PreparedDataset, read_manifest
from slowfast.datasets.types import Mode, Split
from slowfast.protocols.base import Collected, Figure, PreparedOptions, ProtocolOptions, SplitScore
from slowfast.protocols.metrics import mean, population_std


class PreparedSplits:
    """Makes the splits of one prepared dataset.

    Args:
        options: which dataset, and how its tests look at videos.
        dataset: a dataset other than SPLITS.DATASET.

    Raises:
        ValueError: if the dataset was not prepared.
    """

    def __init__(self, options: ProtocolOptions, *, dataset: str | None = None) -> None:
        self._options = options
        self._prepared: PreparedOptions = options.prepared
        self.dataset: PreparedDataset = read_manifest(self._prepared.label_db, dataset or self._prepared.dataset)

    def first(self, *names: str) -> str:
        """The first of several lists that the dataset has; the last is required."""
        return next((name for name in names if name in self.dataset.lists), names[-1])

    def split(self, list_name: str, mode: Mode, *, name: str | None = None) -> Split:
        """A split of one list.

        Args:
            list_name: see `slowfast.datasets.prepared`.
            mode: how clips are drawn.
            name: what it is called in results; default: the mode.

        Raises:
            ValueError: if the dataset has no such list, or its class file is not usable.
        """
        tested = mode == "test"
        label_set = self.dataset.label_set(list_name, names=self._prepared.names)
        return Split(
            name=name or mode,
            csv=self.dataset.csv(list_name),
            label_set=label_set,
            mode=mode,
            views=self._options.views if tested else 1,
            crops=self._options.crops if tested else 1,
            prefix=self._prepared.root or self.dataset.root,
            separator=SEPARATOR,
            official=self.dataset.require(list_name).official,
        )


def split_figures(scores: Mapping[str, SplitScore]) -> dict[str, float]:
    """Top-1 and top-5 of every split, percent: `<split>_top1`, `<split>_top5`."""
    figures = {}
    for name, score in scores.items():
        figures[f"{name}_top1"] = score.tally.top1_acc
        figures[f"{name}_top5"] = score.tally.top5_acc
    return figures


def coverage(scores: Iterable[SplitScore]) -> float:
    """Share of the listed videos that was scored, percent."""
    scores = list(scores)
    listed = sum(score.num_videos for score in scores)
    return 100.0 * sum(score.tally.num_scored for score in scores) / listed if listed else 0.0


def headline(scores: Mapping[str, SplitScore], names: Sequence[str]) -> dict[str, float]:
    """`top1_acc`, `top5_acc` and `mean_class_acc`, each the mean over some splits, and the `coverage` of all."""
    tallies = [scores[name].tally for name in names]
    return {
        "top1_acc": mean([tally.top1_acc for tally in tallies]),
        "top5_acc": mean([tally.top5_acc for tally in tallies]),
        "mean_class_acc": mean([tally.mean_class_acc for tally in tallies]),
        "coverage": coverage(scores.values()),
    }


def figure(values: Sequence[float]) -> Figure:
    """Mean and population standard deviation of some figures; a single one has no deviation."""
    return Figure(
        mean=mean(values), std=population_std(values) if len(values) > 1 else None, values=tuple(map(float, values))
    )


def figures(collected: Collected) -> dict[str, dict[str, Figure]]:
    """Every collected cell as a figure."""
    return {
        dataset: {metric: figure(values) for metric, values in metrics.items()}
        for dataset, metrics in collected.values.items()
    }
