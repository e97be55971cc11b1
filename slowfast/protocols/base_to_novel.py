"""Base-to-novel: train on 16 videos of each class of the base half, score base and novel classes, each among its own.

Three draws of the training videos. The harmonic mean 2bn / (b + n) is that of the means over the draws, as TC-CLIP's
tables have it; `hm_of_seeds` is the mean of the draws' own harmonic means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

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
from slowfast.protocols.metrics import harmonic_mean
from slowfast.protocols.prepared import PreparedSplits, figures, headline, split_figures


class BaseToNovel(EvalProtocol):
    """Train on draw SPLITS.SEED of the base classes.

    Args:
        options: where the splits are.

    Raises:
        ValueError: if the dataset was not prepared, or has no base-to-novel lists.
    """

    published_datasets: ClassVar[tuple[str, ...]] = ("k400", "hmdb51", "ucf101", "ssv2")
    columns: ClassVar[Mapping[str, str]] = {"base": "base", "novel": "novel", "hm": "HM"}

    def __init__(self, options: ProtocolOptions) -> None:
        self._splits = PreparedSplits(options)
        self._seed = options.prepared.seed

    def train_split(self) -> Split:
        """16 videos of each base class."""
        return self._splits.split(f"base_to_novel/seed{self._seed}/train", "train")

    def val_split(self) -> Split:
        """The test videos of the base classes. They choose nothing, unless TRAIN.KEEP_BEST lets them."""
        return self._splits.split("base_to_novel/base_test", "val")

    def eval_splits(self) -> list[Split]:
        """The test videos of the base and of the novel classes."""
        return [self._splits.split(f"base_to_novel/{half}_test", "test", name=half) for half in ("base", "novel")]

    def summarise(self, scores: Mapping[str, SplitScore]) -> dict[str, float]:
        """Figures of both halves, their harmonic mean `hm_top1`, and their plain means as the headline."""
        summary = split_figures(scores)
        hm = harmonic_mean(summary["base_top1"], summary["novel_top1"])
        return {**summary, "hm_top1": hm, **headline(scores, ["base", "novel"])}

    @classmethod
    def jobs(cls, request: TableRequest) -> list[Job]:
        """One training and test per dataset and draw; given weights are scored once."""
        return [
            Job(
                name=f"{dataset}_seed{seed}" if request.trains else dataset,
                dataset=dataset,
                options={"PROTOCOL": "base_to_novel", "SPLITS.DATASET": dataset, "SPLITS.SEED": seed},
                trains=request.trains,
            )
            for dataset in (tuple(request.datasets) or cls.published_datasets)
            for seed in (request.seeds if request.trains else request.seeds[:1])
        ]

    @classmethod
    def cells(cls, results: Results) -> dict[str, dict[str, Figure]]:
        """Means over the draws, and the harmonic mean of the two means."""
        collected = Collected()
        for job, summary in results.values():
            for half in ("base", "novel"):
                collected.add(job.dataset, half, summary[f"{half}_top1"])
            collected.add(job.dataset, "hm_of_seeds", summary["hm_top1"])
        cells = figures(collected)
        for metrics in cells.values():
            metrics["hm"] = Figure(mean=harmonic_mean(metrics["base"].mean, metrics["novel"].mean))
        return cells
