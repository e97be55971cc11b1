"""Licences of the weights that a run reads: told once, and passed on to what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from slowfast.models.clip.files import joined_licenses
from slowfast.models.clip.weights import weights_license
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)


def binding_licenses(clips: Iterable[str | None]) -> dict[str, str]:
    """Find the licences of the raw CLIPs that a run reads, as far as their files tell.

    Args:
        clips: what keys name, files or names of published CLIPs; empty ones are passed over.

    Returns:
        File -> licence.
    """
    found = {clip: weights_license(clip) for clip in clips if clip}
    return {clip: license_ for clip, license_ in found.items() if license_}


def tell_licenses(licenses: Mapping[str, str]) -> str:
    """Warn, in one line, of weights whose licence binds whoever uses them.

    Args:
        licenses: file -> licence, "" for none.

    Returns:
        The licence of what is made of them.
    """
    texts = [f"{file}: {license_}" for file, license_ in licenses.items() if license_]
    if texts:
        logger.warning("Weights under a licence that passes on to whatever is made of them: %s", "; ".join(texts))
    return joined_licenses(licenses.values())
