"""Keys of removed features: accepted where they do nothing, refused by name elsewhere."""

import pytest

from slowfast.config import legacy
from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.node import ConfigError

CHOSEN = ["MODEL.MODEL_NAME", "TemporalClipVideo", "MODEL.ARCH", "vitb16", "DATA.TEST_CROP_SIZE", 224]


def other_than(value):
    """Return a value of the same type that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(0) if value else type(value)(1)
    return "something_else"


@pytest.mark.parametrize("key", legacy.REMOVED)
def test_a_removed_key_is_accepted_at_its_inert_value_only(key):
    entry = legacy.REMOVED[key]
    cfg = get_cfg()
    cfg.merge_from_list([*CHOSEN, key, entry.value])
    assert_and_infer_cfg(cfg)
    other = other_than(entry.value)
    cfg.merge_from_list([key, other])
    with pytest.raises(ConfigError) as caught:
        assert_and_infer_cfg(cfg)
    expected = f"{key}: {other!r} is not supported, this key {entry.reason}; allowed: {entry.value!r}"
    assert str(caught.value) == expected
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", legacy.IGNORED)
def test_an_ignored_key_is_accepted_at_any_value_of_its_type(key):
    cfg = get_cfg()
    value = legacy.IGNORED[key]
    cfg.merge_from_list([*CHOSEN, key, [1] if isinstance(value, list) else other_than(value)])
    assert_and_infer_cfg(cfg)


@pytest.mark.parametrize("section", sorted(set(legacy.ABSENT_SECTIONS) - {"CONTRASTIVE"}))
def test_a_section_of_another_project_is_refused_by_name(section):
    with pytest.raises(ConfigError) as caught:
        get_cfg().merge_from_other_cfg({section: {"DEPTH": 50}})
    reason = f"configures {legacy.ABSENT_SECTIONS[section]}, which is not part of this project"
    assert str(caught.value) == f"{section}.DEPTH: section {section} {reason} (found 50)"


def test_contrastive_keeps_only_its_infinite_spacing():
    cfg = get_cfg()
    cfg.merge_from_other_cfg({"CONTRASTIVE": {"DELTA_CLIPS_MIN": float("-inf"), "DELTA_CLIPS_MAX": float("inf")}})
    with pytest.raises(ConfigError, match=r"^CONTRASTIVE.DIM: section CONTRASTIVE configures contrastive learning"):
        cfg.merge_from_other_cfg({"CONTRASTIVE": {"DIM": 128}})
