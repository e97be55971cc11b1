"""Read the tensors of a TorchScript archive without running it.

OpenAI published CLIP as TorchScript. ``torch.jit.load`` is deprecated and compiles whatever code an archive carries;
its tensors, however, lie in a pickle that names only module classes and tensor constructors. A restricted unpickler
reads them, and nothing from the archive is imported or executed.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


# What a pickle or a zip file full of nonsense may raise on the way.
_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    StopIteration,
    EOFError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Module:
    """Stands in for any scripted class of the archive; only its attributes are kept."""

    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:  # noqa: ANN401 - whatever the archive holds
        self.attributes = state if isinstance(state, dict) else {}


def _rebuild_tensor(
    storage: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_: Any,  # noqa: ANN401
) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset).clone()


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:  # noqa: ANN401
    return data


def _first(value: Any, *_: Any) -> Any:  # noqa: ANN401
    return value


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
}


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"refers to {module}.{name}, which a weight file has no need of")

    def persistent_load(self, reference: Any) -> Tensor:  # noqa: ANN401
        _, dtype, key, _, _ = reference
        if key not in self._storages:
            raw = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            self._storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return self._storages[key]


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
        with zipfile.ZipFile(path) as archive:
            main = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            content = io.BytesIO(archive.read(main))
            module = _TensorUnpickler(content, archive, main.rsplit("/", 1)[0]).load()
        _collect(module, "", tensors)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not a readable TorchScript archive ({error!r})") from error
    return tensors


def _collect(module: Any, prefix: str, tensors: dict[str, Tensor]) -> None:  # noqa: ANN401
    if not isinstance(module, _Module):
        return
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        else:
            _collect(value, f"{prefix}{name}.", tensors)
