"""Values of others in messages of ours."""

import pytest

from slowfast.config.shown import one_line, shown


@pytest.mark.parametrize("value", [3, 0.5, "text", None, True, [1, "a"], {"a": (1, 2)}, ["x"] * 16])
def test_ordinary_values_are_written_out(value):
    assert shown(value) == repr(value)


def circle():
    value = []
    value.append(value)
    return value


def laughs():
    value = ["a"] * 9
    for _ in range(9):
        value = [value] * 9
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"x" * 10**6, 10**5000, -(10**5000), ["x" * 100] * 10**5, {n: n for n in range(10**5)}, circle()],
    ids=["text", "bytes", "integer", "negative", "list", "mapping", "circle"],
)
def test_large_values_are_short(value):
    assert len(shown(value)) < 500
    assert shown(value).isprintable()


def test_values_that_stand_for_many():
    assert len(shown(laughs())) < 500
    assert shown(deep()) == "[[[[[...]]]]]"


def test_one_line():
    assert one_line("a b/ü.mp4") == "a b/ü.mp4"
    assert one_line("a\tb\n\u2028\0") == "a\\tb\\n\\u2028\\x00"
