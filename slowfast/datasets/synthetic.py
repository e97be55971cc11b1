"""MotionShapes: a rendered video dataset whose classes cannot be told without the order of the frames.

A clip shows one coloured shape on a textured background under one motion. Eight of the nine motions come in
opposite pairs (left/right, up/down, growing/shrinking, clockwise/counter-clockwise), and the second motion of a
pair is by construction the first one played backwards: for equal seeds the two clips hold the same frames in reversed
order. A single frame, and any pooling of unordered frames, therefore says nothing about which of the two it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from slowfast.utils.io import atomic_write_text

Pixels = NDArray[np.uint8]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 40),
    "green": (45, 195, 70),
    "blue": (55, 85, 235),
    "yellow": (240, 220, 50),
}
SHAPES = ("star", "square", "triangle", "cross", "heart")
# Each value: (the motion of the same pair that is played forwards, whether this one is played backwards).
MOTIONS: dict[str, tuple[str, bool]] = {
    "moving left": ("moving left", False),
    "moving right": ("moving left", True),
    "moving up": ("moving up", False),
    "moving down": ("moving up", True),
    "growing": ("growing", False),
    "shrinking": ("growing", True),
    "rotating clockwise": ("rotating clockwise", False),
    "rotating counterclockwise": ("rotating clockwise", True),
    "blinking": ("blinking", False),
}
# Held out: whole opposite pairs, two per shape. Knowing the shape leaves four candidates, knowing the kind of motion
# as well leaves two, and only the order of the frames decides between those: 50 % is the ceiling without it.
UNSEEN: dict[str, tuple[str, ...]] = {
    "star": ("moving left", "moving right", "growing", "shrinking"),
    "heart": ("moving up", "moving down", "rotating clockwise", "rotating counterclockwise"),
}
# Of the others, which episodes hold out to choose a model by: as many, and whole pairs, too.
HELD_OUT: dict[str, tuple[str, ...]] = {
    "square": ("moving up", "moving down", "rotating clockwise", "rotating counterclockwise"),
    "triangle": ("moving left", "moving right", "growing", "shrinking"),
}
PHRASINGS = ("{}", "a video of {}", "a clip that shows {}", "{} on a textured background")
SIZES = ("small", "", "big")
ROWS = ("top", "", "bottom")
COLUMNS = ("left", "", "right")
_STAMP_HALF = 1.5  # half the side of a shape's distance map, in circumradii
_STAMP_STEPS = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionShapes:
    """What is rendered: the classes, their division into seen and unseen ones, and the format of a clip.

    Every shape and every motion occurs among the seen classes; no class is in both sets.
    """

    size_px: int = 48
    num_frames: int = 16
    fps: int = 16

    @property
    def seen(self) -> tuple[tuple[str, str], ...]:
        """(shape, motion) of the classes to train on."""
        return tuple((s, m) for s in SHAPES for m in MOTIONS if m not in UNSEEN.get(s, ()))

    @property
    def unseen(self) -> tuple[tuple[str, str], ...]:
        """(shape, motion) of the classes kept for the zero-shot test."""
        return tuple((s, m) for s, motions in UNSEEN.items() for m in motions)

    @property
    def class_splits(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """(shape, motion) of the classes to train on, to validate on and to test on in episodes.

        The seen classes are divided into the first two, the unseen ones are the last. Every shape and every motion
        occurs among those to train on.
        """
        held_out = tuple((s, m) for s, motions in HELD_OUT.items() for m in motions)
        return {"train": tuple(c for c in self.seen if c not in held_out), "val": held_out, "test": self.unseen}


def class_name(shape: str, motion: str, *, colour: str = "") -> str:
    """Name of a class, "a star moving left", or of one clip, "a red star moving left"."""
    return f"a {colour} {shape} {motion}" if colour else f"a {shape} {motion}"


def phrasings(name: str) -> list[str]:
    """The prompts of one class: each template with the bare name and with the shape in each colour."""
    names = [name] + [name.replace("a ", f"a {colour} ", 1) for colour in COLOURS]
    return [template.format(n) for n in names for template in PHRASINGS]


def render_clip(
    shape: str, motion: str, *, colour: str, seed: int | Sequence[int], spec: MotionShapes | None = None
) -> Pixels:
    """Render one clip.

    Args:
        shape: one of SHAPES.
        motion: one of MOTIONS.
        colour: one of COLOURS.
        spec: size and length of the clip.
        seed: decides background, place, size, angle and speed; with equal seeds, a motion and its opposite
            give the same frames in opposite order.

    Returns: frames (T, H, W, 3), RGB.
    """
    spec = spec or MotionShapes()
    forward, backward = MOTIONS[motion]
    rng = np.random.default_rng(seed)
    background = _texture(spec.size_px, rng)
    alpha = _coverage(shape, _trajectory(forward, spec, rng), spec.size_px)  # (T, H, W)
    frames = background + alpha[..., None] * (_paint(colour, rng) - background)
    noise = rng.normal(0.0, 3.0, frames.shape)
    pixels: Pixels = (frames + noise).clip(0, 255).astype(np.uint8)
    return pixels[::-1].copy() if backward else pixels


def render_still(
    shape: str,
    motion: str,
    *,
    colour: str,
    seed: int | Sequence[int],
    sharp: bool = False,
    spec: MotionShapes | None = None,
) -> tuple[Pixels, str]:
    """Render one photograph of a clip and name what it shows.

    A long exposure, closed by a flash, leaves a fading trail behind the shape: "a red star moving left". From such
    pictures a CLIP learns what the words of motion mean without ever seeing two frames in order. A sharp picture is
    named with size and place instead: "a small red star at the top left".

    Args:
        shape: one of SHAPES.
        motion: one of MOTIONS.
        colour: one of COLOURS.
        seed: as for render_clip.
        spec: size of the picture.
        sharp: a short exposure, without the trail.

    Returns: image (H, W, 3), RGB, and its caption.
    """
    spec = spec or MotionShapes()
    forward, backward = MOTIONS[motion]
    rng = np.random.default_rng(seed)
    background = _texture(spec.size_px, rng)
    path = _trajectory(forward, spec, rng)
    path = path[::-1] if backward else path
    moment = int(rng.integers(spec.num_frames // 2, spec.num_frames))
    times = np.array([moment]) if sharp else np.arange(moment - spec.num_frames // 2, moment + 1, 2)
    if sharp:
        path[moment, 4] = 1.0
    alpha = _coverage(shape, path[times], spec.size_px)
    image, paint = background, _paint(colour, rng)
    for opacity, layer in zip(np.linspace(1.0, 0.25, len(times))[::-1] ** 1.5, alpha, strict=True):
        image = image + opacity * layer[..., None] * (paint - image)
    pixels: Pixels = (image + rng.normal(0.0, 3.0, image.shape)).clip(0, 255).astype(np.uint8)
    if not sharp:
        return pixels, class_name(shape, motion, colour=colour)
    x, y, radius = path[moment, :3] / spec.size_px
    row, column = (words[int(np.digitize(at, (0.42, 0.58)))] for words, at in ((ROWS, y), (COLUMNS, x)))
    return pixels, place_name(
        shape, size=SIZES[int(np.digitize(radius, (0.18, 0.24)))], colour=colour, at=(row, column)
    )


def place_name(shape: str, *, size: str, colour: str, at: tuple[str, str]) -> str:
    """Caption of a sharp picture, "a small red star at the top left"; words of middle size and place are empty."""
    words = ["a", size, colour, shape, "at the" if any(at) else "", *at]
    return " ".join(word for word in words if word)


def render_stills(
    count: int, *, seed: int, motion_fraction: float = 0.5, spec: MotionShapes | None = None
) -> Iterator[tuple[Pixels, str]]:
    """Yield captioned pictures, long exposures and sharp ones.

    Long exposures show seen classes only, so that an unseen one is new in every respect.
    """
    spec, colours = spec or MotionShapes(), list(COLOURS)
    every = (*spec.seen, *spec.unseen)
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        sharp = bool(rng.random() >= motion_fraction)
        classes = every if sharp else spec.seen
        (shape, motion), colour = classes[rng.integers(len(classes))], colours[rng.integers(len(colours))]
        yield render_still(shape, motion, colour=colour, seed=(seed, index, 1), sharp=sharp, spec=spec)


def _trajectory(motion: str, spec: MotionShapes, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centre x, centre y (pixels), circumradius (pixels), angle (radians, clockwise) and opacity: (T, 5)."""
    size, time = spec.size_px, np.linspace(-0.5, 0.5, spec.num_frames)
    radius = rng.uniform(0.18, 0.24) * size
    angle = np.deg2rad(rng.uniform(-20, 20))
    turn = np.deg2rad(rng.uniform(150, 200))
    growth = rng.uniform(1.4, 1.6)
    phase, period = rng.uniform(0, 1), rng.uniform(0.3, 0.45)
    path = np.empty((spec.num_frames, 5))
    margin = 0.8 * radius
    travel = rng.uniform(0.8, 0.95) * (size - 2 * margin)
    path[:, :2] = rng.uniform(1.2 * margin, size - 1.2 * margin, 2)
    path[:, 2], path[:, 3], path[:, 4] = radius, angle, 1.0
    if motion in ("moving left", "moving up"):
        axis = 0 if motion == "moving left" else 1
        middle = rng.uniform(margin + travel / 2, size - margin - travel / 2)
        path[:, axis] = middle - travel * time
    elif motion == "growing":
        path[:, 2] *= growth ** (2 * time)
    elif motion == "rotating clockwise":
        path[:, 3] += turn * time + rng.uniform(0, 2 * np.pi)
    elif motion == "blinking":
        path[:, 4] = ((time / period + phase) % 1.0 < 0.5).astype(float)
    return path


