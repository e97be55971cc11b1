"""Pictures of a run: the learning curve and the confusion matrix. Needs the extra `plot` (matplotlib)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slowfast.utils.io import atomic_writer

_PREFIX = "json_stats: "
_COLOURS = ("#1f5fa8", "#d9731a", "#3a8f4d", "#8a4fa3")


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningCurve:
    """What one run's json_stats.log says about its training; x values are epochs passed."""

    loss: tuple[tuple[float, float], ...]
    val_top1: tuple[tuple[float, float], ...]
    """Epochs passed -> accuracy on the validation split, percent."""


def read_learning_curve(path: str | Path) -> LearningCurve:
    """Read the training loss and the validation accuracy from a json_stats.log.

    Args:
        path: the file that a run leaves in its OUTPUT_DIR.

    Raises:
        ValueError: if the file is missing or a line of it is not JSON.
    """
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"{source}: no such file; a training run writes it to its OUTPUT_DIR")
    loss: dict[float, float] = {}
    accuracy: dict[float, float] = {}
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()  # a run that was killed may have left a part of a line
    for number, line in enumerate(lines, start=1):
        try:
            stats = json.loads(line[line.find("{") :])
        except ValueError as error:
            raise ValueError(f"{source}, line {number}: not a json_stats line ({error})") from error
        kind = stats.get("_type")
        if kind == "train_epoch":
            # An epoch that was computed again after an interruption has two lines; the last one counts.
            loss[_epochs_passed(stats)] = float(stats["loss"])
        elif kind == "val_epoch":
            accuracy[_epochs_passed(stats)] = 100.0 - float(stats["top1_err"])
    return LearningCurve(loss=tuple(loss.items()), val_top1=tuple(accuracy.items()))


def _epochs_passed(stats: Mapping[str, Any]) -> float:
    return float(str(stats["epoch"]).split("/")[0])


def confusion_percent(counts: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Confusion matrix in percent of each true class.

    Args:
        counts: videos by true class (row) and predicted class (column), (K, K).

    Returns:
        The shares, (K, K). A class without videos has a row of zeros.
    """
    shares: NDArray[np.float64] = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def quickstart_picture(
    path: str | Path,
    *,
    curves: Mapping[str, LearningCurve],
    bars: Mapping[str, float],
    matrix: NDArray[np.float64],
    class_names: Sequence[str],
    chance: float,
) -> Path:
    """Draw the learning curves, the accuracies of the tests and the confusion matrix side by side.

    Args:
        path: the PNG to write.
        curves: name of a run -> its curve.
        bars: name of a test -> top-1, percent.
        matrix: as `confusion` gives it, (K, K).
        class_names: names of the K classes.
        chance: top-1 of guessing, percent.

    Returns:
        The file.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(f"{path}: pictures need matplotlib; install the extra: pip install '.[plot]'") from error
    figure = Figure(figsize=(15, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        "Quickstart on MotionShapes: zero-shot recognition of unseen shape-motion combinations", fontsize=14
    )
    panels: Any = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    upper, lower = panels[0].subplots(2, 1, height_ratios=(1.25, 1))
    _draw_curves(upper, curves)
    _draw_bars(lower, bars, chance)
    _draw_confusion(panels[1], matrix, class_names)
    target = Path(path)
    with atomic_writer(target) as file:
        figure.savefig(file, dpi=110, format=target.suffix[1:])
    return target


def _draw_curves(axes: Any, curves: Mapping[str, LearningCurve]) -> None:  # noqa: ANN401 - matplotlib is optional
    accuracy = axes.twinx()
    for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
        if curve.loss:
            axes.plot(*zip(*curve.loss, strict=True), color=colour, label=f"{name}: training loss")
        if curve.val_top1:
            x, y = zip(*curve.val_top1, strict=True)
            accuracy.plot(x, y, "o--", color=colour, markersize=4, label=f"{name}: validation top-1")
    axes.set(title="Learning curves (seen classes)", xlabel="epoch", ylabel="training loss (nats)")
    accuracy.set(ylabel="validation top-1 (%)", ylim=(0, 100))
    handles = [axes.get_legend_handles_labels(), accuracy.get_legend_handles_labels()]
    axes.legend(
        handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], fontsize=8, loc="upper center", ncols=2,
        framealpha=0.9,
    )  # fmt: skip
    axes.margins(y=0.25)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)


def _draw_bars(axes: Any, bars: Mapping[str, float], chance: float) -> None:  # noqa: ANN401
    names, values = list(bars), list(bars.values())
    drawn = axes.barh(names, values, color=_COLOURS[0])
    axes.bar_label(drawn, fmt="%.1f %%", padding=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(chance, color="black", linestyle=":", label=f"chance, {chance:.1f} %")
    axes.axvline(3 * chance, color="black", linestyle="--", label=f"three times chance, {3 * chance:.1f} %")
    axes.invert_yaxis()
    axes.set(title="Zero-shot test on unseen classes", xlabel="top-1 (%)", xlim=(0, 110))
    axes.legend(fontsize=8, loc="lower right")


def _draw_confusion(figure: Any, matrix: NDArray[np.float64], class_names: Sequence[str]) -> None:  # noqa: ANN401
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, class_names)
    for row in ticks:
        for column in ticks:
            shade = "white" if matrix[row, column] > 50 else "black"
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", color=shade, fontsize=9)
    axes.set(title="STDD, averaged weights: confusion on unseen classes", xlabel="predicted", ylabel="true class")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class (%)")
