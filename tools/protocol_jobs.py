"""The jobs of a table: their configurations, what of them is done, and the table itself."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import phases
import test_net
import train_net

from slowfast.config.node import CfgNode, ConfigError
from slowfast.datasets.prepared import read_manifest
from slowfast.datasets.traits import read_traits
from slowfast.engine.average import AverageConfig
from slowfast.engine.average_run import average_run, averaged_file
from slowfast.engine.checkpoint import checkpoint_folder, checkpoint_path
from slowfast.engine.launch import LaunchPlan, ProcessContext, is_first_process, launch
from slowfast.models.clip.arch import PUBLISHED
from slowfast.protocols.base import Job, TableRequest
from slowfast.protocols.build import build_protocol, protocol_class
from slowfast.report.protocol_table import JobRecord, ProtocolTable
from slowfast.report.published import published_for, read_published
from slowfast.report.results import RunResult, read_results
from slowfast.utils.distributed import barrier, broadcast_object
from slowfast.utils.io import atomic_write_text, sha256_file
from slowfast.utils.logging import get_logger, setup_logging
from slowfast.utils.parser import assert_and_infer_cfg, cfg_to_yaml, console_errors, numbers_hash

logger = get_logger(__name__)

RAW_CLIP = "clip"
_PUBLISHED_FILE = Path(__file__).resolve().parent.parent / "label_db" / "published.yaml"
_TRAINING_FILE = "training.json"


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


def run(base: CfgNode, args: argparse.Namespace) -> int:
    """Plan the jobs, check all of them, run what is not done yet, write the table.

    Returns:
        Exit status.
    """
    status, planned = 0, []

    def prepare() -> None:
        with console_errors():
            planned.extend(plan_jobs(base, args))
        check_jobs(planned)

    status = phases.guard(prepare)
    if status or args.print_config or args.dry_run:
        if not status:
            _print_plan(planned, full=args.print_config)
        return status
    return phases.guard(lambda: _launch(base, args, planned))


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
    planned: dict[str, PlannedJob] = {}
    for job in protocol_class(args.protocol).jobs(request):
        weights = planned[job.weights_from].trained if job.weights_from else _given(args.weights)
        planned[job.name] = _plan_job(job, base, args, weights)
    datasets = sorted({plan.job.dataset for plan in planned.values()})
    for dataset in _video_folders(args.videos):
        if dataset not in datasets:
            raise ConfigError(f"--videos: {dataset!r} is not in this table; allowed: {', '.join(datasets)}")
    return list(planned.values())


def check_jobs(planned: Sequence[PlannedJob]) -> None:
    """Find what is missing before the first job starts: lists, class files, weights, text features.

    Raises:
        ValueError: naming the first file that is missing.
    """
    for plan in planned:
        if plan.train is not None:
            protocol = build_protocol(plan.train)
            protocol.train_split(), protocol.val_split()
            init = plan.train.TRAIN.CUSTOM_LOAD_FILE if plan.train.TRAIN.CUSTOM_LOAD else None
            if init and not Path(init).is_file():
                raise ValueError(f"--init: {init}: no such file")
        if plan.test is not None:
            build_protocol(plan.test).eval_splits()
            weights = plan.test.TEST.CUSTOM_LOAD_FILE if plan.test.TEST.CUSTOM_LOAD else None
            is_made = weights in {str(other.trained) for other in planned}
            if weights and not is_made and not Path(weights).is_file():
                raise ValueError(f"--weights: {weights}: no such file; or {RAW_CLIP} for raw CLIP")
        for cfg in (plan.train, plan.test):
            features = cfg.DATA.TEXT_AUG_FEATURE_FILE if cfg is not None and cfg.DATA.TEXT_AUG else ""
            if features and not Path(features).is_file():
                raise ValueError(f"DATA.TEXT_AUG_FEATURE_FILE: {features}: no such file, wanted by job {plan.job.name}")


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
    train = test = trained = None
    if job.trains:
        options: dict[str, Any] = {"TRAIN.ENABLE": True, "TEST.ENABLE": False}
        if args.init:
            options |= {"TRAIN.CUSTOM_LOAD": True, "TRAIN.CUSTOM_LOAD_FILE": args.init}
        if not read_traits(Path(args.label_db) / job.dataset).mirror:
            options["DATA.RANDOM_FLIP"] = False
        train = _resolve(base, shared | options, job)
        trained = weights = _trained_weights(train)
    if job.tests:
        options = {"TRAIN.ENABLE": False, "TEST.ENABLE": True, "TEST.CUSTOM_LOAD": weights is not None}
        options |= {"TEST.CUSTOM_LOAD_FILE": str(weights) if weights else None, "TEST.CHECKPOINT_FILE_PATH": ""}
        test = _resolve(base, shared | options | {"TRAIN.CHECKPOINT_FILE_PATH": ""}, job)
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
    for key, value in options.items():
        cfg.merge_from_list([key, value])
    try:
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
    if not cfg.AVERAGE.METHOD:
        return checkpoint_path(cfg.OUTPUT_DIR, last - 1, task=cfg.TASK)
    end = cfg.AVERAGE.END or last
    if not cfg.AVERAGE.START <= end <= last:
        raise ConfigError(
            f"AVERAGE.START: epochs {cfg.AVERAGE.START} to {end} do not lie within SOLVER.MAX_EPOCH, which is {last}"
        )
    return averaged_file(Path(cfg.OUTPUT_DIR) / "averaged", cfg.AVERAGE.METHOD, start=cfg.AVERAGE.START, end=end)


def _launch(base: CfgNode, args: argparse.Namespace, planned: Sequence[PlannedJob]) -> None:
    plan = LaunchPlan(
        num_gpus=base.NUM_GPUS,
        num_shards=base.NUM_SHARDS,
        shard_id=base.SHARD_ID,
        backend=base.DIST_BACKEND,
        init_method=args.init_method,
    )
    launch(plan, run_jobs, planned)
    if is_first_process(shard_id=base.SHARD_ID):
        table = make_table(base, args, planned)
        path = table.write(base.OUTPUT_DIR)
        sys.stdout.write(f"\n{table.markdown()}\nwrote {path}\n")


def run_jobs(context: ProcessContext, planned: Sequence[PlannedJob]) -> None:
    """Run the jobs that are not done, in every process of the run.

    Raises:
        ValueError: if a job fails, or a training was begun with another configuration.
    """
    for number, plan in enumerate(planned, start=1):
        setup_logging(plan.folder, rank=context.rank)
        if context.rank == 0:
            logger.info("Job %d of %d: %s", number, len(planned), plan.job.name)
        if plan.train is not None and not broadcast_object(_is_trained(plan)):
            _train(context, plan)
        if plan.test is not None and not broadcast_object(_is_tested(plan)):
            if context.rank == 0:
                atomic_write_text(plan.folder / "config.yaml", cfg_to_yaml(plan.train or plan.test))
            test_net.test(context, plan.test)
        barrier()


def _train(context: ProcessContext, plan: PlannedJob) -> None:
    cfg = plan.train
    assert cfg is not None, "only a job that trains is trained"
    assert plan.trained is not None, "a training leaves weights"
    if context.rank == 0:
        _record_training(plan, finished=False)
        atomic_write_text(plan.folder / "config.yaml", cfg_to_yaml(cfg))
    train_net.train(context, cfg)
    barrier()
    if context.rank == 0:
        if cfg.AVERAGE.METHOD:
            _average(cfg, plan.trained.parent)
        _record_training(plan, finished=True)
    barrier()


def _average(cfg: CfgNode, folder: Path) -> None:
    start, end = cfg.AVERAGE.START, cfg.AVERAGE.END or cfg.SOLVER.MAX_EPOCH
    clip = (cfg.MODEL.CLIP_WEIGHTS or cfg.MODEL.ARCH) if start == 0 else ""
    report = average_run(
        checkpoint_folder(cfg.OUTPUT_DIR),
        folder,
        methods=[cfg.AVERAGE.METHOD],
        config=AverageConfig(start=start, end=end),
        clip=clip,
    )
    logger.info("Averaged %d checkpoints: %s", len(report.members), report.paths[cfg.AVERAGE.METHOD])


def _record_training(plan: PlannedJob, *, finished: bool) -> None:
    assert plan.train is not None, "only a job that trains is recorded"
    assert plan.trained is not None, "a training leaves weights"
    content = {
        "config_sha256": numbers_hash(plan.train),
        "weights": plan.trained.name if finished else None,
        "weights_sha256": sha256_file(plan.trained) if finished else None,
    }
    atomic_write_text(plan.folder / _TRAINING_FILE, json.dumps(content, indent=1) + "\n")


def _is_trained(plan: PlannedJob) -> bool:
    """Whether a job's training is done; on rank 0 alone the answer counts."""
    path = plan.folder / _TRAINING_FILE
    if not path.is_file():
        return False
    assert plan.train is not None, "only a job that trains is asked"
    assert plan.trained is not None, "a training leaves weights"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recorded, weights_sha256 = content["config_sha256"], content["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not readable ({error}); remove it to train again") from error
    if recorded != numbers_hash(plan.train):
        raise ValueError(f"{plan.folder}: was trained with another configuration; remove it, or change OUTPUT_DIR")
    return weights_sha256 is not None and plan.trained.is_file() and sha256_file(plan.trained) == weights_sha256


