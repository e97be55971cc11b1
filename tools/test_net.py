"""Score a method on the test splits of a protocol."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from test_episodes import run_episodes
from train_net import start_phase

from slowfast.config.node import CfgNode
from slowfast.datasets.annotation import VideoRecord
from slowfast.datasets.build import build_pool, build_pool_loader
from slowfast.datasets.inputs import inputs_sha256
from slowfast.datasets.pool import VideoPool
from slowfast.datasets.types import Split
from slowfast.engine.build import read_test_weights
from slowfast.engine.evaluator import EvalConfig, gather_bad, score_videos
from slowfast.engine.launch import ProcessContext, first_on_machine
from slowfast.engine.meters import TestMeter
from slowfast.engine.precision import Precision, choose_precision
from slowfast.engine.score_store import ScoreStore
from slowfast.methods.base import Method
from slowfast.methods.build import build_method, text_files
from slowfast.protocols.base import EvalProtocol, SplitScore
from slowfast.protocols.build import build_protocol
from slowfast.report.results import RunResult, SplitResult, mixture_suffix, save_predictions, write_results
from slowfast.report.split_files import SplitFiles, remove_other_splits
from slowfast.text.feature_file import read_feature_file
from slowfast.utils.distributed import barrier, broadcast_object
from slowfast.utils.io import sha256_file, sha256_tensors
from slowfast.utils.logging import get_logger, log_json_stats
from slowfast.utils.parser import cfg_hash, numbers_hash
from slowfast.utils.provenance import code_sha256, package_versions

logger = get_logger(__name__)

_VIEW_SERIES = (1, 3, 5, 7, 10)
"""What TEST.NUM_ENSEMBLE_VIEWS -1 stands for."""


def test(context: ProcessContext, cfg: CfgNode) -> None:
    """Score every test split, once per number of views, in every process of the run.

    Raises:
        ValueError: if something the run needs is not usable, or no video could be scored.
    """
    start_phase(context, cfg)
    series = num_views(cfg)
    pool = build_pool(build_protocol(cfg, views=series[0]).eval_splits(), cfg=cfg)
    _refuse_rows_without_names(cfg, pool)
    with first_on_machine(context):
        method = build_method(cfg, pool.label_set, training=False, device=context.device)
    weights = read_test_weights(cfg, method)
    found: list[tuple[float | None, RunResult, Path]] = []
    for ratio in weights.ratios or (None,):
        mixture = ""
        if ratio is not None:
            weights.load(ratio)
            mixture = mixture_suffix(ratio, weights.ratios)
        for views in series:
            protocol = build_protocol(cfg, views=views)
            suffix = mixture + (f"_{views}views" if len(series) > 1 else "")
            run = TestRun(cfg, context, method, weights=weights.path, ratio=ratio, suffix=suffix)
            splits = protocol.eval_splits()
            written = (
                run_episodes(run, protocol, splits[0])
                if splits[0].episodes is not None
                else run.run(protocol, build_pool(splits, cfg=cfg))
            )
            found += [(ratio, *written)] if written else []
    for ratio, result, path in found if weights.ratios else ():
        accuracies = ", ".join(f"{name} {result.metrics[name]:.2f}" for name in ("top1_acc", "top5_acc"))
        logger.info("Share %g of raw CLIP: %s; %s", ratio, accuracies, path)


def _refuse_rows_without_names(cfg: CfgNode, pool: VideoPool) -> None:
    """Text features without class names follow the order of one class list; joined lists have an order of their own.

    Raises:
        ValueError: if the file has no names and the classes of the pool are not those of one of its splits.
    """
    lists = [member.split.label_set.names for member in pool.members.values()]
    if not cfg.DATA.TEXT_AUG or pool.label_set.names in lists:
        return
    key, path = "DATA.TEXT_AUG_FEATURE_FILE", cfg.DATA.TEXT_AUG_FEATURE_FILE
    if path and read_feature_file(path, what=key).names is None:
        raise ValueError(
            f"{key}: {path}: does not say which row is which class, but {', '.join(pool.members)} have different "
            f"classes; make it with names (utils/text_prompts.py), or test one list at a time"
        )


def test_inputs(cfg: CfgNode) -> str:
    """Hash of what a test reads beside its weights: lists, class names, text features, raw CLIP, the folder of videos.

    Raises:
        ValueError: if a list or its class file is not usable.
    """
    raw = [cfg.TEST.CLIP_ORI_PATH] if cfg.TEST.PATCHING_MODEL or cfg.TEST.PATCHING_RATIOS else []
    splits = build_protocol(cfg, views=num_views(cfg)[0]).eval_splits()
    text = list(dict.fromkeys(file for split in splits for file in text_files(cfg, split.label_set)))
    folders = dict.fromkeys(split.prefix for split in splits)
    return inputs_sha256(splits, [cfg.MODEL.CLIP_WEIGHTS, *raw, *text, *folders])


def num_views(cfg: CfgNode) -> Sequence[int]:
    """Temporal views per video to test with, one test for each."""
    if cfg.TEST.NUM_TEMPORAL_CLIPS:
        return tuple(cfg.TEST.NUM_TEMPORAL_CLIPS)
    return _VIEW_SERIES if cfg.TEST.NUM_ENSEMBLE_VIEWS == -1 else (cfg.TEST.NUM_ENSEMBLE_VIEWS,)


def test_precision(cfg: CfgNode, context: ProcessContext) -> Precision:
    """The dtype of a test: fp32, unless TEST.PRECISION asks for that of training."""
    return choose_precision(context.device, mixed=cfg.TEST.PRECISION == "amp", amp_dtype=cfg.TRAIN.AMP_DTYPE)


class TestRun:
    """One test of one method: scores go to the disk, figures and reports are made from there.

    Args:
        cfg: the frozen configuration.
        context: this process.
        method: what is tested.
        weights: the file that its weights come from, if any.
        ratio: share of raw CLIP in them, None without TEST.PATCHING_RATIOS.
        suffix: end of the names of the result files.
    """

    __test__ = False  # pytest would take the name for a test

    def __init__(
        self,
        cfg: CfgNode,
        context: ProcessContext,
        method: Method,
        *,
        weights: Path | None,
        ratio: float | None,
        suffix: str,
    ) -> None:
        self.cfg, self.context, self.method = cfg, context, method
        self.weights, self.ratio, self.suffix = weights, ratio, suffix
        self.output_dir = Path(cfg.OUTPUT_DIR)
        self.precision = test_precision(cfg, context)
        self.model_sha256 = sha256_tensors(method.checkpoint_state())
        self.inputs_sha256 = test_inputs(cfg)

    def run(self, protocol: EvalProtocol, pool: VideoPool) -> tuple[RunResult, Path] | None:
        """Score the videos that no interrupted test has scored yet, then report on all.

        Returns:
            What was found, and its file; None in processes other than the first.

        Raises:
            ValueError: if none of the videos could be decoded.
        """
        folder, num_classes = self.output_dir / f"scores{self.suffix}", len(pool.label_set)
        identity = broadcast_object(self.identity(views=pool.views, classes=pool.label_set.names, records=pool.records))
        if self.context.rank == 0:
            ScoreStore.prepare(folder, identity=identity, num_classes=num_classes)
        barrier()
        with ScoreStore(
            folder,
            identity=identity,
            num_classes=num_classes,
            rank=self.context.rank,
            num_videos=len(pool.records),
        ) as store:
            barrier()  # every process has read what there is before one writes more
            bad = self._score(pool, store)
        barrier()
        if self.context.rank != 0:
            return None
        written = self._report(protocol, pool, store, bad)
        store.remove()
        return written

    def _score(self, pool: VideoPool, store: ScoreStore) -> tuple[str, ...]:
        cfg, context = self.cfg, self.context
        done = store.scored()
        barrier()
        if len(done):
            logger.info("Continuing a test: %d of %d videos were scored before", len(done), len(pool.records))
        loader = build_pool_loader(
            pool,
            cfg=cfg,
            rank=context.rank,
            world_size=context.world_size,
            local_world_size=context.local_world_size,
            skip=done.tolist(),
        )
        config = EvalConfig(
            clips_per_forward=max(1, cfg.TEST.BATCH_SIZE // context.local_world_size), merge=cfg.DATA.ENSEMBLE_METHOD
        )
        meter, start = TestMeter(num_iters=len(loader)), time.perf_counter()
        bad: list[str] = []
        scored = score_videos(self.method, loader, precision=self.precision, device=context.device, config=config)
        for iteration, batch in enumerate(scored):
            store.append(batch)
            bad.extend(batch.bad)
            if (iteration + 1) % cfg.LOG_PERIOD == 0 or iteration + 1 == len(loader):
                seconds = (time.perf_counter() - start) / (iteration + 1)
                log_json_stats(meter.iteration_stats(iteration, seconds=seconds))
        return gather_bad(bad)

    def identity(self, *, views: int, classes: Sequence[str], records: Sequence[VideoRecord]) -> str:
        """All that the scores depend on: an interrupted test goes on only if none of it changed."""
        cfg = self.cfg
        parts: dict[str, object] = {
            "config": numbers_hash(cfg),
            "views": views,
            "model": self.model_sha256,
            "inputs": self.inputs_sha256,
            "code": f"{code_sha256()} {sorted(package_versions().items())}",
            "classes": classes,
            "videos": [record[:2] for record in records],
        }
        # Masks that are drawn anew for every batch make a test that was interrupted another one.
        if not cfg.TEST.AUTO_RESUME or cfg.MODEL.TEMPORAL_SHUFFLE_EVAL:
            parts["start"] = time.time_ns()
        return repr(parts)

    def _report(
        self, protocol: EvalProtocol, pool: VideoPool, store: ScoreStore, bad: tuple[str, ...]
    ) -> tuple[RunResult, Path]:
        cfg = self.cfg
        num_scored = len(store.scored())
        if len(pool.records) - num_scored > len(bad) + _num_repeated(pool):
            raise ValueError(
                f"OUTPUT_DIR: {self.output_dir} has the scores of {num_scored} of {len(pool.records)} videos, of which "
                f"{len(bad)} could not be decoded; all machines of a run must share the folder"
            )
        if not num_scored:
            csv = next(iter(pool.members.values())).split.csv
            raise ValueError(f"{csv}: none of its {len(pool.records)} videos could be decoded")
        folder = self.output_dir / f"splits{self.suffix}"
        remove_other_splits(folder, list(pool.members))
        scores = write_split_files(folder, pool, store)
        if cfg.TEST.SAVE_RESULTS_PATH:
            self._save_matrices(pool, store)
        return self.write(
            protocol.summarise(scores),
            {name: self.split_result(pool.members[name].split, score) for name, score in scores.items()},
            num_videos=len(pool.records),
            num_scored=num_scored,
            missing=bad,
        )

    @staticmethod
    def split_result(split: Split, score: SplitScore) -> SplitResult:
        """Figures of a split for results.json."""
        return SplitResult(
            top1_acc=score.tally.top1_acc,
            top5_acc=score.tally.top5_acc,
            mean_class_acc=score.tally.mean_class_acc,
            num_videos=score.num_videos,
            num_scored=score.num_scored,
            num_classes=len(split.label_set),
            num_official=split.official,
            csv=str(split.csv),
        )

    def write(
        self,
        metrics: dict[str, float],
        splits: dict[str, SplitResult],
        *,
        num_videos: int,
        num_scored: int,
        missing: tuple[str, ...],
    ) -> tuple[RunResult, Path]:
        """Write results.json and the last line of the log."""
        cfg = self.cfg
        result = RunResult(
            metrics=metrics,
            splits=splits,
            num_videos=num_videos,
            num_scored=num_scored,
            missing=missing,
            protocol=cfg.PROTOCOL,
            dataset=cfg.SPLITS.DATASET,
            seed=cfg.RNG_SEED,
            config_sha256=cfg_hash(cfg),
            numbers_sha256=numbers_hash(cfg),
            inputs_sha256=self.inputs_sha256,
            model_sha256=self.model_sha256,
            weights=str(self.weights) if self.weights else "",
            weights_sha256=sha256_file(self.weights) if self.weights else "",
            patching_ratio=self.ratio,
        )
        path = write_results(result, self.output_dir / f"results{self.suffix}.json")
        logger.info("Scored %d of %d videos; wrote %s", result.num_scored, result.num_videos, path)
        final = TestMeter(num_iters=1).final_stats({1: metrics["top1_acc"], 5: metrics["top5_acc"]})
        log_json_stats(final if self.ratio is None else {**final, "clip_ratio": self.ratio}, self.output_dir)
        return result, path

    def _save_matrices(self, pool: VideoPool, store: ScoreStore) -> None:
        """Write TEST.SAVE_RESULTS_PATH, rows in the order of the annotation file; one file per split."""
        path = Path(self.cfg.TEST.SAVE_RESULTS_PATH)
        for name, member in pool.members.items():
            parts = [member.select(*chunk) for chunk in store.chunks()]
            ids, label, logits = (torch.cat(column) for column in zip(*parts, strict=True))
            place = torch.empty(len(pool.records), dtype=torch.long)
            place[torch.from_numpy(member.rows)] = torch.arange(member.num_videos)
            order = torch.argsort(place[ids])
            stem = path.stem + (f"_{name}" if len(pool.members) > 1 else "") + self.suffix
            target = self.output_dir / path.with_name(stem + path.suffix)
            save_predictions(logits[order], label[order], target)


def write_split_files(folder: Path, pool: VideoPool, store: ScoreStore) -> dict[str, SplitScore]:
    """Read the scores once and write the files of every split.

    Returns:
        Split name -> its score.
    """
    paths = [record.path for record in pool.records]
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(SplitFiles(folder / name, names=member.split.label_set.names, paths=paths))
            for name, member in pool.members.items()
        }
        for chunk in store.chunks():
            for name, member in pool.members.items():
                files[name].add(*member.select(*chunk))
    return {
        name: SplitScore(tally=files[name].tally, num_videos=member.num_videos) for name, member in pool.members.items()
    }


def _num_repeated(pool: VideoPool) -> int:
    """Rows that repeat a video; if it cannot be decoded there is one line about all of them."""
    return len(pool.records) - len({record.path for record in pool.records})