def _coverage(shape: str, path: NDArray[np.float64], size_px: int) -> NDArray[np.float64]:
    """Share of every pixel that the shape covers, (T, H, W), from the shape's distance map."""
    x, y, radius, angle, opacity = (column[:, None, None] for column in path.T)
    rows, columns = np.mgrid[:size_px, :size_px] + 0.5
    dx, dy = (columns - x) / radius, (rows - y) / radius
    u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    scale = (_STAMP_STEPS - 1) / (2 * _STAMP_HALF)
    i = np.rint((v + _STAMP_HALF) * scale).clip(0, _STAMP_STEPS - 1).astype(np.intp)
    j = np.rint((u + _STAMP_HALF) * scale).clip(0, _STAMP_STEPS - 1).astype(np.intp)
    return opacity * (0.5 - _distance_map(shape)[i, j] * radius).clip(0, 1)


@cache
def _distance_map(shape: str) -> NDArray[np.float64]:
    """Signed distance to the outline in circumradii, negative inside, on a square around the shape."""
    axis = np.linspace(-_STAMP_HALF, _STAMP_HALF, _STAMP_STEPS)
    x, y = np.meshgrid(axis, axis)
    corners = _outline(shape)
    inside = np.zeros(x.shape, dtype=bool)
    distance = np.full(x.shape, np.inf)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clip(0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - along * ex, y - ay - along * ey))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -distance, distance)


