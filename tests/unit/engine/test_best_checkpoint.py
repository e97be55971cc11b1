"""Which checkpoint is the best, that it stays, and that nothing takes it for one of an epoch."""

import logging
import os

import pytest
import torch

from slowfast.engine import best_checkpoint as best
from slowfast.engine import checkpoint_files as files
from slowfast.engine.average import AverageConfig, find_members
from slowfast.engine.checkpoint import save_checkpoint
from slowfast.engine.progress import Progress
from slowfast.utils.io import sha256_file

NAN = float("nan")


def errors(*values):
    """Top-1 errors of the epochs from 0 on; None: not validated."""
    return {epoch: {"top1_err": value, "top5_err": 0.0} for epoch, value in enumerate(values) if value is not None}


def save(folder, epoch, *, value=0.0, task=""):
    path = files.checkpoint_path(folder, epoch, task=task)
    state = {"model.w": torch.full((8,), value + epoch)}
    save_checkpoint(path, progress=Progress(epoch=epoch + 1), model_state=state, cfg_text="")
    return path


def kept(folder, *, task=""):
    """Epoch, from 0, of the best checkpoint; None without one."""
    path = files.best_path(folder, task=task)
    return torch.load(path, weights_only=True)["epoch"] if path.exists() else None


@pytest.fixture
def run(tmp_path):
    """A run of four epochs."""
    for epoch in range(4):
        save(tmp_path, epoch)
    return tmp_path


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), None),
        ((NAN, NAN), None),
        ((50.0, NAN, 40.0), 2),
        ((40.0, 40.0), 0),
        ((NAN, 40.0, 30.0, 30.0), 2),
        ((None, 0.0), 1),
    ],
)
def test_the_least_error_is_the_best(values, found):
    assert best.best_epoch(errors(*values)) == found
    assert best.best_epoch(dict(reversed(errors(*values).items()))) == found


def test_it_follows_the_best_epoch_and_survives_pruning(run):
    best.keep_best(run, errors())
    assert kept(run) is None
    for values, expected in (((50.0,), 0), ((50.0, 50.0), 0), ((50.0, 50.0, 40.0), 2), ((50.0, 50.0, 40.0, NAN), 2)):
        best.keep_best(run, errors(*values))
        assert kept(run) == expected
    source, target = files.checkpoint_path(run, 2), files.best_path(run)
    assert source.samefile(target)  # no room on the disk
    files.prune_checkpoints(run, keep=1)
    assert not source.exists()
    best.keep_best(run, errors(50.0, 50.0, 40.0, 45.0))
    assert kept(run) == 2
    entry = files.Manifest.read(target.parent).files[target.name]
    assert entry == {"bytes": target.stat().st_size, "sha256": sha256_file(target)}
    assert sorted(path.name for path in target.parent.iterdir()) == [
        "checkpoint_best.pyth", "checkpoint_epoch_00004.pyth", "manifest.json",
    ]  # fmt: skip


def test_nothing_is_written_twice(run, monkeypatch):
    best.keep_best(run, errors(50.0))
    monkeypatch.setattr(best, "atomic_link", None)
    best.keep_best(run, errors(50.0, 60.0))
    assert kept(run) == 0


def test_without_links_it_is_a_copy(run, monkeypatch):
    def refuse(source, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    best.keep_best(run, errors(50.0))
    target = files.best_path(run)
    assert not target.samefile(files.checkpoint_path(run, 0))
    written = target.stat().st_mtime_ns
    best.keep_best(run, errors(50.0, 60.0))
    assert target.stat().st_mtime_ns == written
    best.keep_best(run, errors(50.0, 40.0))
    assert kept(run) == 1


def test_an_epoch_that_was_trained_again_is_linked_again(run):
    best.keep_best(run, errors(50.0))
    save(run, 0, value=9.0)
    best.keep_best(run, errors(50.0))
    assert torch.load(files.best_path(run), weights_only=True)["model_state"]["model.w"][0] == 9


def test_a_best_epoch_without_a_file_is_said(run, caplog):
    files.checkpoint_path(run, 1).unlink()
    with caplog.at_level(logging.WARNING):
        best.keep_best(run, errors(50.0, 40.0))
    assert [record.getMessage() for record in caplog.records] == [
        "TRAIN.KEEP_BEST: epoch 2 has the least validation error, but checkpoint_epoch_00002.pyth is gone: there is "
        "no checkpoint_best.pyth until a later epoch is better"
    ]
    assert kept(run) is None
    best.keep_best(run, errors(50.0, 40.0, 30.0))
    assert kept(run) == 2


def test_a_file_of_an_epoch_that_is_not_the_best_goes(run):
    best.keep_best(run, errors(50.0, 40.0, 30.0))
    files.checkpoint_path(run, 1).unlink()
    best.keep_best(run, errors(50.0, 40.0))  # the run went back
    assert kept(run) is None
    assert files.best_path(run).name not in files.Manifest.read(files.checkpoint_folder(run)).files


def test_other_processes_leave_it_alone(run, monkeypatch):
    monkeypatch.setattr(best, "is_master", lambda: False)
    best.keep_best(run, errors(50.0))
    assert kept(run) is None


def test_it_is_taken_for_no_epoch(tmp_path):
    for task in ("", "ssl"):
        save(tmp_path, 0, task=task)
        best.keep_best(tmp_path, errors(50.0), task=task)
        assert kept(tmp_path, task=task) == 0
        found = files.checkpoint_path(tmp_path, 0, task=task)
        assert files.list_checkpoints(tmp_path, task=task) == [(1, found)]
        assert files.list_within(tmp_path, task=task) == []
        assert files.last_checkpoint(tmp_path, task=task) == found
        assert files.find_resumable(tmp_path, task=task) == found
    assert files.best_path(tmp_path, task="ssl").name == "ssl_checkpoint_best.pyth"
    files.checkpoint_path(tmp_path, 0, task="ssl").unlink()
    (member,) = find_members(files.checkpoint_folder(tmp_path), AverageConfig(start=1, end=9))
    assert member.name == "checkpoint_epoch_00001.pyth"
    files.checkpoint_path(tmp_path, 0).unlink()
    assert files.find_resumable(tmp_path) is None
    assert files.set_checkpoints_aside(tmp_path).name == "checkpoints_before"


def test_what_is_tested(run):
    assert best.find_tested(run) == files.checkpoint_path(run, 3)
    with pytest.raises(ValueError, match=r"^TRAIN\.KEEP_BEST: .*checkpoint_best\.pyth: no such file, though"):
        best.find_tested(run, best=True)
    best.keep_best(run, errors(50.0))
    assert best.find_tested(run, best=True) == files.best_path(run)
    assert best.find_tested(run) == files.checkpoint_path(run, 3)
    assert best.find_tested(run / "elsewhere", best=True) is None
