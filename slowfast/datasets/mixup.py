"""MixUp and CutMix: each clip of a batch is mixed with the clip at the mirrored place, and so are their targets.

Sources: Zhang et al., mixup (2018); Yun et al., CutMix (2019); one draw per batch and the mirrored partner are those of
timm and PySlowFast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast.datasets.types import VideoBatch


@dataclass(frozen=True, kw_only=True)
class MixUpSettings:
    """How to mix.

    Attributes:
        alpha: MixUp's share is drawn from Beta(alpha, alpha); 0 switches MixUp off.
        cutmix_alpha: the same for CutMix.
        prob: share of the batches that are mixed.
        switch_prob: share of those that CutMix takes where both are on.
        label_smoothing: weight that is spread evenly over all classes.
    """

    alpha: float = 0.8
    cutmix_alpha: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        for key, value in (("ALPHA", self.alpha), ("CUTMIX_ALPHA", self.cutmix_alpha)):
            if value < 0:
                raise ValueError(f"MIXUP.{key}: found {value}, allowed: 0 (off) or more")
        if not (self.alpha or self.cutmix_alpha):
            raise ValueError("MIXUP.ALPHA: is 0, and so is MIXUP.CUTMIX_ALPHA; set one of them, or MIXUP.ENABLE False")
        for key, value in (("PROB", self.prob), ("SWITCH_PROB", self.switch_prob)):
            if not 0 <= value <= 1:
                raise ValueError(f"MIXUP.{key}: found {value}, allowed: from 0 to 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"MIXUP.LABEL_SMOOTH_VALUE: found {self.label_smoothing}, allowed: from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """Mixes the clips of a batch.

    One share and, for CutMix, one box serve the whole batch. They come from NumPy's global generator, which the trainer
    seeds alike on all ranks before each step. Partners are clips of the same rank, so that a run depends on how many
    there are. The middle clip of an odd batch mixes with itself.

    Attributes:
        settings: how to mix.
        num_classes: K of the training split.
    """

    settings: MixUpSettings
    num_classes: int

    def __call__(self, batch: VideoBatch) -> VideoBatch:
        """Mix a batch of hard labels.

        Args:
            batch: frames (B, 3, T, H, W), uint8 or float32; left as it is.

        Returns: the batch with float32 frames, values 0 to 255, `weights` (B, K), rows of sum 1, and as `label` the
            class with the largest weight.
        """
        assert batch.weights is None, "the batch is mixed already"
        frames, partner = batch.frames.float(), batch.frames.flip(0).float()
        share, use_cutmix = self._draw_share()
        if use_cutmix:
            rows, columns = draw_box(frames.shape[-2:], share)
            share = 1.0 - (rows[1] - rows[0]) * (columns[1] - columns[0]) / (frames.shape[-2] * frames.shape[-1])
            frames = _paste(frames, partner, rows, columns)
        else:
            frames = torch.lerp(partner, frames, share)
        weights = mixed_targets(
            batch.label, share=share, num_classes=self.num_classes, smoothing=self.settings.label_smoothing
        )
        return replace(batch, frames=frames, label=weights.argmax(dim=1), weights=weights)

    def _draw_share(self) -> tuple[float, bool]:
        """Draw the share that each clip keeps, and whether CutMix makes it."""
        settings = self.settings
        if np.random.rand() >= settings.prob:  # noqa: NPY002 (the generator that the trainer seeds)
            return 1.0, False
        use_cutmix = settings.cutmix_alpha > 0
        if use_cutmix and settings.alpha > 0:
            use_cutmix = np.random.rand() < settings.switch_prob  # noqa: NPY002
        alpha = settings.cutmix_alpha if use_cutmix else settings.alpha
        return float(np.random.beta(alpha, alpha)), use_cutmix  # noqa: NPY002


def draw_box(size: tuple[int, ...], share: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Draw where CutMix pastes.

    Args:
        size: (H, W) of the picture.
        share: area that shall stay; the sides are cut at the border, so that more may stay.

    Returns: (first row, row after the last), (first column, column after the last).
    """
    spans = []
    for side in size:
        half = int(side * math.sqrt(1.0 - share)) // 2
        centre = int(np.random.randint(0, side))  # noqa: NPY002
        spans.append((max(centre - half, 0), min(centre + half, side)))
    rows, columns = spans
    return rows, columns


def mixed_targets(label: Tensor, *, share: float, num_classes: int, smoothing: float) -> Tensor:
    """Weights of the classes after mixing each sample with its mirror image in the batch.

    Args:
        label: (B,), int64.
        share: what a sample keeps of itself.
        num_classes: K.
        smoothing: weight that is spread evenly over the K classes.

    Returns: (B, K), float32, rows of sum 1.
    """
    smooth = F.one_hot(label, num_classes).float() * (1.0 - smoothing) + smoothing / num_classes
    return share * smooth + (1.0 - share) * smooth.flip(0)


def _paste(frames: Tensor, partner: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    frames = frames.clone()
    frames[..., slice(*rows), slice(*columns)] = partner[..., slice(*rows), slice(*columns)]
    return frames
