"""Confusion matrices: cells with numbers for a few classes, a heat map for many.

Shading is the share of the true class, on a square-root scale that the legend shows, so that rare errors are seen.
Correct videos and errors have different hues. The shade is an opacity over the page: it suits light and dark pages.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from slowfast.report.html_element import Markup, element, isolated, shorten
from slowfast.report.run_tables import Confusion

FEW_CLASSES = 20
"""Up to here each cell is drawn with its number."""
NAMED_CLASSES = 120
"""Up to here each row of a heat map has its name; above, every tenth or so its number."""
MOST_TOOLTIPS = 500
MOST_ENLARGED = 100
_SMALLEST_HOVER_PX = 6
_GOOD, _BAD = (31, 111, 178), (213, 94, 0)
_NAME_LENGTH = 40


def confusion_matrix(confusion: Confusion, *, title: str) -> Markup:
    """Draw a confusion matrix in the way that suits its number of classes.

    Args:
        confusion: K classes.
        title: what is drawn, for screen readers.
    """
    return _cells(confusion, title) if len(confusion.names) <= FEW_CLASSES else _heat_map(confusion, title)


def opacity(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shade of a share: its square root."""
    return np.sqrt(np.clip(shares, 0.0, 1.0))


def scale_legend() -> Markup:
    """Which shade stands for which share."""
    steps = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    parts = []
    for row, (kind, label) in enumerate((("good", "right"), ("bad", "wrong"))):
        parts.append(element("text", label, class_="tick end", x=46, y=15 + 18 * row))
        for number, share in enumerate(steps):
            shade = float(opacity(np.array(share)))
            parts.append(
                element("rect", x=52 + 40 * number, y=3 + 18 * row, width=40, height=16, class_=f"heat-{kind}",
                        fill_opacity=f"{shade:.3f}")
            )  # fmt: skip
    parts += [
        element("text", f"{100 * share:g} %", class_="tick middle", x=72 + 40 * number, y=53)
        for number, share in enumerate(steps)
    ]
    return element("svg", *parts, class_="heat-legend", viewBox="0 0 340 58", role="img", aria_label="shades")


def _tooltip(confusion: Confusion, row: int, column: int) -> Markup:
    names, count = confusion.names, int(confusion.counts[row, column])
    total = int(confusion.counts[row].sum())
    outcome = "recognised" if row == column else f"taken for {isolated(names[column])}"
    share = f", {100 * count / total:.1f} % of {total}" if total else ""
    return element("title", f"{isolated(names[row])} {outcome}\n{count} video(s){share}")


def _cells(confusion: Confusion, title: str) -> Markup:
    count = len(confusion.names)
    size = 46 if count <= 12 else 36
    left = 20 + 7 * min(_NAME_LENGTH, max(map(len, confusion.names)))
    top = 30 + int(5.2 * min(_NAME_LENGTH, max(map(len, confusion.names))))
    shares = confusion.shares()
    shades = opacity(shares)
    parts = []
    for row in range(count):
        middle = top + (row + 0.5) * size
        parts.append(_name(confusion.names[row], class_="tick end", x=left - 8, y=middle + 4))
        x = left + (row + 0.5) * size
        parts.append(_name(confusion.names[row], class_="tick", transform=f"translate({x + 4} {top - 8}) rotate(-45)"))
        for column in range(count):
            parts.append(_cell(confusion, row, column, (left, top, size), shades[row, column], shares[row, column]))
    width, height = left + count * size, top + count * size
    parts += [
        element("text", "predicted class", class_="axis-title middle", x=(left + width) / 2, y=height + 22),
        element("text", "true class", class_="axis-title middle",
                transform=f"translate(13 {(top + height) / 2}) rotate(-90)"),
    ]  # fmt: skip
    full = width + int(4.9 * min(_NAME_LENGTH, len(confusion.names[-1])))
    return _drawing(parts, full, height + 30, title)


def _cell(
    confusion: Confusion, row: int, column: int, frame: tuple[int, int, int], shade: float, share: float
) -> Markup:
    left, top, size = frame
    x, y = left + column * size, top + row * size
    kind = "good" if row == column else "bad"
    box = element("rect", x=x, y=y, width=size - 1, height=size - 1, class_=f"heat-{kind}", fill_opacity=f"{shade:.3f}")
    number = None
    if confusion.counts[row, column]:
        weight = "strong" if shade > 0.62 else "weak"
        number = element(
            "text", f"{100 * share:.0f}", class_=f"cell {weight}", x=x + size / 2 - 0.5, y=y + size / 2 + 4
        )
    return element("g", _tooltip(confusion, row, column), box, number)


