"""Random erasing on clips: boxes at the same place in all frames are filled with the mean colour or with noise.

Source: Zhong et al., Random Erasing Data Augmentation (2020), in the form of timm and PySlowFast. There it runs on
normalised pixels, as 0 or standard normal noise; frames travel un-normalised here, so that the fill is the mean colour
plus the noise times the deviation.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_AREA = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)
_TRIALS = 100


@dataclass(frozen=True, kw_only=True)
class ErasingSettings:
    """What to erase, and with what.

    Attributes:
        probability: share of the clips that lose something.
        mode: "const": the mean colour; "rand": one random colour per box and frame; "pixel": one per pixel.
        count: boxes per clip: from 1 to this many, evenly.
        mean: of the pixels, (R, G, B), in [0, 1].
        std: their standard deviation.
    """

    probability: float = 0.25
    mode: Literal["const", "rand", "pixel"] = "pixel"
    count: int = 1
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"AUG.RE_PROB: found {self.probability}, allowed: from 0 to 1")
        if self.mode not in ("const", "rand", "pixel"):
            raise ValueError(f"AUG.RE_MODE: found {self.mode!r}, allowed: 'const', 'rand', 'pixel'")
        if self.count < 1:
            raise ValueError(f"AUG.RE_COUNT: found {self.count}, allowed: 1 or more")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


def random_erasing(frames: Tensor, *, settings: ErasingSettings, seed: int) -> Tensor:
    """Erase random boxes of a clip.

    Args:
        frames: (3, T, H, W), uint8 or float32, values 0 to 255; left as it is.
        settings: what to erase.
        seed: of all random numbers.

    Returns: (3, T, H, W), same dtype; uint8 is rounded half to even and clamped.
    """
    rng = random.Random(seed)
    if rng.random() >= settings.probability:
        return frames
    noise = torch.Generator().manual_seed(seed)
    frames = frames.clone()
    for box in draw_boxes(frames.shape[-2:], count=rng.randint(1, settings.count), rng=rng):
        part = frames[..., box.top : box.top + box.height, box.left : box.left + box.width]
        fill = _fill(part, settings, noise)
        part.copy_(fill if frames.is_floating_point() else fill.round_().clamp_(0, 255))
    return frames


def draw_boxes(size: tuple[int, ...], *, count: int, rng: random.Random) -> list[Box]:
    """Draw boxes evenly in area and in the logarithm of the aspect.

    Args:
        size: (H, W) of the picture.
        count: number of boxes; each takes from 1/50 to 1/3 of the picture divided by it.
        rng: drawn from for area, aspect (height over width, 0.3 to 3.3), row and column.

    Returns: `count` boxes, fewer if 100 drawn boxes in a row are not smaller than the picture.
    """
    height, width = size
    boxes = []
    for _ in range(count):
        for _ in range(_TRIALS):
            area = rng.uniform(*_AREA) * height * width / count
            aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
            box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if box_height < height and box_width < width:
                top, left = rng.randint(0, height - box_height), rng.randint(0, width - box_width)
                boxes.append(Box(top, left, box_height, box_width))
                break
    return boxes


def _fill(part: Tensor, settings: ErasingSettings, noise: torch.Generator) -> Tensor:
    """Pixels for a box (3, T, h, w), in 0 to 255 where the noise is small; broadcasts."""
    channels, count, height, width = part.shape
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) * 255 for values in (settings.mean, settings.std))
    if settings.mode == "const":
        return mean
    shape = (channels, count, height, width) if settings.mode == "pixel" else (channels, count, 1, 1)
    return mean + std * torch.randn(shape, generator=noise)
