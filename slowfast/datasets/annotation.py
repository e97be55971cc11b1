from pathlib import Path
from typing import NamedTuple

from slowfast.config.paths import escape_of


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

    A row of three fields is `path, ignored, label`; a row of one field is a path with label 0 (unlabelled videos).
    Blank lines are skipped. Row numbers of the result are the video ids used everywhere else.

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
    path = Path(csv)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{csv}: cannot read the annotation file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{csv}: the annotation file is not UTF-8 text") from error
    records = [
        _parse_row(line.strip(), f"{csv}:{number}", number, separator, num_classes)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    _refuse_escapes(csv, records, prefix, allow_outside=allow_outside)
    records = [record._replace(path=str(Path(prefix) / record.path)) if prefix else record for record in records]
    if not records:
        raise ValueError(f"{csv}: the annotation file holds no video")
    return records


def _parse_row(row: str, where: str, line: int, separator: str, num_classes: int | None) -> VideoRecord:
    fields = row.split(separator)
    if len(fields) == 1:
        _refuse_other_separator(row, where, separator)
    if len(fields) > 3:
        raise ValueError(
            f"{where}: expected path{separator}label, found {len(fields)} fields; does a path contain "
            f"DATA.PATH_LABEL_SEPARATOR {separator!r}?"
        )
    name = fields[0].strip()
    if not name:
        raise ValueError(f"{where}: the path is empty")
    label = 0 if len(fields) == 1 else _parse_label(fields[-1], where)
    if label < 0 or (num_classes is not None and label >= num_classes):
        allowed = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
        raise ValueError(f"{where}: label {label} is outside the label set, allowed: {allowed}")
    return VideoRecord(path=name, label=label, line=line)


def _refuse_escapes(csv: str | Path, records: list[VideoRecord], prefix: str, *, allow_outside: bool) -> None:
    """Refuse rows that name something outside the folder of the videos; without a folder nothing is outside."""
    for record in records:
        reason = escape_of(record.path)
        if "\0" in record.path:
            raise ValueError(f"{csv}:{record.line}: the path {record.path!r} {reason}")
        if reason and prefix and not allow_outside:
            raise ValueError(
                f"{csv}:{record.line}: the path {record.path!r} {reason}, away from the folder of the videos "
                f"{prefix!r}; allowed with DATA.ALLOW_ABSOLUTE_PATHS True"
            )


def _parse_label(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{where}: expected an integer label, found {text.strip()!r}") from None


def _refuse_other_separator(row: str, where: str, separator: str) -> None:
    for other in (",", " ", "\t", ";"):
        head, found, tail = row.rpartition(other)
        if other != separator and found and head.strip() and tail.strip().lstrip("-").isdecimal():
            raise ValueError(
                f"{where}: DATA.PATH_LABEL_SEPARATOR {separator!r} does not occur in {row.strip()!r}; "
                f"the line looks separated by {other!r}"
            )
