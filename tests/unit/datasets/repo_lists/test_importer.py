"""Small checkouts of the seven projects, and which rows come out of them."""

import json
import logging
import random
import re

import pytest

from slowfast.datasets.annotations.preparation import read_repository
from slowfast.datasets.repo_lists import import_lists

BASE, NOVEL = "base_to_novel/base_index2cls.json", "base_to_novel/novel_index2cls.json"


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.INFO, logger="slowfast")
    return caplog


@pytest.fixture
def importing(fake, label_db):
    def run(dataset, inner="."):
        return import_lists(fake.root / inner, dataset, label_db=label_db)

    return run


def camel_case(name):
    return "".join(word[:1].upper() + word[1:] for word in name.split())


def shuffled(names, seed=0):
    return random.Random(seed).sample(names, len(names))


def rows_in_order_of(classes, name, per_class=1):
    """Videos named after their class, labelled by the order of `classes`."""
    return [(f"{name}_{title}_{n}.avi", label) for label, title in enumerate(classes) for n in range(per_class)]


def expected(classes, ours, name, per_class=1):
    return tuple((video, ours.index(classes[label])) for video, label in rows_in_order_of(classes, name, per_class))


# STDD, FROSTER, Open-VCLIP


@pytest.mark.parametrize("separator", [",", " "])
@pytest.mark.parametrize("top", ["zs_label_db", "label_db"])
def test_open_vclip_zero_shot(fake, importing, names_of, top, separator):
    ours = names_of("ucf101")
    theirs = shuffled(ours)
    fake.names_json(f"{top}/ucf101-index2cls.json", ["Yoyo" if name == "Yo Yo" else name for name in theirs])
    for split in ("full", "split1", "split2", "split3"):
        fake.rows(f"{top}/ucf101_{split}/test.csv", rows_in_order_of(theirs, split), separator)
    imported = importing("ucf101")
    assert set(imported.lists) == {"full/test", "split1/test", "split2/test", "split3/test"}
    for split, name in (("full", "full/test"), ("split1", "split1/test"), ("split3", "split3/test")):
        assert imported.lists[name].rows == expected(theirs, ours, split)
        assert imported.lists[name].classes == "index2cls.json"
        assert imported.lists[name].origin == f"{top}/ucf101_{split}/test.csv"
    assert [imported.lists[f"split{n}/test"].official for n in (1, 2, 3)] == [3783, 3734, 3696]
    assert imported.lists["full/test"].official == 13320
    assert imported.class_files == {}
    assert {path.rpartition("/")[2] for path in imported.sources} == {"test.csv", "ucf101-index2cls.json"}
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in imported.sources.values())


def test_lists_of_half_of_the_classes_do_not_stand_in_for_the_zero_shot_ones(fake, importing, names_of, heard):
    ours = names_of("ucf101")
    fake.names_json("label_db/ucf101-index2cls.json", ours)
    fake.rows("zs_label_db/ucf101_split1/test.csv", rows_in_order_of(ours, "v"), ",")
    fake.rows("label_db/ucf101_split1/test.csv", rows_in_order_of(ours[::2], "v"), ",")
    assert importing("ucf101").lists["split1/test"].origin == "zs_label_db/ucf101_split1/test.csv"
    assert "left out: label_db/ucf101_split1/test.csv" in heard.text


