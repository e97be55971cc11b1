"""Line charts and bars as SVG elements. Colours come from the style sheet of the page, so that charts follow its mode.

A series is told by colour, dash and marker together; nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slowfast.report.html_element import Markup, element, isolated, join

NUM_COLOURS = 8
NUM_DASHES = 4
_WIDTH, _HEIGHT = 520, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 16, 14, 46
_MOST_MARKERS = 60
_DASHES = (None, "7 4", "2 3", "9 3 2 3")


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A line of a chart.

    Attributes:
        name: for the tooltips of its points.
        points: (x, y), ascending in x.
        style: number of its look; equal numbers look alike in all charts of a page.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    style: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """Maps values of an axis to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)


def nice_ticks(low: float, high: float, count: int = 6, *, integer: bool = False) -> list[float]:
    """Round numbers that cover a range in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: smallest value.
        high: largest value.
        count: ticks wanted, about.
        integer: no step below one.

    Returns: ascending; the first is at most `low`, the last at least `high`.
    """
    if not high > low:
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    if integer:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def format_tick(value: float, step: float) -> str:
    """A tick with as many decimals as its step needs; powers of ten where numbers are very small or large."""
    if value == 0:
        return "0"
    if step < 1e-3 or abs(value) >= 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "\u2212")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "\u2212")


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str,
    y_title: str,
    y_limits: tuple[float | None, float | None] = (None, None),
) -> Markup:
    """Draw lines over a common grid.

    Args:
        series: at least one with a point.
        title: what the chart shows, for screen readers.
        x_title: of the axis below; its ticks are integers.
        y_title: of the axis at the left, with the unit.
        y_limits: values that the y axis must reach down and up to.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    low, high = y_limits
    x_ticks = nice_ticks(min(xs), max(xs), 7, integer=True)
    y_ticks = nice_ticks(
        min(ys, default=0) if low is None else min(low, *ys), max([*ys, *([] if high is None else [high])])
    )
    at_x = _Scale(low=x_ticks[0], high=x_ticks[-1], start=_LEFT, end=_WIDTH - _RIGHT)
    at_y = _Scale(low=y_ticks[0], high=y_ticks[-1], start=_HEIGHT - _BOTTOM, end=_TOP)
    return element(
        "svg",
        element("title", title),
        _axes(x_ticks, y_ticks, at_x, at_y, x_title=x_title, y_title=y_title),
        *(_line(line, at_x, at_y, y_title=y_title) for line in series if line.points),
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        preserveAspectRatio="xMidYMid meet",
    )


def _axes(
    x_ticks: Sequence[float], y_ticks: Sequence[float], at_x: _Scale, at_y: _Scale, *, x_title: str, y_title: str
) -> Markup:
    bottom, left, right = _HEIGHT - _BOTTOM, _LEFT, _WIDTH - _RIGHT
    middle = (bottom + _TOP) / 2
    y_step = y_ticks[1] - y_ticks[0]
    parts: list[Markup] = []
    for value in y_ticks:
        y = at_y(value)
        parts += [
            element("line", class_="grid", x1=left, x2=right, y1=y, y2=y),
            element("text", format_tick(value, y_step), class_="tick end", x=left - 8, y=y + 4),
        ]
    for value in x_ticks:
        x = at_x(value)
        parts += [
            element("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 5),
            element("text", format_tick(value, 1), class_="tick middle", x=x, y=bottom + 19),
        ]
    return join(
        [
            *parts,
            element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom),
            element("text", x_title, class_="axis-title middle", x=(left + right) / 2, y=_HEIGHT - 6),
            element("text", y_title, class_="axis-title middle", transform=f"translate(15 {middle}) rotate(-90)"),
        ]
    )


def _line(line: Series, at_x: _Scale, at_y: _Scale, *, y_title: str) -> Markup:
    places = [(at_x(x), at_y(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
    every = max(1, math.ceil(len(places) / _MOST_MARKERS))
    last = len(places) - 1
    marks = [
        element(
            "path",
            element("title", f"{isolated(line.name)}\nepoch {x:g}: {y_title} {_value(y)}"),
            d=marker(line.style, *places[number]),
            class_=f"mark f{line.style % NUM_COLOURS}",
        )
        for number, (x, y) in enumerate(line.points)
        if number % every == 0 or number == last
    ]
    stroke = element(
        "path", d=path, class_=f"line s{line.style % NUM_COLOURS}", stroke_dasharray=_dash(line.style), fill="none"
    )
    return element("g", stroke, *marks)


def marker(style: int, x: float, y: float) -> str:
    """Path of the marker of a style around a point: disc, square, triangle or diamond."""
    shapes = (
        "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        "m-3.2 -3.2h6.4v6.4h-6.4z",
        "m0 -4.2l4 7h-8z",
        "m0 -4.4l4.4 4.4l-4.4 4.4l-4.4 -4.4z",
    )
    return f"M{x:g} {y:g}{shapes[style % len(shapes)]}"


def swatch(style: int) -> Markup:
    """The look of a style, for legends and tables."""
    return element(
        "svg",
        element("path", d="M1 7H35", class_=f"line s{style % NUM_COLOURS}", stroke_dasharray=_dash(style), fill="none"),
        element("path", d=marker(style, 18, 7), class_=f"mark f{style % NUM_COLOURS}"),
        class_="swatch",
        viewBox="0 0 36 14",
        aria_hidden="true",
    )


def bar(share: float, *, kind: str, reference: float | None = None) -> Markup:
    """A bar that begins at zero in a box that ends at one.

    Args:
        share: length, in [0, 1].
        kind: class that gives the colour, "good" or "bad".
        reference: where a dashed line stands, in [0, 1].
    """
    line = None
    if reference is not None:
        place = f"{100 * reference:.2f}%"
        line = element("line", class_="reference", x1=place, x2=place, y1="0", y2="100%")
    return element(
        "svg",
        element("rect", class_="bar-box", width="100%", height="100%"),
        element("rect", class_=f"bar-{kind}", width=f"{100 * min(1.0, max(0.0, share)):.2f}%", height="100%"),
        line,
        class_="bar",
        aria_hidden="true",
    )


def bar_axis() -> Markup:
    """Scale above a column of bars."""
    places = ((0, "start"), (50, "middle"), (100, "end"))
    labels = [element("text", f"{place}", class_=f"tick {where}", x=f"{place}%", y="11") for place, where in places]
    return element("svg", *labels, class_="bar-axis", aria_hidden="true")


def _dash(style: int) -> str | None:
    return _DASHES[(style + style // NUM_COLOURS) % NUM_DASHES]


def _value(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.6g}"
