import json
import multiprocessing
import os
import sys

import av
import pytest

from slowfast.datasets import inspection
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.inspection import inspect_video, inspect_videos, relative_name


@pytest.fixture(scope="module")
def videos(tmp_path_factory, write_numbered):
    """Good ones, and one of each kind of bad ones."""
    root = tmp_path_factory.mktemp("videos")
    (root / "deep").mkdir()
    write_numbered(root / "a.mp4", 30, gop=10)
    write_numbered(root / "deep" / "b.mp4", 40, gop=40, bframes=2, rate=30)
    write_numbered(root / "c.avi", 20, codec="mpeg4", gop=12, bframes=2)
    whole = write_numbered(root / "cut.avi", 60, codec="mpeg4", gop=12).read_bytes()
    (root / "cut.avi").write_bytes(whole[: len(whole) * 8 // 10])
    (root / "text.mp4").write_text("not a video\n" * 50)
    (root / "empty.mp4").touch()
    (root / "deep" / "folder.mp4").mkdir()
    names = ["text.mp4", "a.mp4", "gone.mp4", "deep/b.mp4", "empty.mp4", "c.avi", "cut.avi", "deep/folder.mp4"]
    return root, [root / name for name in names]


REASONS = {
    "text.mp4": "invalid data found when processing input",
    "gone.mp4": "no such file or directory",
    "empty.mp4": "the file is empty",
    "deep/folder.mp4": "is a directory",
}


def run(videos, record, **options):
    root, paths = videos
    return inspect_videos(paths, root=root, record=record, **{"workers": 1, **options})


@pytest.mark.parametrize("mode", ["open", "decode"])
def test_report(videos, tmp_path, mode):
    report = run(videos, tmp_path / "record.jsonl", mode=mode)
    cut = report.failed.pop("cut.avi")
    assert cut.startswith("the file is truncated: it holds ")
    assert cut.endswith(" of 60 frames")
    assert report.failed == REASONS
    assert list(report.failed) == ["text.mp4", "gone.mp4", "empty.mp4", "deep/folder.mp4"]
    assert (report.checked, report.reused, report.damaged) == (8, 0, {})
    assert report.stats.videos == 3
    assert report.stats.frames == (20, 30, 40)
    assert report.stats.sizes == {"64x48": 3}
    assert report.stats.fps == {"25": 2, "30": 1}
    assert report.stats.b_frames == pytest.approx(2 / 3)
    assert multiprocessing.active_children() == []


def test_a_second_run_opens_nothing(videos, tmp_path, monkeypatch):
    first = run(videos, tmp_path / "record.jsonl")
    monkeypatch.setattr(inspection, "_inspect", None)
    again = inspect_videos(
        [path for path in videos[1] if path.name != "folder.mp4"],
        root=videos[0],
        record=tmp_path / "record.jsonl",
        workers=1,
    )
    assert (again.checked, again.reused) == (1, 6)  # the missing one is looked for again
    assert again.stats == first.stats
    assert again.failed == {name: reason for name, reason in first.failed.items() if name != "deep/folder.mp4"}


def test_it_goes_on_where_it_stopped(videos, tmp_path):
    record = tmp_path / "record.jsonl"
    whole = run(videos, record)
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:4]) + lines[4][:40])
    again = run(videos, record)
    assert (again.reused, again.failed, again.stats) == (3, whole.failed, whole.stats)


def test_a_changed_video_and_another_mode_are_looked_at(tmp_path, write_numbered):
    path, record = write_numbered(tmp_path / "a.mp4", 10), tmp_path / "record.jsonl"

    def look(mode="open"):
        report = inspect_videos([path], root=tmp_path, record=record, workers=1, mode=mode)
        return report.reused, report.stats.frames[0]

    assert look() == (0, 10)
    assert look() == (1, 10)
    assert look("decode") == (0, 10)
    write_numbered(path, 12)
    assert look() == (0, 12)
    os.utime(path, ns=(1, 1))
    assert look() == (0, 12)


def test_an_entry_of_another_version_is_not_used(videos, tmp_path):
    record = tmp_path / "record.jsonl"
    run(videos, record)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    for line in lines[1:]:
        if line["facts"]:
            line["facts"]["smell"] = 1
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(videos, record).reused == 3  # the lasting failures: a folder is tried again


