import errno
import multiprocessing
import shutil
import sys
from pathlib import Path

import pytest

from slowfast.datasets import transcode
from slowfast.datasets.decode import probe
from slowfast.datasets.transcode import transcode_videos


@pytest.fixture(scope="module")
def _originals(tmp_path_factory, write_numbered):
    root = tmp_path_factory.mktemp("originals")
    (root / "deep" / "er").mkdir(parents=True)
    write_numbered(root / "a.mp4", 20, gop=20, bframes=2)
    write_numbered(root / "deep" / "er" / "b.avi", 18, codec="mpeg4", gop=12, bframes=2)
    (root / "text.mp4").write_text("not a video\n" * 50)
    return root


@pytest.fixture
def root(_originals, tmp_path):
    return shutil.copytree(_originals, tmp_path / "root")


@pytest.fixture
def run(root, tmp_path):
    def run(*names, **options):
        paths = [root / name for name in names or ("a.mp4", "deep/er/b.avi", "text.mp4", "gone.mp4")]
        settings = {"root": root, "target": tmp_path / "copies", "record": tmp_path / "record.jsonl", "workers": 1}
        return transcode_videos(paths, **{**settings, **options})

    yield run
    assert multiprocessing.active_children() == []


@pytest.fixture
def copies(tmp_path):
    """Names of the files in the folder of copies."""
    folder = tmp_path / "copies"
    return lambda: sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


BAD = {"text.mp4": "invalid data found when processing input", "gone.mp4": "no such file or directory"}


def test_copies_mirror_the_folder(run, copies, root, tmp_path):
    report = run(workers=2)
    assert (report.done, report.skipped, report.failed) == (2, 0, BAD)
    assert copies() == ["a.mp4", "deep/er/b.mp4"]
    assert [probe(tmp_path / "copies" / name).num_frames for name in copies()] == [20, 18]
    assert report.source_bytes == sum((root / name).stat().st_size for name in ("a.mp4", "deep/er/b.avi"))
    assert report.target_bytes == sum((tmp_path / "copies" / name).stat().st_size for name in copies())


def test_a_second_run_copies_nothing(run, monkeypatch, tmp_path):
    run("a.mp4", "deep/er/b.avi")
    monkeypatch.setattr(transcode, "_transcode", None)
    monkeypatch.setattr(transcode, "read_mark", None)  # the record is enough
    report = run("a.mp4", "deep/er/b.avi")
    assert (report.done, report.skipped, report.failed) == (0, 2, {})


def test_without_the_record_copies_are_known_by_their_mark(run, monkeypatch, tmp_path):
    run("a.mp4")
    (tmp_path / "record.jsonl").unlink()
    monkeypatch.setattr(transcode, "_transcode", None)
    assert run("a.mp4").skipped == 1
    monkeypatch.setattr(transcode, "read_mark", None)
    assert run("a.mp4").skipped == 1  # and recorded again


