"""tools/prepare_data.py on a miniature of every dataset, from the annotation files as they are downloaded."""

import json
import os
import shutil
from collections import Counter

import pytest

from slowfast.datasets.annotation import read_annotations
from slowfast.datasets.decode import probe
from slowfast.datasets.label_set import class_key
from slowfast.datasets.prepared import read_manifest

HALVES = {f"half{number}/test" for number in range(10)}
SHOTS = {f"few_shot/{shots}/train" for shots in (2, 4, 8, 16)}
BASE_TO_NOVEL = {f"base_to_novel/seed{seed}/train" for seed in (1, 2, 3)} | {
    f"base_to_novel/{half}_test" for half in ("base", "novel")
}
EPISODIC = {
    "hmdb51": {"hmdb51": {"train": 9, "val": 7, "test": 6}},
    "k400": {"kinetics100": {"train": 6, "test": 6}},
    "ssv2": {"ssv2_full": {"train": 11, "test": 7}, "ssv2_small": {"train": 10, "test": 8}},
    "ucf101": {"ucf101": {"train": 11, "val": 6, "test": 7}},
}
"""Classes with videos, of the miniatures that are written for episodes."""
ROWS = {
    "ucf101": {
        "full/test": 48, "split1/train": 32, "split1/test": 16, "split2/train": 32, "split2/test": 16,
        "split3/train": 40, "split3/test": 8, "few_shot/2/train": 16, "few_shot/4/train": 32,
        "base_to_novel/seed1/train": 16, "base_to_novel/base_test": 8, "base_to_novel/novel_test": 8,
        "episodic/ucf101/train": 36, "episodic/ucf101/val": 6, "episodic/ucf101/test": 6,
    },
    "hmdb51": {
        "full/test": 36, "split1/train": 24, "split1/test": 12, "split2/train": 24, "split2/test": 12,
        "split3/train": 24, "split3/test": 12, "few_shot/2/train": 12, "few_shot/4/train": 24,
        "base_to_novel/seed1/train": 12, "base_to_novel/base_test": 6, "base_to_novel/novel_test": 6,
        "episodic/hmdb51/train": 28, "episodic/hmdb51/val": 7, "episodic/hmdb51/test": 7,
    },
    "k400": {
        "full/train": 40, "full/val": 12, "base_to_novel/seed1/train": 24, "base_to_novel/seed2/train": 24,
        "base_to_novel/base_test": 6, "base_to_novel/novel_test": 6,
    },
    "k600": {"zero_shot_split1/test": 6, "zero_shot_split2/test": 6, "zero_shot_split3/test": 6},
    "ssv2": {
        "full/train": 24, "full/val": 12, "few_shot/2/train": 12, "few_shot/4/train": 24,
        "base_to_novel/seed1/train": 12, "base_to_novel/base_test": 6, "base_to_novel/novel_test": 6,
        "episodic/ssv2_full/train": 12, "episodic/ssv2_small/train": 18, "episodic/ssv2_small/test": 6,
    },
    "folder": {"full/train": 21, "full/val": 3, "full/test": 6},
}  # fmt: skip
OTHER_LISTS = {
    "ucf101": HALVES | SHOTS | BASE_TO_NOVEL,
    "hmdb51": HALVES | SHOTS | BASE_TO_NOVEL,
    "k400": BASE_TO_NOVEL,
    "ssv2": SHOTS | BASE_TO_NOVEL,
}
DATASETS = tuple(ROWS)


def read_list(dataset, name):
    """Rows of a list as (path relative to the root, name of the class)."""
    names = dataset.label_set(name).names
    return [(row.path, names[row.label]) for row in read_annotations(dataset.csv(name), separator=",")]


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(miniature, tmp_path):
    """Copies a miniature by hard links, to be changed: copy(name) -> (root, arguments)."""

    def make(name):
        made, root = miniature(name), tmp_path / "copy"
        shutil.copytree(made.root, root, copy_function=os.link)
        return root, [str(root) if word == str(made.root) else word for word in made.arguments]

    return make


