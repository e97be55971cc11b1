"""Options: what is refused, and with which words."""

import re

import pytest

from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.node import ConfigError
from slowfast.config.shared import STDD_KEYS
from slowfast.methods.clip_fsar.config import CHOICES, RANGES, ClipFsarConfig

OTHER = {
    "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
    "MODEL.RAW_MODEL_DISTILLATION": True,
    "MODEL.ENSEMBLE_PRED": True,
    "MODEL.TEXT_PROMPT": True,
    "MODEL.NUM_EXPERTS": 2,
    "DATA.TEXT_AUG": True,
    "TUNE_HEAD": True,
    "TRAIN.LINEAR_CONNECT_CLIMB": True,
    "TEST.PATCHING_MODEL": True,
    "TEST.PATCHING_RATIOS": [0.5],
}
FOREIGN = {
    **STDD_KEYS,
    "TRAIN.LINEAR_CONNECT_CLIMB": False,
    "TEST.PATCHING_MODEL": False,
    "TEST.PATCHING_RATIOS": [],
}


def read(**keys):
    cfg = get_cfg()
    cfg.merge_from_list(["METHOD", "clip_fsar"])
    for key, value in keys.items():
        cfg.merge_from_list([f"CLIP_FSAR.{key}" if key in cfg.CLIP_FSAR else key, value])
    return ClipFsarConfig.from_cfg(cfg)


def test_defaults_are_those_of_the_official_recipes():
    config = read()
    assert (config.use_classification, config.classification_only, config.classification_value) == (True, False, 1.0)
    assert (config.merge_before, config.single_direct, config.depth) == (False, False, 1)
    assert (config.eval_text, config.combine, config.text_coff) == (False, False, 0.9)
    assert (config.prompt, config.smoothing) == ("a photo of {}", 0.5)
    assert (config.trains_on_episodes, config.own_head) == (False, False)


def test_every_key_is_read():
    config = read(
        USE_CLASSIFICATION=False,
        USE_CLASSIFICATION_ONLY=True,
        USE_CLASSIFICATION_VALUE=1.5,
        MERGE_BEFORE=True,
        SINGLE_DIRECT=True,
        TRANSFORMER_DEPTH=2,
        EVAL_TEXT=True,
        COMBINE=True,
        TEXT_COFF=0.25,
        PROMPT="{} it is",
        **{"EPISODES.SMOOTHING": 0.1, "EPISODES.TRAIN": True},
    )
    assert (config.use_classification, config.classification_only, config.classification_value) == (False, True, 1.5)
    assert (config.merge_before, config.single_direct, config.depth) == (True, True, 2)
    assert (config.eval_text, config.combine, config.text_coff) == (True, True, 0.25)
    assert (config.prompt, config.smoothing, config.trains_on_episodes) == ("{} it is", 0.1, True)


@pytest.mark.parametrize("key", FOREIGN)
def test_keys_of_other_methods(key):
    message = f"{key}: {OTHER[key]!r} does nothing under METHOD 'clip_fsar'; allowed: {FOREIGN[key]!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(**{key: OTHER[key]})


def test_declared_keys_are_those_of_the_section():
    own = get_cfg().CLIP_FSAR
    assert all(key.removeprefix("CLIP_FSAR.") in own for key in (*CHOICES, *RANGES))


@pytest.mark.parametrize(
    "prompt", ["a photo", "", "{} and {}", "{} {name}", "a {0}", "{", "{{}}", "{} {", "{}}", "} {}"]
)
def test_prompts_that_no_name_fits_into(prompt):
    message = f"CLIP_FSAR.PROMPT: {prompt!r}; allowed: a text with one {{}} for the class name"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(PROMPT=prompt)


@pytest.mark.parametrize("keys", [{}, {"USE_CLASSIFICATION": False, "USE_CLASSIFICATION_ONLY": True}])
def test_a_weight_of_nought(keys):
    with pytest.raises(ValueError, match=r"^CLIP_FSAR\.USE_CLASSIFICATION_VALUE: 0 leaves nothing of the similarity"):
        read(USE_CLASSIFICATION_VALUE=0.0, **keys)
    assert read(USE_CLASSIFICATION_VALUE=0.0, USE_CLASSIFICATION=False).classification_value == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("USE_CLASSIFICATION_VALUE", -0.1), ("TRANSFORMER_DEPTH", 0), ("TEXT_COFF", -0.1), ("TEXT_COFF", 1.1)],
)
def test_ranges(key, value):
    cfg = get_cfg()
    cfg.merge_from_list(["METHOD", "clip_fsar", "MODEL.MODEL_NAME", "TemporalClipVideo", f"CLIP_FSAR.{key}", value])
    with pytest.raises(ConfigError, match=f"^CLIP_FSAR\\.{key}: {value} is out of range"):
        assert_and_infer_cfg(cfg)


@pytest.mark.parametrize(
    ("keys", "trains", "reads"),
    [
        ({}, False, False),  # single videos have no temporal transformer
        ({"PROTOCOL": "episodic"}, False, True),
        ({"PROTOCOL": "episodic", "EPISODES.HEAD": "otam"}, False, False),
        ({"PROTOCOL": "episodic", "EVAL_TEXT": True}, False, False),
        ({"PROTOCOL": "episodic", "EVAL_TEXT": True, "COMBINE": True}, False, False),
        ({"PROTOCOL": "episodic", "COMBINE": True}, False, True),
        ({"PROTOCOL": "episodic", "EPISODES.TRAIN": True}, True, True),
        ({"PROTOCOL": "episodic", "EPISODES.TRAIN": True, "EPISODES.HEAD": "prototype"}, True, False),
        ({"PROTOCOL": "episodic", "EPISODES.TRAIN": True, "USE_CLASSIFICATION_ONLY": True}, False, True),
    ],
)
def test_who_needs_the_temporal_transformer(keys, trains, reads):
    config = read(**keys)
    assert (config.trains_transformer, config.reads_transformer) == (trains, reads)


def test_an_average_with_raw_clip_is_refused_before_the_training():
    read(**{"AVERAGE.METHOD": "swa", "AVERAGE.START": 1})
    read(**{"AVERAGE.START": 0})
    with pytest.raises(ValueError, match=r"^AVERAGE.START: 0 includes raw CLIP, .*; allowed: from 1$"):
        read(**{"AVERAGE.METHOD": "swa", "AVERAGE.START": 0})
