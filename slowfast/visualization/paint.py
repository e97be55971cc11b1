"""Painting over the frames of a clip: heat maps, chosen patches, groups of patches; tables and lines of text."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
Value = TypeVar("Value", bound=np.generic)

INK: Colour = (33, 37, 41)
FAINT: Colour = (108, 117, 125)
PAPER: Colour = (255, 255, 255)
_HEAT = ((46, 20, 88), (140, 28, 110), (222, 73, 60), (252, 165, 40), (252, 250, 150))
"""From little to much: dark violet, red, orange, light yellow; readable on grey, also for the colour-blind."""
_DIMMED = 0.3
NUMBERED_PX = 20
"""Least side of a patch, pixels, that the number of its group is written into."""
_SHADES = ((0.85, 1.0), (0.55, 1.0), (1.0, 0.65))
"""Saturation and brightness, in turn, of the colours of groups."""


def grey(frames: Pixels) -> NDArray[np.float64]:
    """Take the colour out, (..., 3) -> (..., 3)."""
    light = frames @ np.array([0.299, 0.587, 0.114])
    return np.repeat(light[..., None], 3, axis=-1)


def enlarge(frames: Pixels, side: int) -> Pixels:
    """Scale frames, (T, H, W, 3) -> (T, side, side, 3)."""
    resize = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(frame).resize((side, side), resize)) for frame in frames])


def heat_colours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours of values in [0, 1], any shape (...) -> (..., 3)."""
    knots = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, knots, channel) for channel in np.array(_HEAT, dtype=float).T], axis=-1)


