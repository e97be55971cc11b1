"""From annotation files and videos to the lists of a dataset."""

import json
import shutil

import pytest

from slowfast.datasets.annotations.files import AnnotationRequest
from slowfast.datasets.annotations.preparation import (
    Drafts,
    Preparation,
    UndecodableVideosError,
    class_files,
    merged,
    own_class_files,
    read_official,
    read_own,
    read_sources,
)
from slowfast.datasets.draws import half_classes
from slowfast.datasets.prepared import DraftList, read_manifest
from slowfast.datasets.video_files import MissingVideosError


@pytest.fixture
def videos(miniature, tmp_path):
    """A copy of the videos of the miniature UCF101, to be damaged."""
    return shutil.copytree(miniature("ucf101").root, tmp_path / "videos")


@pytest.fixture
def prepare(miniature, label_db, videos, tmp_path):
    def run(**options):
        said = []
        preparation = Preparation(
            dataset="ucf101", root=videos, output=tmp_path / "db", **{"say": said.append, **options}
        )
        annotations = miniature("ucf101").annotations
        request = AnnotationRequest(annotations=annotations, class_files=label_db / "ucf101", any_counts=True)
        drafts = read_official("ucf101", request, output=preparation.folder)
        return preparation.run(drafts, preparation.index()), said

    return run


def test_a_dataset_elsewhere_is_complete_by_itself(prepare, tmp_path, label_db, videos):
    dataset, said = prepare()
    assert said == [f"48 video files below {videos}"]
    again = read_manifest(tmp_path / "db", "ucf101")
    assert again == dataset
    assert len(again.sources) == 7
    for name, entry in again.lists.items():
        # Those of episodes are spelled as their source does, and not rephrased.
        for names in ("index2cls",) if entry.classes.startswith("episodic/") else ("index2cls", "rephrased"):
            labels = again.label_set(name, names=names)
            rows = again.csv(name).read_text(encoding="utf-8").splitlines()
            assert len(rows) == entry.rows
            assert {int(row.rpartition(",")[2]) for row in rows} <= set(range(len(labels)))
    assert (tmp_path / "db/ucf101/dataset.yaml").read_bytes() == (label_db / "ucf101/dataset.yaml").read_bytes()
    for file in label_db.glob("ucf101/descriptors/*/*.json"):
        assert (tmp_path / "db" / file.relative_to(label_db)).read_bytes() == file.read_bytes()


def test_half_draws_have_both_wordings(prepare, label_db):
    dataset, _ = prepare()
    for names in ("index2cls", "rephrased"):
        whole = json.loads((label_db / "ucf101" / f"{names}.json").read_text(encoding="utf-8"))
        expected = tuple(whole[str(label)] for label in half_classes(101)[4])
        assert dataset.label_set("half4/test", names=names).names == expected


def test_the_same_folder_gets_no_copies(label_db, tmp_path):
    assert class_files(label_db / "ucf101", label_db / "ucf101") == {}
    assert class_files(tmp_path / "none", tmp_path / "other") == {}
    copied = class_files(label_db / "k600", tmp_path / "k600")
    descriptors = {f"descriptors/{kind}_descriptors/4_descriptors.json" for kind in ("spatio", "temporal")}
    assert {
        *("index2cls.json", "dataset.yaml", "zero_shot_split3_index2cls.json", "zero_shot_split3_rephrased.json"),
        *(*descriptors, "descriptors/index2cls.json"),
    } == {name for name in copied if "split" not in name or "split3" in name}


def test_descriptors_are_copied_with_the_list_that_numbers_them(label_db, tmp_path):
    texts = class_files(label_db / "hmdb51", tmp_path / "hmdb51")
    file = "descriptors/temporal_descriptors/4_descriptors.json"
    assert texts[file] == (label_db / "hmdb51" / file).read_text(encoding="utf-8")
    assert "descriptors/index2cls.json" not in texts  # its class list numbers them
    copy = tmp_path / "hmdb51" / file
    copy.parent.mkdir(parents=True)
    copy.write_text(texts[file], encoding="utf-8")
    assert class_files(label_db / "hmdb51", tmp_path / "hmdb51") == texts  # an earlier run was interrupted
    copy.write_text("{}", encoding="utf-8")  # its owner's
    assert set(texts) - set(class_files(label_db / "hmdb51", tmp_path / "hmdb51")) == {
        file, file.replace("temporal", "spatio")
    }  # fmt: skip


def test_no_class_files_without_draws(tmp_path):
    assert own_class_files(tmp_path, {}) == {}


