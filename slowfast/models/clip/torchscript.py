"""Read the tensors of a TorchScript archive without running it.

OpenAI published CLIP as TorchScript. ``torch.jit.load`` is deprecated and compiles whatever code an archive carries;
its tensors, however, lie in a pickle that names only module classes and tensor constructors. The restricted unpickler
reads them, and nothing from the archive is imported or executed.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from slowfast.models.clip.layers import Activation
from slowfast.models.clip.pickles import UNREADABLE, open_archive, unpickle_archive


class _Module:
    """Stands in for any scripted class of the archive; only its attributes are kept."""

    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:  # noqa: ANN401 - whatever the archive holds
        self.attributes = state if isinstance(state, dict) else {}


def _first(value: Any, *_: object) -> Any:  # noqa: ANN401
    return value


_TYPE_TAGS = ("restore_type_tag", "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def _scripted(module: str, name: str) -> Any:  # noqa: ANN401 - a class or a function
    if module.startswith("__torch__"):
        return _Module
    if module == "torch.jit._pickle" and name in _TYPE_TAGS:
        return _first
    raise pickle.UnpicklingError(f"refers to {module}.{name}, which a weight file has no need of")


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (*UNREADABLE, OSError):
        return False  # damaged; whoever reads it next says so


def read_torchscript_tensors(path: Path) -> dict[str, Tensor]:
    """Read all parameters and buffers of a TorchScript archive.

    Args:
        path: the archive.

    Returns:
        Tensors under their dotted names, on the CPU.

    Raises:
        ValueError: if the archive is damaged or holds anything but modules and tensors.
    """
    tensors: dict[str, Tensor] = {}
    try:
        _collect(unpickle_archive(path, policy=_scripted), "", tensors)
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a readable TorchScript archive ({error!r})") from error
    return tensors


def torchscript_activation(path: Path) -> Activation:
    """Read off an archive's code, as text, whether it computes the GELU; OpenAI's archives compute QuickGELU.

    Raises:
        ValueError: if the archive is damaged.
    """
    try:
        with open_archive(path) as archive:
            code = (archive.read(name) for name in archive.namelist() if name.endswith(".py"))
            return "gelu" if any(b"torch.gelu(" in text for text in code) else "quick_gelu"
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a readable TorchScript archive ({error!r})") from error


def _collect(module: Any, prefix: str, tensors: dict[str, Tensor]) -> None:  # noqa: ANN401
    if not isinstance(module, _Module):
        return
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value.clone()
        else:
            _collect(value, f"{prefix}{name}.", tensors)
