"""A run that is interrupted and continued gives what the uninterrupted run gives, bit for bit."""

import shutil

import pytest
import torch

CHECKPOINT = "checkpoint_epoch_{:05d}.pyth"


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir() if path.name != "manifest.json")


def load(folder, epoch):
    return torch.load(folder / "checkpoints" / CHECKPOINT.format(epoch), weights_only=True)


def assert_same(a, b):
    """Compare nested containers of tensors bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


def assert_same_training(a, b, *, epoch=2):
    left, right = load(a, epoch), load(b, epoch)
    for content in (left, right):
        content.pop("cfg")  # names the folder
    assert_same(left, right)


@pytest.fixture
def train(net, tmp_path, json_lines):
    """Trains into a named folder: train(name, {KEY: value}) -> (folder, json lines of the console)."""

    def run(name, options=()):
        folder = tmp_path / name
        status, out, err = net({"OUTPUT_DIR": folder, "TEST.ENABLE": False, **dict(options)})
        assert (status, err) == (0, "")
        console = tmp_path / "console.log"
        console.write_text(out, encoding="utf-8")
        return folder, json_lines(console)

    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_straight_run(train, workers):
    options = {"DATA_LOADER.NUM_WORKERS": workers}
    straight, all_lines = train("straight", options)
    cut = straight.with_name("cut")
    shutil.copytree(straight, cut)
    (cut / "checkpoints" / CHECKPOINT.format(2)).unlink()
    resumed, lines = train("cut", options)
    assert_same_training(straight, resumed)
    assert lines == [line for line in all_lines if line["epoch"] == "2/2"]
    assert [line["_type"] for line in lines] == ["train_iter_"] * 3 + ["train_epoch", "val_epoch"]


def test_finished_run_only_validates(train):
    folder, lines = train("done")
    before = (folder / "checkpoints" / CHECKPOINT.format(2)).stat().st_mtime_ns
    _, again = train("done")
    assert again == lines[-1:]
    assert (folder / "checkpoints" / CHECKPOINT.format(2)).stat().st_mtime_ns == before


def test_number_of_workers_changes_nothing(train):
    alone, lines = train("alone")
    helped, other_lines = train("helped", {"DATA_LOADER.NUM_WORKERS": 2})
    assert_same_training(alone, helped)
    assert lines == other_lines


def test_seed_decides(train):
    first, lines = train("first", {"SOLVER.MAX_EPOCH": 1})
    again, same = train("again", {"SOLVER.MAX_EPOCH": 1})
    _, other = train("other", {"SOLVER.MAX_EPOCH": 1, "RNG_SEED": 8})
    assert_same_training(first, again, epoch=1)
    assert lines == same
    assert lines[0]["loss"] != other[0]["loss"]


def test_without_auto_resume_training_starts_anew(train):
    _, lines = train("run", {"SOLVER.MAX_EPOCH": 1})
    _, again = train("run", {"SOLVER.MAX_EPOCH": 1, "TRAIN.AUTO_RESUME": False})
    assert again == lines


def test_checkpoint_file_path(train):
    first, _ = train("first")
    source = first / "checkpoints" / CHECKPOINT.format(1)
    options = {"TRAIN.CHECKPOINT_FILE_PATH": source}
    continued, _ = train("continued", options)
    assert names(continued) == [CHECKPOINT.format(2)]
    assert_same_training(first, continued)
    _, lines = train("reset", {**options, "TRAIN.CHECKPOINT_EPOCH_RESET": True})
    assert lines[0]["epoch"] == "1/2"


def test_keep_last_checkpoints(train):
    folder, _ = train("run", {"SOLVER.MAX_EPOCH": 3, "TRAIN.KEEP_LAST_CHECKPOINTS": 2})
    assert names(folder) == [CHECKPOINT.format(2), CHECKPOINT.format(3)]


def test_checkpoint_period_and_task(train):
    folder, _ = train("run", {"SOLVER.MAX_EPOCH": 3, "TRAIN.CHECKPOINT_PERIOD": 2, "TASK": "motion"})
    assert names(folder) == ["motion_" + CHECKPOINT.format(2), "motion_" + CHECKPOINT.format(3)]


def test_partial_file_is_not_resumed_from(train):
    straight, lines = train("straight")
    folder = straight / "checkpoints"
    (folder / CHECKPOINT.format(2)).unlink()
    (folder / (CHECKPOINT.format(2) + ".part")).write_bytes(b"half a file")
    _, again = train("straight")
    assert again == [line for line in lines if line["epoch"] == "2/2"]
    assert names(straight) == [CHECKPOINT.format(1), CHECKPOINT.format(2)]


def test_other_model_is_refused(net, tmp_path, train):
    folder, _ = train("run", {"SOLVER.MAX_EPOCH": 1})
    path = folder / "checkpoints" / CHECKPOINT.format(1)
    content = torch.load(path, weights_only=True)
    content["model_state"]["model.visual.proj"] = torch.zeros(64, 31)
    torch.save(content, path)
    (path.parent / "manifest.json").unlink()  # it would call the file damaged
    status, _, err = net({"OUTPUT_DIR": folder, "TEST.ENABLE": False})
    assert status == 1
    assert err == (
        f"error: {path}: weights do not fit the model: 1 of another shape "
        "(model.visual.proj is (64, 31) instead of (64, 32))\n"
    )
