"""Checks of official lists."""

import pytest

from slowfast.datasets.annotations.rows import (
    Row,
    check_classes_occur,
    check_counts,
    draft,
    refuse_overlap,
    refuse_repeats,
)

ROWS = [Row("a.avi", 0, "list:1"), Row("b.avi", 1, "list:2")]


def test_distinct_rows_pass():
    refuse_repeats(ROWS)
    refuse_overlap(ROWS, [Row("c.avi", 0, "test:1")])


def test_repeats_and_overlap_name_both_lines():
    with pytest.raises(ValueError, match=r"^list:3: 'a\.avi' occurs twice, first at list:1$"):
        refuse_repeats([*ROWS, Row("a.avi", 1, "list:3")])
    with pytest.raises(ValueError, match=r"^test:9: 'b\.avi' is a training video too, at list:2$"):
        refuse_overlap(ROWS, [Row("b.avi", 1, "test:9")])


def test_counts():
    entry = draft(ROWS, official=2, origin="list")
    assert (entry.rows, entry.classes) == ((("a.avi", 0), ("b.avi", 1)), "index2cls.json")
    check_counts({"full/test": entry, "half0/test": draft(ROWS, official=None, origin="")}, source="here")
    with pytest.raises(
        ValueError, match=r"^here: list x \(list\) has 1 rows, the official one has 2; --any-counts accepts it$"
    ):
        check_counts({"x": draft(ROWS[:1], official=2, origin="list")}, source="here")


def test_every_class_occurs():
    entry = draft(ROWS, official=None, origin="list")
    check_classes_occur(entry, ["surfing", "sleeping"], source="here", name="x")
    with pytest.raises(ValueError, match=r"list x has no video of 'eating' \(2 of 4 classes have none\)"):
        check_classes_occur(entry, ["surfing", "sleeping", "eating", "drinking"], source="here", name="x")
