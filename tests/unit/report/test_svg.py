import base64
import re
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from slowfast.report.run_tables import Confusion
from slowfast.report.svg import NUM_COLOURS, Series, bar, format_tick, line_chart, nice_ticks, swatch
from slowfast.report.svg_confusion import confusion_matrix, heat_pixels, png_uri, scale_legend


@pytest.mark.parametrize(
    ("low", "high"), [(0, 100), (0.2071, 2.39), (1e-5, 9.7e-4), (-3, 7), (5, 5), (0, 0), (1e6, 3e6), (99.99, 100)]
)
def test_ticks_cover_the_range_in_round_steps(low, high):
    ticks = nice_ticks(low, high)
    steps = np.diff(ticks)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 9
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125"


def test_integer_ticks_have_no_fractions():
    assert nice_ticks(1, 3, 7, integer=True) == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(0, 1, "0"), (20, 20, "20"), (0.5, 0.5, "0.5"), (1.0, 0.5, "1.0"), (2e-4, 2e-4, "2e\u22124"), (-1, 1, "\u22121")],
)
def test_ticks_have_the_decimals_of_their_step(value, step, text):
    assert format_tick(value, step) == text


def test_chart_has_titles_a_line_per_series_and_a_value_at_each_marker():
    series = [Series(name=name, points=((1, 10.0), (2, 20.0)), style=i) for i, name in enumerate(["a & b", "<c>"])]
    chart = line_chart(series, title="Accuracy", x_title="epoch", y_title="top-1 (%)", y_limits=(0.0, None))
    root = ElementTree.fromstring(chart)
    texts = [node.text for node in root.iter("text")]
    assert {"epoch", "top-1 (%)", "0"} <= set(texts)
    assert len([node for node in root.iter("path") if "line" in node.get("class")]) == 2
    tooltips = [node.text for node in root.iter("title")]
    assert "\u2068<c>\u2069\nepoch 2: top-1 (%) 20" in tooltips
    assert "a & b" in tooltips[1]


def test_long_series_have_few_markers_and_keep_their_last():
    points = tuple((float(x), float(x)) for x in range(1000))
    chart = line_chart([Series(name="a", points=points, style=0)], title="t", x_title="x", y_title="y")
    assert chart.count('class="mark') < 80
    assert "epoch 999: y 999" in chart


def test_constant_series_can_be_drawn():
    ElementTree.fromstring(
        line_chart([Series(name="a", points=((1, 0.0),), style=0)], title="t", x_title="x", y_title="y")
    )


def test_first_styles_differ_in_colour_and_the_next_ones_in_dash():
    looks = [swatch(style) for style in range(2 * NUM_COLOURS)]
    assert len(set(looks)) == len(looks)


def test_bar_begins_at_zero_and_ends_at_its_share():
    root = ElementTree.fromstring(bar(0.432, kind="good", reference=0.125))
    drawn = next(node for node in root.iter("rect") if node.get("class") == "bar-good")
    assert (drawn.get("x"), drawn.get("width")) == (None, "43.20%")
    assert next(root.iter("line")).get("x1") == "12.50%"


def _confusion(count):
    rng = np.random.default_rng(0)
    return Confusion(names=tuple(f"class {i}" for i in range(count)), counts=rng.integers(0, 4, (count, count)))


def test_few_classes_have_cells_with_numbers():
    confusion = Confusion(names=("a", "b"), counts=np.array([[3, 1], [0, 0]]))
    root = ElementTree.fromstring(confusion_matrix(confusion, title="t"))
    assert [node.text for node in root.iter("text") if "cell" in node.get("class", "")] == ["75", "25"]
    assert "\u2068a\u2069 taken for \u2068b\u2069\n1 video(s), 25.0 % of 4" in [
        node.text for node in root.iter("title")
    ]
    wrong = [node for node in root.iter("rect") if node.get("class") == "heat-bad"]
    assert [node.get("fill-opacity") for node in wrong] == ["0.500", "0.000"]


@pytest.mark.parametrize("count", [1, 20, 21, 101, 160, 400])
def test_any_number_of_classes_can_be_drawn(count):
    confusion = _confusion(count)
    drawing = confusion_matrix(confusion, title="t")
    root = ElementTree.fromstring(drawing)
    assert len(drawing) < 700_000
    named = [node.text for node in root.iter("text") if "name" in node.get("class", "")]
    assert (len(named) >= count) == (count <= 120)
    assert any("image" in node.tag for node in root.iter()) == (count > 20)


def test_pixels_have_hue_by_outcome_and_opacity_by_share():
    pixels = heat_pixels(Confusion(names=("a", "b"), counts=np.array([[3, 1], [0, 0]])))
    assert pixels[0, 0].tolist() == [31, 111, 178, 221]
    assert pixels[0, 1].tolist() == [213, 94, 0, 128]
    assert pixels[1, :, 3].tolist() == [0, 0]


def test_png_holds_the_pixels():
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    data = base64.b64decode(png_uri(pixels).removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    (size,) = re.findall(rb"(.{4})IDAT", data, re.DOTALL)
    start = data.index(b"IDAT") + 4
    lines = zlib.decompress(data[start : start + int.from_bytes(size, "big")])
    assert lines == b"\0" + pixels[0].tobytes() + b"\0" + pixels[1].tobytes()


def test_legend_names_its_shades():
    texts = [node.text for node in ElementTree.fromstring(scale_legend()).iter("text")]
    assert {"right", "wrong", "1 %", "100 %"} <= set(texts)
