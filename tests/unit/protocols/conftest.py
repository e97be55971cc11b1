"""Prepared datasets without videos, and scores of made-up models."""

import json

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets.prepared import PreparedDataset, PreparedList, write_manifest
from slowfast.protocols.base import SplitScore
from slowfast.protocols.metrics import Tally

CLASSES = ["run", "jump", "climb", "surf"]


def write_classes(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({str(i): name for i, name in enumerate(names)}))
    rephrased = {str(i): f"{name}: to {name}" for i, name in enumerate(names)}
    path.with_name(path.name.replace("index2cls", "rephrased")).write_text(json.dumps(rephrased))


@pytest.fixture
def prepare(tmp_path):
    """Writes label_db/<name>: prepare(name, {list name: (class file, names, rows)})."""

    def make(name, lists):
        folder = tmp_path / name
        for list_name, (file, names, rows) in lists.items():
            write_classes(folder / file, names)
            csv = folder / "splits" / f"{list_name}.csv"
            csv.parent.mkdir(parents=True, exist_ok=True)
            csv.write_text("".join(f"{path},{label}\n" for path, label in rows))
        entries = {
            list_name: PreparedList(classes=file, rows=len(rows), official=1000)
            for list_name, (file, _, rows) in lists.items()
        }
        write_manifest(PreparedDataset(name=name, folder=folder, root="/videos", lists=entries))
        return folder

    return make


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.SPLITS.LABEL_DB = str(tmp_path)
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 3, 1
    return cfg


@pytest.fixture
def score():
    """A score with the given numbers of right and wrong answers: score(right, wrong, listed=None)."""

    def make(right, wrong, *, listed=None):
        tally = Tally(2)
        answers = torch.tensor([[1.0, 0.0]] * right + [[0.0, 1.0]] * wrong)
        tally.add(answers.view(-1, 2), torch.zeros(right + wrong, dtype=torch.long))
        return SplitScore(tally=tally, num_videos=right + wrong if listed is None else listed)

    return make
