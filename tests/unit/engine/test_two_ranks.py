"""What two processes agree on: votes, figures over unequal batches, steps that are left out, episodes."""

import dataclasses
import itertools
import json
import re
import socket
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from slowfast.engine.epoch_report import EpochReport
from slowfast.engine.launch import LaunchPlan, launch
from slowfast.engine.precision import Precision
from slowfast.engine.running_statistics import average_running_statistics
from slowfast.engine.step import PlainStep, StepConfig, StepResult
from slowfast.engine.train_config import TrainConfig
from slowfast.utils.distributed import Ballot, all_gather_objects, barrier

# --------------------------------------------------------------------------------- functions of the spawned processes


def clips(count, first):
    from slowfast.datasets.types import VideoBatch

    ids = torch.arange(first, first + count)
    frames = torch.randint(256, (count, 3, 2, 4, 4), generator=torch.Generator().manual_seed(first), dtype=torch.uint8)
    return VideoBatch(frames, label=ids % 7, video_id=ids, view=torch.zeros_like(ids))


def vote(context, folder):
    ballot = Ballot(timedelta(minutes=1))
    write(context, folder, [ballot.decide(wishes[context.rank]) for wishes in ((0, 0), (0, 3), (5, 1))])


def unequal(context, folder):
    """Rank 0 has 6 samples, rank 1 has 2: every sample counts once."""
    report = EpochReport(numbers(folder), epoch=0, num_iters=1, on_scalars=None)
    value = float(context.rank)
    result = StepResult(
        loss=torch.tensor(4.0 * value), grad_norm=torch.tensor(7.0), nonfinite=torch.tensor(0.0),
        top1_err=torch.tensor(100.0 * value), top5_err=torch.tensor(50.0 * value),
        terms={"term": torch.tensor(8.0 * value)},
    )  # fmt: skip
    report.add(0, result, batch=clips((6, 2)[context.rank], 10 * context.rank), rate=0.1, first=0)
    found = report.exchange()
    stats = report.meter.epoch_stats(0, lr=0.1, clock=report.epoch_clock.mean())
    names = ("loss", "grad_norm", "top1_err", "top5_err", "term")
    write(context, folder, [{name: stats[name] for name in names}, len(found.nonfinite)])


def one_is_not_finite(context, folder):
    """The loss of rank 1 is nan in one step, by a term without a gradient: rank 0 cannot see it in its own."""
    torch.manual_seed(0)
    method = linear_method()
    model = DistributedDataParallel(method)
    step = PlainStep(
        model,
        optimizer=torch.optim.SGD(method.parameters(), lr=0.1),
        scaler=Precision("cpu").make_scaler(),
        precision=Precision("cpu"),
        config=StepConfig(),
    )
    report = EpochReport(numbers(folder), epoch=0, num_iters=3, on_scalars=None)
    weights = [method.head.weight.detach().clone()]
    for iteration in range(3):
        method.spoilt = iteration == 1 and context.rank == 1
        batch = clips(2, 20 * context.rank + 2 * iteration)
        report.add(iteration, step(batch), batch=batch, rate=0.1, first=4 * iteration)
        weights.append(method.head.weight.detach().clone())
    (fault,) = report.exchange().nonfinite
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(weights)]
    equal = all(torch.equal(weights[-1], torch.tensor(other)) for other in all_gather_objects(weights[-1].tolist()))
    write(context, folder, [moved, equal, fault.iteration, fault.first, fault.rank, fault.what, fault.video_ids])


def statistics(module):
    return {name: tensor.tolist() for name, tensor in module.named_buffers() if "running" in name}


def two_norms():
    from torch import nn

    return nn.ModuleDict({"tuned": nn.BatchNorm2d(3), "frozen": nn.BatchNorm2d(3).eval(), "head": nn.Linear(3, 3)})


def noise(rank, seed):
    return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(10 * seed + rank)) * (rank + 2) + rank


def averaged(context, folder):
    module = two_norms()
    module["tuned"](noise(context.rank, 0))
    module["frozen"].running_mean += context.rank  # would be seen if it were averaged
    found = [statistics(module)]
    for _ in range(2):
        average_running_statistics(module)
        found.append(statistics(module))
    module["tuned"].running_var[0] = float("nan") if context.rank == 1 else 2.5
    module["tuned"].running_var[1] = float("inf")
    average_running_statistics(module)
    found.append([repr(value) for value in module["tuned"].running_var.tolist()])
    write(context, folder, found)


def averaged_often_or_once(context, folder):
    often, once = two_norms()["tuned"], two_norms()["tuned"]
    for seed in range(5):
        for norm in (often, once):
            norm(noise(context.rank, seed))
        average_running_statistics(often)
    average_running_statistics(once)
    assert statistics(often) != statistics(two_norms()["tuned"])
    write(context, folder, [statistics(often), statistics(once)])


