import re
from pathlib import Path

import pytest

from slowfast.datasets.annotation import read_annotations


def write(tmp_path, text):
    path = tmp_path / "train.csv"
    path.write_text(text)
    return path


def pairs(records):
    return [(record.path, record.label) for record in records]


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a.mp4,1\nb/c.avi,0\n", ","),
        ("a.mp4 1\nb/c.avi 0", " "),
        ("a.mp4,17,1\nb/c.avi,,0\n", ","),
        ("\r\na.mp4,1\r\n\r\nb/c.avi,0\r\n", ","),
        ("\ufeffa.mp4,1\nb/c.avi, 0\n", ","),
        ("a.mp4\t1\nb/c.avi\t0\n", "\t"),
    ],
)
def test_rows(tmp_path, text, separator):
    records = read_annotations(write(tmp_path, text), prefix="/data", separator=separator, num_classes=2)
    assert pairs(records) == [("/data/a.mp4", 1), ("/data/b/c.avi", 0)]


def test_one_field_is_an_unlabelled_path(tmp_path):
    records = read_annotations(write(tmp_path, "a.mp4\nmy clip.mp4\n"), separator=",")
    assert pairs(records) == [("a.mp4", 0), ("my clip.mp4", 0)]


ESCAPES = {
    "/x/a.mp4": "is an absolute path",
    "//host/x/a.mp4": "is an absolute path",
    "../a.mp4": "climbs out with '..'",
    "a/../../b.mp4": "climbs out with '..'",
    "a/./../../data/b.mp4": "climbs out with '..'",
    r"C:\x\a.mp4": "is an absolute path",
    "C:/x/a.mp4": "is an absolute path",
    "C:a.mp4": "is an absolute path",
    r"\x\a.mp4": "is an absolute path",
    r"\\host\share\a.mp4": "is an absolute path",
    r"..\a.mp4": "climbs out with '..'",
    r"a\..\..\b.mp4": "climbs out with '..'",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_row_does_not_leave_the_folder_of_the_videos(tmp_path, name):
    csv = write(tmp_path, f"a.mp4,0\n{name},0\n")
    with pytest.raises(ValueError, match="ALLOW_ABSOLUTE_PATHS") as caught:
        read_annotations(csv, prefix="/data", separator=",")
    assert str(caught.value) == (
        f"{csv}:2: the path {name!r} {ESCAPES[name]}, away from the folder of the videos '/data'; allowed with "
        "DATA.ALLOW_ABSOLUTE_PATHS True"
    )
    # Allowed by key, or where there is no folder to leave.
    allowed = read_annotations(csv, prefix="/data", separator=",", allow_outside=True)[1]
    assert allowed.path == str(Path("/data") / name)
    assert read_annotations(csv, separator=",")[1].path == name


@pytest.mark.parametrize("name", ["a/../b.mp4", "~/a.mp4", "~", "a..b/c.mp4", "...", "a\\b.mp4", "./a.mp4", "ab:c.mp4"])
def test_names_that_stay_inside(tmp_path, name):
    (record,) = read_annotations(write(tmp_path, f"{name},0\n"), prefix="/data", separator=",")
    assert record.path == str(Path("/data") / name)


@pytest.mark.parametrize("options", [{}, {"prefix": "/data"}, {"prefix": "/data", "allow_outside": True}])
def test_nul_bytes_are_never_part_of_a_path(tmp_path, options):
    csv = write(tmp_path, "a\0.mp4,0\n")
    with pytest.raises(ValueError, match="NUL") as caught:
        read_annotations(csv, separator=",", **options)
    assert str(caught.value) == f"{csv}:1: holds a NUL character; is the file UTF-16?"


def test_a_symbolic_link_is_the_choice_of_the_folders_owner(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "link").symlink_to(tmp_path / "elsewhere")
    (record,) = read_annotations(write(tmp_path, "link/a.mp4,0\n"), prefix=str(tmp_path / "videos"), separator=",")
    assert record.path == str(tmp_path / "videos" / "link" / "a.mp4")


def test_line_numbers_count_blank_lines(tmp_path):
    records = read_annotations(write(tmp_path, "a.mp4,0\n\nb.mp4,0\n"), separator=",")
    assert [record.line for record in records] == [1, 3]


@pytest.mark.parametrize(
    ("text", "separator", "message"),
    [
        ("a.mp4,0\nb.mp4,2\n", ",", "train.csv:2: label 2 is outside the label set, allowed: 0 to 1"),
        ("a.mp4,-1\n", ",", "train.csv:1: label -1 is outside the label set, allowed: 0 to 1"),
        ("a.mp4,x\n", ",", "train.csv:1: expected an integer label, found 'x'"),
        ("a.mp4,\n", ",", "train.csv:1: expected an integer label, found ''"),
        ("a.mp4,1.5\n", ",", "train.csv:1: expected an integer label, found '1.5'"),
        (",1\n", ",", "train.csv:1: the path is empty"),
        ("a,b,c.mp4,1\n", ",", "train.csv:1: expected path,label, found 4 fields; does a path contain "),
        ("a.mp4,1\n", " ", "' ' does not occur in 'a.mp4,1'; the line looks separated by ','"),
        ("a.mp4 1\n", ",", "',' does not occur in 'a.mp4 1'; the line looks separated by ' '"),
        ("\n\n", ",", "train.csv: the annotation file holds no video"),
        ("a.mp4,1\nb.mp4\n", ",", "train.csv:2: has no label, but line 1 has one; found 'b.mp4'"),
        ("a.mp4,１\n", ",", "train.csv:1: expected an integer label, found '１'"),
        ("a.mp4,+1\n", ",", "train.csv:1: expected an integer label, found '+1'"),
        ("a,b.mp4,1\n", ",", "train.csv:1: expected path,label, found 3 fields; does a path contain "),
        ('"a.mp4",1\n', ",", "train.csv:1: the path is quoted, '\"a.mp4\"'; write paths without quotes"),
        ("a.mp4,1\na.mp4,0\n", ",", "train.csv:2: a.mp4 has label 0, but label 1 in line 1"),
        ("a.mp4\0,1\n", ",", "train.csv:1: holds a NUL character; is the file UTF-16?"),
        ("a" * 9000, ",", "train.csv:1: the line has 9000 characters; allowed: 8192"),
        ("a.mp4,1\n", "", "DATA.PATH_LABEL_SEPARATOR: must not be empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, separator, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_annotations(write(tmp_path, text), separator=separator, num_classes=2)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv: cannot read the annotation file \(No such file or directory\)"):
        read_annotations(tmp_path / "none.csv", separator=",")


def test_binary_file(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.csv: the annotation file is not UTF-8 text"):
        read_annotations(tmp_path / "a.csv", separator=",")
