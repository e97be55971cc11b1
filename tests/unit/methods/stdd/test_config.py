import re
from dataclasses import replace

import pytest

from slowfast.config.defaults import get_cfg
from slowfast.methods.stdd.config import StddConfig


@pytest.fixture
def config():
    return StddConfig.from_cfg(get_cfg())


def test_default_has_neither_teacher_nor_prompt_file(config):
    assert not config.distil
    assert config.text_feature_file is None
    assert config.distillation_mode == "intended"


@pytest.mark.parametrize(
    ("keep", "distil", "expected"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_distillation_needs_both_keys(keep, distil, expected):
    cfg = get_cfg()
    cfg.MODEL.KEEP_RAW_MODEL, cfg.MODEL.RAW_MODEL_DISTILLATION = keep, distil
    assert StddConfig.from_cfg(cfg).distil is expected


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
        (
            {"distillation_mode": "both"},
            "MODEL.DISTILLATION_MODE: unknown value 'both'; allowed: intended, published",
        ),
        ({"distillation_ratio": -1.0}, "MODEL.DISTILLATION_RATIO: -1.0 is negative"),
        ({"pixel_mean": (0.5,)}, "DATA.MEAN: has 1 values; expected 3 (red, green, blue)"),
        ({"pixel_std": (1.0,) * 4}, "DATA.STD: has 4 values; expected 3 (red, green, blue)"),
    ],
)
def test_bad_values(config, change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(config, **change)
