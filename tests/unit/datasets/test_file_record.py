import json
import os

import pytest

from slowfast.datasets.file_record import FileRecord, FileState

STATE = FileState(size=5, mtime_ns=7)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "record.jsonl"


@pytest.fixture
def filled(path):
    with FileRecord(path) as record:
        record.add("open", "a.mp4", STATE, {"frames": 1})
        record.add("open", "b.mp4", STATE, {"frames": 2})
    return path


def test_entries_are_found_again(filled):
    with FileRecord(filled) as record:
        assert record.find("open", "a.mp4", STATE)["frames"] == 1
        assert record.find("open", "b.mp4", STATE)["frames"] == 2


@pytest.mark.parametrize(
    "asked",
    [
        ("decode", "a.mp4", STATE),
        ("open", "c.mp4", STATE),
        ("open", "a.mp4", FileState(size=6, mtime_ns=7)),
        ("open", "a.mp4", FileState(size=5, mtime_ns=8)),
    ],
)
def test_another_file_or_a_changed_one_is_not_found(filled, asked):
    with FileRecord(filled) as record:
        assert record.find(*asked) is None


def test_the_last_entry_holds(filled):
    with FileRecord(filled) as record:
        record.add("open", "a.mp4", STATE, {"frames": 3})
        assert record.find("open", "a.mp4", STATE)["frames"] == 3
    with FileRecord(filled) as record:
        assert record.find("open", "a.mp4", STATE)["frames"] == 3


def test_a_line_is_in_the_file_before_the_record_is_closed(path):
    with FileRecord(path) as record:
        record.add("open", "a.mp4", STATE, {})
        assert json.loads(path.read_text().splitlines()[1]) == {
            "kind": "open",
            "file": "a.mp4",
            "size": 5,
            "mtime_ns": 7,
        }


def test_a_record_cut_anywhere_is_taken_up(filled):
    whole = filled.read_bytes()
    first, second = (whole.index(b"a.mp4"), whole.index(b"b.mp4"))
    for length in range(len(whole)):
        filled.write_bytes(whole[:length])
        with FileRecord(filled) as record:
            known = [name for name in ("a.mp4", "b.mp4") if record.find("open", name, STATE)]
            record.add("open", "c.mp4", STATE, {})
        assert len(known) <= (length > first) + (length > second)
        with FileRecord(filled) as record:
            assert record.find("open", "c.mp4", STATE) is not None
            assert known == [name for name in ("a.mp4", "b.mp4") if record.find("open", name, STATE)]


@pytest.mark.parametrize("line", [b"\0\0\0\0\n", b"[]\n", b"7\n", b'{"kind": "open"}\n', b"\xff\n"])
def test_an_unreadable_line_counts_as_not_written(filled, line):
    with filled.open("ab") as file:
        file.write(line)
    with FileRecord(filled) as record:
        assert record.find("open", "b.mp4", STATE) is not None


@pytest.mark.parametrize("content", ["a.mp4,0\n", "a", "{}\n", '{"format": "slowfast-stdd/file-record/9"}\n'])
def test_another_file_is_refused_and_left_alone(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with (
        pytest.raises(ValueError, match=r"record\.jsonl: not a record of slowfast-stdd/file-record/1"),
        FileRecord(path),
    ):
        pass
    assert path.read_text() == content


def test_names_that_are_not_utf8(path):
    name = os.fsdecode(b"caf\xe9 \xff.mp4")
    with FileRecord(path) as record:
        record.add("open", name, STATE, {})
    with FileRecord(path) as record:
        assert record.find("open", name, STATE) is not None


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_one_run_at_a_time(path):
    with (
        FileRecord(path),
        pytest.raises(ValueError, match=r"record\.jsonl: another run is writing this record"),
        FileRecord(path),
    ):
        pass
    with FileRecord(path):
        pass


def test_state_of_a_file(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"123")
    assert FileState.of(file) == FileState(size=3, mtime_ns=file.stat().st_mtime_ns)
    with pytest.raises(FileNotFoundError):
        FileState.of(tmp_path / "b")
