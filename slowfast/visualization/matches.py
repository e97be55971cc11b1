"""How the frames of a clip were matched to the descriptors of a class, as lines of text and as a table of colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from slowfast.config.shown import one_line
from slowfast.methods.explanation import MatchView
from slowfast.visualization.paint import (
    FAINT,
    INK,
    Box,
    Colour,
    Pixels,
    below,
    beside,
    blank,
    enlarge,
    heat_table,
    outlined,
    range_bar,
    table_cell,
    text_block,
    text_width,
)

_LINE_WIDTH = 118
_LEAST_RANGE = 0.01
"""Colours reach at least this far from an even spread, or a plan without preferences would be a picture of rounding."""
_GAP = 2
_SHEET_TEXT, _SHEET_LINES, _SHEET_WIDTH = 400, 8, 1920
_SHEET_CELLS = (60, 120)
"""Least and greatest width of a frame: a number with a decimal fits, and 32 frames fit on a screen."""
_FILM_TEXT, _FILM_LINES, _FILM_WIDTH = 340, 4, 480
_FILM_CELLS = (8, 32)
_FILM_NUMBER = 56
"""Width of a column of numbers."""
_POINTER = 10
"""Height of the arrow above the outlined column, pixels."""
_ROW_PADDING = 8


def frame_shares(view: MatchView) -> NDArray[np.float64]:
    """Which share of its mass each frame gives to each descriptor, (T, N); rows sum to 1."""
    plan: NDArray[np.float64] = view.plan.double().numpy()
    return plan / plan.sum(axis=1, keepdims=True)


def best_matches(view: MatchView) -> NDArray[np.int64]:
    """The descriptor that each frame gives most of its mass to, (T,); of equal ones the first."""
    return view.plan.numpy().argmax(axis=1).astype(np.int64)


def colour_range(shares: NDArray[np.float64]) -> tuple[float, float]:
    """The shares that have the coldest and the hottest colour.

    Plans keep near an even spread, where a scale from 0 to 1 would show one colour alone.

    Args:
        shares: (T, N), rows sum to 1.

    Returns:
        Two shares in [0, 1], the even one between them or equal to one of them.
    """
    even = 1 / shares.shape[1]
    low, high = min(float(shares.min()), even - _LEAST_RANGE), max(float(shares.max()), even + _LEAST_RANGE)
    return max(0.0, low), min(1.0, high)


def match_lines(view: MatchView) -> list[str]:
    """Say which descriptor each frame was matched to.

    Args:
        view: of one clip.

    Returns:
        Two lines of headings and one for each frame, none longer than 118 letters but for a long class name.
    """
    shares, cosines, best = frame_shares(view), view.cosines.tolist(), best_matches(view).tolist()
    digits = len(str(len(view.texts)))
    lines = [
        one_line(f"{view.kind} descriptors of {view.class_name}")
        + f"; weight: share of a frame's mass, spread evenly {1 / len(view.texts):.1%}",
        "frame  weight  cosine  descriptor with the greatest weight",
    ]
    for t, n in enumerate(best):
        start = f"{t + 1:5d}  {shares[t, n]:6.1%}  {cosines[t][n]:6.3f}  {n + 1:{digits}d} "
        lines.append(start + shortened(view.texts[n], _LINE_WIDTH - len(start)))
    return lines


def shortened(text: str, length: int) -> str:
    """A text on one line, cut behind a word, with an ellipsis, where it is too long.

    Args:
        text: anything; blanks of all kinds become spaces, and control characters are escaped.
        length: the most letters, above 3.
    """
    line = one_line(" ".join(text.split()))
    if len(line) <= length:
        return line
    # A space right behind the last letter that fits means that the word there is whole.
    words = line[: length - 3].rpartition(" ")[0]
    return f"{words} ..." if words else f"{line[: length - 3]}..."


def match_sheet(frames: Pixels, view: MatchView) -> Pixels:
    """Draw a plan: a column for each frame, a row for each descriptor, the best match of each frame outlined.

    Args:
        frames: RGB, as the model gets them, (T, H, W, 3).
        view: of the same T frames.

    Returns:
        (H', W', 3).
    """
    least, most = _SHEET_CELLS
    cell = min(most, max(least, _SHEET_WIDTH // len(frames) - _GAP))
    table = _Table.of(view, cell_px=cell, text_px=_SHEET_TEXT, max_lines=_SHEET_LINES, numbers=True)
    marked = [table.cell(row, column) for column, row in enumerate(best_matches(view).tolist())]
    texts = [_middle(table.text(view, row), height) for row, height in enumerate(table.heights)]
    thumbnails = [
        below(text_block(f"{t + 1}", width=cell, size_px=12, colour=FAINT), picture)
        for t, picture in enumerate(enlarge(frames, cell))
    ]
    above = beside(_scale(view, width=texts[0].shape[1]), *thumbnails, gap=_GAP)
    body = below(above, beside(below(*texts, gap=_GAP), outlined(table.picture, marked), gap=_GAP), gap=_GAP)
    return below(_heading(view, "the best match of a frame", width=body.shape[1]), blank(6, 1), body)


def match_film(view: MatchView) -> Pixels:
    """Draw a plan once for each frame, with the weights and cosines of this frame and its column outlined.

    Args:
        view: of one clip.

    Returns:
        (T, H, W, 3).
    """
    shares, cosines, best = frame_shares(view), view.cosines.tolist(), best_matches(view).tolist()
    least, most = _FILM_CELLS
    cell = min(most, max(least, _FILM_WIDTH // len(shares) - _GAP))
    table = _Table.of(view, cell_px=cell, text_px=_FILM_TEXT, max_lines=_FILM_LINES, numbers=False)
    plain = _film_plan(table)
    count = text_block(f"frames 1 to {len(shares)}", width=120, size_px=12, colour=FAINT)
    names = beside(_number("weight"), _number("cosine"), blank(1, 2 * _ROW_PADDING + _GAP), count)
    pages = []
    for t, row_of_best in enumerate(best):
        rows = []
        for row, height in enumerate(table.heights):
            colour = INK if row == row_of_best else FAINT
            numbers = [_number(f"{shares[t, row]:.1%}", colour), _number(f"{cosines[t][row]:.3f}", colour)]
            rows.append(_middle(beside(table.text(view, row, colour), *numbers, blank(1, 2 * _ROW_PADDING)), height))
        scale = _scale(view, width=table.text_px + table.number_px + 2 * _ROW_PADDING)
        above = beside(scale, _bottom(names, scale.shape[0]))
        left = below(blank(_POINTER, 1), below(*rows, gap=_GAP))
        body = below(above, beside(left, _pointed(plain, table, t)))
        pages.append(below(_heading(view, "this frame", width=body.shape[1]), blank(6, 1), body))
    return np.stack(pages)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """The colours of a plan, and the layout of the rows beside them."""

    picture: Pixels
    heights: list[int]
    number_px: int
    text_px: int
    max_lines: int
    cell_px: int

    @staticmethod
    def of(view: MatchView, *, cell_px: int, text_px: int, max_lines: int, numbers: bool) -> _Table:
        """Draw it; a row is as high as its text, and as two lines at least."""
        least = text_block("\n", width=text_px).shape[0]
        blocks = [text_block(" ".join(text.split()), width=text_px, max_lines=max_lines) for text in view.texts]
        heights = [max(least, block.shape[0]) + _ROW_PADDING for block in blocks]
        shares = frame_shares(view).T
        low, high = colour_range(shares.T)
        labels = [[f"{100 * share:.1f}" if numbers else "" for share in row] for row in shares.tolist()]
        values = ((shares - low) / (high - low)).clip(0, 1)
        return _Table(
            picture=heat_table(values, heights=heights, cell_px=cell_px, gap_px=_GAP, labels=labels),
            heights=heights,
            number_px=text_width(str(len(view.texts))) + _ROW_PADDING,
            text_px=text_px,
            max_lines=max_lines,
            cell_px=cell_px,
        )

    def cell(self, row: int, column: int) -> Box:
        """Where the rectangle of a descriptor and a frame is in the picture."""
        return table_cell(row, column, heights=self.heights, cell_px=self.cell_px, gap_px=_GAP)

    def text(self, view: MatchView, row: int, colour: Colour = INK) -> Pixels:
        """Number and text of a descriptor, with room behind it."""
        number = text_block(f"{row + 1}", width=self.number_px, colour=colour)
        text = " ".join(view.texts[row].split())
        block = text_block(text, width=self.text_px, colour=colour, max_lines=self.max_lines)
        return beside(number, block, blank(1, 2 * _ROW_PADDING))


def _film_plan(table: _Table) -> Pixels:
    """The colours with room around them for what points at a column."""
    side = blank(1, _GAP)
    return below(blank(_POINTER, 1), beside(side, table.picture, side), blank(_GAP, 1))


def _pointed(plan: Pixels, table: _Table, column: int) -> Pixels:
    """A column outlined, in the gaps so that no colour is covered, with an arrow above it."""
    left, _, right, _ = table.cell(0, column)
    bottom = table.cell(len(table.heights) - 1, column)[3]
    image = Image.fromarray(plan)
    pen = ImageDraw.Draw(image)
    box = (left, _POINTER - _GAP, right + 2 * _GAP, bottom + _POINTER + _GAP)
    pen.rectangle(box, outline=INK, width=_GAP)
    middle = (left + right) / 2 + _GAP
    pen.polygon([(middle - 5, 0), (middle + 5, 0), (middle, _POINTER - _GAP - 1)], fill=INK)
    return np.asarray(image)


def _heading(view: MatchView, outlined_is: str, *, width: int) -> Pixels:
    num_frames, num_texts = view.plan.shape
    title = f"{view.kind.capitalize()} descriptors of {view.class_name}"
    note = (
        f"percent of a frame's mass: its {num_texts} numbers make 100, spread evenly (the tick) {100 / num_texts:.1f} "
        f"each; from the {num_frames} frames together all descriptors get the same; outlined: {outlined_is}"
    )
    return below(text_block(title, width=width, size_px=15), text_block(note, width=width, colour=FAINT))


def _scale(view: MatchView, *, width: int) -> Pixels:
    low, high = colour_range(frame_shares(view))
    bar = range_bar(low, high, mark=1 / len(view.texts))
    return beside(bar, blank(1, width - bar.shape[1]))


def _number(text: str, colour: Colour = FAINT) -> Pixels:
    """A number or the name of a column of them, to the right."""
    used = text_width(text)
    return beside(blank(1, _FILM_NUMBER - used), text_block(text, width=used, colour=colour))


def _middle(picture: Pixels, height: int) -> Pixels:
    """Paper above and below a picture up to a height."""
    above = (height - picture.shape[0]) // 2
    return below(blank(above, 1), picture, blank(height - above - picture.shape[0], 1))


def _bottom(picture: Pixels, height: int) -> Pixels:
    """Paper above a picture up to a height."""
    return below(blank(height - picture.shape[0], 1), picture)
