"""Names that stay inside a folder, judged by their text alone; no file is looked at."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath


def escape_of(name: str) -> str:
    """Say how a path would leave the folder that it is joined to.

    A path is judged as POSIX and as Windows read it, whichever runs, so that a list is good or bad everywhere. `a/../b`
    stays inside. `~` is a name like any other: nothing here expands it. What a symbolic link inside the folder points
    to is the choice of the folder's owner.

    Args:
        name: a relative path, or what should be one.

    Returns:
        "" for a path that stays inside, else the reason, to follow the path in an error message.
    """
    if "\0" in name:
        return "holds a NUL byte"
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return "is an absolute path"
    depth = 0
    for part in windows.parts:  # Windows knows both separators
        depth += -1 if part == ".." else 1
        if depth < 0:
            return "climbs out with '..'"
    return ""


def is_plain_name(name: str) -> bool:
    """Whether a text names one file or folder of a given place: no separator, no drive, not "." or ".."."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and not PureWindowsPath(name).drive