@pytest.mark.parametrize("name", DATASETS)
def test_lists(prepared, name):
    dataset = prepared(name)
    assert set(dataset.lists) == set(ROWS[name]) | OTHER_LISTS.get(name, set())
    for title, rows in ROWS[name].items():
        assert (title, dataset.lists[title].rows) == (title, rows)
    assert all(entry.missing == entry.dropped == 0 for entry in dataset.lists.values())


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_names_a_video_and_its_class(prepared, miniature, name):
    dataset, made = prepared(name), miniature(name)
    for title, entry in dataset.lists.items():
        rows = read_list(dataset, title)
        assert len(rows) == entry.rows
        assert len(dict(rows)) == entry.rows, f"{title}: a video twice"
        for path, label in rows:
            # The halves of base-to-novel and the parts of benchmarks spell some classes in their own way.
            if title.startswith("base_to_novel/"):
                continue
            if title.startswith("episodic/"):
                assert (title, path, class_key(label)) == (title, path, class_key(made.videos[path]))
                continue
            assert (title, path, label) == (title, path, made.videos[path])


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "k400", "ssv2"])
def test_base_and_novel_are_disjoint(prepared, miniature, name, repository):
    dataset, made = prepared(name), miniature(name)
    folder = repository / "label_db" / name
    names = list(json.loads((folder / "index2cls.json").read_text(encoding="utf-8")).values())
    ids = {
        half: json.loads((folder / f"base_to_novel/{half}_ids.json").read_text("utf-8")) for half in ("base", "novel")
    }
    assert not set(ids["base"]) & set(ids["novel"])
    lists = {half: read_annotations(dataset.csv(f"base_to_novel/{half}_test"), separator=",") for half in ids}
    for half, rows in lists.items():
        assert {row.path: names[ids[half][row.label]] for row in rows} == {
            row.path: made.videos[row.path] for row in rows
        }
    whole = "full/val" if "full/val" in dataset.lists else "split1/test"
    parts = [{row.path for row in rows} for rows in lists.values()]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {path for path, _ in read_list(dataset, whole)}
    for seed in (1, 2, 3):
        train = read_annotations(dataset.csv(f"base_to_novel/seed{seed}/train"), separator=",")
        assert {made.videos[row.path] for row in train} <= {names[label] for label in ids["base"]}
        assert not {row.path for row in train} & (parts[0] | parts[1])


def test_draws_differ(prepared):
    dataset = prepared("k400")
    drawn = {tuple(read_list(dataset, f"base_to_novel/seed{seed}/train")) for seed in (1, 2, 3)}
    assert len(drawn) == 3
    assert all(max(Counter(label for _, label in rows).values()) == 16 for rows in drawn)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "ssv2"])
def test_shots(prepared, name):
    dataset = prepared(name)
    train, test = ("full/train", "full/val") if name == "ssv2" else ("split1/train", "split1/test")
    for shots in (2, 4):
        rows = read_list(dataset, f"few_shot/{shots}/train")
        assert set(Counter(label for _, label in rows).values()) == {shots}
        assert set(rows) <= set(read_list(dataset, train))
        assert not set(rows) & set(read_list(dataset, test))


@pytest.mark.parametrize(("name", "count"), [("ucf101", 50), ("hmdb51", 25)])
def test_halves(prepared, name, count):
    dataset = prepared(name)
    every = read_list(dataset, "full/test")
    drawn = [dataset.label_set(title).names for title in sorted(HALVES)]
    assert {len(names) for names in drawn} == {count}
    assert len(set(drawn)) == 10
    for title, names in zip(sorted(HALVES), drawn, strict=True):
        assert list(names) == [label for label in dataset.label_set("full/test").names if label in names]
        assert read_list(dataset, title) == [row for row in every if row[1] in names]


def test_zero_shot_splits_of_kinetics(prepared):
    dataset = prepared("k600")
    for split in (1, 2, 3):
        assert len(dataset.label_set(f"zero_shot_split{split}/test")) == 160
        assert len(dataset.label_set(f"zero_shot_split{split}/test", names="rephrased")) == 160
    videos = [{path for path, _ in read_list(dataset, f"zero_shot_split{split}/test")} for split in (1, 2, 3)]
    assert len(videos[0] & videos[1] & videos[2]) == 4
    assert all(path.startswith("val/") for path in set.union(*videos))


def test_other_subsets_of_kinetics(miniature, call_tool, tmp_path):
    arguments = [*miniature("k600").arguments, "--output", tmp_path, "--subset", "val", "--subset", "test", "--full"]
    assert call_tool("prepare_data", arguments) == 0
    dataset = read_manifest(tmp_path, "k600")
    assert [dataset.lists[name].rows for name in ("zero_shot_split1/test", "full/val", "full/test")] == [9, 12, 6]


@pytest.mark.parametrize("name", EPISODIC)
def test_episodes_of_five_classes_and_six_videos(prepared, name):
    dataset = prepared(name, episodic=True)
    found = {}
    for title in dataset.lists:
        if title.startswith("episodic/"):
            counts = Counter(label for _, label in read_list(dataset, title))
            assert min(counts.values()) >= 6
            found.setdefault(title.split("/")[1], {})[title.split("/")[2]] = len(counts)
    assert found == EPISODIC[name]


def test_own_folder(prepared, miniature):
    dataset = prepared("folder")
    assert dataset.label_set("full/train").names == ("opening a jar", "pouring tea", "stacking cups")
    parts = [read_list(dataset, f"full/{part}") for part in ("train", "val", "test")]
    assert sorted(row for part in parts for row in part) == sorted(miniature("folder").videos.items())
    for part, each in zip(parts, (7, 1, 2), strict=True):
        assert set(Counter(label for _, label in part).values()) == {each}


@pytest.mark.parametrize("name", ["hmdb51", "folder"])
def test_second_time_gives_the_same_files(prepared, miniature, call_tool, write_descriptors, tmp_path, name):
    arguments, folder = [*miniature(name).arguments, "--output", tmp_path], tmp_path / miniature(name).dataset
    assert call_tool("prepare_data", arguments) == 0
    if name == "folder":  # as the fixture does
        write_descriptors(folder / "descriptors", prepared(name).label_set("full/train").names)
    first = snapshot(folder)
    assert first == snapshot(prepared(name).folder)
    assert call_tool("prepare_data", arguments) == 0
    assert snapshot(folder) == first


