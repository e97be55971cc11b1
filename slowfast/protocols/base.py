"""What the engine and the tools see of a protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from slowfast.datasets.types import EpisodeSpec, Split
from slowfast.protocols.metrics import EpisodeTally, Tally


@dataclass(frozen=True, kw_only=True)
class EpisodeScore:
    """How a model did in episodes."""

    tally: EpisodeTally
    num_episodes: int
    """Episodes that were drawn, scored or not."""
    num_encoded: int
    """Videos that were decoded and encoded."""


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """How a model did on one split."""

    tally: Tally
    """Right and wrong answers; in episodes a query counts each time that one takes it."""
    num_videos: int
    """Videos that the split lists, scored or not."""
    episodes: EpisodeScore | None = None
    """Of a split that is scored in episodes."""

    @property
    def num_scored(self) -> int:
        """Videos that were decoded and scored."""
        return self.tally.num_scored if self.episodes is None else self.episodes.num_encoded


@dataclass(frozen=True, kw_only=True)
class SplitPaths:
    """Where a protocol of loose annotation files finds them."""

    data_dir: str
    """Folder of the annotation files (DATA.PATH_TO_DATA_DIR)."""
    train_file: str
    val_file: str
    test_file: str
    label_map: str
    """JSON file of class names (DATA.INDEX_LABEL_MAPPING_FILE)."""


@dataclass(frozen=True, kw_only=True)
class PreparedOptions:
    """Which lists of a prepared dataset a protocol takes."""

    label_db: str
    """Folder of the datasets (SPLITS.LABEL_DB)."""
    dataset: str
    """The dataset that is scored, and trained on unless the protocol is zero-shot (SPLITS.DATASET)."""
    source: str
    """Zero-shot: the dataset that is trained on (SPLITS.SOURCE)."""
    names: str
    """Wording of the class names (SPLITS.NAMES)."""
    shots: int
    seed: int
    number: int
    halves: bool
    all_tests: bool
    root: str
    """Folder of the videos; empty: the one that the manifest names (DATA.PATH_PREFIX)."""


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions:
    """Which episodes a protocol of few-shot tasks draws."""

    benchmark: str
    """Class splits of the dataset (EPISODES.BENCHMARK); empty: the only ones."""
    val_classes: str
    """Part of them that training is validated on (EPISODES.VAL)."""
    train: EpisodeSpec | None
    """None: training learns from videos one by one."""
    val: EpisodeSpec
    test: EpisodeSpec


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """All that a protocol may need; each reads its part."""

    paths: SplitPaths
    prepared: PreparedOptions
    episodes: EpisodeOptions
    views: int
    """Temporal views per test video."""
    crops: int
    """Spatial crops per view."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One cell of a table, percent.

    Attributes:
        mean: mean of the values.
        std: their population standard deviation, or, over episodes, half of the 95 % interval; None for a single value,
            or where none is published.
        values: the single figures.
    """

    mean: float
    std: float | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, one test, or both, of a table.

    Attributes:
        name: its folder.
        dataset: the dataset that is scored, or trained on where nothing is.
        options: configuration keys that make it this job.
        trains: whether it trains a model.
        tests: whether it scores one.
        weights_from: name of the job that trains its weights; empty: its own or given ones.
    """

    name: str
    dataset: str
    options: Mapping[str, Any]
    trains: bool
    tests: bool = True
    weights_from: str = ""


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """What a table should cover.

    Attributes:
        datasets: folders of `label_db`; empty: those of the published tables.
        trains: whether models are trained; otherwise given weights are scored.
        shots: K of few-shot, or supports per class of episodes; empty: those of the published tables.
        seeds: draws of base-to-novel.
        source: zero-shot: dataset to train on.
        halves: zero-shot: score half-class draws too, of the datasets that have some.
        label_db: folder of the datasets.
    """

    label_db: str
    datasets: Sequence[str] = ()
    trains: bool
    shots: Sequence[int] = ()
    seeds: Sequence[int] = (1, 2, 3)
    source: str = "k400"
    halves: bool = False


Results = Mapping[str, tuple[Job, Mapping[str, float]]]
"""Job name -> the job and the summary of its test."""


class EvalProtocol(ABC):
    """Names the splits of a run and turns scores into figures; its class plans and aggregates whole tables.

    Args:
        options: where the splits are.
    """

    published_datasets: ClassVar[tuple[str, ...]] = ()
    """Datasets of the published tables; empty: the protocol has no table."""
    columns: ClassVar[Mapping[str, str]] = {}
    """Metric of a cell -> its title."""
    counted: ClassVar[str] = "listed videos"
    """What `coverage` is a share of."""

    @abstractmethod
    def __init__(self, options: ProtocolOptions) -> None: ...

    @abstractmethod
    def train_split(self) -> Split:
        """The split to train on."""

    @abstractmethod
    def val_split(self) -> Split:
        """The split scored during training."""

    @abstractmethod
    def eval_splits(self) -> list[Split]:
        """The splits scored by a test run; a video may be in several, with other classes beside its own."""

    @abstractmethod
    def summarise(self, scores: Mapping[str, SplitScore]) -> dict[str, float]:
        """Aggregate the scores of the eval splits, by split name, into named figures.

        The figures include `top1_acc`, `top5_acc`, the headline of the run, and `coverage`, all percent.
        """

    @classmethod
    def jobs(cls, request: TableRequest) -> list[Job]:
        """The runs that a table takes.

        Raises:
            ValueError: if the protocol has no table, or cannot do what is asked.
        """
        raise ValueError(f"PROTOCOL: {cls.__name__} scores one set of files and has no table")

    @classmethod
    def cells(cls, results: Results) -> dict[str, dict[str, Figure]]:
        """Aggregate the summaries of the jobs into the cells of a table, by dataset and metric."""
        raise ValueError(f"PROTOCOL: {cls.__name__} scores one set of files and has no table")


@dataclass
class Collected:
    """Values of several jobs for the same cells."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, dataset: str, metric: str, value: float) -> None:
        """Add one value."""
        self.values.setdefault(dataset, {}).setdefault(metric, []).append(value)
