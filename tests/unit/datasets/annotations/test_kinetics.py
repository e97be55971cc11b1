"""The lists of Kinetics-400 and Kinetics-600 in the formats of the releases."""

import csv
import io
import json

import pytest

from slowfast.datasets.annotations.kinetics import read_kinetics400, read_kinetics600

PARTS = ("train", "test")
HEADER = ("label", "youtube_id", "time_start", "time_end", "split")


def made_id(subset, label, clip):
    return f"{subset[0]}-{label:03d}_{clip:05d}"


def table(rows, header=HEADER):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def rows_of(names, subset, per_class, split=None, *, more=()):
    """Rows of `per_class` videos of each class, 100 of the classes `more`."""
    return [
        (name, made_id(subset, label, clip), 7 * clip, 7 * clip + 10, split or subset)
        for clip in range(100 if more else per_class)
        for label, name in enumerate(names)
        if clip < per_class or name in more
    ]


@pytest.fixture
def k400_files(names_of):
    names = names_of("k400")
    episodic = [name for part in PARTS for name in names_of("k400", f"episodic/kinetics100/{part}_index2cls")]
    return {
        "train.csv": table(rows_of(names, "train", 16, more=episodic)),
        "validate.csv": table(rows_of(names, "val", 2, "validate")),
        "test.csv": table([row[1:] for row in rows_of(names, "test", 1)], HEADER[1:]),
    }


def test_kinetics400(k400_files, write_files, ask, label_db):
    lists = read_kinetics400(ask("k400", write_files("k400", k400_files)))
    assert {name: len(entry.rows) for name, entry in lists.items()} == {
        "full/train": 16 * 400 + 84 * 88,
        "full/val": 800,
        **{f"base_to_novel/seed{run}/train": 3200 for run in (1, 2, 3)},
        "base_to_novel/base_test": 400,
        "base_to_novel/novel_test": 400,
        "episodic/kinetics100/train": 6400,
        "episodic/kinetics100/test": 2400,
    }
    assert lists["full/val"].rows[401] == ("val/v-001_00001_000007_000017", 1)
    assert lists["full/val"].official == 800
    ids = json.loads((label_db / "k400/base_to_novel/base_ids.json").read_text(encoding="utf-8"))
    for video, label in lists["base_to_novel/base_test"].rows:
        assert int(video.split("-")[1][:3]) == ids[label]


def test_one_file_chosen_by_subset(k400_files, write_files, ask):
    folder = write_files("k400", k400_files)
    for path in (folder, folder / "validate.csv"):
        lists = read_kinetics400(ask("k400", path, subsets=("val",)))
        assert list(lists) == ["full/val", "base_to_novel/base_test", "base_to_novel/novel_test"]
    with pytest.raises(ValueError, match=r"test\.csv: the header has no label; this file has no labels"):
        read_kinetics400(ask("k400", folder, subsets=("test",)))
    with pytest.raises(ValueError, match=r"has no train\.csv; expected train\.csv"):
        read_kinetics400(ask("k400", folder / "validate.csv", subsets=("train",)))


def test_json_gives_the_same_and_a_table_goes_first(k400_files, write_files, ask, names_of):
    videos = {
        youtube_id: {
            "annotations": {"label": name, "segment": [float(start), float(end)]},
            "duration": 10.0,
            "subset": "validate",
            "url": f"https://example.invalid/{youtube_id}",
        }
        for name, youtube_id, start, end, _ in rows_of(names_of("k400"), "val", 2)
    }
    from_table = read_kinetics400(ask("k400", write_files("csv", k400_files), subsets=("val",)))
    from_json = read_kinetics400(ask("k400", write_files("json", {"validate.json": json.dumps(videos)})))
    assert from_json["full/val"].rows == from_table["full/val"].rows
    both = write_files("both", {**k400_files, "validate.json": "{"})
    assert read_kinetics400(ask("k400", both, subsets=("val",)))["full/val"].rows == from_table["full/val"].rows


def test_names_in_other_spellings(k400_files, write_files, ask, names_of):
    names = names_of("k400")
    apostrophe, brackets = names.index("massaging person's head"), names.index("petting animal (not cat)")
    text = k400_files["validate.csv"].replace("massaging person's head", "massaging_persons_head")
    text = text.replace("petting animal (not cat)", '"Petting animal not cat"')
    lists = read_kinetics400(ask("k400", write_files("k400", {"val.csv": text})))
    found = dict(lists["full/val"].rows)
    assert found[f"val/v-{apostrophe:03d}_00000_000000_000010"] == apostrophe
    assert found[f"val/v-{brackets:03d}_00000_000000_000010"] == brackets