# -------------------------------------------------------------------------------------------------- what may be wrong


def test_counts_are_checked(miniature, call_tool, tmp_path, capfd):
    for name in ("ucf101", "hmdb51", "k400", "k600", "ssv2"):
        arguments = [word for word in miniature(name).arguments if word != "--any-counts"]
        capfd.readouterr()
        assert call_tool("prepare_data", [*arguments, "--output", tmp_path]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert "--any-counts" in line
    assert not list(tmp_path.rglob("*.csv"))


def test_missing_videos(copy, call_tool, tmp_path, capfd):
    root, arguments = copy("hmdb51")
    gone = root / "pour" / "Catch!_Part(2)_pour_u_nm_np1_fr_goo_2.avi"
    gone.unlink()
    output = tmp_path / "label_db"
    command = [*arguments, "--output", output]
    assert call_tool("prepare_data", command) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{root}: 1 of 42 videos" in line
    listed = (output / "hmdb51" / "splits" / "missing.txt").read_text(encoding="utf-8").splitlines()
    assert all(row.endswith(gone.name) for row in listed)
    assert {"split1/train", "split2/test", "full/test"} <= {row.partition("\t")[0] for row in listed}
    assert not list(output.rglob("*.csv"))

    counts = {}
    for policy in ("keep", "drop"):
        assert call_tool("prepare_data", [*command, "--missing", policy]) == 0
        dataset = read_manifest(output, "hmdb51")
        entry = dataset.lists["split1/train"]
        rows = read_annotations(dataset.csv("split1/train"), separator=",")
        counts[policy] = entry.rows, entry.missing, entry.dropped, len(rows)
    assert counts == {"keep": (24, 1, 0, 24), "drop": (23, 1, 1, 23)}


@pytest.mark.parametrize("how", ["open", "decode"])
def test_undecodable_videos(copy, call_tool, tmp_path, capfd, how):
    root, arguments = copy("k400")
    victims = sorted(root.glob("val/*.mp4"))[:2]
    whole = victims[0].read_bytes()
    for victim, content in zip(victims, (whole[: len(whole) // 2], b"no video at all"), strict=True):
        victim.unlink()  # the content is shared with the original
        victim.write_bytes(content)
    command = [*arguments, "--output", tmp_path / "label_db", "--check", how, "--workers", "1"]
    assert call_tool("prepare_data", command) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1
    listed = (tmp_path / "label_db" / "k400" / "splits" / "undecodable.txt").read_text(encoding="utf-8")
    assert all(victim.name in listed for victim in victims)
    assert len(listed.splitlines()) == 2
    assert call_tool("prepare_data", [*command, "--missing", "drop"]) == 0
    assert read_manifest(tmp_path / "label_db", "k400").lists["full/val"].rows == 10


def test_small_copies(miniature, call_tool, tmp_path):
    made = miniature("ssv2")
    command = [*made.arguments, "--output", tmp_path / "label_db", "--transcode", tmp_path / "small", "--workers", "1"]
    assert call_tool("prepare_data", command) == 0
    dataset = read_manifest(tmp_path / "label_db", "ssv2")
    assert dataset.root == str(tmp_path / "small")
    rows = read_list(dataset, "full/val")
    assert all(made.videos[path.replace(".mp4", ".webm")] == label for path, label in rows)
    assert all(probe(tmp_path / "small" / path).num_frames == 12 for path, _ in rows)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["ucf101", "--root", "absent", "--annotations", "absent"], 1, "absent"),
        (["ucf101", "--root", "absent"], 2, "--annotations PATH"),
        (["imagenet", "--root", "absent"], 2, "invalid choice"),
        (["folder", "--root", "absent"], 2, "--name"),
    ],
)
def test_mistakes(call_tool, capfd, tmp_path, words, status, message):
    assert call_tool("prepare_data", [*words, "--output", tmp_path]) == status
    assert message in capfd.readouterr().err.splitlines()[-1]


def test_class_of_another_dataset(miniature, call_tool, capfd, tmp_path):
    made = miniature("k400")
    shutil.copytree(made.annotations, tmp_path / "annotations")
    file = tmp_path / "annotations" / "val.csv"
    text = file.read_text(encoding="utf-8").replace("chopping wood", "chopping would", 1)
    file.write_text(text, encoding="utf-8")
    line = next(number for number, row in enumerate(text.splitlines(), start=1) if "chopping would" in row)
    words = ["k400", "--root", made.root, "--annotations", tmp_path / "annotations", "--any-counts"]
    assert call_tool("prepare_data", [*words, "--output", tmp_path / "label_db"]) == 1
    (message,) = capfd.readouterr().err.splitlines()
    assert f"{file}:{line}: unknown class 'chopping would'" in message
    assert "'chopping wood'" in message