@pytest.mark.parametrize("mode", ["open", "decode"])
def test_undecodable_videos(prepare, videos, tmp_path, mode):
    prepare()
    damaged = "Archery/v_Archery_g01_c01.avi"
    damaged = damaged if (videos / damaged).exists() else sorted(videos.rglob("*_g01_c01.avi"))[0].relative_to(videos)
    (videos / damaged).write_bytes(b"RIFF no video")
    before = (tmp_path / "db/ucf101/splits/manifest.json").read_bytes()
    with pytest.raises(UndecodableVideosError, match=r"1 videos cannot be decoded, see .*undecodable\.txt; --missing"):
        prepare(check=mode)
    assert (tmp_path / "db/ucf101/splits/manifest.json").read_bytes() == before
    listed = (tmp_path / "db/ucf101/splits/undecodable.txt").read_text(encoding="utf-8")
    assert listed.startswith(f"{damaged}\t")
    kept, said = prepare(check=mode, missing="keep")
    assert (kept.lists["full/test"].rows, kept.lists["full/test"].missing) == (48, 0)
    assert any("1 cannot be decoded" in line for line in said)
    dropped, _ = prepare(check=mode, missing="drop")
    assert (dropped.lists["full/test"].rows, dropped.lists["full/test"].missing) == (47, 1)
    assert str(damaged) not in dropped.csv("full/test").read_text(encoding="utf-8")


def test_missing_videos_are_refused(prepare, videos):
    next(videos.rglob("*.avi")).unlink()
    with pytest.raises(MissingVideosError, match="1 of 48 videos were not found"):
        prepare()


def test_copies_take_the_place_of_the_videos(prepare, videos):
    dataset, said = prepare(transcode=videos / "small")
    assert dataset.root == str(videos / "small")
    rows = dataset.csv("split1/test").read_text(encoding="utf-8").splitlines()
    assert all((videos / "small" / row.rpartition(",")[0]).is_file() for row in rows)
    assert all(".mp4," in row for row in rows)
    assert any(line.startswith("transcoded into") for line in said)
    again, said = prepare(transcode=videos / "small")
    assert again == dataset
    assert any("0 new, 48 earlier" in line for line in said)


def test_videos_that_cannot_be_copied_are_missing(prepare, videos):
    sorted(videos.rglob("*.avi"))[0].write_bytes(b"RIFF no video")
    with pytest.raises(UndecodableVideosError, match="1 videos cannot be decoded"):
        prepare(transcode=videos.parent / "small")
    dataset, _ = prepare(transcode=videos.parent / "small", missing="drop")
    assert dataset.lists["full/test"].missing == 1


