"""The lists of UCF101 as its authors publish them."""

import zipfile
from collections import Counter

import pytest

from slowfast.datasets.annotations.ucf101 import read_ucf101

FIRST_TEST = "ApplyEyeMakeup/v_ApplyEyeMakeup_g090_c01.avi"


@pytest.fixture(scope="module")
def written(ucf101_files, tmp_path_factory):
    """The folder that holds ucfTrainTestlist, unchanged."""
    folder = tmp_path_factory.mktemp("ucf")
    (folder / "ucfTrainTestlist").mkdir()
    for name, text in ucf101_files.items():
        (folder / "ucfTrainTestlist" / name).write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.fixture(scope="module")
def lists(written, label_db):
    from slowfast.datasets.annotations.files import AnnotationRequest

    request = AnnotationRequest(annotations=written, class_files=label_db / "ucf101")
    return read_ucf101(request), request


def test_published_numbers_of_rows(lists):
    lengths = {name: len(entry.rows) for name, entry in lists[0].items()}
    assert (
        lengths
        | {
            "full/test": 13320,
            "split1/train": 9537,
            "split1/test": 3783,
            "split2/train": 9586,
            "split2/test": 3734,
            "split3/train": 9624,
            "split3/test": 3696,
            "few_shot/2/train": 202,
            "few_shot/4/train": 404,
            "few_shot/8/train": 808,
            "few_shot/16/train": 1616,
            "base_to_novel/seed1/train": 816,
            "base_to_novel/seed2/train": 816,
            "base_to_novel/seed3/train": 816,
            "base_to_novel/base_test": 2088,
            "base_to_novel/novel_test": 1695,
            "episodic/ucf101/train": 9154,
            "episodic/ucf101/val": 1421,
            "episodic/ucf101/test": 2745,
        }
        == lengths
    )
    assert [name for name in lengths if name.startswith("half")] == [f"half{draw}/test" for draw in range(10)]


def test_labels_index_the_class_files(lists, label_db, names_of):
    names = names_of("ucf101")
    for name in ("split1/train", "split2/test"):
        for video, label in lists[0][name].rows:
            assert video.partition("/")[0].casefold() == names[label].replace(" ", "").casefold()
    base = names_of("ucf101", "base_to_novel/base_index2cls")
    for video, label in lists[0]["base_to_novel/seed2/train"].rows:
        assert video.partition("/")[0].casefold() == base[label].replace(" ", "").casefold()


def test_shots_come_from_the_training_videos_of_split_1(lists):
    train, test = set(lists[0]["split1/train"].rows), {video for video, _ in lists[0]["split1/test"].rows}
    for shots in (2, 4, 8, 16):
        rows = lists[0][f"few_shot/{shots}/train"].rows
        assert set(rows) <= train
        assert set(Counter(label for _, label in rows).values()) == {shots}
    for run in (1, 2, 3):
        assert {video for video, _ in lists[0][f"base_to_novel/seed{run}/train"].rows}.isdisjoint(test)
    assert lists[0]["base_to_novel/seed1/train"].rows != lists[0]["base_to_novel/seed2/train"].rows


def test_halves_divide_the_test_videos(lists):
    base, novel = ({video for video, _ in lists[0][f"base_to_novel/{half}_test"].rows} for half in ("base", "novel"))
    assert base.isdisjoint(novel)
    assert base | novel == {video for video, _ in lists[0]["split1/test"].rows}


def test_half_draws_have_classes_of_their_own(lists):
    entry = lists[0]["half3/test"]
    assert entry.classes == "splits/half3/index2cls.json"
    assert {label for _, label in entry.rows} == set(range(50))


def test_sources_are_remembered(lists, written):
    names = {path.rpartition("/")[2]: digest for path, digest in lists[1].sources.items()}
    assert len(names) == 7
    assert len(names["classInd.txt"]) == 64


def test_folder_itself_and_archive_give_the_same(lists, written, ask, tmp_path):
    archive = tmp_path / "UCF101TrainTestSplits-RecognitionTask.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (written / "ucfTrainTestlist").iterdir():
            file.write(path, f"ucfTrainTestlist/{path.name}")
            file.writestr(f"__MACOSX/ucfTrainTestlist/{path.name}", "not this")
    assert read_ucf101(ask("ucf101", archive)) == lists[0]
    assert read_ucf101(ask("ucf101", written / "ucfTrainTestlist")) == lists[0]


