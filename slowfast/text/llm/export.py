"""From records to the files of label_db, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slowfast.datasets.label_set import LabelSet
from slowfast.text.llm.records import (
    DESCRIPTOR_RECORDS,
    ActionGraph,
    ClassRecord,
    Descriptors,
    ExtendedPrompts,
    RephrasedName,
    Triple,
)
from slowfast.text.prompt_bank import (
    MAX_FILE_BYTES,
    Edge,
    GraphEntry,
    PromptEntry,
    read_class_file,
    read_graphs,
    read_prompts,
    write_graphs,
    write_prompts,
)
from slowfast.utils.io import atomic_write_text

DescriptorEntry = tuple[tuple[str, ...], tuple[str, ...]]
"""Spatial and temporal descriptors of a class."""


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Read class names in label order from ``classes_label_<dataset>.yml`` or an index-to-name JSON file.

    Raises:
        ValueError: if the file cannot be read.
    """
    if Path(path).suffix == ".json":
        names = LabelSet.from_json(path).names
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path}: class {twice!r} occurs twice")
        return names
    return read_class_file(path).classes


def graph_entry(record: ActionGraph) -> GraphEntry:
    """A graph as the YAML writer takes it."""
    return GraphEntry(
        objects=record.objects,
        object_triples=_edges(record.object_triples),
        action_triples=_edges(record.action_triples),
        sub_actions=record.sub_actions,
        sub_action_triples=_edges(record.sub_action_triples),
    )


def graph_record(name: str, entry: GraphEntry) -> ActionGraph:
    """A graph of a file as a checked record.

    Raises:
        ValueError: if the entry breaks a rule (pydantic's ValidationError).
    """
    return ActionGraph(
        name=name,
        objects=entry.objects,
        object_triples=_triples(entry.object_triples),
        action_triples=_triples(entry.action_triples),
        sub_actions=entry.sub_actions,
        sub_action_triples=_triples(entry.sub_action_triples),
    )


def prompt_entry(record: ExtendedPrompts) -> PromptEntry:
    """Sentence tails as the YAML writer takes them."""
    return PromptEntry(
        object_tails=record.object_tails, action_tails=record.action_tails, sub_action_tails=record.sub_action_tails
    )


def prompt_record(name: str, entry: PromptEntry) -> ExtendedPrompts:
    """Sentence tails of a file as a checked record.

    Raises:
        ValueError: if the entry breaks a rule (pydantic's ValidationError).
    """
    return ExtendedPrompts(
        name=name,
        object_tails=entry.object_tails,
        action_tails=entry.action_tails,
        sub_action_tails=entry.sub_action_tails,
    )


def rephrased_record(name: str, text: str) -> RephrasedName:
    """The text ``Name: sentence`` of a file as a checked record.

    Raises:
        ValueError: if the entry breaks a rule (pydantic's ValidationError).
    """
    return RephrasedName(name=name, sentence=text.removeprefix(f"{name}: "))


def descriptor_record(name: str, entry: DescriptorEntry, *, count: int = 4) -> Descriptors:
    """Descriptors of two files, `count` of each kind, as a checked record.

    Raises:
        ValueError: if the entry breaks a rule (pydantic's ValidationError).
    """
    return DESCRIPTOR_RECORDS[count](name=name, spatial=entry[0], temporal=entry[1])


def descriptor_files(count: int) -> tuple[str, str]:
    """Where OST's layout has `count` descriptors of each kind: the spatial ones, the temporal ones."""
    return f"spatio_descriptors/{count}_descriptors.json", f"temporal_descriptors/{count}_descriptors.json"