def _heat_map(confusion: Confusion, title: str) -> Markup:
    count = len(confusion.names)
    named = count <= NAMED_CLASSES
    size = 13 if count <= 60 else 10 if named else max(2, 960 // count)
    left, top, side = (230 if named else 64), 40, size * count
    image = element(
        "image", href=png_uri(heat_pixels(confusion)), x=left, y=top, width=side, height=side, class_="heat-image",
        preserveAspectRatio="none",
    )  # fmt: skip
    frame = element("rect", x=left, y=top, width=side, height=side, class_="heat-frame")
    hovers = _hovers(confusion, size, left, top)
    parts = [image, frame, *_numbers(count, size, left, top)]
    for row, name in enumerate(confusion.names if named else ()):
        y = top + (row + 0.5) * size
        parts.append(_name(f"{shorten(name, _NAME_LENGTH - 4)} {row}", class_="tick end small", x=left - 5, y=y + 3))
    x_middle, y_middle = left + side / 2, top + side / 2
    parts += [
        element("text", "predicted class, number in the list", class_="axis-title middle", x=x_middle, y=14),
        element("text", "true class", class_="axis-title middle", transform=f"translate(13 {y_middle}) rotate(-90)"),
    ]
    return _drawing([*parts, *hovers], left + side + 10, top + side + 10, title)


def _hovers(confusion: Confusion, size: int, left: int, top: int) -> list[Markup]:
    """Cells that tell their numbers; where cells are tiny, the most frequent errors are also drawn larger."""
    shades = opacity(confusion.shares())
    errors = confusion.errors(MOST_TOOLTIPS)
    side = max(size, _SMALLEST_HOVER_PX)
    parts = []
    for rank, (row, column) in enumerate([*errors, *_diagonal(confusion)]):
        enlarged = size < side and rank < min(MOST_ENLARGED, len(errors))
        shade = f"{shades[row, column]:.3f}" if enlarged else None
        x, y = left + (column + 0.5) * size - side / 2, top + (row + 0.5) * size - side / 2
        class_ = "hover heat-bad" if enlarged else "hover"
        hover = _tooltip(confusion, row, column)
        parts.append(element("rect", hover, x=x, y=y, width=side, height=side, class_=class_, fill_opacity=shade))
    return parts[::-1]


def _numbers(count: int, size: int, left: int, top: int) -> list[Markup]:
    """Class numbers along the upper edge, and at the left where there are no names."""
    step = 5 if count <= NAMED_CLASSES else 20 if count <= 250 else 50
    parts = []
    for number in range(0, count, step):
        place = (number + 0.5) * size
        parts += [
            element("line", class_="axis", x1=left + place, x2=left + place, y1=top - 5, y2=top),
            element("text", str(number), class_="tick middle small", x=left + place, y=top - 9),
        ]
        if count > NAMED_CLASSES:
            parts += [
                element("line", class_="axis", x1=left - 5, x2=left, y1=top + place, y2=top + place),
                element("text", str(number), class_="tick end small", x=left - 9, y=top + place + 3),
            ]
    return parts


def _diagonal(confusion: Confusion) -> list[tuple[int, int]]:
    return [(row, row) for row in range(len(confusion.names)) if confusion.counts[row].any()]


def _name(name: str, **attributes: object) -> Markup:
    shown = shorten(name, _NAME_LENGTH)  # heat maps add a number to the shortened name
    attributes["class_"] = f"name {attributes['class_']}"
    return element("text", element("title", name) if shown != name else None, shown, **attributes)


def _drawing(parts: list[Markup], width: float, height: float, title: str) -> Markup:
    return element(
        "svg",
        element("title", title),
        *parts,
        class_="matrix",
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="img",
    )


def heat_pixels(confusion: Confusion) -> NDArray[np.uint8]:
    """One pixel per cell, (K, K, 4): hue by right or wrong, opacity by share."""
    count = len(confusion.names)
    pixels = np.empty((count, count, 4), np.uint8)
    pixels[..., :3] = _BAD
    pixels[np.arange(count), np.arange(count), :3] = _GOOD
    pixels[..., 3] = np.rint(255 * opacity(confusion.shares())).astype(np.uint8)
    return pixels


def png_uri(pixels: NDArray[np.uint8]) -> Markup:
    """Data URI of an RGBA picture, (H, W, 4)."""
    height, width = pixels.shape[:2]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 4)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return Markup("data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode("ascii"))
