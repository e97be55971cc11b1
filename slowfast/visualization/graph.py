"""A class's knowledge graph and prompts, as text and as a picture. The picture needs the extra `plot` (matplotlib)."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast.text.prompt_bank import Edge, GraphEntry, PromptEntry, read_graphs, read_prompts
from slowfast.utils.io import atomic_writer


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTexts:
    """What the files of a dataset say of one class."""

    dataset: str
    name: str
    graph: GraphEntry
    prompts: PromptEntry | None
    """None where the dataset has no file of prompts, or not of this class."""


def find_class(name: str, root: str | Path, *, dataset: str | None = None) -> ClassTexts:
    """Look a class up in a folder of ``classes_ASKG_<dataset>.yml`` files.

    Args:
        name: the class, in any case.
        root: the folder.
        dataset: which dataset; None for the first, in alphabetical order, that has the class.

    Raises:
        ValueError: if there is no such class or file.
    """
    pattern = f"classes_ASKG_{dataset or '*'}.yml"
    files = sorted(Path(root).glob(pattern))
    if not files:
        raise ValueError(f"{root}: has no file {pattern}")
    known: dict[str, str] = {}
    for file in files:
        graphs = read_graphs(file)
        spelled = {found.casefold(): found for found in graphs}
        known |= spelled
        if name.casefold() in spelled:
            own = spelled[name.casefold()]
            stem = file.stem.removeprefix("classes_ASKG_")
            beside = file.with_name(f"classes_xprompt_{stem}.yml")
            prompts = read_prompts(beside).get(own) if beside.is_file() else None
            return ClassTexts(dataset=stem, name=own, graph=graphs[own], prompts=prompts)
    near = [known[match] for match in difflib.get_close_matches(name.casefold(), known, n=3)]
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"class {name!r}: in none of {', '.join(file.name for file in files)}{hint}")


def describe_class(texts: ClassTexts) -> str:
    """Write a class's graph and its prompts out, one per line, each triple with the tail made from it."""
    graph, prompts = texts.graph, texts.prompts
    kinds = (
        ("object - object", graph.object_triples, prompts.object_tails if prompts else ()),
        ("action - object", graph.action_triples, prompts.action_tails if prompts else ()),
        ("sub-action - sub-action", graph.sub_action_triples, prompts.sub_action_tails if prompts else ()),
    )
    lines = [
        f"{texts.name} ({texts.dataset})",
        "",
        *textwrap.wrap(f"objects      {', '.join(graph.objects)}", 110, subsequent_indent=" " * 13),
        "sub-actions  " + f"\n{' ' * 13}".join(f"{step}. {action}" for step, action in enumerate(graph.sub_actions, 1)),
    ]
    for title, triples, tails in kinds:
        lines += ["", title]
        for number, triple in enumerate(triples):
            lines.append(f"  <{', '.join(triple)}>")
            lines += [f"      {texts.name}, {tail}" for tail in tails[number : number + 1]]
        lines += [f"      {texts.name}, {tail}" for tail in tails[len(triples) :]]
    if prompts is not None:
        lines += ["", f"{1 + len(prompts.mixed())} prompts per template: the name alone, and with each tail once"]
    return "\n".join(lines)


