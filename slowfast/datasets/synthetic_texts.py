"""Descriptors of MotionShapes' classes, in OST's files: what a frame may show, and what a clip goes through."""

from __future__ import annotations

import json
from pathlib import Path

from slowfast.datasets.synthetic import MOTIONS, MotionShapes, class_name, place_name
from slowfast.utils.io import atomic_write_text

COUNTS = (2, 4, 8)
"""Descriptors per class and kind, one file each."""
_SIDES = {"moving left": (("", "right"), ("", "left")), "moving up": (("bottom", ""), ("top", ""))}
_SIZES = {"growing": ("small", "big")}


def stages(shape: str, motion: str) -> tuple[str, str, str]:
    """What the first, a middle and the last frame of a clip show, in the words of the captions of stills."""
    forward, backward = MOTIONS[motion]
    first, last = _SIDES.get(forward, (("", ""), ("", "")))
    small, big = _SIZES.get(forward, ("", ""))
    start = place_name(shape, size=small, colour="", at=first)
    end = place_name(shape, size=big, colour="", at=last)
    middle = place_name(shape, size="", colour="", at=("", ""))
    return (end, middle, start) if backward else (start, middle, end)


def spatial_descriptors(shape: str, motion: str, count: int) -> list[str]:
    """What single frames show, without the order and without the name of the class.

    Args:
        shape: one of SHAPES.
        motion: one of MOTIONS.
        count: one of COUNTS.
    """
    seen = sorted(dict.fromkeys(stages(shape, motion)), reverse=True)
    texts = [*seen, *(f"{text} on a textured background" for text in seen)]
    texts += [f"a video of {text}" for text in seen]
    texts += [f"a clip that shows {text}" for text in seen]
    return (texts * count)[:count]


def temporal_descriptors(shape: str, motion: str, count: int) -> list[str]:
    """What happens, in the order of time, and as a whole.

    Args:
        shape: one of SHAPES.
        motion: one of MOTIONS.
        count: one of COUNTS.
    """
    first, middle, last = stages(shape, motion)
    whole = class_name(shape, motion)
    if count == 2:
        return [first, last]
    texts = [first, middle, last, whole]
    return texts if count == 4 else [*texts, *(f"{text} on a textured background" for text in texts)]


def write_descriptors(root: Path, spec: MotionShapes | None = None) -> None:
    """Write the descriptors of all classes, and the class list that numbers them.

    Args:
        root: folder of the dataset; gets ``index2cls.json`` and ``descriptors``.
        spec: the classes.
    """
    spec = spec or MotionShapes()
    classes = (*spec.seen, *spec.unseen)
    names = {str(number): class_name(*label) for number, label in enumerate(classes)}
    atomic_write_text(root / "index2cls.json", json.dumps(names, indent=1) + "\n")
    for folder, write in (("spatio", spatial_descriptors), ("temporal", temporal_descriptors)):
        for count in COUNTS:
            rows = {str(number): write(*label, count) for number, label in enumerate(classes)}
            path = root / "descriptors" / f"{folder}_descriptors" / f"{count}_descriptors.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(path, json.dumps(rows, indent=1) + "\n")
