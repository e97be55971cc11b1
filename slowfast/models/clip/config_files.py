"""Configuration files that Hugging Face and open_clip put beside their weights.

They say what the weights do not: the activation and the number of attention heads. Options that our CLIP does not have
are refused by name, since weights trained with them give other features here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast.models.clip.arch import HEAD_WIDTH
from slowfast.models.clip.layers import ACTIVATIONS, Activation
from slowfast.utils.io import parse_json

OPEN_CLIP_CONFIG = "open_clip_config.json"
HUGGING_FACE_CONFIG = "config.json"

_LAYER_NORM_EPS = 1e-5
# Sizes, which the weights tell as well, and what matters to training or to the form of open_clip's output only.
_OPEN_CLIP_FREE = {
    "image_size", "layers", "width", "patch_size", "heads", "context_length", "vocab_size",
    "patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads", "pad_id", "eos_id",
}  # fmt: skip
# The value, other than none at all, that an option has in OpenAI's architecture.
_OPEN_CLIP_FIXED: dict[str, tuple[object, ...]] = {
    "head_width": (HEAD_WIDTH,),
    "mlp_ratio": (4.0,),
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "proj_type": ("linear",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What a configuration file says beyond the weights.

    Attributes:
        path: the file.
        activation: activation of both towers.
    """

    path: Path
    activation: Activation


def checked_activation(value: object, *, source: str) -> Activation:
    """Narrow a value to one of the activations that our CLIP has.

    Raises:
        ValueError: if it is anything else.
    """
    if value == "quick_gelu":
        return "quick_gelu"
    if value == "gelu":
        return "gelu"
    raise ValueError(f"{source}: activation {value!r} is not one that CLIP has here: {', '.join(ACTIVATIONS)}")


def open_clip_config(weights: Path) -> ModelConfig | None:
    """Read ``open_clip_config.json`` beside a weight file; None where there is none.

    Raises:
        ValueError: if the file is damaged or describes a model that our CLIP is not.
    """
    path = weights.with_name(OPEN_CLIP_CONFIG)
    if not path.is_file():
        return None
    model = _read_json(path).get("model_cfg")
    if not isinstance(model, Mapping):
        raise ValueError(f"{path}: has no model_cfg")
    for tower in ("vision_cfg", "text_cfg"):
        options = model.get(tower)
        if not isinstance(options, Mapping):
            raise ValueError(f"{path}: model_cfg has no {tower}")
        for name, value in options.items():
            if value and name not in _OPEN_CLIP_FREE and value not in _OPEN_CLIP_FIXED.get(name, ()):
                raise ValueError(f"{path}: {tower}.{name} is {value!r}; CLIP here has no such option")
        _check_heads(options.get("width"), options.get("heads"), source=f"{path}: {tower}")
    return ModelConfig(path=path, activation="quick_gelu" if model.get("quick_gelu", False) else "gelu")


def hugging_face_config(weights: Path) -> ModelConfig | None:
    """Read the ``config.json`` of a CLIPModel beside a weight file; None where there is none.

    Raises:
        ValueError: if the file is damaged or describes a model that our CLIP is not.
    """
    path = weights.with_name(HUGGING_FACE_CONFIG)
    if not path.is_file():
        return None
    content = _read_json(path)
    if content.get("model_type") != "clip":
        raise ValueError(f"{path}: model_type is {content.get('model_type')!r}, expected 'clip'")
    activations = set()
    for tower in ("vision_config", "text_config"):
        options = content.get(tower) or {}
        if not isinstance(options, Mapping):
            raise ValueError(f"{path}: {tower} is {type(options).__name__}, expected an object")
        # The file leaves out what has its default, and the default is quick_gelu.
        activations.add(checked_activation(options.get("hidden_act", "quick_gelu"), source=f"{path}: {tower}"))
        if options.get("layer_norm_eps", _LAYER_NORM_EPS) != _LAYER_NORM_EPS:
            raise ValueError(f"{path}: {tower}.layer_norm_eps is {options['layer_norm_eps']}, not {_LAYER_NORM_EPS}")
        _check_heads(options.get("hidden_size"), options.get("num_attention_heads"), source=f"{path}: {tower}")
    if len(activations) > 1:
        raise ValueError(f"{path}: the towers have different activations; CLIP here has one for both")
    return ModelConfig(path=path, activation=activations.pop())


def _check_heads(width: object, heads: object, *, source: str) -> None:
    if isinstance(width, int) and isinstance(heads, int) and width != heads * HEAD_WIDTH:
        raise ValueError(
            f"{source}: {heads} attention heads on width {width}; only heads {HEAD_WIDTH} wide are supported"
        )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds {type(content).__name__}, expected an object")
    return content
