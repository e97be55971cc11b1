"""Two processes give what one process gives, however they are started, and fail as clearly."""

import functools
import json
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch

from slowfast.methods import METHODS
from slowfast.models.clip.arch import ResNetSizes
from slowfast.models.clip.weights import random_clip_state_dict

# Two processes of CLIP-FSAR are compared in test_episodic.py, where all of it trains.
every_method = pytest.mark.parametrize("recipe", [name for name in METHODS if name != "clip_fsar"], indirect=True)

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TOLERANCE = 1e-5
# Not AdamW: the bias of the attention's keys has no gradient but rounding errors, which it would blow up to full steps.
TRAIN_AND_TEST = {
    "SOLVER.OPTIMIZING_METHOD": "sgd",
    "SOLVER.BASE_LR": 0.1,
    "SOLVER.WARMUP_START_LR": 0.01,
    "TEST.SAVE_RESULTS_PATH": "predictions.pkl",
}
# Published defaults of the block: masks are random in training, and each rank must draw its own share of them.
RANDOM_MASKS = {"MODEL.SPATIAL_REPEAT": True, "MODEL.TEMPORAL_SHUFFLE": True, "MODEL.MASK_RATE": 0.5}


class Run:
    def __init__(self, folder):
        self.folder = folder

    def weights(self):
        path = self.folder / "checkpoints" / "checkpoint_epoch_00002.pyth"
        return torch.load(path, weights_only=True)["model_state"]

    def results(self):
        return json.loads((self.folder / "results.json").read_text(encoding="utf-8"))

    def predictions(self):
        with (self.folder / "predictions.pkl").open("rb") as file:
            return pickle.load(file)


@pytest.fixture(scope="module")
def runs(shell, tmp_path_factory):
    """The same training and test by one process, by two spawned ones, and by two under torchrun."""
    root = tmp_path_factory.mktemp("runs")
    options = {**TRAIN_AND_TEST, **RANDOM_MASKS}
    ways = {
        "one": ({}, ()),
        "spawn": ({"NUM_GPUS": 2, "DIST_BACKEND": "gloo"}, ()),
        "torchrun": ({"NUM_GPUS": 0, "DATA_LOADER.NUM_WORKERS": 1}, TORCHRUN),
    }
    for name, (more, launcher) in ways.items():
        done = shell({"OUTPUT_DIR": root / name, **options, **more}, launcher=launcher)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr
    return {name: Run(root / name) for name in ways}


@every_method
@pytest.mark.parametrize("way", ["spawn", "torchrun"])
def test_losses_agree(runs, json_lines, way):
    one, two = (json_lines(runs[name].folder / "stdout.log") for name in ("one", way))
    one, two = ([line for line in lines if "loss" in line] for lines in (one, two))
    assert [line["_type"] for line in one] == (["train_iter_"] * 3 + ["train_epoch"]) * 2
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for key in ("top1_err", "lr", "logit_scale", *(name for name in left if name.startswith("loss"))):
            assert right[key] == pytest.approx(left[key], rel=TOLERANCE, abs=1.5e-5), key  # five printed decimals
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=1e-4, abs=1.5e-5)


@every_method
@pytest.mark.parametrize("way", ["spawn", "torchrun"])
def test_weights_agree(runs, way):
    one, two = runs["one"].weights(), runs[way].weights()
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("recipe", ["ost"], indirect=True)
def test_a_contrastive_batch_in_parts_is_the_same_on_two_ranks(shell, recipe, json_lines, tmp_path):
    """The loss of a video depends on those that it meets in its part."""
    options = {**TRAIN_AND_TEST, "TRAIN.ACCUMULATION_STEPS": 2, "SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False}
    losses = []
    for gpus in (0, 2):
        folder = tmp_path / str(gpus)
        done = shell({**options, "NUM_GPUS": gpus, "DIST_BACKEND": "gloo", "OUTPUT_DIR": folder})
        assert done.returncode == 0, done.stderr
        losses.append([line["loss"] for line in json_lines(folder / "stdout.log") if line["_type"] == "train_iter_"])
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE, abs=1.5e-5)


@pytest.mark.parametrize("way", ["spawn", "torchrun"])
def test_only_rank_0_speaks_and_writes(runs, way):
    names = {path.name for path in runs[way].folder.iterdir()}
    assert names == {
        "checkpoints", "config.yaml", "json_stats.log", "predictions.pkl", "results.json", "stdout.log",
        "splits", "stdout_rank1.log",
    }  # fmt: skip
    assert (runs[way].folder / "stdout.log").read_text(encoding="utf-8").count("Resolved configuration") == 1


