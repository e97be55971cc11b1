"""PROTOCOL episodic from the command line: training in episodes, validation, tests, and what interrupts them."""

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
from slowfast.engine.step import PlainStep
from slowfast.methods import METHODS
from slowfast.report.results import read_results

LAST = "checkpoint_epoch_00002.pyth"
EPISODES = {
    "WAY": 3, "SHOT": 1, "QUERY": 2, "SHOT_TEST": 2, "QUERY_TEST": 2, "TRAIN": True, "NUM_TRAIN": 6, "NUM_VAL": 8,
    "NUM_TEST": 12, "HEAD": "own",
}  # fmt: skip
# Not Adam, which blows rounding errors up to full steps.
SGD = {"SOLVER.OPTIMIZING_METHOD": "sgd", "SOLVER.BASE_LR": 0.02, "SOLVER.WARMUP_START_LR": 0.01}
TEST_ONLY = {"TRAIN.ENABLE": False}
ENCODERS = {
    "clip_fsar": {},
    "stdd": {"MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend", "MODEL.TEMPORAL_SCALE": "[1,2]"},
    "tc_clip": {"TC_CLIP.CONTEXT_TOKEN_K": 5, "TC_CLIP.TOME_R": 4},
    "ost": {},
    "vifi_clip": {},
}


# ------------------------------------------------------------------------------------------------------------ materials


@pytest.fixture(scope="module")
def data(prepared):
    return prepared("hmdb51", episodic=True)


@pytest.fixture(scope="module")
def episodic_recipe(recipe, data, tmp_path_factory):
    """The small recipe, in episodes of HMDB51."""
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for key in ("PATH_TO_DATA_DIR", "PATH_PREFIX", "PATH_LABEL_SEPARATOR", "INDEX_LABEL_MAPPING_FILE"):
        del content["DATA"][key]
    content["DATA"] |= {"SAMPLING_RATE": 2, "TARGET_FPS": 12, "TEXT_AUG": False, "TEXT_AUG_FEATURE_FILE": ""}
    del content["MODEL"]["NUM_CLASSES"]
    content |= {
        "PROTOCOL": "episodic",
        "SPLITS": {"LABEL_DB": str(data.folder.parent), "DATASET": data.name},
        "EPISODES": EPISODES,
    }
    content["TRAIN"] |= {"BATCH_SIZE": 2, "EVAL_PERIOD": 1}
    content["TEST"]["NUM_ENSEMBLE_VIEWS"] = 1
    path = tmp_path_factory.mktemp("recipe") / "episodic.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def run(net, episodic_recipe, tmp_path):
    """Runs tools/run_net.py into a named folder: run(name, {KEY: value}) -> (folder, status, stderr)."""

    def start(name, options=()):
        folder = tmp_path / name
        status, _, err = net({"OUTPUT_DIR": folder, **SGD, **dict(options)}, cfg=episodic_recipe)
        return folder, status, err

    return start


@pytest.fixture
def succeed(run):
    """As `run`, with success: succeed(name, {KEY: value}) -> folder."""

    def start(name, options=()):
        folder, status, err = run(name, options)
        assert (status, err) == (0, "")
        return folder

    return start


