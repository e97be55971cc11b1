"""Files of prompt features: a bare tensor as published, or features with their mask, class names and origin.

Both as what ``torch.save`` writes and as safetensors; the reader takes all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slowfast.utils.io import atomic_save, atomic_writer, describe_odd_tensor, load_tensors

SUFFIXES = (".pt", ".safetensors")
"""Of the files that are written; every other name is read as what ``torch.save`` writes."""

MAX_NUMBERS = 1 << 30
"""4 GB in float32. A thousand classes with a thousand prompts each have 768 million."""

_SHAPE = "expected a float tensor [classes, prompts, width]"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureFile:
    """Prompt features of the classes, and what is known of them."""

    features: Tensor
    """(K, n, E), any float dtype, any length."""
    mask: Tensor | None = None
    """Which of the n slots a class uses, (K, n) bool; None for all."""
    names: tuple[str, ...] | None = None
    """Class names of the rows."""
    record: Mapping[str, str] = field(default_factory=dict)
    """Where the features are from: hashes, kind of prompts."""


def read_feature_file(path: str | Path, *, what: str) -> FeatureFile:
    """Read prompt features without executing what a file holds.

    Args:
        path: a file of `write_feature_file`, or any tensor (K, n, E) saved with ``torch.save``.
        what: what names the file, for the error: a configuration key.

    Raises:
        ValueError: if the file is absent, unreadable or holds something else.
    """
    source = Path(path)
    content = _read_safetensors(source, what) if source.suffix == ".safetensors" else load_tensors(source, what=what)
    parts = content if isinstance(content, dict) and "features" in content else {"features": content}
    features = parts["features"]
    if not isinstance(features, Tensor) or features.ndim != 3 or not features.is_floating_point():
        found = f"{tuple(features.shape)} {features.dtype}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{what}: {source}: holds {found}; {_SHAPE}")
    odd = describe_odd_tensor(features)
    if odd:
        raise ValueError(f"{what}: {source}: the tensor is {odd}; {_SHAPE}")
    if features.numel() > MAX_NUMBERS:
        raise ValueError(f"{what}: {source}: says it has {features.numel()} numbers; allowed: {MAX_NUMBERS}")
    if not features.shape[1]:
        raise ValueError(f"{what}: {source}: holds {tuple(features.shape)}, no prompt for any class; {_SHAPE}")
    return FeatureFile(
        features=features.detach(),
        mask=_mask(parts.get("mask"), features, f"{what}: {source}"),
        names=_names(parts.get("names"), features, f"{what}: {source}"),
        record={key: value for key, value in parts.items() if isinstance(key, str) and isinstance(value, str)},
    )


def write_feature_file(path: str | Path, file: FeatureFile, *, bare: bool = False) -> None:
    """Write prompt features; the suffix chooses the kind. The same features give the same safetensors file.

    Args:
        path: a name with one of SUFFIXES.
        file: what to write.
        bare: write nothing but the tensor, as the published files are; safetensors keep names and record in their
            header, which a reader of tensors does not see.

    Raises:
        ValueError: if the suffix is another.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: unknown suffix {target.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    tensors = {"features": file.features} | ({} if bare or file.mask is None else {"mask": file.mask})
    if target.suffix == ".safetensors":
        names = {} if file.names is None else {"names": json.dumps(file.names)}
        _write_safetensors(target, tensors, {**names, **file.record})
    elif bare:
        atomic_save(file.features, target)
    else:
        names_entry = {} if file.names is None else {"names": list(file.names)}
        atomic_save({**tensors, **names_entry, **file.record}, target)


def _mask(mask: object, features: Tensor, where: str) -> Tensor | None:
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != features.shape[:2]:
        found = f"{tuple(mask.shape)} {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{where}: mask is {found}; expected {tuple(features.shape[:2])} torch.bool")
    empty = (~mask.any(dim=1)).nonzero()
    if len(empty):
        raise ValueError(f"{where}: the mask leaves class {int(empty[0])} without a prompt")
    return mask


def _names(names: object, features: Tensor, where: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: names are not a list of class names")
    if len(names) != len(features):
        raise ValueError(f"{where}: has {len(names)} names for {len(features)} rows")
    return tuple(names)


def _read_safetensors(source: Path, what: str) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open  # needed for this kind of file only

    if not source.is_file():
        raise ValueError(f"{source}: {what} not found")
    try:
        with safe_open(source, framework="pt") as file:
            content: dict[str, Any] = dict(file.metadata() or {})
            content |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if "names" in content:
            content["names"] = json.loads(content["names"])
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{source}: {what} cannot be read ({type(error).__name__}: {str(error)[:120]})") from error
    if "features" not in content:
        raise ValueError(f"{what}: {source}: has no entry 'features'; {_SHAPE}")
    return content


def _write_safetensors(target: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save

    # Room for the metadata is part of the header; the library writes it in random order, so it is put in by hand.
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    end = 8 + int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8:end])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_writer(target) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[end:])
