"""Names, order, the manifest, and which checkpoint a run goes on from."""

import json
import logging
import os

import pytest
import torch

from slowfast.engine import checkpoint_files as files
from slowfast.engine.checkpoint import save_checkpoint
from slowfast.engine.progress import Progress
from slowfast.utils.io import sha256_file


def save(path, *, value=0.0):
    save_checkpoint(path, progress=Progress(), model_state={"model.w": torch.full((64,), value)}, cfg_text="")
    return path


def names(paths):
    return [path.name for path in paths]


def test_names(tmp_path):
    assert files.checkpoint_path(tmp_path, 0) == tmp_path / "checkpoints" / "checkpoint_epoch_00001.pyth"
    assert files.checkpoint_path(tmp_path, 21, task="ssl").name == "ssl_checkpoint_epoch_00022.pyth"
    assert files.within_path(tmp_path, 2, videos=128).name == "checkpoint_within_00003_00000128.pyth"
    assert files.within_path(tmp_path, 2, videos=128, task="ssl").name.startswith("ssl_checkpoint_within_")
    assert not files.within_path(tmp_path, 2, videos=1).match("*_epoch_*.pyth")  # what averaging looks for


def test_partial_and_foreign_files_are_none_of_them(tmp_path):
    assert files.last_checkpoint(tmp_path) is None
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    mine = ["checkpoint_epoch_00009.pyth", "checkpoint_epoch_100000.pyth", "checkpoint_epoch_99999.pyth"]
    foreign = ["checkpoint_epoch_200000.pyth.part", "zz_checkpoint.txt", "ssl_checkpoint_epoch_300000.pyth"]
    for name in [*mine, *foreign, "checkpoint_epoch_.pyth", "old_checkpoint_epoch_400000.pyth"]:
        (folder / name).touch()
    (folder / "checkpoint_epoch_500000.pyth").mkdir()
    assert files.last_checkpoint(tmp_path).name == "checkpoint_epoch_100000.pyth"
    assert files.last_checkpoint(tmp_path, task="ssl").name == "ssl_checkpoint_epoch_300000.pyth"


def test_keep_last(tmp_path, monkeypatch):
    for epoch in range(5):
        save(files.checkpoint_path(tmp_path, epoch))
        save(files.within_path(tmp_path, epoch, videos=8))
    assert files.prune_checkpoints(tmp_path, keep=0) == []
    assert len(files.prune_checkpoints(tmp_path, keep=2)) == 3
    assert [number for number, _ in files.list_checkpoints(tmp_path)] == [4, 5]
    assert len(files.prune_within(tmp_path, keep=3)) == 2
    assert [place for place, _ in files.list_within(tmp_path)] == [(2, 8), (3, 8), (4, 8)]
    assert set(files.Manifest.read(tmp_path / "checkpoints").files) == {
        path.name for path in (tmp_path / "checkpoints").glob("*.pyth")
    }
    monkeypatch.setattr(files, "is_master", lambda: False)
    assert files.prune_within(tmp_path, keep=0) == []
    monkeypatch.undo()
    assert len(files.prune_within(tmp_path, keep=0)) == 3
    assert files.prune_within(tmp_path, keep=0) == []


@pytest.mark.parametrize(("period", "due"), [(2, [1, 3, 4]), (0, [4]), (1, [0, 1, 2, 3, 4])])
def test_due(period, due):
    assert [e for e in range(5) if files.is_checkpoint_due(e, period=period, max_epoch=5)] == due


def test_manifest_says_what_was_written(tmp_path):
    path = save(files.checkpoint_path(tmp_path, 0))
    content = json.loads((path.parent / files.MANIFEST).read_text(encoding="utf-8"))
    assert content == {
        "format": 1, "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}}
    }  # fmt: skip
    save(path, value=1.0)
    assert files.Manifest.read(path.parent).find_fault(path) is None


def test_resumable_is_what_came_furthest(tmp_path):
    assert files.find_resumable(tmp_path) is None
    save(files.checkpoint_path(tmp_path, 1))
    save(files.within_path(tmp_path, 1, videos=99))
    assert files.find_resumable(tmp_path).name == "checkpoint_epoch_00002.pyth"
    save(files.within_path(tmp_path, 2, videos=0))
    assert files.find_resumable(tmp_path).name == "checkpoint_epoch_00002.pyth"
    save(files.within_path(tmp_path, 2, videos=4))
    save(files.within_path(tmp_path, 2, videos=16))
    assert files.find_resumable(tmp_path).name == "checkpoint_within_00003_00000016.pyth"
    assert files.find_resumable(tmp_path, task="ssl") is None


def truncate(path):
    os.truncate(path, path.stat().st_size - 100)


def empty(path):
    os.truncate(path, 0)


def flip(path):
    data = bytearray(path.read_bytes())
    place = data.index(torch.full((64,), 2.0).numpy().tobytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("damage", [truncate, empty, flip])
def test_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, caplog, damage, recorded):
    good = save(files.checkpoint_path(tmp_path, 0))
    bad = save(files.within_path(tmp_path, 1, videos=8), value=2.0)
    damage(bad)
    if not recorded:
        (bad.parent / files.MANIFEST).unlink()
    with caplog.at_level(logging.WARNING):
        found = files.find_resumable(tmp_path)
    assert found == good
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"{bad}: it ")
    assert first.endswith(f"; it is now {bad.name}.damaged")
    assert second == f"Going on from the checkpoint before: {good}"
    # It is out of the way: what is written next is the newest, and stays.
    save(files.within_path(tmp_path, 1, videos=4))
    assert files.prune_within(tmp_path, keep=1) == []
    assert files.find_resumable(tmp_path) == files.within_path(tmp_path, 1, videos=4)
    assert sorted(entry.name for entry in bad.parent.glob("*.damaged")) == [f"{bad.name}.damaged"]


def test_nothing_but_damaged_checkpoints_is_no_reason_to_start_anew(tmp_path):
    for epoch in range(2):
        truncate(save(files.checkpoint_path(tmp_path, epoch)))
    with pytest.raises(ValueError, match=r"^TRAIN\.AUTO_RESUME: none of the 2 checkpoints") as caught:
        files.find_resumable(tmp_path)
    assert "the newest: checkpoint_epoch_00002.pyth: it has" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": {"a.pyth": 3}}', '{"files": 3}', "\x00"])
def test_damaged_manifest(tmp_path, content):
    (tmp_path / files.MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"manifest.json: not a manifest of checkpoints .*; remove it to go on without"
    ):
        files.Manifest.read(tmp_path)


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save(files.checkpoint_path(tmp_path, 0))
    old = path.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save(path, value=3.0)
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert files.find_resumable(tmp_path) == path
    assert names(path.parent.iterdir()) in (["manifest.json", path.name], [path.name, "manifest.json"])


def test_a_run_that_starts_anew_sets_checkpoints_aside(tmp_path):
    assert files.set_checkpoints_aside(tmp_path) is None
    for number in range(3):
        save(files.checkpoint_path(tmp_path, number))
        assert files.set_checkpoints_aside(tmp_path).name == (
            "checkpoints_before" + (str(number + 1) if number else "")
        )
        assert files.last_checkpoint(tmp_path) is None
    assert (tmp_path / "checkpoints_before2" / "checkpoint_epoch_00002.pyth").is_file()
