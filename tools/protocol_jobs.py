"""The jobs of a table: what of them is done, the others run, and the table itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import phases
import test_net
import train_net
from protocol_plan import PlannedJob, check_jobs, plan_jobs, print_plan

from slowfast.config.defaults import get_cfg
from slowfast.config.node import CfgNode, ConfigError
from slowfast.datasets.inputs import inputs_sha256
from slowfast.datasets.traits import read_traits
from slowfast.engine.average import AverageConfig
from slowfast.engine.average_run import average_run
from slowfast.engine.build import build_launch_plan
from slowfast.engine.checkpoint_files import checkpoint_folder, last_checkpoint
from slowfast.engine.launch import ProcessContext, is_first_process, launch
from slowfast.methods.build import text_files
from slowfast.models.clip.arch import PUBLISHED
from slowfast.protocols.base import Figure
from slowfast.protocols.build import build_protocol, protocol_class
from slowfast.report.protocol_table import RESULTS_FILE as TABLE_FILE
from slowfast.report.protocol_table import JobRecord, ProtocolTable, refuse_other_table
from slowfast.report.published import published_for, read_published
from slowfast.report.results import RunResult, read_results
from slowfast.utils.distributed import barrier, broadcast_object
from slowfast.utils.io import atomic_write_text, sha256_file
from slowfast.utils.logging import get_logger, setup_logging
from slowfast.utils.parser import cfg_hash, cfg_to_yaml, console_errors, numbers_hash, training_config
from slowfast.utils.run_lock import run_lock

logger = get_logger(__name__)

_PUBLISHED_FILE = Path(__file__).resolve().parent.parent / "label_db" / "published.yaml"
_TRAINING_FILE = "training.json"


def run(base: CfgNode, args: argparse.Namespace) -> int:
    """Plan the jobs, check all of them, run what is not done yet, write the table.

    Returns:
        Exit status.
    """
    status, planned = 0, []

    def prepare() -> None:
        with console_errors():
            planned.extend(plan_jobs(base, args))
        refuse_other_table(Path(base.OUTPUT_DIR) / TABLE_FILE, args.protocol)
        check_jobs(planned)

    status = phases.guard(prepare)
    if status or args.print_config or args.dry_run:
        if not status:
            print_plan(planned, full=args.print_config)
        return status
    return phases.guard(lambda: _launch(base, args, planned))


def _launch(base: CfgNode, args: argparse.Namespace, planned: Sequence[PlannedJob]) -> None:
    try:
        launch(build_launch_plan(base, init_method=args.init_method), run_jobs, planned, base.OUTPUT_DIR)
    except BaseException:
        # What was found so far stands in the table; the error is what is told.
        with contextlib.suppress(ValueError, OSError):
            _write_table(base, args, planned)
        raise
    _write_table(base, args, planned)


def _write_table(base: CfgNode, args: argparse.Namespace, planned: Sequence[PlannedJob]) -> None:
    if not is_first_process(shard_id=base.SHARD_ID):
        return
    table = make_table(base, args, planned)
    if any(job.coverage is not None for job in table.jobs):
        path = table.write(base.OUTPUT_DIR)
        sys.stdout.write(f"\n{table.markdown()}\nwrote {path}\n")


def run_jobs(context: ProcessContext, planned: Sequence[PlannedJob], output_dir: str) -> None:
    """Run the jobs that are not done, in every process of the run.

    Raises:
        ValueError: if a job fails, a training was begun with another configuration, or another run is in a folder.
    """
    with _locked(context, output_dir):
        for number, plan in enumerate(planned, start=1):
            with _locked(context, plan.folder):
                setup_logging(plan.folder, rank=context.rank)
                if context.rank == 0:
                    logger.info("Job %d of %d: %s", number, len(planned), plan.job.name)
                _run_job(context, plan)


@contextlib.contextmanager
def _locked(context: ProcessContext, folder: str | Path) -> Iterator[None]:
    """Hold a folder for this run; one process does, and the others wait for it at both ends."""
    with run_lock(folder) if context.rank == 0 else contextlib.nullcontext():
        barrier()
        yield
        barrier()


def _run_job(context: ProcessContext, plan: PlannedJob) -> None:
    if plan.train is not None and not broadcast_object(_is_trained(plan)):
        _train(context, plan)
    is_tested = plan.test is not None and broadcast_object(_is_tested(plan))
    if is_tested and context.rank == 0:
        logger.info("It was finished before; to score it again remove %s", plan.results_file)
    if plan.test is not None and not is_tested:
        barrier()  # every process has looked for the results that go now
        if context.rank == 0:
            # Their configuration goes too; those of shares that are not tested any more would stay for ever.
            for path in plan.folder.glob(f"{plan.results_file.stem}*{plan.results_file.suffix}"):
                path.unlink()
            atomic_write_text(plan.folder / "config.yaml", cfg_to_yaml(plan.train or plan.test))
        test_net.test(context, plan.test)


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
        if not plan.trained.is_file():
            raise ValueError(
                f"{plan.trained}: the training left no such file (TRAIN.KEEP_BEST, for a training that began without "
                f"it?); see {plan.folder / 'stdout.log'}, or remove {plan.folder} to train again"
            )
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
        allow_torchscript=cfg.MODEL.CLIP_ALLOW_TORCHSCRIPT,
    )
    if report.missing:
        epochs = " ".join(map(str, report.missing))
        logger.warning(
            "AVERAGE.METHOD %s: no checkpoint of epochs %s (TRAIN.CHECKPOINT_PERIOD, TRAIN.KEEP_LAST_CHECKPOINTS); "
            "the weights of the others are scaled to sum 1", cfg.AVERAGE.METHOD, epochs,
        )  # fmt: skip
    logger.info("Averaged %d checkpoints: %s", len(report.members), report.paths[cfg.AVERAGE.METHOD])


def _record_training(plan: PlannedJob, *, finished: bool) -> None:
    assert plan.train is not None, "only a job that trains is recorded"
    assert plan.trained is not None, "a training leaves weights"
    content = {
        "config_sha256": cfg_hash(training_config(plan.train)),
        "inputs_sha256": _training_inputs(plan.train),
        "weights": plan.trained.name if finished else None,
        "weights_sha256": sha256_file(plan.trained) if finished else None,
    }
    atomic_write_text(plan.folder / _TRAINING_FILE, json.dumps(content, indent=1) + "\n")


def _is_trained(plan: PlannedJob) -> bool:
    """Whether a job's training is done; on rank 0 alone the answer counts."""
    assert plan.train is not None, "only a job that trains is asked"
    assert plan.trained is not None, "a training leaves weights"
    path = plan.folder / _TRAINING_FILE
    if not path.is_file():
        if last_checkpoint(plan.folder, task=plan.train.TASK):
            raise ValueError(
                f"{plan.folder}: holds checkpoints, but not of this table; remove it, or change OUTPUT_DIR"
            )
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config, inputs, weights_sha256 = (content[f"{name}_sha256"] for name in ("config", "inputs", "weights"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not readable ({error}); remove {plan.folder} to train again") from error
    remedy = f"remove {plan.folder}, or change OUTPUT_DIR"
    if config != cfg_hash(training_config(plan.train)):
        raise ValueError(f"{path}: it was trained with another configuration{_changed_keys(plan)}; {remedy}")
    if inputs != _training_inputs(plan.train):
        raise ValueError(f"{path}: it was trained with other lists, text features or initial weights; {remedy}")
    return weights_sha256 is not None and plan.trained.is_file() and sha256_file(plan.trained) == weights_sha256


def _training_inputs(cfg: CfgNode) -> str:
    start, split = cfg.TRAIN, build_protocol(cfg).train_split()
    files = [start.CUSTOM_LOAD_FILE if start.CUSTOM_LOAD else "", start.CHECKPOINT_FILE_PATH, start.CLIP_ORI_PATH]
    files += [cfg.MODEL.CLIP_WEIGHTS, *(text_files(cfg, split.label_set) or [""])]
    return inputs_sha256([split], files)


def _changed_keys(plan: PlannedJob) -> str:
    """The keys that have other values than when a job's training began, as far as its folder tells."""
    assert plan.train is not None, "only a job that trains is asked"
    recorded = get_cfg()
    try:
        recorded.merge_from_file(str(plan.folder / "config.yaml"))
    except (OSError, ConfigError):
        return ""
    before, now = (training_config(cfg).leaves() for cfg in (recorded, plan.train))
    changed = [f"{key} was {before[key]!r}" for key in now if before[key] != now[key]]
    return f" ({', '.join(changed)})" if changed else ""


def _is_tested(plan: PlannedJob) -> bool:
    """Whether a job's test is done, of the same weights under the same configuration."""
    results = _results(plan)
    cfg = plan.test
    if cfg is None or len(results) < len(plan.results_files()):
        return False
    weights = sha256_file(cfg.TEST.CUSTOM_LOAD_FILE) if cfg.TEST.CUSTOM_LOAD else ""
    found = {(result.numbers_sha256, result.inputs_sha256, result.weights_sha256) for result in results.values()}
    return found == {(numbers_hash(cfg), test_net.test_inputs(cfg), weights)}


def _results(plan: PlannedJob) -> dict[float | None, RunResult]:
    """What the tests of a job found, by their share of raw CLIP, the figures of the job first."""
    if plan.test is None:
        return {}
    return {ratio: read_results(path) for ratio, path in plan.results_files().items() if path.is_file()}


def make_table(base: CfgNode, args: argparse.Namespace, planned: Sequence[PlannedJob]) -> ProtocolTable:
    """Aggregate the results of the jobs."""
    protocol = protocol_class(args.protocol)
    every = {plan.job.name: _results(plan) for plan in planned}
    ratios: list[float | None] = list(next((plan.ratios for plan in planned if plan.ratios), ())) or [None]
    rows = {ratio: {name: results[ratio] for name, results in every.items() if ratio in results} for ratio in ratios}
    found, *_ = rows.values()

    def cells(results: Mapping[str, RunResult]) -> Mapping[str, Mapping[str, Figure]]:
        jobs = [plan.job for plan in planned if plan.job.name in results]
        return protocol.cells({job.name: (job, results[job.name].metrics) for job in jobs})

    records = [
        JobRecord(
            name=plan.job.name,
            dataset=plan.job.dataset,
            folder=str(plan.folder.relative_to(base.OUTPUT_DIR)),
            counted=protocol.counted,
            coverage=found[plan.job.name].metrics["coverage"] if plan.job.name in found else None,
            unlike_official=found[plan.job.name].unlike_official() if plan.job.name in found else {},
        )
        for plan in planned
    ]
    datasets = dict.fromkeys(plan.job.dataset for plan in planned if plan.test is not None)
    backbone = PUBLISHED[base.MODEL.ARCH].name if base.MODEL.ARCH in PUBLISHED else ""
    published = published_for(read_published(_PUBLISHED_FILE), args.protocol, backbone=backbone)
    return ProtocolTable(
        protocol=args.protocol,
        name=_title(args, ratios[0]),
        titles={name: read_traits(Path(args.label_db) / name).title for name in datasets},
        columns=protocol.columns,
        cells=cells(found),
        variants={_title(args, ratio): cells(rows[ratio]) for ratio in ratios[1:] if rows[ratio]},
        published=[entry for entry in published if set(entry.cells) & set(datasets)],
        jobs=records,
    )


def _title(args: argparse.Namespace, ratio: float | None) -> str:
    """What our row of a share of raw CLIP is called."""
    name = args.name or Path(args.cfg_files[0]).stem
    return f"{name}, {ratio:g} of raw CLIP" if ratio else name
