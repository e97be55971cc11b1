"""One dataset with one label set: PySlowFast's train.csv, val.csv and test.csv.

Testing with the label map and the csv of another dataset is the official zero-shot evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import Mode, Split
from slowfast.protocols.base import EvalProtocol, ProtocolOptions, SplitScore
from slowfast.protocols.prepared import headline


class SingleDataset(EvalProtocol):
    """Train, validate and test on the three files of one folder.

    Args:
        options: where the files are.

    Raises:
        ValueError: if the label map is not usable.
    """

    def __init__(self, options: ProtocolOptions) -> None:
        paths = options.paths
        if not paths.label_map:
            raise ValueError(
                'DATA.INDEX_LABEL_MAPPING_FILE: is empty; give a JSON file {"0": "class name", ...} with every class'
            )
        self.paths, self.views, self.crops = paths, options.views, options.crops
        self.label_set = LabelSet.from_json(paths.label_map)

    def train_split(self) -> Split:
        """The split to train on."""
        return self._split("train", self.paths.train_file)

    def val_split(self) -> Split:
        """The split scored during training, one centre view per video."""
        return self._split("val", self.paths.val_file)

    def eval_splits(self) -> list[Split]:
        """The test split."""
        return [self._split("test", self.paths.test_file, views=self.views, crops=self.crops)]

    def summarise(self, scores: Mapping[str, SplitScore]) -> dict[str, float]:
        """Top-1, top-5 and mean class accuracy and the coverage, percent."""
        return headline(scores, list(scores))

    def _split(self, mode: Mode, file_name: str, *, views: int = 1, crops: int = 1) -> Split:
        csv = Path(self.paths.data_dir) / file_name
        return Split(name=mode, csv=csv, label_set=self.label_set, mode=mode, views=views, crops=crops)
