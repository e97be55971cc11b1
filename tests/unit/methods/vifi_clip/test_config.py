"""Options: what is refused, and with which words."""

import re

import pytest

from slowfast.config.defaults import get_cfg
from slowfast.config.shared import STDD_KEYS
from slowfast.methods.vifi_clip.config import CHOICES, RANGES, VifiClipConfig

OTHER = {
    "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
    "MODEL.RAW_MODEL_DISTILLATION": True,
    "MODEL.ENSEMBLE_PRED": True,
    "MODEL.TEXT_PROMPT": True,
    "MODEL.NUM_EXPERTS": 2,
    "DATA.TEXT_AUG": True,
    "TUNE_HEAD": True,
}


def read(**keys):
    cfg = get_cfg()
    cfg.merge_from_list(["METHOD", "vifi_clip"])
    for key, value in keys.items():
        cfg.merge_from_list([key if "." in key or key not in cfg.VIFI_CLIP else f"VIFI_CLIP.{key}", value])
    return VifiClipConfig.from_cfg(cfg)


def test_published_defaults():
    config = read()
    assert (config.use, config.words, config.bare_names, config.prompts_only) == ("both", "a photo of a", False, False)
    assert (config.num_vision_prompts, config.vision_depth, config.num_text_prompts, config.text_depth) == (0, 0, 0, 1)


@pytest.mark.parametrize("key", STDD_KEYS)
def test_keys_of_other_methods(key):
    message = f"{key}: {OTHER[key]!r} does nothing under METHOD 'vifi_clip'; allowed: {STDD_KEYS[key]!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(**{key: OTHER[key]})


def test_declared_keys_are_those_of_the_section():
    own = get_cfg().VIFI_CLIP
    assert all(key.removeprefix("VIFI_CLIP.") in own for key in (*CHOICES, *RANGES))


NOTHING = (
    "VIFI_CLIP.PROMPT_MODEL: True, but there are no learned vectors to train; allowed: with VIFI_CLIP.N_CTX_TEXT, or "
    "N_CTX_VISION and PROMPT_DEPTH_VISION, of at least 1"
)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"PROMPT_MODEL": True}, NOTHING),
        ({"PROMPT_MODEL": True, "N_CTX_VISION": 4}, NOTHING),
        ({"PROMPT_MODEL": True, "PROMPT_DEPTH_VISION": 4}, NOTHING),
        (
            {"N_CTX_TEXT": 4, "ZS_EVAL": True},
            "VIFI_CLIP.N_CTX_TEXT: 4 learned vectors have no place in the bare names of VIFI_CLIP.ZS_EVAL True; "
            "allowed: 0",
        ),
        (
            {"N_CTX_TEXT": 4, "USE": "image"},
            "VIFI_CLIP.N_CTX_TEXT: 4 learned vectors would not train with VIFI_CLIP.USE 'image'; allowed: 0, or "
            "VIFI_CLIP.PROMPT_MODEL True",
        ),
        (
            {"N_CTX_VISION": 2, "PROMPT_DEPTH_VISION": 1, "USE": "text"},
            "VIFI_CLIP.N_CTX_VISION: 2 learned vectors would not train with VIFI_CLIP.USE 'text'; allowed: 0, or "
            "VIFI_CLIP.PROMPT_MODEL True",
        ),
    ],
)
def test_contradictions(keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"N_CTX_VISION": 4, "USE": "text"},  # a depth of 0: none
        {"N_CTX_TEXT": 4, "USE": "text"},
        {"N_CTX_TEXT": 4, "USE": "image", "PROMPT_MODEL": True},
        {"N_CTX_VISION": 4, "PROMPT_DEPTH_VISION": 1, "ZS_EVAL": True},
    ],
)
def test_what_is_no_contradiction(keys):
    assert read(**keys).num_vision_prompts == (4 if keys.get("PROMPT_DEPTH_VISION") else 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"N_CTX_VISION": 1, "PROMPT_DEPTH_VISION": 5},
            "VIFI_CLIP.PROMPT_DEPTH_VISION: 5; allowed: at most 4, the blocks of the tower",
        ),
        (
            {"N_CTX_TEXT": 4, "PROMPT_DEPTH_TEXT": 6},
            "VIFI_CLIP.PROMPT_DEPTH_TEXT: 6; allowed: at most 4, the blocks of the tower",
        ),
        (
            {"N_CTX_TEXT": 3},
            "VIFI_CLIP.CTX_INIT: 'a photo of a' has 4 tokens; allowed: as many as VIFI_CLIP.N_CTX_TEXT, which is 3, or "
            "none",
        ),
    ],
)
def test_what_does_not_fit_the_model(make, keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make(**keys)


def test_text_that_is_too_long(make):
    with pytest.raises(ValueError, match=r"^DATA\.INDEX_LABEL_MAPPING_FILE: class 3: a prompt is too long: "):
        make(N_CTX_TEXT=70)
