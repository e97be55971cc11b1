"""Tables for terminals, logs and README files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, style: Literal["markdown", "plain"] = "markdown"
) -> str:
    """Lay out rows under a header, columns of equal width; columns of numbers are set flush right.

    Args:
        header: column titles.
        rows: cells, written with `str`; floats with two decimals, None as "-".
        style: "markdown" draws pipes, "plain" separates by two spaces.

    Returns: the table without a newline at the end.

    Raises:
        ValueError: if a row has another number of cells than the header.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    for row in cells:
        if len(row) != len(header):
            raise ValueError(f"table: a row of {len(row)} cells under {len(header)} titles")
    columns = list(zip(header, *cells, strict=True))
    widths = [max(3, *(len(text) for text in column)) for column in columns]
    right = [bool(cells) and all(_is_number(text) for text in column[1:]) for column in columns]

    def line(texts: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(texts, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if style == "markdown" else "  ".join(padded).rstrip()

    if style == "markdown":
        rule = [f"{'-' * (width - 1)}{':' if flush else '-'}" for width, flush in zip(widths, right, strict=True)]
    else:
        rule = ["-" * width for width in widths]
    return "\n".join([line(header), line(rule), *(line(row) for row in cells)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("%"))
    except ValueError:
        return text == "-"
    return True