def test_open_vclip_draws_bring_their_classes(fake, importing, names_of, label_db, tmp_path):
    draws = {n: shuffled(names_of("hmdb51"), n)[:25] for n in range(10)}
    for n, classes in draws.items():
        fake.names_json(f"label_db/hmdb_half_test/{n}/index2cls.json", [name.replace(" ", "_") for name in classes])
        fake.rows(f"label_db/hmdb_half_test/{n}/test.csv", rows_in_order_of(classes, str(n), 100), ",")
    imported = importing("hmdb51")
    assert set(imported.lists) == {f"half{n}/test" for n in draws}
    for n, classes in draws.items():
        entry = imported.lists[f"half{n}/test"]
        assert [names_of("hmdb51")[label] for label in imported.class_files[entry.classes]] == classes
        assert entry.rows == tuple(rows_in_order_of(classes, str(n), 100))
        assert (entry.official, len(entry.rows)) == (2500, 2500)
    drafts = read_repository("hmdb51", fake.root, label_db=label_db, output=tmp_path / "hmdb51")
    assert list(json.loads(drafts.class_files["splits/half3/index2cls.json"]).values()) == draws[3]
    assert all(
        sentence.startswith(f"{name}: ")
        for name, sentence in zip(
            draws[3], json.loads(drafts.class_files["splits/half3/rephrased.json"]).values(), strict=True
        )
    )
    assert drafts.sources == imported.sources


def test_draw_without_class_file_is_left_out_and_said(fake, importing, names_of, heard):
    fake.names_json("hmdb-index2cls.json", names_of("hmdb51"))
    fake.rows("hmdb_full/test.csv", rows_in_order_of(names_of("hmdb51"), "v"), ",")
    fake.rows("hmdb_half_test/4/test.csv", rows_in_order_of(names_of("hmdb51")[:25], "v"), ",")
    assert set(importing("hmdb51").lists) == {"full/test"}
    assert "hmdb_half_test/4/test.csv: left out, the checkout does not say which classes it has" in heard.text


@pytest.mark.parametrize(("change", "message"), [("flying", "'flying' is no class"), ("run", "has a class twice")])
def test_draw_of_other_classes_is_refused(fake, importing, names_of, change, message):
    fake.names_json("hmdb_half_test/0/index2cls.json", ["run", change])
    fake.rows("hmdb_half_test/0/test.csv", [("a.avi", 0)], ",")
    with pytest.raises(ValueError, match=f"hmdb_half_test/0/index2cls.json: {message}"):
        importing("hmdb51")


def test_stdd_kinetics600(fake, importing, names_of):
    for split in (1, 2, 3):
        theirs = shuffled(names_of("k600", f"zero_shot_split{split}_index2cls.json"), split)
        fake.names_json(f"zs_label_db/k600_split{split}/k600-openset-index2cls.json", theirs)
        rows = [(f"val/{name.replace(' ', '_')}/id_000001_000011.mp4", n) for n, name in enumerate(theirs)]
        fake.rows(f"zs_label_db/k600_split{split}/test.csv", rows, ",")
    imported = importing("k600")
    assert [entry.official for entry in imported.lists.values()] == [7276, 7226, 7261]
    for split in (1, 2, 3):
        entry = imported.lists[f"zero_shot_split{split}/test"]
        ours = names_of("k600", entry.classes)
        assert entry.classes == f"zero_shot_split{split}_index2cls.json"
        assert all(path.split("/")[1] == ours[label].replace(" ", "_") for path, label in entry.rows)


def test_froster_kinetics400(fake, importing, names_of, heard):
    theirs = [camel_case(name) for name in shuffled(names_of("k400"))]
    fake.names_json("label_db/k400-index2cls.json", theirs)
    for part in ("train", "val", "test"):
        fake.rows(f"label_db/weng_compress_full_splits/{part}.csv", [("val/a b/x.mp4", 3)], ",")
    fake.rows("label_db/weng_compress_partial_splits_0/val.csv", [("x.mp4", 3)], ",")
    lists = importing("k400").lists
    assert set(lists) == {"full/train", "full/val", "full/test"}
    assert lists["full/val"].official == 19796
    assert lists["full/train"].official is None
    assert camel_case(names_of("k400")[lists["full/val"].rows[0][1]]) == theirs[3]
    assert "lists without a counterpart here, left out: label_db/weng_compress_partial_splits_0/val.csv" in heard.text
    assert "val.csv: has 1 rows; the published list has 19796 or 19761" in heard.text


