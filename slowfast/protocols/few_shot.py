"""Few-shot: train on K videos of each class of official split 1, score the test videos of split 1.

The figure is that of split 1. Published averages over three test splits are leaky: the test lists of splits 2 and 3
hold many of the videos that were trained on. SPLITS.ALL_TESTS scores them all the same and counts those videos; a
dataset without official splits has nothing more to score.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slowfast.config.node import ConfigError
from slowfast.datasets.annotation import read_annotations
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
from slowfast.protocols.prepared import PreparedSplits, figures, headline, split_figures

_FIRST = "split1"


class FewShot(EvalProtocol):
    """Train on SPLITS.SHOTS videos per class.

    Args:
        options: where the splits are.

    Raises:
        ValueError: if the dataset was not prepared, or has no list of that many shots.
    """

    published_datasets: ClassVar[tuple[str, ...]] = ("hmdb51", "ucf101", "ssv2")
    published_shots: ClassVar[tuple[int, ...]] = (2, 4, 8, 16)
    columns: ClassVar[Mapping[str, str]] = {f"shot{k}": f"K={k}" for k in (2, 4, 8, 16)}

    def __init__(self, options: ProtocolOptions) -> None:
        self._options = options.prepared
        self._splits = PreparedSplits(options)
        self._train = f"few_shot/{self._options.shots}/train"
        self._test = self._splits.first(f"{_FIRST}/test", "full/val")
        self._scores_all = self._options.all_tests and self._test.startswith(_FIRST)

    def train_split(self) -> Split:
        """K videos of each class."""
        return self._splits.split(self._train, "train")

    def val_split(self) -> Split:
        """The test videos: few-shot work validates on them. They choose nothing, unless TRAIN.KEEP_BEST lets them."""
        return self._splits.split(self._test, "val")

    def eval_splits(self) -> list[Split]:
        """The test videos of split 1, or the validation videos of a dataset without splits."""
        names = [self._test]
        if self._scores_all:
            names += [f"split{n}/test" for n in (2, 3)]
        return [self._splits.split(name, "test", name=name.rpartition("/")[0]) for name in names]

    def summarise(self, scores: Mapping[str, SplitScore]) -> dict[str, float]:
        """The figures of split 1; with all splits also their mean and the number of videos that were trained on."""
        summary = split_figures(scores)
        if self._scores_all:
            top1 = [score.tally.top1_acc for score in scores.values()]
            summary |= {"split_mean_top1": mean(top1), "split_std_top1": population_std(top1)}
            trained = self._videos(self._train)
            summary |= {f"{name}_trained_on": float(len(trained & self._videos(f"{name}/test"))) for name in scores}
        return {**summary, **headline(scores, [next(iter(scores))])}

    @classmethod
    def jobs(cls, request: TableRequest) -> list[Job]:
        """One training and test per dataset and K."""
        if not request.trains:
            raise ConfigError(
                "--weights: few-shot figures come from training; allowed: --init, the weights to start from"
            )
        return [
            Job(
                name=f"{dataset}_{shots}shot",
                dataset=dataset,
                options={"PROTOCOL": "few_shot", "SPLITS.DATASET": dataset, "SPLITS.SHOTS": shots},
                trains=True,
            )
            for dataset in (tuple(request.datasets) or cls.published_datasets)
            for shots in (tuple(request.shots) or cls.published_shots)
        ]

    @classmethod
    def cells(cls, results: Results) -> dict[str, dict[str, Figure]]:
        """Top-1 by K."""
        collected = Collected()
        for job, summary in results.values():
            collected.add(job.dataset, f"shot{job.options['SPLITS.SHOTS']}", summary["top1_acc"])
        return figures(collected)

    def _videos(self, list_name: str) -> set[str]:
        split = self._splits.split(list_name, "test")
        records = read_annotations(split.csv, separator=split.separator or ",")  # only names are compared
        return {Path(record.path).name for record in records}