@pytest.mark.parametrize("change", ["settings", "source", "copy removed", "copy cut"])
def test_what_changed_is_copied_again(run, root, tmp_path, write_numbered, change):
    run("a.mp4", "deep/er/b.avi")
    options = {}
    if change == "settings":
        options = {"gop": 8}
    elif change == "source":
        write_numbered(root / "a.mp4", 25)
    elif change == "copy removed":
        (tmp_path / "copies" / "a.mp4").unlink()
    else:
        whole = (tmp_path / "copies" / "a.mp4").read_bytes()
        (tmp_path / "copies" / "a.mp4").write_bytes(whole[: len(whole) // 2])
    report = run("a.mp4", "deep/er/b.avi", **options)
    assert report.failed == {}
    assert (report.done, report.skipped) == ((2, 0) if change == "settings" else (1, 1))
    assert probe(tmp_path / "copies" / "a.mp4").num_frames == (25 if change == "source" else 20)


def test_a_file_that_is_no_copy_is_left_alone(run, tmp_path):
    place = tmp_path / "copies" / "a.mp4"
    place.parent.mkdir()
    place.write_text("precious")
    report = run("a.mp4", "deep/er/b.avi")
    assert report.failed == {"a.mp4": f"{place} is there already and is not a copy made by this tool; move it away"}
    assert report.done == 1
    assert place.read_text() == "precious"


def test_two_sources_of_one_copy_are_refused(run, root, copies):
    shutil.copy(root / "a.mp4", root / "a.avi")
    with pytest.raises(ValueError, match=r"^a\.avi and a\.mp4: both would be copied to .*copies/a\.mp4; rename one$"):
        run("a.mp4", "a.avi")
    assert copies() == []


def test_a_copy_never_replaces_a_source(run, root, tmp_path):
    with pytest.raises(ValueError, match="root: is the folder of the sources; name another one for the copies"):
        run("a.mp4", target=root)
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(ValueError, match="link: is the folder of the sources"):
        run("a.mp4", target=tmp_path / "link")
    (root / "deep" / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^a\.mp4: its copy would replace deep/a\.mp4"):
        run("deep/a.mp4", "a.mp4", target=root / "deep")


def test_a_source_outside_of_the_root_is_refused(run, root):
    with pytest.raises(ValueError, match=r"a\.mp4: lies outside of .*deep, so it has no place in "):
        run("a.mp4", root=root / "deep")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"gop": 0}, "gop: found 0"), ({"workers": 0}, "workers: found 0"), ({"short_side": 7}, "short_side: found 7")],
)
def test_refused_before_anything_is_made(run, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run("a.mp4", **options)
    assert not (tmp_path / "copies").exists()


def test_without_the_encoder(run, monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"mpeg4"})
    with pytest.raises(ValueError, match="has no encoder libx264"):
        run("a.mp4")


JOBS = """
import errno, os, signal, time
from slowfast.datasets import transcode

copy = transcode._transcode

def act(task):
    part = task.target.with_name(task.target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if task.name == "a.mp4":
        part.touch()
        time.sleep(1000)
    if task.name == "deep/er/b.avi":
        part.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return copy(task)

def full(task):
    return transcode._Made(reason="no space left on device", number=errno.ENOSPC)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    (tmp_path / "transcode_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    import transcode_jobs

    yield transcode_jobs
    del sys.modules["transcode_jobs"]


def test_a_hang_and_a_crash_leave_nothing_behind(run, copies, jobs, monkeypatch, root):
    shutil.copy(root / "a.mp4", root / "c.mp4")
    monkeypatch.setattr(transcode, "_transcode", jobs.act)
    report = run("a.mp4", "deep/er/b.avi", "c.mp4", timeout_seconds=3, workers=2)
    assert report.failed == {"a.mp4": "time-out after 3 s", "deep/er/b.avi": "the decoder crashed (SIGSEGV)"}
    assert report.done == 1
    assert copies() == ["c.mp4"]


def test_a_stopped_run_leaves_no_half_copy_and_goes_on(run, copies, jobs, monkeypatch, root):
    shutil.copy(root / "a.mp4", root / "0.mp4")
    monkeypatch.setattr(transcode, "_transcode", jobs.act)
    take = transcode._Transcoding.take

    def interrupted(self, outcome, known):
        take(self, outcome, known)
        raise KeyboardInterrupt

    monkeypatch.setattr(transcode._Transcoding, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("a.mp4", "0.mp4", workers=2)
    assert copies() == ["0.mp4"]
    assert multiprocessing.active_children() == []
    monkeypatch.undo()
    report = run("a.mp4", "0.mp4")
    assert (report.done, report.skipped) == (1, 1)


def test_a_full_disk_ends_the_run(run, jobs, monkeypatch, tmp_path):
    monkeypatch.setattr(transcode, "_transcode", jobs.full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run("a.mp4", "deep/er/b.avi")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "copies" / "a.mp4")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_the_error_of_a_full_disk_arrives(run, monkeypatch, root, tmp_path):
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "a.mp4.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        run("a.mp4")
    assert not (tmp_path / "copies" / "a.mp4").exists()
