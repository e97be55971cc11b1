"""MixUp and CutMix: each clip of a batch is mixed with another one, and so are their targets.

Sources: Zhang et al., mixup (2018); Yun et al., CutMix (2019). One draw per batch, and the clip at the mirrored place
as partner, are those of timm and PySlowFast; drawn partners, and a draw per micro-batch, those of TC-CLIP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
        prob: share of the groups that are mixed.
        switch_prob: share of those that CutMix takes where both are on.
        label_smoothing: weight that is spread evenly over all classes.
        partner: "mirrored": first with last, second with last but one; "permuted": by a random permutation, which may
            leave a clip its own partner.
        group_size: clips that share their draws and are partners of each other; 0: all of the batch.
    """

    alpha: float = 0.8
    cutmix_alpha: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.1
    partner: Literal["mirrored", "permuted"] = "mirrored"
    group_size: int = 0

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
        if self.partner not in ("mirrored", "permuted"):
            raise ValueError(f"MIXUP.PARTNER: found {self.partner!r}, allowed: 'mirrored', 'permuted'")
        if self.group_size < 0 or self.group_size == 1:
            raise ValueError(f"MIXUP.GROUP_SIZE: found {self.group_size}, allowed: 0 (the whole batch), or 2 and more")


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """Mixes the clips of a batch.

    One share and, for CutMix, one box serve a whole group, a run of neighbours in the batch; the last group may be
    smaller. They come from NumPy's global generator, which the trainer seeds alike on all ranks before each step, so
    that the groups of a rank differ, but those at the same place on two ranks do not. Partners are clips of the same
    rank, so that a run depends on how many there are. The middle clip of an odd mirrored group mixes with itself.

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
        size = self.settings.group_size or len(batch)
        frames = batch.frames.to(torch.float32, copy=True)
        weights = []
        for first in range(0, len(batch), size):
            span = slice(first, first + size)
            share, use_cutmix = self._draw_share()
            order = self._draw_partners(len(batch.label[span]))
            partner = _in_order(batch.frames[span], order).float()
            if use_cutmix:
                rows, columns = draw_box(frames.shape[-2:], share)
                share = paste(frames[span], partner, rows, columns)
            else:
                frames[span] = torch.lerp(partner, frames[span], share)
            weights.append(
                mixed_targets(
                    batch.label[span],
                    order,
                    share=share,
                    num_classes=self.num_classes,
                    smoothing=self.settings.label_smoothing,
                )
            )
        targets = torch.cat(weights)
        return replace(batch, frames=frames, label=targets.argmax(dim=1), weights=targets)

    def _draw_partners(self, count: int) -> list[int]:
        """Draw for each of `count` clips the place of its partner."""
        order = list(range(count))
        if self.settings.partner == "mirrored":
            return order[::-1]
        drawn: list[int] = np.random.permutation(order).tolist()  # noqa: NPY002 (the generator that the trainer seeds)
        return drawn

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
    rows, columns = (box_span(side, share, centre=np.random.randint(0, side)) for side in size)  # noqa: NPY002
    return rows, columns


def box_span(side: int, share: float, *, centre: int) -> tuple[int, int]:
    """Where CutMix's box lies along one side: (first, after the last); arguments as in `draw_box`."""
    half = int(side * math.sqrt(1.0 - share)) // 2
    return max(centre - half, 0), min(centre + half, side)


def mixed_targets(label: Tensor, partner: Sequence[int], *, share: float, num_classes: int, smoothing: float) -> Tensor:
    """Weights of the classes after mixing each sample with its partner.

    Args:
        label: (B,), int64.
        partner: place of each sample's partner among them, B numbers.
        share: what a sample keeps of itself.
        num_classes: K.
        smoothing: weight that is spread evenly over the K classes.

    Returns: (B, K), float32, rows of sum 1.
    """
    smooth = F.one_hot(label, num_classes).float() * (1.0 - smoothing) + smoothing / num_classes
    return share * smooth + (1.0 - share) * _in_order(smooth, partner)


def paste(frames: Tensor, partner: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> float:
    """Paste a box of the partners into clips (B, 3, T, H, W), in place.

    Returns: the share of its area that a clip keeps.
    """
    frames[..., slice(*rows), slice(*columns)] = partner[..., slice(*rows), slice(*columns)]
    return 1.0 - (rows[1] - rows[0]) * (columns[1] - columns[0]) / (frames.shape[-2] * frames.shape[-1])


def _in_order(rows: Tensor, order: Sequence[int]) -> Tensor:
    # not by a tensor of indices, for which the device would have to be waited for
    return torch.stack([rows[place] for place in order])