def test_a_repeated_path_counts_once(videos, tmp_path):
    root, _ = videos
    paths = [root / "a.mp4", root / "deep" / ".." / "a.mp4"]
    assert inspect_videos(paths, root=root, record=tmp_path / "r", workers=1).checked == 1


def test_no_video(tmp_path):
    report = inspect_videos([], root=tmp_path, record=tmp_path / "r", workers=1)
    assert (report.checked, report.failed, report.stats) == (0, {}, None)


JOBS = """
import os, signal, time
from slowfast.datasets import inspection

look = inspection._inspect

def act(task):
    if task.name == "a.mp4":
        time.sleep(1000)
    if task.name == "c.avi":
        os.kill(os.getpid(), signal.SIGSEGV)
    return look(task)
"""


@pytest.fixture
def dangerous(tmp_path, monkeypatch):
    """Over a.mp4 the decoder hangs, over c.avi it crashes."""
    (tmp_path / "inspection_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    import inspection_jobs

    yield monkeypatch.setattr(inspection, "_inspect", inspection_jobs.act)
    del sys.modules["inspection_jobs"]


@pytest.mark.usefixtures("dangerous")
def test_a_hang_and_a_crash_cost_one_video_each_and_are_tried_again(videos, tmp_path, monkeypatch):
    report = run(videos, tmp_path / "record.jsonl", timeout_seconds=3, workers=2)
    assert report.failed["a.mp4"] == "time-out after 3 s"
    assert report.failed["c.avi"] == "the decoder crashed (SIGSEGV)"
    assert report.stats.videos == 1
    assert multiprocessing.active_children() == []
    monkeypatch.undo()
    again = run(videos, tmp_path / "record.jsonl")
    assert "a.mp4" not in again.failed
    assert again.stats.videos == 3
    assert again.reused == 4


def test_damaged_pictures_show_when_decoding(tmp_path, write_numbered):
    path = write_numbered(tmp_path / "a.mp4", 60, gop=20)
    with av.open(str(path)) as container:
        places = [packet.pos + packet.size // 2 for packet in container.demux(video=0) if packet.is_keyframe]
    content = bytearray(path.read_bytes())
    for place in places[1:]:
        content[place : place + 8] = b"\x55" * 8
    path.write_bytes(content)
    assert inspect_video(path).damaged == 0
    damaged = inspect_video(path, mode="decode").damaged
    assert damaged > 0
    report = inspect_videos([path], root=tmp_path, record=tmp_path / "record", workers=1, mode="decode")
    assert report.failed == {}
    assert report.damaged["a.mp4"].startswith(f"{damaged} of ")


def test_facts(videos):
    facts = inspect_video(videos[0] / "deep" / "b.mp4", mode="decode")
    assert (facts.frames, facts.fps, facts.width, facts.height) == (40, 30.0, 64, 48)
    assert (facts.codec, facts.b_frames, facts.longest_gop) == ("h264", True, 40)
    assert facts.size_bytes == (videos[0] / "deep" / "b.mp4").stat().st_size
    assert inspect_video(videos[0] / "a.mp4").longest_gop == 10


def test_every_failure_is_one_line(videos):
    for name in (*REASONS, "cut.avi"):
        with pytest.raises(DecodeError) as caught:
            inspect_video(videos[0] / name, mode="decode")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "look"}, "mode: found 'look', allowed: open, decode"),
        ({"workers": 0}, "workers: found 0, allowed: 1 and more"),
        ({"timeout_seconds": -1}, "timeout_seconds: found -1, allowed: more than 0"),
    ],
)
def test_refused(videos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(videos, tmp_path / "record.jsonl", **options)


def test_names(tmp_path, monkeypatch):
    assert relative_name(tmp_path / "a" / "b.mp4", tmp_path) == "a/b.mp4"
    assert relative_name(tmp_path / "b.mp4", tmp_path / "a") == (tmp_path / "b.mp4").as_posix()
    monkeypatch.chdir(tmp_path)
    assert relative_name("a/b.mp4", ".") == "a/b.mp4"
    assert relative_name(tmp_path / "a" / "b.mp4", "a") == "b.mp4"
