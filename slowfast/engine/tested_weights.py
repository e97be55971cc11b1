"""Weights on their way into a method, as they are or mixed with raw CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from slowfast.engine.average import patch_state
from slowfast.engine.checkpoint import check_activation, load_model_state
from slowfast.methods.base import Method
from slowfast.models.clip.layers import Activation
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class TestWeights:
    """What a test scores.

    Attributes:
        method: the method; where there are no ratios it has the weights.
        path: their file, None for CLIP as it was built.
        ratios: shares of raw CLIP to test one after the other, of TEST.PATCHING_RATIOS; empty: the weights as they are.
        state: the weights in memory, empty without ratios.
        clip: raw CLIP in memory, likewise.
        activation: what the weights were trained with, None where it is unknown.
    """

    __test__ = False  # pytest would take the name for a test

    method: Method
    path: Path | None
    ratios: tuple[float, ...] = ()
    state: dict[str, Tensor] = field(default_factory=dict)
    clip: Mapping[str, Tensor] = field(default_factory=dict)
    activation: Activation | None = None

    def load(self, ratio: float) -> None:
        """Load the weights into the method: ratio * raw CLIP + (1 - ratio) * themselves; what CLIP lacks stays."""
        assert self.path is not None, "CLIP as it was built has nothing to mix with"
        state = patch_state(self.clip, self.state, ratio=ratio) if ratio else self.state
        load_into(self.method, state, source=self.path, activation=self.activation)
        logger.info("TEST.PATCHING_RATIOS: the weights have a share of %g of raw CLIP", ratio)


def load_into(
    method: Method, state: dict[str, Tensor], *, source: str | Path, activation: Activation | None = None
) -> None:
    """Load weights into a method; only what the method declares optional or transient may differ.

    Args:
        method: the unwrapped method.
        state: weights under our names.
        source: the file, for the error.
        activation: what they were trained with, None where it is unknown.

    Raises:
        ValueError: if the weights do not fit, or the method has another activation.
    """
    check_activation(method, activation, source=source)
    report = load_model_state(
        method,
        state,
        source=source,
        allow_missing=(*method.optional_prefixes, *method.transient_prefixes),
        allow_unexpected=(*method.optional_prefixes, *method.transient_prefixes),
    )
    logger.info("Loaded %s; %d optional entries absent, %d not used", source, len(report.missing), len(report.unused))
