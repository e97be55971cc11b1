"""Finding videos below a folder, and writing lists."""

import json
import os

import pytest

from slowfast.datasets.annotation import read_annotations
from slowfast.datasets.prepared import DraftList, read_manifest
from slowfast.datasets.video_files import (
    ListWriter,
    MissingVideosError,
    expected_path,
    find_videos,
    index_videos,
    missing_videos,
    without,
    write_or_remove,
)


@pytest.fixture
def folder(tmp_path):
    """Makes empty files: folder(*paths) -> root."""

    def make(*paths):
        for path in paths:
            file = tmp_path / "videos" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return tmp_path / "videos"

    return make


def drafted(*videos, **options):
    return DraftList(
        rows=tuple((video, number) for number, video in enumerate(videos)), classes="index2cls.json", **options
    )


# ------------------------------------------------------------------------------------------------------------- looking


def test_index_has_videos_in_order_whatever_their_case(folder):
    root = folder("b/x.AVI", "a/y.mp4", "a/notes.txt", "a/.hidden", "z.webm")
    assert index_videos(root).paths == ("a/y.mp4", "b/x.AVI", "z.webm")


def test_links_are_followed_once(folder, tmp_path):
    root = folder("a/x.mp4")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y.mp4").touch()
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "self.mp4").symlink_to("self.mp4")
    (root / "gone.mp4").symlink_to("nothing.mp4")
    (root / "a" / "z.mp4").symlink_to(tmp_path / "elsewhere" / "y.mp4")
    assert index_videos(root).paths == ("a/x.mp4", "a/z.mp4", "b/y.mp4")


def test_a_folder_can_be_left_out(folder):
    root = folder("a/x.mp4", "small/a/x.mp4")
    assert index_videos(root, leave_out=root / "small").paths == ("a/x.mp4",)
    assert len(index_videos(root, leave_out=root / "later").paths) == 2


def test_nothing_to_index(folder, tmp_path):
    with pytest.raises(ValueError, match=r"^--root .*: no such folder$"):
        index_videos(tmp_path / "videos")
    with pytest.raises(ValueError, match=r"^--root .*: holds no video file \("):
        index_videos(folder("notes.txt"))


@pytest.mark.parametrize(
    ("files", "video", "found"),
    [
        (["Archery/v_1.avi", "deep/v_1.avi"], "Archery/v_1.avi", "Archery/v_1.avi"),
        (["Archery/v_1.mp4", "Diving/v_1.mp4"], "Archery/v_1.avi", "Archery/v_1.mp4"),
        (["UCF-101/Archery/v_1.avi"], "Archery/v_1.avi", "UCF-101/Archery/v_1.avi"),
        (["v_1.webm"], "Archery/v_1.avi", "v_1.webm"),
        (["v_1.b.avi", "v_1.avi"], "x/v_1.b.avi", "v_1.b.avi"),
        (["v_1.avi"], "x/v_2.avi", None),
        (["V_1.avi"], "x/v_1.avi", None),
        (["abc_000001_000011.mp4"], "val/abc_000001_000011", "abc_000001_000011.mp4"),
        (["some class/abc.mp4"], "val/abc_000001_000011", "some class/abc.mp4"),
        (["abc_000002_000012.mp4"], "val/abc_000001_000011", None),
        (["abc_000002_000012.mp4"], "val/abc.mp4", "abc_000002_000012.mp4"),
        (["train/abc.mp4", "val_256/abc.mp4"], "val/abc_000001_000011", "val_256/abc.mp4"),
        (["train/c/abc.mp4", "videos_val/c/abc.mp4"], "train/abc_000001_000011", "train/c/abc.mp4"),
        (["k600/test/c/abc.mp4", "k600/validate/c/abc.mp4"], "val/abc", "k600/validate/c/abc.mp4"),
    ],
)
def test_where_a_video_is_found(folder, files, video, found):
    assert index_videos(folder(*files)).find(video) == found


