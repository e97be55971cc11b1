"""A run that is interrupted and continued gives what the uninterrupted run gives, bit for bit."""

import shutil

import pytest
import torch

from slowfast.methods import METHODS

pytestmark = pytest.mark.parametrize("recipe", METHODS, indirect=True)

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
    folder, lines = train("run", {"SOLVER.MAX_EPOCH": 1})
    old = folder / "checkpoints" / CHECKPOINT.format(1)
    content = old.read_bytes()
    _, again = train("run", {"SOLVER.MAX_EPOCH": 1, "TRAIN.AUTO_RESUME": False})
    assert again == lines
    assert (folder / "checkpoints_before" / old.name).read_bytes() == content


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
    folder, _ = train("run")
    path = folder / "checkpoints" / CHECKPOINT.format(2)
    content = torch.load(path, weights_only=True)
    (name,) = {"model.visual.proj", "head.backbone.proj"} & content["model_state"].keys()
    content["model_state"][name] = torch.zeros(64, 31)
    torch.save(content, path)
    (path.parent / "manifest.json").unlink()  # it would call the file damaged
    status, _, err = net({"OUTPUT_DIR": folder, "TEST.ENABLE": False})
    assert status == 1
    assert err == (
        f"error: {path}: weights do not fit the model: 1 of another shape ({name} is (64, 31) instead of (64, 32))\n"
    )


# ------------------------------------------------------------------------------------- damaged files, other trainings


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(train, damage):
    straight, lines = train("straight")
    cut = straight.with_name("cut")
    shutil.copytree(straight, cut)
    path = cut / "checkpoints" / CHECKPOINT.format(2)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[-5000:]
    elif damage == "empty":
        content.clear()
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = train("cut")[1]
    assert again == [line for line in lines if line["epoch"] == "2/2"]
    assert_same_training(straight, cut)
    log = (cut / "stdout.log").read_text(encoding="utf-8")
    assert log.count("[WARNING] checkpoint_files.py: ") == 2
    assert f"{path}: it " in log
    assert f"Going on from the checkpoint before: {cut / 'checkpoints' / CHECKPOINT.format(1)}" in log


def test_a_test_does_not_take_another_checkpoint_in_place_of_a_damaged_one(net, train):
    folder, _ = train("run")
    path = folder / "checkpoints" / CHECKPOINT.format(2)
    path.write_bytes(path.read_bytes()[:-5000])
    status, _, err = net({"OUTPUT_DIR": folder, "TRAIN.ENABLE": False})
    assert status == 1
    assert err.startswith(f"error: {path}: checkpoint ")
    assert err.count("\n") == 1
    assert not (folder / "results.json").exists()


