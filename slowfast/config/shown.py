"""Values and texts of others in messages of ours: one line, and a short one."""

from __future__ import annotations

import reprlib

_MOST_CHARACTERS = 120
_MOST_ENTRIES = 16
_MOST_IN_ALL = 400
_MOST_BITS = 256  # Python refuses to print integers of more than 4300 digits


class _Short(reprlib.Repr):
    """repr() whose length does not depend on how large a value is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = _MOST_CHARACTERS
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = _MOST_ENTRIES

    def repr_int(self, x: int, level: int) -> str:
        """An integer, unless it is very long."""
        del level
        return repr(x) if x.bit_length() <= _MOST_BITS else f"an integer of {x.bit_length()} bits"


_short = _Short()


def shown(value: object) -> str:
    """Write a value for a message, in a bounded number of characters whatever it is.

    Args:
        value: anything, also what refers to itself or stands for very many values.
    """
    text = _short.repr(value)
    return text if len(text) <= _MOST_IN_ALL else f"{text[:_MOST_IN_ALL]}..."


def one_line(text: str) -> str:
    """Escape line breaks, control characters and what is not Unicode, which names of files may hold.

    Args:
        text: a message; a printable one stays as it is.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