@pytest.mark.parametrize(
    ("files", "video"),
    [
        (["a/v_1.avi", "b/v_1.mp4"], "c/v_1.avi"),
        (["val/a/abc.mp4", "val/b/abc.mp4"], "val/abc_000001_000011"),
        (["one/abc.mp4", "two/abc.mp4"], "val/abc_000001_000011"),
        (["abc_000001_000011.mp4", "abc_000020_000030.mp4"], "val/abc.mp4"),
    ],
)
def test_equally_good_files_are_both_named(folder, files, video):
    with pytest.raises(ValueError, match=r"may be .* or .*; leave one of them in the folder") as caught:
        index_videos(folder(*files)).find(video)
    assert all(file in str(caught.value) for file in (*files, video))


def test_two_videos_of_a_list_are_two_files(folder):
    index = index_videos(folder("abc.mp4"))
    with pytest.raises(
        ValueError, match=r"abc\.mp4: is both val/abc_000001_000011 and val/abc_000020_000030 of list x"
    ):
        find_videos(index, {"x": drafted("val/abc_000001_000011", "val/abc_000020_000030")})


@pytest.mark.parametrize("name", ["a,b.mp4", "a\nb.mp4", " a.mp4"])
def test_paths_that_a_list_cannot_hold(folder, name):
    index = index_videos(folder(name))
    with pytest.raises(ValueError, match="which annotation files cannot hold; rename it"):
        find_videos(index, {"x": drafted(name)})


def test_a_file_name_that_is_no_text(folder):
    root = folder("a.mp4")
    os.rename(root / "a.mp4", os.path.join(os.fsencode(root), b"\xff.mp4"))  # noqa: PTH104, PTH118 - bytes
    index = index_videos(root)
    with pytest.raises(ValueError, match="is not UTF-8; rename the file"):
        find_videos(index, {"x": drafted(*index.paths)})


def test_missing_videos_and_unusable_files(folder):
    index = index_videos(folder("a.mp4", "b.mp4"))
    drafts = {"x": drafted("a.mp4", "b.mp4", "c.mp4"), "y": drafted("a.mp4")}
    found = find_videos(index, drafts)
    assert found == {"x": ("a.mp4", "b.mp4", None), "y": ("a.mp4",)}
    assert missing_videos(drafts, found) == {"x": ["c.mp4"]}
    assert without(found, {"a.mp4"}) == {"x": (None, "b.mp4", None), "y": (None,)}


def test_expected_path():
    assert [expected_path(video) for video in ("a/b.avi", "val/abc_000001_000011")] == [
        "a/b.avi",
        "val/abc_000001_000011.mp4",
    ]


def test_a_file_without_lines_is_removed(tmp_path):
    write_or_remove(tmp_path / "x", ["a", "b"])
    assert (tmp_path / "x").read_text(encoding="utf-8") == "a\nb\n"
    write_or_remove(tmp_path / "x", [])
    write_or_remove(tmp_path / "x", [])
    assert not (tmp_path / "x").exists()


# ------------------------------------------------------------------------------------------------------------- writing


DRAFTS = {
    "full/test": drafted("c/a.avi", "c/b.avi", "val/abc", official=5, origin="list.txt"),
    "few_shot/2/train": drafted("c/a.avi"),
}
FOUND = {"full/test": ("c/a.avi", None, None), "few_shot/2/train": ("c/a.avi",)}


@pytest.fixture
def writer(tmp_path):
    def make(missing="keep", **options):
        defaults = {"sources": {"list.txt": "00"}, "class_files": {}}
        return ListWriter(
            folder=tmp_path / "db" / "toy", root=tmp_path / "videos", missing=missing, **{**defaults, **options}
        )

    return make


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def test_lists_and_manifest(writer, tmp_path):
    dataset = writer(seed=3, class_files={"index2cls.json": '{"0": "a", "1": "b", "2": "c"}'}).write(DRAFTS, FOUND)
    again = read_manifest(tmp_path / "db", "toy")
    assert again == dataset
    assert (again.root, again.seed, again.sources) == (str(tmp_path / "videos"), 3, {"list.txt": "00"})
    entry = again.lists["full/test"]
    assert (entry.rows, entry.official, entry.missing, entry.dropped, entry.origin) == (3, 5, 2, 0, "list.txt")
    rows = read_annotations(again.csv("full/test"), separator=",")
    assert [(row.path, row.label) for row in rows] == [("c/a.avi", 0), ("c/b.avi", 1), ("val/abc.mp4", 2)]
    assert again.label_set("full/test").names == ("a", "b", "c")
    missing = (tmp_path / "db/toy/splits/missing.txt").read_text(encoding="utf-8")
    assert missing == "full/test\tc/b.avi\nfull/test\tval/abc\n"