def test_classes_of_another_dataset_are_not_replaced(miniature, tmp_path):
    preparation = Preparation(dataset="mine", root=miniature("folder").root, output=tmp_path)
    shares = {"val_share": 0.1, "test_share": 0.2, "seed": 0}
    index = preparation.index()
    drafts = read_own("mine", index, folder=preparation.folder, **shares)
    dataset = preparation.run(drafts, index)
    assert dataset.label_set("full/test").names == tuple(sorted(miniature("folder").classes))
    assert read_own("mine", index, folder=preparation.folder, **shares) == drafts
    (tmp_path / "mine/splits/manifest.json").unlink()
    (tmp_path / "mine/index2cls.json").write_text('{"0": "surfing"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"index2cls\.json: has other classes; choose another --name than 'mine'"):
        read_own("mine", index, folder=preparation.folder, **shares)


def drafts(origin, *names, **class_files):
    lists = {
        name: DraftList(rows=(("a.avi", 0),), classes=f"splits/{name}_index2cls.json", origin=origin) for name in names
    }
    return Drafts(lists=lists, class_files=class_files, sources={origin: "00"})


def test_published_draws_go_before_our_own_and_official_lists_before_those_of_checkouts():
    official = drafts(
        "official", "split1/test", "few_shot/2/train", "half0/test", "half1/test",
        "episodic/ucf101/train", "episodic/ucf101/test",
    )  # fmt: skip
    first = drafts("first", "split1/test", "half0/test", "episodic/ucf101/test", "episodic/ucf101/val")
    second = drafts("second", "half0/test", "few_shot/2/train", "full/train")
    both = merged(official, [first, second])
    assert {name: entry.origin for name, entry in both.lists.items()} == {
        "split1/test": "official",
        "few_shot/2/train": "second",
        "half0/test": "first",
        "half1/test": "official",
        "episodic/ucf101/train": "official",
        "episodic/ucf101/test": "first",
        "episodic/ucf101/val": "first",
        "full/train": "second",
    }
    assert list(both.sources) == ["official", "first", "second"]
    alone = merged(None, [first, second])
    assert alone.lists["half0/test"].origin == "first"
    assert merged(official, []) == official


@pytest.fixture
def clip_fsar(tmp_path, label_db):
    """A checkout of CLIP-FSAR with lists of HMDB51: a test video, and two validation classes in an order of its own."""
    folder = tmp_path / "CLIP-FSAR" / "configs" / "hmdb51"
    folder.mkdir(parents=True)
    names = json.loads((label_db / "hmdb51/episodic/hmdb51/test_index2cls.json").read_text(encoding="utf-8"))
    (folder / "1shot.yaml").write_text(f"TEST:\n  CLASS_NAME: {json.dumps(list(names.values()))}\n", encoding="utf-8")
    (folder / "test_few_shot.txt").write_text("test9//videos/talk/x.avi\n", encoding="utf-8")
    (folder / "val_few_shot.txt").write_text("val0//videos/smile/y.avi\nval1//videos/eat/z.avi\n", encoding="utf-8")
    return tmp_path / "CLIP-FSAR"


def test_published_episodic_lists_go_before_those_made_by_class(miniature, label_db, clip_fsar, tmp_path):
    annotations = miniature("hmdb51", episodic=True).annotations
    request = AnnotationRequest(annotations=annotations, class_files=label_db / "hmdb51", any_counts=True)
    places = {"label_db": label_db, "output": tmp_path / "db" / "hmdb51", "any_counts": True}
    own = read_sources("hmdb51", request, [], **places)
    both = read_sources("hmdb51", request, [clip_fsar], **places)
    assert both.lists["episodic/hmdb51/test"].rows == (("videos/talk/x.avi", 9),)
    assert both.lists["episodic/hmdb51/val"].rows == (("videos/smile/y.avi", 0), ("videos/eat/z.avi", 1))
    assert both.lists["episodic/hmdb51/train"] == own.lists["episodic/hmdb51/train"]
    file = "splits/episodic/hmdb51/val_index2cls.json"
    assert list(json.loads(both.class_files[file]).values()) == ["smile", "eat"]
    assert len(json.loads(own.class_files[file])) == 10
    assert file.replace("index2cls", "rephrased") in own.class_files


def test_official_files_name_the_classes_of_imported_lists(miniature, label_db, tmp_path):
    made = miniature("ssv2")
    video, name = next(iter(made.videos.items()))
    folder = tmp_path / "CLIP-FSAR" / "ssv2_full"
    folder.mkdir(parents=True)
    (folder / "val_few_shot.txt").write_text(f"val0/{video.removesuffix('.webm')}\n", encoding="utf-8")
    request = AnnotationRequest(annotations=made.annotations, class_files=label_db / "ssv2", any_counts=True)
    places = {"label_db": label_db, "output": tmp_path / "db" / "ssv2", "any_counts": True}
    both = read_sources("ssv2", request, [folder.parent], **places)
    entry = both.lists["episodic/ssv2_full/val"]
    assert (entry.rows, entry.official) == (((video.removesuffix(".webm"), 0),), 1926)
    assert json.loads(both.class_files[entry.classes]) == {"0": name}


def test_own_folder_with_a_class_split(miniature, tmp_path):
    made = miniature("folder")
    preparation = Preparation(dataset="mine", root=made.root, output=tmp_path)
    split = tmp_path / "mine/episodic/mugs"
    split.mkdir(parents=True)
    for part, name in (("train", "Pouring tea"), ("val", "opening_a_jar"), ("test", "stacking cups")):
        (split / f"{part}_index2cls.json").write_text(json.dumps({"0": name}), encoding="utf-8")
    index = preparation.index()
    shares = {"val_share": 0.1, "test_share": 0.2, "seed": 0}
    dataset = preparation.run(read_own("mine", index, folder=preparation.folder, **shares), index)
    assert {name: entry.rows for name, entry in dataset.lists.items() if "episodic" in name} == {
        f"episodic/mugs/{part}": 10 for part in ("train", "val", "test")
    }
    assert dataset.label_set("episodic/mugs/val").names == ("opening_a_jar",)
    (split / "val_index2cls.json").write_text('{"0": "opening a can"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"unknown class 'opening a can', not in .*the nearest is 'opening a jar'"):
        read_own("mine", index, folder=preparation.folder, **shares)


def test_class_files_come_with_their_lists():
    def of(origin, *names):
        return drafts(
            origin, *names, **{f"splits/{name}_index2cls.json": origin for name in ("half0/test", "half1/test")}
        )

    both = merged(of("official", "half0/test", "half1/test"), [of("checkout", "half0/test")])
    assert both.class_files == {
        "splits/half0/test_index2cls.json": "checkout",
        "splits/half1/test_index2cls.json": "official",
    }
