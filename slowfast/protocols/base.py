"""What the engine and the tools see of a protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from slowfast.datasets.types import Split


class ScoredVideos(Protocol):
    """Merged scores of the videos of a split; the evaluator's ``Predictions`` is one."""

    @property
    def logits(self) -> Tensor:
        """Scores merged over views, (V, K)."""

    @property
    def label(self) -> Tensor:
        """Class numbers, (V,)."""

    @property
    def num_expected(self) -> int:
        """Videos that the split lists."""


@dataclass(frozen=True, kw_only=True)
class SplitPaths:
    """Where a protocol finds its files."""

    data_dir: str
    """Folder of the annotation files (DATA.PATH_TO_DATA_DIR)."""
    train_file: str
    val_file: str
    test_file: str
    label_map: str
    """JSON file of class names (DATA.INDEX_LABEL_MAPPING_FILE)."""
    views: int
    """Temporal views per test video."""
    crops: int
    """Spatial crops per view."""


class EvalProtocol(ABC):
    """Names the splits of a run and turns predictions into its figures."""

    @abstractmethod
    def train_split(self) -> Split:
        """The split to train on."""

    @abstractmethod
    def val_split(self) -> Split:
        """The split scored during training."""

    @abstractmethod
    def eval_splits(self) -> list[Split]:
        """The splits scored by a test run."""

    @abstractmethod
    def summarise(self, predictions: Mapping[str, ScoredVideos]) -> dict[str, float]:
        """Aggregate the predictions of the eval splits, by split name, into named figures."""
