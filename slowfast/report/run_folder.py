"""What lies in the folder of a run, read as far as it is there.

A folder may be half finished or of an older version: what is absent stays None or empty, what is damaged becomes a line
of `Run.damages`. Only a folder that holds nothing of a run is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from slowfast.report.run_tables import ClassScore, Confusion, read_class_scores, read_confusion
from slowfast.utils.io import parse_json
from slowfast.utils.logging import JSON_STATS_FILE

RESULTS_FORMATS = ("slowfast-stdd/results/1", "slowfast-stdd/results/2")
TABLE_FORMAT = "slowfast-stdd/table/1"
CONFIG_FILE = "config.yaml"
SPLITS_FOLDER, JOBS_FOLDER = "splits", "jobs"
FACTS = ("weights", "weights_sha256", "model_sha256", "patching_ratio", "config_sha256", "git_revision", "seed")
_NOT_CURVES = {"dt", "dt_data", "dt_net", "gpu_mem", "RAM", "eta", "epoch", "top1_err", "top5_err"}

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Scores of one annotation file.

    Attributes:
        name: as the protocol calls it.
        metrics: "top1_acc", "top5_acc", "mean_class_acc", percent, as far as they were written.
        num_videos, num_scored: videos listed, videos scored.
        num_classes: K.
        num_official: videos that the published list has.
        classes: one entry per class, in the order of the labels.
        confusion: counts.
        predictions: the file of them.
    """

    name: str
    metrics: Mapping[str, float]
    num_videos: int | None = None
    num_scored: int | None = None
    num_classes: int | None = None
    num_official: int | None = None
    classes: tuple[ClassScore, ...] = ()
    confusion: Confusion | None = None
    predictions: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One results.json.

    Attributes:
        variant: what its file name adds, e.g. "3views".
        metrics: summary over the splits.
        facts: entry of FACTS -> text.
        versions: package -> version.
    """

    variant: str
    protocol: str
    dataset: str
    metrics: Mapping[str, float]
    splits: tuple[Split, ...]
    num_videos: int | None
    num_scored: int | None
    missing: tuple[str, ...]
    facts: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A cell of a table: mean and population standard deviation, percent."""

    mean: float | None
    std: float | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a table: dataset -> metric -> figure."""

    name: str
    source: str
    cells: Mapping[str, Mapping[str, Figure]]
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """What tools/run_protocol.py measured, and the published rows beside it.

    Attributes:
        titles: dataset -> how to write it, in the order of the columns.
        columns: metric -> how to write it, likewise.
        variants: further rows of ours: the same weights with other shares of raw CLIP.
    """

    protocol: str
    ours: Row
    published: tuple[Row, ...]
    variants: tuple[Row, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """All that a folder tells.

    Attributes:
        folder: where.
        dates: first and last modification of its files.
        config: dotted key -> value as text.
        curves: name of a scalar -> (epochs passed, value).
        evaluations: of this folder, not of its jobs.
        jobs: test and training runs of a table.
        damages: what could not be read, one line each.
    """

    folder: Path
    dates: tuple[datetime, datetime]
    config: Mapping[str, str]
    curves: Mapping[str, Points]
    evaluations: tuple[Evaluation, ...]
    table: Table | None = None
    jobs: tuple[Run, ...] = ()
    damages: tuple[str, ...] = ()

    def members(self) -> Iterator[Run]:
        """The run and its jobs."""
        yield self
        for job in self.jobs:
            yield from job.members()


def read_run(folder: str | Path) -> Run:
    """Read the folder of a run of tools/run_net.py or tools/run_protocol.py.

    Raises:
        ValueError: if the folder does not exist or holds nothing of a run.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; expected an OUTPUT_DIR")
    results = sorted(root.glob("results*.json"))
    files = [path for path in (root / CONFIG_FILE, root / JSON_STATS_FILE, *results) if path.is_file()]
    job_folders = sorted(path for path in root.glob(f"{JOBS_FOLDER}/*") if path.is_dir())
    if not files and not job_folders:
        expected = f"{CONFIG_FILE}, {JSON_STATS_FILE}, results.json or {JOBS_FOLDER}/"
        raise ValueError(f"{root}: not the folder of a run; expected {expected}")
    damages: list[str] = []
    table, evaluations = None, []
    weights: str | None = None
    for path in results:  # results.json comes first
        content = _read_json(path, damages)
        own = str(content.get("weights_sha256", ""))
        weights = own if weights is None else weights
        if content.get("format") == TABLE_FORMAT:
            table = parse_table(content)
        elif content and own != weights:
            damages.append(f"{path}: is of other weights than {results[0].name}, from an earlier test; left out")
        elif content:
            evaluations.append(parse_evaluation(content, path, damages))
    jobs = tuple(run for path in job_folders if (run := _read_job(path, damages)) is not None)
    times = [path.stat().st_mtime for path in files] or [root.stat().st_mtime]
    return Run(
        folder=root,
        dates=(_date(min(times)), _date(max(times))),
        config=_read_config(root / CONFIG_FILE, damages),
        curves=_read_curves(root / JSON_STATS_FILE, damages),
        evaluations=tuple(evaluations),
        table=table,
        jobs=jobs,
        damages=tuple(damages),
    )


