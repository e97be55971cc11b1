"""Options: what is refused, and with which words."""

import dataclasses
import re

import pytest

from slowfast.config.defaults import allowed_values, assert_and_infer_cfg, get_cfg
from slowfast.config.node import ConfigError
from slowfast.config.shared import STDD_KEYS
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.build import build_method
from slowfast.methods.tc_clip.build import find_levels
from slowfast.methods.tc_clip.config import CHOICES, LISTS, RANGES, TcClipConfig

LEVELS = "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL"
OTHER = {
    "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
    "MODEL.RAW_MODEL_DISTILLATION": True,
    "MODEL.ENSEMBLE_PRED": True,
    "MODEL.TEXT_PROMPT": True,
    "MODEL.NUM_EXPERTS": 2,
    "DATA.TEXT_AUG": True,
    "TUNE_HEAD": True,
}


def test_published_defaults():
    config = TcClipConfig.from_cfg(get_cfg())
    assert (config.num_context, config.seed_share, config.merge_step, config.merge_inflection) == (96, 0.3, 100, 0.0)
    assert (config.num_words, config.words, config.split_capitals) == (4, "a photo of a", True)
    assert (config.levels, config.copies_block, config.stop_gradient) == ((-1,), True, True)
    assert (config.temporal_context, config.bias, config.joint_positions) == (True, True, False)
    assert (config.freeze, config.new_module_factor, config.way) == ("", 10.0, "auto")


@pytest.mark.parametrize("key", STDD_KEYS)
def test_keys_of_other_methods(key):
    cfg = get_cfg()
    cfg.merge_from_list(["METHOD", "tc_clip", key, OTHER[key]])
    message = f"{key}: {OTHER[key]!r} does nothing under METHOD 'tc_clip'; allowed: {STDD_KEYS[key]!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TcClipConfig.from_cfg(cfg)


def test_defaults_of_other_methods_do_nothing():
    leaves = get_cfg().leaves()
    assert all(leaves[key] == value for key, value in STDD_KEYS.items())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"TC_CLIP.CTX_INIT": "a photo of a person"},
            "TC_CLIP.CTX_INIT: 'a photo of a person' has 5 words; allowed: at most TC_CLIP.N_CTX, which is 4",
        ),
        (
            {"TC_CLIP.N_CTX": 3},
            "TC_CLIP.CTX_INIT: 'a photo of a' has 4 words; allowed: at most TC_CLIP.N_CTX, which is 3",
        ),
        (
            {"TC_CLIP.CTX_INIT": "a photo of an ultracrepidarian"},
            "TC_CLIP.CTX_INIT: 'a photo of an ultracrepidarian' has {} tokens; allowed: words of one token",
        ),
        (
            {"TC_CLIP.CTX_INIT": "a_photo."},
            "TC_CLIP.CTX_INIT: 'a photo.' has 3 tokens; allowed: words of one token",
        ),
        ({LEVELS: [4]}, f"{LEVELS}: [4]; allowed: different blocks from 1 to 3, or from the end, -1 to -3"),
        ({LEVELS: [-4]}, f"{LEVELS}: [-4]; allowed: different blocks from 1 to 3, or from the end, -1 to -3"),
        ({LEVELS: [2, 2]}, f"{LEVELS}: [2, 2]; allowed: different blocks from 1 to 3, or from the end, -1 to -3"),
        ({LEVELS: [3, -1]}, f"{LEVELS}: [3, -1]; allowed: different blocks from 1 to 3, or from the end, -1 to -3"),
    ],
)
def test_refused_when_building(small_cfg, labels, keys, message):
    with pytest.raises(ValueError, match=r"^TC_CLIP") as caught:
        build_method(small_cfg(**keys), labels())
    assert re.fullmatch(re.escape(message).replace(r"\{\}", r"\d+"), str(caught.value))


def test_prompt_too_long(small_cfg):
    names = LabelSet.from_names(["surfing", "very " * 80 + "long"])
    with pytest.raises(ValueError, match=r"^DATA.INDEX_LABEL_MAPPING_FILE: class 1: a prompt is too long"):
        build_method(small_cfg(), names)


@pytest.mark.parametrize(
    ("levels", "vision_layers", "text_layers", "expected"),
    [
        ((-1,), 12, 12, ((11,), (11,))),
        ((12,), 12, 12, ((11,), (11,))),
        ((12, 9, 10), 12, 12, ((8, 9, 11), (8, 9, 11))),
        ((), 12, 12, ((), ())),
        ((-1, -12), 24, 12, ((0, 11), (12, 23))),
        ((-1, 12), 6, 14, ((11, 13), (3, 5))),
    ],
)
def test_blocks_of_both_towers(small_sizes, levels, vision_layers, text_layers, expected):
    sizes = dataclasses.replace(small_sizes, vision_layers=vision_layers, text_layers=text_layers)
    assert find_levels(levels, sizes) == expected


def test_text_blocks_that_no_image_block_stands_beside(small_sizes):
    sizes = dataclasses.replace(small_sizes, vision_layers=2, text_layers=12)
    assert find_levels((11, 12), sizes) == ((10, 11), (0, 1))
    message = f"{LEVELS}: [10]; allowed: different blocks from 11 to 12, or from the end, -1 to -2"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_levels((10,), sizes)


def test_tables_reach_the_check_of_values():
    allowed = allowed_values()
    assert CHOICES.items() <= allowed.choices.items()
    assert RANGES.items() <= allowed.ranges.items()
    assert LISTS.items() <= allowed.lists.items()
    assert {*CHOICES, *RANGES, *LISTS} <= set(get_cfg().leaves())


CHOSEN = [
    "METHOD",
    "tc_clip",
    "MODEL.MODEL_NAME",
    "TemporalClipVideo",
    "MODEL.ARCH",
    "vitb16",
    "DATA.TEST_CROP_SIZE",
    224,
]


@pytest.mark.parametrize("key", RANGES)
def test_ranges(key):
    low, high = RANGES[key]
    for value in [low - 1, *([] if high is None else [high + 1])]:
        cfg = get_cfg()
        cfg.merge_from_list([*CHOSEN, key, value])
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        with pytest.raises(ConfigError, match=rf"^{key}: .* is out of range; allowed: {bounds}$"):
            assert_and_infer_cfg(cfg)


@pytest.mark.parametrize("key", CHOICES)
def test_choices(key):
    cfg = get_cfg()
    cfg.merge_from_list([*CHOSEN, key, "?"])
    names = ", ".join(map(repr, CHOICES[key]))
    with pytest.raises(ConfigError, match=f"^{key}: unknown value '\\?'; allowed: {re.escape(names)}$"):
        assert_and_infer_cfg(cfg)


@pytest.mark.parametrize("levels", [[0], [1, 0], [1.5], ["12"], [True]])
def test_levels_are_numbers_other_than_0(levels):
    cfg = get_cfg()
    cfg.merge_from_list([*CHOSEN, LEVELS, levels])
    message = f"{LEVELS}: expected a list of integers other than 0, found {levels}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        assert_and_infer_cfg(cfg)


@pytest.mark.parametrize("levels", [[], [12], [-1, 3]])
def test_levels_may_be_any_number_of_blocks(levels):
    cfg = get_cfg()
    cfg.merge_from_list([*CHOSEN, LEVELS, levels])
    assert_and_infer_cfg(cfg)