def training_with_norms(context, folder):
    """What the ranks validate with and what the checkpoints hold, two of them within the epoch."""
    from slowfast.engine.checkpoint import read_checkpoint
    from slowfast.engine.checkpoint_files import checkpoint_path
    from slowfast.engine.interrupts import Interrupts
    from slowfast.engine.lr_policy import LrSchedule
    from slowfast.engine.progress import Progress
    from slowfast.engine.trainer import Trainer

    torch.manual_seed(0)
    method = norm_method()
    optimizer, scaler = torch.optim.SGD(method.parameters(), lr=0.1), Precision("cpu").make_scaler()
    step = PlainStep(
        DistributedDataParallel(method, broadcast_buffers=False), optimizer=optimizer, scaler=scaler,
        precision=Precision("cpu"), config=StepConfig(),
    )  # fmt: skip
    validated = []
    with Interrupts() as interrupts:
        trainer = Trainer(
            method, step=step, optimizer=optimizer, scaler=scaler, schedule=LrSchedule(base_lr=0.1, max_epoch=2),
            device=context.device, config=dataclasses.replace(numbers(folder), max_epoch=2, checkpoint_steps=1),
            interrupts=interrupts, validate=lambda epoch: validated.append(statistics(method)),
        )  # fmt: skip
        trainer.fit(Clips(context.rank))
        # A finished run whose checkpoint is gone: rank 0 alone knows, and all have to average.
        if context.rank == 0:
            checkpoint_path(folder, 1).unlink()
        barrier()
        trainer.fit(Clips(context.rank), start=Progress(epoch=2))
    barrier()
    saved = read_checkpoint(checkpoint_path(folder, 1)).model_state
    write(context, folder, [validated, {name: saved[name].tolist() for name in validated[0]}])


