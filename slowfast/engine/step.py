"""One optimiser step: forward, backward, clip, update. Variants of training are variants of this object."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slowfast.datasets.types import Batch
from slowfast.engine.optim import clip_gradients, fill_momentum
from slowfast.engine.precision import Precision
from slowfast.methods.base import MethodOutput
from slowfast.protocols.metrics import topk_correct
from slowfast.utils.distributed import all_reduce_max


@dataclass(frozen=True, kw_only=True, slots=True)
class StepConfig:
    """Numbers of a step.

    Raises:
        ValueError: if a number is out of range.
    """

    accumulation_steps: int = 1
    """Forward-backward passes that a batch is split into: less memory, the same batch. Random masks are
    drawn part by part, so that they differ from those of an unsplit batch."""
    max_grad_norm: float | None = None
    """L2 norm that gradients are clipped to."""
    max_grad_value: float | None = None
    """Absolute value that gradients are clipped to; takes precedence over the norm."""

    def __post_init__(self) -> None:
        if self.accumulation_steps < 1:
            raise ValueError(f"TRAIN.ACCUMULATION_STEPS: {self.accumulation_steps}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What a step reports; scalars stay on the device, so that the step does not wait for it."""

    loss: Tensor
    grad_norm: Tensor
    """L2 norm before clipping."""
    nonfinite: Tensor
    """1 if the step was left out because the loss of some process, or the gradient, is not finite; else 0."""
    top1_err: Tensor
    """Percent of this process's batch."""
    top5_err: Tensor
    terms: dict[str, Tensor]
    """Terms of the loss and further figures of the method, by name."""


class Step(ABC):
    """Moves the parameters by one batch."""

    @abstractmethod
    def __call__(self, batch: Batch) -> StepResult:
        """Learn from a batch that lies on the device of the model."""


class PlainStep(Step):
    """Gradient of the sum of the method's losses, clipped, then the optimiser's update.

    Where the loss of any process or the gradient is not finite, the update is left out, on all processes alike and
    without waiting for the device. Under a gradient scaler an overflowing gradient is part of its search for a scale:
    it leaves the update out too, but only a loss that is not finite counts as a fault.

    Args:
        model: the method, or its DistributedDataParallel wrapper.
        optimizer: over the method's trainable parameters.
        scaler: gradient scaler; inactive outside fp16.
        precision: dtype of the forward.
        config: numbers of the step.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        precision: Precision,
        config: StepConfig,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scaler = scaler
        self.precision = precision
        self.config = config
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def __call__(self, batch: Batch) -> StepResult:
        """Learn from a batch, of B clips or E episodes."""
        parts = self.begin(batch)
        outputs = self.accumulate(parts)
        return self.finish(batch, parts, outputs)

    def begin(self, batch: Batch) -> list[Batch]:
        """Forget the gradients of the last step and cut the batch into the parts that are computed one by one."""
        self.optimizer.zero_grad(set_to_none=True)
        return list(batch.split(self.config.accumulation_steps))

    def accumulate(self, parts: list[Batch], *, weight: float = 1.0, exchange: bool = True) -> list[MethodOutput]:
        """Add the gradient of the loss, at the parameters as they are, to the gradients gathered so far.

        Args:
            parts: of one batch.
            weight: factor of the loss.
            exchange: whether ranks exchange gradients with the last part; the last call of a step must.

        Returns:
            Detached outputs of the parts, losses without the factor.
        """
        size = sum(len(part) for part in parts)
        outputs = []
        for number, part in enumerate(parts):
            exchanges = exchange and number == len(parts) - 1
            with contextlib.nullcontext() if exchanges else self._without_gradient_exchange():
                outputs.append(self._backward(part, factor=weight * len(part) / size))
        return outputs

    def finish(self, batch: Batch, parts: list[Batch], outputs: list[MethodOutput]) -> StepResult:
        """Clip the gathered gradients, update the parameters, and report the outputs of the parts."""
        result = _summarise(outputs, parts, batch)
        fault = result.loss.isfinite().logical_not()
        if self.scaler.is_enabled():
            fault = all_reduce_max(fault.float())
            self._spoil_gradient_if(fault)
        self.scaler.unscale_(self.optimizer)
        grad_norm = clip_gradients(
            self.parameters, max_norm=self.config.max_grad_norm, max_value=self.config.max_grad_value
        )
        fill_momentum(self.optimizer)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            fault = all_reduce_max((fault | grad_norm.isfinite().logical_not()).float())
            self._update_unless(fault)
        return replace(result, grad_norm=grad_norm.detach(), nonfinite=fault)

    def _spoil_gradient_if(self, fault: Tensor) -> None:
        """Where the flag is 1, let the scaler find a bad gradient: a term that is not finite may have none."""
        gradient = next(p.grad for p in self.parameters if p.grad is not None)
        gradient.add_(torch.where(fault > 0, torch.nan, 0.0))

    def _update_unless(self, nonfinite: Tensor) -> None:
        """Let the optimiser move the parameters and its moments, unless the flag is 1; both stay as they are then."""
        if not all(group.get("fused") for group in self.optimizer.param_groups):
            # Only the fused kernels read the flag on the device. Others serve devices for which PyTorch has none.
            if not nonfinite.item():
                self.optimizer.step()
            return
        # The way by which a gradient scaler talks to a fused optimiser.
        flags: dict[str, Tensor | None] = {"grad_scale": None, "found_inf": nonfinite}
        vars(self.optimizer).update(flags)
        try:
            self.optimizer.step()
        finally:
            for name in flags:
                delattr(self.optimizer, name)

    def _backward(self, part: Batch, *, factor: float) -> MethodOutput:
        with self.precision.autocast():
            output: MethodOutput = self.model(part)
            loss = torch.stack(list(output.losses.values())).sum() * factor
        self.scaler.scale(loss).backward()
        return MethodOutput(
            output.logits.detach(), {name: value.detach() for name, value in output.losses.items()}, output.log
        )

    def _without_gradient_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Ranks exchange gradients once per step, with the last part.

        A static graph is recorded in the first backward pass and needs the exchange there, so it has one in every part.
        """
        if isinstance(self.model, nn.parallel.DistributedDataParallel) and not self.model.static_graph:
            return self.model.no_sync()
        return contextlib.nullcontext()