@pytest.mark.parametrize("count", [19796, 19761])
def test_both_published_lengths_of_kinetics400_are_known(fake, importing, names_of, heard, count):
    fake.names_json("k400-index2cls.json", names_of("k400"))
    fake.rows("weng_compress_full_splits/val.csv", [(f"{n}.mp4", n % 400) for n in range(count)], ",")
    assert importing("k400").lists["full/val"].official == count
    assert not [record for record in heard.records if record.levelno >= logging.WARNING]


def froster_base_to_novel(fake, folder, base, novel, seed=""):
    fake.names_json(f"{folder}/raw_train_idx2cls.json", base)
    fake.names_json(f"{folder}/raw_test_idx2cls.json", novel)
    fake.names_json(f"{folder}/train_rephrased.json", [f"{name}: a sentence" for name in reversed(base)])
    fake.rows(f"{folder}/train.csv", rows_in_order_of(base, f"train{seed}", 16), ",")
    fake.rows(f"{folder}/val.csv", rows_in_order_of(base, "val", 30), ",")
    fake.rows(f"{folder}/test.csv", rows_in_order_of(novel, "test", 30), ",")


def test_froster_base_to_novel_with_three_seeds(fake, importing, names_of):
    ours = {half: names_of("k400", half) for half in (BASE, NOVEL)}
    base, novel = shuffled(ours[BASE]), shuffled(ours[NOVEL])
    for seed in (1, 2, 3):
        froster_base_to_novel(fake, f"zs_label_db/B2N_k400_s{seed}", base, novel, seed)
    froster_base_to_novel(fake, "zs_label_db/B2N_k400", base, novel, "other")
    lists = importing("k400").lists
    assert set(lists) == {
        *(f"base_to_novel/seed{seed}/train" for seed in (1, 2, 3)),
        "base_to_novel/base_test",
        "base_to_novel/novel_test",
    }
    for seed in (1, 2, 3):
        entry = lists[f"base_to_novel/seed{seed}/train"]
        assert entry.rows == expected(base, ours[BASE], f"train{seed}", 16)
        assert (entry.official, entry.classes) == (3200, BASE)
    assert lists["base_to_novel/base_test"].rows == expected(base, ours[BASE], "val", 30)
    assert lists["base_to_novel/novel_test"].rows == expected(novel, ours[NOVEL], "test", 30)
    assert lists["base_to_novel/novel_test"].classes == NOVEL


@pytest.mark.parametrize("folder", ["B2N_hmdb", "B2N_hmdb51", "B2N_hmdb_s1"])
def test_froster_base_to_novel_with_one_seed(fake, importing, names_of, folder, heard):
    base, novel = names_of("hmdb51", BASE), names_of("hmdb51", NOVEL)
    froster_base_to_novel(fake, folder, base, novel)
    lists = importing("hmdb51").lists
    assert set(lists) == {"base_to_novel/seed1/train", "base_to_novel/base_test", "base_to_novel/novel_test"}
    assert [(len(entry.rows), entry.official) for entry in lists.values()] == [(416, 416), (780, 780), (750, 750)]
    base_videos = {path for path, _ in lists["base_to_novel/base_test"].rows}
    assert base_videos.isdisjoint(path for path, _ in lists["base_to_novel/novel_test"].rows)
    assert not [record for record in heard.records if record.levelno >= logging.WARNING]


def test_seeds_with_other_test_lists_are_refused(fake, importing, names_of):
    base, novel = names_of("ssv2", BASE), names_of("ssv2", NOVEL)
    for seed in (1, 2):
        froster_base_to_novel(fake, f"B2N_ssv2_s{seed}", base, novel)
    fake.rows("B2N_ssv2_s2/val.csv", [("1.webm", 0)], ",")
    with pytest.raises(ValueError, match=r"base_to_novel/base_test: .*B2N_ssv2_s1/val.csv and .*B2N_ssv2_s2/val.csv"):
        importing("ssv2")
    assert "base_to_novel/base_test" in importing("ssv2", "B2N_ssv2_s1").lists


