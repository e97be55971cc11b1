"""The text files of label_db: class lists, knowledge graphs and extended prompts, in STDD's published YAML layout.

Written here and by hand; read with limits, since a file may come from anywhere. Classes are matched by name, never by
their place in a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slowfast.utils.io import atomic_write_text

MAX_FILE_BYTES = 32 << 20
"""A file of a thousand classes takes about three megabytes."""

Edge = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFile:
    """Class names in label order, and the templates that go with them (``classes_label_<dataset>.yml``)."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphEntry:
    """The knowledge graph of one class (an entry of ``classes_ASKG_<dataset>.yml``)."""

    objects: tuple[str, ...]
    object_triples: tuple[Edge, ...]
    action_triples: tuple[Edge, ...]
    sub_actions: tuple[str, ...]
    sub_action_triples: tuple[Edge, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptEntry:
    """The sentence tails of one class (an entry of ``classes_xprompt_<dataset>.yml``)."""

    object_tails: tuple[str, ...]
    action_tails: tuple[str, ...]
    sub_action_tails: tuple[str, ...]

    def mixed(self) -> tuple[str, ...]:
        """All tails in a fixed order, each once."""
        return tuple(dict.fromkeys((*self.object_tails, *self.action_tails, *self.sub_action_tails)))


# Published names of the entries, in the order in which they are written, and our own.
_GRAPH_LISTS = {"obj_en_li": "objects", "sub_act_en_li": "sub_actions"}
_GRAPH_TRIPLES = {
    "obj_rel_triples": "object_triples",
    "act_obj_triples": "action_triples",
    "act_rel_triples": "sub_action_triples",
}
_GRAPH_KEYS = ("obj_en_li", "obj_rel_triples", "act_obj_triples", "sub_act_en_li", "act_rel_triples")
_PROMPT_KEYS = {"xprompt_oo": "object_tails", "xprompt_ao": "action_tails", "xprompt_aa": "sub_action_tails"}


class _Loader(yaml.SafeLoader):
    """Plain data without aliases, which can blow up, and without keys that occur twice: YAML would keep the last."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that occurs twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_class_file(path: str | Path) -> ClassFile:
    """Read class names and templates.

    Raises:
        ValueError: if the file is absent or its content is of another form.
    """
    content = _read_mapping(path)
    classes, templates = (_texts(content.get(key), where=f"{path}: {key}") for key in ("classes", "templates"))
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise ValueError(f"{path}: classes: {twice!r} occurs twice")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"{path}: templates: {template!r} must have one {{}} for the class name")
    return ClassFile(classes=classes, templates=templates)


def read_graphs(path: str | Path) -> dict[str, GraphEntry]:
    """Read knowledge graphs by class name.

    Raises:
        ValueError: if the file is absent or its content is of another form.
    """
    graphs = {}
    for name, entry in _read_entries(path, keys=_GRAPH_KEYS).items():
        lists = {own: _texts(entry[key], where=f"{path}: {name}: {key}") for key, own in _GRAPH_LISTS.items()}
        triples = {
            own: tuple(
                _edge(text, where=f"{path}: {name}: {key}")
                for text in _texts(entry[key], where=f"{path}: {name}: {key}")
            )
            for key, own in _GRAPH_TRIPLES.items()
        }
        graphs[name] = GraphEntry(
            objects=lists["objects"],
            object_triples=triples["object_triples"],
            action_triples=triples["action_triples"],
            sub_actions=lists["sub_actions"],
            sub_action_triples=triples["sub_action_triples"],
        )
    return graphs


def read_prompts(path: str | Path) -> dict[str, PromptEntry]:
    """Read sentence tails by class name.

    Raises:
        ValueError: if the file is absent or its content is of another form.
    """
    prompts = {}
    for name, entry in _read_entries(path, keys=tuple(_PROMPT_KEYS)).items():
        tails = {own: _texts(entry[key], where=f"{path}: {name}: {key}") for key, own in _PROMPT_KEYS.items()}
        prompts[name] = PromptEntry(**tails)
    return prompts


def write_class_file(path: str | Path, file: ClassFile) -> None:
    """Write class names and templates."""
    content = {"classes": list(file.classes), "templates": list(file.templates), "obj_templates": []}
    atomic_write_text(path, _dump(content))


def write_graphs(path: str | Path, graphs: Mapping[str, GraphEntry]) -> None:
    """Write knowledge graphs, in the order of the mapping."""
    entries = {}
    for name, graph in graphs.items():
        lists = {key: list(getattr(graph, own)) for key, own in _GRAPH_LISTS.items()}
        lists |= {key: [f"<{', '.join(edge)}>" for edge in getattr(graph, own)] for key, own in _GRAPH_TRIPLES.items()}
        entries[name] = {"label": name, **{key: lists[key] for key in _GRAPH_KEYS}}
    atomic_write_text(path, _dump(entries))


def write_prompts(path: str | Path, prompts: Mapping[str, PromptEntry]) -> None:
    """Write sentence tails, in the order of the mapping."""
    entries = {
        name: {"label": name, **{key: list(getattr(entry, own)) for key, own in _PROMPT_KEYS.items()}}
        for name, entry in prompts.items()
    }
    atomic_write_text(path, _dump(entries))


def _dump(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120)


def _parse(text: str) -> Any:  # noqa: ANN401 - YAML
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _read_mapping(path: str | Path) -> dict[Any, Any]:
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{file}: has {file.stat().st_size} bytes; allowed: {MAX_FILE_BYTES}")
    try:
        content = _parse(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {type(content).__name__}; expected a mapping")
    return content


def _read_entries(path: str | Path, *, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Entries by class name; each is a mapping with ``label``, which is not used, and the given keys."""
    content = _read_mapping(path)
    for name, entry in content.items():
        if not isinstance(name, str):
            raise ValueError(f"{path}: key {name!r} is not a class name")
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {name}: holds {type(entry).__name__}; expected a mapping")
        missing = [key for key in keys if key not in entry]
        if missing:
            raise ValueError(f"{path}: {name}: {missing[0]} is missing")
        extra = [key for key in entry if key not in (*keys, "label")]
        if extra:
            raise ValueError(f"{path}: {name}: unknown entry {extra[0]!r}; allowed: label, {', '.join(keys)}")
    return content


def _texts(value: object, *, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: expected a list of texts, found {value!r:.60}")
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise ValueError(f"{where}: {item!r} is not a text")
    return tuple(value)


def _edge(text: str, *, where: str) -> Edge:
    parts = [part.strip() for part in text.strip().removeprefix("<").removesuffix(">").split(",")]
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"{where}: {text!r} is not a triple <a, relation, b>")
    return parts[0], parts[1], parts[2]