def error_percent(logits: Tensor, label: Tensor, *, k: int) -> Tensor:
    """Percent of samples whose label is not among the k best of K classes, (B, K) and (B,) -> scalar."""
    return 100.0 - 100.0 * topk_correct(logits, label, k=k).float().mean()


def fold_top2(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Give each mixed sample one label: the scores of its two classes count together, for the heavier one.

    The heavier class receives the probability of both, the other one none. Published code adds the logits instead,
    which suits scores around 0: the logits of CLIP are all positive, and the sum of any two of them beats every other.
    Without soft targets nothing changes.

    Args:
        logits: scores, (B, K); left as they are.
        target: class numbers, (B,), or weights, (B, K).

    Returns:
        Scores, (B, K), and class numbers, (B,).

    Source: the figure that PySlowFast logs with MixUp, made independent of an offset of the scores.
    """
    if target.ndim == 1:
        return logits, target
    best = target.topk(min(2, target.shape[1]), dim=1).indices
    first, second, logits = best[:, :1], best[:, -1:], logits.float()
    both = torch.logaddexp(logits.gather(1, first), logits.gather(1, second))
    return logits.scatter(1, second, -torch.inf).scatter(1, first, both), first.squeeze(1)


def _summarise(outputs: list[MethodOutput], parts: list[Batch], batch: Batch) -> StepResult:
    """Figures of a step but for those of its gradient."""
    shares = [len(part) / len(batch) for part in parts]

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([value.float() * share for value, share in zip(values, shares, strict=True)]).sum()

    terms = {f"loss_{name}": mean([output.losses[name] for output in outputs]) for name in outputs[0].losses}
    logits, label = fold_top2(torch.cat([output.logits for output in outputs]), batch.target)
    loss = torch.stack(list(terms.values())).sum()
    return StepResult(
        loss=loss,
        grad_norm=torch.zeros_like(loss),
        nonfinite=torch.zeros_like(loss),
        top1_err=error_percent(logits, label, k=1),
        top5_err=error_percent(logits, label, k=5),
        terms=terms | {name: mean([output.log[name] for output in outputs]) for name in outputs[0].log},
    )
