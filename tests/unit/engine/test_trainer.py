import contextlib
import dataclasses
import itertools
import json
import logging
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch

from slowfast.datasets.mixup import MixUp, MixUpSettings
from slowfast.engine import epoch_report as report_module
from slowfast.engine.checkpoint import read_checkpoint, save_checkpoint
from slowfast.engine.checkpoint_files import (
    Manifest,
    best_path,
    checkpoint_path,
    find_resumable,
    list_checkpoints,
    list_within,
    within_path,
)
from slowfast.engine.interrupts import Interrupted, Interrupts
from slowfast.engine.lr_policy import LrSchedule, learning_rate
from slowfast.engine.meters import read_validations
from slowfast.engine.precision import Precision
from slowfast.engine.progress import Progress
from slowfast.engine.replay import read_replay
from slowfast.engine.step import PlainStep, StepConfig
from slowfast.engine.trainer import TrainConfig, Trainer
from slowfast.utils.logging import log_json_stats

CPU = torch.device("cpu")
SCHEDULE = LrSchedule(base_lr=0.1, max_epoch=3, policy="cosine")


class Loader:
    """The same batches of 4 videos in every epoch, and the epochs that it was asked for."""

    global_batch = 4

    def __init__(self, batches):
        self.batches, self.epochs = batches, []

    @property
    def num_samples(self):
        return 4 * len(self.batches) + 3

    num_videos = num_samples

    def __len__(self):
        return len(self.batches)

    def epoch(self, epoch, *, first=0):
        self.epochs.append((epoch, first) if first else epoch)
        return iter(self.batches[first // 4 :])

    def again(self, epoch, *, first):
        return self.batches[first // 4]


@pytest.fixture
def interrupts():
    with Interrupts() as interrupts:
        yield interrupts


@pytest.fixture
def make_trainer(make_method, tmp_path, interrupts):
    def make(loader, **options):
        hooks = {name: options.pop(name, None) for name in ("validate", "on_scalars", "mix")}
        hooks["validated"] = options.pop("validated", ())
        method = make_method()
        optimizer = torch.optim.SGD(method.head.parameters(), lr=1.0)
        scaler = Precision("cpu").make_scaler()
        numbers = {
            "max_epoch": 3, "log_period": 2, "eval_period": 2, "checkpoint_period": 2, "keep_last_checkpoints": 0,
            "output_dir": tmp_path, "task": "", "seed": 1, "max_bad_fraction": 0.15,
            "loss_explosion_factor": 0.0, "config_text": "NUM_GPUS: 0\n",
        }  # fmt: skip
        return Trainer(
            method,
            step=PlainStep(method, optimizer=optimizer, scaler=scaler, precision=Precision("cpu"), config=StepConfig()),
            optimizer=optimizer,
            scaler=scaler,
            schedule=SCHEDULE,
            device=CPU,
            config=TrainConfig(**{**numbers, **options}),
            interrupts=interrupts,
            **hooks,
        )

    return make


@pytest.fixture
def loader(make_clips):
    return Loader([make_clips(4, first=4 * n) for n in range(3)])


def epochs_on_disk(folder):
    return [number for number, _ in list_checkpoints(folder)]


def test_epochs_checkpoints_and_validation(make_trainer, loader, tmp_path):
    validated = []
    trainer = make_trainer(loader, validate=validated.append)
    trainer.fit(loader)
    assert loader.epochs == [0, 1, 2]
    assert validated == [1, 2]
    assert epochs_on_disk(tmp_path) == [2, 3]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir() if path.suffix != ".pyth"} == {"manifest.json"}


def test_batches_are_mixed_with_the_random_numbers_of_their_step(make_trainer, loader):
    draws, mixer = [], MixUp(settings=MixUpSettings(), num_classes=7)

    def mix(batch):
        draws.append(np.random.get_state()[1][:3].tolist())
        return mixer(batch)

    trainer = make_trainer(loader, mix=mix, max_epoch=2)
    seen = []
    trainer.method.register_forward_pre_hook(lambda method, args: seen.append(args[0]))
    trainer.fit(loader)
    assert all(batch.frames.dtype == torch.float32 and batch.weights.shape == (4, 7) for batch in seen)
    assert all(batch.weights is None for batch in loader.batches)
    assert len({tuple(draw) for draw in draws}) == len(draws) == 6
    first = list(draws)
    draws.clear()
    make_trainer(loader, mix=mix, max_epoch=2).fit(loader, start=Progress(epoch=1))
    assert draws == first[3:]  # a resumed run draws the same


def test_checkpoint_content(make_trainer, loader, tmp_path):
    trainer = make_trainer(loader, task="k400")
    trainer.fit(loader)
    ((_, path), (_, last)) = list_checkpoints(tmp_path, task="k400")
    content = torch.load(last, weights_only=True)
    assert (content["epoch"], content["cfg"]) == (2, "NUM_GPUS: 0\n")
    assert set(content["model_state"]) == {"head.weight", "head.bias"}  # without the teacher
    assert torch.equal(content["model_state"]["head.weight"], trainer.method.head.weight)
    assert "scaler_state" not in content
    assert path.name == "k400_checkpoint_epoch_00002.pyth"


def test_old_checkpoints_are_deleted(make_trainer, loader, tmp_path):
    make_trainer(loader, checkpoint_period=1, keep_last_checkpoints=2).fit(loader)
    assert epochs_on_disk(tmp_path) == [2, 3]


def test_beyond_the_last_epoch_only_validation_runs(make_trainer, loader, tmp_path):
    validated = []
    trainer = make_trainer(loader, validate=validated.append)
    trainer.fit(loader, start=Progress(epoch=3))
    # There is a checkpoint of the end in any case, here of weights that came from elsewhere.
    assert (validated, loader.epochs, epochs_on_disk(tmp_path)) == ([2], [], [3])


def test_rate_follows_the_schedule_within_an_epoch(make_trainer, loader):
    trainer, rates = make_trainer(loader), []
    step = trainer.step
    trainer.step = lambda batch: rates.append(trainer.optimizer.param_groups[0]["lr"]) or step(batch)
    trainer.fit(loader)
    assert rates == [learning_rate(epoch + i / 3, SCHEDULE) for epoch in range(3) for i in range(3)]


def test_groups_get_the_rate_of_their_factor(make_trainer, loader):
    trainer, rates = make_trainer(loader), []
    trainer.schedule = dataclasses.replace(SCHEDULE, policy="cosine_shared_end", warmup_epochs=0.0, cosine_end_lr=1e-4)
    trainer.optimizer.param_groups[0]["lr_factor"] = 10.0
    step = trainer.step
    trainer.step = lambda batch: rates.append(trainer.optimizer.param_groups[0]["lr"]) or step(batch)
    trainer.fit(loader)
    assert rates == [learning_rate(e + i / 3, trainer.schedule, 10.0) for e in range(3) for i in range(3)]


def test_random_numbers_of_a_step_follow_from_its_place(make_trainer, loader):
    straight, resumed, other = (make_trainer(loader, seed=seed) for seed in (1, 1, 2))
    straight.fit(loader)
    torch.manual_seed(99)
    resumed.fit(loader, start=Progress(epoch=2))
    other.fit(loader)
    draws = straight.method.draws
    assert len(set(draws)) == 9
    assert resumed.method.draws == draws[6:]
    assert not set(other.method.draws) & set(draws)


def test_training_mode_is_set_again_after_validation(make_trainer, loader):
    trainer = make_trainer(loader, eval_period=1, validate=lambda epoch: trainer.method.eval())
    trainer.fit(loader)
    assert len(trainer.method.draws) == 9  # drawn in training only


def test_lines(make_trainer, loader, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        make_trainer(loader, max_epoch=1).fit(loader)
    lines = [r.getMessage().removeprefix("json_stats: ") for r in caplog.records if "json_stats" in r.getMessage()]
    lines = [json.loads(line) for line in lines]
    assert [(line["_type"], line.get("iter")) for line in lines] == [("train_iter_", "2/3"), ("train_epoch", None)]
    assert {"loss_classification", "loss_size", "spread", "grad_norm", "lr", "top1_err", "top5_err"} <= set(lines[0])
    text = (tmp_path / "json_stats.log").read_text(encoding="utf-8")
    assert [json.loads(line.removeprefix("json_stats: ")) for line in text.splitlines()] == lines[1:]


@pytest.mark.parametrize(("log_period", "exchanges"), [(1, 3), (2, 2), (10, 1)])
def test_ranks_exchange_and_read_figures_once_per_report(make_trainer, loader, monkeypatch, log_period, exchanges):
    tables = []
    monkeypatch.setattr(report_module, "all_gather_table", lambda table: tables.append(table) or table[None])
    make_trainer(loader, log_period=log_period, max_epoch=1).fit(loader)
    assert len(tables) == exchanges
    assert sum(len(table) for table in tables) == 3  # a row for each step


def test_scalars_are_handed_on(make_trainer, loader):
    seen = []
    make_trainer(loader, max_epoch=2, on_scalars=lambda step, values: seen.append((step, values))).fit(loader)
    assert [step for step, _ in seen] == [1, 2, 4, 5]
    assert all(re.match("train/", name) for _, values in seen for name in values)
    assert {"train/loss", "train/lr"} <= set(seen[0][1])


# ------------------------------------------------------------------------------------------------------------ episodes


class EpisodeLoader(Loader):
    """Batches of 4 episodes, drawn from 20 videos; an epoch has one more episode than fills its steps."""

    num_videos = 20

    @property
    def num_samples(self):
        return 4 * len(self.batches) + 1


@pytest.fixture
def episode_loader(make_episodes):
    return EpisodeLoader([make_episodes(4, first=36 * n) for n in range(3)])


def test_episodes_are_what_an_epoch_counts(make_trainer, episode_loader, caplog):
    """The last step of the epoch is reported though the period is longer: the loop knows it by the episodes."""
    trainer, seen = make_trainer(episode_loader, max_epoch=2, log_period=10), []
    trainer.on_scalars = lambda step, values: seen.append(step)
    trainer.method.register_forward_pre_hook(lambda method, args: batches.append(args[0]))
    batches = []
    with caplog.at_level(logging.INFO):
        trainer.fit(episode_loader)
    assert seen == [2, 5]
    assert [type(batch).__name__ for batch in batches] == ["EpisodeBatch"] * 6
    (first, _) = [line for line in lines_of(caplog) if line["_type"] == "train_epoch"]
    assert {"loss_few_shot", "loss_size", "spread", "top1_err"} <= set(first)


@pytest.mark.parametrize("steps", [1, 2])
def test_an_epoch_of_episodes_goes_on_at_the_step(make_trainer, episode_loader, tmp_path, steps):
    options = {"max_epoch": 1, "keep_last_within_epoch": 99, "log_period": 10}
    straight, cut = (
        make_trainer(episode_loader, **options),
        make_trainer(episode_loader, checkpoint_steps=steps, **options),
    )
    straight.fit(episode_loader)
    kept = keep_within(cut, tmp_path)
    cut.fit(episode_loader)
    assert [place for place, _ in kept] == [(0, 4 * n) for n in range(steps, 3, steps)]
    for _, content in kept:
        resumed = make_trainer(episode_loader, **options)
        resumed.method.load_state_dict(content.model_state, strict=False)
        resumed.optimizer.load_state_dict(content.optimizer_state)
        resumed.fit(episode_loader, start=content.progress)
        assert_equal_training(straight, resumed)


@pytest.mark.parametrize(("share", "stops"), [(0.15, False), (0.09, True)])
def test_bad_videos_are_a_share_of_the_videos_not_of_the_episodes(make_trainer, make_episodes, caplog, share, stops):
    """Two of 20 videos, though there are 13 episodes."""
    bad = ("v1: broken", "v2: broken")
    loader = EpisodeLoader([make_episodes(4, bad=bad), *(make_episodes(4) for _ in range(2))])
    trainer = make_trainer(loader, max_bad_fraction=share)
    if stops:
        with pytest.raises(ValueError, match=r"^DATA\.MAX_BAD_FRACTION: 2 of 20 training videos cannot be decoded"):
            trainer.fit(loader)
        return
    trainer.fit(loader)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["replaced in training: v1: broken", "replaced in training: v2: broken"]


def test_a_nonfinite_step_names_all_videos_of_its_episodes_and_saves_them(make_trainer, episode_loader, tmp_path):
    trainer = make_trainer(episode_loader, log_period=1)
    forward = trainer.method.episode_forward
    calls = itertools.count(1)
    trainer.method.episode_forward = lambda batch: spoil(forward(batch)) if next(calls) == 2 else forward(batch)
    with pytest.raises(FloatingPointError) as caught:
        trainer.fit(episode_loader)
    batch = episode_loader.batches[1]
    videos = ", ".join(map(str, [*batch.support.video_id.tolist(), *batch.query.video_id.tolist()]))
    assert f"the loss is nan (videos {videos} of the training list, from 0)" in str(caught.value)
    replay = read_replay(tmp_path / "nonfinite" / "epoch_00001_iteration_0000002.pt")
    assert torch.equal(replay.batch.support.frames, batch.support.frames)
    assert torch.equal(replay.batch.query.frames, batch.query.frames)


def test_episodes_are_not_mixed(make_trainer, episode_loader):
    with pytest.raises(AssertionError, match="episodes are not mixed"):
        make_trainer(episode_loader, mix=lambda batch: batch).fit(episode_loader)


# ----------------------------------------------------------------------------------------- steps that are not finite


def poisoned(trainer, *steps):
    """Let the loss of some steps, counted from 1, be nan; returns the weights after each step."""
    plain, calls, weights = trainer.step, [], []
    forward = trainer.method.training_forward

    def step(batch):
        calls.append(1)
        poison = len(calls) in steps
        trainer.method.training_forward = (lambda b: spoil(forward(b))) if poison else forward
        result = plain(batch)
        weights.append(trainer.method.head.weight.detach().clone())
        return result

    trainer.step = step
    return weights


def spoil(output):
    return output._replace(losses={name: value * float("nan") for name, value in output.losses.items()})


@pytest.mark.parametrize("log_period", [1, 2, 10])
def test_nonfinite_step_is_left_out_and_reported(make_trainer, loader, caplog, log_period):
    trainer = make_trainer(loader, log_period=log_period, nonfinite_budget=2)
    weights = poisoned(trainer, 5, 7)
    with caplog.at_level(logging.INFO):
        trainer.fit(loader)
    changed = [not torch.equal(before, after) for before, after in itertools.pairwise(weights)]
    assert changed == [True, True, True, False, True, False, True, True]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        "epoch 2, iteration 2, rank 0: the loss is nan (videos 4, 5, 6, 7 of the training list, from 0): the step is "
        "left out, number 1 of 2 that may be",
        "epoch 3, iteration 1, rank 0: the loss is nan (videos 0, 1, 2, 3 of the training list, from 0): the step is "
        "left out, number 2 of 2 that may be",
    ]
    stats = [json.loads(r.getMessage().partition("json_stats: ")[2]) for r in caplog.records if "_epoch" in r.msg]
    assert all(line["loss"] is not None and np.isfinite(line["loss"]) for line in stats)


@pytest.mark.parametrize("log_period", [1, 2, 10])
def test_beyond_the_budget_the_run_stops_with_a_batch_to_repeat(make_trainer, loader, tmp_path, log_period):
    trainer = make_trainer(loader, log_period=log_period, nonfinite_budget=1, checkpoint_period=1)
    poisoned(trainer, 2, 5, 6)
    path = tmp_path / "nonfinite" / "epoch_00002_iteration_0000002.pt"
    with pytest.raises(FloatingPointError) as caught:
        trainer.fit(loader)
    assert str(caught.value) == (
        "epoch 2, iteration 2, rank 0: the loss is nan (videos 4, 5, 6, 7 of the training list, from 0); "
        "TRAIN.NONFINITE_BUDGET allows 1 such steps. The batch is saved: "
        f"python tools/replay_batch.py {path}"
    )
    assert epochs_on_disk(tmp_path) == [1]
    replay = read_replay(path)
    assert torch.equal(replay.batch.frames, loader.batches[1].frames)
    assert (replay.epoch, replay.iteration, replay.seed, replay.rank, replay.world_size) == (1, 1, 1, 0, 1)
    assert set(replay.model_state) == {"head.weight", "head.bias"}
    assert all(value.isfinite().all() for value in replay.model_state.values())


def test_a_run_that_continues_has_the_rest_of_the_budget(make_trainer, loader):
    trainer = make_trainer(loader, nonfinite_budget=1)
    poisoned(trainer, 1)
    with pytest.raises(FloatingPointError, match="iteration 1"):
        trainer.fit(loader, start=Progress(epoch=1, nonfinite=1))


# ------------------------------------------------------------------------------------------- within epochs, interrupts


def assert_equal_training(a, b):
    assert torch.equal(a.method.head.weight, b.method.head.weight)
    assert a.optimizer.state_dict()["param_groups"] == b.optimizer.state_dict()["param_groups"]


def lines_of(caplog):
    clock = {"dt", "dt_data", "dt_net", "eta", "RAM", "gpu_mem"}
    lines = [r.getMessage().partition("json_stats: ")[2] for r in caplog.records]
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines if line]


@pytest.mark.parametrize("log_period", [1, 2, 3, 10])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_epoch_goes_on_at_the_step(make_trainer, make_clips, tmp_path, caplog, log_period, steps):
    loader = Loader([make_clips(4, first=4 * n) for n in range(8)])
    options = {"log_period": log_period, "max_epoch": 2, "keep_last_within_epoch": 99}
    with caplog.at_level(logging.INFO):
        straight = make_trainer(loader, **options)
        straight.fit(loader)
        lines = lines_of(caplog)
        cut = make_trainer(loader, checkpoint_steps=steps, **options)
        kept = keep_within(cut, tmp_path)
        cut.fit(loader)
    assert_equal_training(straight, cut)
    assert lines_of(caplog) == lines * 2  # to save changes nothing
    assert [place for place, _ in kept] == [(n // 8, 4 * (n % 8)) for n in range(steps, 16, steps) if n % 8]
    for (epoch, videos), content in kept:
        caplog.clear()
        resumed = make_trainer(loader, **options)
        resumed.method.load_state_dict(content.model_state, strict=False)
        resumed.optimizer.load_state_dict(content.optimizer_state)
        with caplog.at_level(logging.INFO):
            resumed.fit(loader, start=content.progress)
        assert_equal_training(straight, resumed)
        # `loss_explosion_factor` is off; what was logged before the place is not logged again
        assert lines_of(caplog) == lines[-len(lines_of(caplog)) :]
        done = epoch * 8 + videos // 4
        assert len([line for line in lines_of(caplog) if line["_type"] == "train_iter_"]) == sum(
            (n % 8 + 1) % log_period == 0 for n in range(done, 16)
        )


def keep_within(trainer, folder):
    """Collect the checkpoints within epochs before training removes them."""
    kept, save = [], trainer._save

    def keeping(path, progress):
        save(path, progress)
        if "within" in path.name:
            place = next(place for place, found in list_within(folder) if found == path)
            kept.append((place, read_checkpoint(path)))

    trainer._save = keeping
    return kept


def test_checkpoints_within_epochs_are_few_and_go_at_the_end(make_trainer, loader, tmp_path):
    trainer, seen = make_trainer(loader, checkpoint_steps=1, keep_last_within_epoch=2), []
    step = trainer.step
    trainer.step = lambda batch: seen.append([place for place, _ in list_within(tmp_path)]) or step(batch)
    trainer.fit(loader)
    assert seen[:3] == [[], [(0, 4)], [(0, 4), (0, 8)]]
    assert seen[5] == [(1, 4), (1, 8)]
    assert list_within(tmp_path) == []


def test_minutes_are_those_since_the_last_checkpoint(make_trainer, loader, tmp_path, monkeypatch):
    trainer, clock, saved = make_trainer(loader, checkpoint_minutes=1.0, checkpoint_period=9), [0.0], []
    monkeypatch.setattr("slowfast.engine.trainer.time.monotonic", lambda: clock[0])
    trainer.saved_at = 0.0
    step, save = trainer.step, trainer._save
    trainer._save = lambda path, progress: saved.append((progress.epoch, progress.videos)) or save(path, progress)

    def passing(batch):
        clock[0] += 31.0
        return step(batch)

    trainer.step = passing
    trainer.fit(loader)
    assert saved == [(0, 8), (1, 4), (2, 0), (2, 8), (3, 0)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 5])
def test_a_signal_lets_the_step_be_finished_and_saved(make_trainer, loader, tmp_path, signum, at):
    straight = make_trainer(loader)
    straight.fit(loader)
    trainer, calls = make_trainer(loader, checkpoint_period=9), []
    step = trainer.step

    def signalled(batch):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signum)
        return step(batch)

    trainer.step = signalled
    with pytest.raises(Interrupted) as caught:
        trainer.fit(loader)
    assert caught.value.status == (130 if signum == signal.SIGINT else 143)
    assert (
        str(caught.value)
        == f"ended by {signal.Signals(signum).name}, after iteration {(at - 1) % 3 + 1} of epoch {(at - 1) // 3 + 1}"
    )
    assert len(calls) == at
    ((place, path),) = list_within(tmp_path)
    assert place == (at // 3, 4 * (at % 3))
    content = read_checkpoint(path)
    resumed = make_trainer(loader)
    resumed.interrupts.pending = None
    resumed.method.load_state_dict(content.model_state, strict=False)
    resumed.optimizer.load_state_dict(content.optimizer_state)
    resumed.fit(loader, start=content.progress)
    assert_equal_training(straight, resumed)


def test_a_signal_in_the_last_step_of_an_epoch(make_trainer, loader, tmp_path):
    validated = []
    trainer = make_trainer(loader, checkpoint_period=2, eval_period=1, validate=validated.append)
    step, calls = trainer.step, []

    def signalled(batch):
        calls.append(1)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch)

    trainer.step = signalled
    with pytest.raises(Interrupted, match="after epoch 2"):
        trainer.fit(loader)
    assert epochs_on_disk(tmp_path) == [2]
    assert validated == [0]


@pytest.mark.parametrize(("validated", "runs"), [((), [1, 2]), ((1,), [2])])
def test_a_validation_that_was_interrupted_is_made_up_for(make_trainer, loader, validated, runs):
    done = []
    trainer = make_trainer(loader, validate=done.append, validated=validated)
    trainer.fit(loader, start=Progress(epoch=2))
    assert done == runs


def test_nothing_unsaved_waits_for_a_validation(make_trainer, loader, tmp_path):
    places = []
    trainer = make_trainer(
        loader, checkpoint_period=9, eval_period=1, validate=lambda epoch: places.append(list_within(tmp_path)[-1][0])
    )
    trainer.config = dataclasses.replace(trainer.config, max_epoch=3)
    with contextlib.suppress(IndexError):  # the last epoch has a checkpoint of its own
        trainer.fit(loader)
    assert places[:2] == [(1, 0), (2, 0)]


# ------------------------------------------------------------------------------------------------- the best checkpoint

ERRORS = (50.0, 40.0, 45.0, 40.0, 60.0)
BEST = {"max_epoch": 5, "eval_period": 1, "checkpoint_period": 1, "keep_last_checkpoints": 1, "keep_best": True}


@pytest.fixture
def scored(make_trainer, loader, tmp_path):
    """Trains for five epochs whose errors are known: scored(before=None, after=None, **options).

    Args:
        before: epoch, from 0, before whose validation the run is ended.
        after: epoch after whose line in the log it is.
    """

    def run(*, before=None, after=None, **options):
        def validate(epoch):
            if epoch == before:
                raise KeyboardInterrupt
            error = {"top1_err": ERRORS[epoch], "top5_err": 0.0}
            log_json_stats({"_type": "val_epoch", "epoch": f"{epoch + 1}/5", **error}, tmp_path)
            if epoch == after:
                raise KeyboardInterrupt

        source = find_resumable(tmp_path)
        content = None if source is None else read_checkpoint(source)
        start = Progress() if content is None else content.progress
        validated = [e for e in read_validations(tmp_path / "json_stats.log") if e < start.epoch]
        trainer = make_trainer(loader, validate=validate, validated=validated, **BEST | options)
        if content is not None:
            trainer.method.load_state_dict(content.model_state, strict=False)
            trainer.optimizer.load_state_dict(content.optimizer_state)
        trainer.fit(loader, start=start)

    return run


def best_of(folder):
    content = torch.load(best_path(folder), weights_only=True)
    return content["epoch"], content["model_state"]["head.weight"].tolist()


def test_the_best_checkpoint_stays(scored, tmp_path):
    scored()
    assert best_of(tmp_path)[0] == 1
    assert epochs_on_disk(tmp_path) == [5]


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("epoch", range(5))
def test_wherever_it_is_interrupted_the_best_is_the_same(scored, tmp_path, place, epoch):
    scored()
    straight = best_of(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "json_stats.log").unlink()
    with pytest.raises(KeyboardInterrupt):
        scored(**{place: epoch})
    scored()
    assert best_of(tmp_path) == straight


@pytest.mark.parametrize("epoch", range(5))
def test_a_lost_newest_checkpoint_loses_no_best(scored, tmp_path, epoch):
    scored(keep_last_checkpoints=0)
    straight = best_of(tmp_path)
    for number, path in list_checkpoints(tmp_path):
        if number > epoch + 1:
            path.unlink()
    scored()
    assert best_of(tmp_path) == straight


def test_a_run_that_begins_elsewhere_has_a_file_of_its_beginning(scored, tmp_path):
    scored(max_epoch=2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "checkpoints" / "checkpoint_epoch_00002.pyth", elsewhere)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "json_stats.log").unlink()
    content = read_checkpoint(elsewhere / "checkpoint_epoch_00002.pyth")
    path = checkpoint_path(tmp_path, 1)
    save_checkpoint(path, progress=content.progress, model_state=content.model_state, cfg_text="",
                    optimizer_state=content.optimizer_state)  # fmt: skip
    within = within_path(tmp_path, 2, videos=0)  # as one under another period leaves it
    path.rename(within)
    Manifest.read(path.parent).forget([path.name])
    scored()
    assert best_of(tmp_path)[0] == 1


