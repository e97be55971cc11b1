import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from slowfast.config.paths import escape_of
from slowfast.config.shown import shown
from slowfast.utils.io import read_text

MAX_FILE_BYTES = 256 << 20
"""The lists of Kinetics-700, half a million videos, have some 40 MB."""

MAX_ROW_CHARACTERS = 8192
"""No file system takes paths of more than 4096 bytes."""

MAX_LABEL_DIGITS = 18
"""Labels are stored in 64 bits."""

_LABEL = re.compile(r"-?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"[0-9.]*", re.ASCII)


class VideoRecord(NamedTuple):
    """One row of an annotation file.

    Attributes:
        path: the video file, prefix included.
        label: index into the split's LabelSet.
        line: line number in the file, from 1.
    """

    path: str
    label: int
    line: int = 0


def read_annotations(
    csv: str | Path,
    *,
    prefix: str = "",
    separator: str = " ",
    num_classes: int | None = None,
    allow_outside: bool = False,
) -> list[VideoRecord]:
    """Read `path<SEP>label` rows without a header.

    A row of three fields is `path, number, label`, of which the number may be empty and is ignored. Where no row has
    more than one field, all labels are 0 (unlabelled videos). Blank lines are skipped, spaces around fields do not
    count, line ends of any kind and a byte order mark are read. A video may have several rows, of one label. Row
    numbers of the result are the video ids used everywhere else.

    Args:
        csv: the annotation file.
        prefix: joined before each path (DATA.PATH_PREFIX).
        separator: DATA.PATH_LABEL_SEPARATOR.
        num_classes: labels must lie in [0, num_classes); None skips the check.
        allow_outside: take paths that leave the prefix, absolute ones as they are (DATA.ALLOW_ABSOLUTE_PATHS).

    Raises:
        ValueError: one line naming the file and the line.
    """
    if not separator:
        raise ValueError("DATA.PATH_LABEL_SEPARATOR: must not be empty")
    lines = read_text(csv, what="annotation file", max_bytes=MAX_FILE_BYTES).split("\n")
    rows = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise ValueError(f"{csv}: the annotation file holds no video")
    for number, row in rows:
        _refuse_odd_row(row, f"{csv}:{number}")
    labelled = next((number for number, row in rows if separator in row), 0)
    records = []
    for number, row in rows:
        where = f"{csv}:{number}"
        fields = row.split(separator)
        if len(fields) == 1:
            _refuse_other_separator(row, where, separator)
            if labelled:
                raise ValueError(f"{where}: has no label, but line {labelled} has one; found {shown(row)}")
        records.append(_parse_row(fields, where, number, separator, num_classes))
    _refuse_contradictions(records, csv)
    _refuse_escapes(csv, records, prefix, allow_outside=allow_outside)
    if prefix:
        records = [record._replace(path=str(Path(prefix) / record.path)) for record in records]
    return records


def _refuse_odd_row(row: str, where: str) -> None:
    if len(row) > MAX_ROW_CHARACTERS:
        raise ValueError(f"{where}: the line has {len(row)} characters; allowed: {MAX_ROW_CHARACTERS}")
    if "\0" in row:
        raise ValueError(f"{where}: holds a NUL character; is the file UTF-16?")


def _refuse_contradictions(records: Sequence[VideoRecord], csv: str | Path) -> None:
    """A video has one label here; rows that repeat it count as often as they stand."""
    first: dict[str, VideoRecord] = {}
    for record in records:
        before = first.setdefault(record.path, record)
        if before.label != record.label:
            raise ValueError(
                f"{csv}:{record.line}: {record.path} has label {record.label}, but label {before.label} in line "
                f"{before.line}"
            )


def _parse_row(fields: Sequence[str], where: str, line: int, separator: str, num_classes: int | None) -> VideoRecord:
    name = fields[0].strip()
    if name.startswith('"'):
        raise ValueError(f"{where}: the path is quoted, {shown(name)}; write paths without quotes")
    if len(fields) > 3 or (len(fields) == 3 and not _NUMBER.fullmatch(fields[1].strip())):
        raise ValueError(
            f"{where}: expected path{separator}label, found {len(fields)} fields; does a path contain "
            f"DATA.PATH_LABEL_SEPARATOR {separator!r}?"
        )
    if not name:
        raise ValueError(f"{where}: the path is empty")
    label = 0 if len(fields) == 1 else _parse_label(fields[-1].strip(), where)
    if label < 0 or (num_classes is not None and label >= num_classes):
        allowed = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
        raise ValueError(f"{where}: label {shown(label)} is outside the label set, allowed: {allowed}")
    return VideoRecord(path=name, label=label, line=line)


def _refuse_escapes(csv: str | Path, records: list[VideoRecord], prefix: str, *, allow_outside: bool) -> None:
    """Refuse rows that name something outside the folder of the videos; without a folder nothing is outside."""
    for record in records:
        reason = escape_of(record.path)
        if reason and prefix and not allow_outside:
            raise ValueError(
                f"{csv}:{record.line}: the path {record.path!r} {reason}, away from the folder of the videos "
                f"{prefix!r}; allowed with DATA.ALLOW_ABSOLUTE_PATHS True"
            )


def _parse_label(text: str, where: str) -> int:
    # int() would take "+1", "1_0" and digits of any script as well
    if not _LABEL.fullmatch(text) or len(text) > MAX_LABEL_DIGITS:
        raise ValueError(f"{where}: expected an integer label, found {shown(text)}")
    return int(text)


def _refuse_other_separator(row: str, where: str, separator: str) -> None:
    for other in (",", " ", "\t", ";"):
        head, found, tail = row.rpartition(other)
        if other != separator and found and head.strip() and tail.strip().lstrip("-").isdecimal():
            raise ValueError(
                f"{where}: DATA.PATH_LABEL_SEPARATOR {separator!r} does not occur in {shown(row)}; "
                f"the line looks separated by {other!r}"
            )
