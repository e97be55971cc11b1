"""The tree of defaults and the door through which a checked config leaves."""

import sys
import types

import pytest

from slowfast.config import defaults, legacy, values
from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.node import CfgNode, ConfigError

CHOSEN = ["MODEL.MODEL_NAME", "TemporalClipVideo", "MODEL.ARCH", "vitb16", "DATA.TEST_CROP_SIZE", 224]


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.merge_from_list(CHOSEN)
    return cfg


def test_each_call_returns_its_own_tree():
    first = get_cfg()
    first.MODEL.TEMPORAL_SCALE.append(9)
    first.TRAIN.BATCH_SIZE = 1
    assert get_cfg().MODEL.TEMPORAL_SCALE == [1]
    assert get_cfg().TRAIN.BATCH_SIZE == 64


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("NUM_GPUS", 1),
        ("RNG_SEED", 1),
        ("TRAIN.BATCH_SIZE", 64),
        ("TEST.NUM_ENSEMBLE_VIEWS", 10),
        ("TEST.NUM_SPATIAL_CROPS", 3),
        ("DATA.PATH_LABEL_SEPARATOR", " "),
        ("DATA.TEST_CROP_SIZE", 256),
        ("DATA.TRAIN_JITTER_SCALES", [256, 320]),
        ("MODEL.MODEL_NAME", "SlowFast"),
        ("MODEL.MASK_STRIDE", [1, 2, 2]),
        ("MODEL.CHANNEL_FOLD", 64),
        ("MODEL.TEMPORAL_SCALE", [1]),
        ("SOLVER.OPTIMIZING_METHOD", "sgd"),
        ("SOLVER.BETAS", (0.9, 0.999)),
        ("CONTRASTIVE.DELTA_CLIPS_MAX", float("inf")),
        ("TRAIN_FILE", "train.csv"),
    ],
)
def test_official_defaults(key, default):
    assert get_cfg().leaves()[key] == default


def test_a_method_declares_keys_in_its_own_folder(monkeypatch):
    def add_config(node):
        node.MY_METHOD = CfgNode()
        node.MY_METHOD.WEIGHT = 0.5

    leaf = types.ModuleType("my_method.config")
    leaf.add_config = add_config
    monkeypatch.setitem(sys.modules, "my_method", types.ModuleType("my_method"))
    monkeypatch.setitem(sys.modules, "my_method.config", leaf)
    monkeypatch.setattr(defaults, "METHODS", {"my_method": "my_method.build:build"})
    assert get_cfg().MY_METHOD.WEIGHT == 0.5


def test_a_method_says_what_its_keys_may_hold(monkeypatch):
    def add_config(node):
        node.MY_METHOD = CfgNode()
        node.MY_METHOD.WEIGHT, node.MY_METHOD.KIND, node.MY_METHOD.PARTS = 0.5, "a", [1]

    leaf = types.ModuleType("my_method.config")
    leaf.add_config = add_config
    leaf.RANGES = {"MY_METHOD.WEIGHT": (0, 1)}
    leaf.CHOICES = {"MY_METHOD.KIND": ("a", "b")}
    leaf.LISTS = {"MY_METHOD.PARTS": (lambda x: x > 0, (1,), "a number > 0")}
    monkeypatch.setitem(sys.modules, "my_method", types.ModuleType("my_method"))
    monkeypatch.setitem(sys.modules, "my_method.config", leaf)
    monkeypatch.setattr(
        defaults, "METHODS", {"stdd": "slowfast.methods.stdd.build:build", "my_method": "my_method.x:y"}
    )
    allowed = defaults.allowed_values()
    assert allowed.ranges == {**values.RANGES, "MY_METHOD.WEIGHT": (0, 1)}
    assert allowed.choices["METHOD"] == ("stdd", "my_method")
    for key, value, message in (
        ("WEIGHT", 2.0, "MY_METHOD.WEIGHT: 2.0 is out of range; allowed: from 0 to 1"),
        ("KIND", "c", "MY_METHOD.KIND: unknown value 'c'; allowed: 'a', 'b'"),
        ("PARTS", [1, 2], "MY_METHOD.PARTS: expected a number > 0, found [1, 2]"),
        ("PARTS", [0], "MY_METHOD.PARTS: expected a number > 0, found [0]"),
    ):
        cfg = get_cfg()
        cfg.merge_from_list([*CHOSEN, f"MY_METHOD.{key}", value])
        with pytest.raises(ConfigError) as caught:
            assert_and_infer_cfg(cfg)
        assert str(caught.value) == message


def test_the_checked_config_is_the_same_object(cfg):
    assert assert_and_infer_cfg(cfg) is cfg


@pytest.mark.parametrize("frozen", [False, True])
def test_learning_rates_scale_with_machines_once(cfg, frozen):
    cfg.merge_from_list(["NUM_SHARDS", 4, "SOLVER.BASE_LR_SCALE_NUM_SHARDS", True, "SOLVER.COSINE_END_LR", 0.001])
    if frozen:
        cfg.freeze()
    for _ in range(2):
        assert_and_infer_cfg(cfg)
        rates = [cfg.SOLVER[name] for name in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR")]
        assert rates == pytest.approx([0.4, 0.04, 0.004])
    assert cfg.is_frozen() is frozen


def test_learning_rates_stay_on_one_machine(cfg):
    cfg.SOLVER.BASE_LR_SCALE_NUM_SHARDS = True
    assert assert_and_infer_cfg(cfg).SOLVER.BASE_LR == 0.1


def test_checking_changes_nothing_else(cfg):
    before = cfg.leaves()
    assert assert_and_infer_cfg(cfg).leaves() == before


def test_bare_defaults_ask_for_a_model():
    with pytest.raises(ConfigError, match=r"^MODEL.MODEL_NAME: 'SlowFast' is one of PySlowFast's networks"):
        assert_and_infer_cfg(get_cfg())


def test_tables_of_rules_name_existing_keys():
    known = set(get_cfg().leaves())
    allowed = defaults.allowed_values()
    named = {*allowed.choices, *allowed.ranges, *allowed.lists, *legacy.inert_defaults()}
    assert named <= known


def test_names_agree_with_the_tables_that_other_packages_resolve():
    from slowfast.datasets.decode import DECODERS
    from slowfast.methods.stdd import DISTILLATIONS
    from slowfast.models.losses import LOSSES
    from slowfast.models.temporal import TEMPORAL_BLOCKS
    from slowfast.protocols import PROTOCOLS

    assert set(values.PROTOCOL_NAMES) == set(PROTOCOLS)
    assert set(values.DECODING_BACKENDS) == set(DECODERS)
    assert {str(name) for name in values.TEMPORAL_MODELING_TYPES} == set(TEMPORAL_BLOCKS)
    assert set(values.LOSS_FUNCS) == set(LOSSES)
    assert set(values.DISTILLATION_MODES) == set(DISTILLATIONS)
