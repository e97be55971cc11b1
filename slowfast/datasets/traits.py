"""What is special about a dataset: `label_db/<dataset>/dataset.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

_FILE = "dataset.yaml"


@dataclass(frozen=True, kw_only=True)
class DatasetTraits:
    """Facts about a dataset that runs depend on; a dataset without the file has the defaults.

    Attributes:
        title: its name in tables.
        mirror: a mirrored video still shows its class.
        scored: "val" where published figures are those of the validation videos, else "test".
    """

    title: str
    mirror: bool = True
    scored: str = "test"

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title:
            raise ValueError(f"title is {self.title!r}; expected a name")
        if not isinstance(self.mirror, bool):
            raise ValueError(f"mirror is {self.mirror!r}; allowed: true, false")
        if self.scored not in ("val", "test"):
            raise ValueError(f"scored is {self.scored!r}; allowed: val, test")


def read_traits(folder: str | Path) -> DatasetTraits:
    """Read the traits of a dataset.

    Args:
        folder: `label_db/<dataset>`.

    Raises:
        ValueError: if the file is not usable.
    """
    path = Path(folder) / _FILE
    if not path.is_file():
        return DatasetTraits(title=Path(folder).name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a mapping, found {type(content).__name__}")
        known = [field.name for field in fields(DatasetTraits)]
        if unknown := sorted(set(content) - set(known)):
            raise ValueError(f"unknown entries {unknown}; allowed: {known}")
        return DatasetTraits(**{"title": path.parent.name, **content})
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
