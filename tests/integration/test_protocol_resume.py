"""What tools/run_protocol.py leaves alone when it is started again, what it does anew, and what it refuses."""

import csv
import json
import pickle
import shutil

import pytest
import torch
import yaml

from slowfast.datasets import decode
from slowfast.datasets.annotation import read_annotations
from slowfast.engine.score_store import ScoreStore
from slowfast.report.results import read_results
from slowfast.text.feature_file import FeatureFile, write_feature_file


@pytest.fixture(scope="module")
def table_recipe(recipe, tmp_path_factory):
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for key in ("PATH_TO_DATA_DIR", "PATH_PREFIX", "PATH_LABEL_SEPARATOR", "INDEX_LABEL_MAPPING_FILE"):
        del content["DATA"][key]
    content["DATA"] |= {"SAMPLING_RATE": 2, "TARGET_FPS": 12, "TEXT_AUG": False, "TEXT_AUG_FEATURE_FILE": ""}
    content["SOLVER"]["MAX_EPOCH"] = 2
    path = tmp_path_factory.mktemp("recipe") / "mini.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def kitchen(prepared, tmp_path):
    """A dataset of three classes in a label_db of its own, which a test may change."""
    folder = tmp_path / "label_db" / "kitchen"
    shutil.copytree(prepared("folder").folder, folder)
    return folder


@pytest.fixture
def tabulate(call_tool, table_recipe, kitchen, tmp_path, capfd):
    """Makes a table of it: tabulate(protocol, word, ..., options={}) -> (status, stderr)."""

    def make(protocol, *words, options=()):
        words = ["--protocol", protocol, "--datasets", "kitchen", "--label-db", kitchen.parent, *words]
        opts = {"OUTPUT_DIR": tmp_path / "table", **dict(options)}
        words += ["--opts", *(word for pair in opts.items() for word in pair)]
        capfd.readouterr()
        return call_tool("run_protocol", ["--cfg", table_recipe, *words]), capfd.readouterr().err

    return make


@pytest.fixture
def job(tmp_path):
    return tmp_path / "table" / "jobs" / "kitchen"


