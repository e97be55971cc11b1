import errno
import multiprocessing
import os
import time

import pytest

from slowfast.utils.bounded_store import BoundedStore


def make(folder, max_bytes=1000):
    return BoundedStore(folder, max_bytes, suffix=".entry", key="DATA.CACHE_GB")


def names(folder):
    return sorted(path.stem for path in folder.glob("*.entry"))


def age(store, key, seconds):
    then = time.time() - seconds
    os.utime(store.path(key), (then, then))


def total(folder):
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "size")


def test_an_entry_is_what_was_written(tmp_path):
    store = make(tmp_path / "new" / "folder")
    store.add("a", [b"12", memoryview(b"345"), b""])
    assert store.path("a").read_bytes() == b"12345"
    store.add("a", [b"6"])
    assert store.path("a").read_bytes() == b"6"


def test_the_least_recently_used_make_room(tmp_path):
    store = make(tmp_path)
    for key in "abcd":
        store.add(key, [bytes(230)])
    for key, seconds in zip("abcd", (400, 300, 200, 100), strict=True):
        age(store, key, seconds)
    store.touch("a")
    later = make(tmp_path)
    later.add("e", [bytes(230)])
    assert names(tmp_path) == ["a", "c", "d", "e"]
    later.add("f", [bytes(480)])
    assert names(tmp_path) == ["a", "e", "f"]


def test_a_run_does_not_remove_what_it_uses(tmp_path, caplog):
    store = make(tmp_path)
    for key in "abcdef":
        store.add(key, [bytes(300)])
    assert names(tmp_path) == ["a", "b", "c"]
    assert store.is_full
    assert caplog.messages == [f"{tmp_path}: nothing more is kept: 1e-06 GB are in use (DATA.CACHE_GB)"]


def test_an_entry_larger_than_the_store(tmp_path):
    store = make(tmp_path)
    store.add("a", [bytes(1001)])
    assert store.is_full
    assert names(tmp_path) == []


def test_leftovers_of_a_killed_process_go(tmp_path):
    store = make(tmp_path)
    for name, seconds in (("old.part", 7200), ("new.part", 10)):
        path = tmp_path / name
        path.write_bytes(bytes(300))
        os.utime(path, (time.time() - seconds,) * 2)
    store.add("a", [bytes(600)])
    store.add("b", [bytes(200)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.entry", "new.part", "size"]


@pytest.mark.parametrize("text", ["", "nonsense", "999999999", "0"])
def test_the_count_mends_itself(text, tmp_path):
    store = make(tmp_path)
    store.add("a", [bytes(300)])
    if text != "0":
        (tmp_path / "size").write_text(text)
    store.add("b", [bytes(300)])
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "size").read_text() == "600"


def test_an_entry_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, caplog):
    store = make(tmp_path)

    def full(number, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "truncate", full)
    store.add("a", [bytes(300)])
    assert store.is_full
    assert "No space left on device" in caplog.text
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "file").touch()
    store = make(tmp_path / "file" / "folder")
    store.add("a", [b"1"])
    assert store.is_full
    assert len(caplog.messages) == 1


def _write_many(folder, number, violations):
    store = make(folder, 10_000)
    for turn in range(60):
        store._since = time.time()  # so that everything older may go
        store.is_full = False
        store.add(f"{number}-{turn}", [bytes([number]) * (100 + 37 * turn % 900)])
        with store._locked():
            violations.value += total(folder) > 10_000


@pytest.mark.skipif(os.name != "posix", reason="needs locks of files")
def test_the_bound_holds_under_concurrent_writers(tmp_path):
    context = multiprocessing.get_context("fork")
    violations = context.Value("i", 0)
    writers = [context.Process(target=_write_many, args=(tmp_path, number, violations)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert violations.value == 0
    assert 5_000 < total(tmp_path) <= 10_000
    for path in tmp_path.glob("*.entry"):
        number, turn = map(int, path.stem.split("-"))
        assert path.read_bytes() == bytes([number]) * (100 + 37 * turn % 900)
    assert not list(tmp_path.glob("*.part"))
