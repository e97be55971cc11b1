"""Every key mistyped in every way: the line names the key that was meant, what was found and what was expected."""

import math

import pytest

from slowfast.config.defaults import allowed_values, assert_and_infer_cfg, get_cfg
from slowfast.config.legacy import ABSENT_SECTIONS, IGNORED, REMOVED
from slowfast.config.node import MAX_INTEGER, ConfigError
from slowfast.config.values import OPTIONAL_NUMBERS, OPTIONAL_PATHS

LEAVES = get_cfg().leaves()
ALLOWED = allowed_values()
CHOICES, RANGES, LISTS = ALLOWED.choices, ALLOWED.ranges, ALLOWED.lists
CHOSEN = {"MODEL.MODEL_NAME": "TemporalClipVideo", "MODEL.ARCH": "vitb16", "DATA.TEST_CROP_SIZE": 224}
# Keys so short or so alike that one letter less makes another key.
OTHER_KEY = {
    "TEST.PATCHING_RATIOS",
    "TRAIN.LINEAR_CONNECT_SAMPLE_L",
    "TRAIN.LINEAR_CONNECT_SAMPLE_R",
    "SPLITS.SHOTS",
    "TC_CLIP.TOME_D",
    "TC_CLIP.TOME_R",
}


def refusal(key, value, *, check=False, chosen=()):
    """The line that comes of a key and a value, on the command line."""
    cfg = get_cfg()
    for known, choice in {**CHOSEN, **dict(chosen)}.items():
        cfg.merge_from_list([known, choice])

    def resolve():
        cfg.merge_from_list([key, value])
        if check:
            assert_and_infer_cfg(cfg)

    with pytest.raises(ConfigError) as caught:
        resolve()
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 700
    return line


def misspelled(key):
    """The key with a letter of its last part left out, doubled, or exchanged with its neighbour."""
    section, dot, name = key.rpartition(".")
    if len(name) == 1:  # a letter next to it is all that is left to mistype
        yield f"{section}{dot}{name}{name}"
        return
    middle = len(name) // 2
    for at in (1, middle, len(name) - 1):
        yield f"{section}{dot}{name[:at]}{name[at + 1 :]}"
        yield f"{section}{dot}{name[:at]}{name[at]}{name[at:]}"
        yield f"{section}{dot}{name[: at - 1]}{name[at]}{name[at - 1]}{name[at + 1 :]}"


@pytest.mark.parametrize("key", LEAVES)
def test_the_nearest_key_is_named(key):
    for wrong in dict.fromkeys(misspelled(key)):
        if wrong in LEAVES or wrong == key:
            continue
        line = refusal(wrong, 1)
        if wrong.partition(".")[0] in ABSENT_SECTIONS and "." in wrong:
            assert "is not part of this project" in line
            continue
        assert line.startswith(f"--opts: {wrong}: unknown key (found 1)")
        nearest = line.rpartition("nearest key: ")[2]
        assert nearest == key or key in OTHER_KEY, (wrong, nearest)


@pytest.mark.parametrize("key", [key for key in LEAVES if "." in key and key.partition(".")[0] not in ABSENT_SECTIONS])
def test_the_section_of_a_key_is_named(key):
    name = key.rpartition(".")[2]
    homes = [known for known in LEAVES if known.rpartition(".")[2] == name]
    line = refusal(f"SOLVR.{name}", 1)
    assert line.rpartition("nearest key: ")[2] in homes
    assert refusal(key.lower(), 1).endswith(f"nearest key: {key}")


WRONG_TYPES = {
    bool: (0, 1.5, "many", [True], "[1]"),
    int: (1.5, True, "many", [1], "1.0", "(1,)"),
    float: (True, "much", [0.5], "1,5"),
    str: (3, 1.5, True, ["a"]),
    list: (3, True, "many", 1.5),
    tuple: (3, True, "many", 1.5),
}


