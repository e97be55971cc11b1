"""What a table takes: its jobs with their configurations, checked before the first one starts."""

from __future__ import annotations

import argparse
import fnmatch
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast.config.node import CfgNode, ConfigError
from slowfast.config.redaction import redact
from slowfast.datasets.build import build_pool, check_split
from slowfast.datasets.prepared import read_manifest
from slowfast.datasets.traits import read_traits
from slowfast.engine.average_run import averaged_file
from slowfast.engine.checkpoint_files import best_path, checkpoint_path, last_checkpoint
from slowfast.methods.build import text_files
from slowfast.protocols.base import Job, TableRequest
from slowfast.protocols.build import build_protocol, protocol_class
from slowfast.report.results import RESULTS_FILE, mixture_suffix
from slowfast.utils.parser import assert_and_infer_cfg, cfg_to_yaml

RAW_CLIP = "clip"
_PHASE_KEYS = (
    "TRAIN.ENABLE",
    "TRAIN.CUSTOM_LOAD",
    "TRAIN.CUSTOM_LOAD_FILE",
    "TRAIN.CHECKPOINT_FILE_PATH",
    "TEST.ENABLE",
    "TEST.CUSTOM_LOAD",
    "TEST.CUSTOM_LOAD_FILE",
    "TEST.CHECKPOINT_FILE_PATH",
    "TEST.PATCHING_RATIOS",
    "NUM_GPUS",
    "NUM_SHARDS",
    "SHARD_ID",
)
"""What is decided for all jobs of a table, and --for leaves alone."""


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job with the configurations of its phases.

    Attributes:
        job: what the protocol asks for.
        train: configuration of the training; None for none.
        test: configuration of the test; None for none.
        trained: the weights that the training leaves; None for none.
    """

    job: Job
    train: CfgNode | None
    test: CfgNode | None
    trained: Path | None

    @property
    def folder(self) -> Path:
        """Where it writes."""
        cfg = self.train or self.test
        assert cfg is not None, "a job trains or tests"
        return Path(cfg.OUTPUT_DIR)

    @property
    def results_file(self) -> Path:
        """The figures of the test."""
        return self.folder / RESULTS_FILE

    @property
    def ratios(self) -> tuple[float, ...]:
        """Shares of raw CLIP that the test mixes in; empty for the weights as they are, and for raw CLIP itself."""
        cfg = self.test
        return tuple(cfg.TEST.PATCHING_RATIOS) if cfg is not None and cfg.TEST.CUSTOM_LOAD else ()

    def results_files(self) -> dict[float | None, Path]:
        """The figures of every share, the first of which are those of the test; None stands for no share."""
        if not self.ratios:
            return {None: self.results_file}
        stem, suffix = self.results_file.stem, self.results_file.suffix
        return {
            ratio: self.results_file.with_name(f"{stem}{mixture_suffix(ratio, self.ratios)}{suffix}")
            for ratio in self.ratios
        }

    @property
    def has_results(self) -> bool:
        """Whether it was finished once, perhaps under another configuration."""
        return self.results_file.is_file() if self.test is not None else bool(self.trained and self.trained.is_file())


def plan_jobs(base: CfgNode, args: argparse.Namespace) -> list[PlannedJob]:
    """Make the configurations of all jobs.

    Raises:
        ConfigError: if an option does not fit, or a configuration is not valid.
        ValueError: if a dataset was not prepared.
    """
    request = TableRequest(
        label_db=args.label_db,
        datasets=args.datasets,
        trains=not args.weights,
        shots=args.shots,
        seeds=args.seeds,
        source=args.source,
        halves=args.halves,
    )
    _refuse_keys(base)
    planned: dict[str, PlannedJob] = {}
    jobs = protocol_class(args.protocol).jobs(request)
    _check_cases(args.cases, [job.name for job in jobs])
    for job in jobs:
        weights = planned[job.weights_from].trained if job.weights_from else _given(args.weights)
        planned[job.name] = _plan_job(job, base, args, weights)
    datasets = sorted({plan.job.dataset for plan in planned.values()})
    for dataset in _video_folders(args.videos):
        if dataset not in datasets:
            raise ConfigError(f"--videos: {dataset!r} is not in this table; allowed: {', '.join(datasets)}")
    return list(planned.values())


def check_jobs(planned: Sequence[PlannedJob]) -> None:
    """Find what is missing before the first job starts: lists, class files, videos, weights, texts and their features.

    Videos, by a sample, and texts are looked for where there are no results yet.

    Raises:
        ValueError: naming the first file that is missing.
    """
    for plan in planned:
        if plan.train is not None:
            _check_training(plan.train, plan)
        if plan.test is not None:
            _check_test(plan.test, plan, made={str(other.trained) for other in planned})
        for cfg in (plan.train, plan.test):
            if cfg is not None:
                _check_texts(cfg, plan)


def _check_training(cfg: CfgNode, plan: PlannedJob) -> None:
    protocol = build_protocol(cfg)
    for split in (protocol.train_split(), protocol.val_split()):
        if not plan.has_results:
            check_split(split, cfg=cfg)
    init = cfg.TRAIN.CUSTOM_LOAD_FILE if cfg.TRAIN.CUSTOM_LOAD else None
    if init and not Path(init).is_file():
        raise ValueError(f"--init: {init}: no such file")


def _check_test(cfg: CfgNode, plan: PlannedJob, *, made: Collection[str]) -> None:
    splits = build_protocol(cfg).eval_splits()
    if not plan.has_results:
        build_pool(splits, cfg=cfg)
        for split in splits:
            check_split(split, cfg=cfg)
    weights = cfg.TEST.CUSTOM_LOAD_FILE if cfg.TEST.CUSTOM_LOAD else None
    if not weights and last_checkpoint(plan.folder, task=cfg.TASK):
        # a test without weights takes the last checkpoint of its folder
        raise ValueError(f"{plan.folder}: holds checkpoints, so it is not for raw CLIP; change OUTPUT_DIR")
    if weights and weights not in made and not Path(weights).is_file():
        raise ValueError(f"--weights: {weights}: no such file; or {RAW_CLIP} for raw CLIP")


def _check_texts(cfg: CfgNode, plan: PlannedJob) -> None:
    features = cfg.DATA.TEXT_AUG_FEATURE_FILE if cfg.DATA.TEXT_AUG else ""
    if features and not Path(features).is_file():
        raise ValueError(f"DATA.TEXT_AUG_FEATURE_FILE: {features}: no such file, wanted by job {plan.job.name}")
    if plan.has_results:
        return
    protocol = build_protocol(cfg)
    for split in [protocol.train_split(), protocol.val_split()] if cfg.TRAIN.ENABLE else protocol.eval_splits():
        for file in text_files(cfg, split.label_set):
            if file and not Path(file).is_file():
                raise ValueError(f"{file}: no such file, wanted by job {plan.job.name}")


def _refuse_keys(base: CfgNode) -> None:
    """Keys that a table would overwrite, or that make several results of one job."""
    for key, refused, remedy in (
        ("DATA.PATH_PREFIX", bool(base.DATA.PATH_PREFIX), "--videos DATASET=FOLDER"),
        ("TEST.NUM_TEMPORAL_CLIPS", len(base.TEST.NUM_TEMPORAL_CLIPS) > 1, "a single number of views"),
        ("TEST.NUM_ENSEMBLE_VIEWS", base.TEST.NUM_ENSEMBLE_VIEWS < 1, "a single number of views"),
    ):
        if refused:
            raise ConfigError(f"{key}: is {base.leaves()[key]!r}, which a table has no use for; allowed: {remedy}")


def _check_cases(cases: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    for pattern, *words in cases:
        if not words or len(words) % 2:
            raise ConfigError(f"--for {pattern}: expected KEY VALUE pairs, found {shlex.join(words) or 'none'}")
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"--for {pattern}: is no job of this table; allowed: {', '.join(names)}")


def _case_options(cases: Sequence[Sequence[str]], name: str, *, taken: Collection[str]) -> dict[str, Any]:
    """Keys that --for sets for a job; later ones win.

    Raises:
        ConfigError: for a key that the table itself sets.
    """
    options: dict[str, Any] = {}
    for pattern, *words in cases:
        if fnmatch.fnmatchcase(name, pattern):
            options |= dict(zip(words[::2], words[1::2], strict=True))
    for key in options:
        if key in taken:
            raise ConfigError(f"--for: {key} of {name} is the table's to set; allowed: other keys")
    return options


def _given(weights: str | None) -> Path | None:
    return Path(weights) if weights and weights != RAW_CLIP else None


def _plan_job(job: Job, base: CfgNode, args: argparse.Namespace, weights: Path | None) -> PlannedJob:
    folder = Path(base.OUTPUT_DIR) / "jobs" / job.name
    shared: dict[str, Any] = {
        **job.options,
        "OUTPUT_DIR": str(folder),
        "SPLITS.LABEL_DB": args.label_db,
        "SPLITS.ALL_TESTS": args.all_tests,
        "DATA.PATH_PREFIX": _video_folders(args.videos).get(job.dataset, ""),
    }
    if args.text_features:
        file = args.text_features.replace("{dataset}", job.dataset)
        shared |= {"DATA.TEXT_AUG": True, "DATA.TEXT_AUG_FEATURE_FILE": file}
    case = _case_options(args.cases, job.name, taken={*shared, *_PHASE_KEYS})
    train = test = trained = None
    if job.trains:
        options: dict[str, Any] = {"TRAIN.ENABLE": True, "TEST.ENABLE": False}
        if args.init:
            options |= {"TRAIN.CUSTOM_LOAD": True, "TRAIN.CUSTOM_LOAD_FILE": args.init}
        if not read_traits(Path(args.label_db) / job.dataset).mirror:
            options["DATA.RANDOM_FLIP"] = False
        train = _resolve(base, shared | options | case, job)
        trained = weights = _trained_weights(train)
    if job.tests:
        options = {"TRAIN.ENABLE": False, "TEST.ENABLE": True, "TEST.CUSTOM_LOAD": weights is not None}
        options |= {"TEST.CUSTOM_LOAD_FILE": str(weights) if weights else None, "TEST.CHECKPOINT_FILE_PATH": ""}
        test = _resolve(base, shared | options | {"TRAIN.CHECKPOINT_FILE_PATH": ""} | case, job)
    return PlannedJob(job=job, train=train, test=test, trained=trained)


def _video_folders(pairs: Sequence[str]) -> dict[str, str]:
    folders = {}
    for pair in pairs:
        dataset, mark, folder = pair.partition("=")
        if not mark or not dataset or not folder:
            raise ConfigError(f"--videos: expected DATASET=FOLDER, found {pair!r}")
        folders[dataset] = folder
    return folders


def _resolve(base: CfgNode, options: Mapping[str, Any], job: Job) -> CfgNode:
    cfg = base.clone()
    cfg.defrost()
    try:
        for key, value in options.items():
            cfg.merge_from_list([key, value])
        assert_and_infer_cfg(cfg)
        protocol = build_protocol(cfg)
        if cfg.TRAIN.ENABLE:
            cfg.MODEL.NUM_CLASSES = len(protocol.train_split().label_set)
    except ConfigError as error:
        raise ConfigError(f"job {job.name}: {error}") from error
    cfg.freeze()
    return cfg


def _trained_weights(cfg: CfgNode) -> Path:
    """The file that is tested after a training."""
    last = cfg.SOLVER.MAX_EPOCH
    if cfg.TRAIN.KEEP_BEST and cfg.AVERAGE.METHOD:
        raise ConfigError(
            f"TRAIN.KEEP_BEST: True tests the best epoch, AVERAGE.METHOD {cfg.AVERAGE.METHOD!r} a mean of several; "
            "set it False, or AVERAGE.METHOD ''"
        )
    if cfg.TRAIN.KEEP_BEST:
        return best_path(cfg.OUTPUT_DIR, task=cfg.TASK)
    if not cfg.AVERAGE.METHOD:
        return checkpoint_path(cfg.OUTPUT_DIR, last - 1, task=cfg.TASK)
    end = cfg.AVERAGE.END or last
    if not cfg.AVERAGE.START <= end <= last:
        raise ConfigError(
            f"AVERAGE.START: epochs {cfg.AVERAGE.START} to {end} do not lie within SOLVER.MAX_EPOCH, which is {last}"
        )
    return averaged_file(Path(cfg.OUTPUT_DIR) / "averaged", cfg.AVERAGE.METHOD, start=cfg.AVERAGE.START, end=end)


def print_plan(planned: Sequence[PlannedJob], *, full: bool) -> None:
    """Print the jobs, each as the configuration that differs from the defaults of the file, or in full."""
    for plan in planned:
        for phase, cfg in (("train", plan.train), ("test", plan.test)):
            if cfg is None:
                continue
            if full:
                sys.stdout.write(f"--- # {plan.job.name}: {phase}\n{cfg_to_yaml(cfg)}")
                continue
            dataset = read_manifest(cfg.SPLITS.LABEL_DB, plan.job.dataset)
            words = [word for key, value in plan.job.options.items() for word in (key, str(value))]
            weights = cfg.TEST.CUSTOM_LOAD_FILE if phase == "test" and cfg.TEST.CUSTOM_LOAD else ""
            line = (
                f"{plan.job.name:<20} {phase:<6} {shlex.join(words)}  videos {cfg.DATA.PATH_PREFIX or dataset.root}"
                f"{'  weights ' + weights if weights else ''}  -> {plan.folder}\n"
            )
            sys.stdout.write(redact(line))