def test_rephrased_names_will_do(fake, importing, names_of):
    theirs = shuffled(names_of("ucf101", BASE))
    fake.names_json("B2N_ucf101/train_rephrased.json", [f"{camel_case(name)}: a sentence" for name in theirs])
    fake.rows("B2N_ucf101/train.csv", rows_in_order_of(theirs, "v", 16), ",")
    assert importing("ucf101").lists["base_to_novel/seed1/train"].rows == expected(
        theirs, names_of("ucf101", BASE), "v", 16
    )


# ViFi-CLIP, TC-CLIP, OST


def vifi_classes(fake, names_of, seed=0):
    names = shuffled(names_of("hmdb51"), seed)
    fake.names_csv("labels/hmdb_51_labels.csv", [name.replace(" ", "_") for name in names])
    return names


def test_vifi_clip_splits_and_shots(fake, importing, names_of, heard):
    theirs, ours = vifi_classes(fake, names_of), names_of("hmdb51")
    for split in (1, 2, 3):
        fake.rows(f"datasets_splits/hmdb_splits/val{split}.txt", rows_in_order_of(theirs, f"val{split}", 30))
    for shots in (2, 4, 8, 16):
        rows = rows_in_order_of(theirs, f"shot{shots}", shots)
        fake.rows(f"datasets_splits/hmdb_splits/train1_few_shot_{shots}.txt", rows)
    lists = importing("hmdb51").lists
    assert set(lists) == {*(f"split{n}/test" for n in (1, 2, 3)), *(f"few_shot/{n}/train" for n in (2, 4, 8, 16))}
    tested = {path for path, _ in lists["split1/test"].rows}
    for shots in (2, 4, 8, 16):
        entry = lists[f"few_shot/{shots}/train"]
        assert entry.rows == expected(theirs, ours, f"shot{shots}", shots)
        assert entry.official == len(entry.rows) == 51 * shots
        assert entry.origin == f"datasets_splits/hmdb_splits/train1_few_shot_{shots}.txt"
        assert tested.isdisjoint(path for path, _ in entry.rows)
    assert lists["split2/test"].rows == expected(theirs, ours, "val2", 30)
    assert not [record for record in heard.records if record.levelno >= logging.WARNING]


def test_tc_clip_base_to_novel(fake, importing, names_of, heard):
    folder = "datasets_splits/base2novel_splits/ucf_splits"
    theirs = {half: shuffled(names_of("ucf101", half)) for half in (BASE, NOVEL)}
    fake.names_csv("labels/ucf_101_base_labels.csv", map(camel_case, theirs[BASE]))
    fake.names_csv("labels/ucf_101_novel_labels.csv", map(camel_case, theirs[NOVEL]))
    for seed in (1, 2, 3):
        fake.rows(f"{folder}/fs_base_s{seed}_train.txt", rows_in_order_of(theirs[BASE], f"s{seed}", 16))
    fake.rows(f"{folder}/base_val.txt", rows_in_order_of(theirs[BASE], "base"))
    fake.rows(f"{folder}/novel_val.txt", rows_in_order_of(theirs[NOVEL], "novel"))
    fake.rows(f"{folder}/base_train.txt", rows_in_order_of(theirs[BASE], "all"))
    lists = importing("ucf101").lists
    assert len(lists) == 5
    assert lists["base_to_novel/seed3/train"].rows == expected(theirs[BASE], names_of("ucf101", BASE), "s3", 16)
    assert lists["base_to_novel/seed3/train"].official == len(lists["base_to_novel/seed3/train"].rows)
    assert lists["base_to_novel/base_test"].rows == expected(theirs[BASE], names_of("ucf101", BASE), "base")
    assert lists["base_to_novel/novel_test"].rows == expected(theirs[NOVEL], names_of("ucf101", NOVEL), "novel")
    assert "lists without a counterpart here, left out: " + folder + "/base_train.txt" in heard.text