def _outline(shape: str) -> NDArray[np.float64]:
    """Corners of a shape in order, (N, 2) as x, y with y pointing down, within the unit circle."""
    if shape == "star":
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    if shape in ("square", "triangle"):
        count = 4 if shape == "square" else 3
        angles = np.arange(count) * 2 * np.pi / count - np.pi / (4 if count == 4 else 2)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if shape == "cross":
        a, b = 0.95, 0.3
        quarter = np.array([(b, -b), (b, -a), (-b, -a)])
        turns = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in np.arange(4) * np.pi / 2]
        return np.concatenate([quarter @ turn for turn in turns])
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([np.sin(t) ** 3, -(y + 2.5) / 15], axis=1)
    raise ValueError(f"shape: {shape!r} is unknown; allowed: {', '.join(SHAPES)}")


def _texture(size_px: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A muted random background (H, W, 3): smooth patches of two scales."""
    image = np.full((size_px, size_px, 3), rng.uniform(70, 130))
    for cells, contrast, tint in ((4, 22.0, 14.0), (12, 10.0, 5.0)):
        grid = rng.normal(0, contrast, (cells, cells, 1)) + rng.normal(0, tint, (cells, cells, 3))
        weights = _interpolation(cells, size_px)
        image += np.tensordot(np.tensordot(weights, grid, 1), weights, ((1,), (1,))).transpose(0, 2, 1)
    return image.clip(0, 200)


def _interpolation(cells: int, size_px: int) -> NDArray[np.float64]:
    """Linear interpolation from `cells` knots to `size_px` pixels as a matrix."""
    position = np.linspace(0, cells - 1, size_px)[:, None]
    return (1 - np.abs(position - np.arange(cells))).clip(0, 1)


def _paint(colour: str, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.array(COLOURS[colour]) + rng.uniform(-15, 15, 3)


def write_video(path: Path, frames: Pixels, *, fps: int) -> None:
    """Encode RGB frames (T, H, W, 3): H.264 for .mp4, MPEG-4 part 2 for .avi."""
    codec = {".mp4": "libx264", ".avi": "mpeg4"}.get(path.suffix)
    if codec is None:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; allowed: .mp4, .avi")
    # Of pictures this small, x264's macroblock tree reads memory that nobody wrote: files would differ from run to run.
    h264 = {"preset": "veryfast", "crf": "16", "x264-params": "mbtree=0"}
    options = h264 if codec == "libx264" else {"qmin": "2", "qmax": "4"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


_Sample = tuple[Path, str, tuple[str, str], tuple[int, ...], MotionShapes]
"""Root, name below it, shape and motion, seed, format."""


def _write_sample(root: Path, name: str, label: tuple[str, str], seed: tuple[int, ...], spec: MotionShapes) -> None:
    colour = list(COLOURS)[int(np.random.default_rng(seed).integers(len(COLOURS)))]
    write_video(root / name, render_clip(*label, colour=colour, seed=(*seed, 1), spec=spec), fps=spec.fps)


def write_motion_shapes(
    root: Path,
    *,
    seed: int,
    train_per_class: int = 32,
    val_per_class: int = 3,
    test_per_class: int = 25,
    num_workers: int = 0,
    spec: MotionShapes | None = None,
) -> dict[str, int]:
    """Write the dataset: videos/, {train,val,test}.csv, seen.json and unseen.json.

    train.csv and val.csv hold clips of the seen classes, labelled by seen.json; test.csv holds clips of the unseen
    classes, labelled by unseen.json. Two thirds of the files are .mp4, one third .avi.

    Args:
        root: folder to write; it and its parents are made.
        train_per_class: videos of every seen class in train.csv.
        val_per_class: likewise in val.csv.
        test_per_class: videos of every unseen class in test.csv.
        spec: format of the videos.
        seed: equal seeds give equal pixels, whatever the number of workers.
        num_workers: processes that render; 0 renders in this one.

    Returns: number of videos per split.
    """
    spec = spec or MotionShapes()
    jobs: list[_Sample] = []
    counts: dict[str, int] = {}
    splits = (("train", spec.seen, train_per_class), ("val", spec.seen, val_per_class))
    for number, (split, classes, per_class) in enumerate((*splits, ("test", spec.unseen, test_per_class))):
        (root / "videos" / split).mkdir(parents=True, exist_ok=True)
        rows = []
        for index in range(per_class * len(classes)):
            label = index % len(classes)
            name = f"videos/{split}/{index:05d}.{'avi' if (index // len(classes)) % 3 == 2 else 'mp4'}"
            jobs.append((root, name, classes[label], (seed, number, index), spec))
            rows.append(f"{name},{label}\n")
        atomic_write_text(root / f"{split}.csv", "".join(rows))
        counts[split] = len(rows)
    for file, classes in (("seen.json", spec.seen), ("unseen.json", spec.unseen)):
        names = {str(i): class_name(*c) for i, c in enumerate(classes)}
        atomic_write_text(root / file, json.dumps(names, indent=1) + "\n")
    _write_samples(jobs, num_workers=num_workers)
    return counts


def write_class_folders(
    root: Path, *, per_class: Mapping[str, int], seed: int, num_workers: int = 0, spec: MotionShapes | None = None
) -> dict[str, tuple[str, ...]]:
    """Write the videos of the class splits as class folders, "a_star_moving_left/000.mp4", as one's own videos lie.

    Args:
        root: folder to write; it and its parents are made.
        per_class: videos of every class, by part: train, val, test.
        seed: as for `write_motion_shapes`.
        num_workers: likewise.
        spec: format of the videos.

    Returns: class names by part.
    """
    spec = spec or MotionShapes()
    jobs: list[_Sample] = []
    for number, (part, classes) in enumerate(spec.class_splits.items()):
        for place, label in enumerate(classes):
            folder = class_name(*label).replace(" ", "_")
            (root / folder).mkdir(parents=True)
            for index in range(per_class[part]):
                name = f"{folder}/{index:03d}.{'avi' if index % 3 == 2 else 'mp4'}"
                jobs.append((root, name, label, (seed, number, place, index), spec))
    _write_samples(jobs, num_workers=num_workers)
    return {part: tuple(class_name(*label) for label in classes) for part, classes in spec.class_splits.items()}


def _write_samples(jobs: Sequence[_Sample], *, num_workers: int) -> None:
    if num_workers:
        with ProcessPoolExecutor(num_workers) as pool:
            list(pool.map(_write_sample, *zip(*jobs, strict=True), chunksize=32))
    else:
        for job in jobs:
            _write_sample(*job)
