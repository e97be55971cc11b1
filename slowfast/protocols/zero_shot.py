"""Zero-shot: train on one dataset, score others whose classes were never named in training.

UCF101 and HMDB51: official test splits 1 to 3, and all videos of the dataset. Kinetics-600: three splits of 160
classes that Kinetics-400 does not have. Each split is scored over its own classes; the figure is the mean over three
splits with the population standard deviation. Half-class draws (Open-VCLIP) score ten random halves of the classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from slowfast.datasets.prepared import PreparedDataset, read_manifest
from slowfast.datasets.types import Split
from slowfast.protocols.base import (
    Collected,
    EvalProtocol,
    Figure,
    Job,
    ProtocolOptions,
    Results,
    SplitScore,
    TableRequest,
)
from slowfast.protocols.metrics import mean, population_std
from slowfast.protocols.prepared import PreparedSplits, figure, figures, headline, split_figures

_KINDS = {"split": r"(zero_shot_)?split\d+", "full": "full", "half": r"half\d+"}
"""Kind of a split -> pattern of its name, which is its list without `/test`."""


class ZeroShot(EvalProtocol):
    """Score a dataset that was not trained on.

    Args:
        options: where the splits are.

    Raises:
        ValueError: if the dataset was not prepared, or has no list to test on.
    """

    published_datasets: ClassVar[tuple[str, ...]] = ("ucf101", "hmdb51", "k600")
    columns: ClassVar[Mapping[str, str]] = {"full": "all", "split_mean": "3 splits", "half_mean": "10 halves"}

    def __init__(self, options: ProtocolOptions) -> None:
        self._options = options

    def train_split(self) -> Split:
        """The training videos of SPLITS.SOURCE."""
        return self._source().split("full/train", "train")

    def val_split(self) -> Split:
        """The validation videos of SPLITS.SOURCE."""
        return self._source().split("full/val", "val")

    def eval_splits(self) -> list[Split]:
        """The splits of SPLITS.DATASET, the whole of it, and the half-class draws where SPLITS.HALVES asks for them."""
        splits = PreparedSplits(self._options)
        wanted = [kind for kind in _KINDS if kind != "half" or self._options.prepared.halves]
        names = [name for name in _test_names(splits.dataset) if _kind(name) in wanted]
        if not names or (self._options.prepared.halves and "half" not in map(_kind, names)):
            lists = "splits, full/test or, with SPLITS.HALVES, half0/test"
            raise ValueError(f"{splits.dataset.folder}: has no list to test on; wanted: {lists}")
        return [splits.split(f"{name}/test", "test", name=name) for name in names]

    def summarise(self, scores: Mapping[str, SplitScore]) -> dict[str, float]:
        """Figures of each split; mean and population deviation over the official splits and over the halves."""
        summary = split_figures(scores)
        for kind in ("split", "half"):
            top1 = [score.tally.top1_acc for name, score in scores.items() if _kind(name) == kind]
            if top1:
                summary |= {f"{kind}_mean_top1": mean(top1), f"{kind}_std_top1": population_std(top1)}
        main = [name for name in scores if _kind(name) == "split"] or list(scores)[:1]
        return {**summary, **headline(scores, main)}

    @classmethod
    def jobs(cls, request: TableRequest) -> list[Job]:
        """One test per dataset, after one training unless weights are given."""
        jobs = []
        source = f"train_{request.source}" if request.trains else ""
        datasets = tuple(request.datasets) or cls.published_datasets
        options = {"PROTOCOL": "zero_shot", "SPLITS.SOURCE": request.source}
        if source:
            first = {**options, "SPLITS.DATASET": request.source}
            jobs.append(Job(name=source, dataset=request.source, options=first, trains=True, tests=False))
        for dataset in datasets:
            own: dict[str, Any] = {**options, "SPLITS.DATASET": dataset}
            if request.halves:  # Kinetics-600 has none
                own["SPLITS.HALVES"] = _has_halves(read_manifest(request.label_db, dataset))
            jobs.append(Job(name=dataset, dataset=dataset, options=own, trains=False, weights_from=source))
        return jobs

    @classmethod
    def cells(cls, results: Results) -> dict[str, dict[str, Figure]]:
        """Mean and deviation over the splits of each dataset; the whole dataset as a figure of its own."""
        collected = Collected()
        for job, summary in results.values():
            for name, value in summary.items():
                split, _, metric = name.rpartition("_")
                kind = _kind(split)
                if metric == "top1" and kind is not None:
                    collected.add(job.dataset, kind if kind == "full" else f"{kind}_mean", value)
        cells = figures(collected)
        for metrics in cells.values():
            if "full" in metrics:
                metrics["full"] = figure([metrics["full"].mean])
        return cells

    def _source(self) -> PreparedSplits:
        return PreparedSplits(self._options, dataset=self._options.prepared.source)


def _kind(name: str) -> str | None:
    return next((kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, name)), None)


def _has_halves(dataset: PreparedDataset) -> bool:
    return "half" in map(_kind, _test_names(dataset))


def _test_names(dataset: PreparedDataset) -> list[str]:
    return [name.removesuffix("/test") for name in dataset.lists if name.endswith("/test")]
