import json
from pathlib import Path

import pytest
import torch

from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.node import ConfigError
from slowfast.config.values import LOOSE_PROTOCOLS, PROTOCOL_NAMES
from slowfast.protocols import PROTOCOLS
from slowfast.protocols.base import EvalProtocol, SplitScore, TableRequest
from slowfast.protocols.build import build_protocol, protocol_class
from slowfast.protocols.metrics import Tally
from slowfast.report.published import METRICS


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"0": "surfing", "1": "climbing"}))
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path)
    cfg.DATA.INDEX_LABEL_MAPPING_FILE = str(tmp_path / "labels.json")
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 3, 1
    return cfg


def test_configuration_and_table_name_the_same_protocols():
    assert list(PROTOCOL_NAMES) == list(PROTOCOLS)
    assert get_cfg().PROTOCOL in PROTOCOLS


def test_splits(cfg, tmp_path):
    protocol = build_protocol(cfg)
    assert isinstance(protocol, EvalProtocol)
    train, val, (test,) = protocol.train_split(), protocol.val_split(), protocol.eval_splits()
    assert [split.csv for split in (train, val, test)] == [tmp_path / f"{n}.csv" for n in ("train", "val", "test")]
    assert [(split.mode, split.views, split.crops) for split in (train, val, test)] == [
        ("train", 1, 1),
        ("val", 1, 1),
        ("test", 3, 1),
    ]
    assert test.label_set.names == ("surfing", "climbing")


def test_file_names_and_views_can_be_chosen(cfg):
    cfg.TRAIN_FILE, cfg.TEST.OPENSET = "few.csv", True
    protocol = build_protocol(cfg, views=5)
    assert protocol.train_split().csv.name == "few.csv"
    (test,) = protocol.eval_splits()
    assert (Path(test.csv).name, test.views) == ("test_openset.csv", 5)


def test_summary(cfg):
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    tally = Tally(2)
    tally.add(logits, torch.tensor([0, 1, 1]))
    summary = build_protocol(cfg).summarise({"test": SplitScore(tally=tally, num_videos=4)})
    expected = {"top1_acc": 200 / 3, "top5_acc": 100.0, "mean_class_acc": 75.0, "coverage": 75.0}
    assert summary == pytest.approx(expected)


def test_label_map_is_required(cfg):
    cfg.DATA.INDEX_LABEL_MAPPING_FILE = ""
    with pytest.raises(ValueError, match=r"^DATA\.INDEX_LABEL_MAPPING_FILE: is empty; give a JSON file \{"):
        build_protocol(cfg)


def test_unknown_protocol(cfg):
    cfg.PROTOCOL = "single_dataste"
    with pytest.raises(ValueError, match=r"^PROTOCOL: unknown value 'single_dataste'; did you mean 'single_dataset'\?"):
        build_protocol(cfg)


def test_loose_files_have_no_table():
    with pytest.raises(ValueError, match=r"^PROTOCOL: SingleDataset scores one set of files and has no table$"):
        protocol_class("single_dataset").jobs(TableRequest(label_db="x", trains=False))
    with pytest.raises(ValueError, match=r"has no table$"):
        protocol_class("single_dataset").cells({})


@pytest.mark.parametrize("name", [name for name in PROTOCOL_NAMES if name not in LOOSE_PROTOCOLS])
def test_tables_have_the_columns_that_are_published(name):
    protocol = protocol_class(name)
    assert set(METRICS[name]) <= set(protocol.columns)
    assert protocol.published_datasets


@pytest.mark.parametrize("name", [name for name in PROTOCOL_NAMES if name not in LOOSE_PROTOCOLS])
def test_prepared_protocols_need_a_dataset(name):
    cfg = get_cfg()
    cfg.PROTOCOL, cfg.MODEL.MODEL_NAME, cfg.MODEL.ARCH = name, "TemporalClipVideo", "vitb16"
    with pytest.raises(ConfigError, match=r"^SPLITS\.DATASET: is empty, but PROTOCOL is"):
        assert_and_infer_cfg(cfg)