def drop_last_row(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def describe(path, kitchen, *, seed):
    """Write random text features of its classes."""
    names = tuple(json.loads((kitchen / "index2cls.json").read_text()).values())
    rows = torch.randn(len(names), 2, 32, generator=torch.Generator().manual_seed(seed))
    write_feature_file(path, FeatureFile(features=rows, names=names))


RAW = ("zero_shot", "--weights", "clip")


def test_a_finished_test_is_left_alone_until_its_lists_classes_or_texts_change(tabulate, kitchen, job, tmp_path):
    features = tmp_path / "text.pt"
    describe(features, kitchen, seed=1)
    words = (*RAW, "--text-features", features)
    assert tabulate(*words) == (0, "")
    first = (job / "results.json").stat().st_mtime_ns
    assert tabulate(*words) == (0, "")
    assert (job / "results.json").stat().st_mtime_ns == first

    describe(features, kitchen, seed=2)
    assert tabulate(*words) == (0, "")
    second = (job / "results.json").stat().st_mtime_ns
    assert second != first

    drop_last_row(kitchen / "splits" / "full" / "test.csv")
    assert tabulate(*words) == (0, "")
    assert read_results(job / "results.json").num_videos == 5
    third = (job / "results.json").stat().st_mtime_ns
    assert third != second

    reverse_classes(kitchen)
    assert tabulate(*words) == (0, "")
    assert (job / "results.json").stat().st_mtime_ns != third


def test_results_do_not_outlive_their_configuration(tabulate, job, monkeypatch):
    """After a second test was begun the folder says nothing of the first any more."""
    assert tabulate(*RAW) == (0, "")
    for other in (job / "splits").iterdir():
        shutil.copytree(other, job / "splits" / "half0")
    with monkeypatch.context() as patch:
        patch.setattr("slowfast.protocols.zero_shot.ZeroShot.summarise", stop)
        assert tabulate(*RAW, options={"TEST.NUM_ENSEMBLE_VIEWS": 1})[0] == 130
    assert not (job / "results.json").exists()
    assert list((job / "scores").iterdir())
    # All videos were scored: what is left is the report.
    assert tabulate(*RAW, options={"TEST.NUM_ENSEMBLE_VIEWS": 1}) == (0, "")
    assert read_results(job / "results.json").num_scored == 6
    assert [path.name for path in (job / "splits").iterdir()] == ["full"]


def stop(*_):
    raise KeyboardInterrupt


def test_what_a_training_depends_on(tabulate, kitchen, job):  # one story: each step costs a training otherwise
    options = {"AVERAGE.METHOD": "swa", "AVERAGE.START": 1}
    assert tabulate("fully_supervised", options=options) == (0, "")
    checkpoint = job / "checkpoints" / "checkpoint_epoch_00002.pyth"
    written, swa = checkpoint.stat().st_mtime_ns, read_results(job / "results.json")
    assert swa.weights.endswith("swa_1_2.pth")

    # How it is tested and averaged may change afterwards.
    assert tabulate("fully_supervised", options={**options, "TEST.BATCH_SIZE": 2}) == (0, "")
    assert read_results(job / "results.json").weights_sha256 == swa.weights_sha256
    assert tabulate("fully_supervised", options={**options, "AVERAGE.METHOD": "ewa"}) == (0, "")
    assert read_results(job / "results.json").weights.endswith("ewa_1_2.pth")
    assert checkpoint.stat().st_mtime_ns == written

    # A lost average is made again.
    shutil.rmtree(job / "averaged")
    assert tabulate("fully_supervised", options=options) == (0, "")
    assert read_results(job / "results.json").weights_sha256 == swa.weights_sha256
    assert checkpoint.stat().st_mtime_ns == written

    status, err = tabulate("fully_supervised", options={**options, "SOLVER.MAX_EPOCH": 3})
    assert (status, len(err.splitlines())) == (1, 1)
    assert "training.json: it was trained with another configuration (SOLVER.MAX_EPOCH was 2)" in err

    drop_last_row(kitchen / "splits" / "full" / "train.csv")
    status, err = tabulate("fully_supervised", options=options)
    assert (status, len(err.splitlines())) == (1, 1)
    assert "training.json: it was trained with other lists" in err

    (job / "training.json").unlink()
    status, err = tabulate("fully_supervised", options=options)
    assert status == 1
    assert "kitchen: holds checkpoints, but not of this table" in err
    status, err = tabulate("fully_supervised", "--weights", "clip")
    assert status == 1
    assert "kitchen: holds checkpoints, so it is not for raw CLIP" in err


def test_an_average_with_gaps_is_told(tabulate, job):
    options = {"AVERAGE.METHOD": "swa", "AVERAGE.START": 1, "TRAIN.CHECKPOINT_PERIOD": 2}
    assert tabulate("fully_supervised", options=options)[0] == 0
    log = (job / "stdout.log").read_text(encoding="utf-8")
    assert "AVERAGE.METHOD swa: no checkpoint of epochs 1 (TRAIN.CHECKPOINT_PERIOD" in log


def test_a_table_of_another_kind_is_not_replaced(tabulate, tmp_path):
    assert tabulate(*RAW) == (0, "")
    before = (tmp_path / "table" / "results.json").read_bytes()
    status, err = tabulate("fully_supervised")
    assert status == 1
    assert "results.json: is zero_shot, which a table of fully_supervised would replace" in err
    assert (tmp_path / "table" / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"DATA.PATH_PREFIX": "/videos"}, "DATA.PATH_PREFIX: is '/videos'"),
        ({"TEST.NUM_TEMPORAL_CLIPS": "[1,2]"}, "TEST.NUM_TEMPORAL_CLIPS: is "),
        ({"TEST.NUM_ENSEMBLE_VIEWS": -1}, "TEST.NUM_ENSEMBLE_VIEWS: is -1"),
    ],
)
def test_keys_that_have_no_place_in_a_table(tabulate, options, message):
    status, err = tabulate(*RAW, options=options)
    assert status == 2
    assert message in err


