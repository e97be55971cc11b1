"""The commands of the README, each in a process of its own where that is what is tested."""

import json
import pickle
import re
import subprocess
import sys

import pytest
import torch
import yaml

from slowfast.engine.score_store import ScoreStore
from slowfast.methods.explanation import Explanation, MatchView
from slowfast.methods.stdd.method import STDD
from slowfast.report.results import read_results
from slowfast.utils.io import sha256_file

ITERATION_KEYS = {"_type", "epoch", "iter", "dt", "dt_data", "dt_net", "eta", "loss", "lr", "grad_norm", "gpu_mem"}
EPOCH_KEYS = (ITERATION_KEYS - {"iter"}) | {"RAM"}
ERROR_KEYS = {"top1_err", "top5_err"}
TERMS = {"loss_classification", "loss_distillation", "logit_scale"}
LAST = "checkpoint_epoch_00002.pyth"


def stats(path):
    marked = (line.partition("json_stats: ") for line in path.read_text(encoding="utf-8").splitlines())
    return [json.loads(text) for _, mark, text in marked if mark]


@pytest.fixture(scope="module")
def trained(shell, tmp_path_factory):
    """The folder of a whole run, two epochs and a test, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = shell({"OUTPUT_DIR": folder, "TEST.SAVE_RESULTS_PATH": "predictions.pkl", "TENSORBOARD.ENABLE": True})
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def test_files_of_a_run(trained):
    folder, _ = trained
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        "checkpoints/checkpoint_epoch_00001.pyth", f"checkpoints/{LAST}", "checkpoints/manifest.json", "config.yaml",
        "json_stats.log",
        "predictions.pkl", "results.json", "splits/test/confusion.csv", "splits/test/per_class.csv",
        "splits/test/predictions.csv", "stdout.log",
    }  # fmt: skip


def test_lines_of_a_run(trained):
    folder, out = trained
    kept = stats(folder / "json_stats.log")
    assert [line.get("_type", line.get("split")) for line in kept] == [
        "train_epoch", "train_epoch", "val_epoch", "test_final"
    ]  # fmt: skip
    assert set(kept[0]) == EPOCH_KEYS | ERROR_KEYS | TERMS
    assert set(kept[2]) == {"_type", "epoch", "time_diff", "gpu_mem", "RAM", "min_top1_err", "min_top5_err"} | (
        ERROR_KEYS
    )
    assert set(kept[3]) == {"split", "top1_acc", "top5_acc"}
    printed = stats(folder / "stdout.log")
    iterations = [line for line in printed if line.get("_type") == "train_iter_"]
    assert [line["iter"] for line in iterations] == ["1/3", "2/3", "3/3"] * 2
    assert all(set(line) == ITERATION_KEYS | ERROR_KEYS | TERMS for line in iterations)
    assert all(line["loss_distillation"] > 0 for line in iterations)
    assert (folder / "stdout.log").read_text(encoding="utf-8") == out


def test_distillation_has_a_gradient(trained):
    state = torch.load(trained[0] / "checkpoints" / LAST, weights_only=True)["model_state"]
    assert state["projector_v.2.weight"].abs().max() > 0  # starts at zero


def test_checkpoint_holds_the_run_without_the_teacher(trained):
    folder, _ = trained
    content = torch.load(folder / "checkpoints" / LAST, weights_only=True)
    assert {"epoch", "model_state", "optimizer_state", "cfg"} <= set(content)
    assert content["epoch"] == 1
    assert not any(name.startswith("raw_model.") for name in content["model_state"])
    assert content["cfg"] == (folder / "config.yaml").read_text(encoding="utf-8")


def test_results(trained):
    folder, _ = trained
    results = read_results(folder / "results.json")  # checks the schema
    assert (results.num_videos, results.num_scored, results.coverage, results.missing) == (5, 5, 1.0, ())
    assert results.weights_sha256 == sha256_file(folder / "checkpoints" / LAST)
    assert results.seed == 7
    with (folder / "predictions.pkl").open("rb") as file:
        logits, labels = pickle.load(file)
    assert labels.tolist() == [0, 1, 2, 0, 1]
    assert logits.shape == (5, 3)
    assert logits.dtype == torch.float32
    assert results.metrics["top1_acc"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert results.metrics["top5_acc"] == 100.0  # k is at most the number of classes


def test_resolved_config_is_printed_once_and_saved(trained, shell, tmp_path):
    folder, out = trained
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    assert out.count(text) == 1
    assert out.count("Resolved configuration") == 1
    printed = shell({}, arguments=["--print-config"], cfg=folder / "config.yaml")
    assert (printed.returncode, printed.stderr, printed.stdout) == (0, "", text)
    assert yaml.safe_load(text)["MODEL"]["TEMPORAL_MODELING_TYPE"] == "stcross_attend"


def test_second_test_gives_the_same_numbers(trained, net, tmp_path):
    folder, _ = trained
    options = {
        "TRAIN.ENABLE": False,
        "OUTPUT_DIR": tmp_path,
        "TEST.CHECKPOINT_FILE_PATH": folder / "checkpoints" / LAST,
        "TEST.SAVE_RESULTS_PATH": "predictions.pkl",
    }
    assert net(options)[0] == 0
    for name in ("predictions.pkl",):
        with (folder / name).open("rb") as one, (tmp_path / name).open("rb") as two:
            assert torch.equal(pickle.load(one)[0], pickle.load(two)[0])


# ------------------------------------------------------------------------------------------------- without a whole run


@pytest.fixture
def poisoned(tmp_path):
    """A folder whose torch cannot be imported."""
    package = tmp_path / "poison" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('torch was imported')\n", encoding="utf-8")
    return package.parent


@pytest.mark.parametrize(
    "tool", ["tools/run_net.py", "tools/demo_net.py", "tools/convert_weights.py", "weight_average_tool.py"]
)
def test_help_does_without_torch(repository, environment, poisoned, tool):
    done = subprocess.run(
        [sys.executable, repository / tool, "--help"],
        env={**environment, "PYTHONPATH": str(poisoned)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def test_mistake_in_the_config_is_told_without_torch(shell, poisoned):
    done = shell({"SOLVER.MAX_EPOC": 3}, env={"PYTHONPATH": str(poisoned)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("error: --opts: SOLVER.MAX_EPOC: unknown key (found '3'); nearest key: SOLVER.MAX_EPOCH\n")


def test_failed_run_ends_with_status_1_and_one_line(shell, tmp_path):
    done = shell({"OUTPUT_DIR": tmp_path, "DATA.TEXT_AUG_FEATURE_FILE": tmp_path / "absent.pt"})
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'absent.pt'}: DATA.TEXT_AUG_FEATURE_FILE not found\n"


def test_dry_run_writes_nothing(shell, tmp_path):
    done = shell({"OUTPUT_DIR": tmp_path / "out"}, arguments=["--dry-run"])
    assert (done.returncode, done.stderr) == (0, "")
    report = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line[:1] != "[")
    assert "one training step, loss" in report.pop("synthetic")
    assert set(report) == {"method", "classes", "size", "missing"}
    assert report["classes"] == "3"
    assert report["missing"] == "nothing"
    assert re.fullmatch(
        r"[\d.]+ M parameters, [\d.]+ M trained; [\d.]+ GFLOPs for a clip of 4 frames, .*", report["size"]
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "absent",
    [
        {"DATA.INDEX_LABEL_MAPPING_FILE": "labels.json"},
        {"DATA.TEXT_AUG_FEATURE_FILE": "text.pt"},
        {"DATA.INDEX_LABEL_MAPPING_FILE": "labels.json", "DATA.TEXT_AUG_FEATURE_FILE": "text.pt"},
        {"DATA.PATH_TO_DATA_DIR": "nowhere"},
        {"MODEL.CLIP_WEIGHTS": "clip.pt"},
        {"TEST.CUSTOM_LOAD": True, "TEST.CUSTOM_LOAD_FILE": "averaged.pth"},
        {"TEST.CHECKPOINT_FILE_PATH": "checkpoint.pyth"},
        {"TRAIN.LINEAR_CONNECT_CLIMB": True, "TRAIN.CLIP_ORI_PATH": "raw.pt"},
    ],
    ids=lambda keys: "+".join(keys),
)
def test_dry_run_lists_missing_files(net, tmp_path, absent):
    options = {key: tmp_path / value if isinstance(value, str) else value for key, value in absent.items()}
    status, out, err = net({"OUTPUT_DIR": tmp_path / "out", **options}, arguments=["--dry-run"])
    assert (status, err) == (0, "")
    for value in options.values():
        assert f"{value}" in out or value is True
    assert not list(tmp_path.iterdir())


def test_dry_run_with_missing_weights_of_a_known_architecture(net, tmp_path, repository):
    options = {"MODEL.CLIP_WEIGHTS": tmp_path / "clip.pt", "OUTPUT_DIR": tmp_path / "out", "DATA.TEXT_AUG": False}
    cfg = repository / "configs" / "Kinetics" / "STDD_vitb32_8x16_zeroshot.yaml"
    status, out, err = net({"NUM_GPUS": 0, **options}, arguments=["--dry-run"], cfg=cfg)
    assert (status, err) == (0, "")
    assert f"MODEL.CLIP_WEIGHTS: {tmp_path / 'clip.pt'}" in out
    assert "GFLOPs" in out


def test_dry_run_on_a_cpu_is_not_in_float16(net, tmp_path):
    options = {"TRAIN.MIXED_PRECISION": True, "TRAIN.AMP_DTYPE": "float16", "OUTPUT_DIR": tmp_path / "out"}
    status, out, _ = net(options, arguments=["--dry-run"])
    assert status == 0
    assert "Computing in torch.float32 on cpu" in out


def test_val_mode_validates_once(net, tmp_path, json_lines):
    status, _, err = net({"OUTPUT_DIR": tmp_path, "VAL_MODE": True, "TEST.ENABLE": False})
    assert (status, err) == (0, "")
    (line,) = json_lines(tmp_path / "json_stats.log")
    assert line["_type"] == "val_epoch"
    assert not (tmp_path / "checkpoints").exists()


def test_series_of_views(net, tmp_path, json_lines):
    options = {
        "OUTPUT_DIR": tmp_path,
        "TRAIN.ENABLE": False,
        "TEST.NUM_TEMPORAL_CLIPS": "[1,2]",
        "TEST.SAVE_RESULTS_PATH": "scores.pkl",
    }
    assert net(options)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml", "json_stats.log", "stdout.log", "results_1views.json", "results_2views.json",
        "scores_1views.pkl", "scores_2views.pkl", "splits_1views", "splits_2views",
    }  # fmt: skip
    assert [line["split"] for line in json_lines(tmp_path / "json_stats.log")] == ["test_final"] * 2
    assert read_results(tmp_path / "results_1views.json").weights == ""


def test_published_distillation_has_no_term(net, tmp_path, json_lines):
    options = {"OUTPUT_DIR": tmp_path, "MODEL.DISTILLATION_MODE": "published", "TEST.ENABLE": False}
    assert net(options)[0] == 0
    for line in json_lines(tmp_path / "stdout.log"):
        assert "loss_distillation" not in line
    state = torch.load(tmp_path / "checkpoints" / LAST, weights_only=True)["model_state"]
    assert state["projector_v.2.weight"].abs().max() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"MODEL.TEMPORAL_MODELING_TYPE": "None"},
        {"DATA.TEXT_AUG": False},
        {"TRAIN.ACCUMULATION_STEPS": 2, "AUG.NUM_SAMPLE": 2},
        {"DATA.FRAME_SAMPLING": "pyslowfast", "DATA.CLIP_DTYPE": "float32", "TEST.NUM_SPATIAL_CROPS": 3},
        {"MODEL.TEMPORAL_SHUFFLE_EVAL": True, "MODEL.STCROSS_MLP_INPUT": "merged", "DATA.ENSEMBLE_METHOD": "max"},
        {"TRAIN.MIXED_PRECISION": True, "TRAIN.AMP_DTYPE": "bfloat16", "TEST.PRECISION": "amp"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_variants_run(net, tmp_path, options):
    status, _, err = net({"OUTPUT_DIR": tmp_path, "SOLVER.MAX_EPOCH": 1, **options})
    assert (status, err) == (0, "")
    assert read_results(tmp_path / "results.json").num_scored == 5


def test_several_config_files_run_in_turn(recipe, shell, tmp_path):
    files = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"_BASE_: {recipe}\nOUTPUT_DIR: {tmp_path / name}\n", encoding="utf-8")
        files.append(path)
    done = shell({"TRAIN.ENABLE": False}, cfg=files[0], arguments=[files[1]])
    assert (done.returncode, done.stderr) == (0, "")
    assert all((tmp_path / name / "results.json").is_file() for name in ("a", "b"))


# ------------------------------------------------------------------------------------------------------------ averaging


@pytest.fixture(scope="module")
def averaged(trained, repository, environment, tmp_path_factory):
    """swa of both epochs."""
    folder = tmp_path_factory.mktemp("averaged")
    done = subprocess.run(
        [sys.executable, repository / "weight_average_tool.py", "--source-dir", trained[0] / "checkpoints",
         "--output-dir", folder, "--methods", "swa", "ewa", "--start", "1", "--end", "2"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"swa_1_2.pth", "ewa_1_2.pth"}
    return folder / "swa_1_2.pth"


def test_averaged_weights_are_scored(trained, averaged, net, tmp_path):
    first, second = (
        torch.load(trained[0] / "checkpoints" / f"checkpoint_epoch_0000{epoch}.pyth", weights_only=True)["model_state"]
        for epoch in (1, 2)
    )
    mean = torch.load(averaged, weights_only=True)["model_state"]
    torch.testing.assert_close(
        mean["model.visual.proj"], (first["model.visual.proj"] + second["model.visual.proj"]) / 2
    )
    options = {"TRAIN.ENABLE": False, "TEST.CUSTOM_LOAD": True, "TEST.CUSTOM_LOAD_FILE": averaged}
    assert net({"OUTPUT_DIR": tmp_path, **options})[0] == 0
    results = read_results(tmp_path / "results.json")
    assert (results.weights, results.weights_sha256) == (str(averaged), sha256_file(averaged))


def predictions(net, folder, options):
    status, _, err = net(
        {"OUTPUT_DIR": folder, "TRAIN.ENABLE": False, "TEST.SAVE_RESULTS_PATH": "scores.pkl", **options}
    )
    assert (status, err) == (0, "")
    with (folder / "scores.pkl").open("rb") as file:
        return pickle.load(file)[0]


def test_patching_mixes_in_raw_clip(averaged, net, tiny_weights, tmp_path):
    plain = predictions(net, tmp_path / "plain", {})
    load = {"TEST.CUSTOM_LOAD": True, "TEST.CUSTOM_LOAD_FILE": averaged}
    tuned = predictions(net, tmp_path / "tuned", load)
    patch = {**load, "TEST.PATCHING_MODEL": True, "TEST.CLIP_ORI_PATH": tiny_weights}
    mixed = {
        ratio: predictions(net, tmp_path / str(ratio), {**patch, "TEST.PATCHING_RATIO": ratio})
        for ratio in (0.0, 0.5, 1.0)
    }
    assert not torch.equal(plain, tuned)
    assert torch.equal(mixed[0.0], tuned)
    assert torch.equal(mixed[1.0], plain)
    assert not torch.equal(mixed[0.5], plain)
    assert not torch.equal(mixed[0.5], tuned)


def test_shares_of_raw_clip_in_one_run(averaged, net, tiny_weights, tmp_path, json_lines):
    """TC-CLIP's weight ensemble: the pure model and mixtures, each with figures of its own."""
    load = {"TEST.CUSTOM_LOAD": True, "TEST.CUSTOM_LOAD_FILE": averaged, "TEST.SAVE_RESULTS_PATH": "scores.pkl"}
    patch = {**load, "TEST.PATCHING_MODEL": True, "TEST.CLIP_ORI_PATH": tiny_weights, "TEST.PATCHING_RATIO": 0.3}
    single = {None: predictions(net, tmp_path / "tuned", load), 0.3: predictions(net, tmp_path / "single", patch)}
    folder = tmp_path / "shares"
    options = {"OUTPUT_DIR": folder, "TRAIN.ENABLE": False, **load, "TEST.PATCHING_RATIOS": "[0.0, 0.3]"}
    status, out, err = net(options)
    assert (status, err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "json_stats.log", "stdout.log", "results.json", "results_clip0.3.json", "scores.pkl",
        "scores_clip0.3.pkl", "splits", "splits_clip0.3",
    }  # fmt: skip
    pure, mixed = (read_results(folder / f"results{suffix}.json") for suffix in ("", "_clip0.3"))
    assert (pure.patching_ratio, mixed.patching_ratio) == (0.0, 0.3)
    assert pure.model_sha256 == read_results(tmp_path / "tuned" / "results.json").model_sha256
    assert mixed.model_sha256 == read_results(tmp_path / "single" / "results.json").model_sha256
    for suffix, ratio in (("", None), ("_clip0.3", 0.3)):
        with (folder / f"scores{suffix}.pkl").open("rb") as file:
            assert torch.equal(pickle.load(file)[0], single[ratio])
    assert [line["clip_ratio"] for line in json_lines(folder / "json_stats.log")] == [0.0, 0.3]
    told = [line.partition("Share ")[2] for line in out.splitlines() if "Share " in line]
    assert [line.split(" of ")[0] for line in told] == ["0", "0.3"]
    assert told[1].endswith(f"top5_acc 100.00; {folder / 'results_clip0.3.json'}")
    assert "patching_ratio" not in (tmp_path / "tuned" / "results.json").read_text(encoding="utf-8")


