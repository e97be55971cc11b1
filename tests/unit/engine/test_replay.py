"""Batches of a step in a file; what a run does with them is tested with the loop."""

import pytest
import torch

from slowfast.datasets.types import EpisodeBatch, VideoBatch, collate_episodes
from slowfast.engine.precision import Precision
from slowfast.engine.replay import read_replay, repeat_step, save_replay

CPU = torch.device("cpu")


@pytest.fixture
def save(tmp_path, make_method):
    """Writes a batch as the loop does, and reads it."""

    def make(batch, *, method=None):
        path = tmp_path / "batch.pt"
        state = (method or make_method()).checkpoint_state()
        save_replay(path, batch=batch, epoch=2, iteration=5, seed=11, model_state=state, cfg_text="NUM_GPUS: 0\n")
        return read_replay(path)

    return make


def assert_same_clips(one, other):
    assert isinstance(one, VideoBatch)
    for name in ("frames", "label", "video_id", "view"):
        a, b = getattr(one, name), getattr(other, name)
        assert torch.equal(a, b), name
        assert a.dtype == b.dtype, name


def test_videos_come_back(save, make_clips):
    clips = make_clips(3, views=2, bad=("a",))
    replay = save(clips)
    assert_same_clips(replay.batch, clips)
    assert (replay.epoch, replay.iteration, replay.seed, replay.rank, replay.world_size) == (2, 5, 11, 0, 1)
    assert replay.cfg_text == "NUM_GPUS: 0\n"


@pytest.mark.parametrize("count", [1, 3])
def test_episodes_come_back(save, make_episodes, count):
    batch = make_episodes(count)
    replay = save(batch)
    assert isinstance(replay.batch, EpisodeBatch)
    assert (replay.batch.way, replay.batch.shot, replay.batch.query_per_class) == (3, 2, 1)
    assert_same_clips(replay.batch.support, batch.support)
    assert_same_clips(replay.batch.query, batch.query)
    assert torch.equal(replay.batch.classes, batch.classes)
    assert len(replay.batch) == count


def test_a_step_of_episodes_can_be_repeated(save, make_episodes, make_method):
    batch, method = make_episodes(2), make_method()
    expected = method(batch).losses
    found = repeat_step(method, save(batch), mix=None, precision=Precision("cpu"), device=CPU)
    assert found.losses == {name: pytest.approx(value.item()) for name, value in expected.items()}
    assert (found.modules, found.parameters) == ((), ())


def test_a_fault_in_episodes_is_found(save, make_episodes, make_method):
    method = make_method()
    with torch.no_grad():
        method.head.bias[2] = torch.nan
    found = repeat_step(method, save(make_episodes(1), method=method), mix=None, precision=Precision("cpu"), device=CPU)
    assert found.modules[0] == "head"
    assert set(found.parameters) == {"head.weight", "head.bias"}


def test_episodes_are_not_mixed(save, make_episodes, make_method):
    replay = save(collate_episodes([make_episodes(1)]))
    with pytest.raises(AssertionError, match="episodes are not mixed"):
        repeat_step(make_method(), replay, mix=lambda batch: batch, precision=Precision("cpu"), device=CPU)


@pytest.mark.parametrize("content", [{"format": "slowfast-replay/1"}, {}, [1]])
def test_another_format_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "batch.pt")
    with pytest.raises(ValueError, match=r"batch\.pt: not a batch that a run saved: expected the format slowfast-repl"):
        read_replay(tmp_path / "batch.pt")
