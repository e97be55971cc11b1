"""Interpolated-weight regularisation on the command line: ranks agree, runs continue bit for bit."""

import shutil

import pytest
import torch

CHECKPOINT = "checkpoint_epoch_{:05d}.pyth"
TOLERANCE = 1e-5
# Not AdamW where runs agree to rounding only: it blows rounding errors up to full steps.
OPTIONS = {
    "TRAIN.LINEAR_CONNECT_CLIMB": True,
    "TRAIN.LINEAR_CONNECT_LOSS_RATIO": 0.5,
    "TRAIN.LINEAR_CONNECT_SAMPLE_L": 0.0,
    "TRAIN.LINEAR_CONNECT_SAMPLE_R": 0.6,
    "SOLVER.OPTIMIZING_METHOD": "sgd",
    "SOLVER.BASE_LR": 0.1,
    "SOLVER.WARMUP_START_LR": 0.01,
    "TEST.ENABLE": False,
}
ADAMW = {"SOLVER.OPTIMIZING_METHOD": "adamw", "SOLVER.BASE_LR": 1e-3, "SOLVER.WARMUP_START_LR": 1e-4}
TWO = {"NUM_GPUS": 2, "DIST_BACKEND": "gloo"}
WAYS = {
    "two": TWO,
    "two_static": {**TWO, "MODEL.STATIC_GRAPH": True},
    "parts": {"TRAIN.ACCUMULATION_STEPS": 2},
    "two_parts": {**TWO, "TRAIN.ACCUMULATION_STEPS": 2},
}
# Masks are drawn part by part, so a split batch can be compared with a whole one only where none is random.
FIXED_MASKS = {"MODEL.TEMPORAL_SHUFFLE": False, "MODEL.MASK_RATE": 0.0}


class Run:
    def __init__(self, folder, json_lines):
        self.folder = folder
        self.lines = json_lines(folder / "stdout.log")

    def content(self, epoch=2):
        return torch.load(self.folder / "checkpoints" / CHECKPOINT.format(epoch), weights_only=True)

    def weights(self, epoch=2):
        return self.content(epoch)["model_state"]


@pytest.fixture(scope="module")
def run_in(shell, json_lines, tmp_path_factory):
    """Trains once per set of options: run_in({KEY: value}) -> Run."""
    root, done = tmp_path_factory.mktemp("interpolated"), {}

    def run(options):
        key = repr(sorted(options.items()))
        if key not in done:
            folder = root / str(len(done))
            result = shell({**OPTIONS, **options, "OUTPUT_DIR": folder})
            assert result.returncode == 0, result.stderr
            done[key] = Run(folder, json_lines)
        return done[key]

    return run


def assert_agree(left, right):
    left_losses, right_losses = ([line for line in run.lines if "loss" in line] for run in (left, right))
    for one, other in zip(left_losses, right_losses, strict=True):
        for key in ("loss", "loss_classification", "loss_distillation", "loss_interpolated"):
            assert other[key] == pytest.approx(one[key], rel=TOLERANCE, abs=1.5e-5), key  # five printed decimals
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    expected, found = left.weights(), right.weights()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("way", ["two", "two_static"])
def test_two_ranks_see_what_one_sees(run_in, way):
    assert_agree(run_in({}), run_in(WAYS[way]))


@pytest.mark.parametrize("way", ["parts", "two_parts"])
def test_parts_of_a_batch_give_what_the_batch_gives(run_in, way):
    assert_agree(run_in(FIXED_MASKS), run_in({**FIXED_MASKS, **WAYS[way]}))


def test_share_of_raw_clip_matters(run_in):
    run, other = run_in({}), run_in({"TRAIN.LINEAR_CONNECT_SAMPLE_L": 0.5})
    assert not torch.equal(run.weights()["model.visual.proj"], other.weights()["model.visual.proj"])


def test_resumed_run_equals_straight_run(run_in, shell, json_lines):
    straight = run_in(ADAMW)
    cut = straight.folder.with_name("cut")
    shutil.copytree(straight.folder, cut)
    (cut / "checkpoints" / CHECKPOINT.format(2)).unlink()
    (cut / "stdout.log").unlink()
    result = shell({**OPTIONS, **ADAMW, "OUTPUT_DIR": cut})
    assert result.returncode == 0, result.stderr
    resumed = Run(cut, json_lines)
    assert resumed.lines == [line for line in straight.lines if line["epoch"] == "2/2"]
    left, right = straight.content(), resumed.content()
    torch.testing.assert_close(left["model_state"], right["model_state"], rtol=0, atol=0)
    torch.testing.assert_close(left["optimizer_state"]["state"], right["optimizer_state"]["state"], rtol=0, atol=0)
