"""Sections of a page that show numbers: tables with published rows, scores of splits, summaries, learning curves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slowfast.report.html_element import Markup, element, heading, join, name_of, number_cell, table
from slowfast.report.run_folder import Evaluation, Figure, Row, Run, Split
from slowfast.report.svg import Series, line_chart, swatch

SCORES = {"top1_acc": "top-1", "top5_acc": "top-5", "mean_class_acc": "mean of classes"}
_RATES = ("loss", "lr", "val_top1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A run with the name that it has on the page.

    Attributes:
        name: unique on the page.
        run: what its folder tells.
        style: number of its look in charts.
    """

    name: str
    run: Run
    style: int


def members(runs: Sequence[Named]) -> list[Named]:
    """Runs and their jobs, each with a name and a look of its own."""
    found: list[Named] = []
    for named in runs:
        for run in named.run.members():
            job = run.folder.name if len(runs) == 1 else f"{named.name} / {run.folder.name}"
            name = named.name if run is named.run else job
            found.append(Named(name=name, run=run, style=len(found)))
    return found


def table_section(runs: Sequence[Named]) -> Markup | None:
    """Tables of protocols, ours above the published rows; None if no run made a table."""
    parts: list[Markup] = []
    protocols = dict.fromkeys(named.run.table.protocol for named in runs if named.run.table)
    for protocol in protocols:
        tables = [
            (named, named.run.table) for named in runs if named.run.table and named.run.table.protocol == protocol
        ]
        published = {(row.name, row.source): row for _, made in tables for row in made.published}
        ours = [(named.name, row) for named, made in tables for row in (made.ours, *made.variants)]
        titles = {key: title for _, made in tables for key, title in {**made.titles, **made.columns}.items()}
        columns = _columns([row for _, row in ours] + list(published.values()), list(titles))
        groups = Counter(titles.get(dataset, dataset) for dataset, _ in columns)
        first = [heading("method", rowspan=2), heading("source", rowspan=2)]
        first += [element("th", name_of(name), colspan=span, class_="group") for name, span in groups.items()]
        second = [heading(titles.get(metric, metric.replace("_", " ")), number=True) for _, metric in columns]
        rows = [_table_row(row, f"run {name}", columns, class_="ours") for name, row in ours]
        for row in published.values():
            source = row.source or "published"
            rows.append(_table_row(row, f"{source} ({row.note})" if row.note else source, columns, class_=""))
        note = (
            ". Accuracy in percent, mean ± population standard deviation where several splits or seeds were scored. "
            "Shaded rows are ours."
        )
        parts += [element("p", "Protocol ", name_of(protocol), note, class_="note"), _grouped(first, second, rows)]
    return element("section", element("h2", "Table", id="table"), *parts) if parts else None