@pytest.fixture(scope="module")
def trained(call_tool, episodic_recipe, tmp_path_factory):
    """The folder of a whole run of CLIP-FSAR: two epochs, validated, and a test."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    options = {"OUTPUT_DIR": folder, **SGD}
    words = ["--cfg", episodic_recipe, "--opts", *(word for pair in options.items() for word in pair)]
    assert call_tool("run_net", words) == 0
    return folder


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def split_files(folder):
    return {path.name: path.read_bytes() for path in (folder / "splits" / "test").iterdir()}


def steps_of(lines):
    return [line for line in lines if line.get("_type") == "train_iter_"]


def weights_of(folder, name=LAST):
    return torch.load(folder / "checkpoints" / name, weights_only=True)["model_state"]


def stop(*_, **__):
    raise KeyboardInterrupt


class Countdown:
    """Calls a function so many times, then is interrupted."""

    def __init__(self, function, count):
        self.function, self.count = function, count

    def __get__(self, owner, kind):
        return lambda *args, **kwargs: self(owner, *args, **kwargs)

    def __call__(self, *args, **kwargs):
        if not self.count:
            raise KeyboardInterrupt
        self.count -= 1
        return self.function(*args, **kwargs)


# ----------------------------------------------------------------------------------------------------------- whole runs

pytestmark = pytest.mark.parametrize("recipe", ["clip_fsar"], indirect=True)


def test_files_and_figures_of_a_run(trained, data, json_lines):
    results = read_results(trained / "results.json")  # checks the schema
    assert set(results.metrics) == {
        "top1_acc", "top1_ci95", "top5_acc", "mean_class_acc", "num_episodes", "coverage"
    }  # fmt: skip
    assert (results.metrics["num_episodes"], results.metrics["coverage"]) == (12, 100)
    assert (results.protocol, results.dataset, results.missing) == ("episodic", "hmdb51", ())
    split = results.splits["test"]
    num_listed = len(read_annotations(data.csv("episodic/hmdb51/test"), prefix=data.root, separator=","))
    assert split.num_classes == 10  # of which some have videos
    assert split.num_videos == num_listed
    assert results.num_scored == results.num_videos == split.num_scored <= num_listed

    rows = read_rows(trained / "splits" / "test" / "episodes.csv")
    assert [int(row["episode"]) for row in rows] == list(range(12))
    assert {row["queries"] for row in rows} == {"6"}
    right = torch.tensor([float(row["right"]) for row in rows]) / 6
    assert results.metrics["top1_acc"] == pytest.approx(100 * right.mean().item(), abs=1e-4)
    half = 1.96 * right.std().item() / 12**0.5
    assert results.metrics["top1_ci95"] == pytest.approx(100 * half, rel=0.15, abs=1e-4)
    predictions = read_rows(trained / "splits" / "test" / "predictions.csv")
    assert len(predictions) == 12 * 6
    found = [row["label"] == row["predicted"] for row in predictions]
    assert [sum(found[first : first + 6]) for first in range(0, 72, 6)] == [int(row["right"]) for row in rows]
    assert split.top1_acc == pytest.approx(100 * sum(found) / 72, abs=1e-4)

    log = json_lines(trained / "json_stats.log")
    assert [line.get("_type", line.get("split")) for line in log] == [
        "train_epoch", "val_epoch", "train_epoch", "val_epoch", "test_final"
    ]  # fmt: skip
    assert all({"loss", "loss_few_shot", "loss_video_text", "scale", "top1_err"} <= set(line) for line in log[::2][:2])
    assert all(0 <= line["top1_err"] <= 100 for line in log[1:4:2])
    assert not [name for name in ("features", "scores") if (trained / name).exists()]
    state = weights_of(trained)
    assert all(name.startswith("head.") for name in state)
    assert state["head.scale"].item() != 1


def test_equal_seeds_give_equal_runs(trained, succeed, json_lines):
    again = succeed("again")
    assert json_lines(again / "json_stats.log") == json_lines(trained / "json_stats.log")
    assert split_files(again) == split_files(trained)
    state = weights_of(trained)
    assert all(torch.equal(value, state[name]) for name, value in weights_of(again).items())
    other = succeed("other", {"RNG_SEED": 8, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1})
    first, second = (steps_of(json_lines(folder / "stdout.log"))[0]["loss"] for folder in (trained, other))
    assert first != second


def test_what_changes_no_number(trained, succeed, json_lines):
    """Workers, sizes of the batches of a test, and how much is remembered of its videos."""
    options = {"DATA_LOADER.NUM_WORKERS": 2, "EPISODES.MEMO_GB": 0.0, "TEST.BATCH_SIZE": 3}
    folder = succeed("out", options)
    assert split_files(folder) == split_files(trained)
    lines = [json_lines(path / "json_stats.log") for path in (trained, folder)]
    assert lines[0] == lines[1]


def test_two_processes_are_one(trained, shell, succeed, episodic_recipe, json_lines, tmp_path):
    """Losses and weights to rounding; the test of equal weights to the last bit."""
    options = {"OUTPUT_DIR": tmp_path / "two", "NUM_GPUS": 2, "DIST_BACKEND": "gloo", **SGD}
    done = shell(options, cfg=episodic_recipe)
    assert done.returncode == 0, done.stderr
    one, two = (json_lines(folder / "stdout.log") for folder in (trained, tmp_path / "two"))
    assert len(steps_of(one)) == 6
    for left, right in zip(steps_of(one), steps_of(two), strict=True):
        for key in ("loss", "loss_few_shot", "loss_video_text", "scale", "top1_err"):
            assert right[key] == pytest.approx(left[key], rel=1e-4, abs=2e-5), key
    validated = [[line["top1_err"] for line in log if line.get("_type") == "val_epoch"] for log in (one, two)]
    assert validated[0] == validated[1]
    state = weights_of(trained)
    for name, value in weights_of(tmp_path / "two").items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-5)

    alone = succeed("alone", {**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": tmp_path / "two" / "checkpoints" / LAST})
    assert split_files(tmp_path / "two") == split_files(alone)
    results = [read_results(folder / "results.json") for folder in (tmp_path / "two", alone)]
    assert results[0].metrics == results[1].metrics
    assert results[0].model_sha256 == results[1].model_sha256


# -------------------------------------------------------------------------------------------------------- interruptions


def test_a_training_that_is_interrupted_within_an_epoch_goes_on(trained, run, succeed, json_lines, monkeypatch):
    options = {"TRAIN.CHECKPOINT_STEPS": 1}
    with monkeypatch.context() as patch:
        patch.setattr(PlainStep, "__call__", Countdown(PlainStep.__call__, 5))
        folder, status, _ = run("cut", options)
    assert status == 130
    within = [path.name for path in (folder / "checkpoints").glob("*within*")]
    assert any(name.startswith("checkpoint_within_00002_") for name in within)
    succeed("cut", options)
    assert json_lines(folder / "json_stats.log") == json_lines(trained / "json_stats.log")
    state = weights_of(trained)
    assert all(torch.equal(value, state[name]) for name, value in weights_of(folder).items())
    assert split_files(folder) == split_files(trained)


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


@pytest.mark.parametrize("phase", ["encoding", "scoring", "reporting"])
def test_a_test_that_is_interrupted_goes_on(trained, run, succeed, monkeypatch, num_decoded, phase):
    """It decodes what it has not encoded yet, and writes the same files."""
    options = {**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": trained / "checkpoints" / LAST}
    total = read_results(trained / "results.json").num_videos
    if phase == "scoring":
        monkeypatch.setattr("slowfast.engine.episodes._EPISODES_AT_ONCE", 5)
    batches = -(-total // 4)
    with monkeypatch.context() as patch:
        if phase == "reporting":
            patch.setattr("slowfast.protocols.episodic.Episodic.summarise", stop)
        else:
            count = 3 if phase == "encoding" else batches + 1
            patch.setattr(ScoreStore, "append", Countdown(ScoreStore.append, count))
        folder, status, _ = run("cut", options)
    assert status == 130
    assert (folder / "features").is_dir()
    assert not (folder / "results.json").exists()
    before = num_decoded()
    succeed("cut", options)
    assert num_decoded() == (total - 12 if phase == "encoding" else 0)
    assert before == (16 if phase == "encoding" else total)
    log = (folder / "stdout.log").read_text(encoding="utf-8")
    assert f"Continuing a test: {12 if phase == 'encoding' else total} of {total} clips were encoded before" in log
    done = {"scoring": 5, "reporting": 12}.get(phase)
    assert (f"Continuing a test: {done} of 12 episodes were scored before" in log) is (done is not None)
    assert split_files(folder) == split_files(trained)
    assert read_results(folder / "results.json").metrics == read_results(trained / "results.json").metrics
    assert not [name for name in ("features", "scores") if (folder / name).exists()]


@pytest.mark.parametrize("change", [{"EPISODES.SEED": 1}, {"CLIP_FSAR.COMBINE": True}, {"DATA.SAMPLING_RATE": 1}])
def test_an_interrupted_test_of_something_else_begins_anew(trained, run, succeed, monkeypatch, num_decoded, change):
    options = {**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": trained / "checkpoints" / LAST}
    with monkeypatch.context() as patch:
        patch.setattr("slowfast.protocols.episodic.Episodic.summarise", stop)
        folder, status, _ = run("cut", options)
    assert status == 130
    num_decoded()
    succeed("cut", {**options, **change})
    assert num_decoded() == read_results(folder / "results.json").num_videos


# -------------------------------------------------------------------------------------------------------- broken videos


@pytest.fixture
def own_videos(data, tmp_path):
    """A copy of the videos, which a test may damage."""
    return shutil.copytree(data.root, tmp_path / "videos")


def break_one(data, videos, part, number):
    """Damage a video of a part; returns its path."""
    rows = (data.csv(f"episodic/hmdb51/{part}")).read_text(encoding="utf-8").splitlines()
    path = videos / rows[number].rpartition(",")[0]
    assert path.is_file()
    path.write_bytes(b"no video at all")
    return path


def test_a_test_video_that_cannot_be_decoded(trained, succeed, data, own_videos):
    """Its episodes are left out; the others are scored as ever."""
    broken = break_one(data, own_videos, "test", 5)
    options = {**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": trained / "checkpoints" / LAST}
    folder = succeed("out", {**options, "DATA.PATH_PREFIX": own_videos})
    results, whole = (read_results(path / "results.json") for path in (folder, trained))
    (line,) = results.missing
    assert line.startswith(f"{broken}: ")
    assert results.num_scored == results.num_videos - 1 == whole.num_videos - 1
    rows, all_rows = (read_rows(path / "splits" / "test" / "episodes.csv") for path in (folder, trained))
    assert 0 < len(rows) < 12
    assert all(row in all_rows for row in rows)
    assert results.metrics["num_episodes"] == len(rows)
    assert results.metrics["coverage"] == pytest.approx(100 * len(rows) / 12)
    predictions = read_rows(folder / "splits" / "test" / "predictions.csv")
    assert str(broken) not in {row["video"] for row in predictions}
    assert len(predictions) == 6 * len(rows)


def test_a_training_video_that_cannot_be_decoded(succeed, data, own_videos):
    """Another one of its class takes its place, and it is named once."""
    broken = break_one(data, own_videos, "train", 0)
    options = {"TEST.ENABLE": False, "DATA.PATH_PREFIX": own_videos, "DATA.MAX_BAD_FRACTION": 0.1}
    folder = succeed("out", {**options, "EPISODES.NUM_TRAIN": 20, "SOLVER.MAX_EPOCH": 1})
    log = (folder / "stdout.log").read_text(encoding="utf-8")
    assert log.count(f"replaced in training: {broken}: ") == 1


def test_no_episode_is_complete(trained, run, data, own_videos):
    rows = (data.csv("episodic/hmdb51/test")).read_text(encoding="utf-8").splitlines()
    for number in range(len(rows)):
        break_one(data, own_videos, "test", number)
    options = {**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": trained / "checkpoints" / LAST}
    _, status, err = run("out", {**options, "DATA.PATH_PREFIX": own_videos})
    assert status == 1
    assert err.startswith("error: none of the 12 episodes is complete: 0 of the ")
    assert err.count("\n") == 1


# -------------------------------------------------------------------------------------------------------- random frames


def test_frames_that_are_drawn_for_each_use(trained, succeed, num_decoded):
    """Every clip of every episode is decoded, and the same run gives the same clips."""
    options = {**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": trained / "checkpoints" / LAST}
    options |= {"EPISODES.TEST_FRAMES": "random", "DATA.SAMPLING_RATE": 1}
    first, again = (succeed(name, options) for name in ("first", "again"))
    assert num_decoded() == 2 * 12 * 3 * (2 + 2)
    assert split_files(first) == split_files(again)
    results = [read_results(folder / "results.json") for folder in (first, trained)]
    assert results[0].num_videos == results[1].num_videos  # a video counts once


# -------------------------------------------------------------------------------------------------------- other methods


def queries(folder):
    """Videos and classes of the queries of all episodes."""
    return [(row["video"], row["label"]) for row in read_rows(folder / "splits" / "test" / "predictions.csv")]


@pytest.mark.parametrize("head", ["prototype", "otam"])
@pytest.mark.parametrize("method", METHODS)
def test_every_encoder_meets_on_the_same_episodes(trained, succeed, method, head):
    options = {"METHOD": method, **ENCODERS[method], **TEST_ONLY, "EPISODES.TRAIN": False, "EPISODES.HEAD": head}
    folder = succeed("out", options)
    results = read_results(folder / "results.json")
    assert (results.metrics["num_episodes"], results.metrics["coverage"]) == (12, 100)
    assert queries(folder) == queries(trained)


def test_stdd_learns_from_videos_and_is_validated_in_episodes(succeed, trained, json_lines):
    options = {"METHOD": "stdd", **ENCODERS["stdd"], "EPISODES.TRAIN": False, "EPISODES.HEAD": "otam"}
    folder = succeed("out", {**options, "TRAIN.BATCH_SIZE": 8, "SOLVER.MAX_EPOCH": 1, "MIXUP.ENABLE": True,
                             "MODEL.LOSS_FUNC": "soft_cross_entropy"})  # fmt: skip
    train, val, _ = json_lines(folder / "json_stats.log")
    assert (train["_type"], val["_type"]) == ("train_epoch", "val_epoch")
    assert "loss_classification" in train
    assert (100 - val["top1_err"]) * 8 * 6 / 100 == pytest.approx(
        round((100 - val["top1_err"]) * 8 * 6 / 100), abs=1e-2
    )
    assert queries(folder) == queries(trained)


def test_clip_fsar_learns_names_from_videos(succeed, json_lines):
    """Without episodes; its tests in episodes compare queries with names, or do without its own head."""
    options = {"EPISODES.TRAIN": False, "TRAIN.BATCH_SIZE": 8, "SOLVER.MAX_EPOCH": 1, "CLIP_FSAR.EVAL_TEXT": True}
    folder = succeed("out", options)
    line = json_lines(folder / "json_stats.log")[0]
    assert {"loss_video_text", "scale"} <= set(line)
    assert not any("context2" in name for name in weights_of(folder, "checkpoint_epoch_00001.pyth"))
    source = folder / "checkpoints" / "checkpoint_epoch_00001.pyth"
    test = {**TEST_ONLY, "EPISODES.TRAIN": False, "TEST.CHECKPOINT_FILE_PATH": source}
    again = succeed("again", {**test, "CLIP_FSAR.EVAL_TEXT": True})
    assert split_files(again) == split_files(folder)
    succeed("otam", {**test, "EPISODES.HEAD": "otam"})


@pytest.mark.parametrize(
    "options",
    [
        {"CLIP_FSAR.EVAL_TEXT": True},
        {"CLIP_FSAR.COMBINE": True},
        {"CLIP_FSAR.MERGE_BEFORE": True},
        {"CLIP_FSAR.SINGLE_DIRECT": True, "TEST.SAVE_RESULTS_PATH": "scores.pkl"},
    ],
)
def test_modes_of_a_test(trained, succeed, options):
    source = trained / "checkpoints" / LAST
    folder = succeed("out", {**TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH": source, **options})
    assert read_results(folder / "results.json").metrics["num_episodes"] == 12
    assert queries(folder) == queries(trained)
    if "TEST.SAVE_RESULTS_PATH" in options:
        with (folder / "scores.pkl").open("rb") as file:
            scores, label = pickle.load(file)
        assert scores.shape == (72, 3)
        assert label.tolist() == [0, 0, 1, 1, 2, 2] * 12
        right = [int(row["right"]) for row in read_rows(folder / "splits" / "test" / "episodes.csv")]
        assert (scores.argmax(dim=1) == label).view(12, 6).sum(dim=1).tolist() == right


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (
            {"EPISODES.BENCHMARK": "hmdb"},
            1,
            "EPISODES.BENCHMARK: 'hmdb' is none of the class splits of {folder}; allowed: hmdb51",
        ),
        (
            {"EPISODES.BENCHMARK": "../hmdb51"},
            2,
            "EPISODES.BENCHMARK: '../hmdb51' climbs out with '..'; allowed: a name inside SPLITS.LABEL_DB",
        ),
        ({"EPISODES.WAY": 50}, 1, "EPISODES.WAY: 50, but {train} has videos of "),
        ({"EPISODES.WAY_TEST": 50}, 1, "EPISODES.WAY_TEST: 50, but {val} has videos of "),
        ({"EPISODES.WAY_TEST": 1}, 2, "EPISODES.WAY_TEST: 1 leaves nothing to tell apart; allowed: 0 for EPISODES.WAY"),
        (
            {"EPISODES.SHOT_TEST": 50},
            1,
            "{val}: class 'cartwheel' has 7 videos; an episode takes 52: 50 supports (EPISODES.SHOT_TEST)",
        ),
        ({"EPISODES.SHOT": 50}, 1, "{train}: class "),
        ({"MIXUP.ENABLE": True}, 2, "MIXUP.ENABLE: True, but PROTOCOL is 'episodic'; allowed: False"),
        ({"AUG.ENABLE": True, "AUG.NUM_SAMPLE": 2}, 2, "AUG.NUM_SAMPLE: 2, but PROTOCOL is 'episodic'; allowed: 1"),
        ({"TEST.NUM_ENSEMBLE_VIEWS": 3}, 2, "TEST.NUM_ENSEMBLE_VIEWS: 3, but PROTOCOL is 'episodic'; allowed: 1"),
        ({"TEST.NUM_SPATIAL_CROPS": 3}, 2, "TEST.NUM_SPATIAL_CROPS: 3, but PROTOCOL is 'episodic'; allowed: 1"),
        (
            {"TEST.NUM_TEMPORAL_CLIPS": "[1,3]"},
            2,
            "TEST.NUM_TEMPORAL_CLIPS: [1, 3], but PROTOCOL is 'episodic'; allowed: [] or [1]",
        ),
        ({"PROTOCOL": "few_shot"}, 2, "EPISODES.TRAIN: True, but PROTOCOL is 'few_shot'; allowed: PROTOCOL 'episodic'"),
        ({"SPLITS.DATASET": ""}, 2, "SPLITS.DATASET: is empty, but PROTOCOL is 'episodic'; name a folder of "),
        ({"EPISODES.TRAIN": False}, 1, "EPISODES.TRAIN: False leaves the temporal transformer as it is, random, and "),
        (
            {"METHOD": "vifi_clip"},
            1,
            "EPISODES.TRAIN: True, but METHOD 'vifi_clip' learns from videos one by one; allowed: False",
        ),
        (
            {"METHOD": "vifi_clip", "EPISODES.TRAIN": False, **TEST_ONLY},
            1,
            "EPISODES.HEAD: 'own', but ViFiCLIP has none of its own; allowed: prototype, otam",
        ),
        (
            TEST_ONLY,
            1,
            "CLIP_FSAR: the temporal transformer is random where no weights are named, and OUTPUT_DIR holds ",
        ),
        (
            {"TRAIN.BATCH_SIZE": 8},
            1,
            "TRAIN.BATCH_SIZE: 8 episodes per step over all processes, but an epoch holds only 6",
        ),
        ({"VAL_MODE": True}, 1, "CLIP_FSAR: the temporal transformer is random where no weights are named, and "),
        ({"EPISODES.HEAD": "proto"}, 2, "EPISODES.HEAD: unknown value 'proto'"),
        ({"EPISODES.VAL": "train"}, 2, "EPISODES.VAL: unknown value 'train'"),
        ({"EPISODES.SMOOTHING": 0.0}, 2, "EPISODES.SMOOTHING: 0.0 is out of range"),
    ],
    ids=str,
)
def test_mistakes(run, data, options, status, message):
    folder, found, err = run("out", options)
    assert (found, err.count("\n")) == (status, 1), err
    lists = {name: data.csv(f"episodic/hmdb51/{name}") for name in ("train", "val", "test")}
    assert err.startswith("error: " + message.format(folder=data.folder, **lists)), err
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize("options", [{}, {**TEST_ONLY, "EPISODES.TRAIN": False}])
def test_dry_run(net, episodic_recipe, tmp_path, options):
    """Of a training, and of a test, whose file need not say how the weights were trained."""
    folder = tmp_path / "out"
    status, out, err = net({"OUTPUT_DIR": folder, **options}, arguments=["--dry-run"], cfg=episodic_recipe)
    assert (status, err) == (0, "")
    assert f"classes          {10 if options else 31}\n" in out
    assert "missing          nothing" in out
    assert not folder.exists()


def test_dry_run_of_episodes_that_cannot_be_drawn(net, episodic_recipe, data, tmp_path):
    options = {"OUTPUT_DIR": tmp_path / "out", "EPISODES.WAY_TEST": 50}
    status, _, err = net(options, arguments=["--dry-run"], cfg=episodic_recipe)
    assert status == 1
    assert err.startswith(f"error: EPISODES.WAY_TEST: 50, but {data.csv('episodic/hmdb51/val')} has videos of ")


def test_validation_without_a_list(run, succeed, data, tmp_path):
    """Of the classes that are left over, where a dataset was prepared without them."""
    folder = shutil.copytree(data.folder, tmp_path / "label_db" / "hmdb51")
    manifest = folder / "splits" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["lists"] = {name: entry for name, entry in content["lists"].items() if name != "episodic/hmdb51/val"}
    manifest.write_text(json.dumps(content), encoding="utf-8")
    options = {"SPLITS.LABEL_DB": folder.parent, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1}
    _, status, err = run("out", options)
    assert (status, err) == (
        1,
        f"error: EPISODES.VAL: 'val', but {folder} has no list episodic/hmdb51/val; tools/prepare_data.py makes it of "
        "episodic/<name>/val_index2cls.json, or imports it (--from-repo); or validate on the test classes, as "
        "published: 'test'\n",
    )
    out = succeed("out", {**options, "EPISODES.VAL": "test", "TRAIN.KEEP_BEST": True})
    log = (out / "stdout.log").read_text(encoding="utf-8")
    assert "test.csv chooses the epoch, and is tested too: its figures will be too high" in log


def test_the_best_epoch_is_chosen_in_one_way(run, succeed):
    """Errors of easier episodes would beat those of all epochs before."""
    options = {"TRAIN.KEEP_BEST": True, "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1}
    folder = succeed("out", options)
    best = (folder / "checkpoints" / "checkpoint_best.pyth").read_bytes()
    _, status, err = run("out", {**options, "EPISODES.WAY_TEST": 2, "EPISODES.VAL": "test"})
    assert status == 1
    assert "TRAIN.KEEP_BEST cannot compare epochs that were validated in different ways: EPISODES.WAY_TEST was 0" in err
    assert "EPISODES.VAL was 'val', is 'test'" in err
    assert (folder / "checkpoints" / "checkpoint_best.pyth").read_bytes() == best
    succeed("out", {**options, "TRAIN.ENABLE": False, "TEST.ENABLE": True, "EPISODES.WAY_TEST": 2})