def test_an_interrupted_share_goes_on_with_its_own_scores(averaged, net, tmp_path, monkeypatch):
    options = {"OUTPUT_DIR": tmp_path, "TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": averaged}
    options |= {"TEST.PATCHING_RATIOS": "[0.3, 0.6]", "TEST.SAVE_RESULTS_PATH": "scores.pkl", "TEST.BATCH_SIZE": 1}
    assert net(options)[0] == 0
    with (tmp_path / "scores_clip0.6.pkl").open("rb") as file:
        whole = pickle.load(file)[0]
    append, calls = ScoreStore.append, []

    def fail(self, batch):
        if self.folder.name == "scores_clip0.6":
            calls.append(batch)
            if len(calls) == 3:
                raise OSError("disk is full")
        append(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreStore, "append", fail)
        assert net(options)[0] == 1
    assert (tmp_path / "scores_clip0.6").is_dir()
    status, out, err = net(options)
    assert (status, err) == (0, "")
    assert out.count("Continuing a test: 2 of 5 videos were scored before") == 1
    assert not (tmp_path / "scores_clip0.6").exists()
    with (tmp_path / "scores_clip0.6.pkl").open("rb") as file:
        assert torch.equal(pickle.load(file)[0], whole)


def test_a_licence_goes_through_training(trained, net, tmp_path):
    content = torch.load(trained[0] / "checkpoints" / LAST, weights_only=True)
    start = tmp_path / "start.pyth"
    torch.save({"model_state": content["model_state"], "license": "CC-BY-NC-4.0"}, start)
    options = {"OUTPUT_DIR": tmp_path / "run", "TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1}
    status, out, _ = net({**options, "TRAIN.CUSTOM_LOAD": True, "TRAIN.CUSTOM_LOAD_FILE": start})
    assert (status, out.count("Weights under a licence")) == (0, 1)
    assert f"{start}: CC-BY-NC-4.0" in out
    status, out, _ = net({**options, "SOLVER.MAX_EPOCH": 2, "TRAIN.FORCE_RESUME": True})
    assert (status, out.count("Weights under a licence")) == (0, 1)
    for epoch in (1, 2):
        file = tmp_path / "run" / "checkpoints" / f"checkpoint_epoch_{epoch:05d}.pyth"
        content = torch.load(file, weights_only=True)
        assert content["license"] == "CC-BY-NC-4.0"
        assert set(content["computed"]) == {"dtype", "processes"}
    status, out, _ = net({"OUTPUT_DIR": tmp_path / "run", "TRAIN.ENABLE": False})
    assert (status, out.count("Weights under a licence")) == (0, 1)


# ----------------------------------------------------------------------------------------------------------------- demo


def guesses(out):
    """video -> [(name, percent)]; log lines are passed over."""
    found, rows = {}, []
    for line in out.splitlines():
        match = re.fullmatch(r"  +([\d.]+)%  (.+)", line)
        if match:
            rows.append((match[2], float(match[1])))
        elif not line.startswith("["):
            rows = found[line] = []
    return found


def test_demo_on_one_video(shell, dataset, trained):
    video = dataset / "videos" / "test0.mp4"
    arguments = ["--video", video, "--classes", "pouring tea", "surfing", "chess", "--topk", "2"]
    done = shell(
        {"TEST.CHECKPOINT_FILE_PATH": trained[0] / "checkpoints" / LAST},
        tool="tools/demo_net.py",
        arguments=arguments,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = guesses(done.stdout)
    assert list(found) == [str(video)]
    names, percent = zip(*found[str(video)], strict=True)
    assert len(set(names)) == 2
    assert set(names) < {"pouring tea", "surfing", "chess"}
    assert percent[0] >= percent[1]
    assert 33.0 < sum(percent) <= 100.01


def test_demo_on_a_folder_with_the_label_map(net, dataset):
    status, out, err = net({}, tool="demo_net", arguments=["--video", dataset / "videos"])
    assert (status, err) == (0, "")
    found = guesses(out)
    assert list(found) == sorted(str(path) for path in (dataset / "videos").iterdir())
    for rows in found.values():
        assert {name for name, _ in rows} == {"moving left", "moving right", "standing still"}
        assert sum(percent for _, percent in rows) == pytest.approx(100, abs=0.02)


def test_demo_reports_a_broken_video_after_the_others(net, dataset, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    good = dataset / "videos" / "test1.avi"
    status, out, err = net({}, tool="demo_net", arguments=["--video", broken, good])
    assert status == 1
    assert err.startswith(f"error: 1 of 2 videos cannot be decoded; {broken}: ")
    assert err.count("\n") == 1
    assert list(guesses(out)) == [str(good)]


@pytest.mark.parametrize(
    ("video", "message"),
    [("absent.mp4", "no such video or folder"), ("", "holds no video; searched for ")],
    ids=["absent", "empty folder"],
)
def test_demo_without_a_video(net, tmp_path, video, message):
    status, _, err = net({}, tool="demo_net", arguments=["--video", tmp_path / video])
    assert status == 1
    assert err.startswith(f"error: {tmp_path / video}: {message}")


def drawn(folder):
    return sorted(path.name for path in folder.iterdir())


def test_demo_draws_what_the_method_looked_at(net, dataset, tmp_path):
    video = dataset / "videos" / "test0.mp4"
    twin = tmp_path / "test0.mp4"
    twin.write_bytes(video.read_bytes())
    plain = net({}, tool="demo_net", arguments=["--video", video, twin])
    folder = tmp_path / "looks"
    status, out, err = net({}, tool="demo_net", arguments=["--video", video, twin, "--explain", folder])
    assert (status, err) == (0, "")
    names = [f"test0{twin}_view{view}.{kind}" for twin in ("", "-2") for view in (1, 2) for kind in ("mp4", "png")]
    assert drawn(folder) == sorted(names)
    printed = guesses(out)
    assert printed.pop(f"pictures and films of every clip: {folder}") == []
    assert printed == guesses(plain[1])
    for view in (1, 2):  # the same clips
        for kind in ("png", "mp4"):
            one, two = (folder / f"test0{twin}_view{view}.{kind}" for twin in ("", "-2"))
            assert one.read_bytes() == two.read_bytes()


def test_demo_says_what_frames_were_matched_to(net, dataset, tmp_path, monkeypatch):
    def explain(self, batch):
        shape = (batch.frames.shape[2], 2)
        plan, cosines = torch.full(shape, 1 / (2 * shape[0])), torch.zeros(shape)
        match = MatchView(kind="temporal", class_name="surfing", texts=("a wave", "b"), plan=plan, cosines=cosines)
        return [Explanation(matches=(match,))] * len(batch)

    monkeypatch.setattr(STDD, "explain", explain)
    videos = [dataset / "videos" / name for name in ("test0.mp4", "test1.avi")]
    arguments = ["--video", *videos, "--topk", "1", "--explain", tmp_path / "looks"]
    status, out, err = net({}, tool="demo_net", arguments=arguments)
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if not line.startswith("[")]
    assert [line for line in lines if not line.startswith(" ")][:2] == [str(video) for video in videos]
    start = lines.index(str(videos[1])) + 2
    num_frames = sum(line.endswith("a wave") for line in lines) // 4
    for view in (1, 2):
        heading, names, *rows = lines[start : start + 2 + num_frames]
        assert heading.startswith(f"  clip {view} of 2: temporal descriptors of surfing; ")
        assert names.split()[:3] == ["frame", "weight", "cosine"]
        expected = [[str(t), "50.0%", "0.000", "1", "a", "wave"] for t in range(1, num_frames + 1)]
        assert [row.split() for row in rows] == expected
        start += 2 + num_frames
    assert lines[start] == f"pictures and films of every clip: {tmp_path / 'looks'}"
    assert len(drawn(tmp_path / "looks")) == 2 * 2 * 2
    layers = net({}, tool="demo_net", arguments=[*arguments, "--layers", "1"])
    none = "allowed: none, the method has no view of layers"
    assert (layers[0], layers[2]) == (1, f"error: DEMO.EXPLAIN_LAYERS: there is no layer 1 to draw; {none}\n")


def test_demo_draws_into_the_output_folder(net, dataset, tmp_path):
    arguments = ["--video", dataset / "videos" / "test1.avi", "--explain", "--layers", "2"]
    status, _, err = net({"OUTPUT_DIR": tmp_path}, tool="demo_net", arguments=arguments)
    assert (status, err) == (0, "")
    assert drawn(tmp_path) == ["explain"]
    assert len(drawn(tmp_path / "explain")) == 4


def test_drawing_by_keys_and_by_the_command_line(net, dataset, tmp_path):
    options = {"DEMO.EXPLAIN": tmp_path / "looks", "DEMO.EXPLAIN_LAYERS": "[1]", "TEST.NUM_ENSEMBLE_VIEWS": 1}
    arguments = ["--video", dataset / "videos" / "test1.avi"]
    assert net(options, tool="demo_net", arguments=arguments)[0] == 0
    one = (tmp_path / "looks" / "test1_view1.png").read_bytes()
    assert net(options, tool="demo_net", arguments=[*arguments, "--layers", "1", "2"])[0] == 0
    assert (tmp_path / "looks" / "test1_view1.png").read_bytes() != one


def test_demo_of_a_broken_video_draws_the_others(net, dataset, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    arguments = ["--video", broken, dataset / "videos" / "test1.avi", "--explain", tmp_path / "looks"]
    assert net({}, tool="demo_net", arguments=arguments)[0] == 1
    assert drawn(tmp_path / "looks") == [f"test1_view{view}.{kind}" for view in (1, 2) for kind in ("mp4", "png")]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--layers", "1"], 2, "--layers: nothing is drawn without --explain"),
        (["--explain", "--layers", "3"], 1, "DEMO.EXPLAIN_LAYERS: there is no layer 3 to draw; allowed: 1 to 2"),
        (["--explain", "--layers", "0"], 2, "DEMO.EXPLAIN_LAYERS: expected a list of integers >= 1, found [0]"),
    ],
)
def test_demo_refuses_to_draw(net, dataset, tmp_path, arguments, status, message):
    video = ["--video", dataset / "videos" / "test0.mp4"]
    found = net({"OUTPUT_DIR": tmp_path}, tool="demo_net", arguments=[*video, *arguments])
    assert (found[0], found[2]) == (status, f"error: {message}\n")
    assert drawn(tmp_path) == []


def test_demo_refuses_a_file_in_place_of_the_folder(net, dataset, tmp_path):
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    arguments = ["--video", dataset / "videos" / "test0.mp4", "--explain", file]
    status, _, err = net({}, tool="demo_net", arguments=arguments)
    assert (status, err) == (1, f"error: {file}: File exists\n")


def test_two_processes_draw_their_own_videos(shell, dataset, tmp_path):
    videos = [dataset / "videos" / f"test{number}.mp4" for number in (0, 2, 4)]
    done = shell(
        {},
        tool="tools/demo_net.py",
        launcher=["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
        arguments=["--video", *videos, "--explain", tmp_path / "looks"],
    )
    assert done.returncode == 0, done.stderr
    assert list(guesses(done.stdout))[:3] == [str(video) for video in videos]
    assert len(drawn(tmp_path / "looks")) == 3 * 2 * 2


def test_a_file_that_training_does_not_read_is_said(net, tmp_path):
    options = {"OUTPUT_DIR": tmp_path, "SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False, "TRAIN.CUSTOM_LOAD_FILE": "x.pth"}
    assert net(options)[0] == 0
    log = (tmp_path / "stdout.log").read_text(encoding="utf-8")
    assert "TRAIN.CUSTOM_LOAD_FILE has no effect without TRAIN.CUSTOM_LOAD True: it is not read" in log
