"""The lists of HMDB51 as its authors publish them."""

import pytest

from slowfast.datasets.annotations.hmdb51 import read_hmdb51


def test_published_numbers_of_rows(hmdb51_files, write_files, ask):
    parent = write_files("all/testTrainMulti_7030_splits", hmdb51_files).parent
    lists = read_hmdb51(ask("hmdb51", parent))
    lengths = {name: len(entry.rows) for name, entry in lists.items()}
    assert lengths == {
        "full/test": 5100,
        **{f"split{split}/train": 3570 for split in (1, 2, 3)},
        **{f"split{split}/test": 1530 for split in (1, 2, 3)},
        **{f"half{draw}/test": 2500 for draw in range(10)},
        **{f"few_shot/{shots}/train": 51 * shots for shots in (2, 4, 8, 16)},
        **{f"base_to_novel/seed{run}/train": 416 for run in (1, 2, 3)},
        "base_to_novel/base_test": 780,
        "base_to_novel/novel_test": 750,
        "episodic/hmdb51/train": 4280,
        "episodic/hmdb51/val": 1194,
        "episodic/hmdb51/test": 1292,
    }
    assert read_hmdb51(ask("hmdb51", parent / "testTrainMulti_7030_splits")) == lists


def test_videos_lie_in_folders_of_their_classes_and_unused_ones_nowhere(hmdb51_files, write_files, ask, names_of):
    lists = read_hmdb51(ask("hmdb51", write_files("hmdb", hmdb51_files)))
    names = names_of("hmdb51")
    for video, label in lists["full/test"].rows:
        assert video.partition("/")[0] == names[label].replace(" ", "_")
    unused_in_1 = ("brush_hair/clip(137)_brush_hair_f_cm_np1_fr_med_0.avi", 0)
    assert unused_in_1 in lists["split2/train"].rows
    assert all(unused_in_1 not in lists[name].rows for name in ("full/test", "split1/train", "split1/test"))
    assert unused_in_1 in lists["episodic/hmdb51/train"].rows


FAULTS = {
    "flag": (
        "cartwheel_test_split2.txt",
        lambda text: text.replace(" 1 \n", " 3 \n", 1),
        r"cartwheel_test_split2\.txt:1: expected a file name and 0, 1 or 2, found 'clip\(0\).*avi 3'",
    ),
    "no flag": (
        "cartwheel_test_split2.txt",
        lambda text: text.replace(" 1 \n", "\n", 1),
        r"cartwheel_test_split2\.txt:1: expected a file name and 0, 1 or 2",
    ),
    "row lost": (
        "wave_test_split3.txt",
        lambda text: text.partition("\n")[2],
        r"list split3/train .* has 3569 rows, the official one has 3570; --any-counts accepts it",
    ),
    "row twice": (
        "wave_test_split3.txt",
        lambda text: text + text.partition("\n")[0] + "\n",
        r"wave_test_split3\.txt:139: 'wave/clip\(0\).*' occurs twice, first at .*wave_test_split3\.txt:1$",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(hmdb51_files, write_files, ask, fault):
    name, change, message = FAULTS[fault]
    folder = write_files("hmdb", hmdb51_files, **{name: change(hmdb51_files[name])})
    with pytest.raises(ValueError, match=message):
        read_hmdb51(ask("hmdb51", folder))


def test_unknown_class(hmdb51_files, write_files, ask):
    folder = write_files("hmdb", hmdb51_files, **{"cartweel_test_split1.txt": "a.avi 1\n"})
    with pytest.raises(ValueError, match=r"unknown class 'cartweel', .*; the nearest is 'cartwheel'"):
        read_hmdb51(ask("hmdb51", folder))


def test_absent_file_and_packed_archive(hmdb51_files, write_files, ask, tmp_path):
    files = {name: text for name, text in hmdb51_files.items() if name != "shoot_bow_test_split2.txt"}
    folder = write_files("hmdb", files)
    with pytest.raises(ValueError, match=r"has no shoot_bow_test_split2\.txt \(1 classes lack one\)"):
        read_hmdb51(ask("hmdb51", folder))
    with pytest.raises(ValueError, match="has to be unpacked"):
        read_hmdb51(ask("hmdb51", tmp_path / "test_train_splits.rar"))


def test_any_counts_takes_some_classes(write_files, ask):
    files = {f"wave_test_split{split}.txt": "a.avi 1\nb.avi 2\nc.avi 0\n" for split in (1, 2, 3)}
    lists = read_hmdb51(ask("hmdb51", write_files("part", files), any_counts=True))
    assert lists["full/test"].rows == (("wave/a.avi", 50), ("wave/b.avi", 50))
