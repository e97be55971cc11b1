"""The CLIP that a training starts from: found by name or file, or made up."""

from __future__ import annotations

from typing import Literal, Protocol

from slowfast.models.clip.arch import PUBLISHED, read_sizes
from slowfast.models.clip.layers import Activation
from slowfast.models.clip.weights import ClipWeights, random_clip_state_dict, read_clip
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

RANDOM = "random"


class ClipChoice(Protocol):
    """What the options of every method say about its CLIP."""

    @property
    def arch(self) -> str:
        """MODEL.ARCH: a published CLIP, or "custom" for the sizes of the file in clip_weights."""

    @property
    def clip_weights(self) -> str:
        """MODEL.CLIP_WEIGHTS: a file, "random", or "" for the published archive of arch."""

    @property
    def clip_cache_dir(self) -> str:
        """MODEL.CLIP_CACHE_DIR."""

    @property
    def clip_allow_torchscript(self) -> bool:
        """MODEL.CLIP_ALLOW_TORCHSCRIPT: read an archive that is none of the published ones."""

    @property
    def activation(self) -> Literal["auto", "quick_gelu", "gelu"]:
        """MODEL.CLIP_ACTIVATION: "auto" takes what the weight file says."""

    @property
    def seed(self) -> int:
        """RNG_SEED, of random weights."""


def clip_weights(config: ClipChoice) -> tuple[ClipWeights, str]:
    """Find the initial CLIP.

    Returns:
        The CLIP, and what to call it in an error.

    Raises:
        ValueError: if there is none, or it has other sizes than MODEL.ARCH.
    """
    published = PUBLISHED.get(config.arch)
    if published is None and (config.arch != "custom" or config.clip_weights in ("", RANDOM)):
        raise ValueError(
            f"MODEL.ARCH: unknown value {config.arch!r}; allowed: {', '.join(PUBLISHED)}, "
            "or custom with MODEL.CLIP_WEIGHTS naming a file"
        )
    if published is not None and config.clip_weights == RANDOM:
        return ClipWeights(random_clip_state_dict(published.sizes, seed=config.seed), None), RANDOM
    source = config.clip_weights or config.arch
    clip = read_clip(source, cache_dir=config.clip_cache_dir or None, allow_torchscript=config.clip_allow_torchscript)
    if published is not None:
        found = read_sizes(clip.state, source=source)
        if found != published.sizes:
            raise ValueError(
                f"MODEL.ARCH: is {config.arch}, but {source} holds {found}; set MODEL.ARCH to custom to use its sizes"
            )
    return clip, source


def choose_activation(config: ClipChoice, recorded: Activation | None, *, source: str) -> Activation:
    """The activation to build CLIP with: the one that the configuration names, or the weight file, or QuickGELU.

    Args:
        config: the choice.
        recorded: what the weight file says.
        source: what to call it in an error.

    Raises:
        ValueError: if both name one, and not the same.
    """
    if config.activation == "auto":
        if recorded is None and source != RANDOM:
            logger.warning(
                "%s does not say which activation it was trained with: taking QuickGELU, OpenAI's; "
                "set MODEL.CLIP_ACTIVATION to gelu if it is one of laion's",
                source,
            )
        return recorded or "quick_gelu"
    if recorded not in (None, config.activation):
        raise ValueError(
            f"MODEL.CLIP_ACTIVATION: is {config.activation}, but {source} was trained with {recorded}; allowed: auto"
        )
    return config.activation
