"""How far a training has come: what a run that continues must know besides weights and optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Place of a training, and what its reports and limits count. Random numbers follow from the place.

    Attributes:
        epoch: epochs that are finished.
        videos: videos of the epoch under way that were seen, over all processes; 0 between two epochs.
        report: figures of the epoch under way, `EpochReport.state`; None between two epochs.
        bad_videos: undecodable videos found so far: file -> what is wrong with it.
        nonfinite: steps that were left out because they were not finite.
    """

    epoch: int = 0
    videos: int = 0
    report: Mapping[str, Any] | None = None
    bad_videos: Mapping[str, str] = field(default_factory=dict)
    nonfinite: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, which load safely."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: object, *, source: Path) -> Progress:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: naming the file, if it is something else.
        """
        names = cls.__dataclass_fields__.keys()
        if not isinstance(content, Mapping) or not names >= content.keys():
            raise ValueError(f"{source}: not a checkpoint: progress is not one of a training")
        progress = cls(**content)
        counts = (progress.epoch, progress.videos, progress.nonfinite)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"{source}: not a checkpoint: progress counts {counts}, expected integers >= 0")
        if not isinstance(progress.bad_videos, Mapping) or not isinstance(progress.report, Mapping | None):
            raise ValueError(f"{source}: not a checkpoint: progress is not one of a training")
        return progress
