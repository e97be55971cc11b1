"""Train a method."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from slowfast.config.node import CfgNode
from slowfast.datasets.build import (
    build_episode_plan,
    build_mixup,
    build_plan_loader,
    build_split_loader,
    check_split,
)
from slowfast.datasets.episodes import EpisodePlan
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.train_loader import TrainLoader
from slowfast.datasets.types import Mode, Split, VideoBatch
from slowfast.engine.build import (
    build_episode_head,
    build_lr_schedule,
    build_optimizer,
    build_step,
    build_train_config,
    how_computed,
    read_named_checkpoint,
    refuse_other_training,
    refuse_other_validation,
    training_inputs,
)
from slowfast.engine.checkpoint import read_checkpoint, resume
from slowfast.engine.checkpoint_files import Manifest, checkpoint_folder, find_resumable, set_checkpoints_aside
from slowfast.engine.complexity import describe
from slowfast.engine.episodes import evaluate_episodes
from slowfast.engine.evaluator import EvalConfig, gather_tally, score_videos
from slowfast.engine.launch import ProcessContext, first_on_machine
from slowfast.engine.licenses import binding_licenses, tell_licenses
from slowfast.engine.meters import ValMeter, least_errors, read_validations
from slowfast.engine.precision import Precision
from slowfast.engine.progress import Progress
from slowfast.engine.tested_weights import load_into
from slowfast.engine.trainer import Trainer
from slowfast.methods.base import Method
from slowfast.methods.build import build_method, text_files
from slowfast.protocols.base import EvalProtocol
from slowfast.protocols.build import build_protocol
from slowfast.protocols.metrics import Tally
from slowfast.report.tensorboard import TensorboardWriter
from slowfast.utils.distributed import broadcast_object, is_master
from slowfast.utils.io import atomic_write_text, remove_parts
from slowfast.utils.logging import JSON_STATS_FILE, get_logger, log_json_stats, setup_logging
from slowfast.utils.parser import cfg_to_yaml
from slowfast.utils.seed import make_deterministic, seed_everything

logger = get_logger(__name__)

# Every rank holds the same constants, the text features among them: no forward needs to exchange them. The argument
# changed its name with torch 2.15.
_NO_BUFFER_SYNC: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}


def train(context: ProcessContext, cfg: CfgNode) -> None:
    """Train from the configuration's start to its last epoch, in every process of the run.

    Raises:
        ValueError: if something the run needs is not usable.
    """
    start_phase(context, cfg)
    protocol = build_protocol(cfg)
    train_split, val_split = protocol.train_split(), protocol.val_split()
    loader = TrainLoader(split_loader(cfg, context, train_split))
    plan = build_episode_plan(val_split, cfg=cfg) if val_split.episodes is not None else None
    for split in protocol.eval_splits() if plan is not None and cfg.TEST.ENABLE else ():
        check_split(split, cfg=cfg)  # a test whose episodes cannot be drawn would fail after all epochs
    val_loader = split_loader(cfg, context, val_split) if plan is None else plan_loader(cfg, context, plan, mode="val")
    mix = build_mixup(cfg, len(train_split.label_set))
    with first_on_machine(context):
        method = build_method(cfg, train_split.label_set, device=context.device)
    optimizer = build_optimizer(cfg, method)  # freezes what a factor of 0 says
    if cfg.LOG_MODEL_INFO and context.rank == 0:
        logger.info("Model: %s", describe(method, num_frames=cfg.DATA.NUM_FRAMES, side=cfg.DATA.TRAIN_CROP_SIZE))
    step, scaler = build_step(cfg, _wrap(method, cfg, context), optimizer, device=context.device)
    texts = text_files(cfg, train_split.label_set)
    inputs, computed = training_inputs(cfg, train_split, texts=texts), how_computed(cfg, context)
    start, license_ = _initialise(cfg, method, optimizer, scaler, inputs_sha256=inputs, computed=computed)
    if context.rank == 0:
        save_config(cfg)
        _warn_of_choice(cfg, protocol, val_split)
    with contextlib.ExitStack() as stack:
        writer = None
        if cfg.TENSORBOARD.ENABLE and context.rank == 0:
            folder = Path(cfg.OUTPUT_DIR) / (cfg.TENSORBOARD.LOG_DIR or "tensorboard")
            writer = stack.enter_context(TensorboardWriter(folder))
        validated = _validated_before(cfg, start)
        best = least_errors(validated.values())
        meter = ValMeter(max_epoch=cfg.SOLVER.MAX_EPOCH, best=best, alone=cfg.VAL_MODE)
        score = (
            _video_errors(cfg, context, method, val_loader, num_classes=len(val_split.label_set))
            if plan is None
            else _episode_errors(cfg, context, method, val_loader, plan=plan, label_set=val_split.label_set)
        )
        validate = _validation(cfg, score, meter=meter, batches=len(val_loader), steps=len(loader), writer=writer)
        if cfg.VAL_MODE:
            validate(max(start.epoch - 1, 0))
            return
        trainer = Trainer(
            method,
            step=step,
            optimizer=optimizer,
            scaler=scaler,
            schedule=build_lr_schedule(cfg),
            device=context.device,
            config=build_train_config(cfg, inputs_sha256=inputs, computed=computed, license_=license_),
            interrupts=context.interrupts,
            validate=validate,
            validated=validated,
            on_scalars=writer,
            mix=mix,
        )
        trainer.fit(loader, start=start)


def _warn_of_choice(cfg: CfgNode, protocol: EvalProtocol, val_split: Split) -> None:
    """Say where the best epoch is chosen on the videos that are tested, as few-shot lists have it."""
    if cfg.TRAIN.KEEP_BEST and val_split.csv in {split.csv for split in protocol.eval_splits()}:
        logger.warning(
            "TRAIN.KEEP_BEST: %s chooses the epoch, and is tested too: its figures will be too high", val_split.csv
        )


def start_phase(context: ProcessContext, cfg: CfgNode) -> None:
    """Open this process's logs and seed it."""
    setup_logging(cfg.OUTPUT_DIR, rank=context.rank)
    make_deterministic(cfg.DETERMINISTIC)
    seed_everything(cfg.RNG_SEED)


