import re
from dataclasses import replace

import pytest

from slowfast.config.defaults import get_cfg
from slowfast.methods.stdd.config import StddConfig


@pytest.fixture
def config():
    return StddConfig.from_cfg(get_cfg())


def test_default_has_neither_teacher_nor_prompt_file(config):
    assert config.distillation is None
    assert config.ensemble_ratio == 0.0
    assert config.text_feature_file is None


@pytest.mark.parametrize(
    ("keep", "distil", "expected"), [(True, True, "intended"), (True, False, None), (False, True, None)]
)
def test_distillation_needs_both_keys(keep, distil, expected):
    cfg = get_cfg()
    cfg.MODEL.KEEP_RAW_MODEL, cfg.MODEL.RAW_MODEL_DISTILLATION = keep, distil
    assert StddConfig.from_cfg(cfg).distillation == expected


def test_ensemble_needs_frozen_clip():
    cfg = get_cfg()
    cfg.MODEL.ENSEMBLE_PRED, cfg.MODEL.ENSEMBLE_RAWMODEL_RATIO = True, 0.4
    assert StddConfig.from_cfg(cfg).ensemble_ratio == 0.0
    cfg.MODEL.KEEP_RAW_MODEL = True
    assert StddConfig.from_cfg(cfg).ensemble_ratio == 0.4


def test_basic_model_has_no_temporal_module():
    cfg = get_cfg()
    cfg.MODEL.TEMPORAL_MODELING_TYPE = "stcross_attend"
    assert StddConfig.from_cfg(cfg).temporal_modeling_type == "stcross_attend"
    cfg.MODEL.MODEL_NAME = "BasicClipVideo"
    assert StddConfig.from_cfg(cfg).temporal_modeling_type is None


def test_prompt_file_counts_only_when_it_is_switched_on():
    cfg = get_cfg()
    cfg.DATA.TEXT_AUG_FEATURE_FILE = "features.pt"
    assert StddConfig.from_cfg(cfg).text_feature_file is None
    cfg.DATA.TEXT_AUG = True
    assert StddConfig.from_cfg(cfg).text_feature_file == "features.pt"
    cfg.DATA.TEXT_AUG_FEATURE_FILE = ""
    assert StddConfig.from_cfg(cfg).text_feature_file == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ensemble_ratio": 1.5}, "MODEL.ENSEMBLE_RAWMODEL_RATIO: 1.5 is outside [0, 1]"),
        ({"distillation_ratio": -1.0}, "MODEL.DISTILLATION_RATIO: -1.0 is negative"),
        ({"pixel_mean": (0.5,)}, "DATA.MEAN: has 1 values; expected 3 (red, green, blue)"),
        ({"pixel_std": (1.0,) * 4}, "DATA.STD: has 4 values; expected 3 (red, green, blue)"),
    ],
)
def test_bad_values(config, change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(config, **change)