def test_tc_clip_sentences_go_by_their_order(fake, importing, names_of):
    theirs = shuffled(names_of("hmdb51"))
    content = {str(50 - n): f"{name}: a sentence" for n, name in enumerate(theirs)}
    fake.write("labels/labels_froster/hmdb_51_llm_labels.json", json.dumps(content))
    fake.rows("datasets_splits/hmdb_splits/val1.txt", rows_in_order_of(theirs, "v"))
    assert importing("hmdb51").lists["split1/test"].rows == expected(theirs, names_of("hmdb51"), "v")


@pytest.mark.parametrize("plain", [True, False])
def test_ost_kinetics600_prefers_lists_with_folders(fake, importing, names_of, plain):
    theirs = shuffled(names_of("k600", "zero_shot_split1_index2cls.json"))
    fake.names_csv("labels/ZS_split1_K600.csv", theirs)
    fake.rows("datasets_splits/k600_splits/ZS_split1_K600_eval_filtered.txt", [("a_000001_000011.mp4", 3)])
    if plain:
        fake.rows("datasets_splits/k600_splits/ZS_split1_K600_eval.txt", [("test/a_000001_000011.mp4", 3)])
    entry = importing("k600").lists["zero_shot_split1/test"]
    label = names_of("k600", entry.classes).index(theirs[3])
    assert entry.rows == ((f"{'test/' if plain else ''}a_000001_000011.mp4", label),)
    assert entry.official == 14084


def test_ssv2_and_its_names_with_commas(fake, importing, names_of):
    names = names_of("ssv2")
    fake.names_csv("labels/ssv2_labels.csv", names)
    fake.names_csv("labels/ssv2_174_novel_labels.csv", names_of("ssv2", NOVEL))
    fake.rows("datasets_splits/ssv2_splits/validation.txt", [(f"{n}.webm", n) for n in range(174)])
    fake.rows("datasets_splits/ssv2_splits/train.txt", [(f"{n}.webm", n - 1000) for n in range(1000, 1174)])
    fake.rows("datasets_splits/base2novel_splits/ssv2_splits/novel_val.txt", [(f"{n}.webm", n) for n in range(87)])
    lists = importing("ssv2").lists
    assert set(lists) == {"full/train", "full/val", "base_to_novel/novel_test"}
    assert [label for _, label in lists["full/val"].rows] == list(range(174))
    assert [label for _, label in lists["base_to_novel/novel_test"].rows] == list(range(87))


def test_temporal_and_static_subsets_are_left_out_and_said(fake, importing, names_of, heard):
    fake.names_csv("labels/kinetics_400_labels.csv", names_of("k400"))
    fake.rows("datasets_splits/k400_splits/val.txt", [("val/x.mp4", 0)])
    fake.rows("datasets_splits/temporal_static_splits/k400_splits/val_temporal32.txt", [("val/x.mp4", 0)])
    assert set(importing("k400").lists) == {"full/val"}
    assert "temporal_static_splits/k400_splits/val_temporal32.txt" in heard.text


# CLIP-FSAR


def clip_fsar(fake, names_of, dataset, benchmark, folder, top="configs/projects/CLIPFSAR"):
    config = []
    for part in ("train", "test"):
        names = names_of(dataset, f"episodic/{benchmark}/{part}_index2cls.json")
        config.append(f"{part.upper()}:\n  CLASS_NAME: {json.dumps(names)}\n")
        rows = "".join(f"{part}{label}{folder(name)}{part}_{label}\n" for label, name in enumerate(names))
        fake.write(f"{top}/{benchmark}/{part}_few_shot.txt", rows)
    for shot in (1, 5):
        fake.write(f"{top}/{benchmark}/CLIPFSAR_{benchmark}_{shot}shot_v1.yaml", "".join(config))