CHANGES = {
    "SOLVER.MAX_EPOCH": (3, "SOLVER.MAX_EPOCH was 2, is 3"),
    "SOLVER.BASE_LR": (0.01, "SOLVER.BASE_LR was 0.001, is 0.01"),
    "RNG_SEED": (8, "RNG_SEED was 7, is 8"),
    "TRAIN.BATCH_SIZE": (6, "TRAIN.BATCH_SIZE was 4, is 6"),
    "MODEL.MASK_RATE": (0.25, "MODEL.MASK_RATE was 0.5, is 0.25"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_another_training_is_refused_unless_forced(net, train, key):
    folder, _ = train("run", {"TRAIN.EVAL_PERIOD": 1})
    path = folder / "checkpoints" / CHECKPOINT.format(2)
    config = (folder / "config.yaml").read_bytes()
    value, reason = CHANGES[key]
    options = {"OUTPUT_DIR": folder, "TEST.ENABLE": False, key: value}
    status, _, err = net(options)
    assert (status, err) == (
        1,
        f"error: {path}: is of another training: {reason}. Set them back, take another OUTPUT_DIR, or go on all the "
        "same with TRAIN.FORCE_RESUME True\n",
    )
    assert (folder / "config.yaml").read_bytes() == config  # what was refused leaves no trace
    status, out, err = net({**options, "TRAIN.FORCE_RESUME": True})
    assert (status, err) == (0, "")
    assert f"{reason}; going on all the same (TRAIN.FORCE_RESUME)" in out


def test_what_changes_no_number_is_not_refused(train, dataset, tmp_path):
    folder, lines = train("run")
    (folder / "checkpoints" / CHECKPOINT.format(2)).unlink()
    moved = tmp_path / "moved"
    shutil.copytree(dataset, moved)
    other = {
        "LOG_PERIOD": 1, "TRAIN.EVAL_PERIOD": 2, "TRAIN.CHECKPOINT_STEPS": 1, "TEST.NUM_ENSEMBLE_VIEWS": 3,
        "DATA_LOADER.NUM_WORKERS": 1, "DATA.PATH_TO_DATA_DIR": moved, "DATA.PATH_PREFIX": moved / "videos",
        "DATA.TEXT_AUG_FEATURE_FILE": moved / "text.pt", "TRAIN.NONFINITE_BUDGET": 3,
    }  # fmt: skip
    _, again = train("run", other)
    assert again == [line for line in lines if line["epoch"] == "2/2"]


def test_another_list_is_another_training(net, train, dataset, tmp_path):
    folder, _ = train("run")
    for name in ("train.csv", "val.csv", "test.csv"):
        shutil.copy(dataset / name, tmp_path)
    rows = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "train.csv").write_text("\n".join(rows[::-1]) + "\n", encoding="utf-8")
    status, _, err = net({"OUTPUT_DIR": folder, "TEST.ENABLE": False, "DATA.PATH_TO_DATA_DIR": tmp_path})
    assert status == 1
    assert (
        "is of another training: the training list, its class names, text features or CLIP weights have another" in err
    )


def test_another_global_batch_goes_on_behind_the_same_videos(train):
    """Forced to, a run goes on with other batches, but with the videos that are left of the epoch, in their order."""
    folder, _ = train(
        "run", {"TRAIN.CHECKPOINT_STEPS": 1, "TRAIN.KEEP_LAST_WITHIN_EPOCH": 9, "TRAIN.CHECKPOINT_PERIOD": 9}
    )
    # keep what lies within the second epoch: 4 of 12 videos were seen
    content = load(folder, 2)
    content["progress"] |= {"epoch": 1, "videos": 4, "report": None}
    content["epoch"] = 0
    (folder / "checkpoints" / CHECKPOINT.format(2)).unlink()
    torch.save(content, folder / "checkpoints" / "checkpoint_within_00002_00000004.pyth")
    _, lines = train("run", {"TRAIN.BATCH_SIZE": 2, "TRAIN.FORCE_RESUME": True})
    steps = [line["iter"] for line in lines if line["_type"] == "train_iter_"]
    assert steps == ["3/6", "4/6", "5/6", "6/6"]


def test_more_epochs_than_the_run_has(net, train):
    folder, _ = train("run")
    source = folder / "checkpoints" / CHECKPOINT.format(2)
    content = torch.load(source, weights_only=True)
    del (
        content["progress"],
        content["format"],
        content["cfg"],
    )  # as of another project, which nothing can be compared with
    torch.save({**content, "epoch": 30}, source.with_name("other.pyth"))
    options = {"OUTPUT_DIR": folder.with_name("new"), "TRAIN.CHECKPOINT_FILE_PATH": source.with_name("other.pyth")}
    status, _, err = net(options)
    assert (status, err) == (
        1,
        f"error: {source.with_name('other.pyth')}: has come further than SOLVER.MAX_EPOCH 2: 31 epochs; set "
        "TRAIN.CHECKPOINT_EPOCH_RESET True to take its weights alone\n",
    )


def test_the_switch_for_determinism_changes_nothing_on_a_cpu(train):
    plain, lines = train("plain", {"SOLVER.MAX_EPOCH": 1})
    strict, same = train("strict", {"SOLVER.MAX_EPOCH": 1, "DETERMINISTIC": True})
    assert torch.are_deterministic_algorithms_enabled()
    _, again = train("again", {"SOLVER.MAX_EPOCH": 1})
    assert not torch.are_deterministic_algorithms_enabled()
    assert lines == same == again
    assert_same_training(plain, strict, epoch=1)


def test_a_run_that_is_cut_short_keeps_what_it_reached(net, train):
    """Forced to end at the epoch that it reached, it has a checkpoint of that epoch, whatever the period."""
    options = {"TRAIN.CHECKPOINT_PERIOD": 9, "TRAIN.EVAL_PERIOD": 1, "SOLVER.MAX_EPOCH": 3}
    folder, _ = train("run", options)
    content = load(folder, 3)
    content["progress"] |= {"epoch": 2, "videos": 0, "report": None}
    content["epoch"] = 1
    (folder / "checkpoints" / CHECKPOINT.format(3)).unlink()
    torch.save(content, folder / "checkpoints" / "checkpoint_within_00003_00000000.pyth")
    shorter = {**options, "SOLVER.MAX_EPOCH": 2, "TRAIN.FORCE_RESUME": True}
    _, again = train("run", shorter)
    assert [line["_type"] for line in again] == ["val_epoch"]
    assert names(folder) == [CHECKPOINT.format(2)]
    content["progress"] |= {"videos": 4}
    torch.save(content, folder / "checkpoints" / "checkpoint_within_00003_00000004.pyth")
    status, _, err = net({"OUTPUT_DIR": folder, "TEST.ENABLE": False, **shorter})
    assert status == 1
    assert "has come further than SOLVER.MAX_EPOCH 2: 2 epochs and 4 videos" in err


@pytest.mark.parametrize(
    ("computed", "options", "reason"),
    [
        ({"dtype": "bfloat16"}, {}, "dtype was 'bfloat16', is 'float32' here"),
        ({"processes": 2}, {"TRAIN.ACCUMULATION_STEPS": 2}, "processes was 2, is 1 here"),
    ],
)
def test_what_the_machine_adds_to_the_numbers_is_compared(net, train, computed, options, reason):
    folder, _ = train("run", {"SOLVER.MAX_EPOCH": 2, **options})
    path = folder / "checkpoints" / CHECKPOINT.format(2)
    content = load(folder, 2)
    content["computed"] |= computed
    torch.save(content, path)
    (path.parent / "manifest.json").unlink()
    status, _, err = net({"OUTPUT_DIR": folder, "TEST.ENABLE": False, **options})
    assert status == 1
    assert f"is of another training: {reason}. Set" in err
