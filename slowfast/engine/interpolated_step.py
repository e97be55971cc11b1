"""Interpolated-weight regularisation: every step also descends from a random point on the way back to raw CLIP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slowfast.datasets.types import Batch
from slowfast.engine.step import PlainStep, Step, StepResult
from slowfast.methods.base import MethodOutput
from slowfast.models.clip.arch import has_resnet, read_sizes
from slowfast.models.clip.layouts import CLIP_PREFIX
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.tc_clip_entries import of_all_frames, of_one_frame


@dataclass(frozen=True, kw_only=True, slots=True)
class InterpolationConfig:
    """Numbers of the regularisation.

    Raises:
        ValueError: if a number is out of range.
    """

    loss_ratio: float
    """Weight of the loss at the interpolation, > 0."""
    sample_low: float
    """Least share of raw CLIP in the interpolation, [0, 1)."""
    sample_high: float
    """Bound of that share, (sample_low, 1]."""

    def __post_init__(self) -> None:
        if not self.loss_ratio > 0:
            raise ValueError(f"TRAIN.LINEAR_CONNECT_LOSS_RATIO: {self.loss_ratio}; it must be above 0")
        if not 0 <= self.sample_low < self.sample_high <= 1:
            raise ValueError(
                f"TRAIN.LINEAR_CONNECT_SAMPLE_L: {self.sample_low} and TRAIN.LINEAR_CONNECT_SAMPLE_R: "
                f"{self.sample_high}; expected 0 <= L < R <= 1"
            )

    def draw(self) -> float:
        """Draw the share of raw CLIP.

        It is one number of the global CPU generator, whatever the device: the step's first, before a forward could
        draw any. The trainer seeds that generator before every step, alike on all ranks, so the ranks agree without
        talking to each other.
        """
        uniform = torch.rand((), dtype=torch.float64, device="cpu").item()
        return self.sample_low + (self.sample_high - self.sample_low) * uniform


class RawClip:
    """Moves a method's CLIP towards raw CLIP and back, in place.

    The parameters stay the tensors they are, so that compiled code, the buckets of DistributedDataParallel and the
    optimiser keep working. What this costs is two copies of them: raw CLIP, and the weights to come back to.

    Args:
        method: the unwrapped method; parameters that CLIP lacks (adapters, projectors, heads) are left alone.
        weights: raw CLIP under OpenAI's names; it is copied.
        source: what to call the weights in an error.

    Raises:
        ValueError: if the weights are not those of a CLIP of the method's sizes.
    """

    def __init__(self, method: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
        own = clip_parameters(method)
        missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        if missing or unexpected:
            raise ValueError(
                f"{source}: is not raw CLIP of the model's sizes: {len(missing)} entries missing {missing[:3]}, "
                f"{len(unexpected)} unexpected {unexpected[:3]}"
            )
        weights = {name: of_all_frames(name, weights[name], tuple(p.shape)) for name, p in own.items()}
        for name, parameter in own.items():
            if weights[name].shape != parameter.shape:
                raise ValueError(
                    f"{source}: {name} has shape {tuple(weights[name].shape)}, the model {tuple(parameter.shape)}"
                )
        self.parameters: list[Tensor] = list(own.values())
        with torch.no_grad():
            self.raw = [torch.empty_like(p).copy_(weights[name]) for name, p in own.items()]
            self.saved = [torch.empty_like(p) for p in self.parameters]

    @contextlib.contextmanager
    def interpolated(self, share: float) -> Iterator[None]:
        """Put the parameters at ``share * raw CLIP + (1 - share) * themselves``; afterwards they are what they were.

        Args:
            share: of raw CLIP, [0, 1].
        """
        with torch.no_grad():
            torch._foreach_copy_(self.saved, self.parameters)
        try:
            with torch.no_grad():
                torch._foreach_lerp_(self.parameters, self.raw, share)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.saved)


class InterpolatedWeightStep(Step):
    """Descends along the gradient of the loss plus ``loss_ratio`` times its gradient at an interpolation with raw CLIP.

    Every step draws one share of raw CLIP. The gradient at the interpolation is applied to the weights as they are,
    without the factor ``1 - share`` of the chain rule, and is taken on the same batch, behind the ordinary one; random
    masks are drawn anew for each of the two. What the step reports belongs to the ordinary pass; ``loss_interpolated``
    is the other loss, weight applied.

    Args:
        plain: computes gradients and applies them.
        raw_clip: where the interpolation goes.
        config: numbers of the regularisation.

    Source: Open-VCLIP (ICML 2023), interpolated weight regularisation; the gradient is that of the published code.
    """

    def __init__(self, plain: PlainStep, *, raw_clip: RawClip, config: InterpolationConfig) -> None:
        self.plain = plain
        self.raw_clip = raw_clip
        self.config = config

    def __call__(self, batch: Batch) -> StepResult:
        """Learn from a batch, of B clips or E episodes."""
        share = self.config.draw()
        parts = self.plain.begin(batch)
        # First at the weights as they are: what a method keeps from its first forward is then not of the interpolation.
        outputs = self.plain.accumulate(parts, exchange=False)
        with self.raw_clip.interpolated(share):
            others = self.plain.accumulate(parts, weight=self.config.loss_ratio)
        result = self.plain.finish(batch, parts, outputs)
        return replace(
            result, terms=result.terms | {"loss_interpolated": self.config.loss_ratio * _mean_loss(others, parts)}
        )


def clip_parameters(method: nn.Module, *, source: str = "TRAIN.LINEAR_CONNECT_CLIMB") -> dict[str, Tensor]:
    """Find the parameters of a method that raw CLIP has too, trainable or not, under OpenAI's names.

    Args:
        method: the unwrapped method.
        source: the key that asks for them, for the error.

    Returns:
        The parameters themselves, not copies.

    Raises:
        ValueError: if the method has no CLIP, or one with a ResNet image tower.
    """
    own = clip_tensors(method, source=source)
    if has_resnet(own):
        # A forward at the interpolation would move the running statistics of the weights as they are.
        raise ValueError(f"{source}: needs a ViT image tower, and this CLIP has a ResNet; allowed: False")
    return {name: tensor for name, tensor in own.items() if isinstance(tensor, nn.Parameter)}


def clip_tensors(method: nn.Module, *, source: str) -> dict[str, Tensor]:
    """Find all entries of a method that raw CLIP has too, the statistics of batch norms among them.

    Args:
        method: the unwrapped method.
        source: the key that asks for them, for the error.

    Returns:
        The tensors themselves, not copies, under OpenAI's names.

    Raises:
        ValueError: if the method has no CLIP.
    """
    own = {
        name.removeprefix(CLIP_PREFIX): tensor
        for name, tensor in method.state_dict(keep_vars=True).items()
        if name.startswith(CLIP_PREFIX)
    }
    with torch.device("meta"):
        names = CLIP(read_sizes(of_one_frame(own), source=source)).state_dict()
    return {name: own[name] for name in names}


def _mean_loss(outputs: Sequence[MethodOutput], parts: Sequence[Batch]) -> Tensor:
    """Mean over the videos of the summed losses of all parts, a scalar."""
    losses = [torch.stack(list(output.losses.values())).sum().float() for output in outputs]
    size = sum(len(part) for part in parts)
    return torch.stack([loss * (len(part) / size) for loss, part in zip(losses, parts, strict=True)]).sum()