@pytest.mark.parametrize(
    ("dataset", "benchmark", "official"),
    [
        ("hmdb51", "hmdb51", (4280, 1194, 1292)),
        ("ucf101", "ucf101", (9154, 1421, 2745)),
        ("k400", "kinetics100", (6400, 1200, 2400)),
    ],
)
def test_clip_fsar_folders_name_the_validation_classes(fake, importing, names_of, dataset, benchmark, official):
    def folder(name):
        return f"//videos/{name.replace(' ', '_')}/"

    clip_fsar(fake, names_of, dataset, benchmark, folder)
    taken = {
        name for part in ("train", "test") for name in names_of(dataset, f"episodic/{benchmark}/{part}_index2cls.json")
    }
    held_out = [name for name in names_of(dataset) if name not in taken][:10]
    rows = "".join(f"val{label}{folder(name)}val_{label}.avi\n" for label, name in enumerate(held_out))
    fake.write(f"configs/projects/CLIPFSAR/{benchmark}/val_few_shot.txt", rows)
    imported = importing(dataset)
    names = [f"episodic/{benchmark}/{part}" for part in ("train", "test", "val")]
    assert set(imported.lists) == set(names)
    assert [imported.lists[name].official for name in names] == [official[0], official[2], official[1]]
    for name in names[:2]:
        assert imported.lists[name].classes == f"{name}_index2cls.json"
        assert [label for _, label in imported.lists[name].rows] == list(range(len(imported.lists[name].rows)))
    assert imported.lists[names[2]].classes == f"splits/{names[2]}_index2cls.json"
    ids = tuple(names_of(dataset).index(name) for name in held_out)
    assert imported.class_files == {f"splits/{names[2]}_index2cls.json": ids}
    assert imported.lists[names[2]].rows[0] == (f"videos/{held_out[0].replace(' ', '_')}/val_0.avi", 0)


@pytest.mark.parametrize("benchmark", ["ssv2_full", "ssv2_small"])
def test_clip_fsar_ssv2_lists_name_videos_by_number(fake, importing, names_of, benchmark, heard):
    clip_fsar(fake, names_of, "ssv2", benchmark, lambda _: "/")
    fake.write(f"configs/projects/CLIPFSAR/{benchmark}/val_few_shot.txt", "val0/1234\n")
    lists = importing("ssv2").lists
    assert set(lists) == {f"episodic/{benchmark}/train", f"episodic/{benchmark}/test"}
    assert lists[f"episodic/{benchmark}/test"].rows[5] == ("test_5", 5)
    assert "val_few_shot.txt: left out, the checkout does not say which classes it has: line 1" in heard.text


def test_official_files_tell_the_classes_of_videos_without_folders(fake, label_db, heard):
    fake.write("ssv2_full/val_few_shot.txt", "val0/1234\nval0/1236\nval1/1235\n")
    known = {"1234": 7, "1235": 3, "1236": 7}
    imported = import_lists(fake.root, "ssv2", label_db=label_db, known=known)
    entry = imported.lists["episodic/ssv2_full/val"]
    assert entry.rows == (("1234", 0), ("1236", 0), ("1235", 1))
    assert imported.class_files == {"splits/episodic/ssv2_full/val_index2cls.json": (7, 3)}
    assert import_lists(fake.root, "ssv2", label_db=label_db, known={**known, "1236": 3}).lists == {}
    assert "line 2: neither the folder of '1236' nor the official files tell the class of 0" in heard.text


def test_copies_of_a_list_are_taken_once_from_where_the_classes_are(fake, importing, names_of, heard):
    for top in ("configs/projects/ALIKE", "configs/projects/CLIPFSAR"):
        clip_fsar(fake, names_of, "hmdb51", "hmdb51", lambda _: "//", top)
    for file in (fake.root / "configs/projects/ALIKE/hmdb51").glob("*.yaml"):
        file.unlink()
    assert importing("hmdb51").lists["episodic/hmdb51/train"].origin.startswith("configs/projects/CLIPFSAR/")
    assert "no class file" not in heard.text


def test_shuffled_classes_of_a_configuration(fake, importing, names_of):
    theirs = shuffled(names_of("ssv2", "episodic/ssv2_small/test_index2cls.json"))
    fake.write("ssv2_small/CLIPFSAR_1shot.yaml", f"TEST:\n  CLASS_NAME: {json.dumps(theirs)}\n")
    fake.write("ssv2_small/test_few_shot.txt", "".join(f"test{n}/{n}\n" for n in range(24)))
    entry = importing("ssv2").lists["episodic/ssv2_small/test"]
    ours = names_of("ssv2", entry.classes)
    assert entry.rows == tuple((str(n), ours.index(name)) for n, name in enumerate(theirs))


