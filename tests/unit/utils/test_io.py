import errno
import hashlib
import json
import os
import zipfile

import pytest
import torch

from slowfast.utils import io
from slowfast.utils.io import (
    append_line,
    atomic_link,
    atomic_save,
    find_damage,
    load_tensors,
    parse_json,
    read_text,
    refuse_zip_bomb,
    remove_parts,
    require_file,
    sha256_file,
)


class Unsaveable:
    def __reduce__(self):
        raise RuntimeError("refuses to be pickled")


class Evil:
    def __reduce__(self):
        return os.getcwd, ()


def test_atomic_save_round_trip_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.pyth"
    io.atomic_save({"x": torch.arange(3), "name": "n"}, path)
    loaded = io.load_tensors(path, what="checkpoint")
    assert torch.equal(loaded["x"], torch.arange(3))
    assert [p.name for p in path.parent.iterdir()] == ["b.pyth"]


def test_interrupted_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "c.pyth"
    io.atomic_save({"x": torch.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="refuses"):
        io.atomic_save({"big": torch.zeros(1000), "bad": Unsaveable()}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pyth"]


def test_exception_in_the_writer_leaves_nothing_behind(tmp_path):
    def interrupted():
        with io.atomic_writer(tmp_path / "n.txt") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_file_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, io.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), real_sync(fd))[1])
    monkeypatch.setattr(io.Path, "replace", lambda self, to: (calls.append("rename"), real_replace(self, to))[1])
    io.atomic_write_text(tmp_path / "t.txt", "é")
    assert calls == ["sync", "rename", "sync"]
    assert (tmp_path / "t.txt").read_text(encoding="utf-8") == "é"


def test_sha256(tmp_path):
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "f").write_bytes(data)
    assert io.sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am text\n", b"\x80\x02garbage", b"PK\x03\x04 not a zip", b"\x00" * 64]
)
def test_damaged_files_are_one_line_errors(tmp_path, content):
    path = tmp_path / "d.pyth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint") as caught:
        io.load_tensors(path, what="checkpoint")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_file(tmp_path):
    path = tmp_path / "d.pyth"
    io.atomic_save({"x": torch.randn(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="features cannot be read"):
        io.load_tensors(path, what="features")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no\.pyth: checkpoint not found"):
        io.load_tensors(tmp_path / "no.pyth", what="checkpoint")
    with pytest.raises(ValueError, match="checkpoint is not a file"):
        io.load_tensors(tmp_path, what="checkpoint")


def test_code_in_a_file_is_refused(tmp_path):
    torch.save({"x": Evil()}, tmp_path / "evil.pyth")
    with pytest.raises(ValueError, match=r"unsafe to load \(it names \w+\.getcwd\)$"):
        io.load_tensors(tmp_path / "evil.pyth", what="checkpoint")
    with pytest.raises(ValueError, match=r"unsafe to load \([^\n]*\); do this$"):
        io.load_tensors(tmp_path / "evil.pyth", what="checkpoint", advice="do this")


def test_what_is_no_file_of_tensors_is_called_so(tmp_path):
    path = tmp_path / "notes.pyth"
    path.write_text("lecture notes", encoding="utf-8")
    with pytest.raises(ValueError, match=r"unsafe to load \(it is not what torch\.save writes\)$"):
        io.load_tensors(path, what="checkpoint")


def test_tensors_may_stay_in_the_file(tmp_path):
    io.atomic_save({"x": torch.arange(5)}, tmp_path / "x.pyth")
    assert torch.equal(io.load_tensors(tmp_path / "x.pyth", what="x", memory_map=True)["x"], torch.arange(5))


# ----------------------------------------------------------------------------------------------- files of somebody else


def test_text_files_of_any_origin(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path, what="list", max_bytes=100) == "a\nb\nc\n"
    with pytest.raises(ValueError, match=r"list\.csv: the list has 10 bytes; allowed: 9"):
        read_text(path, what="list", max_bytes=9)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    reasons = {"pipe": "Is a pipe", "loop": "Too many levels", "absent": "No such file", ".": "Is a directory"}
    for name, reason in reasons.items():
        with pytest.raises(OSError, match=reason):
            require_file(tmp_path / name)
        with pytest.raises(ValueError, match=rf"cannot read the list \({reason}"):
            read_text(tmp_path / name, what="list", max_bytes=100)


@pytest.mark.parametrize("text", ["[" * 100_000, f"[{'9' * 6000}]", "[1,", ""])
def test_json_raises_one_kind_of_error(text):
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)


def test_archives_that_unpack_to_much_more(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(8 << 20))
    with pytest.raises(ValueError, match=r"bomb\.pt: would unpack to 8388608 bytes"):
        refuse_zip_bomb(path)
    torch.save(torch.zeros(100_000), path)
    refuse_zip_bomb(path)


def test_a_flipped_bit_of_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.full((100,), 1.5)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\xc0\x3f" * 50) + 82] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checkpoint is damaged: the checksum of 'weights/data/0' does not fit"):
        load_tensors(path, what="checkpoint")


