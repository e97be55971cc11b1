"""Sections of a page on what was run: facts, warnings, configuration. Secrets are replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from slowfast.config.redaction import redact
from slowfast.report.html_element import Markup, element, join, name_of, table
from slowfast.report.html_results import Named, members, place
from slowfast.report.run_folder import Evaluation, Run

MOST_MISSING = 500
_SHOWN_MISSING = 10
_SECRET_KEY = re.compile(r"(?:^|[._])(?:API_?KEY|ACCESS_?KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$", re.IGNORECASE)
_FACTS = {
    "weights": "weights",
    "weights_sha256": "sha256 of the weights file",
    "model_sha256": "sha256 of the scored tensors",
    "config_sha256": "sha256 of the configuration",
    "git_revision": "git revision",
    "seed": "seed",
}


def hide(text: str, *, key: str = "") -> str:
    """Text without API keys, tokens and passwords; all of it if the key is the name of a secret."""
    if _SECRET_KEY.search(key) and text not in ('""', "null", "false"):
        return "***"
    return redact(text)


def facts_section(runs: Sequence[Named]) -> Markup:
    """What each run was; rows in which runs differ are marked."""
    rows: dict[str, list[Markup]] = {}
    for named in runs:
        for title, value in _facts(named.run).items():
            rows.setdefault(title, [Markup("")] * len(runs))[named.style] = value
    body = []
    for title, cells in rows.items():
        differ = len(runs) > 1 and len(set(cells)) > 1 and title not in ("folder", "files written")
        body.append(
            element("tr", element("th", title, scope="row"), *(element("td", cell or "\u2013") for cell in cells),
                    class_="differs" if differ else None)
        )  # fmt: skip
    return element("section", element("h2", "Runs", id="runs"), table(["", *(name_of(n.name) for n in runs)], body))


def _facts(run: Run) -> dict[str, Markup]:
    tests = [evaluation for part in run.members() for evaluation in part.evaluations]
    first, last = (date.strftime("%Y-%m-%d %H:%M") for date in run.dates)
    facts = {
        "folder": element("code", name_of(str(run.folder))),
        "files written": join([f"{first} UTC" if first == last else f"{first} to {last} UTC"]),
        "holds": join([_contents(run)]),
    }
    protocols = [run.table.protocol if run.table else "", *(test.protocol for test in tests)]
    lists: dict[str, list[str]] = {
        "protocol": protocols,
        "dataset": [test.dataset for test in tests] + list(run.table.ours.cells if run.table else ()),
        **{title: [test.facts.get(key, "") for test in tests] for key, title in _FACTS.items()},
    }
    for title, values in lists.items():
        kept = list(dict.fromkeys(value for value in values if value))
        if not kept and title == "dataset":
            kept = [run.config["DATA.PATH_TO_DATA_DIR"]] if "DATA.PATH_TO_DATA_DIR" in run.config else []
        if kept:
            facts[title] = _values(kept, code="sha256" in title or title in ("weights", "git revision"))
    versions: dict[str, dict[str, None]] = {}
    for test in tests:
        for package, version in test.versions.items():
            versions.setdefault(package, {})[version] = None
    if versions:
        facts["versions"] = join([", ".join(f"{package} {' and '.join(found)}" for package, found in versions.items())])
    return facts


def _contents(run: Run) -> str:
    parts = []
    if run.table:
        parts.append("table")
    if run.jobs:
        parts.append(f"{len(run.jobs)} jobs")
    epochs = max((points[-1][0] for part in run.members() for points in part.curves.values()), default=0)
    if epochs:
        parts.append(f"training up to epoch {epochs:g}")
    splits = sum(len(test.splits) for part in run.members() for test in part.evaluations)
    parts.append(f"{splits} tested split(s)" if splits else "no test results yet")
    return ", ".join(parts)


def _values(values: Sequence[str], *, code: bool) -> Markup:
    shown = [hide(value) for value in values]
    lines = [element("code", name_of(value)) if code else name_of(value) for value in shown[:4]]
    if len(shown) > 4:
        lines.append(Markup(f"and {len(shown) - 4} more"))
    return join(element("div", line) for line in lines)


def warnings_section(runs: Sequence[Named]) -> Markup | None:
    """What a reader must know before the numbers; None if nothing is wrong."""
    parts = members(runs)
    tests = [(named.name, evaluation) for named in parts for evaluation in named.run.evaluations]
    items = [item for name, evaluation in tests for item in _lost_videos(name, evaluation)]
    items += [item for name, evaluation in tests for item in _unlike_lists(name, evaluation)]
    for named in parts:
        if named.run.jobs and named.run.table is None:
            items.append(element("li", name_of(named.name), ": the table is not finished, it has no results.json yet"))
        items += [element("li", name_of(named.name), ": ", name_of(hide(line))) for line in named.run.damages]
    dirty = dict.fromkeys(name for name, test in tests if test.facts.get("git_revision", "").endswith("-dirty"))
    if dirty:
        names = join(part for name in dirty for part in (", ", name_of(name)))[len(", ") :]
        items.append(element("li", "Made by code with changes that no commit holds: ", Markup(names)))
    if not items:
        return None
    return element(
        "section", element("h2", "\u26a0 Read this first"), element("ul", *items), class_="warnings", id="warnings"
    )


def _where(name: str, evaluation: Evaluation) -> Markup:
    names = [name_of(part) for part in dict.fromkeys((name, place(evaluation)))]
    return join([names[0], *([", ", names[1]] if len(names) > 1 else [])])


def _lost_videos(name: str, evaluation: Evaluation) -> list[Markup]:
    where = _where(name, evaluation)
    scored, listed = evaluation.num_scored, evaluation.num_videos
    if scored is not None and listed is not None and scored < listed:
        lost = f"Coverage {100 * scored / listed:.2f} %: {listed - scored} of {listed} videos were not scored"
        rest = ". Its accuracies are over the others."
        return [element("li", element("strong", lost), " in ", where, rest, _missing(evaluation.missing))]
    if evaluation.missing:
        lost = f"{len(evaluation.missing)} videos are missing"
        return [element("li", element("strong", lost), " in ", where, _missing(evaluation.missing))]
    return []


def _unlike_lists(name: str, evaluation: Evaluation) -> list[Markup]:
    """Splits that are not the published ones, and splits that hold training videos."""
    items = []
    for split in evaluation.splits:
        of_split = join([_where(name, evaluation), ", split ", name_of(split.name), ": "])
        if split.num_official is not None and split.num_videos is not None and split.num_official != split.num_videos:
            unlike = f"{split.num_videos} videos listed, {split.num_official} in the official list"
            items.append(element("li", of_split, element("strong", unlike)))
        if trained := evaluation.metrics.get(f"{split.name}_trained_on"):
            items.append(element("li", of_split, element("strong", f"{trained:g} of its videos were trained on")))
    return items


def _missing(lines: Sequence[str]) -> Markup | None:
    if not lines:
        return None
    kept = [element("li", name_of(hide(line))) for line in lines[:MOST_MISSING]]
    more = len(lines) - len(kept)
    tail = element("p", f"and {more} more in results.json") if more > 0 else None
    title = f"the {len(lines)} videos" if len(lines) > 1 else "the video"
    return element(
        "details",
        element("summary", title),
        element("ul", *kept, class_="files"),
        tail,
        open=len(lines) <= _SHOWN_MISSING,
    )


def config_section(runs: Sequence[Named], defaults: Mapping[str, str]) -> Markup | None:
    """Whole configurations, folded; None if no run has one."""
    configured = [named for named in members(runs) if named.run.config]
    if not configured:
        return None
    parts: list[Markup | None] = []
    for named in configured:
        config = named.run.config
        changed = [key for key, value in config.items() if key in defaults and defaults[key] != value]
        rows = [_entry(key, config[key], marked=key in changed) for key in config]
        own = [_entry(key, config[key], default=defaults[key]) for key in changed]
        parts += [
            element(
                "details",
                element(
                    "summary", name_of(named.name), f": {len(changed)} of {len(rows)} keys differ from the defaults"
                ),
                table(["key", "value", "default"], own),
            )
            if defaults
            else None,
            element(
                "details",
                element("summary", name_of(named.name), f": all {len(rows)} keys"),
                table(["key", "value"], rows),
            ),
        ]
    return element("section", element("h2", "Configuration", id="configuration"), *parts)


def differences_section(runs: Sequence[Named]) -> Markup | None:
    """Keys in which configurations differ; None where there are no two to compare."""
    configured = [named for named in members(runs) if named.run.config]
    if len(configured) < 2:
        return None
    return element("section", element("h2", "Differences in configuration", id="differences"), _differences(configured))


def _differences(configured: Sequence[Named]) -> Markup:
    keys = dict.fromkeys(key for named in configured for key in named.run.config)
    rows = []
    for key in keys:
        values = [named.run.config.get(key) for named in configured]
        if len(set(values)) > 1:
            cells = [_value_cell(key, value) for value in values]
            rows.append(element("tr", element("th", element("code", key), scope="row"), *cells))
    if not rows:
        return element("p", f"The {len(configured)} configurations are equal in all {len(keys)} keys.")
    caption = f"{len(rows)} of {len(keys)} keys differ"
    return table(["key", *(name_of(named.name) for named in configured)], rows, class_="sortable", caption=caption)


def _entry(key: str, value: str, *, marked: bool = False, default: str | None = None) -> Markup:
    cells = [_value_cell(key, value)] + ([_value_cell(key, default)] if default is not None else [])
    return element("tr", element("th", element("code", key), scope="row"), *cells, class_="differs" if marked else None)


def _value_cell(key: str, value: str | None) -> Markup:
    return element("td", "\u2013" if value is None else element("code", name_of(hide(value, key=key))))