@pytest.mark.parametrize(
    "rows", ["val0//run/a\nval0//walk/b\n", "val0//run/a\nval1//run/b\n", "val0//run/a\nval2//walk/b\n", "val0//x/a\n"]
)
def test_validation_classes_that_folders_do_not_tell(fake, importing, rows, heard):
    fake.write("hmdb51/val_few_shot.txt", rows)
    assert importing("hmdb51").lists == {}
    assert "hmdb51/val_few_shot.txt: left out" in heard.text


# What may be wrong with any of them


def test_nothing_is_recognised(fake, importing):
    fake.rows("somewhere/train.csv", [("a.avi", 0)])
    with pytest.raises(ValueError, match="no list of hmdb51 found; looked for ") as caught:
        importing("hmdb51")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("hmdb*_split{1,2,3}/test.csv", "hmdb_splits/val{1,2,3}.txt", "hmdb51/train_few_shot.txt", "ViFi-CLIP"):
        assert part in message


def test_no_such_dataset_or_folder(fake, importing):
    with pytest.raises(ValueError, match="no such folder"):
        importing("hmdb51")
    fake.write("readme.txt", "")
    with pytest.raises(ValueError, match="dataset 'hmdb52'"):
        importing("hmdb52")


def test_two_candidates_are_named(fake, importing, names_of):
    vifi_classes(fake, names_of)
    fake.rows("a/hmdb_splits/val1.txt", [("a.avi", 0)])
    fake.rows("b/hmdb_splits/val1.txt", [("a.avi", 1)])
    with pytest.raises(ValueError, match=r"split1/test: .*a/hmdb_splits/val1.txt and .*b/hmdb_splits/val1.txt differ"):
        importing("hmdb51")


def test_two_projects_in_one_folder_must_agree(fake, importing, names_of):
    theirs = vifi_classes(fake, names_of)
    fake.rows("datasets_splits/hmdb_splits/val1.txt", rows_in_order_of(theirs, "v"))
    fake.names_json("zs_label_db/hmdb-index2cls.json", names_of("hmdb51"))
    agreeing = rows_in_order_of(names_of("hmdb51"), "v")
    fake.rows("zs_label_db/hmdb_split1/test.csv", agreeing, ",")
    assert sorted(importing("hmdb51").lists["split1/test"].rows) == sorted(agreeing)
    in_folders = [(f"{names_of('hmdb51')[label].replace(' ', '_')}/{path}", label) for path, label in agreeing]
    fake.rows("zs_label_db/hmdb_split1/test.csv", in_folders, ",")
    assert len(importing("hmdb51").lists["split1/test"].rows) == 51
    fake.rows("zs_label_db/hmdb_split1/test.csv", agreeing[:-1], ",")
    with pytest.raises(ValueError, match="differ; give the folder of the one to import"):
        importing("hmdb51")


def test_class_files_that_contradict_each_other(fake, importing, names_of):
    fake.names_json("zs_label_db/hmdb51-index2cls.json", names_of("hmdb51"))
    fake.names_json("zs_label_db/hmdb-index2cls.json", names_of("hmdb51")[::-1])
    fake.rows("zs_label_db/hmdb_full/test.csv", [("a.avi", 0)], ",")
    with pytest.raises(ValueError, match=r"hmdb-index2cls.json and .*hmdb51-index2cls.json number its classes differ"):
        importing("hmdb51")


def test_class_file_of_other_classes(fake, importing, names_of):
    fake.names_csv("labels/hmdb_51_labels.csv", [*names_of("hmdb51")[:50], "flying"])
    fake.rows("datasets_splits/hmdb_splits/val1.txt", [("a.avi", 0)])
    with pytest.raises(ValueError, match=r"'flying' .label 50. is no class of .*hmdb51/index2cls.json"):
        importing("hmdb51")


