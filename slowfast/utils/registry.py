"""Tables of names that import only what was chosen."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any


def resolve(table: Mapping[str, str], name: str, *, key: str) -> Any:  # noqa: ANN401 (a class or a function)
    """Import the object that a table gives for a name.

    Args:
        table: name -> "package.module:Attribute".
        name: what the user asked for.
        key: the configuration key it came from, for the error.

    Returns: the attribute.

    Raises:
        ValueError: if the table lacks the name; the nearest name is proposed.
    """
    if name not in table:
        near = difflib.get_close_matches(str(name), table, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"{key}: unknown value {name!r}{hint} allowed: {sorted(table)}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
