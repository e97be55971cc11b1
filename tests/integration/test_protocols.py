"""tools/run_protocol.py on miniatures of the datasets, from the command line: training, averaging, scoring, the table.

Text features come from the videos, so that figures are neither 0 nor 100 %: a class that has videos is their mean in
the space of the tiny CLIP, the others are random.
"""

import csv
import json
import re
import shutil
import statistics
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from slowfast.datasets import decode
from slowfast.datasets.annotation import read_annotations
from slowfast.datasets.label_set import class_key
from slowfast.methods import METHODS
from slowfast.report.results import read_results
from slowfast.text.feature_file import FeatureFile, write_feature_file
from slowfast.utils.io import sha256_file

SPLIT_FILES = ("confusion.csv", "per_class.csv", "predictions.csv")
ZERO_SHOT = ("ucf101", "hmdb51", "k600")
BASE_TO_NOVEL = ("k400", "hmdb51", "ucf101", "ssv2")
FEW_SHOT = ("hmdb51", "ucf101", "ssv2")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


# ------------------------------------------------------------------------------------------------------------ materials


@pytest.fixture(scope="module")
def table_recipe(recipe, tmp_path_factory):
    """The small recipe without annotation files: a table names them itself."""
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for key in ("PATH_TO_DATA_DIR", "PATH_PREFIX", "PATH_LABEL_SEPARATOR", "INDEX_LABEL_MAPPING_FILE"):
        del content["DATA"][key]
    content["DATA"] |= {"SAMPLING_RATE": 2, "TARGET_FPS": 12, "TEXT_AUG": False, "TEXT_AUG_FEATURE_FILE": ""}
    content["SOLVER"]["MAX_EPOCH"] = 1
    path = tmp_path_factory.mktemp("recipe") / "mini.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def features(miniature, build_tiny, repository, tmp_path_factory):
    """Folder of text features <dataset>.pt, which name their classes in all spellings of the dataset."""
    folder, clip = tmp_path_factory.mktemp("features"), build_tiny().eval()
    for name in ("ucf101", "hmdb51", "k400", "k600", "ssv2"):
        files = sorted((repository / "label_db" / name).rglob("*index2cls.json"))
        lists = [
            list(json.loads(file.read_text(encoding="utf-8")).values()) for file in files if "splits" not in str(file)
        ]
        names = list({class_key(title): title for titles in lists for title in titles}.values())
        rows = class_means(miniature(name), clip, names)
        write_feature_file(folder / f"{name}.pt", FeatureFile(features=rows[:, None], names=tuple(names)))
    return folder


def class_means(made, clip, names):
    """One feature per name, (K, 32): random ones have no part in the directions in which the videos' classes differ."""
    embedded = {}
    for path in made.videos:
        frames = torch.from_numpy(decode.read_frames(made.root / path, range(0, 12, 3)))
        with torch.no_grad():
            embedded[path] = clip.encode_video(frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1)[0].mean(dim=0)
    common = torch.stack(list(embedded.values())).mean(dim=0)
    means = {
        class_key(name): torch.stack([embedded[path] for path, label in made.videos.items() if label == name]).mean(
            dim=0
        )
        for name in made.classes
    }
    # Orthonormal; the first is what all videos have in common, and no text has.
    axes = torch.linalg.qr(torch.stack([common, *means.values()]).T).Q
    rows = torch.randn(len(names), len(common), generator=torch.Generator().manual_seed(3))
    rows -= rows @ axes @ axes.T
    for number, name in enumerate(names):
        if class_key(name) in means:
            mean = means[class_key(name)]
            rows[number] = mean - (mean @ axes[:, 0]) * axes[:, 0]
    return rows


