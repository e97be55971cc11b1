"""Drawing what a method looked at in the clips that a loader gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from slowfast.config.redaction import redact
from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method
from slowfast.utils.io import expanded
from slowfast.visualization.explain import choose_layers, clip_pixels, file_names, write_pictures
from slowfast.visualization.matches import match_lines
from slowfast.visualization.predictor import Guess, select_clips


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFormat:
    """What the clips of a loader are like."""

    num_frames: int
    side_px: int
    views: int = 1
    """Temporal clips per video."""
    crops: int = 1
    """Crops per temporal clip."""
    bgr: bool = False
    """Whether the channels are in this order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What there is of the clips of one video."""

    files: tuple[Path, ...]
    """A picture and a film of each clip."""
    lines: tuple[str, ...]
    """What the frames were matched to, clip after clip; none where the method does not match."""


class Explainer:
    """Draws clips, those of one video after another.

    Args:
        method: with its weights, on the device.
        videos: the files; the position is the video id.
        clips: their format.
        folder: where the files go; made if it does not exist.
        layers: blocks to draw, from 1; empty: the first, the middle and the last one.
        device: where the method lies.

    Raises:
        ValueError: if the method has nothing to show, or not of a layer.
        OSError: if the folder cannot be made.
    """

    def __init__(
        self,
        method: Method,
        videos: Sequence[Path],
        *,
        clips: ClipFormat,
        folder: str | Path,
        layers: Sequence[int] = (),
        device: torch.device,
    ) -> None:
        self.folder = expanded(folder)
        self._method, self._videos, self._clips, self._device = method, videos, clips, device
        self._names = file_names(videos)
        # An empty clip, so that a mistake ends the run before it reads the first video.
        zero = torch.zeros(1, dtype=torch.int64)
        frames = torch.zeros(1, 3, clips.num_frames, clips.side_px, clips.side_px, dtype=torch.uint8)
        empty = VideoBatch(frames=frames, label=zero, video_id=zero, view=zero).to(device)
        (explanation,) = method.explain(empty)
        if not explanation.patches and not explanation.matches:
            name = type(method).__name__
            raise ValueError(
                f"METHOD: {name} has nothing to explain; allowed: a method that explains patches or matches"
            )
        self._layers = choose_layers(explanation, layers)
        self.folder.mkdir(parents=True, exist_ok=True)

    def draw(self, batch: VideoBatch, *, best: Guess) -> Drawn:
        """Write a picture and a film of every clip, and say what its frames were matched to.

        Args:
            batch: clips of one video, on the CPU.
            best: the class that the video was found to show.

        Returns:
            The files and the lines.
        """
        files: list[Path] = []
        lines: list[str] = []
        for row in range(len(batch)):
            clip = select_clips(batch, torch.tensor([row]))
            (explanation,) = self._method.explain(clip.to(self._device))
            video_id, view = int(clip.video_id), int(clip.view)
            digits = len(str(self._clips.views * self._clips.crops))
            files += write_pictures(
                self.folder,
                f"{self._names[video_id]}_view{view + 1:0{digits}d}",
                clip_pixels(clip.frames[0], bgr=self._clips.bgr),
                explanation,
                title=self._title(video_id, view, best),
                layers=self._layers,
            )
            which = ", ".join(self._which(view))
            for match in explanation.matches:
                heading, *rest = match_lines(match)
                lines += [f"{which}: {heading}" if which else heading, *rest]
        return Drawn(files=tuple(files), lines=tuple(lines))

    def _which(self, view: int) -> list[str]:
        """Which clip of its video a view is, where there are several."""
        clip, crop = divmod(view, self._clips.crops)
        parts = [f"clip {clip + 1} of {self._clips.views}"] if self._clips.views > 1 else []
        return parts + ([f"crop {crop + 1} of {self._clips.crops}"] if self._clips.crops > 1 else [])

    def _title(self, video_id: int, view: int, best: Guess) -> str:
        parts = [redact(self._videos[video_id].name), *self._which(view)]
        return f"{', '.join(parts)}\nbest class of the video: {best.name} ({best.probability:.1%})"
