import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from slowfast.config.shown import shown
from slowfast.utils.io import parse_json, read_text

MAX_FILE_BYTES = 16 << 20
"""Names of ten thousand classes take half a megabyte."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no file takes


@dataclass(frozen=True)
class LabelSet:
    """Ordered class names of one split.

    Attributes:
        names: class names; row k of a classifier scores `names[k]`.
        ids: global class ids, one per name; the identity unless the split is a subset of a larger label set.
        source: class file that the names were read from, where it was one; further texts about the classes lie near it.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    source: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("LabelSet: needs at least one class name, found none")
        if len(self.names) != len(self.ids):
            raise ValueError(f"LabelSet: {len(self.names)} names but {len(self.ids)} ids")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("LabelSet: the class ids are not unique")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_names(cls, names: list[str] | tuple[str, ...], *, source: Path | None = None) -> "LabelSet":
        """Number the names 0 to K-1 in their order."""
        return cls(names=tuple(names), ids=tuple(range(len(names))), source=source)

    @classmethod
    def from_json(cls, path: str | Path) -> "LabelSet":
        """Read an index-to-name file: one JSON object with the keys "0" to "K-1".

        Args:
            path: the file that DATA.INDEX_LABEL_MAPPING_FILE names.

        Raises:
            ValueError: one line naming the file and the first offending key.
        """
        mapping = _read_mapping(Path(path))
        names = []
        for index in range(len(mapping)):
            if str(index) not in mapping:
                expected = {str(number) for number in range(len(mapping))}
                unexpected = next(key for key in mapping if key not in expected)
                raise ValueError(
                    f'{path}: key "{index}" is missing; {len(mapping)} classes need the keys "0" to '
                    f'"{len(mapping) - 1}", found {shown(unexpected)} instead'
                )
            name = mapping[str(index)]
            if not isinstance(name, str) or not name.strip() or _SURROGATE.search(name):
                raise ValueError(f'{path}: key "{index}": expected a class name, found {shown(name)}')
            names.append(name)
        return cls.from_names(names, source=Path(path))


def class_key(name: str) -> str:
    """What two spellings of a class have in common: its letters and digits, whatever the case.

    "ApplyEyeMakeup", "apply_eye_makeup" and "Apply Eye Makeup" have the same key, as have "Closing [something]" and
    "Closing something".

    Args:
        name: a class name, or a folder named after a class.
    """
    return "".join(character for character in unicodedata.normalize("NFKC", name).casefold() if character.isalnum())


def _read_mapping(path: Path) -> dict[str, object]:
    text = read_text(path, what="label file", max_bytes=MAX_FILE_BYTES)
    try:
        mapping = parse_json(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from error
    except _RepeatedKeyError as error:
        raise ValueError(f'{path}: key "{shown(error.args[0])[1:-1]}" occurs twice') from error
    if not isinstance(mapping, dict) or not mapping:
        found = "an empty object" if isinstance(mapping, dict) else type(mapping).__name__
        raise ValueError(f'{path}: expected a JSON object {{"0": "name", ...}}, found {found}')
    return mapping


class _RepeatedKeyError(Exception):
    pass


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping: dict[str, object] = {}
    for key, value in pairs:
        if key in mapping:
            raise _RepeatedKeyError(key)
        mapping[key] = value
    return mapping
