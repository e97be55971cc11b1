"""One HTML page about runs, that needs no other file, no network and no script to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slowfast.report.html_classes import classes_section
from slowfast.report.html_config import config_section, differences_section, facts_section, warnings_section
from slowfast.report.html_element import Markup, element, join, name_of
from slowfast.report.html_frames import FrameAlbum
from slowfast.report.html_results import Named, curves_section, scores_section, table_section
from slowfast.report.html_style import SCRIPT, STYLE, content_policy
from slowfast.report.run_folder import Run

MAX_FRAMES = 60
MAX_PAIRS = 6
_ABSENT = {
    "accuracy": "No accuracies: no run of this page was tested yet (no results.json).",
    "curves": "No learning curves: no run of this page holds a finished training epoch (json_stats.log).",
    "classes": "Nothing on single classes: there are no splits/*/per_class.csv and confusion.csv.",
    "configuration": "No configuration: there is no config.yaml.",
}
_TITLES = {
    "warnings": "Warnings",
    "runs": "Runs",
    "differences": "Differences",
    "table": "Table",
    "accuracy": "Accuracy",
    "curves": "Learning curves",
    "classes": "Classes",
    "configuration": "Configuration",
}


def build_page(
    runs: Sequence[Run],
    *,
    defaults: Mapping[str, str] | None = None,
    max_frames: int = MAX_FRAMES,
    max_pairs: int = MAX_PAIRS,
) -> str:
    """Write the page.

    Args:
        runs: at least one; they stand side by side in this order.
        defaults: dotted key -> default value, beside which a configuration is shown.
        max_frames: pictures of videos in all.
        max_pairs: confused pairs per split.

    Returns: the HTML document.
    """
    names = run_names([run.folder for run in runs])
    named = [
        Named(name=name, run=run, style=number) for number, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    album = FrameAlbum(max_frames)
    sections = {
        "warnings": warnings_section(named),
        "runs": facts_section(named),
        "differences": differences_section(named),
        "table": table_section(named),
        "accuracy": scores_section(named),
        "curves": curves_section(named),
        "classes": classes_section(named, album, max_pairs=max_pairs),
        "configuration": config_section(named, defaults or {}),
    }
    present = [key for key, section in sections.items() if section is not None]
    absent = [element("p", text, class_="absent") for key, text in _ABSENT.items() if key not in present]
    title = names[0] if len(names) == 1 else f"{len(names)} runs side by side"
    body = [
        element(
            "header",
            element("h1", name_of(title)),
            element("p", "Report of slowfast-stdd", class_="lead"),
            element("nav", *(element("a", _TITLES[key], href=f"#{key}") for key in present)),
        ),
        element("main", sections.pop("warnings"), *absent, *sections.values()),
        element(
            "footer",
            f"Frames of videos in this page: {album.num_images}, of at most {max_frames}; videos that gave none: "
            f"{album.num_failed}. The page loads nothing from elsewhere.",
        ),
    ]
    return _document(title, body)


def run_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell the folders apart."""
    parts = [folder.absolute().parts for folder in folders]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        names = ["/".join(part[-length:]) or "/" for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _document(title: str, body: Sequence[Markup]) -> str:
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=content_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{title} \u2013 slowfast-stdd"),
        element("style", Markup(STYLE)),
    ]
    script = element("script", Markup(SCRIPT))
    page = element("html", element("head", *head), element("body", join(body), script), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"
