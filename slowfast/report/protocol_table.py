"""The table of a protocol: our figures, the published ones below, as JSON, Markdown and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slowfast.protocols.base import Figure
from slowfast.report.published import PublishedEntry, PublishedFigure
from slowfast.report.table import format_table
from slowfast.utils.io import atomic_write_text, parse_json

FORMAT = "slowfast-stdd/table/1"
RESULTS_FILE, MARKDOWN_FILE, LATEX_FILE = "results.json", "table.md", "table.tex"

_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One job of a table.

    Attributes:
        name: name of the job.
        dataset: dataset that it scores.
        folder: its folder, relative to that of the table.
        counted: what its coverage counts.
        coverage: share of these that was scored, percent; None until it has been scored.
        unlike_official: split -> rows of its list and of the published one, where these numbers differ.
    """

    name: str
    dataset: str
    folder: str
    counted: str = "listed videos"
    coverage: float | None = None
    unlike_official: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProtocolTable:
    """What one run of tools/run_protocol.py found.

    Attributes:
        protocol: its name.
        name: of the method, the title of our row.
        titles: dataset -> its title, in the order of the columns.
        columns: metric -> its title.
        cells: our figures, dataset -> metric -> figure; what is not there yet is left out.
        variants: title -> figures of the same weights with other shares of raw CLIP, in the form of `cells`.
        published: rows to compare with.
        jobs: the runs behind our figures.
    """

    protocol: str
    name: str
    titles: Mapping[str, str]
    columns: Mapping[str, str]
    cells: Mapping[str, Mapping[str, Figure]]
    variants: Mapping[str, Mapping[str, Mapping[str, Figure]]] = field(default_factory=dict)
    published: Sequence[PublishedEntry] = ()
    jobs: Sequence[JobRecord] = ()

    def used_columns(self) -> list[tuple[str, str]]:
        """Dataset and metric of each column that some row fills."""
        rows: list[Row] = [self.cells, *self.variants.values(), *(entry.cells for entry in self.published)]
        return [
            (dataset, metric)
            for dataset in self.titles
            for metric in self.columns
            if any(_has(row, dataset, metric) for row in rows)
        ]

    def rows(self) -> list[tuple[str, list[str]]]:
        """Title and cells of each row, ours first; an empty cell is "-"."""
        columns = self.used_columns()
        ours = {self.name: self.cells, **self.variants}
        rows = [(name, [_text(cells, *column) for column in columns]) for name, cells in ours.items()]
        rows += [(entry.name, [_text(entry.cells, *column) for column in columns]) for entry in self.published]
        return rows

    def markdown(self) -> str:
        """The table in Markdown, with the sources of the published rows."""
        header = ["accuracy, %", *(f"{self.titles[d]} {self.columns[m]}" for d, m in self.used_columns())]
        rows = self.rows()
        num_ours = 1 + len(self.variants)
        body = [[f"**{name}** (ours)", *cells] for name, cells in rows[:num_ours]]
        body += [[name, *cells] for name, cells in rows[num_ours:]]
        lines = [format_table(header, body), ""]
        lines += [f"- {entry.name}: {entry.source}{_note(entry.note)}" for entry in self.published]
        short = [job for job in self.jobs if job.coverage is not None and job.coverage < 100]
        lines += [f"- {job.name}: only {job.coverage:.2f} % of the {job.counted} were scored" for job in short]
        for job in self.jobs:
            counts = [f"{name} lists {found} of {wanted}" for name, (found, wanted) in job.unlike_official.items()]
            lines += [f"- {job.name}: {', '.join(counts)} official videos"] if counts else []
        return "\n".join(lines).rstrip() + "\n"

    def latex(self) -> str:
        """The rows of the table in LaTeX, with their titles as a comment."""
        header = " & ".join(f"{self.titles[d]} {self.columns[m]}" for d, m in self.used_columns())
        lines = [f"% method & {header}"]
        for name, cells in self.rows():
            lines.append(" & ".join([_latex(name), *(_latex_cell(cell) for cell in cells)]) + r" \\")
        return "\n".join(lines) + "\n"

    def write(self, folder: str | Path) -> Path:
        """Write the three files.

        Returns: the JSON file.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        atomic_write_text(target / MARKDOWN_FILE, self.markdown())
        atomic_write_text(target / LATEX_FILE, self.latex())
        content = json.dumps(self._content(), indent=1, allow_nan=False, ensure_ascii=False)
        atomic_write_text(target / RESULTS_FILE, content + "\n")
        return target / RESULTS_FILE

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "protocol": self.protocol,
            "name": self.name,
            "titles": dict(self.titles),
            "columns": dict(self.columns),
            "cells": _plain_cells(self.cells),
            "variants": [{"name": name, "cells": _plain_cells(cells)} for name, cells in self.variants.items()],
            "published": [asdict(entry) for entry in self.published],
            "jobs": [asdict(job) for job in self.jobs],
        }


def refuse_other_table(path: str | Path, protocol: str) -> None:
    """Tables do not replace other results.

    Args:
        path: where the JSON file of a table is going to be; it need not be there.
        protocol: of the table.

    Raises:
        ValueError: if the file is there and is not a table of that protocol.
    """
    source = Path(path)
    if not source.is_file():
        return
    try:
        content = parse_json(source.read_text(encoding="utf-8"))
        found = content["protocol"] if content["format"] == FORMAT else f"a result of format {content['format']}"
    except (ValueError, KeyError, TypeError):
        found = "not a table"
    if found != protocol:
        raise ValueError(f"{source}: is {found}, which a table of {protocol} would replace; change OUTPUT_DIR")


def _plain_cells(cells: Mapping[str, Mapping[str, Figure]]) -> dict[str, dict[str, Any]]:
    return {
        dataset: {metric: asdict(figure) for metric, figure in metrics.items()} for dataset, metrics in cells.items()
    }


Row = Mapping[str, Mapping[str, Figure]] | Mapping[str, Mapping[str, PublishedFigure]]


def _has(row: Row, dataset: str, metric: str) -> bool:
    return dataset in row and metric in row[dataset] and row[dataset][metric].mean is not None


def _text(row: Row, dataset: str, metric: str) -> str:
    if not _has(row, dataset, metric):
        return "-"
    figure = row[dataset][metric]
    return f"{figure.mean:.1f}" if figure.std is None else f"{figure.mean:.1f} ± {figure.std:.1f}"


def _note(note: str) -> str:
    return f" ({note})" if note else ""


def _latex(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(character, character) for character in text)


def _latex_cell(cell: str) -> str:
    return cell.replace(" ± ", r" $\pm$ ") if cell != "-" else "--"