def parse_evaluation(content: Mapping[str, Any], path: Path, damages: list[str]) -> Evaluation:
    """Read the content of a results.json of any known format, leniently.

    Args:
        content: the JSON object.
        path: the file; the class files lie beside it.
        damages: gets a line for what is not understood.
    """
    if content.get("format") not in RESULTS_FORMATS:
        damages.append(f"{path}: format is {content.get('format')!r}, expected one of {list(RESULTS_FORMATS)}")
    suffix = path.stem.removeprefix("results")
    metrics = _numbers(content.get("metrics"))
    entries = content.get("splits")
    if not isinstance(entries, Mapping):  # results/1: one split, whose scores are the metrics
        entries = {str(content.get("split", "test")): {**content, **metrics}}
    folder = path.parent / f"{SPLITS_FOLDER}{suffix}"
    names = [*entries, *(entry.name for entry in sorted(folder.glob("*/")) if entry.name not in entries)]
    splits = tuple(_parse_split(name, entries.get(name, {}), folder, damages) for name in names)
    missing = content.get("missing")
    return Evaluation(
        variant=suffix.strip("_"),
        protocol=str(content.get("protocol", "")),
        dataset=str(content.get("dataset", "")),
        metrics=metrics,
        splits=splits,
        num_videos=_count(content.get("num_videos")),
        num_scored=_count(content.get("num_scored")),
        missing=tuple(map(str, missing)) if isinstance(missing, list) else (),
        facts={name: str(content[name]) for name in FACTS if content.get(name) not in (None, "")},
        versions={str(name): str(value) for name, value in _mapping(content.get("versions")).items()},
    )


def parse_table(content: Mapping[str, Any]) -> Table:
    """Read the content of the results.json of a table, leniently."""
    return Table(
        protocol=str(content.get("protocol", "")),
        ours=_parse_row(content),
        published=_parse_rows(content.get("published")),
        variants=_parse_rows(content.get("variants")),
        titles={str(key): str(title) for key, title in _mapping(content.get("titles")).items()},
        columns={str(key): str(title) for key, title in _mapping(content.get("columns")).items()},
    )


def _parse_rows(entries: object) -> tuple[Row, ...]:
    rows = [_mapping(entry) for entry in entries] if isinstance(entries, list) else []
    return tuple(_parse_row(row) for row in rows if row)


def _parse_row(content: Mapping[str, Any]) -> Row:
    cells = {}
    for dataset, metrics in _mapping(content.get("cells")).items():
        cells[str(dataset)] = {str(metric): _parse_figure(cell) for metric, cell in _mapping(metrics).items()}
    texts = {key: str(content.get(key) or "") for key in ("name", "source", "note")}
    return Row(**texts, cells=cells)


