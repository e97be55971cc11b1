"""What a case of the corpus of bad input is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Expected = Literal["error", "skip", "reads", "any"]
"""One line and the end of the run; a counted skip; read, with the right numbers; any of these, for random damage."""

KINDS = {
    "video": "Videos",
    "annotation": "Annotation files",
    "labels": "Label maps",
    "features": "Files of text features",
    "weights": "Checkpoints and weights",
    "config": "Configuration files",
}
"""Kind of a case, and its title in the report."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad or odd input.

    Attributes:
        id: `<kind>/<name>`, stable.
        text: what is wrong with it, one sentence.
        expected: what must come of it.
        write: makes it in a folder of its own and returns the path to read; what it is given never depends on time.
        frames: of a video that is read: how many frames it has; None if a plain decode says.
        numbered: of a video: frame n shows the number n.
        relative: of a video: read it by its name alone, from its folder.
        original: of a damaged video: makes the whole one, whose frames the damaged one may give.
        separator: of an annotation file, DATA.PATH_LABEL_SEPARATOR.
        rows: of an annotation file that is read: its (path, label) rows.
        names: of a label map that is read: its class names.
        message: part of the line that comes of it, where that matters.
        settings: of a configuration that is read: values of some keys.
    """

    id: str
    text: str
    expected: Expected
    write: Callable[[Path], Path]
    frames: int | None = None
    numbered: bool = False
    relative: bool = False
    original: Callable[[Path], Path] | None = None
    separator: str = ","
    rows: tuple[tuple[str, int], ...] = ()
    names: tuple[str, ...] = ()
    message: str = ""
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def kind(self) -> str:
        """A key of KINDS."""
        return self.id.partition("/")[0]
