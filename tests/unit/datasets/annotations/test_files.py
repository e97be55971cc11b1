"""Annotation files in folders and archives."""

import hashlib
import zipfile

import pytest

from slowfast.datasets.annotations.files import AnnotationFiles


def test_folder_inner_folder_and_single_file(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("one", encoding="utf-8")
    (tmp_path / "b.txt").write_text("two", encoding="utf-8")
    assert AnnotationFiles(tmp_path, folder="lists").names == ("a.txt",)
    assert AnnotationFiles(tmp_path, folder="other").names == ("b.txt",)
    assert AnnotationFiles(tmp_path / "b.txt", folder="lists").text("b.txt") == "two"


def test_lines_have_their_place_and_hashes_are_noted(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbffirst\r\n\r\n  third \r\nlast")
    sources = {}
    files = AnnotationFiles(tmp_path, folder="", sources=sources)
    assert list(files.lines("a.txt")) == [(f"{path}:1", "first"), (f"{path}:3", "third"), (f"{path}:4", "last")]
    assert sources == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}


def test_archive(tmp_path):
    path = tmp_path / "lists.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/inner/a.txt", "no")
        archive.writestr("inner/", "")
        archive.writestr("inner/a.txt", "yes")
    files = AnnotationFiles(path, folder="anything")
    assert list(files.lines("a.txt")) == [(f"{path}!inner/a.txt:1", "yes")]


def test_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^--annotations .*nowhere: no such file or folder; get it$"):
        AnnotationFiles(tmp_path / "nowhere", folder="", advice="get it")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "a.json").write_text("{\n1", encoding="utf-8")
    files = AnnotationFiles(tmp_path, folder="")
    with pytest.raises(ValueError, match=r"has no b\.txt$"):
        files.text("b.txt")
    with pytest.raises(ValueError, match=r"a\.txt: not UTF-8 text"):
        files.text("a.txt")
    with pytest.raises(ValueError, match=r"a\.json:2: not valid JSON"):
        files.json("a.json")
    (tmp_path / "a.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json:1: not valid JSON \(nested too deeply\)"):
        files.json("a.json")
    (tmp_path / "a.json").unlink()
    with pytest.raises(ValueError, match=r"a\.json: cannot be read"):
        files.json("a.json")
