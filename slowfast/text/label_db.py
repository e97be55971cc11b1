"""Checks the text files of label_db against each other and against the records of `llm`. Needs the extra `llm`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slowfast.datasets.label_set import LabelSet, class_key
from slowfast.text.class_lists import check_halves
from slowfast.text.llm.records import CONTEXT_TOKENS, ActionGraph, Descriptors, ExtendedPrompts, RephrasedName, Triple
from slowfast.text.prompt_bank import Edge, GraphEntry, PromptEntry, read_class_file, read_graphs, read_prompts
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.io import parse_json

MAX_SHARED_TAILS = 0.01
"""Share of a dataset's tails that may occur with more than one class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetTexts:
    """What label_db should have of a dataset."""

    name: str
    num_classes: int
    has_graphs: bool = True
    """Graphs and extended prompts."""
    is_part: bool = False
    """Whether ``<name>/index2cls.json`` lists more classes than have texts; these may be rephrased split by split."""
    cuts_names: bool = False
    """Whether lists of some of its classes shorten names, so that two may be the same."""


DATASETS = (
    DatasetTexts(name="k400", num_classes=400),
    DatasetTexts(name="k600", num_classes=217, is_part=True),
    DatasetTexts(name="ucf101", num_classes=101),
    DatasetTexts(name="hmdb51", num_classes=51),
    DatasetTexts(name="ssv2", num_classes=174, has_graphs=False, cuts_names=True),
)


@dataclass(slots=True)
class DatasetReport:
    """What was found: figures by title, and faults, one line each."""

    name: str
    figures: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def check_dataset(root: str | Path, dataset: DatasetTexts) -> DatasetReport:
    """Check the files of one dataset.

    Args:
        root: the folder of texts.
        dataset: what it should hold.
    """
    folder, report = Path(root), DatasetReport(name=dataset.name)
    names = _guarded(report, lambda: LabelSet.from_json(folder / f"{dataset.name}-index2cls.json").names)
    if names is None:
        return report
    report.figures["classes"] = str(len(names))
    report.faults += _check_class_list(folder, dataset, names)
    if dataset.has_graphs:
        _check_graphs_and_prompts(report, folder, names)
    covered = _check_parts(report, folder / dataset.name, dataset)
    _check_episodic(report, folder / dataset.name, names)
    report.faults += check_halves(folder / dataset.name)
    rephrased = folder / dataset.name / "rephrased.json"
    if dataset.is_part and not rephrased.is_file():
        report.faults += [
            f"{rephrased.parent}: no list has {name!r} rephrased" for name in names if name not in covered
        ]
    else:
        sentences = _check_rephrased(report, rephrased, names)
        counts = Counter(sentences)
        report.faults += [
            f"{rephrased}: {name!r} has the sentence of another class"
            for name, sentence in zip(names, sentences, strict=False)
            if counts[sentence] > 1
        ]
    _check_descriptors(report, folder / dataset.name / "descriptors", names)
    return report


def _check_class_list(folder: Path, dataset: DatasetTexts, names: Sequence[str]) -> Iterator[str]:
    path = folder / f"{dataset.name}-index2cls.json"
    if len(names) != dataset.num_classes:
        yield f"{path}: has {len(names)} classes; expected {dataset.num_classes}"
    yield from _repeated(path, names)
    label_file, twin = folder / f"classes_label_{dataset.name}.yml", folder / dataset.name / "index2cls.json"
    lists: list[tuple[Path, Callable[[], Sequence[str]]]] = [(label_file, lambda: read_class_file(label_file).classes)]
    if twin.is_file():
        lists.append((twin, lambda: LabelSet.from_json(twin).names))
    for file, read in lists:
        try:
            found = read()
            if file == twin and dataset.is_part:
                found = [name for name in found if name in names]
            yield from _misaligned(file, found, names)
        except ValueError as error:
            yield str(error)


def _check_graphs_and_prompts(report: DatasetReport, folder: Path, names: Sequence[str]) -> None:
    graph_file, prompt_file = (folder / f"classes_{kind}_{report.name}.yml" for kind in ("ASKG", "xprompt"))
    graphs: dict[str, GraphEntry] = _guarded(report, lambda: read_graphs(graph_file)) or {}
    prompts: dict[str, PromptEntry] = _guarded(report, lambda: read_prompts(prompt_file)) or {}
    if graphs:
        report.faults += _misaligned(graph_file, list(graphs), names)
    if prompts:
        report.faults += _misaligned(prompt_file, list(prompts), names)
    for name, graph in graphs.items():
        _guarded(report, lambda: graph_record(name, graph), where=f"{graph_file}: {name}")  # noqa: B023 - called at once
    for name, entry in prompts.items():
        where = f"{prompt_file}: {name}"
        record = _guarded(report, lambda: prompt_record(name, entry), where=where)  # noqa: B023 - called at once
        if record is not None and name in graphs:
            report.faults += [f"{where}: {fault}" for fault in _unequal(entry, graphs[name])]
    if graphs:
        report.figures |= _graph_figures(list(graphs.values()))
    if prompts:
        _check_tails(report, prompt_file, prompts)
        label_file = folder / f"classes_label_{report.name}.yml"
        templates = _guarded(report, lambda: read_class_file(label_file).templates) if label_file.is_file() else None
        if templates:
            _check_lengths(report, prompt_file, prompts, templates)