def test_dropped_rows_are_counted(writer, tmp_path):
    dataset = writer("drop").write(DRAFTS, FOUND)
    entry = dataset.lists["full/test"]
    assert (entry.rows, entry.missing, entry.dropped) == (1, 2, 2)
    assert dataset.csv("full/test").read_text(encoding="utf-8") == "c/a.avi,0\n"


def test_lists_that_lose_all_rows_are_left_out(writer):
    dataset = writer("drop").write(DRAFTS, {**FOUND, "few_shot/2/train": (None,)})
    assert list(dataset.lists) == ["full/test"]
    assert not dataset.csv("few_shot/2/train").exists()
    with pytest.raises(ValueError, match="none of the videos of any list is there"):
        writer("drop").write(DRAFTS, {"full/test": (None, None, None), "few_shot/2/train": (None,)})
    assert dataset.csv("full/test").exists()


def test_refused_lists_leave_the_earlier_ones(writer, tmp_path):
    everything = {name: tuple(video for video, _ in entry.rows) for name, entry in DRAFTS.items()}
    writer("refuse").write(DRAFTS, everything)
    before = contents(tmp_path / "db")
    with pytest.raises(
        MissingVideosError, match=r"^.*videos: 2 of 3 videos were not found, see .*missing\.txt; --missing keep"
    ):
        writer("refuse").write(DRAFTS, FOUND)
    after = contents(tmp_path / "db")
    assert len(after.pop("toy/splits/missing.txt").splitlines()) == 2
    assert after == before
    writer("refuse").write(DRAFTS, everything)
    assert contents(tmp_path / "db") == before


def test_lists_of_an_earlier_run_go_and_other_files_stay(writer, tmp_path):
    half = {"half0/test": DraftList(rows=(("c/a.avi", 0),), classes="splits/half0/index2cls.json")}
    files = {f"splits/half0/{name}.json": '{"0": "a"}' for name in ("index2cls", "rephrased")}
    writer(class_files=files).write({**DRAFTS, **half}, {**FOUND, "half0/test": ("c/a.avi",)})
    (tmp_path / "db/toy/splits/notes.txt").write_text("mine", encoding="utf-8")
    only = {"few_shot/2/train": DRAFTS["few_shot/2/train"]}
    writer().write(only, FOUND)
    assert sorted(contents(tmp_path / "db/toy/splits")) == ["few_shot/2/train.csv", "manifest.json", "notes.txt"]
    assert not (tmp_path / "db/toy/splits/half0").exists()


def test_an_interrupted_write_leaves_no_manifest(writer, tmp_path, monkeypatch):
    from slowfast.datasets import video_files

    writer().write(DRAFTS, FOUND)
    whole = video_files.atomic_write_text

    def fail_on_shots(path, text):
        if "few_shot" in str(path):
            raise OSError("disk full")
        whole(path, text)

    monkeypatch.setattr(video_files, "atomic_write_text", fail_on_shots)
    with pytest.raises(OSError, match="disk full"):
        writer().write(DRAFTS, FOUND)
    with pytest.raises(ValueError, match=r"manifest\.json: no such file"):
        read_manifest(tmp_path / "db", "toy")
    monkeypatch.undo()
    writer().write(DRAFTS, FOUND)
    assert json.loads(contents(tmp_path / "db")["toy/splits/manifest.json"])["dataset"] == "toy"
