"""The configuration tree: YAML files with ``_BASE_``, command-line overrides, one-line errors."""

from __future__ import annotations

import difflib
import errno
import os
import stat
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as _FvcoreCfgNode

from slowfast.config.legacy import reason_absent
from slowfast.config.shown import one_line, shown

MAX_FILE_BYTES = 256 << 10
"""A file with every key has some 12 kB."""
MAX_VALUES = 100_000
"""Values of a file once its aliases are written out."""
MAX_INTEGER = 2**63 - 1
"""Larger integers fit neither tensors nor files."""
MAX_LAYERS = 100
"""Files that a configuration may consist of, by _BASE_; a file counts as often as it is named."""

_LEAF_TYPES = (tuple, list, str, int, float, bool, type(None))
_OPTIONAL = "_optional_keys"
_LONGEST_KEY = 200


class ConfigError(ValueError):
    """A mistake in a YAML file or on the command line, told in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class CfgNode(_FvcoreCfgNode):
    """PySlowFast's configuration node, strict about names and types, safe YAML only.

    Merging accepts what yacs accepts (strings that spell a literal, list for tuple and the reverse, anything where the
    default is None) and an int where a float is expected. An empty YAML value leaves a text key empty.
    """

    def merge_from_file(self, cfg_filename: str | Path, allow_unsafe: bool = False) -> None:
        """Merge a YAML file, after the files that its ``_BASE_`` names.

        Args:
            cfg_filename: path of the file; ``_BASE_`` paths are relative to the file that names them.
            allow_unsafe: must stay False; it exists because fvcore has it.

        Raises:
            ConfigError: if a file is missing, is not a mapping of known keys, or holds a value of the wrong type.
        """
        if allow_unsafe:
            raise ConfigError(f"{cfg_filename}: unsafe YAML is not supported; tags such as !!python/object are refused")
        for path, values in yaml_layers(Path(cfg_filename)):
            _merge(values, self, where=str(path))

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Return the content of a YAML file laid over its ``_BASE_`` files, not checked against any key."""
        if allow_unsafe:
            raise ConfigError(f"{filename}: unsafe YAML is not supported; tags such as !!python/object are refused")
        merged: dict[str, Any] = {}
        for _, values in yaml_layers(Path(filename)):
            _overlay(values, merged)
        return merged

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merge another tree, with the checks of :meth:`merge_from_file`."""
        _merge(cfg_other, self, where="")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge ``[KEY, value, KEY, value, ...]`` as written after ``--opts``.

        Raises:
            ConfigError: if a value is missing, a key is unknown or a type is wrong.
        """
        if len(cfg_list) % 2:
            raise ConfigError(f"--opts: expected KEY VALUE pairs, but {shown(cfg_list[-1])} has no value")
        for key, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
            nested: Any = value
            for part in reversed(str(key).split(".")):
                nested = {part: nested}
            _merge(nested, self, where="--opts")

    def leaves(self) -> dict[str, Any]:
        """Return every value under its full dotted name, in order of declaration."""
        return _flatten(self, "")

    def declare_optional(self) -> None:
        """Let every key that is None now be set back to None by later merges, whatever they set it to before."""
        self.__dict__[_OPTIONAL] = frozenset(key for key, value in self.leaves().items() if value is None)

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as plain nested dictionaries."""
        return {key: value.to_dict() if isinstance(value, CfgNode) else value for key, value in self.items()}


def one_of(value: object, allowed: Sequence[object]) -> str:
    """Return the end of an error message: the allowed values, and the one nearest to a mistyped name."""
    names = [choice for choice in allowed if isinstance(choice, str)]
    near = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} allowed: {', '.join(map(repr, allowed))}"


def yaml_layers(path: Path, chain: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Read a YAML file and its ``_BASE_`` files, the most basic one first.

    Args:
        path: the file to read.
        chain: the files that led here, to recognise a cycle.

    Raises:
        ConfigError: if a file cannot be read, is not a mapping, or inherits from itself.
    """
    # not Path.resolve, which raises RuntimeError at a loop of links
    resolved = Path(os.path.realpath(_expanded(path)))
    if resolved in chain:
        names = " -> ".join(step.name for step in (*chain, resolved))
        raise ConfigError(f"{chain[0]}: {BASE_KEY} is cyclic: {names}")
    _refuse_many(len(chain), chain)
    values = _read_yaml(path, named_by=chain[-1] if chain else None)
    bases = values.pop(BASE_KEY, [])
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) and "\0" not in base for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} must be a file name or a list of file names, found {shown(bases)}")
    layers: list[tuple[Path, dict[str, Any]]] = []
    for base in bases:
        layers += yaml_layers(_expanded(path).parent / _expanded(Path(base)), (*chain, resolved))
        _refuse_many(len(layers), (*chain, resolved))
    return [*layers, (path, values)]


def _refuse_many(count: int, chain: Sequence[Path]) -> None:
    if count >= MAX_LAYERS:
        raise ConfigError(f"{chain[0]}: {BASE_KEY} leads to {count} files and more; allowed: {MAX_LAYERS}")


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        return path  # of a user that this machine does not know; there is no such file