class Clips:
    """Three steps of two clips for each of two processes."""

    num_samples, num_videos, global_batch = 12, 12, 4

    def __init__(self, rank):
        self.rank = rank

    def __len__(self):
        return 3

    def epoch(self, epoch, *, first=0):
        return iter([clips(2, 50 * epoch + 4 * step + 2 * self.rank) for step in range(first // 4, 3)])


def norm_method():
    from torch import nn
    from torch.nn import functional as F

    from slowfast.methods.base import Method, MethodOutput

    class Normed(Method):
        def __init__(self):
            super().__init__(pixel_mean=(0.5,) * 3, pixel_std=(0.25,) * 3)
            self.norm, self.head = nn.BatchNorm3d(3), nn.Linear(96, 7)

        def set_label_set(self, label_set, bank):
            pass

        def training_forward(self, batch):
            logits = self.head(self.norm(batch.frames.float() / 255).flatten(1))
            return MethodOutput(logits, {"classification": F.cross_entropy(logits, batch.label)}, {})

        def eval_forward(self, batch):
            raise NotImplementedError

        frame_features = eval_forward

    return Normed()


def episodes(context, folder):
    """Each process encodes every other video and scores every other episode; first all are good, then some are bad."""
    from slowfast.engine.episodes import evaluate_episodes
    from slowfast.engine.evaluator import EvalConfig
    from slowfast.models.episode_heads import OtamHead

    found = []
    for lost in ([], [4, 7]):
        kept = [clips(1, video) for video in range(context.rank, 21, context.world_size) if video not in lost]
        bad = tuple(f"v{video}: broken" for video in lost if video % context.world_size == context.rank)
        kept[-1] = replace(kept[-1], bad=bad)
        counts, lines = evaluate_episodes(
            framewise_method(), OtamHead(smoothing=0.5), episode_plan(), kept, num_frames=2, num_classes=7,
            device=torch.device("cpu"), config=EvalConfig(clips_per_forward=1), memo_bytes=1e6,
        )  # fmt: skip
        figures = counts.episodes.counts.tolist(), counts.tally.confusion.tolist(), counts.tally.top5.tolist()
        found.append([*figures, list(lines)])
    # The videos of rank 1 are all bad: both processes end.
    kept = [clips(1, video) for video in range(0, 21, 2)]
    if context.rank or context.world_size == 1:
        kept = [replace(clips(0, 0), bad=tuple(f"v{video}: broken" for video in range(1, 21, 2)))]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is returned
        evaluate_episodes(
            framewise_method(), OtamHead(smoothing=0.5), episode_plan(), kept, num_frames=2, num_classes=7,
            device=torch.device("cpu"), config=EvalConfig(clips_per_forward=1), memo_bytes=1e6,
        )  # fmt: skip
    write(context, folder, [*found, str(caught.value)])


def episode_plan():
    from slowfast.datasets.annotation import VideoRecord
    from slowfast.datasets.episodes import EpisodeDraws, plan_episodes
    from slowfast.datasets.types import EpisodeSpec

    records = [VideoRecord(f"v{video}", video % 7) for video in range(21)]
    spec = EpisodeSpec(way=3, shot=1, query=2, count=41, seed=2)
    draws = EpisodeDraws([video % 7 for video in range(21)], spec=spec, where="a.csv", names=list("abcdefg"))
    return plan_episodes(draws, records)


def framewise_method():
    from torch import nn

    class Framewise(nn.Module):
        def frame_features(self, batch):
            return batch.frames.float().transpose(1, 2).flatten(2) - 127

    return Framewise()


def linear_method():
    from torch import nn
    from torch.nn import functional as F

    from slowfast.methods.base import MethodOutput

    class Linear(nn.Module):
        spoilt = False

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(96, 7)

        def forward(self, batch):
            logits = self.head(batch.frames.float().flatten(1) / 255)
            constant = torch.tensor(float("nan") if self.spoilt else 0.0)
            losses = {"classification": F.cross_entropy(logits, batch.label), "constant": constant}
            return MethodOutput(logits, losses, {})

    return Linear()


def numbers(folder):
    return TrainConfig(
        max_epoch=1, log_period=1, eval_period=1, checkpoint_period=1, output_dir=folder, task="", seed=1,
        max_bad_fraction=1.0, loss_explosion_factor=0.0, config_text="",
    )  # fmt: skip


def write(context, folder, content):
    (folder / f"{context.rank}.json").write_text(json.dumps(content), encoding="utf-8")


# --------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture
def both(monkeypatch, tmp_path):
    """Runs a function of this file in two processes; returns what each wrote."""
    import importlib
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    module = importlib.import_module(Path(__file__).stem)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    plan = LaunchPlan(num_gpus=2, backend="gloo", init_method=f"tcp://localhost:{port}")

    def run(function):
        launch(plan, getattr(module, function.__name__), tmp_path)
        return [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]

    return run


def test_votes(both):
    assert both(vote) == [[0, 3, 5]] * 2


def test_every_sample_counts_once(both):
    expected = {"loss": 1.0, "grad_norm": 7.0, "top1_err": 25.0, "top5_err": 12.5, "term": 2.0}
    assert both(unequal) == [[expected, 0]] * 2


def mean_of(left, right):
    return [pytest.approx((a + b) / 2, abs=1e-7) for a, b in zip(left, right, strict=True)]


def test_running_statistics_are_means_over_the_ranks(both):
    (before, after, again, spoilt), (other, after_other, _, spoilt_other) = both(averaged)
    for name in ("tuned.running_mean", "tuned.running_var"):
        assert before[name] != other[name]
        assert after[name] == after_other[name] == mean_of(before[name], other[name])
    for name in ("frozen.running_mean", "frozen.running_var"):
        assert (after[name], after_other[name]) == (before[name], other[name])
    assert again == after  # equal ones stay as they are
    # What is not finite is left to the other; nan where none has a number, so that it is not taken for one.
    assert spoilt == spoilt_other
    assert spoilt[:2] == ["2.5", "nan"]


def test_averaging_more_often_changes_rounding_alone(both):
    often, once = both(averaged_often_or_once)[0]
    for name in often:
        assert often[name] == pytest.approx(once[name], rel=1e-6)


def test_ranks_validate_and_save_the_same_statistics(both):
    (validated, saved), (other, same) = both(training_with_norms)
    assert len(validated) == 3
    assert validated == other
    assert validated[0] != validated[1] == validated[2] == saved == same


def test_a_step_is_left_out_on_all_ranks_or_none(both):
    assert both(one_is_not_finite) == [[[True, False, True], True, 1, 4, 1, "the loss is nan", [22, 23]]] * 2


def test_episodes_are_shared(both, tmp_path):
    episodes(SimpleNamespace(rank=0, world_size=1), tmp_path)
    whole, partial, _ = json.loads((tmp_path / "0.json").read_text(encoding="utf-8"))
    (tmp_path / "0.json").unlink()
    one, other = both(episodes)
    assert one == other
    assert one[:2] == [whole, partial]
    assert sum(whole[0]) == 41
    assert 0 < sum(partial[0]) < 41
    assert whole[0][0] + whole[0][-1] < 41  # neither all right nor all wrong
    assert partial[3] == ["v4: broken", "v7: broken"]
    assert re.fullmatch(
        r"none of the 41 episodes is complete: 11 of the 21 clips that they take could be decoded; the first: v\d+: "
        "broken",
        one[2],
    )