def read_rephrased(path: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Read ``Name: sentence`` by class name; classes may be absent.

    Raises:
        ValueError: if the file is of another form or belongs to other classes.
    """
    texts = {}
    for name, text in _read_labelled(path, names).items():
        if not isinstance(text, str):
            raise ValueError(f"{path}: {name}: expected a text, found {type(text).__name__}")
        if not text.startswith(f"{name}: "):
            raise ValueError(f"{path}: label {names.index(name)} is {name!r}, found {text[:60]!r}")
        texts[name] = text
    return texts


def read_descriptors(folder: str | Path, names: Sequence[str], *, count: int = 4) -> dict[str, DescriptorEntry]:
    """Read the files of `count` descriptors by class name; classes may be absent.

    Raises:
        ValueError: if a file is of another form, or one has classes that the other lacks.
    """
    spatial, temporal = (_read_lists(Path(folder) / file, names) for file in descriptor_files(count))
    if alone := sorted(set(spatial) ^ set(temporal)):
        raise ValueError(f"{folder}: {alone[0]!r} has spatial or temporal descriptors, not both")
    return {name: (spatial[name], temporal[name]) for name in spatial}


def write_rephrased(path: str | Path, records: Sequence[RephrasedName]) -> None:
    """Write ``{"0": "Name: sentence", ...}``, the format of FROSTER and TC-CLIP.

    Args:
        path: the file.
        records: of all classes, in label order.
    """
    write_from_records(path, records, names=[record.name for record in records])


def write_descriptors(folder: str | Path, records: Sequence[Descriptors]) -> None:
    """Write ``{"0": [texts], ...}`` for both kinds, in OST's layout.

    Args:
        folder: gets ``spatio_descriptors`` and ``temporal_descriptors``, each with ``4_descriptors.json``, or the
            number that the records have.
        records: of all classes, in label order; of one type.
    """
    write_from_records(folder, records, names=[record.name for record in records])


def write_from_records(path: str | Path, records: Iterable[ClassRecord], *, names: Sequence[str]) -> None:
    """Write records of one type to the file (for descriptors: the folder) of their stage, whole or not at all.

    Args:
        path: where to.
        records: one per class, in any order.
        names: all classes in label order.

    Raises:
        ValueError: if a class has none or two, or a record is of a class that is not listed.
    """
    by_name: dict[str, ClassRecord] = {}
    for record in records:
        if record.name in by_name:
            raise ValueError(f"{path}: class {record.name!r} has two records")
        by_name[record.name] = record
    if missing := [name for name in names if name not in by_name]:
        raise ValueError(f"{path}: {len(missing)} of {len(names)} classes have no record, the first is {missing[0]!r}")
    if extra := [name for name in by_name if name not in names]:
        raise ValueError(f"{path}: class {extra[0]!r} is not in the list of classes")
    store = STORES[type(next(iter(by_name.values())))]
    store.write(path, {name: store.entry(by_name[name]) for name in names}, names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """Where the records of a stage are kept.

    Attributes:
        exists: whether there is something to read at a path.
        read: entries by class name, of those classes that are there; takes a path and all names in label order.
        write: takes a path, entries by class name, and all names in label order.
        entry: of a record.
        record: of a class name and an entry; raises ValueError if a rule is broken.
    """

    exists: Callable[[Path], bool]
    read: Callable[[Path, Sequence[str]], dict[str, Any]]
    write: Callable[[str | Path, Mapping[str, Any], Sequence[str]], None]
    entry: Callable[[Any], Any]
    record: Callable[[str, Any], ClassRecord]


def _in_order(entries: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: entries[name] for name in names if name in entries}


def _write_rephrased_texts(path: str | Path, texts: Mapping[str, str], names: Sequence[str]) -> None:
    _write_labelled(path, texts, names)


def _descriptor_store(count: int) -> Store:
    files = descriptor_files(count)

    def write(folder: str | Path, entries: Mapping[str, DescriptorEntry], names: Sequence[str]) -> None:
        for number, file in enumerate(files):
            _write_labelled(Path(folder) / file, {name: entry[number] for name, entry in entries.items()}, names)

    return Store(
        exists=lambda folder: any((folder / file).exists() for file in files),
        read=partial(read_descriptors, count=count),
        write=write,
        entry=lambda record: (record.spatial, record.temporal),
        record=partial(descriptor_record, count=count),
    )


STORES: dict[type[ClassRecord], Store] = {
    ActionGraph: Store(
        exists=Path.exists,
        read=lambda path, names: _of_listed(path, read_graphs(path), names),
        write=lambda path, entries, names: write_graphs(path, _in_order(entries, names)),
        entry=graph_entry,
        record=graph_record,
    ),
    ExtendedPrompts: Store(
        exists=Path.exists,
        read=lambda path, names: _of_listed(path, read_prompts(path), names),
        write=lambda path, entries, names: write_prompts(path, _in_order(entries, names)),
        entry=prompt_entry,
        record=prompt_record,
    ),
    RephrasedName: Store(
        exists=Path.exists,
        read=read_rephrased,
        write=_write_rephrased_texts,
        entry=lambda record: record.text,
        record=rephrased_record,
    ),
    **{record: _descriptor_store(count) for count, record in DESCRIPTOR_RECORDS.items()},
}


def _edges(triples: Iterable[Triple]) -> tuple[Edge, ...]:
    return tuple((triple.head, triple.relation, triple.tail) for triple in triples)


def _triples(edges: Iterable[Edge]) -> tuple[Triple, ...]:
    return tuple(Triple(head=head, relation=relation, tail=tail) for head, relation, tail in edges)


def _of_listed(path: str | Path, entries: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    if extra := [name for name in entries if name not in names]:
        raise ValueError(f"{path}: class {extra[0]!r} is not in the list of classes")
    return entries


def _write_labelled(path: str | Path, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """A JSON object by label number; an absent class leaves its number out."""
    content = {str(label): values[name] for label, name in enumerate(names) if name in values}
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _read_labelled(path: str | Path, names: Sequence[str]) -> dict[str, Any]:
    """Values of a JSON object by class name."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{file}: has {file.stat().st_size} bytes; allowed: {MAX_FILE_BYTES}")
    try:
        pairs = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({' '.join(str(error).split())})") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError(f"{file}: expected a JSON object with label numbers as keys")
    by_label = {str(label): name for label, name in enumerate(names)}
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key not in by_label:
            raise ValueError(f'{file}: key {key!r} is not one of "0" to "{len(names) - 1}"')
        if by_label[key] in values:
            raise ValueError(f"{file}: key {key!r} occurs twice")
        values[by_label[key]] = value
    return values


def _read_lists(path: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    lists = {}
    for name, texts in _read_labelled(path, names).items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}: {name}: expected a list of texts")
        lists[name] = tuple(texts)
    return lists
