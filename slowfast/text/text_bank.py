"""Text features of the classes: from templates, or from a file of prompt features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slowfast.text.templates import ACTION_TEMPLATES
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.io import load_tensors

TextEncoder = Callable[[Tensor], Tensor]
"""Tokens (N, 77) -> features (N, E); the text tower, handed in so that this package does not depend on models."""

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class TextBank:
    """Text features of a label set, unit norm, fp32.

    Raises:
        ValueError: if the features have another number of axes.
    """

    features: Tensor
    """One feature per class, (K, E), or one per prompt and class, (K, P, E)."""

    def __post_init__(self) -> None:
        if self.features.ndim not in (2, 3):
            raise ValueError(f"text features have shape {tuple(self.features.shape)}; expected (K, E) or (K, P, E)")

    def __len__(self) -> int:
        """Number of classes, K."""
        return self.features.shape[0]


def encode_texts(texts: Sequence[str], *, encode: TextEncoder, tokenizer: Tokenizer) -> Tensor:
    """Embed texts in chunks of similar length, since a tower may skip what lies behind the longest text of a chunk.

    Returns:
        Features, unit norm, fp32, (N, E).
    """
    tokens = tokenizer(texts)
    order = tokens.argmax(dim=-1).argsort(stable=True)
    with torch.no_grad():
        features = torch.cat([encode(chunk).float() for chunk in tokens[order].split(_CHUNK)])
    features = torch.empty_like(features).index_copy_(0, order.to(features.device), features)
    return features / features.norm(dim=-1, keepdim=True)


def template_bank(
    names: Sequence[str],
    *,
    encode: TextEncoder,
    tokenizer: Tokenizer,
    templates: Sequence[str] = ACTION_TEMPLATES,
) -> TextBank:
    """Average each class's name over the templates.

    Args:
        names: class names, K.
        encode: the text tower.
        tokenizer: its tokenizer.
        templates: strings with one ``{}`` each.

    Returns:
        Features, (K, E).

    Source: Radford et al. (2021), section 3.1.4.
    """
    texts = [template.format(name) for template in templates for name in names]
    features = encode_texts(texts, encode=encode, tokenizer=tokenizer)
    mean = features.unflatten(0, (len(templates), len(names))).mean(dim=0)
    return TextBank(mean / mean.norm(dim=-1, keepdim=True))


def load_feature_file(path: str | Path, *, num_classes: int, embed_dim: int) -> TextBank:
    """Read prompt features that were computed beforehand (DATA.TEXT_AUG_FEATURE_FILE).

    Args:
        path: a tensor [K, n, E] saved with ``torch.save``; any float dtype, any length.
        num_classes: number of classes of the label set, K.
        embed_dim: width of the joint space, E.

    Returns:
        Features, (K, n, E).

    Raises:
        ValueError: if the file is absent or its content does not fit the label set and the model.
    """
    key = "DATA.TEXT_AUG_FEATURE_FILE"
    if not str(path):
        raise ValueError(
            f"{key}: is empty, but DATA.TEXT_AUG is True; give a file with a tensor [classes, prompts, width]"
        )
    features = load_tensors(path, what=key)
    if not isinstance(features, Tensor) or features.ndim != 3 or not features.is_floating_point():
        found = f"{tuple(features.shape)} {features.dtype}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{key}: {path}: holds {found}; expected a float tensor [classes, prompts, width]")
    rows, prompts, width = features.shape
    if rows != num_classes:
        raise ValueError(f"{key}: {path}: has {rows} rows, but the label set has {num_classes} classes")
    if width != embed_dim:
        raise ValueError(f"{key}: {path}: features have width {width}, but the model's joint space has {embed_dim}")
    features = features.float()
    norms = features.norm(dim=-1)
    usable = torch.isfinite(norms) & (norms > 0)
    if prompts == 0 or not usable.all():
        where = [] if prompts == 0 else (~usable).nonzero()[0].tolist()
        raise ValueError(f"{key}: {path}: feature [class, prompt] {where} is zero, infinite or absent")
    return TextBank(features / norms[..., None])