def graph_record(name: str, graph: GraphEntry) -> ActionGraph:
    """The checked record of a graph read from a file."""

    def triples(edges: Sequence[Edge]) -> tuple[Triple, ...]:
        return tuple(Triple(head=head, relation=relation, tail=tail) for head, relation, tail in edges)

    return ActionGraph(
        name=name,
        objects=graph.objects,
        object_triples=triples(graph.object_triples),
        action_triples=triples(graph.action_triples),
        sub_actions=graph.sub_actions,
        sub_action_triples=triples(graph.sub_action_triples),
    )


def prompt_record(name: str, entry: PromptEntry) -> ExtendedPrompts:
    """The checked record of the tails read from a file."""
    return ExtendedPrompts(
        name=name,
        object_tails=entry.object_tails,
        action_tails=entry.action_tails,
        sub_action_tails=entry.sub_action_tails,
    )


def _unequal(entry: PromptEntry, graph: GraphEntry) -> Iterator[str]:
    for kind in ("object", "action", "sub_action"):
        tails, triples = len(getattr(entry, f"{kind}_tails")), len(getattr(graph, f"{kind}_triples"))
        if tails != triples:
            yield f"{kind}_tails: has {tails} entries for {triples} triples"


def _graph_figures(graphs: Sequence[GraphEntry]) -> dict[str, str]:
    titles = {
        "objects": "objects",
        "sub_actions": "steps",
        "object_triples": "oo",
        "action_triples": "ao",
        "sub_action_triples": "aa",
    }
    return {title: f"{sum(len(getattr(g, kind)) for g in graphs) / len(graphs):.1f}" for kind, title in titles.items()}


def _check_tails(report: DatasetReport, file: Path, prompts: Mapping[str, PromptEntry]) -> None:
    classes = Counter(tail for entry in prompts.values() for tail in entry.mixed())
    shared = {tail for tail, count in classes.items() if count > 1}
    total = classes.total()
    among_several = sum(classes[tail] for tail in shared) / total
    report.figures |= {"tails": str(total), "own tails": f"{100 * (1 - among_several):.2f} %"}
    if among_several > MAX_SHARED_TAILS:
        report.faults.append(
            f"{file}: {100 * among_several:.1f} % of the tails occur with several classes, such as {min(shared)!r}; "
            f"allowed: {100 * MAX_SHARED_TAILS:.0f} %"
        )


def _check_lengths(
    report: DatasetReport, file: Path, prompts: Mapping[str, PromptEntry], templates: Sequence[str]
) -> None:
    tokenizer = Tokenizer()

    def lengths(texts: Sequence[str]) -> list[int]:
        return (tokenizer(texts, context_length=8 * CONTEXT_TOKENS).argmax(dim=-1) + 1).tolist()

    longest = max(zip(lengths([template.replace("{}", "x") for template in templates]), templates, strict=True))[1]
    texts = [(name, f"{name}, {tail}") for name, entry in prompts.items() for tail in entry.mixed()]
    found = lengths([longest.replace("{}", text) for _, text in texts])
    report.figures["longest"] = f"{max(found)} tokens"
    report.faults += [
        f"{file}: {name}: {text!r} makes a prompt of {length} tokens; allowed: {CONTEXT_TOKENS}"
        for (name, text), length in zip(texts, found, strict=True)
        if length > CONTEXT_TOKENS
    ]


def _check_rephrased(report: DatasetReport, file: Path, names: Sequence[str]) -> list[str]:
    """Check "Name: sentence" for each class; returns the sentences."""
    texts = _guarded(report, lambda: LabelSet.from_json(file).names)
    if texts is None:
        return []
    report.faults += _misaligned(file, [text.partition(":")[0] for text in texts], names)
    sentences = [text.partition(":")[2].removeprefix(" ") for text in texts]
    for text, sentence in zip(texts, sentences, strict=True):
        name = text.partition(":")[0]
        make = lambda: RephrasedName(name=name, sentence=sentence)  # noqa: E731, B023 - called at once
        _guarded(report, make, where=f"{file}: {name}")
    report.figures["rephrased"] = str(int(report.figures.get("rephrased", "0")) + len(texts))
    return sentences


