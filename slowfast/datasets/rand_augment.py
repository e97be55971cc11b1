"""RandAugment and colour jitter on clips: the same operations with the same parameters on all frames.

A clip is (T, 3, H, W), uint8. Random numbers come from a generator that is passed in. Pixels follow Pillow, which the
published recipes were tuned with: operations on colour are torchvision's kernels, those on geometry are sampled here,
because torchvision has no bicubic warp of tensors.

Source: Cubuk et al., RandAugment (2020); ranges, the string grammar and the "increasing" set are those of timm and
PySlowFast.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic", "random"]

MAX_MAGNITUDE = 10.0

_INTERPOLATIONS: tuple[Literal["bilinear"], Literal["bicubic"]] = ("bilinear", "bicubic")

_GRAMMAR = (
    "'rand' and, each after a dash, m0 to m10 (magnitude), n1 or more (operations), mstd0 or more, or mstdinf "
    "(deviation of the magnitude), inc0 or inc1 (severity grows with magnitude), w0 (weighted choice), p0 to p1 "
    "(share applied), such as 'rand-m7-n4-mstd0.5-inc1'"
)


@dataclass(frozen=True, kw_only=True)
class RandAugmentSettings:
    """What to draw.

    Attributes:
        magnitude: mean severity, 0 to 10.
        layers: operations drawn per clip.
        deviation: standard deviation of the magnitude; infinite: uniform between 0 and `magnitude`.
        increasing: all operations grow more severe with the magnitude. Otherwise Posterize, Solarize and the four
            enhancements use the ranges of AutoAugment, where some are mildest at the top or in the middle.
        weighted: draw different operations, geometric ones more often, instead of evenly and with repetition.
        probability: share of the drawn operations that are applied.
        interpolation: of the geometric operations; "random" draws one of the two for each.
        fill: colour (R, G, B), 0 to 255, of what a geometric operation uncovers.
    """

    magnitude: float = MAX_MAGNITUDE
    layers: int = 2
    deviation: float = 0.0
    increasing: bool = False
    weighted: bool = False
    probability: float = 0.5
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (128, 128, 128)

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic", "random"):
            raise ValueError(
                f"AUG.INTERPOLATION: found {self.interpolation!r}, allowed: 'bicubic', 'bilinear', 'random'"
            )
        for part, value, low, high in (
            ("m", self.magnitude, 0, MAX_MAGNITUDE),
            ("n", self.layers, 1, math.inf),
            ("mstd", self.deviation, 0, math.inf),
            ("p", self.probability, 0, 1),
        ):
            if not low <= value <= high:
                raise ValueError(f"AUG.AA_TYPE: {part}{value} is out of range; allowed: {_GRAMMAR}")
        choices = sum(operation.weight > 0 for operation in OPERATIONS.values())
        if self.weighted and self.layers > choices:
            raise ValueError(
                f"AUG.AA_TYPE: w0 draws different operations, found n{self.layers}, allowed: n1 to n{choices}"
            )


def parse_rand_augment(
    text: str, *, interpolation: Interpolation = "bicubic", fill: tuple[int, int, int] = (128, 128, 128)
) -> RandAugmentSettings:
    """Read a string such as "rand-m7-n4-mstd0.5-inc1".

    Args:
        text: "rand" and parts in any order, each at most once: m<integer>, n<integer>, mstd<number or inf>, inc<0 or
            1>, w0, p<number>. A deviation above 100 is infinite, as in timm.
        interpolation: see `RandAugmentSettings`.
        fill: see `RandAugmentSettings`.

    Raises:
        ValueError: naming AUG.AA_TYPE, the part that is wrong and what is allowed.
    """
    head, *parts = text.split("-")
    if head != "rand":
        raise ValueError(f"AUG.AA_TYPE: found {text!r}, allowed: empty, or {_GRAMMAR}")
    found: dict[str, str] = {}
    for part in parts:
        name = next((name for name, pattern in _PARTS.items() if re.fullmatch(pattern, part)), None)
        if name is None or name in found:
            problem = "unknown part" if name is None else "two values for the same thing,"
            raise ValueError(f"AUG.AA_TYPE: {problem} {part!r} in {text!r}; allowed: {_GRAMMAR}")
        found[name] = part[len(name) :]
    deviation = float(found.get("mstd", 0.0))
    return RandAugmentSettings(
        magnitude=int(found.get("m", int(MAX_MAGNITUDE))),
        layers=int(found.get("n", 2)),
        deviation=deviation if deviation <= 100 else math.inf,
        increasing=found.get("inc") == "1",
        weighted="w" in found,
        probability=float(found.get("p", 0.5)),
        interpolation=interpolation,
        fill=fill,
    )


_NUMBER = r"(\d+\.?\d*|\.\d+)"
_PARTS = {"mstd": rf"mstd({_NUMBER}|inf)", "m": r"m\d+", "n": r"n\d+", "inc": "inc[01]", "w": "w0", "p": rf"p{_NUMBER}"}


def rand_augment(frames: Tensor, *, settings: RandAugmentSettings, rng: random.Random) -> Tensor:
    """Apply randomly drawn operations, each with one set of parameters for the whole clip.

    Args:
        frames: (T, 3, H, W), uint8; left as it is.
        settings: what to draw.
        rng: drawn from for operations, then for each: applied or not, magnitude, sign, interpolation.

    Returns: (T, 3, H, W), uint8.
    """
    for operation in _draw_operations(settings, rng):
        if rng.random() >= settings.probability:
            continue
        magnitude = _draw_magnitude(settings, rng)
        sign = rng.choice((1, -1))
        drawn = rng.choice(_INTERPOLATIONS)
        interpolation = drawn if settings.interpolation == "random" else settings.interpolation
        amount = operation.amount(magnitude, sign=sign, increasing=settings.increasing)
        frames = operation.apply(frames, amount, Warp(interpolation=interpolation, fill=settings.fill))
    return frames


def color_jitter(frames: Tensor, *, strength: float, rng: random.Random) -> Tensor:
    """Change brightness, contrast and saturation, in random order, by factors from [1 - strength, 1 + strength].

    Args:
        frames: (T, 3, H, W), uint8; left as it is.
        strength: at least 0; factors below 0 are drawn as 0.
        rng: drawn from for the order and the factors.

    Returns: (T, 3, H, W), uint8; every frame changed in the same way.
    """
    names = ["Brightness", "Contrast", "Color"]
    rng.shuffle(names)
    for name in names:
        factor = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength)
        frames = OPERATIONS[name].apply(frames, factor, Warp())
    return frames


def _draw_operations(settings: RandAugmentSettings, rng: random.Random) -> list[Operation]:
    pool = list(OPERATIONS.values())
    if not settings.weighted:
        return rng.choices(pool, k=settings.layers)
    drawn = []
    for _ in range(settings.layers):
        (operation,) = rng.choices(pool, weights=[operation.weight for operation in pool])
        pool.remove(operation)
        drawn.append(operation)
    return drawn


def _draw_magnitude(settings: RandAugmentSettings, rng: random.Random) -> float:
    if math.isinf(settings.deviation):
        return rng.uniform(0.0, settings.magnitude)
    magnitude = rng.gauss(settings.magnitude, settings.deviation) if settings.deviation else settings.magnitude
    return min(max(magnitude, 0.0), MAX_MAGNITUDE)


# ---------------------------------------------------------------------------------------------------------- operations


@dataclass(frozen=True, kw_only=True)
class Warp:
    """How geometric operations sample."""

    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    fill: tuple[int, int, int] = (128, 128, 128)


Level = Callable[[float, int], float]


@dataclass(frozen=True)
class Operation:
    """One operation of RandAugment.

    Attributes:
        apply: changes (T, 3, H, W), uint8, by an amount.
        level: the amount from the magnitude, as a share of the greatest, and a sign.
        increasing: the same in the increasing set.
        weight: chance of being drawn first in a weighted choice.
    """

    apply: Callable[[Tensor, float, Warp], Tensor]
    level: Level
    increasing: Level
    weight: float

    def amount(self, magnitude: float, *, sign: int = 1, increasing: bool = False) -> float:
        """What to hand to `apply` for a magnitude from 0 to 10."""
        return (self.increasing if increasing else self.level)(magnitude / MAX_MAGNITUDE, sign)


def _kernels() -> ModuleType:
    # imported late: it takes as long as the rest of the data pipeline, and most runs do not augment
    from torchvision.transforms.v2 import functional

    return functional


def _auto_contrast(frames: Tensor, amount: float, warp: Warp) -> Tensor:
    return _kernels().autocontrast(frames.contiguous())  # eight times faster than on decoded frames as they lie


def _equalize(frames: Tensor, amount: float, warp: Warp) -> Tensor:
    return _kernels().equalize(frames)


def _invert(frames: Tensor, amount: float, warp: Warp) -> Tensor:
    return 255 - frames


def _posterize(frames: Tensor, bits: float, warp: Warp) -> Tensor:
    return frames & (256 - 2 ** (8 - int(bits)))


def _solarize(frames: Tensor, threshold: float, warp: Warp) -> Tensor:
    if threshold > 255:  # would wrap around in uint8
        return frames
    return torch.where(frames >= threshold, 255 - frames, frames)


def _solarize_add(frames: Tensor, addend: float, warp: Warp) -> Tensor:
    return torch.where(frames < 128, frames + int(addend), frames)  # at most 127 + 110


def _color(frames: Tensor, factor: float, warp: Warp) -> Tensor:
    return frames if factor == 1.0 else _kernels().adjust_saturation(frames, factor)


def _contrast(frames: Tensor, factor: float, warp: Warp) -> Tensor:
    return frames if factor == 1.0 else _kernels().adjust_contrast(frames, factor)


def _brightness(frames: Tensor, factor: float, warp: Warp) -> Tensor:
    return frames if factor == 1.0 else _kernels().adjust_brightness(frames, factor)


def _sharpness(frames: Tensor, factor: float, warp: Warp) -> Tensor:
    if factor == 1.0:
        return frames
    # here it is the other layout that is ten times faster
    return _kernels().adjust_sharpness(frames.contiguous(memory_format=torch.channels_last), factor)


def _rotate(frames: Tensor, degrees: float, warp: Warp) -> Tensor:
    height, width = frames.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return _affine(frames, ((cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)), warp)


def _shear_x(frames: Tensor, share: float, warp: Warp) -> Tensor:
    return _affine(frames, ((1.0, share, 0.0), (0.0, 1.0, 0.0)), warp)


def _shear_y(frames: Tensor, share: float, warp: Warp) -> Tensor:
    return _affine(frames, ((1.0, 0.0, 0.0), (share, 1.0, 0.0)), warp)


def _translate_x(frames: Tensor, share: float, warp: Warp) -> Tensor:
    return _affine(frames, ((1.0, 0.0, share * frames.shape[-1]), (0.0, 1.0, 0.0)), warp)


def _translate_y(frames: Tensor, share: float, warp: Warp) -> Tensor:
    return _affine(frames, ((1.0, 0.0, 0.0), (0.0, 1.0, share * frames.shape[-2])), warp)


_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def _affine(frames: Tensor, matrix: tuple[tuple[float, float, float], ...], warp: Warp) -> Tensor:
    """Let each pixel take its colour from where a matrix sends it.

    Args:
        frames: (T, 3, H, W), uint8.
        matrix: rows (a, b, c), (d, e, f): (x, y) reads at (ax + by + c, dx + ey + f), in pixels from the top left
            corner, so that the first pixel's centre is at (0.5, 0.5).
        warp: how to sample there; places outside the picture become `warp.fill`.
    """
    if matrix == _IDENTITY:
        return frames
    count, _, height, width = frames.shape
    (a, b, c), (d, e, f) = matrix
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
    source_x, source_y = a * x + b * y + c, d * x + e * y + f  # (H, W)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    grid = torch.stack([source_x * (2 / width) - 1, source_y * (2 / height) - 1], dim=-1)
    # all frames as channels of one picture: the grid is the same, and its weights are computed once
    picture = frames.reshape(1, count * 3, height, width).float()
    sampled = F.grid_sample(
        picture, grid[None], mode=warp.interpolation, padding_mode="border", align_corners=False
    ).view_as(frames)
    sampled = sampled.round_().clamp_(0, 255).to(torch.uint8)  # bicubic overshoots
    return torch.where(inside, sampled, torch.tensor(warp.fill, dtype=torch.uint8)[:, None, None])


def _nothing(share: float, sign: int) -> float:
    return 0.0


def _signed(highest: float) -> Level:
    return lambda share, sign: sign * share * highest


def _enhance(share: float, sign: int) -> float:
    return share * 1.8 + 0.1


def _enhance_increasing(share: float, sign: int) -> float:
    return 1.0 + sign * share * 0.9


def _whole(highest: int) -> Level:
    return lambda share, sign: int(share * highest)


def _whole_down(highest: int) -> Level:
    return lambda share, sign: highest - int(share * highest)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": Operation(_auto_contrast, _nothing, _nothing, 0.025),
    "Equalize": Operation(_equalize, _nothing, _nothing, 0.005),
    "Invert": Operation(_invert, _nothing, _nothing, 0.0),
    "Rotate": Operation(_rotate, _signed(30.0), _signed(30.0), 0.3),
    "Posterize": Operation(_posterize, _whole(4), _whole_down(4), 0.0),
    "Solarize": Operation(_solarize, _whole(256), _whole_down(256), 0.005),
    "SolarizeAdd": Operation(_solarize_add, _whole(110), _whole(110), 0.005),
    "Color": Operation(_color, _enhance, _enhance_increasing, 0.025),
    "Contrast": Operation(_contrast, _enhance, _enhance_increasing, 0.005),
    "Brightness": Operation(_brightness, _enhance, _enhance_increasing, 0.005),
    "Sharpness": Operation(_sharpness, _enhance, _enhance_increasing, 0.025),
    "ShearX": Operation(_shear_x, _signed(0.3), _signed(0.3), 0.2),
    "ShearY": Operation(_shear_y, _signed(0.3), _signed(0.3), 0.2),
    "TranslateXRel": Operation(_translate_x, _signed(0.45), _signed(0.45), 0.1),
    "TranslateYRel": Operation(_translate_y, _signed(0.45), _signed(0.45), 0.1),
}
"""Operations by timm's names. Amounts: degrees, bits kept, threshold and addend in grey levels, factor, share of the
side. Posterize and Solarize round their amount down."""