def test_static_graph_and_accumulation_go_together(shell, tmp_path):
    common = {**TRAIN_AND_TEST, "NUM_GPUS": 2, "DIST_BACKEND": "gloo", "TEST.ENABLE": False}
    found = []
    for static in (False, True):
        folder = tmp_path / str(static)
        options = {"MODEL.STATIC_GRAPH": static, "TRAIN.ACCUMULATION_STEPS": 2, "OUTPUT_DIR": folder}
        done = shell({**common, **options})
        assert done.returncode == 0, done.stderr
        found.append(Run(folder).weights())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=TOLERANCE, atol=TOLERANCE)


@every_method
def test_evaluation_does_not_depend_on_world_batch_or_workers(runs, shell, net, tmp_path):
    source = runs["one"].folder / "checkpoints" / "checkpoint_epoch_00002.pyth"
    reference, found = runs["one"], []
    ways = [
        (shell, {"NUM_GPUS": 2, "DIST_BACKEND": "gloo", "TEST.BATCH_SIZE": 2}),
        (functools.partial(shell, launcher=TORCHRUN), {"TEST.BATCH_SIZE": 10, "DATA_LOADER.NUM_WORKERS": 2}),
        (net, {"TEST.BATCH_SIZE": 1, "DATA_LOADER.NUM_WORKERS": 1}),
        (net, {"TEST.BATCH_SIZE": 6}),
    ]
    for number, (start, options) in enumerate(ways):
        folder = tmp_path / str(number)
        common = {"OUTPUT_DIR": folder, "TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": source, **TRAIN_AND_TEST}
        start({**common, **options})
        found.append(Run(folder))
    logits, labels = reference.predictions()
    for run in found:
        for left, right in zip(run.predictions(), (logits, labels), strict=True):
            assert torch.equal(left, right)
        for key in ("metrics", "num_scored", "num_videos", "weights_sha256", "model_sha256"):
            assert run.results()[key] == reference.results()[key], key


def run_and_wait(command, environment):
    """Run in a process group of its own; returns status, stderr, and whether every process of the group is gone."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _, err = process.communicate(timeout=120)
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return process.returncode, err, True
        time.sleep(0.1)
    return process.returncode, err, False


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["spawn", "torchrun"])
def test_one_failing_rank_ends_the_run_with_one_line(recipe, environment, repository, tmp_path, launcher):
    # Rank 1 cannot write its log, while rank 0 goes on and waits for it.
    blocked = tmp_path / "out" / "stdout_rank1.log"
    blocked.mkdir(parents=True)
    gpus = ("NUM_GPUS", "0") if launcher else ("NUM_GPUS", "2", "DIST_BACKEND", "gloo")
    command = [sys.executable, *launcher, repository / "tools" / "run_net.py", "--cfg", recipe]
    status, err, is_clean = run_and_wait([*command, "--opts", "OUTPUT_DIR", tmp_path / "out", *gpus], environment)
    assert status == 1
    assert is_clean
    assert [line for line in err.splitlines() if "error: " in line] == [f"error: {blocked}: Is a directory"]
    assert launcher or "Traceback" not in err  # torchrun adds a report of its own


def test_statistics_of_a_resnet_are_those_of_all_processes(shell, json_lines, tmp_path):
    """What two processes validate is what the checkpoint holds, so that a run that goes on finds the same."""
    sizes = ResNetSizes(
        image_size=32, vision_width=4, vision_layers=(1, 1, 1, 1), embed_dim=32, text_width=64, text_layers=1
    )
    torch.save(random_clip_state_dict(sizes, seed=1), tmp_path / "resnet.pt")
    options = {
        **TRAIN_AND_TEST, "MODEL.CLIP_WEIGHTS": tmp_path / "resnet.pt", "MODEL.TEMPORAL_MODELING_TYPE": None,
        "TRAIN.EVAL_PERIOD": 1, "TRAIN.KEEP_BEST": True, "TRAIN.CHECKPOINT_STEPS": 2, "NUM_GPUS": 2,
        "DIST_BACKEND": "gloo",
    }  # fmt: skip
    run = Run(tmp_path / "run")
    done = shell({"OUTPUT_DIR": run.folder, **options})
    assert done.returncode == 0, done.stderr
    straight, lines = run.weights(), json_lines(run.folder / "json_stats.log")
    assert run.results()["weights"].endswith("checkpoint_best.pyth")
    moved = [name for name in straight if "running" in name]
    checkpoints = run.folder / "checkpoints"
    first = torch.load(checkpoints / "checkpoint_epoch_00001.pyth", weights_only=True)["model_state"]
    assert moved
    assert not any(torch.equal(straight[name], first[name]) for name in moved)
    (checkpoints / "checkpoint_epoch_00002.pyth").unlink()
    done = shell({"OUTPUT_DIR": run.folder, **options, "TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert all(torch.equal(straight[name], tensor) for name, tensor in run.weights().items())
    again = json_lines(run.folder / "json_stats.log")[len(lines) :]
    assert again == [line for line in lines if line.get("epoch") == "2/2"]
