"""Score a split. There is one evaluator, for validation and for every test protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from slowfast.datasets.types import VideoBatch
from slowfast.engine.precision import Precision
from slowfast.methods.base import Method, MethodOutput
from slowfast.protocols.metrics import Tally
from slowfast.utils.distributed import all_gather_objects, is_master
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

Merge = Literal["sum", "max"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """How to score a split.

    Raises:
        ValueError: if the way to merge is unknown.
    """

    clips_per_forward: int
    """Most clips that go through the model at once on a GPU."""
    merge: Merge = "sum"
    """Logits of the views of a video: their sum, or their element-wise max (DATA.ENSEMBLE_METHOD)."""

    def __post_init__(self) -> None:
        if self.merge not in ("sum", "max"):
            raise ValueError(f"DATA.ENSEMBLE_METHOD: unknown value {self.merge!r}; allowed: sum, max")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredBatch:
    """Scores of the V videos of one batch of a loader, on the CPU, in increasing order of their ids."""

    video_id: Tensor
    """Rows of the annotation file, (V,), int64."""
    label: Tensor
    """Class numbers, (V,), int64."""
    logits: Tensor
    """Scores merged over views, (V, K), fp32; (0, 0) if there is no video."""
    bad: tuple[str, ...] = ()
    """One line for each video that could not be decoded."""


def score_videos(
    method: Method,
    loader: Iterable[VideoBatch],
    *,
    precision: Precision,
    device: torch.device,
    config: EvalConfig,
    compute: Callable[[VideoBatch], Tensor] | None = None,
    title: str = "evaluate",
) -> Iterator[ScoredBatch]:
    """Score every video of a loader once, a batch at a time; nothing is kept of the batches before.

    On a CPU every video goes through the model on its own, so that the numbers are the same, bit for bit, for any
    batch size; there larger batches gain little.

    Args:
        method: the unwrapped method; its mode is restored at the end, also where the caller stops early.
        loader: batches with all views of a video in one batch, side by side; each process has its own videos.
        precision: dtype of the forward.
        device: where the method lies.
        config: how to score.
        compute: what to compute of clips on the device, (B, K), in the place of the method's scores.
        title: of the bar that shows the progress.

    Yields:
        The videos of each batch of the loader; possibly none, where all of them are bad.
    """
    if compute is None:

        def compute(batch: VideoBatch) -> Tensor:
            output: MethodOutput = method(batch)
            return output.logits

    was_training = method.training
    method.eval()
    show = is_master() and sys.stderr.isatty()
    try:
        with tqdm(loader, desc=title, unit="batch", disable=not show, leave=False) as batches:
            for batch in batches:
                yield _score_batch(compute, batch, precision=precision, device=device, config=config)
    finally:
        method.train(was_training)


def merge_views(batch: VideoBatch, logits: Tensor, *, how: Merge) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the scores of the views of each video, in increasing order of the views, whatever their order in the batch.

    Args:
        batch: B views, at least one, on the CPU.
        logits: their scores, (B, K), fp32.
        how: "sum", or element-wise "max".

    Returns:
        Ids, increasing, (V,); labels, (V,); merged scores, (V, K).
    """
    order = torch.argsort(batch.video_id * (int(batch.view.max()) + 1) + batch.view)
    video_id, slot, counts = torch.unique(batch.video_id[order], return_inverse=True, return_counts=True)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(order)) - first[slot]  # of a view among those of its video
    merged = torch.full((len(video_id), logits.shape[1]), 0.0 if how == "sum" else -torch.inf)
    combine = torch.add if how == "sum" else torch.maximum
    for number in range(int(counts.max())):
        rows = place == number
        merged[slot[rows]] = combine(merged[slot[rows]], logits[order[rows]])
    return video_id, batch.label[order[first]], merged


def gather_tally(tally: Tally, bad: Sequence[str]) -> tuple[Tally, tuple[str, ...]]:
    """Add up what all processes counted, and log which videos are missing from it.

    Args:
        tally: counts of this process; left as it is.
        bad: one line for each video that this process could not decode.

    Returns:
        The counts of all processes and the different lines of all, sorted; the same on every process.
    """
    total = Tally(tally.num_classes)
    for other in all_gather_objects(tally):
        total.merge(other)
    return total, gather_bad(bad)


def gather_bad(bad: Sequence[str]) -> tuple[str, ...]:
    """Collect the lines of all processes about undecodable videos, each once, sorted, and log them."""
    lines = tuple(sorted({line for part in all_gather_objects(tuple(bad)) for line in part}))
    for line in lines:
        logger.warning("not scored: %s", line)
    return lines


def _score_batch(
    compute: Callable[[VideoBatch], Tensor],
    batch: VideoBatch,
    *,
    precision: Precision,
    device: torch.device,
    config: EvalConfig,
) -> ScoredBatch:
    logits = []
    with torch.inference_mode(), precision.autocast():
        for part in _forward_parts(batch, device=device, clips=config.clips_per_forward):
            logits.append(compute(part.to(device, non_blocking=True)).float())
    if not logits:
        none = torch.empty(0, dtype=torch.int64)
        return ScoredBatch(video_id=none, label=none, logits=torch.empty(0, 0), bad=batch.bad)
    scores = torch.cat(logits).cpu()  # the one place that waits for the device
    video_id, label, merged = merge_views(batch, scores, how=config.merge)
    return ScoredBatch(video_id=video_id, label=label, logits=merged, bad=batch.bad)


def _forward_parts(batch: VideoBatch, *, device: torch.device, clips: int) -> list[VideoBatch]:
    if len(batch) == 0:
        return []
    if device.type == "cpu":
        return batch.split(int(batch.video_id.unique().numel()))
    return batch.split(-(-len(batch) // max(1, clips)))