# ------------------------------------------------------------------------------------ lines, full disks, damaged zips


def test_lines_are_added(tmp_path):
    path = tmp_path / "a.log"
    append_line(path, "one")
    append_line(path, "två")
    assert path.read_text(encoding="utf-8") == "one\ntvå\n"


@pytest.mark.parametrize("before", ["", "whole\n", "whole\n\n"])
def test_a_torn_line_goes(tmp_path, before):
    path = tmp_path / "a.log"
    path.write_text(before + '{"half": ', encoding="utf-8")
    append_line(path, "new")
    assert path.read_text(encoding="utf-8") == before + "new\n"


class Full:
    """A file on a disk that has no space left after some bytes."""

    def __init__(self, file, space):
        self.file, self.space = file, space

    def write(self, data):
        self.space -= len(data)
        if self.space < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()


@pytest.mark.parametrize("space", [0, 100, 5000])
def test_a_full_disk_is_told_by_the_file(tmp_path, monkeypatch, space):
    path = tmp_path / "x.pt"
    atomic_save({"a": torch.zeros(10)}, path)
    old = path.read_bytes()
    plain = type(path).open
    monkeypatch.setattr(type(path), "open", lambda self, *args: Full(plain(self, *args), space))
    with pytest.raises(OSError, match="No space left") as caught:
        atomic_save({"a": torch.zeros(10_000)}, path)
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]


def test_the_hash_is_that_of_the_file(tmp_path):
    assert atomic_save({"a": torch.arange(5)}, tmp_path / "x.pt") == sha256_file(tmp_path / "x.pt")


def test_damage(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.full((1000,), 3.0)}, path)
    assert find_damage(path) is None
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(torch.full((9,), 3.0).numpy().tobytes())] ^= 4
    faults = ((flipped, "does not have the checksum"), (whole[:-300], "truncated or damaged"), (b"", "empty"))
    for content, reason in faults:
        path.write_bytes(content)
        assert reason in find_damage(path)
    path.write_bytes(b"something else")
    assert find_damage(path) is None


def test_parts_are_removed(tmp_path):
    assert remove_parts(tmp_path / "absent") == []
    for name in ("a.pyth.part", "b.pyth", "c.part.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in remove_parts(tmp_path)] == ["a.pyth.part"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.pyth", "c.part.txt"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_second_name(tmp_path, monkeypatch, has_links):
    def refuse(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(target))

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    first, second, name = (tmp_path / letter for letter in "abc")
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    (tmp_path / "c.part").write_bytes(b"what an interruption left")
    for source in (first, first, second):
        atomic_link(source, name)
        assert name.read_bytes() == source.read_bytes()
        assert name.samefile(source) is has_links
    second.unlink()
    assert name.read_bytes() == b"second"
    with pytest.raises(FileNotFoundError):
        atomic_link(second, name)
    assert name.read_bytes() == b"second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
