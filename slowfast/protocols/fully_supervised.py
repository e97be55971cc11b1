"""Fully supervised: train on all training videos of a dataset, score its test videos.

UCF101 and HMDB51 have three official splits, with one training each; the figure is their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from slowfast.datasets.prepared import read_manifest
from slowfast.datasets.traits import read_traits
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
from slowfast.protocols.prepared import PreparedSplits, figures, headline, split_figures


class FullySupervised(EvalProtocol):
    """Train on a whole dataset, or on its official split SPLITS.NUMBER.

    Args:
        options: where the splits are.

    Raises:
        ValueError: if the dataset was not prepared.
    """

    published_datasets: ClassVar[tuple[str, ...]] = ("k400",)
    columns: ClassVar[Mapping[str, str]] = {"top1": "top-1", "top5": "top-5"}

    def __init__(self, options: ProtocolOptions) -> None:
        self._splits = PreparedSplits(options)
        self._train = self._splits.first(f"split{options.prepared.number}/train", "full/train")
        folder = self._train.rpartition("/")[0]
        self._val = self._splits.first(f"{folder}/val", f"{folder}/test")
        # Published figures of some datasets, such as Kinetics, are those of the validation videos.
        scored = read_traits(self._splits.dataset.folder).scored
        self._test = self._splits.first(f"{folder}/{scored}", f"{folder}/test", f"{folder}/val")

    def train_split(self) -> Split:
        """The training videos."""
        return self._splits.split(self._train, "train")

    def val_split(self) -> Split:
        """The validation videos."""
        return self._splits.split(self._val, "val")

    def eval_splits(self) -> list[Split]:
        """The videos that figures are published for."""
        return [self._splits.split(self._test, "test", name=self._test.rpartition("/")[0])]

    def summarise(self, scores: Mapping[str, SplitScore]) -> dict[str, float]:
        """Figures of the test videos."""
        return {**split_figures(scores), **headline(scores, list(scores))}

    @classmethod
    def jobs(cls, request: TableRequest) -> list[Job]:
        """One training and test per dataset and official split; given weights are scored on the same videos."""
        jobs = []
        for dataset in tuple(request.datasets) or cls.published_datasets:
            lists = read_manifest(request.label_db, dataset).lists
            numbers = [n for n in (1, 2, 3) if f"split{n}/train" in lists]
            for number in numbers or [1]:
                name = f"{dataset}_split{number}" if numbers else dataset
                options = {"PROTOCOL": "fully_supervised", "SPLITS.DATASET": dataset, "SPLITS.NUMBER": number}
                jobs.append(Job(name=name, dataset=dataset, options=options, trains=request.trains))
        return jobs

    @classmethod
    def cells(cls, results: Results) -> dict[str, dict[str, Figure]]:
        """Top-1 and top-5, means over the official splits."""
        collected = Collected()
        for job, summary in results.values():
            for k in (1, 5):
                collected.add(job.dataset, f"top{k}", summary[f"top{k}_acc"])
        return figures(collected)
