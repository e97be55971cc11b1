"""From the configuration to the engine's own objects."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from slowfast.config.node import CfgNode
from slowfast.engine.average import patch_state
from slowfast.engine.checkpoint import (
    check_activation,
    last_checkpoint,
    load_model_state,
    read_checkpoint,
)
from slowfast.engine.interpolated_step import InterpolatedWeightStep, InterpolationConfig, RawClip, clip_parameters
from slowfast.engine.lr_policy import LrSchedule
from slowfast.engine.optim import DEFAULT_KEYWORD, OptimizerConfig, make_optimizer
from slowfast.engine.precision import choose_precision
from slowfast.engine.step import PlainStep, Step, StepConfig
from slowfast.methods.base import Method
from slowfast.models.clip.experts import experts_like_clip
from slowfast.models.clip.layers import Activation
from slowfast.models.clip.layouts import CLIP_PREFIX
from slowfast.models.clip.weights import read_clip
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

# `mt_adamw` named the multi-tensor AdamW before it became AdamW's default; old YAMLs keep loading.
_OPTIMIZER_ALIASES = {"mt_adamw": "adamw"}


def build_lr_schedule(cfg: CfgNode) -> LrSchedule:
    """Read the learning-rate schedule from the SOLVER keys.

    Args:
        cfg: the resolved configuration.
    """
    solver = cfg.SOLVER
    return LrSchedule(
        base_lr=solver.BASE_LR,
        max_epoch=solver.MAX_EPOCH,
        policy=solver.LR_POLICY,
        cosine_end_lr=solver.COSINE_END_LR,
        warmup_epochs=solver.WARMUP_EPOCHS,
        warmup_start_lr=solver.WARMUP_START_LR,
        cosine_after_warmup=solver.COSINE_AFTER_WARMUP,
        cosine_restart_epoch=solver.COSINE_RESTART_EPOCH,
        steps=tuple(solver.STEPS),
        lrs=tuple(solver.LRS),
    )


def build_optimizer(
    cfg: CfgNode, named_parameters: Iterable[tuple[str, Tensor]], *, batch_norm_names: Iterable[str] = ()
) -> torch.optim.Optimizer:
    """Build the optimiser of the SOLVER keys over a method's trainable parameters.

    Args:
        cfg: the resolved configuration.
        named_parameters: (name, parameter) pairs of the unwrapped method, frozen ones included or not.
        batch_norm_names: names of batch-norm parameters; the ViTs have none.
    """
    solver = cfg.SOLVER
    if solver.LAYER_DECAY != 1.0:
        raise ValueError(f"SOLVER.LAYER_DECAY: {solver.LAYER_DECAY} matches no name of a CLIP model; allowed: 1.0")
    config = OptimizerConfig(
        method=_OPTIMIZER_ALIASES.get(solver.OPTIMIZING_METHOD, solver.OPTIMIZING_METHOD),
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        bn_weight_decay=cfg.BN.WEIGHT_DECAY,
        zero_wd_1d=solver.ZERO_WD_1D_PARAM,
        factors=_learning_rate_factors(cfg),
        momentum=solver.MOMENTUM,
        dampening=solver.DAMPENING,
        nesterov=solver.NESTEROV,
        betas=(solver.BETAS[0], solver.BETAS[1]),
    )
    return make_optimizer(named_parameters, config, batch_norm_names=tuple(batch_norm_names))


def _learning_rate_factors(cfg: CfgNode) -> dict[str, float] | None:
    """Factor per keyword, or None where no key asks for any; ROUTING alone does not, as published."""
    model = cfg.MODEL
    factors = {
        "message": model.FINETUNE_FACTOR,
        "stadapt": model.ADAPT_FINETUNE_FACTOR,
        "mlp": model.MLP_FINETUNE_FACTOR,
        "experts": model.EXPERT_FINETUNE_FACTOR,
        DEFAULT_KEYWORD: model.DEFAULT_FINETUNE_FACTOR,
    }
    if all(factor == 1.0 for factor in factors.values()):
        return None
    return {**factors, "routing": model.ROUTING_FINETUNE_FACTOR}


def build_step(
    cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer, *, device: torch.device
) -> tuple[Step, torch.amp.GradScaler]:
    """Build the object that moves the parameters by one batch.

    Args:
        cfg: the resolved configuration.
        model: the method, or its DistributedDataParallel wrapper. Where TRAIN.LINEAR_CONNECT_CLIMB needs raw CLIP and
            TRAIN.CLIP_ORI_PATH names none, it is what the method holds now: load checkpoints afterwards.
        optimizer: over the method's parameters.
        device: where the method lies.

    Returns:
        The step, and its gradient scaler, whose state belongs into checkpoints.

    Raises:
        ValueError: if raw CLIP is needed and its file does not fit.
    """
    precision = choose_precision(device, mixed=cfg.TRAIN.MIXED_PRECISION, amp_dtype=cfg.TRAIN.AMP_DTYPE)
    scaler = precision.make_scaler()
    config = StepConfig(
        accumulation_steps=cfg.TRAIN.ACCUMULATION_STEPS,
        max_grad_norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
        max_grad_value=cfg.SOLVER.CLIP_GRAD_VAL,
    )
    logger.info("Computing in %s on %s", precision.dtype or torch.float32, device)
    plain = PlainStep(model, optimizer=optimizer, scaler=scaler, precision=precision, config=config)
    if not cfg.TRAIN.LINEAR_CONNECT_CLIMB:
        return plain, scaler
    interpolation = InterpolationConfig(
        loss_ratio=cfg.TRAIN.LINEAR_CONNECT_LOSS_RATIO,
        sample_low=cfg.TRAIN.LINEAR_CONNECT_SAMPLE_L,
        sample_high=cfg.TRAIN.LINEAR_CONNECT_SAMPLE_R,
    )
    method = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    raw_clip = _raw_clip(cfg, method)
    return InterpolatedWeightStep(plain, raw_clip=raw_clip, config=interpolation), scaler


def _raw_clip(cfg: CfgNode, method: nn.Module) -> RawClip:
    """Raw CLIP of TRAIN.CLIP_ORI_PATH, or the one that the method was built from."""
    source = cfg.TRAIN.CLIP_ORI_PATH
    if not source:
        logger.info("TRAIN.LINEAR_CONNECT_CLIMB: raw CLIP is the CLIP that the model was built from")
        return RawClip(method, clip_parameters(method), source="TRAIN.LINEAR_CONNECT_CLIMB")
    weights = _named_clip(cfg, method, key="TRAIN.CLIP_ORI_PATH", source=source)
    return RawClip(method, weights, source=f"TRAIN.CLIP_ORI_PATH: {source}")


def _named_clip(cfg: CfgNode, method: nn.Module, *, key: str, source: str) -> dict[str, Tensor]:
    """Read the raw CLIP that a key names, for a method with the same activation.

    Raises:
        ValueError: naming the key, if it is not usable.
    """
    try:
        clip = read_clip(
            source,
            cache_dir=cfg.MODEL.CLIP_CACHE_DIR or None,
            allow_torchscript=cfg.MODEL.CLIP_ALLOW_TORCHSCRIPT,
        )
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    check_activation(method, clip.activation, source=f"{key}: {source}")
    return clip.state


def load_test_weights(cfg: CfgNode, method: Method) -> Path | None:
    """Load the weights that a test scores into a method.

    The order is the published one: TEST.CUSTOM_LOAD_FILE if TEST.CUSTOM_LOAD, mixed with raw CLIP if
    TEST.PATCHING_MODEL; else TEST.CHECKPOINT_FILE_PATH, the last checkpoint of OUTPUT_DIR, TRAIN.CHECKPOINT_FILE_PATH,
    and CLIP as it was built.

    Returns:
        The file, or None for CLIP as it was built.

    Raises:
        ValueError: if the file is not usable.
    """
    test, source = cfg.TEST, None
    if test.CUSTOM_LOAD:
        source = test.CUSTOM_LOAD_FILE
    else:
        if test.PATCHING_MODEL:
            logger.warning("TEST.PATCHING_MODEL has no effect without TEST.CUSTOM_LOAD: no raw CLIP is mixed in")
        last = last_checkpoint(cfg.OUTPUT_DIR, task=cfg.TASK)
        source = test.CHECKPOINT_FILE_PATH or last or cfg.TRAIN.CHECKPOINT_FILE_PATH
    if not source:
        logger.info("Testing CLIP as it was built: no checkpoint is named, and OUTPUT_DIR holds none")
        return None
    checkpoint = read_checkpoint(source, clear_name_patterns=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN)
    state = checkpoint.model_state
    if test.CUSTOM_LOAD and test.PATCHING_MODEL:
        clip = _named_clip(cfg, method, key="TEST.CLIP_ORI_PATH", source=test.CLIP_ORI_PATH)
        clip |= experts_like_clip(clip, [name.removeprefix(CLIP_PREFIX) for name in state])
        state = patch_state(clip, state, ratio=test.PATCHING_RATIO)
        logger.info("Mixed raw CLIP into the weights, ratio %s", test.PATCHING_RATIO)
    load_into(method, state, source=source, activation=checkpoint.activation)
    return Path(source)


def load_into(
    method: Method, state: dict[str, Tensor], *, source: str | Path, activation: Activation | None = None
) -> None:
    """Load weights into a method; only what the method declares optional or transient may differ.

    Args:
        method: the unwrapped method.
        state: weights under our names.
        source: the file, for the error.
        activation: what they were trained with, None where it is unknown.

    Raises:
        ValueError: if the weights do not fit, or the method has another activation.
    """
    check_activation(method, activation, source=source)
    report = load_model_state(
        method,
        state,
        source=source,
        allow_missing=(*method.optional_prefixes, *method.transient_prefixes),
        allow_unexpected=(*method.optional_prefixes, *method.transient_prefixes),
    )
    logger.info("Loaded %s; %d optional entries absent, %d not used", source, len(report.missing), len(report.unused))
