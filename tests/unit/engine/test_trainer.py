import json
import logging
import re

import numpy as np
import pytest
import torch

from slowfast.datasets.mixup import MixUp, MixUpSettings
from slowfast.engine import trainer as trainer_module
from slowfast.engine.checkpoint import list_checkpoints
from slowfast.engine.lr_policy import LrSchedule, learning_rate
from slowfast.engine.precision import Precision
from slowfast.engine.step import PlainStep, StepConfig
from slowfast.engine.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")
SCHEDULE = LrSchedule(base_lr=0.1, max_epoch=3, policy="cosine")


class Loader:
    """The same batches in every epoch, and the epochs that it was told of."""

    def __init__(self, batches):
        self.batches, self.epochs = batches, []

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


@pytest.fixture
def make_trainer(make_method, tmp_path):
    def make(loader, **options):
        hooks = {name: options.pop(name, None) for name in ("validate", "on_scalars", "mix")}
        method = make_method()
        optimizer = torch.optim.SGD(method.head.parameters(), lr=1.0)
        scaler = Precision("cpu").make_scaler()
        numbers = {
            "max_epoch": 3, "log_period": 2, "eval_period": 2, "checkpoint_period": 2, "keep_last_checkpoints": 0,
            "output_dir": tmp_path, "task": "", "seed": 1, "num_videos": 20, "max_bad_fraction": 0.1,
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
            set_epoch=loader.epochs.append,
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
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.suffix != ".pyth"]


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
    make_trainer(loader, mix=mix, max_epoch=2).fit(loader, start_epoch=1)
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
    trainer.fit(loader, start_epoch=3)
    assert (validated, loader.epochs, epochs_on_disk(tmp_path)) == ([2], [], [])


def test_rate_follows_the_schedule_within_an_epoch(make_trainer, loader):
    trainer, rates = make_trainer(loader), []
    step = trainer.step
    trainer.step = lambda batch: rates.append(trainer.optimizer.param_groups[0]["lr"]) or step(batch)
    trainer.fit(loader)
    assert rates == [learning_rate(epoch + i / 3, SCHEDULE) for epoch in range(3) for i in range(3)]


def test_random_numbers_of_a_step_follow_from_its_place(make_trainer, loader):
    straight, resumed, other = (make_trainer(loader, seed=seed) for seed in (1, 1, 2))
    straight.fit(loader)
    torch.manual_seed(99)
    resumed.fit(loader, start_epoch=2)
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
    monkeypatch.setattr(trainer_module, "all_reduce_sum", lambda table: tables.append(table) or table)
    make_trainer(loader, log_period=log_period, max_epoch=1).fit(loader)
    assert len(tables) == exchanges
    assert sum(len(table) for table in tables) == 3  # a row for each step


def test_scalars_are_handed_on(make_trainer, loader):
    seen = []
    make_trainer(loader, max_epoch=2, on_scalars=lambda step, values: seen.append((step, values))).fit(loader)
    assert [step for step, _ in seen] == [1, 2, 4, 5]
    assert all(re.match("train/", name) for _, values in seen for name in values)
    assert {"train/loss", "train/lr"} <= set(seen[0][1])


@pytest.mark.parametrize("log_period", [1, 2, 10])
def test_nan_stops_at_its_iteration(make_trainer, loader, tmp_path, log_period):
    trainer = make_trainer(loader, log_period=log_period, checkpoint_period=1)
    step, calls = trainer.step, []

    def poison(batch):
        calls.append(1)
        if len(calls) == 5:
            with torch.no_grad():
                trainer.method.head.weight[0, 0] = float("nan")
        return step(batch)

    trainer.step = poison
    with pytest.raises(FloatingPointError, match=r"^epoch 2, iteration 2: the loss is nan$"):
        trainer.fit(loader)
    assert epochs_on_disk(tmp_path) == [1]  # a spoilt epoch leaves no checkpoint


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
        "DATA.MAX_BAD_FRACTION: 3 of 20 training videos cannot be decoded, allowed is a share of 0.1; the first: "
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