@pytest.mark.parametrize("key", [key for key, value in LEAVES.items() if value is not None])
def test_a_value_of_another_type(key):
    kind = type(LEAVES[key])
    for value in WRONG_TYPES[kind]:
        line = refusal(key, value)
        assert line.startswith(f"--opts: {key}: expected {kind.__name__}, found ")
    for value in ({"A": 1}, {1, 2}, b"bytes", object()):
        assert refusal(key, value).startswith(f"--opts: {key}: expected {kind.__name__}, found ")


@pytest.mark.parametrize("key", [*OPTIONAL_PATHS, *OPTIONAL_NUMBERS, *(key for key in CHOICES if LEAVES[key] is None)])
def test_a_value_of_another_type_for_a_key_that_may_be_none(key):
    for value in (True, [1], "[1]"):
        assert refusal(key, value, check=True).startswith(f"{key}: ")


@pytest.mark.parametrize("key", RANGES)
def test_a_number_out_of_range(key):
    low, high = RANGES[key]
    step = 1 if isinstance(LEAVES[key], int) else 0.001
    kind = type(LEAVES[key])
    values = [kind(low - step), kind(low - 10**6)] + ([] if high is None else [kind(high + step), kind(high + 10**6)])
    for value in values:
        line = refusal(key, value, check=True)
        assert line.startswith(f"{key}: {value!r} is out of range; allowed: "), line


@pytest.mark.parametrize("key", CHOICES)
def test_an_unknown_choice(key):
    choices = CHOICES[key]
    first = next(choice for choice in choices if choice is not None)
    values = [f"x{first}x"] if isinstance(first, str) else [type(first)(99)]
    for value in values:
        line = refusal(key, value, check=True)
        assert line.startswith(f"{key}: unknown value {value!r}")
        assert all(repr(choice) in line for choice in choices)


@pytest.mark.parametrize("key", LISTS)
def test_a_wrong_list(key):
    _, lengths, expected = LISTS[key]
    wrong_element = 3 if "string" in expected else "a"
    values = [[wrong_element] * (max(lengths or (1,)) or 1)]
    if lengths is not None:
        values.append([1] * (max(lengths) + 1))
    if "string" not in expected:
        values += [[value] * (max(lengths or (1,)) or 1) for value in (math.nan, math.inf, True, None)]
    for value in values:
        line = refusal(key, value, check=True)
        assert line.startswith(f"{key}: expected {expected}, found "), line


@pytest.mark.parametrize("key", [key for key, value in LEAVES.items() if type(value) is float])
def test_a_number_that_is_none(key):
    for value in (math.nan, math.inf, -math.inf):
        if value == LEAVES[key]:
            continue
        assert refusal(key, value, check=True).startswith(f"{key}: ")


@pytest.mark.parametrize("key", [key for key, value in LEAVES.items() if type(value) in (int, float)])
def test_an_integer_of_no_size(key):
    value = 10**400
    line = refusal(key, value, check=True)
    assert key in line
    assert "an integer of 1329 bits" in line
    assert abs(value) > MAX_INTEGER


@pytest.mark.parametrize("key", [key for key, value in LEAVES.items() if type(value) is str])
def test_a_nul_character(key):
    assert refusal(key, "a\0b", check=True).startswith(f"{key}: ")


@pytest.mark.parametrize("key", REMOVED)
def test_a_removed_key(key):
    other = {bool: True, int: 7, float: 0.25, str: "x", type(None): "x"}[type(REMOVED[key].value)]
    other = not REMOVED[key].value if isinstance(REMOVED[key].value, bool) else other
    assert refusal(key, other, check=True).startswith(f"{key}: {other!r} is not supported, this key ")


def test_every_key_is_of_a_kind_that_is_tested():
    kinds = {type(value) for value in LEAVES.values()} - {type(None)}
    assert kinds <= set(WRONG_TYPES)
    none = {key for key, value in LEAVES.items() if value is None}
    assert none <= {*OPTIONAL_PATHS, *OPTIONAL_NUMBERS, *CHOICES, *REMOVED, *IGNORED}
