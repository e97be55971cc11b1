import pytest

from slowfast.report.table import format_table


def test_markdown():
    assert format_table(["name", "top1"], [["a|b", 12.345], ["longer", None]]) == (
        "| name   |  top1 |\n| ------ | ----: |\n| a\\|b   | 12.35 |\n| longer |     - |"
    )


def test_plain():
    assert format_table(["name", "k"], [["a", 5]], style="plain") == "name    k\n----  ---\na       5"


def test_no_rows():
    assert format_table(["a"], []) == "| a   |\n| --- |"


def test_ragged_rows():
    with pytest.raises(ValueError, match="a row of 1 cells under 2 titles"):
        format_table(["a", "b"], [[1]])