def test_no_best_is_kept_unless_it_is_asked_for(scored, tmp_path):
    scored(keep_best=False)
    assert not best_path(tmp_path).exists()


def test_validation_draws_what_follows_from_its_epoch(make_trainer, loader):
    draws = []
    options = {"validate": lambda epoch: draws.append(torch.rand(()).item()), "eval_period": 1}
    make_trainer(loader, **options).fit(loader)
    torch.manual_seed(5)
    make_trainer(loader, **options).fit(loader, start=Progress(epoch=2))
    assert draws[3:] == draws[1:3]


def test_bad_videos_are_named_once(make_trainer, make_clips, caplog):
    batches = [make_clips(4, bad=("b.mp4: broken", "a.mp4: broken")), make_clips(4), make_clips(4)]
    loader = Loader(batches)
    with caplog.at_level(logging.WARNING):
        make_trainer(loader).fit(loader)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["replaced in training: a.mp4: broken", "replaced in training: b.mp4: broken"]


def test_too_many_bad_videos_stop_the_run(make_trainer, make_clips, tmp_path):
    loader = Loader([make_clips(4, bad=(f"{name}.mp4: broken",)) for name in "cab"])
    with pytest.raises(ValueError, match="MAX_BAD_FRACTION") as caught:
        make_trainer(loader, log_period=10).fit(loader)
    assert str(caught.value) == (
        "DATA.MAX_BAD_FRACTION: 3 of 15 training videos cannot be decoded, allowed is a share of 0.15; the first: "
        "a.mp4: broken"
    )
    assert epochs_on_disk(tmp_path) == []


def test_a_video_counts_once_whatever_the_reason(make_trainer, make_clips, caplog):
    reasons = [f"the file is truncated: frame {frame} is wanted, 3 can be decoded" for frame in range(4, 13)]
    loader = Loader([make_clips(4, bad=(f"a.mp4: {reason}",)) for reason in reasons])
    with caplog.at_level(logging.WARNING):
        make_trainer(loader).fit(loader)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [f"replaced in training: a.mp4: {reasons[0]}"]


def test_batch_without_a_video_stops_the_run(make_trainer, make_clips):
    loader = Loader([make_clips(0, bad=("a.mp4: broken",))])
    with pytest.raises(ValueError, match=r"^not one video of a batch can be decoded; the first: a\.mp4: broken$"):
        make_trainer(loader).fit(loader)