def _is_tested(plan: PlannedJob) -> bool:
    """Whether a job's test is done, of the same weights under the same configuration."""
    result = _result(plan)
    cfg = plan.test
    if result is None or cfg is None:
        return False
    weights = sha256_file(cfg.TEST.CUSTOM_LOAD_FILE) if cfg.TEST.CUSTOM_LOAD else ""
    return (result.numbers_sha256, result.weights_sha256) == (numbers_hash(cfg), weights)


def _result(plan: PlannedJob) -> RunResult | None:
    path = plan.folder / "results.json"
    return read_results(path) if plan.test is not None and path.is_file() else None


def make_table(base: CfgNode, args: argparse.Namespace, planned: Sequence[PlannedJob]) -> ProtocolTable:
    """Aggregate the results of the jobs."""
    protocol = protocol_class(args.protocol)
    results = {plan.job.name: (plan.job, result.metrics) for plan in planned if (result := _result(plan))}
    records = [
        JobRecord(
            name=plan.job.name,
            dataset=plan.job.dataset,
            folder=str(plan.folder.relative_to(base.OUTPUT_DIR)),
            coverage=results[plan.job.name][1]["coverage"] if plan.job.name in results else None,
        )
        for plan in planned
    ]
    datasets = dict.fromkeys(plan.job.dataset for plan in planned if plan.test is not None)
    backbone = PUBLISHED[base.MODEL.ARCH].name if base.MODEL.ARCH in PUBLISHED else ""
    published = published_for(read_published(_PUBLISHED_FILE), args.protocol, backbone=backbone)
    return ProtocolTable(
        protocol=args.protocol,
        name=args.name or Path(args.cfg_files[0]).stem,
        titles={name: read_traits(Path(args.label_db) / name).title for name in datasets},
        columns=protocol.columns,
        cells=protocol.cells(results),
        published=[entry for entry in published if set(entry.cells) & set(datasets)],
        jobs=records,
    )


def _print_plan(planned: Sequence[PlannedJob], *, full: bool) -> None:
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
            sys.stdout.write(
                f"{plan.job.name:<20} {phase:<6} {shlex.join(words)}  videos {dataset.root}"
                f"{'  weights ' + weights if weights else ''}  -> {plan.folder}\n"
            )
