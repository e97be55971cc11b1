"""Which activation a CLIP weight file was trained with: QuickGELU (OpenAI) or GELU (most of laion's models).

The weights themselves do not tell. What does: our own record in the file, the configuration that Hugging Face and
open_clip put beside it, and, for OpenAI's archives, their kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Activation = Literal["quick_gelu", "gelu"]

ACTIVATIONS: tuple[Activation, ...] = ("quick_gelu", "gelu")
ACTIVATION_ENTRY = "clip_activation"
"""Where our files say it: an entry beside ``model_state``, or of a safetensors file's metadata."""


def checked_activation(value: object, *, source: str) -> Activation:
    """Narrow a value to one of the two activations.

    Raises:
        ValueError: if it is anything else.
    """
    for activation in ACTIVATIONS:
        if value == activation:
            return activation
    raise ValueError(f"{source}: activation {value!r} is not one that a CLIP here can have: {', '.join(ACTIVATIONS)}")


def config_activation(weights: Path) -> Activation | None:
    """Read the activation from the configuration file that lies beside a weight file.

    Args:
        weights: the weight file; ``open_clip_config.json`` and Hugging Face's ``config.json`` are looked for.

    Returns:
        The activation, None where neither file is there or neither is of a CLIP.

    Raises:
        ValueError: if a file is damaged, names another activation, or both disagree.
    """
    found = {
        path: activation
        for path, read in (
            (weights.with_name("open_clip_config.json"), _of_open_clip),
            (weights.with_name("config.json"), _of_hugging_face),
        )
        if path.is_file() and (activation := read(_read_json(path), source=str(path))) is not None
    }
    if len(set(found.values())) > 1:
        texts = " but ".join(f"{path} says {activation}" for path, activation in found.items())
        raise ValueError(f"{weights}: {texts}")
    return next(iter(found.values()), None)


def _of_open_clip(config: Mapping[str, Any], *, source: str) -> Activation | None:
    del source
    model = config.get("model_cfg")
    if not isinstance(model, Mapping):
        return None
    return "quick_gelu" if model.get("quick_gelu", False) else "gelu"


def _of_hugging_face(config: Mapping[str, Any], *, source: str) -> Activation | None:
    if config.get("model_type") != "clip":
        return None
    # The file leaves out what has its default, and the default of both towers is quick_gelu.
    towers = [config.get(tower) or {} for tower in ("vision_config", "text_config")]
    names = {tower.get("hidden_act", "quick_gelu") for tower in towers if isinstance(tower, Mapping)}
    if len(names) > 1:
        raise ValueError(f"{source}: the towers have different activations, {sorted(map(str, names))}")
    return checked_activation(names.pop(), source=source) if names else None


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds {type(content).__name__}, expected an object")
    return content
