"""Score a split. There is one evaluator, for validation and for every test protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from slowfast.datasets.types import VideoBatch
from slowfast.engine.precision import Precision
from slowfast.engine.predictions import Merge, PredictionCollector, Predictions
from slowfast.engine.step import split_batch
from slowfast.methods.base import Method
from slowfast.utils.distributed import is_master
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """How to score a split."""

    num_videos: int
    """Videos that the split lists over all processes."""
    num_classes: int
    clips_per_forward: int
    """Most clips that go through the model at once on a GPU."""
    merge: Merge = "sum"
    """How the views of a video are merged."""


def evaluate(
    method: Method,
    loader: Iterable[VideoBatch],
    *,
    precision: Precision,
    device: torch.device,
    config: EvalConfig,
    on_batch: Callable[[int], None] | None = None,
) -> Predictions:
    """Score every video of a split once.

    On a CPU every video goes through the model on its own, so that the numbers are the same, bit for bit, for any
    batch size; there larger batches gain little.

    Args:
        method: the unwrapped method; its mode is restored afterwards.
        loader: batches with all views of a video side by side; each process has its own videos.
        precision: dtype of the forward.
        device: where the method lies.
        config: how to score.
        on_batch: called with the number of each batch once it is scored.

    Returns:
        The predictions of all processes, on every process.
    """
    was_training = method.training
    method.eval()
    collector = PredictionCollector()
    show = is_master() and sys.stderr.isatty()
    try:
        with torch.inference_mode():
            batches = tqdm(loader, desc="evaluate", unit="batch", disable=not show, leave=False)
            for number, batch in enumerate(batches):
                collector.bad.extend(batch.bad)
                for part in _forward_parts(batch, device=device, clips=config.clips_per_forward):
                    with precision.autocast():
                        logits = method(part.to(device, non_blocking=True)).logits
                    collector.add(video_id=part.video_id, view=part.view, label=part.label, logits=logits)
                if on_batch is not None:
                    on_batch(number)
    finally:
        method.train(was_training)
    predictions = collector.merge(num_expected=config.num_videos, num_classes=config.num_classes, method=config.merge)
    for line in predictions.bad:
        logger.warning("not scored: %s", line)
    return predictions


def _forward_parts(batch: VideoBatch, *, device: torch.device, clips: int) -> list[VideoBatch]:
    if len(batch) == 0:
        return []
    if device.type == "cpu":
        return split_batch(batch, int(batch.video_id.unique().numel()))
    return split_batch(batch, -(-len(batch) // max(1, clips)))