@pytest.fixture(scope="module")
def tabulate(call_tool, table_recipe, prepared):
    """Makes a table: tabulate(folder, protocol, datasets, word, ..., options={...}) -> status."""

    def make(folder, protocol, datasets, *words, options=()):
        found = [prepared(name) for name in datasets]
        words = ["--label-db", found[0].folder.parent, "--datasets", *(data.name for data in found), *words]
        options = {"OUTPUT_DIR": folder, **dict(options)}
        words += ["--opts", *(word for pair in options.items() for word in pair)]
        return call_tool("run_protocol", ["--cfg", table_recipe, "--protocol", protocol, *words])

    return make


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_rows(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def snapshot(folder):
    """What a table consists of, but for logs and checkpoints."""
    files = [*folder.glob("*.*"), *folder.glob("jobs/*/results.json"), *folder.glob("jobs/*/splits/*/*")]
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.fixture
def decoded(monkeypatch):
    """Counts how often each video is decoded; decoded.limit ends the run after that many."""
    count, original = Counter(), decode.decode_frames
    count.limit = None

    def counting(path, *args, **kwargs):
        if count.limit is not None and count.total() >= count.limit:
            raise KeyboardInterrupt
        count[str(path)] += 1
        return original(path, *args, **kwargs)

    monkeypatch.setattr(decode, "decode_frames", counting)
    return count


# ------------------------------------------------------------------------------------------------------------ zero-shot


@pytest.fixture(scope="module")
def zero_shot(tabulate, features, tmp_path_factory):
    """Raw CLIP on all splits of three datasets, half-class draws included."""
    folder = tmp_path_factory.mktemp("zero_shot") / "table"
    words = ["--weights", "clip", "--halves", "--text-features", features / "{dataset}.pt", "--name", "raw"]
    assert tabulate(folder, "zero_shot", ZERO_SHOT, *words) == 0
    return folder


def test_files_of_a_table(zero_shot):
    assert {path.name for path in zero_shot.glob("*.*")} == {"results.json", "table.md", "table.tex"}
    assert {path.name for path in (zero_shot / "jobs").iterdir()} == set(ZERO_SHOT)
    halves = {f"half{number}" for number in range(10)}
    splits = {"full", "split1", "split2", "split3"} | halves
    for job, names in {"ucf101": splits, "hmdb51": splits, "k600": {f"zero_shot_split{n}" for n in (1, 2, 3)}}.items():
        folder = zero_shot / "jobs" / job
        assert {path.name for path in (folder / "splits").iterdir()} == names
        assert {path.name for path in (folder / "splits").glob("*/*")} == set(SPLIT_FILES)
        assert set(read_results(folder / "results.json").splits) == names
    assert not list(zero_shot.rglob("rank*.bin"))


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_figures_are_far_from_chance_and_from_perfect(zero_shot, name):
    """Scores that do not belong to their classes would be right in 5 of 101 cases."""
    splits = read_results(zero_shot / "jobs" / name / "results.json").splits.values()
    assert 25 < statistics.fmean(split.top5_acc for split in splits) < 100
    assert len({split.top1_acc for split in splits}) > 1


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_predictions_are_those_of_the_videos(zero_shot, prepared, miniature, name):
    """The figures of every split, made anew from the list of its predictions and from the names of the videos."""
    made, data = miniature(name), prepared(name)
    results = read_results(zero_shot / "jobs" / name / "results.json")
    for title, split in results.splits.items():
        folder = zero_shot / "jobs" / name / "splits" / title
        rows = read_rows(folder / "predictions.csv")
        listed = {str(made.root / row.path) for row in read_annotations(data.csv(f"{title}/test"), separator=",")}
        assert len(rows) == split.num_videos == split.num_scored == len(listed)
        assert {row["video"] for row in rows} == listed
        assert all(row["label"] == made.videos[str(Path(row["video"]).relative_to(made.root))] for row in rows)
        right = [row["label"] == row["predicted"] for row in rows]
        assert split.top1_acc == pytest.approx(100 * sum(right) / len(rows))
        assert split.top5_acc == pytest.approx(100 * sum(int(row["in_top5"]) for row in rows) / len(rows))
        classes = {row["class"]: row for row in read_rows(folder / "per_class.csv")}
        assert list(classes) == list(data.label_set(f"{title}/test").names)
        assert {label: int(row["videos"]) for label, row in classes.items() if row["videos"] != "0"} == Counter(
            row["label"] for row in rows
        )
        confusion = read_rows(folder / "confusion.csv")
        assert sum(int(row[row["class"]]) for row in confusion) == sum(right)


@pytest.fixture
def test_plainly(prepared, table_recipe, net, tmp_path):
    """Runs tools/run_net.py on one list alone: test_plainly(dataset, list, {KEY: value}) -> its output folder."""

    def run(name, title, options, *, names="index2cls"):
        data, folder = prepared(name), tmp_path / "plain"
        file = data.csv(title)
        status, _, err = net(
            {
                "OUTPUT_DIR": folder,
                "TRAIN.ENABLE": False,
                "DATA.PATH_TO_DATA_DIR": file.parent,
                "TEST_FILE": file.name,
                "DATA.PATH_LABEL_SEPARATOR": ",",
                "DATA.PATH_PREFIX": data.root,
                "DATA.INDEX_LABEL_MAPPING_FILE": data.folder / data.lists[title].classes.replace("index2cls", names),
                **options,
            },
            cfg=table_recipe,
        )
        assert (status, err) == (0, "")
        return folder

    return run


def text_of(features, name):
    return {"DATA.TEXT_AUG": True, "DATA.TEXT_AUG_FEATURE_FILE": features / f"{name}.pt"}


def assert_same_scores(job, split, plain):
    """What a job says of a split is what a plain test of its list says, to the last digit."""
    ours, theirs = read_results(job / "results.json"), read_results(plain / "results.json")
    for key in ("top1_acc", "top5_acc", "mean_class_acc", "num_videos", "num_scored", "num_classes"):
        assert getattr(ours.splits[split], key) == getattr(theirs.splits["test"], key), key
    assert ours.metrics[f"{split}_top1"] == theirs.metrics["top1_acc"]
    assert (ours.model_sha256, ours.weights_sha256) == (theirs.model_sha256, theirs.weights_sha256)
    for name in ("confusion.csv", "per_class.csv"):
        assert (job / "splits" / split / name).read_text() == (plain / "splits" / "test" / name).read_text(), name
    rows = [read_rows(folder / "predictions.csv") for folder in (job / "splits" / split, plain / "splits" / "test")]
    assert rows[0]
    # A video that several splits list has its place in the first of them.
    assert sorted(rows[0], key=str) == sorted(rows[1], key=str)


@pytest.mark.parametrize(
    ("name", "split"),
    [("ucf101", "split2"), ("ucf101", "half3"), ("hmdb51", "split3"), ("hmdb51", "full"), ("k600", "zero_shot_split1")],
)
def test_split_equals_a_plain_test_of_its_list(zero_shot, features, test_plainly, name, split):
    text = text_of(features, name)
    assert_same_scores(zero_shot / "jobs" / name, split, test_plainly(name, f"{split}/test", text))


def test_rephrased_names(tabulate, features, test_plainly, tmp_path):
    """Classes named "Name: sentence"; their features are found by the name."""
    words = ["--weights", "clip", "--text-features", features / "{dataset}.pt"]
    rephrased = {"SPLITS.NAMES": "rephrased"}
    assert tabulate(tmp_path / "table", "zero_shot", ["k600"], *words, options=rephrased) == 0
    plain = test_plainly("k600", "zero_shot_split2/test", text_of(features, "k600"), names="rephrased")
    assert_same_scores(tmp_path / "table" / "jobs" / "k600", "zero_shot_split2", plain)
    assert all(": " in row["label"] for row in read_rows(plain / "splits" / "test" / "predictions.csv"))


def test_means_and_deviations(zero_shot):
    cells = read(zero_shot / "results.json")["cells"]
    for dataset in ZERO_SHOT:
        results = read_results(zero_shot / "jobs" / dataset / "results.json")
        for kind, prefix in (("split", ("split", "zero_shot_split")), ("half", "half")):
            values = [split.top1_acc for name, split in results.splits.items() if name.startswith(prefix)]
            if not values:
                continue
            mean = sum(values) / len(values)
            std = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
            assert std > 0
            assert results.metrics[f"{kind}_mean_top1"] == pytest.approx(mean)
            assert results.metrics[f"{kind}_std_top1"] == pytest.approx(std)
            cell = cells[dataset][f"{kind}_mean"]
            assert (cell["mean"], cell["std"]) == (pytest.approx(mean), pytest.approx(std))
            assert cell["values"] == pytest.approx(values)
    assert (
        cells["ucf101"]["full"]["mean"]
        == read_results(zero_shot / "jobs" / "ucf101" / "results.json").splits["full"].top1_acc
    )


def test_table(zero_shot):
    content = read(zero_shot / "results.json")
    assert (content["format"], content["protocol"], content["name"]) == ("slowfast-stdd/table/1", "zero_shot", "raw")
    cell = content["cells"]["k600"]["split_mean"]
    text = f"{cell['mean']:.1f} ± {cell['std']:.1f}"
    ours = next(line for line in (zero_shot / "table.md").read_text(encoding="utf-8").splitlines() if "**raw**" in line)
    assert text in ours
    assert rf"{cell['mean']:.1f} $\pm$ {cell['std']:.1f}" in (zero_shot / "table.tex").read_text(encoding="utf-8")
    assert [(job["name"], job["folder"], job["coverage"]) for job in content["jobs"]] == [
        (name, f"jobs/{name}", 100.0) for name in ZERO_SHOT
    ]


def test_each_video_is_decoded_once(tabulate, prepared, features, decoded, tmp_path):
    words = ["--weights", "clip", "--halves", "--text-features", features / "{dataset}.pt"]
    assert tabulate(tmp_path, "zero_shot", ["ucf101", "hmdb51"], *words) == 0
    assert set(decoded.values()) == {1}
    # Split 3 of HMDB51 has videos that the whole list, which is of split 1, leaves out.
    assert len(decoded) == 48 + 42
    decoded.clear()
    assert tabulate(tmp_path, "zero_shot", ["ucf101", "hmdb51"], *words) == 0
    assert not decoded


def test_interrupted_table_goes_on_where_it_stopped(tabulate, features, decoded, tmp_path):
    words = ["--weights", "clip", "--text-features", features / "{dataset}.pt"]
    folder = tmp_path / "table"
    assert tabulate(folder, "zero_shot", ["hmdb51", "k600"], *words) == 0
    whole, total = snapshot(folder), decoded.total()
    shutil.rmtree(folder)

    decoded.clear()
    decoded.limit = 21
    assert tabulate(folder, "zero_shot", ["hmdb51", "k600"], *words) == 130
    scores = folder / "jobs" / "hmdb51" / "scores" / "rank0.bin"
    size = scores.stat().st_size
    with scores.open("ab") as file:  # a process that was killed leaves the beginning of a record
        file.write(b"\1" * 7)
    decoded.limit = total
    assert tabulate(folder, "zero_shot", ["hmdb51", "k600"], *words) == 130  # now in the second job
    assert size > 32
    assert (folder / "jobs" / "hmdb51" / "results.json").is_file()
    decoded.limit = None
    assert tabulate(folder, "zero_shot", ["hmdb51", "k600"], *words) == 0
    assert snapshot(folder) == whole
    # Of the two batches that were cut, what was read is read again; a batch has two videos.
    assert total <= decoded.total() <= total + 2
    assert set(decoded.values()) <= {1, 2}


def test_missing_videos_are_listed(tabulate, miniature, features, tmp_path, capfd):
    made = miniature("ucf101")
    root = tmp_path / "videos"
    shutil.copytree(made.root, root)
    gone, broken = "Billiards/v_Billiards_g01_c01.avi", "Typing/v_Typing_g08_c01.avi"
    (root / gone).unlink()
    (root / broken).write_bytes(b"no video")
    words = ["--weights", "clip", "--text-features", features / "{dataset}.pt", "--videos", f"ucf101={root}"]
    assert tabulate(tmp_path / "table", "zero_shot", ["ucf101"], *words) == 0
    results = read_results(tmp_path / "table" / "jobs" / "ucf101" / "results.json")
    assert (results.num_videos, results.num_scored) == (48, 46)
    assert len(results.missing) == 2
    for path in (gone, broken):
        assert any(str(root / path) in line for line in results.missing)
    counts = {name: (split.num_videos, split.num_scored) for name, split in results.splits.items()}
    assert counts == {"full": (48, 46), "split1": (16, 15), "split2": (16, 15), "split3": (8, 8)}
    assert results.metrics["coverage"] < 100
    assert read(tmp_path / "table" / "results.json")["jobs"][0]["coverage"] < 100
    assert "ucf101: only" in (tmp_path / "table" / "table.md").read_text(encoding="utf-8")


def test_features_that_do_not_fit_are_refused_by_name(tabulate, features, tmp_path, capfd):
    bare = tmp_path / "bare.pt"
    torch.save(torch.randn(100, 3, 32), bare)
    other, absent = features / "hmdb51.pt", tmp_path / "absent.pt"
    messages = {
        bare: f"error: DATA.TEXT_AUG_FEATURE_FILE: {bare}: has 100 rows, but the label set has 101 classes",
        other: f"error: DATA.TEXT_AUG_FEATURE_FILE: {other}: has no class 'Apply Eye Makeup' among its 51",
        absent: f"error: DATA.TEXT_AUG_FEATURE_FILE: {absent}: no such file, wanted by job ucf101",
    }
    for file, message in messages.items():
        capfd.readouterr()
        status = tabulate(tmp_path / "table", "zero_shot", ["ucf101"], "--weights", "clip", "--text-features", file)
        (line,) = capfd.readouterr().err.splitlines()
        assert (status, line[: len(message)]) == (1, message)
    assert not list((tmp_path / "table").rglob("results.json"))


def test_label_file_that_does_not_fit_is_refused(call_tool, table_recipe, prepared, tmp_path, capfd):
    """A list with a label that its class file does not have."""
    shutil.copytree(prepared("k600").folder, tmp_path / "k600")
    file = tmp_path / "k600" / "splits" / "zero_shot_split2" / "test.csv"
    rows = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*rows[:-1], rows[-1].rpartition(",")[0] + ",160"]) + "\n", encoding="utf-8")
    words = ["--cfg", table_recipe, "--protocol", "zero_shot", "--weights", "clip", "--datasets", "k600"]
    capfd.readouterr()
    assert call_tool("run_protocol", [*words, "--label-db", tmp_path, "--opts", "OUTPUT_DIR", tmp_path / "out"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{file}:{len(rows)}: label 160 is outside the label set" in line


def test_two_processes_equal_one(zero_shot, shell, table_recipe, prepared, features, tmp_path):
    arguments = ["--protocol", "zero_shot", "--weights", "clip", "--datasets", "hmdb51", "k600", "--halves"]
    arguments += ["--label-db", prepared("hmdb51").folder.parent, "--text-features", features / "{dataset}.pt"]
    done = shell(
        {"OUTPUT_DIR": tmp_path}, tool="tools/run_protocol.py", arguments=arguments, launcher=TORCHRUN, cfg=table_recipe
    )
    assert done.returncode == 0, done.stderr
    for job in ("hmdb51", "k600"):
        one, two = (read(folder / "jobs" / job / "results.json") for folder in (zero_shot, tmp_path))
        for key in ("metrics", "splits", "num_videos", "num_scored", "missing", "model_sha256"):
            assert two[key] == one[key], key
    kept = {path: content for path, content in snapshot(zero_shot).items() if path.parts[-1] in SPLIT_FILES}
    assert {path: content for path, content in snapshot(tmp_path).items() if path.parts[-1] in SPLIT_FILES} == {
        path: content for path, content in kept.items() if path.parts[1] in ("hmdb51", "k600")
    }


# -------------------------------------------------------------------------------------------------------- base-to-novel


@pytest.fixture(scope="module")
def base_to_novel(tabulate, features, tmp_path_factory):
    """Tables of three draws of four datasets, trained for an epoch: dataset -> folder of the table."""
    one, two = (tmp_path_factory.mktemp("base_to_novel") / "table" for _ in range(2))
    words = ["--text-features", features / "{dataset}.pt"]
    assert tabulate(one, "base_to_novel", BASE_TO_NOVEL[:3], *words) == 0
    # Two novel classes of Something-Something have one name, so no file of features can tell them apart.
    learned = {"MODEL.TEXT_PROMPT": True, "MODEL.PROMPT_NUM": 4}
    assert tabulate(two, "base_to_novel", BASE_TO_NOVEL[3:], options=learned) == 0
    return {**dict.fromkeys(BASE_TO_NOVEL[:3], one), BASE_TO_NOVEL[3]: two}


@pytest.mark.parametrize("name", BASE_TO_NOVEL)
def test_harmonic_means(base_to_novel, name):
    table = base_to_novel[name]
    found = read(table / "results.json")["cells"][name]
    runs = [read_results(table / "jobs" / f"{name}_seed{seed}" / "results.json") for seed in (1, 2, 3)]
    top1 = {half: [run.splits[half].top1_acc for run in runs] for half in ("base", "novel")}
    for half, values in top1.items():
        mean = sum(values) / 3
        std = (sum((value - mean) ** 2 for value in values) / 3) ** 0.5
        assert found[half] == {"mean": pytest.approx(mean), "std": pytest.approx(std), "values": values}
    base, novel = (sum(values) / 3 for values in top1.values())
    assert found["hm"]["mean"] == pytest.approx(2 * base * novel / (base + novel) if base + novel else 0)
    for run in runs:
        base, novel = (run.splits[half].top1_acc for half in ("base", "novel"))
        assert run.metrics["hm_top1"] == pytest.approx(2 * base * novel / (base + novel) if base + novel else 0)


def test_draws_make_different_models(base_to_novel):
    """In the miniature of Kinetics-400 one class has more videos than a draw takes."""
    jobs = base_to_novel["k400"] / "jobs"
    models = {read_results(jobs / f"k400_seed{seed}" / "results.json").model_sha256 for seed in (1, 2, 3)}
    assert len(models) == 3


def test_some_harmonic_mean_is_not_0(base_to_novel):
    cells = {name: read(table / "results.json")["cells"][name] for name, table in base_to_novel.items()}
    assert any(found["hm"]["mean"] > 0 for found in cells.values())


@pytest.mark.parametrize("name", BASE_TO_NOVEL)
def test_halves_are_disjoint(base_to_novel, prepared, name):
    folder = base_to_novel[name] / "jobs" / f"{name}_seed1" / "splits"
    rows = {half: read_rows(folder / half / "per_class.csv") for half in ("base", "novel")}
    classes = {half: [row["class"] for row in found] for half, found in rows.items()}
    assert not {class_key(title) for title in classes["base"]} & {class_key(title) for title in classes["novel"]}
    whole = "full/test" if "full/test" in prepared(name).lists else "full/val"
    assert len(classes["base"]) + len(classes["novel"]) == len(prepared(name).label_set(whole))
    for half in ("base", "novel"):
        with (folder / half / "confusion.csv").open(encoding="utf-8", newline="") as file:
            assert next(csv.reader(file))[1:] == classes[half]
        assert sum(int(row["videos"]) for row in rows[half]) > 0


@pytest.mark.parametrize(("name", "half"), [("k400", "novel"), ("ssv2", "base")])
def test_half_equals_a_plain_test_of_the_trained_weights(base_to_novel, features, test_plainly, name, half):
    job = base_to_novel[name] / "jobs" / f"{name}_seed2"
    text = text_of(features, name)
    if name == "ssv2":
        text = {"MODEL.TEXT_PROMPT": True, "MODEL.PROMPT_NUM": 4}
    weights = {"TEST.CHECKPOINT_FILE_PATH": job / "checkpoints" / "checkpoint_epoch_00001.pyth"}
    assert_same_scores(job, half, test_plainly(name, f"base_to_novel/{half}_test", {**text, **weights}))


def test_finished_trainings_are_not_repeated(tabulate, features, decoded, tmp_path):
    """A table whose last job was lost makes that job again, and the same."""
    folder = tmp_path / "table"
    words = ["--text-features", features / "{dataset}.pt", "--seeds", "1", "2"]
    assert tabulate(folder, "base_to_novel", ["hmdb51"], *words) == 0
    whole = snapshot(folder)
    first = folder / "jobs" / "hmdb51_seed1" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    written = first.stat().st_mtime_ns
    shutil.rmtree(folder / "jobs" / "hmdb51_seed2")
    decoded.clear()
    decoded.limit = 5
    assert tabulate(folder, "base_to_novel", ["hmdb51"], *words) == 130
    decoded.limit = None
    assert tabulate(folder, "base_to_novel", ["hmdb51"], *words) == 0
    assert snapshot(folder) == whole
    assert first.stat().st_mtime_ns == written


def test_given_weights_are_scored_once(tabulate, features, tmp_path):
    """Raw CLIP on base and novel classes: nothing is trained, so draws do not matter."""
    words = ["--weights", "clip", "--text-features", features / "{dataset}.pt"]
    assert tabulate(tmp_path, "base_to_novel", ["hmdb51"], *words) == 0
    content = read(tmp_path / "results.json")
    assert [job["name"] for job in content["jobs"]] == ["hmdb51"]
    results = read_results(tmp_path / "jobs" / "hmdb51" / "results.json")
    for half in ("base", "novel"):
        top1 = results.splits[half].top1_acc
        assert content["cells"]["hmdb51"][half] == {"mean": top1, "std": None, "values": [top1]}
    assert not list(tmp_path.rglob("checkpoints"))


# ------------------------------------------------------------------------------------------------- few-shot, supervised


@pytest.fixture(scope="module")
def few_shot(tabulate, features, tmp_path_factory):
    """Two and four videos per class of three datasets."""
    folder = tmp_path_factory.mktemp("few_shot") / "table"
    words = ["--shots", "2", "4", "--text-features", features / "{dataset}.pt"]
    assert tabulate(folder, "few_shot", FEW_SHOT, *words) == 0
    return folder


def test_few_shot(few_shot):
    content = read(few_shot / "results.json")
    assert set(content["cells"]) == set(FEW_SHOT)
    for dataset in FEW_SHOT:
        for shots in (2, 4):
            results = read_results(few_shot / "jobs" / f"{dataset}_{shots}shot" / "results.json")
            (split,) = results.splits.values()
            assert list(results.splits) == ["full" if dataset == "ssv2" else "split1"]
            assert content["cells"][dataset][f"shot{shots}"] == {
                "mean": split.top1_acc, "std": None, "values": [split.top1_acc]
            }  # fmt: skip


def test_few_shot_names_the_leak_of_other_splits(tabulate, prepared, tmp_path):
    """Scored with templates, as without a feature file."""
    assert tabulate(tmp_path, "few_shot", ["hmdb51"], "--shots", "4", "--all-tests") == 0
    results = read_results(tmp_path / "jobs" / "hmdb51_4shot" / "results.json")
    assert list(results.splits) == ["split1", "split2", "split3"]
    data = prepared("hmdb51")
    rows = {name: {row.path for row in read_annotations(data.csv(name), separator=",")} for name in data.lists}
    for split in (1, 2, 3):
        trained = len(rows["few_shot/4/train"] & rows[f"split{split}/test"])
        assert results.metrics[f"split{split}_trained_on"] == trained
        assert (trained == 0) == (split == 1)
    assert read(tmp_path / "results.json")["cells"]["hmdb51"]["shot4"]["mean"] == results.splits["split1"].top1_acc


def test_few_shot_needs_a_training(tabulate, tmp_path, capfd):
    assert tabulate(tmp_path, "few_shot", ["hmdb51"], "--weights", "clip") == 2
    assert "--weights: few-shot figures come from training" in capfd.readouterr().err


def test_fully_supervised(tabulate, features, tmp_path):
    """Kinetics-400, and a folder of one's own whose text is made of templates."""
    words = ["--text-features", features / "{dataset}.pt"]
    assert tabulate(tmp_path / "k400", "fully_supervised", ["k400"], *words) == 0
    assert tabulate(tmp_path / "own", "fully_supervised", ["folder"]) == 0
    for name, folder, videos, classes in (("k400", "k400", 12, 400), ("kitchen", "own", 6, 3)):
        results = read_results(tmp_path / folder / "jobs" / name / "results.json")
        (split,) = results.splits.values()
        assert (split.num_videos, split.num_classes) == (videos, classes)
        lines = (tmp_path / folder / "jobs" / name / "json_stats.log").read_text(encoding="utf-8")
        assert [lines.count(f'"{kind}_epoch"') for kind in ("train", "val")] == [1, 1]
        assert read(tmp_path / folder / "results.json")["cells"][name] == {
            f"top{k}": {"mean": value, "std": None, "values": [value]}
            for k, value in ((1, split.top1_acc), (5, split.top5_acc))
        }


def test_training_averaging_and_tests_of_other_datasets(tabulate, prepared, features, tmp_path):
    """Zero-shot without weights: one training on Kinetics-400, whose average is scored on two other datasets.

    What it leaves is then where few-shot training starts.
    """
    average = {"SOLVER.MAX_EPOCH": 2, "AVERAGE.METHOD": "swa", "AVERAGE.START": 1}
    words = ["--text-features", features / "{dataset}.pt"]
    prepared("k400")
    assert tabulate(tmp_path / "one", "zero_shot", ["hmdb51", "k600"], *words, options=average) == 0
    jobs = tmp_path / "one" / "jobs"
    (averaged,) = (jobs / "train_k400" / "averaged").glob("*.p*")
    for name in ("hmdb51", "k600"):
        assert read_results(jobs / name / "results.json").weights_sha256 == sha256_file(averaged)
    assert list(read(tmp_path / "one" / "results.json")["cells"]) == ["hmdb51", "k600"]
    assert not (jobs / "train_k400" / "results.json").exists()

    starts = {"init": ["--init", averaged], "clip": []}
    weights = {}
    for name, start in starts.items():
        assert tabulate(tmp_path / name, "few_shot", ["hmdb51"], "--shots", "2", *words, *start) == 0
        weights[name] = read_results(tmp_path / name / "jobs" / "hmdb51_2shot" / "results.json").model_sha256
    assert weights["init"] != weights["clip"]


# ---------------------------------------------------------------------------------------------------------- all methods


@pytest.mark.parametrize("recipe", METHODS, indirect=True)
def test_every_method_in_every_protocol(tabulate, prepared, tmp_path):
    """One small table each, classes described by templates or by what the method writes."""
    prepared("k400")  # what a zero-shot model is trained on
    tables = {
        "zero_shot": ("hmdb51", []),
        "few_shot": ("hmdb51", ["--shots", "2"]),
        "base_to_novel": ("ucf101", ["--seeds", "1"]),
        "fully_supervised": ("folder", []),
    }
    for protocol, (name, words) in tables.items():
        folder = tmp_path / protocol
        assert tabulate(folder, protocol, [name], *words) == 0
        (cells,) = read(folder / "results.json")["cells"].values()
        assert all(0 <= cell["mean"] <= 100 for cell in cells.values())
        for path in folder.glob("jobs/*/results.json"):
            results = read_results(path)
            assert results.num_scored == results.num_videos > 0


@pytest.mark.parametrize("recipe", ["ost"], indirect=True)
def test_tables_of_ost(tabulate, prepared, tmp_path):
    """Zero-shot with and without raw CLIP; from its weights few-shot, one case with a rate of its own."""
    prepared("k400")
    assert tabulate(tmp_path / "zero", "zero_shot", ["hmdb51"], options={"TEST.PATCHING_RATIOS": "[0.2,0.0]"}) == 0
    jobs = tmp_path / "zero" / "jobs"
    assert [read(jobs / "hmdb51" / f"results{end}.json")["patching_ratio"] for end in ("", "_clip0")] == [0.2, 0.0]
    rows = (tmp_path / "zero" / "table.md").read_text(encoding="utf-8")
    assert all(row in rows for row in ("| **mini, 0.2 of raw CLIP**", "| **mini**"))

    tuned = jobs / "train_k400" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    words = ["--shots", "2", "4", "--init", tuned, "--for", "hmdb51_4shot", "SOLVER.BASE_LR", "2e-3"]
    assert tabulate(tmp_path / "few", "few_shot", ["hmdb51"], *words) == 0
    rates = {}
    for shots in (2, 4):
        job = tmp_path / "few" / "jobs" / f"hmdb51_{shots}shot"
        rates[shots] = yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8"))["SOLVER"]["BASE_LR"]
        checkpoint = torch.load(job / "checkpoints" / "checkpoint_epoch_00001.pyth", weights_only=True)
        steps = {int(state["step"]) for state in checkpoint["optimizer_state"]["state"].values()}
        assert steps == {6 * shots // 4}  # those of this training alone
    assert rates == {2: 1e-3, 4: 2e-3}


@pytest.mark.parametrize("recipe", ["vifi_clip"], indirect=True)
def test_prompts_of_vifi_clip_over_tuned_weights(tabulate, tmp_path):
    options = {"VIFI_CLIP.N_CTX_VISION": 0, "VIFI_CLIP.N_CTX_TEXT": 0}
    assert tabulate(tmp_path / "tuned", "few_shot", ["hmdb51"], "--shots", "2", options=options) == 0
    last = Path("jobs", "hmdb51_2shot", "checkpoints", "checkpoint_epoch_00001.pyth")
    options = {"VIFI_CLIP.PROMPT_MODEL": "True"}
    words = ["--shots", "2", "--init", tmp_path / "tuned" / last]
    assert tabulate(tmp_path / "prompts", "few_shot", ["hmdb51"], *words, options=options) == 0
    before, after = (torch.load(tmp_path / run / last, weights_only=True) for run in ("tuned", "prompts"))
    before, after = before["model_state"], after["model_state"]
    assert set(before) < set(after)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


# --------------------------------------------------------------------------------------------------------------- report


def test_report_of_tables(zero_shot, base_to_novel, few_shot, call_tool, tmp_path):
    """One page about all of them, which needs nothing but itself."""
    page = tmp_path / "report.html"
    folders = [zero_shot, *dict.fromkeys(base_to_novel.values()), few_shot]
    assert call_tool("report", [*folders, "--output", page]) == 0
    text = page.read_text(encoding="utf-8")
    for word in ("UCF101", "HMDB51", "Kinetics-600", "playing violin", "half3", "data:image/"):
        assert word.lower() in text.lower(), word
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)


# -------------------------------------------------------------------------------------------------- what may be wrong


def test_unprepared_dataset_is_named(call_tool, table_recipe, tmp_path, capfd):
    words = ["--cfg", table_recipe, "--protocol", "zero_shot", "--weights", "clip", "--label-db", tmp_path]
    assert call_tool("run_protocol", [*words, "--datasets", "ucf101", "--opts", "OUTPUT_DIR", tmp_path / "out"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "tools/prepare_data.py ucf101" in line


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--protocol", "one_shot"], 2, "invalid choice: 'one_shot'"),
        (["--protocol", "zero_shot", "--weights", "absent.pth", "--datasets", "k600"], 1, "absent.pth: no such file"),
        (["--protocol", "zero_shot", "--weights", "clip", "--init", "a.pth"], 2, "--init"),
        (["--protocol", "base_to_novel", "--datasets", "k600"], 1, "has no list 'base_to_novel/seed1/train'"),
        (["--protocol", "zero_shot", "--weights", "clip", "--datasets", "k600", "--videos", "k600"], 2, "--videos"),
        (["--protocol", "zero_shot", "--weights", "clip", "--datasets", "k600", "--videos", "ucf101=a"], 2, "--videos"),
        (
            ["--protocol", "base_to_novel", "--datasets", "ucf101", "--init", "absent.pth"],
            1,
            "absent.pth: no such file",
        ),
    ],
)
def test_mistakes(call_tool, table_recipe, prepared, tmp_path, capfd, words, status, message):
    (label_db, _) = (prepared(name).folder.parent for name in ("k600", "ucf101"))
    capfd.readouterr()
    command = ["--cfg", table_recipe, *words, "--label-db", label_db, "--opts", "OUTPUT_DIR", tmp_path]
    assert call_tool("run_protocol", command) == status
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("results.json"))
