"""Score a method in episodes: every video is encoded once, then all episodes are scored from its features."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from train_net import plan_loader

from slowfast.datasets.build import build_episode_plan
from slowfast.datasets.episodes import EpisodePlan
from slowfast.datasets.types import Split
from slowfast.engine.build import build_episode_head
from slowfast.engine.episodes import (
    EpisodeCounts,
    complete_episodes,
    encode_clips,
    feature_size,
    score_episodes,
)
from slowfast.engine.evaluator import EvalConfig, gather_bad
from slowfast.engine.meters import TestMeter
from slowfast.engine.score_store import ScoreStore
from slowfast.protocols.base import EpisodeScore, EvalProtocol, SplitScore
from slowfast.report.results import RunResult, save_predictions
from slowfast.report.split_files import EPISODES_FILE, SplitFiles, remove_other_splits, write_episodes
from slowfast.utils.distributed import barrier, broadcast_object
from slowfast.utils.logging import get_logger, log_json_stats

if TYPE_CHECKING:
    from test_net import TestRun

logger = get_logger(__name__)


def run_episodes(run: TestRun, protocol: EvalProtocol, split: Split) -> tuple[RunResult, Path] | None:
    """Score the episodes that no interrupted test has scored yet, then report on all.

    Features and scores lie on the disk, shared by the processes, until the report is written.

    Args:
        run: what is tested.
        protocol: what makes figures of the scores.
        split: what is scored.

    Returns:
        What was found, and its file; None in processes other than the first.

    Raises:
        ValueError: if no episode can be made of the videos that could be decoded.
    """
    plan = build_episode_plan(split, cfg=run.cfg)
    head = build_episode_head(run.cfg, run.method, split.label_set)
    names = split.label_set.names
    identity = broadcast_object(run.identity(views=1, classes=names, records=plan.records))
    data, context = run.cfg.DATA, run.context
    frames, width = feature_size(
        run.method, num_frames=data.NUM_FRAMES, side=data.TEST_CROP_SIZE, device=context.device
    )
    features_folder = _Folder(run.output_dir / f"features{run.suffix}", identity, frames * width, len(plan.records))
    scores_folder = _Folder(
        run.output_dir / f"scores{run.suffix}", identity, plan.spec.num_queries * plan.spec.way, len(plan)
    )
    if context.rank == 0:
        features_folder.prepare()
        scores_folder.prepare()
    barrier()
    with features_folder.open(context.rank) as features, scores_folder.open(context.rank) as scores:
        barrier()  # every process has read what there is before one writes more
        bad = _encode(run, plan, features)
        barrier()
        reader = features.reader()
        _refuse_absent(run, plan, reader.video_id, bad)
        complete = complete_episodes(plan, reader.video_id, bad=bad)

        def rows(clips: NDArray[np.int64]) -> Tensor:
            return reader.read(clips)[2].unflatten(1, (frames, width))

        done = scores.scored()
        barrier()
        if len(done):
            logger.info("Continuing a test: %d of %d episodes were scored before", len(done), len(complete))
        own = np.setdiff1d(complete[context.rank :: context.world_size], done)
        run.method.eval()
        for batch in score_episodes(
            head, plan, rows, episodes=own, device=context.device, memo_bytes=run.cfg.EPISODES.MEMO_GB * 1e9
        ):
            scores.append(batch)
    barrier()
    if context.rank != 0:
        return None
    written = _report(run, protocol, split, plan, scores, num_encoded=plan.count_videos(reader.video_id), bad=bad)
    features.remove()
    scores.remove()
    return written


@dataclass(frozen=True)
class _Folder:
    """Where scores or features are kept."""

    path: Path
    identity: str
    width: int
    rows: int

    def prepare(self) -> None:
        ScoreStore.prepare(self.path, identity=self.identity, num_classes=self.width)

    def open(self, rank: int) -> ScoreStore:
        return ScoreStore(self.path, identity=self.identity, num_classes=self.width, rank=rank, num_videos=self.rows)


def _encode(run: TestRun, plan: EpisodePlan, store: ScoreStore) -> tuple[str, ...]:
    """Encode the clips that no interrupted test has encoded; returns one line for each that could not be decoded."""
    cfg, context = run.cfg, run.context
    done = store.scored()
    barrier()
    if len(done):
        logger.info("Continuing a test: %d of %d clips were encoded before", len(done), len(plan.used))
    loader = plan_loader(cfg, context, plan, mode="test", skip=done.tolist())
    config = EvalConfig(clips_per_forward=max(1, cfg.TEST.BATCH_SIZE // context.local_world_size))
    meter, start = TestMeter(num_iters=len(loader)), time.perf_counter()
    bad: list[str] = []
    encoded = encode_clips(run.method, loader, precision=run.precision, device=context.device, config=config)
    for iteration, batch in enumerate(encoded):
        # Its label is that of a row of scores, of which features have none.
        store.append(replace(batch, label=torch.zeros_like(batch.label)))
        bad.extend(batch.bad)
        if (iteration + 1) % cfg.LOG_PERIOD == 0 or iteration + 1 == len(loader):
            seconds = (time.perf_counter() - start) / (iteration + 1)
            log_json_stats(meter.iteration_stats(iteration, seconds=seconds))
    return gather_bad(bad)


def _refuse_absent(run: TestRun, plan: EpisodePlan, clips: NDArray[np.int64], bad: tuple[str, ...]) -> None:
    """Refuse to go on without clips that were encoded elsewhere.

    Raises:
        ValueError: if clips are absent that could be decoded.
    """
    absent = {plan.records[clip].path for clip in np.setdiff1d(plan.used, clips)}
    if not all(any(line.startswith(f"{path}: ") for line in bad) for path in absent):
        raise ValueError(
            f"OUTPUT_DIR: {run.output_dir} has the features of {len(clips)} of {len(plan.used)} clips, and "
            f"{len(bad)} videos could not be decoded; all machines of a run must share the folder"
        )


def _report(
    run: TestRun,
    protocol: EvalProtocol,
    split: Split,
    plan: EpisodePlan,
    store: ScoreStore,
    *,
    num_encoded: int,
    bad: tuple[str, ...],
) -> tuple[RunResult, Path]:
    folder = run.output_dir / f"splits{run.suffix}"
    remove_other_splits(folder, [split.name])
    counts = EpisodeCounts(plan, num_classes=len(split.label_set))
    paths = [record.path for record in plan.records]
    right: list[tuple[int, int]] = []
    with SplitFiles(folder / split.name, names=split.label_set.names, paths=paths) as files:
        for number, _, scores in store.chunks():
            right += zip(number.tolist(), counts.add(number, scores).tolist(), strict=True)
            files.add(*counts.queries(number, scores))
    write_episodes(folder / split.name / EPISODES_FILE, right, num_queries=plan.spec.num_queries)
    if run.cfg.TEST.SAVE_RESULTS_PATH:
        _save_matrices(run, plan, (scores for _, _, scores in store.chunks()))
    episodes = EpisodeScore(tally=counts.episodes, num_episodes=len(plan), num_encoded=num_encoded)
    score = SplitScore(tally=counts.tally, num_videos=plan.num_videos, episodes=episodes)
    found = counts.episodes
    logger.log(
        logging.INFO if found.num_episodes == len(plan) else logging.WARNING,
        "Mean over %d of %d episodes: %.2f +- %.2f %%", found.num_episodes, len(plan), found.accuracy, found.interval,
    )  # fmt: skip
    return run.write(
        protocol.summarise({split.name: score}),
        {split.name: run.split_result(split, score)},
        num_videos=plan.count_videos(plan.used),
        num_scored=num_encoded,
        missing=bad,
    )


def _save_matrices(run: TestRun, plan: EpisodePlan, chunks: Iterable[Tensor]) -> None:
    """Write TEST.SAVE_RESULTS_PATH: one row per query, with the scores of the N classes of its episode."""
    scores = torch.cat([chunk.view(-1, plan.spec.way) for chunk in chunks])
    label = torch.arange(plan.spec.way).repeat_interleave(plan.spec.query)
    path = Path(run.cfg.TEST.SAVE_RESULTS_PATH)
    target = run.output_dir / path.with_name(path.stem + run.suffix + path.suffix)
    save_predictions(scores, label.repeat(len(scores) // len(label)), target)
