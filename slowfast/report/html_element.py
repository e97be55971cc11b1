"""HTML and SVG elements whose text is escaped by construction, so that no class name or path becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterable

_VOID = frozenset({"meta", "img", "br", "col"})
_REPLACED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_SPECIAL = re.compile("[&<>\"']")
# Control characters, surrogates of undecodable file names and non-characters have no place in a page.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"


class Markup(str):
    """Text that is markup already; every other string is escaped where it enters an element."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Make text safe inside an element and inside a quoted attribute; markup stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(_SPECIAL.sub(lambda found: _REPLACED[found[0]], _FORBIDDEN.sub("\ufffd", str(value))))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Write an element.

    Args:
        tag: its name.
        children: markup, or text that is escaped; None is left out.
        attributes: values are escaped; None and False leave an attribute out, True gives it without a value. A trailing
            underscore is dropped from the name (`class_`), other underscores become hyphens.
    """
    opening = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        plain = name.rstrip("_").replace("_", "-")
        opening.append(plain if value is True else f'{plain}="{escape(value)}"')
    start = f"<{' '.join(opening)}>"
    return Markup(start) if tag in _VOID else Markup(f"{start}{join(children)}</{tag}>")


def join(parts: Iterable[object]) -> Markup:
    """Write parts one after the other: markup, or text that is escaped; None is left out."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def name_of(text: str) -> Markup:
    """A name from outside, which may be written from right to left without disturbing its surroundings."""
    return element("bdi", text)


def isolated(text: str) -> str:
    """The same for tooltips, which hold no elements."""
    return f"{_FIRST_STRONG_ISOLATE}{text}{_POP_ISOLATE}"


def shorten(text: str, length: int) -> str:
    """A name of at most so many characters, with an ellipsis where its end was cut."""
    return text if len(text) <= length else text[: max(1, length - 1)].rstrip() + "\u2026"


def table(header: Iterable[object], rows: Iterable[Markup], *, class_: str = "", caption: object = None) -> Markup:
    """A table in a box that scrolls sideways where the window is narrow.

    Args:
        header: titles, or `th` elements.
        rows: `tr` elements.
        class_: more classes of the table ("sortable").
        caption: text above the table.
    """
    titles = [cell if isinstance(cell, Markup) and cell.startswith("<th") else heading(cell) for cell in header]
    content = element("table", element("thead", element("tr", *titles)), element("tbody", *rows), class_=class_ or None)
    text = element("p", caption, class_="note") if caption is not None else None
    return join([text, element("div", content, class_="scroll")])


def heading(text: object, *, number: bool = False, **attributes: object) -> Markup:
    """Title of a column; titles of numbers stand flush right."""
    return element("th", text, class_="number" if number else None, scope="col", **attributes)


def number_cell(value: float | None, text: object = None, *, class_: str = "number") -> Markup:
    """A cell with a number, which tables are sorted by; "-" for None."""
    shown = text if text is not None else ("\u2013" if value is None else f"{value:.2f}")
    return element("td", shown, class_=class_, data_value="" if value is None else f"{value:.6g}")
