"""Where a clip is looked at: resize, crop, flip on (C, T, H, W) tensors, with PySlowFast's numerics; its augmentation.

Two random sources are passed in, as in PySlowFast: `rng` (numpy) for scales, crop positions and flips, `box_rng`
(Python) for the boxes of the random resized crop. Augmentation has seeds of its own, so that clips show the same place
with and without it.
"""

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from slowfast.datasets.frame_colors import ColorSettings
from slowfast.datasets.rand_augment import RandAugmentSettings, color_jitter, rand_augment
from slowfast.datasets.random_erasing import ErasingSettings


@dataclass(frozen=True, kw_only=True)
class SpatialSettings:
    """Geometry of training and test crops.

    Attributes:
        jitter_scales: range of the short side in training; its lower end is the short side of single-crop tests.
        train_crop: side of the training crop in pixels.
        test_crop: side of the test crop in pixels.
        flip: mirror half of the training clips.
        inverse_uniform: draw the reciprocal of the short side uniformly.
        relative_area: range of the box area over the picture area; non-empty selects the random resized crop.
        relative_aspect: range of the aspect ratio of that box.
        crop_scales: sides of the training crop as shares of the short side, (0, 1], neighbours side by side; non-empty
            selects the multi-scale crop.
        squash: scale pictures to a square of the short side, whatever their aspect ratio.
        bgr: swap red and blue at the very end.
        dtype: "uint8" rounds half to even and clamps to 0..255; "float32" keeps what the resize gives.
    """

    jitter_scales: tuple[float, float] = (256, 320)
    train_crop: int = 224
    test_crop: int = 256
    flip: bool = True
    inverse_uniform: bool = False
    relative_area: tuple[float, float] | None = None
    relative_aspect: tuple[float, float] | None = None
    crop_scales: tuple[float, ...] = ()
    squash: bool = False
    bgr: bool = False
    dtype: Literal["uint8", "float32"] = "uint8"

    def __post_init__(self) -> None:
        low, high = self.jitter_scales
        if not 0 < low <= high:
            raise ValueError(f"DATA.TRAIN_JITTER_SCALES: found {[low, high]}, allowed: 0 < low <= high")
        if (self.relative_area is None) != (self.relative_aspect is None):
            raise ValueError(
                "DATA.TRAIN_JITTER_SCALES_RELATIVE and DATA.TRAIN_JITTER_ASPECT_RELATIVE: set both or neither"
            )
        if not all(0 < scale <= 1 for scale in self.crop_scales):
            raise ValueError(f"DATA.TRAIN_CROP_SCALES: found {list(self.crop_scales)}, allowed: above 0, at most 1")
        if self.crop_scales and self.relative_area is not None:
            raise ValueError("DATA.TRAIN_CROP_SCALES: choose it or DATA.TRAIN_JITTER_SCALES_RELATIVE, not both")
        if self.squash and (self.crop_scales or self.relative_area is not None):
            other = "TRAIN_CROP_SCALES" if self.crop_scales else "TRAIN_JITTER_SCALES_RELATIVE"
            raise ValueError(f"DATA.SQUASH: choose it or DATA.{other}, not both")


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """What training clips go through besides the geometry.

    Attributes:
        rand_augment: operations on the decoded frames, before the crop.
        color_jitter: without them, strength of a change of brightness, contrast and saturation there; at least 0.
        colors: a change of colours of the crop, frame by frame or of the whole clip.
        erasing: boxes to erase from the crop.
        clean_first: the first crop of each clip keeps all its pixels.
    """

    rand_augment: RandAugmentSettings | None = None
    color_jitter: float = 0.0
    colors: ColorSettings | None = None
    erasing: ErasingSettings | None = None
    clean_first: bool = False

    def __post_init__(self) -> None:
        if self.color_jitter < 0:
            raise ValueError(f"AUG.COLOR_JITTER: found {self.color_jitter}, allowed: 0 or more")


def augment(frames: Tensor, *, settings: AugmentSettings, seed: int) -> Tensor:
    """Apply RandAugment, or else colour jitter, in the same way to all frames.

    Args:
        frames: (3, T, H, W), uint8; left as it is.
        settings: what to apply.
        seed: of all random numbers.

    Returns: (3, T, H, W), uint8.
    """
    rng = random.Random(seed)
    pictures = frames.transpose(0, 1)
    if settings.rand_augment is not None:
        pictures = rand_augment(pictures, settings=settings.rand_augment, rng=rng)
    elif settings.color_jitter:
        pictures = color_jitter(pictures, strength=settings.color_jitter, rng=rng)
    return pictures.transpose(0, 1)


def random_view(
    frames: Tensor, *, settings: SpatialSettings, rng: np.random.RandomState, box_rng: random.Random
) -> Tensor:
    """Cut one random training crop.

    Args:
        frames: (3, T, H, W), uint8 or float32.
        settings: geometry.
        rng: drawn in the order scale, row, column, flip; with `crop_scales` scale, shape, place, flip.
        box_rng: boxes of the random resized crop.

    Returns: (3, T, train_crop, train_crop).
    """
    if settings.relative_area is not None and settings.relative_aspect is not None:
        box = _random_box(frames.shape[-2:], settings.relative_area, settings.relative_aspect, rng, box_rng)
        frames = _resize(_cut(frames, *box), settings.train_crop, settings.train_crop)
    else:
        low, high = settings.jitter_scales
        if settings.inverse_uniform:
            short = round(1.0 / rng.uniform(1.0 / high, 1.0 / low))
        else:
            short = round(rng.uniform(low, high))
        frames = squash_resize(frames, short) if settings.squash else short_side_resize(frames, short)
        if settings.crop_scales:
            frames = _multi_scale_crop(frames, settings.train_crop, settings.crop_scales, rng)
        else:
            frames = _random_crop(frames, settings.train_crop, rng)
    if settings.flip and rng.uniform() < 0.5:
        frames = frames.flip(-1)
    return frames


