"""TRAIN.KEEP_BEST from the command line: the best epoch is kept through interruptions, and tested."""

import json

import pytest
import torch

from slowfast.engine.meters import ValMeter

OPTIONS = {
    "SOLVER.MAX_EPOCH": 3,
    "TRAIN.EVAL_PERIOD": 1,
    "TRAIN.KEEP_LAST_CHECKPOINTS": 1,
    "TRAIN.KEEP_BEST": True,
    "TEST.NUM_ENSEMBLE_VIEWS": 1,
}
ERRORS = (60.0, 20.0, 30.0)


@pytest.fixture
def errors(monkeypatch):
    """Makes the errors of validations known; an epoch that is added to the list is interrupted, once."""
    interrupted, plain = [], ValMeter.epoch_stats

    def epoch_stats(self, epoch, **figures):
        if epoch in interrupted:
            interrupted.remove(epoch)
            raise KeyboardInterrupt
        return plain(self, epoch, **{**figures, "top1_err": ERRORS[epoch]})

    monkeypatch.setattr(ValMeter, "epoch_stats", epoch_stats)
    return interrupted


def best(folder):
    content = torch.load(folder / "checkpoints" / "checkpoint_best.pyth", weights_only=True)
    return content["epoch"], content["model_state"]


def test_the_best_epoch_is_kept_and_tested(net, tmp_path, errors):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    status, out, err = net({"OUTPUT_DIR": straight, **OPTIONS})
    assert (status, err) == (0, "")
    path = straight / "checkpoints" / "checkpoint_best.pyth"
    assert f"{path} is the checkpoint of epoch 2" in out
    names = sorted(other.name for other in path.parent.iterdir())
    assert names == ["checkpoint_best.pyth", "checkpoint_epoch_00003.pyth", "manifest.json"]
    results = json.loads((straight / "results.json").read_text(encoding="utf-8"))
    assert results["weights"] == str(path)

    train = {"OUTPUT_DIR": cut, **OPTIONS, "TEST.ENABLE": False}
    errors += [1, 2]
    assert [net(train)[0] for _ in range(3)] == [130, 130, 0]
    (epoch, state), (_, other) = best(straight), best(cut)
    assert epoch == best(cut)[0] == 1
    assert all(torch.equal(state[name], other[name]) for name in state)

    # What validates other weights of the folder moves nothing.
    source = straight / "checkpoints" / "checkpoint_epoch_00003.pyth"
    assert net({**train, "VAL_MODE": True, "TRAIN.CHECKPOINT_FILE_PATH": source})[0] == 0
    assert net(train)[0] == 0
    assert best(cut)[0] == 1
    test = {"OUTPUT_DIR": cut, "TRAIN.ENABLE": False, "TEST.NUM_ENSEMBLE_VIEWS": 1}
    for keep, name in ((True, "checkpoint_best.pyth"), (False, "checkpoint_epoch_00003.pyth")):
        assert net({**test, "TRAIN.KEEP_BEST": keep})[0] == 0
        results = json.loads((cut / "results.json").read_text(encoding="utf-8"))
        assert results["weights"] == str(cut / "checkpoints" / name)


def test_a_run_that_kept_no_best_is_not_tested_as_if_it_had(net, tmp_path):
    options = {"OUTPUT_DIR": tmp_path, "SOLVER.MAX_EPOCH": 1, "TRAIN.EVAL_PERIOD": 1}
    assert net({**options, "TEST.ENABLE": False})[0] == 0
    status, _, err = net({**options, "TRAIN.ENABLE": False, "TRAIN.KEEP_BEST": True})
    assert status == 1
    assert err.startswith("error: TRAIN.KEEP_BEST: ")
    assert err.count("\n") == 1
