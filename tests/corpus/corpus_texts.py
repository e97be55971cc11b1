"""Annotation files and label maps with mistakes in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from corpus_case import Case

NUM_CLASSES = 5


def file(name: str, content: str | bytes) -> Callable[[Path], Path]:
    """A function that writes a file."""

    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return path

    return write


def special_files(kind: str, name: str, *, content: bytes) -> list[Case]:
    """What may lie in the place of any text file."""
    import os

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    def loop(folder: Path) -> Path:
        (folder / name).symlink_to(name)
        return folder / name

    def device(folder: Path) -> Path:
        (folder / name).symlink_to("/dev/zero")
        return folder / name

    def directory(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    def huge(folder: Path) -> Path:
        """A file with a hole: a gigabyte that takes no space."""
        with (folder / name).open("wb") as hollow:
            hollow.write(content)
            hollow.truncate(1 << 30)
        return folder / name

    def other_charset(folder: Path) -> Path:
        (folder / name).write_bytes("caf\xe9 ".encode("latin-1") + content)
        return folder / name

    found: dict[str, tuple[str, Callable[[Path], Path]]] = {
        "absent": ("a file that does not exist", lambda folder: folder / name),
        "empty": ("an empty file", file(name, b"")),
        "directory": ("a folder", directory),
        "pipe": ("a named pipe, which nobody writes to", pipe),
        "endless-device": ("a link to /dev/zero", device),
        "link-loop": ("a link to itself", loop),
        "gigabyte": ("a gigabyte of zeros behind the content", huge),
        "latin-1": ("text in Latin-1", other_charset),
        "utf-16": ("text in UTF-16", file(name, content.decode().encode("utf-16"))),
        "utf-16-without-mark": (
            "text in UTF-16 without a byte order mark",
            file(name, content.decode().encode("utf-16-le")),
        ),
        "gzip": ("a compressed file", file(name, b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(range(200, 256)))),
        "name-too-long": ("a name of 300 letters", lambda folder: folder / f"{'x' * 300}.{name}"),
        "below-a-file": ("a path that goes through a file", lambda folder: file("file", b"")(folder) / name),
    }  # fmt: skip
    return [Case(id=f"{kind}/{key}", text=text, expected="error", write=write) for key, (text, write) in found.items()]


# ---------------------------------------------------------------------------------------------------- annotation files


def _annotation_errors() -> list[Case]:
    rows: dict[str, tuple[str, str, str]] = {
        # id: (what, content, part of the message)
        "blank": ("blank lines alone", "\n  \n\t\n\r\n", "holds no video"),
        "missing-label": ("one row of three without a label", "a.mp4,1\nb.mp4\nc.mp4,2\n", ":2: has no label"),
        "missing-first-label": ("the first row without a label", "a.mp4\nb.mp4,1\n", ":1: has no label"),
        "empty-label": ("a separator with nothing behind it", "a.mp4,1\nb.mp4,\n", ":2: expected an integer label"),
        "negative-label": ("label -1", "a.mp4,-1\n", ":1: label -1 is outside"),
        "label-too-large": ("label 5 of 5 classes", "a.mp4,0\nb.mp4,5\n", ":2: label 5 is outside"),
        "label-huge": ("a label of 30 digits", f"a.mp4,{'9' * 30}\n", "expected an integer label"),
        "label-endless": ("a label of 6000 digits", f"a.mp4,{'9' * 6000}\n", "expected an integer label"),
        "label-float": ("label 1.0", "a.mp4,1.0\n", "expected an integer label, found '1.0'"),
        "label-exponent": ("label 1e0", "a.mp4,1e0\n", "expected an integer label"),
        "label-plus": ("label +1", "a.mp4,+1\n", "expected an integer label"),
        "label-underscore": ("label 1_0, which is 10 in Python", "a.mp4,1_0\n", "expected an integer label"),
        "label-full-width": ("label １, a full-width digit", "a.mp4,１\n", "expected an integer label"),
        "label-arabic": ("label ٣, an Arabic digit", "a.mp4,٣\n", "expected an integer label"),
        "label-hexadecimal": ("label 0x1", "a.mp4,0x1\n", "expected an integer label"),
        "label-name": ("the name of a class as a label", "a.mp4,surfing\n", "expected an integer label"),
        "label-quoted": ("a label in quotes", 'a.mp4,"1"\n', "expected an integer label"),
        "label-nan": ("label nan", "a.mp4,nan\n", "expected an integer label"),
        "label-two-words": ("two labels of one video", "a.mp4,1 2\n", "expected an integer label"),
        "header": ("a header", "path,label\na.mp4,1\n", ":1: expected an integer label, found 'label'"),
        "empty-path": ("a label without a path", ",1\n", "the path is empty"),
        "quoted-path": ("a path in quotes", '"a.mp4",1\n', "the path is quoted"),
        "quoted-path-separator": ("a path in quotes with the separator", '"a,b.mp4",1\n', "the path is quoted"),
        "separator-in-path": ("a path with the separator", "a,b.mp4,1\n", "does a path contain"),
        "separators-in-path": ("a path with three separators", "a,b,c,d.mp4,1\n", "does a path contain"),
        "trailing-separator": ("a separator at the end of each row", "a.mp4,1,\nb.mp4,2,\n", "expected an integer"),
        "other-separator": ("a file separated by tabs", "a.mp4\t1\nb.mp4\t2\n", "looks separated by '\\t'"),
        "other-separator-later": ("one row separated by blanks", "a.mp4,1\nb.mp4 2\n", "looks separated by ' '"),
        "nul": ("a NUL character in a path", "a.mp4,1\nb\0.mp4,2\n", ":2: holds a NUL character"),
        "contradiction": (
            "a video with two labels",
            "a.mp4,1\nb.mp4,2\na.mp4,3\n",
            ":3: a.mp4 has label 3, but label 1 in line 1",
        ),
        "json": ("a JSON file", '{"a.mp4": 1,\n "b.mp4": 2}\n', "label"),
        "two-columns-more": ("rows of five fields", "a.mp4,0,1,2,3\n", "found 5 fields"),
        "long-line": ("a line of 50 MB", "x" * 50_000_000 + ",1\n", "characters; allowed"),
        "long-line-of-separators": ("a line of 50 MB of separators", "," * 50_000_000, "characters; allowed"),
    }  # fmt: skip
    cases = [
        Case(id=f"annotation/{name}", text=text, expected="error", write=file("list.csv", content), message=message)
        for name, (text, content, message) in rows.items()
    ]
    binary = {"binary": ("random bytes", bytes(range(256))), "nul-bytes": ("a file of zeros", bytes(1000))}
    cases += [
        Case(id=f"annotation/{name}", text=text, expected="error", write=file("list.csv", content))
        for name, (text, content) in binary.items()
    ]
    return cases


def _annotation_reads() -> list[Case]:
    both = (("a.mp4", 1), ("b/c.avi", 0))
    files: dict[str, tuple[str, str | bytes, tuple[tuple[str, int], ...]]] = {
        "plain": ("two rows", "a.mp4,1\nb/c.avi,0\n", both),
        "byte-order-mark": ("a byte order mark", "\ufeffa.mp4,1\nb/c.avi,0\n", both),
        "crlf": ("line ends of Windows", "a.mp4,1\r\nb/c.avi,0\r\n", both),
        "cr": ("line ends of old Macintoshes", "a.mp4,1\rb/c.avi,0\r", both),
        "mixed-ends": ("line ends of all kinds, and none at the end", "a.mp4,1\r\n\r\r\nb/c.avi,0", both),
        "blank-lines": ("blank lines between the rows", "\n\na.mp4,1\n   \nb/c.avi,0\n\n", both),
        "spaces": ("spaces around the fields", "  a.mp4 , 1 \n b/c.avi ,\t0\n", both),
        "leading-zeros": ("labels 01 and 00", "a.mp4,01\nb/c.avi,00\n", both),
        "three-fields": ("a number of frames between path and label", "a.mp4,300,1\nb/c.avi,12.5,0\n", both),
        "three-fields-empty": ("nothing between path and label", "a.mp4,,1\nb/c.avi,,0\n", both),
        "no-labels": ("paths alone: all labels are 0", "a.mp4\nb c.avi\n", (("a.mp4", 0), ("b c.avi", 0))),
        "duplicate": ("a row twice: it counts twice", "a.mp4,1\na.mp4,1\n", (("a.mp4", 1), ("a.mp4", 1))),
        "unicode": ("paths in several scripts", "Tänzerin/踊り.mp4,1\n\N{DANCER}.mp4,2\n",
                    (("Tänzerin/踊り.mp4", 1), ("\N{DANCER}.mp4", 2))),
        "line-separator-in-name": ("a name with Unicode's line separator", "a\u2028b.mp4,1\n", (("a\u2028b.mp4", 1),)),
        "absolute": ("a path from the root", "/data/a.mp4,1\n", (("/data/a.mp4", 1),)),
        "hash": ("a name that begins like a comment", "#20_Rhythm.avi,1\n", (("#20_Rhythm.avi", 1),)),
        "quotes-inside": ("quotes inside a name", "it's \"a\".mp4,1\n", (("it's \"a\".mp4", 1),)),
    }  # fmt: skip
    return [
        Case(id=f"annotation/{name}", text=text, expected="reads", write=file("list.csv", content), rows=rows)
        for name, (text, content, rows) in files.items()
    ]


# ---------------------------------------------------------------------------------------------------------- label maps


def _label_cases() -> list[Case]:
    nested = "[" * 100_000
    errors: dict[str, tuple[str, str, str]] = {
        "gap": ("number 1 is missing", '{"0": "a", "2": "b"}', 'key "1" is missing'),
        "from-one": ("numbers from 1", '{"1": "a", "2": "b"}', 'key "0" is missing'),
        "padded": ("numbers with leading zeros", '{"00": "a", "01": "b"}', 'key "0" is missing'),
        "negative": ("number -1", '{"0": "a", "-1": "b"}', 'key "1" is missing'),
        "float": ("number 1.0", '{"0": "a", "1.0": "b"}', 'key "1" is missing'),
        "full-width": ("a full-width digit", '{"0": "a", "１": "b"}', 'key "1" is missing'),
        "turned": ("names as keys", '{"surfing": 0, "golf": 1}', 'key "0" is missing'),
        "duplicate-number": ("number 0 twice", '{"0": "a", "0": "b"}', 'key "0" occurs twice'),
        "duplicate-odd": ("a key of two lines twice", '{"a\\nb": "a", "a\\nb": "b"}', "occurs twice"),
        "name-number": ("a number as a name", '{"0": "a", "1": 3}', "expected a class name, found 3"),
        "name-null": ("no name", '{"0": "a", "1": null}', "expected a class name, found None"),
        "name-list": ("a list of names", '{"0": ["a", "b"]}', "expected a class name"),
        "name-nested": ("a list of 1 000 000 names", json.dumps({"0": ["a"] * 1_000_000}), "expected a class name"),
        "name-empty": ("an empty name", '{"0": ""}', "expected a class name"),
        "name-blank": ("a name of blanks", '{"0": "\\t "}', "expected a class name"),
        "name-surrogate": ("half a character", '{"0": "\\ud83d"}', "expected a class name"),
        "list": ("a list", '["a", "b"]', "found list"),
        "text": ("a text", '"a"', "found str"),
        "null": ("null", "null", "found NoneType"),
        "number": ("a number", "7", "found int"),
        "no-class": ("no class", "{}", "an empty object"),
        "unclosed": ("an object that is not closed", '{"0": "a",', "not valid JSON (line 1"),
        "trailing-comma": ("a comma too many", '{"0": "a",\n}', "not valid JSON (line 2"),
        "single-quotes": ("single quotes", "{'0': 'a'}", "not valid JSON"),
        "comment": ("a comment", '{"0": "a"} // one', "not valid JSON"),
        "two-objects": ("two objects", '{"0": "a"}\n{"1": "b"}', "not valid JSON"),
        "yaml": ("YAML", "0: a\n1: b\n", "not valid JSON"),
        "nested-lists": ("100 000 lists in each other", nested, "nested too deeply"),
        "nested-objects": ("100 000 objects in each other", '{"0":' * 100_000, "nested too deeply"),
        "endless-number": ("a number of 6000 digits", f'{{"0": {"9" * 6000}}}', "too many digits"),
        "nan": ("not a number", '{"0": NaN}', "expected a class name"),
        "control-character": ("a bare line break in a name", '{"0": "a\nb"}', "not valid JSON"),
    }
    cases = [
        Case(id=f"labels/{name}", text=text, expected="error", write=file("labels.json", content), message=message)
        for name, (text, content, message) in errors.items()
    ]
    reads: dict[str, tuple[str, str, tuple[str, ...]]] = {
        "unordered": ("numbers in any order", '{"1": "b", "0": "a", "2": "c"}', ("a", "b", "c")),
        "byte-order-mark": ("a byte order mark", '\ufeff{"0": "a", "1": "b"}', ("a", "b")),
        "crlf": ("line ends of Windows", '{\r\n"0": "a",\r\n"1": "b"\r\n}', ("a", "b")),
        "duplicate-name": ("two classes of one name, as SSv2 has", '{"0": "a", "1": "a"}', ("a", "a")),
        "unicode": ("names in several scripts", '{"0": "T\u00e4nzerin", "1": "\u8e0a\u308a"}', ("Tänzerin", "踊り")),
        "escapes": ("escaped characters", '{"0": "a\\"b", "1": "\\ud83d\\udc83"}', ('a"b', "\N{DANCER}")),
    }
    cases += [
        Case(id=f"labels/{name}", text=text, expected="reads", write=file("labels.json", content), names=names)
        for name, (text, content, names) in reads.items()
    ]
    return cases


TEXT_CASES: tuple[Case, ...] = (
    *special_files("annotation", "list.csv", content=b"a.mp4,1\n"),
    *_annotation_errors(),
    *_annotation_reads(),
    *special_files("labels", "labels.json", content=b'{"0": "a"}'),
    *_label_cases(),
)