FAULTS = {
    "unknown class": (
        lambda text: text.replace("abseiling,", "abxseiling,", 1),
        r"validate\.csv:2: unknown class 'abxseiling', .*; the nearest is 'abseiling'",
    ),
    "seconds": (
        lambda text: text.replace(",0,10,", ",0,ten,", 1),
        r"validate\.csv:2: expected seconds, found '0' and 'ten'",
    ),
    "segment": (
        lambda text: text.replace(",0,10,", ",10,0,", 1),
        r"validate\.csv:2: expected a video id and a segment, found 'v-000_00000', '10' to '0'",
    ),
    "id": (
        lambda text: text.replace("v-000_00000", "../v", 1),
        r"validate\.csv:2: expected a video id and a segment, found '\.\./v'",
    ),
    "fields": (
        lambda text: text.replace(",validate\n", "\n", 1),
        r"validate\.csv:2: expected 5 fields, found 4",
    ),
    "other subset": (
        lambda text: text.replace(",validate\n", ",train\n", 1),
        r"validate\.csv:2: is a video of 'train' in the file of 'val'",
    ),
    "header": (
        lambda text: text.partition("\n")[2],
        r"validate\.csv: the header has no label, time_end, time_start, youtube_id; expected",
    ),
    "row twice": (
        lambda text: text + text.split("\n")[1] + "\n",
        r"validate\.csv:802: 'val/v-000_00000_000000_000010' occurs twice, first at .*validate\.csv:2$",
    ),
    "class without videos": (
        lambda text: "\n".join(line for line in text.split("\n") if not line.startswith("archery,")),
        r"list full/val has no video of 'archery' \(1 of 400 classes have none\); --any-counts accepts it",
    ),
    "no CSV": (lambda text: text + "a\0b", r"validate\.csv: not a usable CSV|validate\.csv:802: expected 5 fields"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(k400_files, write_files, ask, fault):
    change, message = FAULTS[fault]
    folder = write_files("k400", k400_files, **{"validate.csv": change(k400_files["validate.csv"])})
    with pytest.raises(ValueError, match=message):
        read_kinetics400(ask("k400", folder, subsets=("val",)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected an object of videos, found list"),
        ('{"abc": {"annotations": {}}}', r"video 1 \(abc\): expected annotations with label and segment"),
        ('{"abc": 1}', r"video 1 \(abc\): expected annotations"),
        ("{", r"val\.json:1: not valid JSON"),
    ],
)
def test_json_faults_are_named(write_files, ask, content, message):
    with pytest.raises(ValueError, match=message):
        read_kinetics400(ask("k400", write_files("k400", {"val.json": content})))


def test_repeated_rows_are_left_out_with_any_counts(k400_files, write_files, ask):
    text = k400_files["validate.csv"]
    folder = write_files("k400", {"val.csv": text + text.split("\n")[1] + "\n"})
    entry = read_kinetics400(ask("k400", folder, any_counts=True))["full/val"]
    assert len(entry.rows) == 800
    assert entry.origin == "val.csv without 1 repeated rows"
    assert entry.official is None


def test_two_files_of_a_subset(k400_files, write_files, ask):
    folder = write_files("k400", {**k400_files, "k400_val.csv": ""})
    with pytest.raises(ValueError, match=r"k400_val\.csv and validate\.csv both name the val videos"):
        read_kinetics400(ask("k400", folder))


def test_kinetics600_zero_shot(write_files, ask, names_of):
    names = names_of("k600")
    header = (*HEADER, "is_cc")
    files = {
        f"kinetics_600_{subset}.csv": table([(*row, 0) for row in rows_of(names, subset, count)], header)
        for subset, count in (("train", 3), ("val", 2), ("test", 1))
    }
    files["kinetics_600_holdout_test.csv"] = "nothing of interest"
    folder = write_files("k600", files)
    lists = read_kinetics600(ask("k600", folder))
    assert {name: len(entry.rows) for name, entry in lists.items()} == {
        f"zero_shot_split{split}/test": 320 for split in (1, 2, 3)
    }
    for split in (1, 2, 3):
        some = names_of("k600", f"zero_shot_split{split}_index2cls")
        for video, label in lists[f"zero_shot_split{split}/test"].rows:
            assert video.startswith("val/")
            assert names[int(video.split("-")[1][:3])].casefold() == some[label].casefold()
    everything = read_kinetics600(ask("k600", folder, subsets=("train", "val", "test"), full=True))
    assert len(everything["zero_shot_split2/test"].rows) == 160 * 6
    assert len(everything["full/train"].rows) == 1800
