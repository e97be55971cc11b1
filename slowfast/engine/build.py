"""From the configuration to the engine's own objects."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from slowfast.config.node import CfgNode
from slowfast.engine.lr_policy import LrSchedule
from slowfast.engine.optim import DEFAULT_KEYWORD, OptimizerConfig, make_optimizer

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