def _read_yaml(path: Path, *, named_by: Path | None) -> dict[str, Any]:
    prefix = f"{named_by}: {BASE_KEY}" if named_by else "--cfg"
    try:
        values = _load_yaml(_read_text(_expanded(path)))
    except FileNotFoundError:
        raise ConfigError(f"{prefix}: file not found: {path}") from None
    except OSError as error:
        raise ConfigError(f"{prefix}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except (ValueError, LookupError, AttributeError) as error:
        # what the constructors of PyYAML raise for impossible dates, endless integers and wrong !! tags
        raise ConfigError(f"{path}: a value is not what it looks like ({str(error)[:120]})") from None
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise ConfigError(f"{path}: a config must be a YAML mapping of keys to values, found {found}")
    return values


def _read_text(path: Path) -> str:
    """Read a file; a pipe is none, since reading waits for a writer."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EISDIR) if stat.S_ISDIR(state.st_mode) else "Is not a file")
    if state.st_size > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"has {state.st_size} bytes; allowed: {MAX_FILE_BYTES}")
    return path.read_text(encoding="utf-8-sig")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key occurs once, and aliases neither form a circle nor multiply."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what << names, after a look at the keys that the file itself writes."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"key {shown(key.value)} occurs twice", problem_mark=key.start_mark)
            if name is not None:
                seen.add(name)
        super().flatten_mapping(node)


def _load_yaml(text: str) -> object:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_values(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"aliases (*name) stand for more than {MAX_VALUES} values")
        value: object = loader.construct_document(node)
        return value
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values below a node, those behind an alias as often as it stands."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.YAMLError("an alias (*name) stands inside what it stands for")
        return known[id(node)]
    known[id(node)] = 0
    below = [inner for entry in node.value for inner in (entry if isinstance(entry, tuple) else (entry,))]
    known[id(node)] = 1 + sum(_count_values(inner, known) for inner in below)
    return known[id(node)]


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return "invalid YAML: " + " ".join(str(error).split())


def _overlay(values: Mapping[str, Any], merged: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            _overlay(value, merged[key])
        else:
            merged[key] = value


def _flatten(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _merge(values: Mapping[str, Any], root: CfgNode, *, where: str) -> None:
    """Copy ``values`` into the tree, refusing unknown names and wrong types."""
    if root.is_frozen():
        raise AttributeError("this config is frozen; merge before freezing it")
    prefix = f"{where}: " if where else ""
    optional: frozenset[str] = root.__dict__.get(_OPTIONAL, frozenset())

    def visit(source: Mapping[str, Any], target: CfgNode, path: tuple[str, ...]) -> None:
        for name, value in source.items():
            full_key = ".".join((*path, str(name)))
            if name not in target:
                raise ConfigError(prefix + _unknown_key(full_key, value, root))
            current = target[name]
            if isinstance(current, CfgNode):
                section = _literal(value)
                if not isinstance(section, Mapping):
                    raise ConfigError(
                        f"{prefix}{full_key}: expected a section with keys below it, found {shown(value)}"
                    )
                visit(section, current, (*path, str(name)))
            elif full_key in optional and _literal(value) is None:
                target[name] = None
            else:
                target[name] = _coerce(value, current, fail=_type_error(prefix + full_key, current))

    visit(values, root, ())


def _unknown_key(full_key: str, value: object, root: CfgNode) -> str:
    while isinstance(value, Mapping) and value:  # no recursion: --opts may name any number of sections
        name, value = next(iter(value.items()))
        full_key = f"{full_key}.{name}"
    full_key = full_key if len(full_key) <= _LONGEST_KEY else f"{full_key[:_LONGEST_KEY]}..."
    absent = reason_absent(full_key)
    if absent is not None:
        return f"{full_key}: {absent} (found {shown(value)})"
    return f"{full_key}: unknown key (found {shown(value)}){_nearest(full_key, list(root.leaves()))}"


def _nearest(full_key: str, known: Sequence[str]) -> str:
    """Name the nearest known key: the same name in another section, else a similar full name or last part."""
    upper = full_key.upper()
    last = upper.rpartition(".")[2]
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = [upper] if upper in known else [by_last[last]] if last in by_last else []
    near = near or difflib.get_close_matches(upper, known, n=1, cutoff=0.75)
    near = near or [by_last[match] for match in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.75)]
    near = near or difflib.get_close_matches(upper, known, n=1, cutoff=0.3)
    return f"; nearest key: {near[0]}" if near else ""


def _type_error(where: str, current: object) -> Callable[[object], ConfigError]:
    def fail(value: object) -> ConfigError:
        return ConfigError(f"{where}: expected {type(current).__name__}, found {shown(value)} ({type(value).__name__})")

    return fail


def _literal(value: object) -> object:
    """Evaluate a string that spells a Python literal, as yacs does; "1e-5" is how YAML files write 1.0e-5."""
    if not isinstance(value, str):
        return value
    try:
        return literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _coerce(value: object, current: object, *, fail: Callable[[object], ConfigError]) -> object:
    literal = _literal(value)
    if isinstance(current, str):
        if literal is None:
            return ""
        if isinstance(value, str):
            # A text key keeps text that happens to spell a number; quotes around a literal string come off.
            return literal if isinstance(literal, str) else value
        raise fail(value)
    if type(literal) not in _LEAF_TYPES:
        raise fail(literal)
    if current is None or type(literal) is type(current):
        return literal
    if isinstance(current, float) and type(literal) is int and abs(literal) <= MAX_INTEGER:
        return float(literal)
    if isinstance(current, list | tuple) and isinstance(literal, list | tuple):
        return type(current)(literal)
    raise fail(literal)