def _check_descriptors(report: DatasetReport, folder: Path, names: Sequence[str]) -> None:
    kinds = {}
    for kind in ("spatio", "temporal"):
        file = folder / f"{kind}_descriptors" / "4_descriptors.json"
        content = _guarded(report, lambda: _read_lists(file))  # noqa: B023 - called at once
        if content is None:
            return
        expected = [str(number) for number in range(len(names))]
        if list(content) != expected:
            wrong = next((a for a, b in zip(content, expected, strict=False) if a != b), "the last key")
            report.faults.append(
                f'{file}: has {len(content)} keys, not "0" to "{len(names) - 1}" in order: see {wrong!r}'
            )
            return
        kinds[kind] = content
    for number, name in enumerate(names):
        spatial, temporal = (tuple(kinds[kind][str(number)]) for kind in ("spatio", "temporal"))
        make = lambda: Descriptors(name=name, spatial=spatial, temporal=temporal)  # noqa: E731, B023 - called at once
        _guarded(report, make, where=f"{folder}: {number} {name}")
    report.figures["descriptors"] = str(sum(len(texts) for kind in kinds.values() for texts in kind.values()))


def _check_parts(report: DatasetReport, folder: Path, dataset: DatasetTexts) -> set[str]:
    """Check the lists of some of the classes, of zero-shot splits and base-to-novel halves; returns those classes."""
    covered: set[str] = set()
    made = (folder / "splits", folder / "episodic")
    lists = sorted(path for path in folder.rglob("*_index2cls.json") if not set(made) & set(path.parents))
    for file in lists:
        names = _guarded(report, lambda: LabelSet.from_json(file).names)  # noqa: B023 - called at once
        if names is None:
            continue
        if not dataset.cuts_names:
            report.faults += _repeated(file, names)
        _check_rephrased(report, file.with_name(file.name.replace("_index2cls", "_rephrased")), names)
        covered |= set(names)
    report.figures["partial lists"] = str(len(lists))
    return covered


def _check_episodic(report: DatasetReport, folder: Path, names: Sequence[str]) -> None:
    """Check the class splits of episodic few-shot learning, which keep the spelling of their source."""
    known = {class_key(name) for name in names}
    lists = sorted(folder.glob("episodic/*/*_index2cls.json"))
    benchmarks: dict[Path, dict[str, Path]] = {}
    for file in lists:
        found = _guarded(report, lambda: LabelSet.from_json(file).names) or ()  # noqa: B023 - called at once
        report.faults += _repeated(file, found)
        taken = benchmarks.setdefault(file.parent, {})
        for name in found:
            key = class_key(name)
            if key not in known:
                report.faults.append(f"{file}: {name!r} is not a class")
            elif taken.setdefault(key, file) != file:
                report.faults.append(f"{file}: class {name!r} is in {taken[key].name} too")
    report.figures["episodic lists"] = str(len(lists))


def _repeated(file: Path, names: Sequence[str]) -> Iterator[str]:
    counts = Counter(name.casefold() for name in names)
    yield from (f"{file}: class {name!r} occurs {count} times" for name, count in counts.items() if count > 1)


def _misaligned(file: Path, found: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Say which classes a file lacks, has too much or has in another place."""
    missing, extra = [n for n in names if n not in found], [n for n in found if n not in names]
    yield from (f"{file}: class {name!r} is missing" for name in missing)
    yield from (f"{file}: {name!r} is not a class" for name in extra)
    if not missing and not extra and list(found) != list(names):
        number, (a, b) = next((i, pair) for i, pair in enumerate(zip(found, names, strict=False)) if pair[0] != pair[1])
        yield f"{file}: not in label order: has {a!r} for label {number}, which is {b!r}"


def _read_lists(file: Path) -> dict[str, list[str]]:
    """Read a JSON object of lists of texts."""
    try:
        content = parse_json(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {type(content).__name__}; expected an object of lists")
    for key, texts in content.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{file}: {key}: is not a list of texts")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"key {twice[0]!r} occurs twice")
    return dict(pairs)


def _guarded(report: DatasetReport, make: Callable[[], Any], *, where: str = "") -> Any:  # noqa: ANN401 - what make makes
    """Call something; a ValueError becomes a fault and None."""
    try:
        return make()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        report.faults.append(": ".join(part for part in (where, place, message) if part))
    except ValueError as error:
        report.faults.append(": ".join(part for part in (where, str(error)) if part))
    return None
