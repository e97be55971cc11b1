"""Changes of colour that differ from frame to frame of a clip, and the loss of colour of whole clips.

Unlike `rand_augment.color_jitter`, which changes all frames alike. Pixels are those of torchvision's kernels.

Source: the jitter of TSN's successors (ViFi-CLIP, TC-CLIP): the clip decides whether, each frame how.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ColorSettings:
    """What to draw.

    Attributes:
        jitter_prob: share of the clips whose frames are changed.
        brightness: its factor is drawn from [1 - brightness, 1 + brightness], not below 0.
        contrast: the same.
        saturation: the same.
        hue: shift of the hue, drawn from [-hue, hue], in turns; at most 1/2.
        gray_prob: share of the clips that lose their colours, changed before or not.
    """

    jitter_prob: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    gray_prob: float = 0.0

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
    """Change brightness, contrast, saturation and hue of each frame in its own way and order; then perhaps drop colour.

    Args:
        frames: (3, T, H, W), uint8; left as it is.
        settings: what to draw.
        seed: of all random numbers.

    Returns: (3, T, H, W), uint8.
    """
    rng = random.Random(seed)
    pictures = frames.transpose(0, 1)  # (T, 3, H, W)
    if rng.random() < settings.jitter_prob:
        pictures = torch.stack([_jitter(picture, settings, rng) for picture in pictures])
    if rng.random() < settings.gray_prob:
        pictures = _kernels().rgb_to_grayscale(pictures, num_output_channels=3)
    return pictures.transpose(0, 1)


def _jitter(picture: Tensor, settings: ColorSettings, rng: random.Random) -> Tensor:
    """Change a picture (3, H, W)."""
    kernels = _kernels()
    changes = [
        (kernels.adjust_brightness, _factor(settings.brightness, rng)),
        (kernels.adjust_contrast, _factor(settings.contrast, rng)),
        (kernels.adjust_saturation, _factor(settings.saturation, rng)),
        (kernels.adjust_hue, rng.uniform(-settings.hue, settings.hue)),
    ]
    rng.shuffle(changes)
    for change, amount in changes:
        picture = change(picture, amount)
    return picture


def _factor(strength: float, rng: random.Random) -> float:
    return rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength)


def _kernels() -> ModuleType:
    # imported late: it takes as long as the rest of the data pipeline, and most runs do not change colours
    from torchvision.transforms.v2 import functional

    return functional
