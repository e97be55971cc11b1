"""What a method looked at in a clip, as a contact sheet (PNG) and as a film (MP4)."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from slowfast.datasets.synthetic import write_video
from slowfast.methods.explanation import Explanation, PatchView
from slowfast.utils.io import atomic_writer
from slowfast.visualization.matches import match_film, match_sheet
from slowfast.visualization.paint import (
    FAINT,
    NUMBERED_PX,
    Pixels,
    below,
    beside,
    blank,
    draw_chosen,
    draw_groups,
    draw_heat,
    enlarge,
    framed,
    heat_bar,
    text_block,
    text_width,
)

_SHEET_CELL, _FILM_CELL = 150, 300
"""Least side of a frame, pixels; it is a multiple of the number of patches."""
_GAP, _MARGIN = 4, 16
_HOT = 99.0
"""Percentile of the attention of a layer that has the hottest colour; a few patches may have many times more."""
_FILM_FPS, _HELD = 10, 5
"""Every frame of the clip is shown for half a second: players stumble over films with very few frames a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One view of a clip, frame by frame."""

    title: str
    note: str
    """What to know to read it, one short sentence; or ""."""
    scale: Pixels | None
    """The scale of its colours, (H, W, 3), if they stand for numbers."""
    pictures: Pixels
    """(T, S, S, 3)."""


def choose_layers(explanation: Explanation, wanted: Sequence[int] = ()) -> tuple[int, ...]:
    """Choose the blocks to draw.

    Args:
        explanation: of any clip.
        wanted: numbers of blocks, from 1; empty: the first, the middle and the last one.

    Returns:
        Numbers in increasing order, each once.

    Raises:
        ValueError: if the explanation has no view of a wanted block.
    """
    known = [view.layer for view in explanation.patches]
    for layer in wanted:
        if layer not in known:
            raise ValueError(f"DEMO.EXPLAIN_LAYERS: there is no layer {layer} to draw; allowed: {_ranges(known)}")
    if wanted or not known:
        return tuple(sorted(set(wanted)))
    return tuple(sorted({known[0], known[(len(known) - 1) // 2], known[-1]}))


def _ranges(numbers: Sequence[int]) -> str:
    if not numbers:
        return "none, the method has no view of layers"
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def clip_pixels(frames: Tensor, *, bgr: bool = False) -> Pixels:
    """The pixels of one clip of a batch.

    Args:
        frames: values in [0, 255], uint8 or float32, (3, T, H, W).
        bgr: whether the channels are in this order.

    Returns:
        RGB, (T, H, W, 3).
    """
    rgb = frames.flip(0) if bgr else frames
    pixels: Pixels = rgb.permute(1, 2, 3, 0).round().clamp(0, 255).byte().cpu().numpy()
    return pixels


def patch_strips(frames: Pixels, view: PatchView, *, least_side: int) -> list[Strip]:
    """Draw what a block made of the patches: its attention and, where it chooses patches, these.

    Args:
        frames: RGB, (T, H, W, 3).
        view: of the same T frames.
        least_side: of the pictures, pixels.
    """
    size = view.attention.shape[1]
    large = enlarge(frames, _side(size, least_side))
    shares = view.attention.double().numpy()
    top, even = float(np.percentile(shares, _HOT)), 100 / (1 + size**2)
    strips = [
        Strip(
            title=f"Layer {view.layer}: attention of the class token",
            note=f"share that each patch of a frame gets, mean over heads; spread evenly over the frame: {even:.2g} %",
            scale=heat_bar(top),
            pictures=draw_heat(large, shares, top=top),
        )
    ]
    chosen, line_px = view.chosen.numpy(), max(1, large.shape[1] // 100)
    counts = f"{_counts(chosen.sum(axis=(1, 2)))} of {size * size} patches per frame"
    if view.group is not None:
        group = view.group.numpy()
        mark = "a colour and number" if large.shape[1] // size >= NUMBERED_PX else "a colour"
        num_groups = len(np.unique(group[group >= 0]))
        strips.append(
            Strip(
                title=f"Layer {view.layer}: {view.what}, {counts}",
                note=f"{mark} for each of {num_groups} context tokens: patches that share it, in whatever frame, were "
                "merged into the same token; dark patches went into none",
                scale=None,
                pictures=draw_groups(large, group, chosen, line_px=line_px),
            )
        )
    elif chosen.any():
        strips.append(
            Strip(
                title=f"Layer {view.layer}: {view.what}, {counts}",
                note="bright patches take part, dark ones do not",
                scale=None,
                pictures=draw_chosen(large, chosen, line_px=line_px),
            )
        )
    return strips


def _side(grid_size: int, least: int) -> int:
    return grid_size * -(-least // grid_size)


def _counts(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _columns(frames: Pixels, explanation: Explanation, *, layers: Sequence[int], least_side: int) -> list[list[Strip]]:
    """All strips, those of one subject together. A further kind of view adds its own here."""
    return [
        patch_strips(frames, view, least_side=least_side) for view in explanation.patches if view.layer in layers
    ]  # fmt: skip


def contact_sheet(frames: Pixels, explanation: Explanation, *, title: str, layers: Sequence[int]) -> Pixels:
    """Draw one row for each view and one column for each frame; below them a table for each kind of descriptors.

    Args:
        frames: RGB, as the model gets them, (T, H, W, 3).
        explanation: of this clip.
        title: what the clip is.
        layers: blocks to draw.

    Returns:
        (H', W', 3).
    """
    columns = _columns(frames, explanation, layers=layers, least_side=_SHEET_CELL)
    strips = [strip for column in columns for strip in column]
    tables = [match_sheet(frames, view) for view in explanation.matches]
    side = strips[0].pictures.shape[1] if strips else _SHEET_CELL
    # Tables have frames of their own, in columns as wide as their numbers need.
    with_frames = bool(strips) or not tables
    width = max(480, len(frames) * (side + _GAP) - _GAP if with_frames else 0, *(table.shape[1] for table in tables))
    rows = [text_block(title, width=width, size_px=17), blank(6, width)]
    if with_frames:
        numbers = (_cell_text(f"frame {t}", side) for t in range(1, len(frames) + 1))
        rows += [beside(*numbers, gap=_GAP), beside(*enlarge(frames, side), gap=_GAP)]
    for strip in strips:
        rows += [blank(10, width), _heading(strip, width=width), blank(3, width), beside(*strip.pictures, gap=_GAP)]
    for table in tables:
        rows += [blank(14, width), table]
    return framed(below(*rows), _MARGIN)


def film_frames(frames: Pixels, explanation: Explanation, *, title: str, layers: Sequence[int]) -> Pixels:
    """Draw one picture for each frame: the frame on the left, beside it a column for each layer, then the matches.

    Args:
        frames: RGB, as the model gets them, (T, H, W, 3).
        explanation: of this clip.
        title: what the clip is.
        layers: blocks to draw.

    Returns:
        (T, H', W', 3), of even sides.
    """
    columns = _columns(frames, explanation, layers=layers, least_side=_FILM_CELL)
    side = columns[0][0].pictures.shape[1] if columns else _FILM_CELL
    large = enlarge(frames, side)
    headings = [[_heading(strip, width=side) for strip in column] for column in columns]
    depth = max((len(column) for column in columns), default=0)
    tall = [max(parts[row].shape[0] for parts in headings if row < len(parts)) for row in range(depth)]
    tables = [match_film(view) for view in explanation.matches]
    width = (len(columns) + 1) * (side + 3 * _GAP) - 3 * _GAP
    width += max((table.shape[2] + 3 * _GAP for table in tables), default=0)
    top = text_block(title, width=width, size_px=17)
    pages = []
    for t in range(len(frames)):
        count = text_block(f"Frame {t + 1} of {len(frames)}\nas the model gets it", width=side)
        parts = [below(_padded(count, tall[0] if tall else count.shape[0]), large[t])]
        for column, heads in zip(columns, headings, strict=True):
            rows = zip(column, heads, tall, strict=False)
            cells = [below(_padded(head, height), strip.pictures[t]) for strip, head, height in rows]
            parts.append(below(*cells, gap=2 * _GAP))
        if tables:
            parts.append(below(*(table[t] for table in tables), gap=4 * _GAP))
        pages.append(framed(below(top, beside(*parts, gap=3 * _GAP), gap=2 * _GAP), _MARGIN))
    return np.stack(pages)


def _heading(strip: Strip, *, width: int) -> Pixels:
    """Title, scale and note of a strip: on one line where they fit, else below each other."""
    one_line = (
        text_width(strip.title) + text_width(strip.note) + 24 + (strip.scale.shape[1] if strip.scale is not None else 0)
    )
    scale = [] if strip.scale is None else [strip.scale]
    if one_line + 24 <= width:
        title = text_block(strip.title, width=text_width(strip.title))
        note = text_block(strip.note, width=text_width(strip.note), colour=FAINT)
        return beside(title, *scale, note, gap=12)
    return below(
        text_block(strip.title, width=width),
        text_block(strip.note, width=width, colour=FAINT),
        *(part[:, :width] for part in scale),
    )


def _padded(picture: Pixels, height: int) -> Pixels:
    """Paper above a picture up to a height."""
    return below(blank(max(0, height - picture.shape[0]), picture.shape[1]), picture)


def _cell_text(text: str, side: int) -> Pixels:
    return text_block(text, width=side, size_px=12, colour=FAINT)


def file_names(videos: Sequence[Path]) -> list[str]:
    """Names for the files about videos: letters of ASCII, digits, dots, dashes and underscores, no two alike.

    Args:
        videos: any paths; the same list gives the same names.

    Returns:
        One name for each video, without a suffix; different also where a file system does not tell a from A.
    """
    plain = [re.sub(r"[^A-Za-z0-9._-]+", "_", video.stem).strip("._-")[:80] or "video" for video in videos]
    taken: set[str] = set()
    names = []
    for name in plain:
        candidate, number = name, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate.lower())
        names.append(candidate)
    return names


def write_pictures(
    folder: str | Path, name: str, frames: Pixels, explanation: Explanation, *, title: str, layers: Sequence[int]
) -> tuple[Path, Path]:
    """Write the contact sheet and the film of a clip, each whole or not at all.

    Args:
        folder: made if it does not exist.
        name: of the files, without a suffix.
        frames: RGB, as the model gets them, (T, H, W, 3).
        explanation: of this clip.
        title: what the clip is.
        layers: blocks to draw.

    Returns:
        The PNG and the MP4.
    """
    sheet, film = (Path(folder) / f"{name}.{suffix}" for suffix in ("png", "mp4"))
    encoded = io.BytesIO()
    picture = contact_sheet(frames, explanation, title=title, layers=layers)
    Image.fromarray(picture).save(encoded, format="PNG", optimize=True)
    with atomic_writer(sheet) as file:
        file.write(encoded.getvalue())
    pages = film_frames(frames, explanation, title=title, layers=layers)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / film.name
        write_video(draft, pages.repeat(_HELD, axis=0), fps=_FILM_FPS)
        with atomic_writer(film) as file:
            file.write(draft.read_bytes())
    return sheet, film