def save_config(cfg: CfgNode) -> None:
    """Write the resolved configuration into OUTPUT_DIR; one process does."""
    atomic_write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", cfg_to_yaml(cfg))


def _wrap(method: Method, cfg: CfgNode, context: ProcessContext) -> nn.Module:
    if context.world_size == 1:
        return method
    return DistributedDataParallel(
        method,
        device_ids=[context.device.index] if context.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        static_graph=cfg.MODEL.STATIC_GRAPH,
        **_NO_BUFFER_SYNC,
    )


def _initialise(
    cfg: CfgNode,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    inputs_sha256: str,
    computed: Mapping[str, str | int],
) -> tuple[Progress, str]:
    """Load what the run starts from, or goes on from.

    Returns:
        Where to start, and the licence of what is made of these weights, "" for none.
    """
    clips = [cfg.MODEL.CLIP_WEIGHTS, cfg.TRAIN.CLIP_ORI_PATH if cfg.TRAIN.LINEAR_CONNECT_CLIMB else None]
    licenses = binding_licenses(clips)
    # Rank 0 decides: where machines do not share the folder, the others fail instead of starting at another place.
    source = own = broadcast_object(_find_own(cfg) if is_master() else None)
    epoch_reset = False
    if cfg.TRAIN.CUSTOM_LOAD_FILE and not cfg.TRAIN.CUSTOM_LOAD:
        logger.warning("TRAIN.CUSTOM_LOAD_FILE has no effect without TRAIN.CUSTOM_LOAD True: it is not read")
    if source is None and cfg.TRAIN.CUSTOM_LOAD:
        custom = read_checkpoint(cfg.TRAIN.CUSTOM_LOAD_FILE, allow_torchscript=cfg.MODEL.CLIP_ALLOW_TORCHSCRIPT)
        load_into(method, custom.model_state, source=custom.path, activation=custom.activation)
        licenses[str(custom.path)] = custom.license
    if source is None and cfg.TRAIN.CHECKPOINT_FILE_PATH:
        source, epoch_reset = Path(cfg.TRAIN.CHECKPOINT_FILE_PATH), cfg.TRAIN.CHECKPOINT_EPOCH_RESET
    if source is None:
        if cfg.VAL_MODE and method.needs_weights and not cfg.TRAIN.CUSTOM_LOAD:
            raise ValueError(
                f"{method.needs_weights} where no weights are named, and OUTPUT_DIR holds none; allowed with VAL_MODE "
                "True: TRAIN.CHECKPOINT_FILE_PATH, or TRAIN.CUSTOM_LOAD_FILE with TRAIN.CUSTOM_LOAD True"
            )
        return Progress(), tell_licenses(licenses)
    checkpoint = read_named_checkpoint(cfg, source)
    licenses[str(source)] = checkpoint.license
    if not epoch_reset:
        refuse_other_training(cfg, checkpoint, inputs_sha256=inputs_sha256, computed=computed)
    if own is not None:
        refuse_other_validation(cfg, checkpoint)
    prefixes = (*method.optional_prefixes, *method.transient_prefixes)
    start = resume(
        checkpoint,
        method,
        optimizer=optimizer,
        scaler=scaler if scaler.is_enabled() else None,
        epoch_reset=epoch_reset,
        allow_missing=prefixes,
        allow_unexpected=prefixes,
    )
    what = "episodes" if cfg.EPISODES.TRAIN else "videos"
    if (start.epoch, start.videos) > (cfg.SOLVER.MAX_EPOCH, 0):
        raise ValueError(
            f"{source}: has come further than SOLVER.MAX_EPOCH {cfg.SOLVER.MAX_EPOCH}: {start.epoch} epochs"
            f"{f' and {start.videos} {what}' if start.videos else ''}; "
            "set TRAIN.CHECKPOINT_EPOCH_RESET True to take its weights alone"
        )
    behind = f", behind the first {start.videos} {what}" if start.videos else ""
    logger.info("Continuing from %s at epoch %d%s", source, start.epoch + 1, behind)
    return start, tell_licenses(licenses)