def _parse_figure(cell: object) -> Figure:
    entries = _mapping(cell) or {"mean": cell}
    values = entries.get("values")
    numbers = [_number(value) for value in values] if isinstance(values, list) else []
    return Figure(
        mean=_number(entries.get("mean")),
        std=_number(entries.get("std")),
        values=tuple(value for value in numbers if value is not None),
    )


def _parse_split(name: str, entry: object, splits_folder: Path, damages: list[str]) -> Split:
    values = _mapping(entry)
    folder = splits_folder / name
    inside = folder.resolve().is_relative_to(splits_folder.resolve())
    predictions = folder / "predictions.csv"
    scores = {key: number for key in ("top1_acc", "top5_acc", "mean_class_acc") if (number := _number(values.get(key)))
              is not None}  # fmt: skip
    return Split(
        name=name,
        metrics=scores,
        num_videos=_count(values.get("num_videos")),
        num_scored=_count(values.get("num_scored")),
        num_classes=_count(values.get("num_classes")),
        num_official=_count(values.get("num_official")),
        classes=read_class_scores(folder / "per_class.csv", damages) if inside else (),
        confusion=read_confusion(folder / "confusion.csv", damages) if inside else None,
        predictions=predictions if inside and predictions.is_file() else None,
    )


def _read_job(folder: Path, damages: list[str]) -> Run | None:
    try:
        return read_run(folder)
    except ValueError as error:
        damages.append(str(error))
        return None


def _read_json(path: Path, damages: list[str]) -> Mapping[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        damages.append(f"{path}: not JSON ({error})")
        return {}
    if not isinstance(content, dict):
        damages.append(f"{path}: holds {type(content).__name__}, expected an object")
        return {}
    return content


def _read_config(path: Path, damages: list[str]) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        damages.append(f"{path}: not YAML ({' '.join(str(error).split())})")
        return {}
    return flatten(content) if isinstance(content, dict) else {}


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text, in the order of the tree."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            flat[f"{prefix}{key}"] = value or '""'
        else:
            flat[f"{prefix}{key}"] = json.dumps(value, default=str, ensure_ascii=False)
    return flat


def _read_curves(path: Path, damages: list[str]) -> dict[str, Points]:
    """Scalars per epoch; where a resumed run repeats an epoch, the later line counts and what followed is dropped."""
    if not path.is_file():
        return {}
    curves: dict[str, dict[float, float]] = {}
    broken, lost = 0, set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            stats = _mapping(json.loads(line[max(0, line.find("{")) :]))
            epoch = float(str(stats.get("epoch", "nan")).split("/")[0])
        except (ValueError, RecursionError):
            broken += bool(line.strip())
            continue
        for name, value in _scalars(stats):
            if value is None:
                lost.add(name)
            curve = curves.setdefault(name, {})
            for later in [known for known in curve if known >= epoch]:
                del curve[later]
            if value is not None:
                curve[epoch] = value
    if broken:
        damages.append(f"{path}: {broken} line(s) are not JSON and were left out")
    if lost:
        damages.append(f"{path}: values that are not finite were left out of {', '.join(sorted(lost))}")
    return {name: tuple(sorted(curve.items())) for name, curve in curves.items() if curve}


def _scalars(stats: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    kind = stats.get("_type")
    if kind in ("train_epoch", "val_epoch"):
        error = _number(stats.get("top1_err"))
        if error is not None:
            yield ("train_top1" if kind == "train_epoch" else "val_top1"), 100.0 - error
    if kind == "train_epoch":
        for name, value in stats.items():
            number = _number(value)
            if name not in _NOT_CURVES and (value is None or number is not None):
                yield name, number


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(value: object) -> dict[str, float]:
    return {str(name): number for name, entry in _mapping(value).items() if (number := _number(entry)) is not None}


def _number(value: object) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