def fixed_views(frames: Tensor, *, short: int, size: int, crops: int, squash: bool = False) -> list[Tensor]:
    """Cut the crops of a test or validation clip.

    Args:
        frames: (3, T, H, W), uint8 or float32.
        short: short side to scale to, at least `size`.
        size: side of the crops.
        crops: 1 (centre) or 3 (left, centre, right; top, centre, bottom of an upright picture).
        squash: scale both sides to `short`; only with one crop, since a square has no long side.

    Returns: `crops` tensors (3, T, size, size).
    """
    assert not squash or crops == 1, f"{crops} crops of a square"
    frames = squash_resize(frames, short) if squash else short_side_resize(frames, short)
    return [uniform_crop(frames, size, position) for position in (range(3) if crops == 3 else (1,))]


def short_side_resize(frames: Tensor, short: int) -> Tensor:
    """Scale the short side to `short` and the long one to `floor(long / short_before * short)`; bilinear."""
    height, width = frames.shape[-2:]
    if min(height, width) == short:
        return frames
    if width < height:
        return _resize(frames, math.floor(height / width * short), short)
    return _resize(frames, short, math.floor(width / height * short))


def squash_resize(frames: Tensor, side: int) -> Tensor:
    """Scale both sides to `side`, whatever the aspect ratio; bilinear."""
    return frames if frames.shape[-2:] == (side, side) else _resize(frames, side, side)


def uniform_crop(frames: Tensor, size: int, position: int) -> Tensor:
    """Cut a square at 0 (left or top), 1 (centre) or 2 (right or bottom) of the long side, centred on the short one."""
    height, width = frames.shape[-2:]
    assert min(height, width) >= size, f"a crop of {size} does not fit into {height}x{width}"
    top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        top = (0, top, height - size)[position]
    else:
        left = (0, left, width - size)[position]
    return _cut(frames, top, left, size, size)


def finish(frames: Tensor, settings: SpatialSettings) -> Tensor:
    """Bring a crop to its travelling form: channel order, dtype, contiguous memory."""
    if settings.bgr:
        frames = frames.flip(0)
    if settings.dtype == "float32":
        return frames.float().contiguous()
    if frames.is_floating_point():
        # half to even; bilinear weights overshoot 255 by rounding only
        # by way of short: the conversion of whole numbers is vectorised, that from float to byte is not
        frames = frames.round().clamp_(0, 255).short().byte()
    return frames.contiguous()


def _random_crop(frames: Tensor, size: int, rng: np.random.RandomState) -> Tensor:
    height, width = frames.shape[-2:]
    # the upper bound is exclusive: the last row and column of positions are never drawn, as in PySlowFast
    top = int(rng.randint(0, height - size)) if height > size else 0
    left = int(rng.randint(0, width - size)) if width > size else 0
    return _cut(frames, top, left, size, size)


def crop_shapes(short: int, scales: tuple[float, ...], *, size: int) -> list[tuple[int, int]]:
    """Heights and widths that the multi-scale crop chooses among.

    Args:
        short: short side of the picture.
        scales: shares of it, neighbours side by side.
        size: side that crops are scaled to; one that differs by less than 3 pixels becomes it.

    Returns: all (height, width) whose scales are the same or neighbours.
    """
    sides = [max(1, int(short * scale)) for scale in scales]
    sides = [size if abs(side - size) < 3 and size <= short else side for side in sides]
    return [
        (height, width)
        for row, height in enumerate(sides)
        for column, width in enumerate(sides)
        if abs(row - column) <= 1
    ]


def _multi_scale_crop(frames: Tensor, size: int, scales: tuple[float, ...], rng: np.random.RandomState) -> Tensor:
    """Cut a box of one of several shapes at a corner or the centre, and scale it to a square.

    Source: TSN's corner and scale jittering. A corner is where four steps of a quarter of the slack, rounded down,
    lead to, so that it misses the border by up to 3 pixels.
    """
    shapes = crop_shapes(min(frames.shape[-2:]), scales, size=size)
    height, width = shapes[rng.randint(len(shapes))]
    rows, columns = _PLACES[rng.randint(len(_PLACES))]
    top = rows * ((frames.shape[-2] - height) // 4)
    left = columns * ((frames.shape[-1] - width) // 4)
    frames = _cut(frames, top, left, height, width)
    return frames if (height, width) == (size, size) else _resize(frames, size, size)


# The corners and the centre, in steps of a 5x5 grid.
_PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))


def _random_box(
    size: tuple[int, ...],
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
    rng: np.random.RandomState,
    box_rng: random.Random,
) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) of a box by area and log-uniform aspect; else, after ten misfits, the middle."""
    height, width = size
    for _ in range(10):
        area = box_rng.uniform(*area_range) * height * width
        aspect = math.exp(box_rng.uniform(math.log(aspect_range[0]), math.log(aspect_range[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        rng.uniform()  # PySlowFast draws here for an axis swap it does not make; keeps the streams equal
        if 0 < box_width <= width and 0 < box_height <= height:
            top = box_rng.randint(0, height - box_height)
            left = box_rng.randint(0, width - box_width)
            return top, left, box_height, box_width
    box_height, box_width = height, width
    if width / height < min(aspect_range):
        box_height = round(width / min(aspect_range))
    elif width / height > max(aspect_range):
        box_width = round(height * max(aspect_range))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _cut(frames: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return frames[..., top : top + height, left : left + width]


def _resize(frames: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(frames.float(), size=(height, width), mode="bilinear", align_corners=False)