def test_byte_order_mark_line_ends_and_blank_lines_do_not_matter(lists, ucf101_files, write_files, ask):
    changed = {
        name: "\ufeff" + text.replace("\r\n", "\n").replace("\n", "\r\n") + "\r\n\r\n"
        for name, text in ucf101_files.items()
    }
    assert read_ucf101(ask("ucf101", write_files("crlf", changed))) == lists[0]


FAULTS = {
    "unknown class": (
        "testlist02.txt",
        lambda text: text.replace("Archery/", "Archerie/", 1),
        r"testlist02\.txt:\d+: unknown class 'Archerie', not in .*index2cls\.json; the nearest is 'Archery'",
    ),
    "class index": (
        "classInd.txt",
        lambda text: text.replace("3 Archery", "Archery"),
        r"classInd\.txt:3: expected a number and a class name, found 'Archery'",
    ),
    "other class number": (
        "trainlist01.txt",
        lambda text: text.replace("_g000_c01.avi 1\n", "_g000_c01.avi 2\n", 1),
        r"trainlist01\.txt:1: .*_g000_c01\.avi' has class number 2, which is another class",
    ),
    "class number": (
        "trainlist01.txt",
        lambda text: text.replace(" 1\n", " one\n", 1),
        r"trainlist01\.txt:1: expected a class number after the video, found 'one'",
    ),
    "no folder": (
        "testlist01.txt",
        lambda text: text.replace("ApplyEyeMakeup/", "", 1),
        r"testlist01\.txt:1: expected Class/video\.avi, found 'v_ApplyEyeMakeup_g090_c01\.avi'",
    ),
    "row lost": (
        "trainlist03.txt",
        lambda text: text.partition("\n")[2],
        r"list split3/train \(trainlist03\.txt\) has 9623 rows, the official one has 9624; --any-counts accepts it",
    ),
    "row twice": (
        "testlist01.txt",
        lambda text: text + FIRST_TEST + "\n",
        r"testlist01\.txt:3784: '.*' occurs twice, first at .*testlist01\.txt:1",
    ),
    "trained and tested": (
        "trainlist01.txt",
        lambda text: text + f"{FIRST_TEST} 1\n",
        r"testlist01\.txt:1: '.*' is a training video too, at .*trainlist01\.txt:9538",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(ucf101_files, write_files, ask, fault):
    name, change, message = FAULTS[fault]
    folder = write_files("ucf", ucf101_files, **{name: change(ucf101_files[name])})
    assert change(ucf101_files[name]) != ucf101_files[name]
    with pytest.raises(ValueError, match=message) as caught:
        read_ucf101(ask("ucf101", folder))
    assert "\n" not in str(caught.value)


def test_absent_file(ucf101_files, write_files, ask):
    files = {name: text for name, text in ucf101_files.items() if name != "testlist03.txt"}
    with pytest.raises(ValueError, match=r"has no testlist03\.txt; expected the ucfTrainTestlist folder"):
        read_ucf101(ask("ucf101", write_files("ucf", files)))


def test_any_counts_takes_a_part(write_files, ask):
    rows = {f"{side}list0{split}.txt": "" for side in ("train", "test") for split in (1, 2, 3)}
    rows |= {
        "classInd.txt": "1 ApplyEyeMakeup\n3 Archery\n",
        "trainlist01.txt": "Archery/a.avi 3\nArchery/b.avi 3\nApplyEyeMakeup/c.avi 1\n",
        "testlist01.txt": "Archery/d.avi\n",
    }
    lists = read_ucf101(ask("ucf101", write_files("part", rows), any_counts=True))
    assert lists["split1/train"].official == 9537
    assert lists["few_shot/2/train"].rows == (
        ("ApplyEyeMakeup/c.avi", 0),
        ("Archery/a.avi", 2),
        ("Archery/b.avi", 2),
    )
    with pytest.raises(ValueError, match=r"list split1/train .* has 3 rows"):
        read_ucf101(ask("ucf101", write_files("again", rows)))