def _find_own(cfg: CfgNode) -> Path | None:
    """The checkpoint of OUTPUT_DIR to go on from; what interrupted writes left beside it goes."""
    folder = checkpoint_folder(cfg.OUTPUT_DIR)
    for part in remove_parts(folder):
        logger.info("Removed %s, which was never finished", part)
    Manifest.read(folder)  # a damaged one would be in the way of the first checkpoint, after hours
    if cfg.TRAIN.AUTO_RESUME:
        return find_resumable(cfg.OUTPUT_DIR, task=cfg.TASK)
    aside = None if cfg.VAL_MODE else set_checkpoints_aside(cfg.OUTPUT_DIR)
    if aside:
        logger.warning("TRAIN.AUTO_RESUME is False: the checkpoints that were there are now in %s", aside)
    return None


def _validated_before(cfg: CfgNode, start: Progress) -> dict[int, dict[str, float]]:
    """Epochs of this run that were validated before it was interrupted, and their errors; rank 0 reads the log."""
    found = read_validations(Path(cfg.OUTPUT_DIR) / JSON_STATS_FILE) if is_master() else {}
    return {epoch: errors for epoch, errors in broadcast_object(found).items() if epoch < start.epoch}


def _video_errors(
    cfg: CfgNode, context: ProcessContext, method: Method, loader: DataLoader[VideoBatch], *, num_classes: int
) -> Callable[[], tuple[float, float]]:
    """Make the function that scores the validation split video by video; it gives the top-1 and top-5 error."""
    config = EvalConfig(clips_per_forward=max(1, cfg.TRAIN.BATCH_SIZE // context.local_world_size))
    precision = Precision(context.device.type)

    def score() -> tuple[float, float]:
        tally = Tally(num_classes)
        bad: list[str] = []
        for batch in score_videos(method, loader, precision=precision, device=context.device, config=config):
            tally.add(batch.logits, batch.label)
            bad.extend(batch.bad)
        tally, _ = gather_tally(tally, bad)
        return 100.0 - tally.top1_acc, 100.0 - tally.top5_acc

    return score


def _episode_errors(
    cfg: CfgNode,
    context: ProcessContext,
    method: Method,
    loader: DataLoader[VideoBatch],
    *,
    plan: EpisodePlan,
    label_set: LabelSet,
) -> Callable[[], tuple[float, float]]:
    """Make the function that scores the episodes of the validation split; it gives the top-1 and top-5 error."""
    config = EvalConfig(clips_per_forward=max(1, cfg.TEST.BATCH_SIZE // context.local_world_size))
    head = build_episode_head(cfg, method, label_set)

    def score() -> tuple[float, float]:
        counts, _ = evaluate_episodes(
            method,
            head,
            plan,
            loader,
            num_frames=cfg.DATA.NUM_FRAMES,
            num_classes=len(label_set),
            device=context.device,
            config=config,
            memo_bytes=cfg.EPISODES.MEMO_GB * 1e9,
        )
        return 100.0 - counts.episodes.accuracy, 100.0 - counts.tally.top5_acc

    return score


def _validation(
    cfg: CfgNode,
    score: Callable[[], tuple[float, float]],
    *,
    meter: ValMeter,
    batches: int,
    steps: int,
    writer: TensorboardWriter | None,
) -> Callable[[int], None]:
    """Make the function that scores the validation split after an epoch and reports.

    Args:
        cfg: the resolved configuration.
        score: gives the top-1 and top-5 error.
        meter: of the run.
        batches: of the split, on this process.
        steps: of a training epoch.
        writer: of TensorBoard.
    """

    def validate(epoch: int) -> None:
        start = time.perf_counter()
        top1_err, top5_err = score()
        stats = meter.epoch_stats(
            epoch,
            top1_err=top1_err,
            top5_err=top5_err,
            seconds=(time.perf_counter() - start) / max(1, batches),
        )
        log_json_stats(stats, cfg.OUTPUT_DIR)
        if writer is not None:
            errors = {f"val/{name}": value for name, value in stats.items() if isinstance(value, float)}
            writer((epoch + 1) * steps - 1, errors)

    return validate


def split_loader(cfg: CfgNode, context: ProcessContext, split: Split) -> DataLoader[Any]:
    """The loader of this process's share of a split."""
    return build_split_loader(
        split,
        cfg=cfg,
        rank=context.rank,
        world_size=context.world_size,
        local_world_size=context.local_world_size,
    )


def plan_loader(
    cfg: CfgNode, context: ProcessContext, plan: EpisodePlan, *, mode: Mode, skip: Collection[int] = ()
) -> DataLoader[VideoBatch]:
    """The loader of this process's share of the clips that episodes are made of."""
    return build_plan_loader(
        plan,
        mode=mode,
        cfg=cfg,
        rank=context.rank,
        world_size=context.world_size,
        local_world_size=context.local_world_size,
        skip=skip,
    )