def _grouped(first: Sequence[Markup], second: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    """A table whose columns have titles in two lines."""
    head = element("thead", element("tr", *first), element("tr", *second))
    return element("div", element("table", head, element("tbody", *rows)), class_="scroll")


def _columns(rows: Sequence[Row], order: Sequence[str]) -> list[tuple[str, str]]:
    """Dataset and metric of each column that some row fills; those that `order` does not know come last."""
    filled = dict.fromkeys(
        (dataset, metric)
        for row in rows
        for dataset, metrics in row.cells.items()
        for metric, figure in metrics.items()
        if figure.mean is not None
    )
    rank = {name: number for number, name in enumerate(order)}
    return sorted(
        filled, key=lambda column: (rank.get(column[0], len(rank)), column[0], rank.get(column[1], len(rank)))
    )


def _table_row(row: Row, source: str, columns: Sequence[tuple[str, str]], *, class_: str) -> Markup:
    cells = [row.cells.get(dataset, {}).get(metric) for dataset, metric in columns]
    return element(
        "tr",
        element("th", name_of(row.name), scope="row"),
        element("td", name_of(source), class_="source"),
        *(_figure_cell(cell) for cell in cells),
        class_=class_ or None,
    )


def _figure_cell(figure: Figure | None) -> Markup:
    if figure is None or figure.mean is None:
        return number_cell(None)
    spread = None if figure.std is None else element("span", f" ± {figure.std:.1f}", class_="std")
    values = ", ".join(f"{value:.2f}" for value in figure.values)
    return element(
        "td", f"{figure.mean:.1f}", spread, class_="number", data_value=f"{figure.mean:.6g}", title=values or None
    )


def scores_section(runs: Sequence[Named]) -> Markup | None:
    """Scores of every split, the runs side by side; None if nothing was tested."""
    tested = [(named, evaluation) for named in members(runs) for evaluation in named.run.evaluations]
    if not tested:
        return None
    single = len(runs) == 1
    parts = [
        element("h2", "Accuracy", id="accuracy"),
        _split_table(tested) if single else _side_by_side(runs),
        _summary_table(tested),
    ]
    return element("section", *parts)


def place(evaluation: Evaluation) -> str:
    """What an evaluation was made on: the dataset, if the lists are those of one, and the variant."""
    parts = (evaluation.dataset or "own lists", evaluation.variant)
    return " · ".join(part for part in parts if part)


def _split_table(tested: Sequence[tuple[Named, Evaluation]]) -> Markup:
    rows = []
    jobs = any(named.run.folder.name != evaluation.dataset for named, evaluation in tested) and len(tested) > 1
    for named, evaluation in tested:
        for split in evaluation.splits:
            scored, listed = split.num_scored, split.num_videos
            lost = scored is not None and listed is not None and scored < listed
            unofficial = split.num_official is not None and split.num_official != listed
            rows.append(
                element(
                    "tr",
                    element("td", name_of(named.run.folder.name)) if jobs else None,
                    element("td", name_of(place(evaluation))),
                    element("th", name_of(split.name), scope="row"),
                    *(number_cell(split.metrics.get(key)) for key in SCORES),
                    _count_cell(scored, class_="number lost" if lost else "number"),
                    _count_cell(listed),
                    _count_cell(split.num_official, class_="number lost" if unofficial else "number"),
                    _count_cell(split.num_classes or len(split.classes) or None),
                )
            )
    header = [*(["job"] if jobs else []), "dataset", "split"]
    numbers = [*(f"{title} (%)" for title in SCORES.values()), "videos scored", "listed", "official", "classes"]
    return table([*header, *(heading(title, number=True) for title in numbers)], rows, class_="sortable")


def _count_cell(value: int | None, *, class_: str = "number") -> Markup:
    return number_cell(value, None if value is None else f"{value:d}", class_=class_)


def _side_by_side(runs: Sequence[Named]) -> Markup:
    """Splits down, runs across; differences are to the first run that has the split."""
    cells: dict[tuple[str, str], dict[str, list[Split]]] = {}
    for named in runs:
        for run in named.run.members():
            for evaluation in run.evaluations:
                for split in evaluation.splits:
                    of_split = cells.setdefault((place(evaluation), split.name), {})
                    of_split.setdefault(named.name, []).append(split)
    rows = []
    for (where, split_name), of_runs in cells.items():
        for number in range(max(map(len, of_runs.values()))):
            splits = [of_runs.get(named.name, []) for named in runs]
            row = [found[number] if number < len(found) else None for found in splits]
            rows.append(
                element("tr", element("td", name_of(where)), element("th", name_of(split_name), scope="row"),
                        *_compared(row))
            )  # fmt: skip
    tested = [named for named in runs if any(run.evaluations for run in named.run.members())]
    first = [heading("dataset", rowspan=2), heading("split", rowspan=2)]
    first += [element("th", name_of(named.name), colspan=3, class_="group") for named in runs]
    second = [heading(title, number=True) for _ in runs for title in SCORES.values()]
    note = "Percent of videos; in small, the difference to the first run that was tested on the split, in points."
    if len(tested) < len(runs):
        note += f" {len(runs) - len(tested)} of {len(runs)} runs have no test results."
    return join([element("p", note, class_="note"), _grouped(first, second, rows)])


def _compared(row: Sequence[Split | None]) -> list[Markup]:
    base = next((split for split in row if split is not None), None)
    cells = []
    for split in row:
        for key in SCORES:
            value = split.metrics.get(key) if split else None
            reference = base.metrics.get(key) if base else None
            difference = None
            if value is not None and reference is not None and split is not base:
                difference = element("span", f" {value - reference:+.2f}".replace("-", "\u2212"), class_="delta")
            text = None if value is None else join([f"{value:.2f}", difference])
            cells.append(number_cell(value, text))
    return cells


def _summary_table(tested: Sequence[tuple[Named, Evaluation]]) -> Markup | None:
    """Figures over several splits: "mean_x" and "std_x" become one cell."""
    columns = [(named, evaluation) for named, evaluation in tested if summary(evaluation)]
    if not columns:
        return None
    names = dict.fromkeys(name for _, evaluation in columns for name in summary(evaluation))
    rows = []
    for named, evaluation in columns:
        figures = summary(evaluation)
        start = [element("th", name_of(named.name), scope="row"), element("td", name_of(place(evaluation)))]
        rows.append(element("tr", *start, *(_summary_cell(name, figures.get(name)) for name in names)))
    header = ["run", "dataset", *(heading(_metric_title(name), number=True) for name in names)]
    caption = "Over the splits: accuracy in percent, mean ± population standard deviation."
    return table(header, rows, class_="sortable", caption=caption)


def _summary_cell(name: str, figure: Figure | None) -> Markup:
    """Accuracies with two decimals, other figures (counts) as they are."""
    if figure is None or figure.mean is None:
        return number_cell(None)
    if not name.endswith(("top1", "top5", "acc")):
        return number_cell(figure.mean, f"{figure.mean:g}")
    spread = None if figure.std is None else element("span", f" ± {figure.std:.2f}", class_="std")
    return number_cell(figure.mean, join([f"{figure.mean:.2f}", spread]))


def _metric_title(name: str) -> str:
    plain = re.sub(r"_?top(\d)$", r" top-\1 (%)", name)
    return plain.replace("_", " ").strip()


def summary(evaluation: Evaluation) -> dict[str, Figure]:
    """Metrics that are no score of one split."""
    metrics = evaluation.metrics
    scores = ("top1", "top5", *SCORES)
    own = {"coverage", *SCORES, *(f"{split.name}_{score}" for split in evaluation.splits for score in scores)}
    spreads = {name: re.sub(r"(^|_)mean_", r"\1std_", name) for name in metrics if re.search(r"(^|_)mean_", name)}
    return {
        name: Figure(mean=value, std=metrics.get(spreads.get(name, "")))
        for name, value in metrics.items()
        if name not in own and name not in spreads.values()
    }


def curves_section(runs: Sequence[Named]) -> Markup | None:
    """Learning curves, all runs in one chart per scalar; None if nothing was trained."""
    trained = [named for named in members(runs) if named.run.curves]
    if not trained:
        return None
    scalars = dict.fromkeys(name for named in trained for name in named.run.curves)
    terms = [name for name in scalars if name.startswith("loss_")]
    main = [name for name in ("loss", *terms, "val_top1", "lr") if name in scalars]
    rest = [name for name in scalars if name not in main]
    legend = [element("li", swatch(named.style), " ", name_of(named.name)) for named in trained]
    others = element(
        "details",
        element("summary", f"More curves ({len(rest)})"),
        element("div", *_charts(rest, trained), class_="charts"),
    )
    return element(
        "section",
        element("h2", "Learning curves", id="curves"),
        element("p", "Training scalars are means over an epoch. Point at a marker for its value.", class_="note"),
        element("ul", *legend, class_="legend"),
        element("div", *_charts(main, trained), class_="charts"),
        others if rest else None,
        _last_values(trained, [name for name in _RATES if name in scalars]),
    )


def _charts(names: Sequence[str], trained: Sequence[Named]) -> list[Markup]:
    charts = []
    for name in names:
        title, unit = describe_scalar(name)
        series = [
            Series(name=named.name, points=named.run.curves[name], style=named.style)
            for named in trained
            if name in named.run.curves
        ]
        limits = (0.0, None) if name == "lr" or name.endswith("top1") else (None, None)
        chart = line_chart(series, title=f"{title} by epoch", x_title="epoch", y_title=unit, y_limits=limits)
        charts.append(element("figure", element("figcaption", title), chart))
    return charts


def describe_scalar(name: str) -> tuple[str, str]:
    """Title of a chart, and of its y axis with the unit."""
    known = {
        "loss": ("Training loss, all terms", "loss, weighted sum"),
        "lr": ("Learning rate", "learning rate"),
        "val_top1": ("Validation accuracy", "top-1 (%)"),
        "train_top1": ("Accuracy on augmented training clips", "top-1 (%)"),
        "grad_norm": ("Norm of the gradient before clipping", "L2 norm"),
    }
    if name in known:
        return known[name]
    plain = name.removeprefix("loss_").replace("_", " ")
    return (f"Loss term: {plain}", "loss") if name.startswith("loss_") else (plain.capitalize(), plain)


def _last_values(trained: Sequence[Named], names: Sequence[str]) -> Markup:
    rows = []
    for named in trained:
        curves = named.run.curves
        epochs = max(points[-1][0] for points in curves.values())
        cells = [element("th", swatch(named.style), " ", name_of(named.name), scope="row"), _count_cell(int(epochs))]
        cells += [_last(curves, name) for name in names]
        if "val_top1" in names:
            best = max(curves.get("val_top1", ()), key=lambda point: point[1], default=None)
            cells.append(number_cell(*((best[1], f"{best[1]:.2f} in epoch {best[0]:g}") if best else (None, None))))
        rows.append(element("tr", *cells))
    titles = [f"last {describe_scalar(name)[0].lower()}{' (%)' if name == 'val_top1' else ''}" for name in names]
    best_title = ["best validation accuracy (%)"] if "val_top1" in names else []
    header = ["run", *(heading(title, number=True) for title in ("epochs", *titles, *best_title))]
    return table(header, rows, class_="sortable")


def _last(curves: Mapping[str, Sequence[tuple[float, float]]], name: str) -> Markup:
    points = curves.get(name)
    return number_cell(None) if not points else number_cell(points[-1][1], f"{points[-1][1]:.4g}")