_FONT_PT = 9.0
_LINE = 0.17
"""Height of a line of text, inches."""
_PAD = 0.1
_GAP = 0.16
"""Between boxes of a column."""
_LANE = 0.75
"""Between columns, for the connecting lines."""
_APART = 0.06
_WRAP = 24
_COLOURS = {"action": "#f2c14e", "object": "#cfe3f7", "step": "#d5edd3", "relation": "#ffffff"}
_INK = {"object": "#1f5fa8", "action": "#b06a00", "step": "#2f7d43", "part": "#999999"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A labelled box of the picture; centre and size in inches, y upward."""

    text: str
    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where everything goes: two columns of things and steps beside the action, relations in columns between them."""

    boxes: tuple[Box, ...]
    links: tuple[tuple[int, int, str], ...]
    """From box, to box, kind: the two halves of a relation, the second with an arrow, and the parts of the action."""
    width: float
    height: float


def layout_graph(name: str, graph: GraphEntry) -> Layout:
    """Place the boxes of a class's graph so that none overlaps another.

    From left to right: relations between objects, objects, relations from the action, the action, sub-actions in their
    order, relations between them. A relation stands at the mean height of what it relates, as far as there is room.
    """
    objects = _by_neighbours(graph.objects, graph.object_triples)
    columns: list[tuple[str, list[str]]] = [
        ("relation", [triple[1] for triple in graph.object_triples]),
        ("object", objects),
        ("relation", [triple[1] for triple in graph.action_triples]),
        ("action", [name]),
        ("step", [f"{number}. {step}" for number, step in enumerate(graph.sub_actions, 1)]),
        ("relation", [triple[1] for triple in graph.sub_action_triples]),
    ]
    sizes = [[_size(text, kind) for text in texts] for kind, texts in columns]
    height = max(_column_height(column) for column in sizes) + 2 * _LANE
    heights: list[list[float]] = [[] for _ in columns]
    for column in (1, 3, 4):
        heights[column] = _stack(sizes[column], height)
    places = dict(zip(objects, heights[1], strict=True))
    steps = dict(zip(graph.sub_actions, heights[4], strict=True))
    middle = heights[3][0]
    wanted = {
        0: [(places.get(a, middle) + places.get(b, middle)) / 2 for a, _, b in graph.object_triples],
        2: [places.get(b, middle) for _, _, b in graph.action_triples],
        5: [(steps.get(a, middle) + steps.get(b, middle)) / 2 for a, _, b in graph.sub_action_triples],
    }
    for column, positions in wanted.items():
        heights[column] = _near(positions, [size[1] for size in sizes[column]], height)
    boxes: list[Box] = []
    first: list[int] = []
    x = _PAD
    for (kind, texts), column_sizes, ys in zip(columns, sizes, heights, strict=True):
        widest = max((width for width, _ in column_sizes), default=0.0)
        first.append(len(boxes))
        for text, (width, tall), y in zip(texts, column_sizes, ys, strict=True):
            boxes.append(Box(text=text, kind=kind, x=x + widest / 2, y=y, width=width, height=tall))
        x += widest + _LANE
    return Layout(
        boxes=tuple(boxes), links=_links(graph, objects, first), width=x - _LANE + _PAD, height=height
    )  # fmt: skip


def _links(graph: GraphEntry, objects: Sequence[str], first: Sequence[int]) -> tuple[tuple[int, int, str], ...]:
    object_box = {text: first[1] + number for number, text in enumerate(objects)}
    step_box = {text: first[4] + number for number, text in enumerate(graph.sub_actions)}
    links = [(first[3], box, "part") for box in step_box.values()]
    kinds: tuple[tuple[int, Sequence[Edge], Mapping[str, int], str], ...] = (
        (0, graph.object_triples, object_box, "object"),
        (2, graph.action_triples, object_box, "action"),
        (5, graph.sub_action_triples, step_box, "step"),
    )
    for column, triples, box_of, kind in kinds:
        for number, (head, _, tail) in enumerate(triples):
            relation = first[column] + number
            start = first[3] if kind == "action" else box_of.get(head)
            end = box_of.get(tail)
            links += [(start, relation, kind)] if start is not None else []
            links += [(relation, end, kind)] if end is not None else []
    return tuple(links)


def _by_neighbours(objects: Sequence[str], triples: Sequence[Edge]) -> list[str]:
    """Order objects so that related ones stand near each other: a few rounds of sorting by the mean of neighbours."""
    order = list(objects)
    for _ in range(8):
        place = {text: number for number, text in enumerate(order)}
        near = {text: [float(place[text])] for text in order}
        for head, _, tail in triples:
            if head in place and tail in place:
                near[head].append(place[tail])
                near[tail].append(place[head])
        order.sort(key=lambda text: sum(near[text]) / len(near[text]))
    return order


def _wrapped(text: str, kind: str) -> str:
    return textwrap.fill(text, 16 if kind == "relation" else _WRAP, break_long_words=False)


def _size(text: str, kind: str) -> tuple[float, float]:
    from matplotlib.textpath import TextPath

    lines = _wrapped(text, kind).split("\n")
    points = max(TextPath((0, 0), line, size=_FONT_PT).get_extents().width for line in lines)
    points *= 1.15 if kind == "action" else 1.0  # bold
    return points / 72 + 2.4 * _PAD, len(lines) * _LINE + 2 * _PAD


def _column_height(sizes: Sequence[tuple[float, float]]) -> float:
    return sum(height for _, height in sizes) + _GAP * max(len(sizes) - 1, 0)


def _stack(sizes: Sequence[tuple[float, float]], height: float) -> list[float]:
    """Centres of boxes one below the other, spread over the height."""
    free = height - sum(tall for _, tall in sizes)
    gap, top, centres = free / (len(sizes) + 1), height, []
    for _, tall in sizes:
        top -= gap
        centres.append(top - tall / 2)
        top -= tall
    return centres


def _near(positions: Sequence[float], tall: Sequence[float], height: float) -> list[float]:
    """Centres as near to the wanted ones as boxes without overlap allow, from top to bottom in the wanted order."""
    order = sorted(range(len(positions)), key=lambda number: (-positions[number], number))
    centres = [0.0] * len(positions)
    ceiling = height - _GAP
    for number in order:
        centres[number] = min(positions[number], ceiling - tall[number] / 2)
        ceiling = centres[number] - tall[number] / 2 - _GAP
    floor = _GAP
    for number in reversed(order):
        centres[number] = max(centres[number], floor + tall[number] / 2)
        floor = centres[number] + tall[number] / 2 + _GAP
    return centres


def draw_graph(path: str | Path, name: str, graph: GraphEntry) -> Path:
    """Draw a class's graph.

    Args:
        path: the file to write; its suffix, .svg, .png or .pdf, chooses the kind.
        name: the class.
        graph: its graph.

    Returns:
        The file.

    Raises:
        ValueError: if matplotlib is not installed or does not write this kind of file.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(f"{path}: pictures need matplotlib; install the extra: pip install '.[plot]'") from error
    target = Path(path)
    if target.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"{target}: unknown suffix {target.suffix!r}; allowed: .svg, .png, .pdf")
    layout = layout_graph(name, graph)
    figure = Figure(figsize=(layout.width, layout.height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, layout.width), ylim=(0, layout.height))
    axes.set_axis_off()
    for start, end, kind in layout.links:
        _draw_link(axes, layout.boxes[start], layout.boxes[end], kind)
    for box in layout.boxes:
        _draw_box(axes, box)
    # Text as outlines, and no date or random names inside: the same graph gives the same file everywhere.
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": name}), atomic_writer(target) as file:
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(target.suffix, {})
        figure.savefig(file, dpi=150, format=target.suffix[1:], facecolor="white", metadata=metadata)
    return target


def _draw_box(axes: Any, box: Box) -> None:  # noqa: ANN401 - matplotlib is optional
    from matplotlib.patches import FancyBboxPatch

    corner = (box.x - box.width / 2 + _PAD, box.y - box.height / 2 + _PAD)
    is_relation = box.kind == "relation"
    axes.add_patch(
        FancyBboxPatch(
            corner, box.width - 2 * _PAD, box.height - 2 * _PAD, boxstyle=f"round,pad={_PAD}", zorder=2,
            facecolor=_COLOURS[box.kind], edgecolor="none" if is_relation else "#555555", linewidth=0.8,
        )
    )  # fmt: skip
    axes.text(
        box.x, box.y, _wrapped(box.text, box.kind), ha="center", va="center", fontsize=_FONT_PT, zorder=3,
        style="italic" if is_relation else "normal", weight="bold" if box.kind == "action" else "normal",
        linespacing=1.15,
    )  # fmt: skip


def _draw_link(axes: Any, start: Box, end: Box, kind: str) -> None:  # noqa: ANN401
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    side = 1 if end.x > start.x else -1
    # What leaves a box starts lower than where others come in, so that directions can be told apart.
    apart = _APART if kind in ("object", "step") else 0.0
    a = (start.x + side * start.width / 2, start.y - apart * (start.kind != "relation"))
    b = (end.x - side * end.width / 2, end.y + apart * (end.kind != "relation"))
    bend = (b[0] - a[0]) / 2
    curve = Curve(
        [a, (a[0] + bend, a[1]), (b[0] - bend, b[1]), b], [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    )
    arrow = "-" if end.kind == "relation" or kind == "part" else "-|>"
    axes.add_patch(
        FancyArrowPatch(
            path=curve,
            arrowstyle=arrow,
            mutation_scale=9,
            color=_INK[kind],
            linewidth=1.0,
            alpha=0.8,
            zorder=1,
            linestyle=":" if kind == "part" else "-",
        )
    )