def test_no_class_file_keeps_labels_that_fit_and_says_so(fake, importing, heard):
    fake.rows("datasets_splits/hmdb_splits/val1.txt", [("a.avi", 50)])
    assert importing("hmdb51").lists["split1/test"].rows == (("a.avi", 50),)
    assert "val1.txt: no class file for it (labels/hmdb_51_labels.csv, " in heard.text
    fake.rows("datasets_splits/hmdb_splits/val1.txt", [("a.avi", 0), ("b.avi", 51)])
    with pytest.raises(ValueError, match=r"hmdb_splits/val1.txt:2: label 51 is outside its 51 classes"):
        importing("hmdb51")


def test_class_file_without_classes(fake, importing):
    fake.write("labels/hmdb_51_labels.csv", "")
    fake.rows("datasets_splits/hmdb_splits/val1.txt", [("a.avi", 0)])
    with pytest.raises(ValueError, match=r"hmdb_51_labels.csv: holds no list of class names"):
        importing("hmdb51")


def test_file_names_of_ucf101_that_contradict_the_labels(fake, importing, names_of):
    rows = [(f"v_{camel_case(name)}_g01_c01.avi", label) for label, name in enumerate(names_of("ucf101"))]
    fake.rows("ucf_splits/val1.txt", rows)
    assert importing("ucf101").lists["split1/test"].rows == tuple(rows)
    fake.rows("ucf_splits/val1.txt", [(path, 100 - label) for path, label in rows])
    with pytest.raises(ValueError, match="in 100 of 101 lines; do list and class file belong together"):
        importing("ucf101")


def test_malformed_row_names_file_and_line(fake, importing, names_of):
    vifi_classes(fake, names_of)
    fake.write("hmdb_splits/val1.txt", "a.avi 0\nb.avi\n")
    with pytest.raises(ValueError, match=r"hmdb_splits/val1.txt:2: expected a path and a label, found 'b.avi'"):
        importing("hmdb51")


def test_folders_that_contradict_the_labels(fake, importing, names_of, heard):
    names = names_of("hmdb51")
    rows = [(f"{name.replace(' ', '_')}/a.avi", label) for label, name in enumerate(names)]
    fake.rows("hmdb_splits/val1.txt", [*rows[:-1], (rows[-1][0], 0)])
    importing("hmdb51")
    assert "val1.txt:51: the path names another class than the label, as in 1 of 51 lines" in heard.text
    fake.rows("hmdb_splits/val1.txt", [(path, 50 - label) for path, label in rows])
    with pytest.raises(ValueError, match=r"val1.txt:1: .* in 50 of 51 lines; do list and class file belong together"):
        importing("hmdb51")


def test_videos_to_train_and_to_test_on_are_said(fake, importing, names_of, heard):
    vifi_classes(fake, names_of)
    fake.rows("hmdb_splits/val1.txt", [("a.avi", 0)])
    fake.rows("hmdb_splits/val2.txt", [("b.avi", 0)])
    fake.rows("hmdb_splits/train1_few_shot_2.txt", [("all/a.avi", 0), ("b.avi", 0)])
    importing("hmdb51")
    warnings = [record.getMessage() for record in heard.records if "in common" in record.getMessage()]
    assert len(warnings) == 1
    assert "(split1/test, few_shot/2/train): have 1 videos in common, e.g. a" in warnings[0]


def test_base_and_novel_videos_are_said(fake, importing, names_of, heard):
    froster_base_to_novel(fake, "B2N_ucf101", names_of("ucf101", BASE), names_of("ucf101", NOVEL))
    fake.rows("B2N_ucf101/test.csv", rows_in_order_of(names_of("ucf101", BASE), "val")[:3], ",")
    importing("ucf101")
    assert "(base_to_novel/base_test, base_to_novel/novel_test): have 3 videos in common" in heard.text
