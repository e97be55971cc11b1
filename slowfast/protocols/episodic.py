"""Episodic few-shot learning: tasks of a few classes that were not trained on, each with a few labelled videos.

The classes of a benchmark are divided into base, validation and test classes, `episodic/<benchmark>/{train,val,test}`.
Training sees the base classes; episodes of the validation classes choose the model; the figure is the mean accuracy
over episodes of the test classes, with its 95 % interval.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from slowfast.config.node import ConfigError
from slowfast.datasets.prepared import PreparedDataset, read_manifest
from slowfast.datasets.types import EpisodeSpec, Mode, Split
from slowfast.protocols.base import (
    EvalProtocol,
    Figure,
    Job,
    ProtocolOptions,
    Results,
    SplitScore,
    TableRequest,
)
from slowfast.protocols.prepared import PreparedSplits

_BENCHMARKS = {"": "", "kinetics100": "100 classes, ", "ssv2_small": "Small, ", "ssv2_full": "Full, "}
"""Benchmarks that have not the name of their dataset -> what a table calls them; "" for those that have."""


_MOST_SHOTS = 10
"""Supports per class that a table has columns for."""


class Episodic(EvalProtocol):
    """Score episodes of EPISODES.BENCHMARK.

    Args:
        options: where the splits are, and which episodes are drawn.

    Raises:
        ValueError: if the dataset was not prepared, or does not have the class splits.
    """

    published_datasets: ClassVar[tuple[str, ...]] = ("hmdb51", "ucf101", "ssv2", "k400")
    counted: ClassVar[str] = "drawn episodes"
    published_shots: ClassVar[tuple[int, ...]] = (1, 5)
    columns: ClassVar[Mapping[str, str]] = {
        f"{name}{'_' if name else ''}shot{k}": f"{title}{k}-shot"
        for name, title in _BENCHMARKS.items()
        for k in range(1, _MOST_SHOTS + 1)
    }

    def __init__(self, options: ProtocolOptions) -> None:
        self._options = options.episodes
        self._splits = PreparedSplits(replace(options, views=1, crops=1))
        self._benchmark = _choose(self._splits.dataset, self._options.benchmark)

    def train_split(self) -> Split:
        """The videos of the base classes; in episodes where EPISODES.TRAIN asks for them."""
        return self._split("train", mode="train", episodes=self._options.train)

    def val_split(self) -> Split:
        """Episodes of the validation classes, or of the test classes where EPISODES.VAL says so.

        Raises:
            ValueError: if the validation classes are not known.
        """
        name = f"episodic/{self._benchmark}/{self._options.val_classes}"
        if name not in self._splits.dataset.lists:
            raise ValueError(
                f"EPISODES.VAL: {self._options.val_classes!r}, but {self._splits.dataset.folder} has no list {name}; "
                "tools/prepare_data.py makes it of episodic/<name>/val_index2cls.json, or imports it (--from-repo); "
                "or validate on the test classes, as published: 'test'"
            )
        return self._split(self._options.val_classes, mode="val", episodes=self._options.val)

    def eval_splits(self) -> list[Split]:
        """Episodes of the test classes."""
        return [self._split("test", mode="test", episodes=self._options.test)]

    def summarise(self, scores: Mapping[str, SplitScore]) -> dict[str, float]:
        """Mean accuracy over the episodes and half of its 95 % interval; accuracy over the queries of each class."""
        (score,) = scores.values()
        assert score.episodes is not None, "scores of episodes"
        episodes = score.episodes.tally
        return {
            "top1_acc": episodes.accuracy,
            "top1_ci95": episodes.interval,
            "top5_acc": score.tally.top5_acc,
            "mean_class_acc": score.tally.mean_class_acc,
            "num_episodes": float(episodes.num_episodes),
            "coverage": 100.0 * episodes.num_episodes / score.episodes.num_episodes,
        }

    @classmethod
    def jobs(cls, request: TableRequest) -> list[Job]:
        """One test per benchmark and number of supports, after one training per benchmark unless weights are given."""
        jobs = []
        all_shots = tuple(request.shots) or cls.published_shots
        if not all(1 <= shots <= _MOST_SHOTS for shots in all_shots):
            raise ConfigError(f"--shots: found {list(all_shots)}, allowed: from 1 to {_MOST_SHOTS}")
        for dataset in tuple(request.datasets) or cls.published_datasets:
            for benchmark in _tabled(read_manifest(request.label_db, dataset)):
                name = benchmark if benchmark in (dataset, *_BENCHMARKS) else f"{dataset}_{benchmark}"
                options: dict[str, Any] = {
                    "PROTOCOL": "episodic", "SPLITS.DATASET": dataset, "EPISODES.BENCHMARK": benchmark,
                }  # fmt: skip
                source = f"train_{name}" if request.trains else ""
                if source:
                    jobs.append(Job(name=source, dataset=dataset, options=options, trains=True, tests=False))
                jobs += [
                    Job(
                        name=f"{name}_{shots}shot",
                        dataset=dataset,
                        options={**options, "EPISODES.SHOT_TEST": shots},
                        trains=False,
                        weights_from=source,
                    )
                    for shots in all_shots
                ]
        return jobs

    @classmethod
    def cells(cls, results: Results) -> dict[str, dict[str, Figure]]:
        """Mean accuracy and half of its 95 % interval, by benchmark and number of supports."""
        cells: dict[str, dict[str, Figure]] = {}
        for job, summary in results.values():
            benchmark = job.options["EPISODES.BENCHMARK"]
            prefix = f"{benchmark}_" if benchmark in _BENCHMARKS else ""
            accuracy = summary["top1_acc"]
            figure = Figure(mean=accuracy, std=summary["top1_ci95"], values=(accuracy,))
            cells.setdefault(job.dataset, {})[f"{prefix}shot{job.options['EPISODES.SHOT_TEST']}"] = figure
        return cells

    def _split(self, part: str, *, mode: Mode, episodes: EpisodeSpec | None) -> Split:
        split = self._splits.split(f"episodic/{self._benchmark}/{part}", mode)
        return replace(split, episodes=episodes)


def _benchmarks(dataset: PreparedDataset) -> list[str]:
    """Class splits that the lists of a dataset have.

    Raises:
        ValueError: if there are none.
    """
    found = [match[1] for name in dataset.lists if (match := re.fullmatch(r"episodic/([^/]+)/test", name))]
    if not found:
        raise ValueError(f"{dataset.folder}: has no class splits to draw episodes of; wanted: episodic/<name>/test")
    return found


def _tabled(dataset: PreparedDataset) -> list[str]:
    """Class splits of a dataset that a table can tell apart.

    Raises:
        ValueError: if there are none, or several of one's own.
    """
    found = _benchmarks(dataset)
    own = [benchmark for benchmark in found if benchmark not in _BENCHMARKS]
    if len(own) > 1:
        raise ValueError(
            f"{dataset.folder}: has the class splits {', '.join(own)}; a table has room for one, others are for single "
            "runs (EPISODES.BENCHMARK)"
        )
    return found


def _choose(dataset: PreparedDataset, benchmark: str) -> str:
    found = _benchmarks(dataset)
    if benchmark in found:
        return benchmark
    if benchmark or len(found) > 1:
        raise ValueError(
            f"EPISODES.BENCHMARK: {benchmark!r} is none of the class splits of {dataset.folder}; "
            f"allowed: {', '.join(found)}"
        )
    return found[0]