@cache
def group_colour(number: int) -> Colour:
    """The colour of a group: hues a golden section apart, so that neighbours in number differ most; all are distinct.

    Args:
        number: of the group, from 0.
    """
    saturation, brightness = _SHADES[number % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(number * 0.6180339887498949 % 1.0, saturation, brightness)
    return round(255 * red), round(255 * green), round(255 * blue)


def spread(values: NDArray[Value], side: int) -> NDArray[Value]:
    """Give every pixel the value of its patch, (T, P, P) -> (T, side, side) with side a multiple of P."""
    repeat = side // values.shape[1]
    wide: NDArray[Value] = values.repeat(repeat, axis=1).repeat(repeat, axis=2)
    return wide


def draw_heat(frames: Pixels, shares: NDArray[np.float64], *, top: float) -> Pixels:
    """Lay a heat map over grey frames, which show through most where there is little.

    Args:
        frames: (T, S, S, 3).
        shares: one value for each patch, >= 0, (T, P, P) with P a divisor of S.
        top: the value with the hottest colour; larger ones have it, too.
    """
    values = spread((shares / top).clip(0, 1) if top > 0 else np.zeros_like(shares), frames.shape[1])
    opacity = (0.2 + 0.6 * values)[..., None]
    return _to_pixels((1 - opacity) * grey(frames) + opacity * heat_colours(values))


def draw_chosen(frames: Pixels, chosen: NDArray[np.bool_], *, line_px: int = 2) -> Pixels:
    """Keep chosen patches as they are, inside a white outline, and turn the others grey and dark.

    Args:
        frames: (T, S, S, 3).
        chosen: (T, P, P) with P a divisor of S.
        line_px: width of the outline.
    """
    bright = spread(chosen, frames.shape[1])
    picture = np.where(bright[..., None], frames, _to_pixels(_DIMMED * grey(frames)))
    picture[bright & _near_edges(bright.astype(np.int64), line_px)] = PAPER
    return picture


def draw_groups(frames: Pixels, group: NDArray[np.int64], chosen: NDArray[np.bool_], *, line_px: int = 2) -> Pixels:
    """Tint patches by the number of their group, with a border around patches of one group that touch.

    Where there is room, the number is written into each patch.

    Args:
        frames: (T, S, S, 3).
        group: number of the group of each patch, -1 for none, (T, P, P) with P a divisor of S.
        chosen: patches that stay bright without a group, (T, P, P).
        line_px: width of the borders.
    """
    side, size = frames.shape[1], group.shape[1]
    picture = draw_chosen(frames, chosen & (group < 0), line_px=line_px).astype(float)
    wide = spread(group, side)
    table = np.array([group_colour(number) for number in range(int(group.max(initial=-1)) + 1)] or [PAPER], dtype=float)
    inside, colours = wide >= 0, table[wide.clip(0)]
    opacity = np.where(_near_edges(wide, line_px), 1.0, 0.45)[..., None]
    picture = np.where(inside[..., None], (1 - opacity) * frames + opacity * colours, picture)
    pixels = _to_pixels(picture)
    patch = side // size
    if patch < NUMBERED_PX:
        return pixels
    return np.stack([_write_numbers(frame, numbered, patch) for frame, numbered in zip(pixels, group, strict=True)])


def _write_numbers(frame: Pixels, group: NDArray[np.int64], patch: int) -> Pixels:
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    for row, column in zip(*np.nonzero(group >= 0), strict=True):
        middle = ((column + 0.5) * patch, (row + 0.5) * patch)
        text = str(group[row, column])
        pen.text(middle, text, fill=PAPER, font=font(11), anchor="mm", stroke_width=1, stroke_fill=INK)
    return np.asarray(image)


def _near_edges(values: NDArray[np.int64], line_px: int) -> NDArray[np.bool_]:
    """Pixels of (T, S, S) within line_px of one with another value."""
    padded = np.pad(values, ((0, 0), (line_px, line_px), (line_px, line_px)), mode="edge")
    side = values.shape[1]
    near = np.zeros(values.shape, dtype=bool)
    for shift in (0, 2 * line_px):
        near |= padded[:, shift : shift + side, line_px:-line_px] != values
        near |= padded[:, line_px:-line_px, shift : shift + side] != values
    return near


def _to_pixels(values: NDArray[np.float64]) -> Pixels:
    pixels: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    return pixels


# ---------------------------------------------------------------------------------------------------------------- text


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow brings along."""
    return ImageFont.load_default(size_px)


def written(text: str) -> str:
    """A text with what the font lacks, anything beyond Latin-1, replaced by question marks."""
    return text.encode("latin-1", "replace").decode("latin-1")


def text_block(
    text: str, *, width: int, size_px: int = 13, colour: Colour = INK, max_lines: int | None = None
) -> Pixels:
    """Write lines, broken between words where they are too long.

    Args:
        text: lines; what the font lacks is replaced.
        width: of the block, pixels.
        size_px: height of the font.
        colour: of the ink.
        max_lines: a text of more lines ends in an ellipsis; None: there may be any number.

    Returns:
        (H, width, 3), as high as needed.
    """
    lines = [part for line in written(text).split("\n") for part in _wrap(line, width=width, size_px=size_px)]
    if max_lines is not None and len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], _cut(lines[max_lines - 1], width=width, size_px=size_px)]
    step = round(1.35 * size_px)
    image = Image.new("RGB", (width, max(1, step * len(lines))), PAPER)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((0, step * number), line, fill=colour, font=font(size_px))
    return np.asarray(image)


def text_width(text: str, *, size_px: int = 13) -> int:
    """Pixels that a line takes."""
    return int(np.ceil(font(size_px).getlength(written(text)))) + 1


def _wrap(line: str, *, width: int, size_px: int) -> list[str]:
    lines = [""]
    for word in line.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if text_width(longer, size_px=size_px) <= width:
            lines[-1] = longer
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = _shortened(word, width=width, size_px=size_px)
    return lines


def _cut(line: str, *, width: int, size_px: int) -> str:
    """A line with an ellipsis behind it, for which words give way, and letters where there is one word alone."""
    while line and text_width(f"{line} ...", size_px=size_px) > width:
        line = line.rpartition(" ")[0] or line[:-1]
    return f"{line} ..." if line else "..."


def _shortened(word: str, *, width: int, size_px: int) -> str:
    """A word without its middle where it is wider than a line."""
    if text_width(word, size_px=size_px) <= width:
        return word
    kept = len(word) - 1
    while kept > 2 and text_width(f"{word[: kept // 2]}...{word[-(kept // 2) :]}", size_px=size_px) > width:
        kept -= 1
    return f"{word[: kept // 2]}...{word[-(kept // 2) :]}"


def heat_bar(top: float, *, height: int = 18) -> Pixels:
    """The scale of a heat map, from 0 to its hottest value, a share."""
    bar = np.broadcast_to(heat_colours(np.linspace(0, 1, 120)), (height - 6, 120, 3))
    low, high = "0", f"{100 * top:.2g} % and more"
    image = Image.new("RGB", (text_width(low) + 126 + text_width(high) + 6, height), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((0, 0), low, fill=INK, font=font(13))
    start = text_width(low) + 4
    image.paste(Image.fromarray(_to_pixels(bar)), (start, 3))
    pen.text((start + 126, 0), high, fill=INK, font=font(13))
    return np.asarray(image)


def range_bar(low: float, high: float, *, mark: float) -> Pixels:
    """The scale of a heat map between two shares, with a tick below it at a third one.

    Args:
        low: share of the coldest colour.
        high: of the hottest one, above the lowest.
        mark: in between.
    """
    length, left = 200, text_width("100.0 %") + 4
    bar = _to_pixels(np.broadcast_to(heat_colours(np.linspace(0, 1, length)), (12, length, 3)))
    image = Image.new("RGB", (length + 2 * left, 36), PAPER)
    image.paste(Image.fromarray(bar), (left, 3))
    pen = ImageDraw.Draw(image)
    pen.text((left - 5, 0), f"{100 * low:.1f} %", fill=INK, font=font(13), anchor="ra")
    pen.text((left + length + 5, 0), f"{100 * high:.1f} %", fill=INK, font=font(13))
    tick = left + round((length - 1) * (mark - low) / (high - low))
    pen.line((tick, 12, tick, 19), fill=INK, width=1)
    pen.text((tick, 20), f"{100 * mark:.1f} %", fill=INK, font=font(11), anchor="ma")
    return np.asarray(image)


def heat_table(
    values: NDArray[np.float64], *, heights: Sequence[int], cell_px: int, gap_px: int, labels: Sequence[Sequence[str]]
) -> Pixels:
    """Draw a rectangle for each value, with its label in it.

    Args:
        values: in [0, 1], (R, C).
        heights: of the R rows, pixels.
        cell_px: width of a rectangle.
        gap_px: paper between two.
        labels: of R rows and C columns; "" for none.

    Returns:
        (H, W, 3), without paper around it.
    """
    num_rows, num_columns = values.shape
    width = num_columns * (cell_px + gap_px) - gap_px
    image = Image.new("RGB", (width, sum(heights) + gap_px * (num_rows - 1)), PAPER)
    pen = ImageDraw.Draw(image)
    colours = _to_pixels(heat_colours(values))
    for row, column in np.ndindex(num_rows, num_columns):
        box = table_cell(row, column, heights=heights, cell_px=cell_px, gap_px=gap_px)
        red, green, blue = colours[row, column].tolist()
        pen.rectangle(box, fill=(red, green, blue))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        pen.text(middle, labels[row][column], fill=INK if light else PAPER, font=font(12), anchor="mm")
    return np.asarray(image)


def table_cell(row: int, column: int, *, heights: Sequence[int], cell_px: int, gap_px: int) -> Box:
    """Left, top, right and bottom pixel of a rectangle of heat_table, all four inside."""
    left, top = column * (cell_px + gap_px), sum(heights[:row]) + gap_px * row
    return left, top, left + cell_px - 1, top + heights[row] - 1


def outlined(picture: Pixels, boxes: Sequence[Box]) -> Pixels:
    """Draw frames inside rectangles, dark with a light line inside, to be seen on any colour.

    Args:
        picture: (H, W, 3).
        boxes: left, top, right and bottom pixel, all four inside the rectangle.
    """
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for left, top, right, bottom in boxes:
        pen.rectangle((left, top, right, bottom), outline=INK, width=2)
        pen.rectangle((left + 2, top + 2, right - 2, bottom - 2), outline=PAPER, width=2)
    return np.asarray(image)


# -------------------------------------------------------------------------------------------------------------- layout


def beside(*pictures: Pixels, gap: int = 0) -> Pixels:
    """Set pictures side by side, tops level, on paper."""
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    page = blank(height, width)
    left = 0
    for picture in pictures:
        page[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return page


def below(*pictures: Pixels, gap: int = 0) -> Pixels:
    """Set pictures one below the other, left sides level, on paper."""
    height = sum(picture.shape[0] for picture in pictures) + gap * (len(pictures) - 1)
    page = blank(height, max(picture.shape[1] for picture in pictures))
    top = 0
    for picture in pictures:
        page[top : top + picture.shape[0], : picture.shape[1]] = picture
        top += picture.shape[0] + gap
    return page


def blank(height: int, width: int) -> Pixels:
    """Empty paper."""
    return np.full((height, width, 3), 255, dtype=np.uint8)


def framed(picture: Pixels, margin: int) -> Pixels:
    """Paper around a picture, its sides made even, as video needs them."""
    height, width = (length + 2 * margin + length % 2 for length in picture.shape[:2])
    page = blank(height, width)
    page[margin : margin + picture.shape[0], margin : margin + picture.shape[1]] = picture
    return page