def test_videos_are_looked_for_before_the_first_job(tabulate, tmp_path):
    status, err = tabulate(*RAW, "--videos", f"kitchen={tmp_path / 'absent'}", "--dry-run")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "test.csv:1: no such video" in err


def test_features_without_names_do_not_serve_joined_lists(call_tool, table_recipe, prepared, tmp_path, capfd):
    """The base classes come first where both halves are scored, whatever the order of all classes."""
    features = tmp_path / "bare.pt"
    torch.save(torch.randn(51, 1, 32), features)
    words = ["--cfg", table_recipe, "--weights", "clip", "--datasets", "hmdb51", "--text-features", features]
    words += ["--label-db", prepared("hmdb51").folder.parent]
    capfd.readouterr()
    options = ["--opts", "OUTPUT_DIR", tmp_path / "base_to_novel"]
    assert call_tool("run_protocol", [*words, "--protocol", "base_to_novel", *options]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert f"DATA.TEXT_AUG_FEATURE_FILE: {features}: does not say which row is which class" in line
    options = ["--opts", "OUTPUT_DIR", tmp_path / "zero_shot"]
    assert call_tool("run_protocol", [*words, "--protocol", "zero_shot", "--halves", *options]) == 0


@pytest.fixture
def num_decoded(monkeypatch):
    """How many videos were decoded since it was last asked."""
    paths, original = [], decode.decode_frames

    def counting(path, *args, **kwargs):
        paths.append(path)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(decode, "decode_frames", counting)

    def ask():
        count = len(paths)
        paths.clear()
        return count

    return ask


@pytest.fixture
def interrupted(tabulate, monkeypatch, num_decoded):
    """A test that ended between its last video and its report."""
    with monkeypatch.context() as patch:
        patch.setattr("slowfast.protocols.zero_shot.ZeroShot.summarise", stop)
        assert tabulate(*RAW)[0] == 130
    assert num_decoded() == 6


def test_an_interrupted_test_goes_on(interrupted, tabulate, num_decoded, job):
    assert tabulate(*RAW) == (0, "")
    assert num_decoded() == 0
    assert read_results(job / "results.json").num_scored == 6


def test_an_interrupted_test_begins_anew_on_request(interrupted, tabulate, num_decoded):
    assert tabulate(*RAW, options={"TEST.AUTO_RESUME": False}) == (0, "")
    assert num_decoded() == 6


def test_an_interrupted_test_begins_anew_without_resume_each_time(tabulate, monkeypatch, num_decoded):
    options = {"TEST.AUTO_RESUME": False}
    with monkeypatch.context() as patch:
        patch.setattr("slowfast.protocols.zero_shot.ZeroShot.summarise", stop)
        assert tabulate(*RAW, options=options)[0] == 130
    num_decoded()
    assert tabulate(*RAW, options=options) == (0, "")
    assert num_decoded() == 6


def test_an_interrupted_test_of_another_configuration_does_not_go_on(interrupted, tabulate, num_decoded):
    assert tabulate(*RAW, options={"DATA.SAMPLING_RATE": 3}) == (0, "")
    assert num_decoded() == 6


def test_scores_that_went_lost_are_missed(tabulate, monkeypatch, job):
    """As if another machine had written them to a disk of its own."""
    monkeypatch.setattr(ScoreStore, "append", lambda *_: None)
    status, err = tabulate(*RAW)
    assert (status, len(err.splitlines())) == (1, 1)
    assert "has the scores of 0 of 6 videos, of which 0 could not be decoded; all machines of a run must share" in err
    assert not (job / "results.json").exists()


def swap_labels(kitchen):
    path = kitchen / "splits" / "full" / "test.csv"
    rows = [line.rsplit(",", 1) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{name},{(int(label) + 1) % 3}\n" for name, label in rows))


def reverse_classes(kitchen):
    path = kitchen / "index2cls.json"
    names = list(json.loads(path.read_text()).values())
    path.write_text(json.dumps({str(number): name for number, name in enumerate(reversed(names))}))


def move_videos(kitchen):
    path = kitchen / "splits" / "manifest.json"
    content = json.loads(path.read_text())
    moved = shutil.copytree(content["root"], kitchen / "moved")
    path.write_text(json.dumps({**content, "root": str(moved)}))


@pytest.mark.parametrize("change", [swap_labels, reverse_classes, move_videos])
def test_an_interrupted_test_of_something_else_does_not_go_on(interrupted, tabulate, kitchen, num_decoded, change):
    change(kitchen)
    assert tabulate(*RAW) == (0, "")
    assert num_decoded() == 6


def test_an_interrupted_test_with_other_texts_does_not_go_on(tabulate, kitchen, monkeypatch, num_decoded, tmp_path):
    features = tmp_path / "text.pt"
    describe(features, kitchen, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("slowfast.protocols.zero_shot.ZeroShot.summarise", stop)
        assert tabulate(*RAW, "--text-features", features)[0] == 130
    describe(features, kitchen, seed=2)
    num_decoded()
    assert tabulate(*RAW, "--text-features", features) == (0, "")
    assert num_decoded() == 6


def test_weights_that_were_replaced_are_tested_anew(tabulate, job, tmp_path, monkeypatch, num_decoded):
    """Under the same name; finished or interrupted."""
    assert tabulate("fully_supervised") == (0, "")
    weights, other = tmp_path / "weights.pyth", tmp_path / "other"
    shutil.copy(job / "checkpoints" / "checkpoint_epoch_00001.pyth", weights)
    command = ("zero_shot", "--weights", weights)
    num_decoded()
    assert tabulate(*command, options={"OUTPUT_DIR": other}) == (0, "")
    assert num_decoded() == 6
    first = read_results(other / "jobs" / "kitchen" / "results.json")
    shutil.copy(job / "checkpoints" / "checkpoint_epoch_00002.pyth", weights)
    assert tabulate(*command, options={"OUTPUT_DIR": other}) == (0, "")
    assert num_decoded() == 6
    second = read_results(other / "jobs" / "kitchen" / "results.json")
    assert first.weights == second.weights == str(weights)
    assert first.model_sha256 != second.model_sha256

    shutil.rmtree(other)
    with monkeypatch.context() as patch:
        patch.setattr("slowfast.protocols.zero_shot.ZeroShot.summarise", stop)
        assert tabulate(*command, options={"OUTPUT_DIR": other})[0] == 130
    shutil.copy(job / "checkpoints" / "checkpoint_epoch_00001.pyth", weights)
    num_decoded()
    assert tabulate(*command, options={"OUTPUT_DIR": other}) == (0, "")
    assert num_decoded() == 6


def test_a_finished_table_may_move(tabulate, kitchen, tmp_path, num_decoded):
    """Its folder, the weights and the lists lie elsewhere, under other names; videos that moved are scored again."""
    assert tabulate("fully_supervised") == (0, "")
    (tmp_path / "table").rename(tmp_path / "moved")
    num_decoded()
    assert tabulate("fully_supervised", options={"OUTPUT_DIR": tmp_path / "moved"}) == (0, "")
    assert num_decoded() == 0
    move_videos(kitchen)
    assert tabulate("fully_supervised", options={"OUTPUT_DIR": tmp_path / "moved"}) == (0, "")
    assert num_decoded() == 6
    words = ("fully_supervised", "--videos", f"kitchen={kitchen / 'moved'}")
    assert tabulate(*words, options={"OUTPUT_DIR": tmp_path / "moved"}) == (0, "")
    assert num_decoded() == 6


def test_configurations_of_the_jobs(call_tool, table_recipe, kitchen, capfd):
    (kitchen / "dataset.yaml").write_text("title: Kitchen\nmirror: false\n")
    videos = kitchen.parent / "elsewhere"
    words = ["--protocol", "fully_supervised", "--datasets", "kitchen", "--label-db", kitchen.parent, "--print-config"]
    words += ["--videos", f"kitchen={videos}"]
    words += ["--opts", "OUTPUT_DIR", "out", "AVERAGE.METHOD", "gwa", "AVERAGE.START", 0, "AVERAGE.END", 1]
    shutil.copytree(json.loads((kitchen / "splits" / "manifest.json").read_text())["root"], videos)
    capfd.readouterr()
    assert call_tool("run_protocol", ["--cfg", table_recipe, *words]) == 0
    train, test = yaml.safe_load_all(capfd.readouterr().out)
    assert [config["DATA"]["PATH_PREFIX"] for config in (train, test)] == [str(videos)] * 2
    assert train["DATA"]["RANDOM_FLIP"] is False
    assert (train["TRAIN"]["ENABLE"], train["TEST"]["ENABLE"]) == (True, False)
    assert (test["TRAIN"]["ENABLE"], test["TEST"]["ENABLE"], test["TEST"]["CUSTOM_LOAD"]) == (False, True, True)
    assert test["TEST"]["CUSTOM_LOAD_FILE"] == "out/jobs/kitchen/averaged/gwa_0_1.pth"
    assert train["MODEL"]["NUM_CLASSES"] == 3


def test_keys_of_single_jobs(call_tool, table_recipe, prepared, capfd):
    """A rate for one case of a table; mirrored clips where the classes tell left from right."""
    datasets = [prepared(name) for name in ("hmdb51", "ssv2")]
    words = ["--protocol", "few_shot", "--datasets", "hmdb51", "ssv2", "--shots", "2", "4"]
    words += ["--label-db", datasets[0].folder.parent, "--print-config"]
    words += ["--for", "*_4shot", "SOLVER.BASE_LR", "2e-3", "--for", "hmdb51_*", "SOLVER.BASE_LR", "3e-3"]
    words += ["--for", "ssv2_4shot", "DATA.RANDOM_FLIP", "True", "TRAIN.BATCH_SIZE", "2"]
    capfd.readouterr()
    assert call_tool("run_protocol", ["--cfg", table_recipe, *words, "--opts", "SOLVER.MAX_EPOCH", 1]) == 0
    configs = list(yaml.safe_load_all(capfd.readouterr().out))
    found = [
        (config["SOLVER"]["BASE_LR"], config["DATA"]["RANDOM_FLIP"], config["TRAIN"]["BATCH_SIZE"])
        for config in configs
        if config["TRAIN"]["ENABLE"]
    ]
    assert found == [(3e-3, True, 4), (3e-3, True, 4), (1e-3, False, 4), (2e-3, True, 2)]
    assert configs[-1]["TRAIN"]["BATCH_SIZE"] == 2  # the test of a job is of its training


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hmdb51_3shot", "SOLVER.BASE_LR", "1"], "--for hmdb51_3shot: is no job of this table; allowed: hmdb51_2shot"),
        (["hmdb51_2shot"], "--for hmdb51_2shot: expected KEY VALUE pairs, found none"),
        (["hmdb51_2shot", "SOLVER.BASE_LR"], "--for hmdb51_2shot: expected KEY VALUE pairs, found SOLVER.BASE_LR"),
        (["*", "SPLITS.SHOTS", "4"], "--for: SPLITS.SHOTS of hmdb51_2shot is the table's to set; allowed: other keys"),
        (["*", "NUM_GPUS", "1"], "--for: NUM_GPUS of hmdb51_2shot is the table's to set"),
        (["*", "SOLVER.BASE_RATE", "1"], "nearest key: SOLVER.BASE_LR"),
    ],
)
def test_wrong_keys_of_single_jobs(call_tool, table_recipe, prepared, capfd, words, message):
    label_db = prepared("hmdb51").folder.parent
    capfd.readouterr()
    options = [
        "--protocol",
        "few_shot",
        "--datasets",
        "hmdb51",
        "--shots",
        "2",
        "--label-db",
        label_db,
        "--for",
        *words,
    ]
    assert call_tool("run_protocol", ["--cfg", table_recipe, *options]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_raw_clip_is_epoch_0_of_an_average(tabulate, job):
    options = {"AVERAGE.METHOD": "swa", "AVERAGE.START": 0, "AVERAGE.END": 1}
    assert tabulate("fully_supervised", options=options) == (0, "")
    state = torch.load(job / "averaged" / "swa_0_1.pth", weights_only=True)["model_state"]
    checkpoint = torch.load(job / "checkpoints" / "checkpoint_epoch_00001.pyth", weights_only=True)["model_state"]
    name = "model.visual.conv1.weight"
    assert not torch.equal(state[name], checkpoint[name])
    log = (job / "stdout.log").read_text(encoding="utf-8")
    assert "Averaged 2 checkpoints" in log


def test_matrices_of_each_list_are_in_its_order(call_tool, table_recipe, prepared, tmp_path):
    """TEST.SAVE_RESULTS_PATH where a video is in several lists."""
    data = prepared("hmdb51")
    words = ["--cfg", table_recipe, "--protocol", "zero_shot", "--weights", "clip", "--datasets", "hmdb51"]
    words += ["--label-db", data.folder.parent, "--opts", "OUTPUT_DIR", tmp_path]
    assert call_tool("run_protocol", [*words, "TEST.SAVE_RESULTS_PATH", "scores.pkl"]) == 0
    folder = tmp_path / "jobs" / "hmdb51"
    assert "split1 lists 12 of 1530" in (tmp_path / "table.md").read_text(encoding="utf-8")
    for split in ("split1", "split2", "split3", "full"):
        rows = read_annotations(data.csv(f"{split}/test"), prefix=data.root, separator=",")
        with (folder / f"scores_{split}.pkl").open("rb") as file:
            scores, labels = pickle.load(file)
        assert labels.tolist() == [row.label for row in rows]
        names = data.label_set(f"{split}/test").names
        with (folder / "splits" / split / "predictions.csv").open(encoding="utf-8", newline="") as file:
            predicted = {row["video"]: row["predicted"] for row in csv.DictReader(file)}
        assert [names[best] for best in scores.argmax(dim=1)] == [predicted[row.path] for row in rows]


def test_a_job_that_keeps_the_best_epoch_is_tested_from_it(tabulate, job, num_decoded):
    options = {"TRAIN.KEEP_BEST": True, "TRAIN.EVAL_PERIOD": 1}
    status, err = tabulate("fully_supervised", options={**options, "AVERAGE.METHOD": "swa"})
    assert status == 2
    assert "TRAIN.KEEP_BEST: True tests the best epoch, AVERAGE.METHOD 'swa' a mean of several" in err
    assert tabulate("fully_supervised", options=options) == (0, "")
    results = read_results(job / "results.json")
    assert results.weights == str(job / "checkpoints" / "checkpoint_best.pyth")
    training = json.loads((job / "training.json").read_text(encoding="utf-8"))
    assert (training["weights"], training["weights_sha256"]) == ("checkpoint_best.pyth", results.weights_sha256)
    assert "chooses the epoch" not in (job / "stdout.log").read_text(encoding="utf-8")
    num_decoded()
    assert tabulate("fully_supervised", options=options) == (0, "")
    assert num_decoded() == 0
    # The last epoch instead: nothing is trained for it.
    checkpoint = job / "checkpoints" / "checkpoint_epoch_00002.pyth"
    written = checkpoint.stat().st_mtime_ns
    assert tabulate("fully_supervised", options={"TRAIN.EVAL_PERIOD": 1}) == (0, "")
    assert read_results(job / "results.json").weights == str(checkpoint)
    assert checkpoint.stat().st_mtime_ns == written


def test_an_epoch_that_is_chosen_on_the_test_videos_is_said(call_tool, table_recipe, prepared, tmp_path):
    words = ["--cfg", table_recipe, "--protocol", "few_shot", "--datasets", "hmdb51", "--shots", "2"]
    words += ["--label-db", prepared("hmdb51").folder.parent, "--opts", "OUTPUT_DIR", tmp_path, "SOLVER.MAX_EPOCH", 1]
    assert call_tool("run_protocol", [*words, "TRAIN.KEEP_BEST", True, "TRAIN.EVAL_PERIOD", 1]) == 0
    log = (tmp_path / "jobs" / "hmdb51_2shot" / "stdout.log").read_text(encoding="utf-8")
    assert "split1/test.csv chooses the epoch, and is tested too: its figures will be too high" in log


def test_a_failure_leaves_the_table_of_what_was_found(call_tool, table_recipe, kitchen, tmp_path, capfd):
    broken = kitchen.with_name("broken")
    shutil.copytree(kitchen, broken)
    manifest = broken / "splits" / "manifest.json"
    content = json.loads(manifest.read_text())
    for list_name in content["lists"]:
        for row in (broken / "splits" / f"{list_name}.csv").read_text().splitlines():
            video = tmp_path / "videos" / row.rpartition(",")[0]
            video.parent.mkdir(parents=True, exist_ok=True)
            video.write_text("no video")
    manifest.write_text(json.dumps({**content, "dataset": "broken", "root": str(tmp_path / "videos")}))
    words = ["--cfg", table_recipe, *RAW, "--datasets", "kitchen", "broken", "--label-db", kitchen.parent]
    words.insert(2, "--protocol")
    capfd.readouterr()
    assert call_tool("run_protocol", [*words, "--opts", "OUTPUT_DIR", tmp_path / "table"]) == 1
    assert "none of its" in capfd.readouterr().err
    table = json.loads((tmp_path / "table" / "results.json").read_text())
    assert list(table["cells"]) == ["kitchen"]
    assert [job["coverage"] for job in table["jobs"]] == [100.0, None]


def test_a_table_of_several_shares_of_raw_clip(tabulate, job, tmp_path):
    weights = tmp_path / "w.pth"
    assert tabulate("zero_shot", "--source", "kitchen", options={"TRAIN.EVAL_PERIOD": 5})[0] == 0
    trained = next((tmp_path / "table" / "jobs").rglob("checkpoint_epoch_00002.pyth"))
    shutil.copy(trained, weights)
    shutil.rmtree(tmp_path / "table")
    words = ("zero_shot", "--weights", weights, "--name", "mine")
    options = {"TEST.PATCHING_RATIOS": "[0.0, 0.3]"}
    assert tabulate(*words, options=options) == (0, "")
    content = json.loads((tmp_path / "table" / "results.json").read_text(encoding="utf-8"))
    assert (content["name"], [row["name"] for row in content["variants"]]) == ("mine", ["mine, 0.3 of raw CLIP"])
    assert "**mine, 0.3 of raw CLIP** (ours)" in (tmp_path / "table" / "table.md").read_text(encoding="utf-8")
    files = [job / name for name in ("results.json", "results_clip0.3.json")]
    pure, mixed = (read_results(file) for file in files)
    assert pure.model_sha256 != mixed.model_sha256
    times = [file.stat().st_mtime_ns for file in files]
    assert tabulate(*words, options=options) == (0, "")
    assert [file.stat().st_mtime_ns for file in files] == times
    files[1].unlink()  # as if it had been interrupted before
    assert tabulate(*words, options=options) == (0, "")
    assert read_results(files[1]).model_sha256 == mixed.model_sha256
    assert tabulate(*words, options={"TEST.PATCHING_RATIOS": "[0.3]"}) == (0, "")
    assert [path.name for path in job.glob("results*.json")] == ["results.json"]
    assert read_results(files[0]).model_sha256 == mixed.model_sha256
    content = json.loads((tmp_path / "table" / "results.json").read_text(encoding="utf-8"))
    assert (content["name"], content["variants"]) == ("mine, 0.3 of raw CLIP", [])
