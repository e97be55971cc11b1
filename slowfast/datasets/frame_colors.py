"""Changes of colour that differ from frame to frame of a clip, or from clip to clip, and the loss of colour.

Unlike `rand_augment.color_jitter` they know hue, and come behind the crop. The changes are Pillow's, as torchvision's
jitter has them, in float32 and rounded once, at the end; torchvision's own kernels on bytes take twice as long.

Source: the jitter of TSN's successors (ViFi-CLIP, TC-CLIP): the clip decides whether, each frame how. That of CLIP-FSAR
decides both per clip.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Changes = list[tuple[Callable[[Tensor, float], Tensor], float]]


@dataclass(frozen=True, kw_only=True)
class ColorSettings:
    """What to draw.

    Attributes:
        jitter_prob: share of the clips whose frames are changed.
        brightness: its factor is drawn from [1 - brightness, 1 + brightness], not below 0.
        contrast: the same.
        saturation: the same.
        hue: shift of the hue, drawn from [-hue, hue], in turns; at most 1/2.
        gray_prob: share of the clips that lose their colours, changed or not.
        per: "frame" draws factors and their order for each frame, and drops colour last; "clip" draws them once for all
            frames, and drops colour first, so that a grey clip still changes its brightness and its contrast.
    """

    jitter_prob: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    gray_prob: float = 0.0
    per: Literal["frame", "clip"] = "frame"

    def __post_init__(self) -> None:
        for key, value in (("FRAME_JITTER_PROB", self.jitter_prob), ("GRAY_PROB", self.gray_prob)):
            if not 0 <= value <= 1:
                raise ValueError(f"AUG.{key}: found {value}, allowed: from 0 to 1")
        strengths = (self.brightness, self.contrast, self.saturation)
        if min(strengths) < 0 or not 0 <= self.hue <= 0.5:
            raise ValueError(
                f"AUG.FRAME_JITTER: found {[*strengths, self.hue]}, allowed: 0 or more, and a hue from 0 to 0.5"
            )


def change_colors(frames: Tensor, *, settings: ColorSettings, seed: int) -> Tensor:
    """Change brightness, contrast, saturation and hue, and perhaps drop colour; "frame" in this order.

    Args:
        frames: (3, T, H, W), uint8 or float32, RGB, values 0 to 255; left as it is.
        settings: what to draw.
        seed: of all random numbers.

    Returns: (3, T, H, W), float32, not rounded; `frames` itself if nothing changes.
    """
    rng = random.Random(seed)
    if settings.per == "clip":
        return _change_alike(frames, settings, rng)
    if rng.random() < settings.jitter_prob:
        frames = torch.stack([_apply(_draw(settings, rng), picture.float()) for picture in frames.unbind(1)], dim=1)
    if rng.random() < settings.gray_prob:
        frames = _gray(frames.float()).expand(frames.shape)
    return frames


def _change_alike(frames: Tensor, settings: ColorSettings, rng: random.Random) -> Tensor:
    is_changed, is_gray = rng.random() < settings.jitter_prob, rng.random() < settings.gray_prob
    if is_gray:
        frames = _gray(frames.float()).expand(frames.shape)
    if is_changed:
        changes = _draw(settings, rng)
        # one by one: a picture stays in the cache between two changes, a clip does not
        frames = torch.stack([_apply(changes, picture.float()) for picture in frames.unbind(1)], dim=1)
    return frames


def _draw(settings: ColorSettings, rng: random.Random) -> Changes:
    """Draw how much each change does, and their order."""
    changes: Changes = [
        (adjust_brightness, _factor(settings.brightness, rng)),
        (adjust_contrast, _factor(settings.contrast, rng)),
        (adjust_saturation, _factor(settings.saturation, rng)),
        (adjust_hue, rng.uniform(-settings.hue, settings.hue)),
    ]
    rng.shuffle(changes)
    return changes


def _apply(changes: Changes, picture: Tensor) -> Tensor:
    for change, amount in changes:
        picture = change(picture, amount)
    return picture


def _factor(strength: float, rng: random.Random) -> float:
    return rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength)


# Pictures (3, H, W), float32, values 0 to 255, are the arguments and the results of what follows.


def adjust_brightness(picture: Tensor, factor: float) -> Tensor:
    """Multiply by a factor."""
    return (picture * factor).clamp_(0, 255)


def adjust_contrast(picture: Tensor, factor: float) -> Tensor:
    """Multiply the distance from the mean grey level by a factor."""
    return torch.lerp(_gray(picture).mean(), picture, factor).clamp_(0, 255)


def adjust_saturation(picture: Tensor, factor: float) -> Tensor:
    """Multiply the distance of each pixel from its own grey level by a factor."""
    return torch.lerp(_gray(picture), picture, factor).clamp_(0, 255)


def adjust_hue(picture: Tensor, turns: float) -> Tensor:
    """Turn the hue of HSV, which keeps the largest and the smallest of a pixel's three values.

    In sixths of a turn a pixel's hue is h; channel n = 5, 3, 1 (red, green, blue) lies below the largest value by the
    spread times `clamp(min(k, 4 - k), 0, 1)`, with k = (n + h) mod 6.
    """
    red, green, blue = picture
    high = picture.amax(dim=0)
    spread = high - picture.amin(dim=0)
    scale = spread.clamp(min=1e-6).reciprocal_()  # a grey pixel has no hue, and is not moved by one
    hue = torch.where(high == green, (blue - red) * scale + 2, (red - green) * scale + 4)
    hue = torch.where(high == red, (green - blue) * scale, hue).add_(6 * turns)
    turned = torch.empty_like(picture)
    for channel, number in zip(turned, (5, 3, 1), strict=True):
        place = (hue + number).remainder_(6)
        channel.copy_(torch.minimum(place, 4 - place).clamp_(0, 1).mul_(spread).neg_().add_(high))
    return turned


def _gray(picture: Tensor) -> Tensor:
    """Grey level by ITU-R 601, (1, ...)."""
    red, green, blue = picture
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)[None]
