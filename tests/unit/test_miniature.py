"""The miniature datasets are what their names say."""

import csv
import json

import pytest

from slowfast.datasets.decode import probe, read_frames

NAMES = ("ucf101", "hmdb51", "k400", "k600", "ssv2", "folder")


@pytest.fixture(scope="module")
def label_db(request):
    return request.config.rootpath / "label_db"


def numbered(label_db, file):
    return list(json.loads((label_db / f"{file}.json").read_text(encoding="utf-8")).values())


@pytest.mark.parametrize("name", NAMES)
def test_videos_are_there_and_of_known_classes(miniature, label_db, name):
    made = miniature(name)
    assert made.videos
    assert all((made.root / path).is_file() for path in made.videos)
    assert len({(made.root / path).read_bytes() for path in made.videos}) == len(made.videos)
    if name != "folder":
        assert set(made.classes) <= set(numbered(label_db, f"{name}/index2cls"))


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "k400", "ssv2"])
def test_both_halves_have_classes(miniature, label_db, name):
    for half in ("base", "novel"):
        ids = json.loads((label_db / name / "base_to_novel" / f"{half}_ids.json").read_text(encoding="utf-8"))
        names = numbered(label_db, f"{name}/index2cls")
        assert len(set(miniature(name).classes) & {names[label] for label in ids}) >= 3


def test_zero_shot_splits_of_kinetics_differ(miniature, label_db):
    classes = set(miniature("k600").classes)
    splits = [classes & set(numbered(label_db, f"k600/zero_shot_split{number}_index2cls")) for number in (1, 2, 3)]
    assert [len(split) for split in splits] == [3, 3, 3]
    assert len(splits[0] & splits[1] & splits[2]) == 2
    assert classes - set.union(*splits) == {"abseiling"}
    assert not set.union(*splits) & set(numbered(label_db, "k400/index2cls"))


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_files(miniature, write_miniature, tmp_path, name):
    made, again = miniature(name), write_miniature(name, tmp_path / name)
    files = {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert files == {path.relative_to(made.root.parent) for path in made.root.parent.rglob("*") if path.is_file()}
    for file in files:
        assert (tmp_path / name / file).read_bytes() == (made.root.parent / file).read_bytes(), file
    assert again.videos == made.videos


def test_ucf_lists(miniature):
    made = miniature("ucf101")
    folder = made.annotations / "ucfTrainTestlist"
    assert (folder / "classInd.txt").read_bytes().startswith(b"1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n")
    tests = [(folder / f"testlist0{split}.txt").read_text(encoding="utf-8").split() for split in (1, 2, 3)]
    assert not set(tests[0]) & set(tests[1])
    for split, test in enumerate(tests, start=1):
        text = (folder / f"trainlist0{split}.txt").read_text(encoding="utf-8")
        rows = {tuple(row.split()) for row in text.splitlines()}
        assert {path for path, _ in rows} | set(test) == set(made.videos)
        assert ("HandstandPushups/v_HandStandPushups_g22_c01.avi", "37") in rows


def test_hmdb_lists(miniature):
    made = miniature("hmdb51")
    lists = sorted((made.annotations / "testTrainMulti_7030_splits").iterdir())
    assert len(lists) == 3 * 51
    rows = (made.annotations / "testTrainMulti_7030_splits" / "brush_hair_test_split1.txt").read_text(encoding="utf-8")
    assert [row[-2] for row in rows.splitlines()] == list("1111220")
    assert rows.startswith("April_09_brush_hair_u_nm_np1_fr_goo_0.avi 1 \n")


@pytest.mark.parametrize("name", ["k400", "k600"])
def test_kinetics_lists(miniature, name):
    made = miniature(name)
    for split in ("train", "val", "test"):
        with (made.annotations / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            times = f"{int(row['time_start']):06d}_{int(row['time_end']):06d}"
            folder = f"{split}/{row['label']}" if name == "k600" else split
            assert made.videos[f"{folder}/{row['youtube_id']}_{times}.mp4"] == row["label"]
    assert any(path.split("/")[-1].startswith("-") for path in made.videos)


def test_ssv2_lists(miniature):
    made = miniature("ssv2")
    labels = json.loads((made.annotations / "labels.json").read_text(encoding="utf-8"))
    rows = json.loads((made.annotations / "train.json").read_text(encoding="utf-8"))
    assert len(rows) == 4 * len(made.classes)
    for row in rows:
        name = row["template"].replace("[", "").replace("]", "")
        assert made.videos[f"{row['id']}.webm"] == name
        assert name in labels


@pytest.mark.parametrize("name", ["ucf101", "k400", "ssv2"])
def test_videos_can_be_decoded(miniature, name):
    made = miniature(name)
    for path in list(made.videos)[:3]:
        info = probe(made.root / path)
        assert info.num_frames == 12
        assert read_frames(made.root / path, range(info.num_frames)).shape == (12, 32, 32, 3)
