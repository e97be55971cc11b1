"""Parameter groups, optimisers and gradient clipping."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

# In the order of precedence: the first keyword found in a parameter's module path decides. "" catches the rest.
FACTOR_KEYWORDS = ("message", "stadapt", "mlp", "experts", "routing")
DEFAULT_KEYWORD = ""

_FUSED_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        names: parameter names, in the model's order.
        lr: initial learning rate, base rate times `lr_factor`.
        weight_decay: decoupled decay of the group.
        lr_factor: what the base rate is multiplied by; the schedule says what becomes of the others.
    """

    names: tuple[str, ...]
    lr: float
    weight_decay: float
    lr_factor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """What to build over the groups.

    Attributes:
        method: "sgd", "adam" or "adamw".
        base_lr: learning rate before factors.
        weight_decay: decay of the regular groups.
        bn_weight_decay: decay of batch-norm parameters.
        zero_wd_1d: no decay for vectors and biases.
        factors: keyword -> learning-rate factor, None for a single rate.
        prefix_factors: beginning of parameter names -> a further factor of theirs.
        momentum: of SGD.
        dampening: of SGD's momentum.
        nesterov: whether SGD looks ahead.
        betas: of Adam and AdamW.
        eps: of Adam and AdamW.
    """

    method: Literal["sgd", "adam", "adamw"]
    base_lr: float
    weight_decay: float
    bn_weight_decay: float = 0.0
    zero_wd_1d: bool = False
    factors: Mapping[str, float] | None = None
    prefix_factors: Mapping[str, float] = field(default_factory=dict)
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse an optimiser that does not exist."""
        if self.method not in ("sgd", "adam", "adamw"):
            raise ValueError(
                f"SOLVER.OPTIMIZING_METHOD: unknown value {self.method!r}; allowed: 'sgd', 'adam', 'adamw'"
            )
        if self.method == "sgd" and self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ValueError(
                f"SOLVER.NESTEROV: needs MOMENTUM > 0 and DAMPENING 0, found {self.momentum} and {self.dampening}"
            )


def parameter_groups(
    named_parameters: Iterable[tuple[str, Any]],
    *,
    base_lr: float,
    weight_decay: float,
    zero_wd_1d: bool,
    factors: Mapping[str, float] | None = None,
    prefix_factors: Mapping[str, float] | None = None,
    batch_norm_names: Collection[str] = (),
    bn_weight_decay: float = 0.0,
) -> list[ParameterGroup]:
    """Sort parameters into groups by module and by whether they are decayed.

    Only vectors and names ending in ".bias" escape the decay: scalars (`logit_scale`), positional embeddings and
    projections are decayed, as in PySlowFast.

    Args:
        named_parameters: (name, tensor or shape) in the model's order; frozen ones are the caller's to leave out.
        base_lr: learning rate before factors.
        weight_decay: decay of the regular groups.
        zero_wd_1d: no decay for vectors and biases.
        factors: learning-rate factor of each keyword of `FACTOR_KEYWORDS` and of `DEFAULT_KEYWORD`, 1 where absent;
            the keyword is searched in the path of the parameter's module. A factor of 0 drops the parameters.
        prefix_factors: beginning of parameter names -> a further factor, which multiplies that of the keyword; of
            several beginnings the first counts.
        batch_norm_names: names of batch-norm parameters, which have a decay of their own.
        bn_weight_decay: that decay.

    Returns: the groups that are not empty; per keyword batch norm, regular, undecayed; behind them the same for the
        names of each beginning.

    Source: STDD's rules, which extend PySlowFast's `construct_optimizer`.
    """
    norms = frozenset(batch_norm_names)
    keywords = (*FACTOR_KEYWORDS, DEFAULT_KEYWORD) if factors is not None else (DEFAULT_KEYWORD,)
    prefixes = {"": 1.0, **(prefix_factors or {})}
    members: dict[tuple[str, str, str], list[str]] = {
        (prefix, key, kind): [] for prefix in prefixes for key in keywords for kind in ("bn", "wd", "no_wd")
    }
    for name, value in named_parameters:
        module = name.rpartition(".")[0]
        prefix = next((start for start in prefixes if start and name.startswith(start)), "")
        keyword = next((key for key in keywords if key in module), DEFAULT_KEYWORD)
        if name in norms:
            kind = "bn"
        else:
            kind = "no_wd" if zero_wd_1d and (_num_dims(value) == 1 or name.endswith(".bias")) else "wd"
        members[prefix, keyword, kind].append(name)
    decays = {"bn": bn_weight_decay, "wd": weight_decay, "no_wd": 0.0}
    groups = []
    for (prefix, keyword, kind), names in members.items():
        factor = float((factors or {}).get(keyword, 1.0)) * prefixes[prefix]
        if names and factor != 0.0:
            groups.append(ParameterGroup(tuple(names), base_lr * factor, decays[kind], factor))
    return groups


def make_optimizer(
    named_parameters: Iterable[tuple[str, Tensor]], config: OptimizerConfig, *, batch_norm_names: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that train.

    Parameters of a factor 0 are frozen here (`requires_grad` False), so that no gradient is computed for them.

    Args:
        named_parameters: all parameters of the method; frozen ones are left out.
        config: the settings.
        batch_norm_names: names of batch-norm parameters.

    Returns: an optimiser whose groups carry "lr_factor" and "names".

    Raises:
        ValueError: if nothing is left to train.
    """
    trainable = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
    groups = parameter_groups(
        trainable.items(),
        base_lr=config.base_lr,
        weight_decay=config.weight_decay,
        zero_wd_1d=config.zero_wd_1d,
        factors=config.factors,
        prefix_factors=config.prefix_factors,
        batch_norm_names=batch_norm_names,
        bn_weight_decay=config.bn_weight_decay,
    )
    kept = {name for group in groups for name in group.names}
    for name, parameter in trainable.items():
        if name not in kept:
            parameter.requires_grad_(False)
    if not kept:
        raise ValueError(
            "SOLVER: no parameter is left to train; every one is frozen or has a learning-rate factor of 0"
        )
    param_dicts: list[dict[str, Any]] = [
        {
            "params": [trainable[name] for name in group.names],
            "names": list(group.names),
            "lr": group.lr,
            "weight_decay": group.weight_decay,
            "lr_factor": group.lr_factor,
        }
        for group in groups
    ]
    return _instantiate(param_dicts, config)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate_of: Callable[[float], float]) -> None:
    """Give every group the rate of its factor.

    Args:
        optimizer: built by `make_optimizer`.
        rate_of: learning rate of a factor, at this moment of the run.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate_of(group.get("lr_factor", 1.0))


def fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD the momentum of 0 that it would make in its first step; without dampening the numbers are the same.

    Its fused kernel makes it without filling it, and leaves it so where the first step is left out.

    Args:
        optimizer: any; others than SGD with momentum are left alone, and so is momentum that there is.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def clip_gradients(
    parameters: Iterable[Tensor], *, max_norm: float | None = None, max_value: float | None = None
) -> Tensor:
    """Limit the gradients in place and measure them, without waiting for the device.

    Args:
        parameters: those whose gradients count; parameters without a gradient are skipped.
        max_norm: limit of the L2 norm over all gradients together; ignored where `max_value` is given.
        max_value: limit of the absolute value of each element.

    Returns: the L2 norm before clipping, a scalar on the gradients' device.
    """
    with_grad = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in with_grad if parameter.grad is not None])
    if max_value is not None:
        torch.nn.utils.clip_grad_value_(with_grad, max_value)
    elif max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(with_grad, max_norm, norm)
    return norm


def _num_dims(value: Tensor | Sequence[int]) -> int:
    return value.ndim if isinstance(value, Tensor) else len(value)


def _instantiate(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    # One pass over parameter, gradient and moments instead of one per operation; other devices lack the kernels.
    # Dampening spares the first step, so that its momentum cannot be made beforehand (`fill_momentum`).
    fused = all(parameter.device.type in _FUSED_DEVICES for group in groups for parameter in group["params"])
    fused = fused and not (config.method == "sgd" and config.dampening)
    kernels: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
    if config.method == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.base_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            dampening=config.dampening,
            nesterov=config.nesterov,
            **kernels,
        )
    optimizer = torch.optim.Adam if config.method == "adam" else torch.optim.AdamW
    return optimizer(
        groups, lr=config.base_lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, **kernels
    )
