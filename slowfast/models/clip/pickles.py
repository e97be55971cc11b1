"""Read the tensors of a pickled file without importing or calling anything that it names.

A restricted unpickler knows a dozen names, those that rebuild tensors. What happens to every other name is the caller's
choice: TorchScript's modules become holders of attributes, anything else of a weight file is refused. For a file that
nobody vouches for, `read_untrusted` replaces every other name by an inert object, and does so in a process of its own,
which hands back nothing but tensors in a safetensors file.

As a script (``python -I pickles.py SOURCE TARGET``) this file is that process; it imports nothing else of the project.
"""

from __future__ import annotations

import math
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

SEPARATOR = "\x1f"
"""Between the keys of nested dicts, in the names of the handed-back tensors."""

UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    StopIteration,
    EOFError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    RecursionError,
    MemoryError,
    TypeError,
    ValueError,
)
"""What a pickle or a zip file full of nonsense may raise on the way."""

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
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # how torch.save began its files before they were zip archives
_SECONDS = 1800
_MOST_REPEATED = 1 << 24
_MOST_EXPANSION_BYTES = 1 << 28
_START = (
    "import runpy, sys; sys.path.append(sys.argv[1]); sys.argv[:] = sys.argv[2:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
_STATES_OF_TRAINING = ("optimizer", "lr_scheduler", "scheduler", "scaler")


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    # A stride of 0 repeats an element, and copying such a view writes all of it out.
    if math.prod(size) > max(storage.numel(), _MOST_REPEATED):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} repeats its {storage.numel()} elements")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _first(value: Any, *_: object) -> Any:  # noqa: ANN401 - whatever the pickle holds
    return value


_REBUILD: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}

Policy = Callable[[str, str], Any]
"""(module, name) of something outside the list -> what stands in for it, or an UnpicklingError."""


class TensorUnpickler(pickle.Unpickler):
    """Unpickler that finds nothing but the rebuilding of tensors.

    Args:
        file: the pickle.
        storage: (dtype, key, number of elements) -> a flat tensor.
        policy: what becomes of other names.
    """

    def __init__(self, file: IO[bytes], *, storage: Callable[[torch.dtype, str, int], Tensor], policy: Policy) -> None:
        super().__init__(file)
        self._storage, self._policy = storage, policy

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - whatever stands in for the name
        """Look a name up in the list, never in the modules of Python."""
        if (module, name) in _REBUILD:
            return _REBUILD[module, name]
        return self._policy(module, name)

    def persistent_load(self, reference: Any) -> Tensor:  # noqa: ANN401 - whatever the pickle holds
        """Find the storage that a tensor refers to."""
        _, dtype, key, _, elements = reference[:5]
        if not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("refers to a storage of unknown type")
        return self._storage(dtype, key, elements)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive of torch, whose entries are hardly compressed: one that unpacks to much more is refused.

    Raises:
        UNREADABLE: if the archive is damaged, or larger than it seems.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(info.file_size for info in archive.infolist())
        if size > path.stat().st_size + _MOST_EXPANSION_BYTES:
            raise zipfile.BadZipFile(f"unpacks to {size} bytes")
        yield archive


def unpickle_archive(path: Path, *, policy: Policy) -> Any:  # noqa: ANN401 - whatever the archive holds
    """Read ``data.pkl`` of a zip archive of torch; tensors are views of storages that they may share.

    Raises:
        UNREADABLE: if the archive is damaged or the policy refuses a name.
    """
    with open_archive(path) as archive:
        main = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = main.rsplit("/", 1)[0]
        storages: dict[str, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, elements: int) -> Tensor:
            del elements  # the entry's own length counts
            if key not in storages:
                raw = bytearray(archive.read(f"{root}/data/{key}"))
                storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            return storages[key]

        with archive.open(main) as file:
            return TensorUnpickler(file, storage=storage, policy=policy).load()


def unpickle_legacy(path: Path, *, policy: Policy) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read a file that torch.save wrote before version 1.6: pickles in a row, then the content of the storages.

    Raises:
        UNREADABLE: if the file is damaged or the policy refuses a name.
    """
    limit = path.stat().st_size
    storages: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, elements: int) -> Tensor:
        if key not in storages:
            if not 0 <= elements * dtype.itemsize <= limit:
                raise pickle.UnpicklingError(f"a storage of {elements} elements does not fit into the file")
            storages[key] = torch.zeros(elements, dtype=dtype)
        return storages[key]

    with path.open("rb") as file:

        def load() -> Any:  # noqa: ANN401
            return TensorUnpickler(file, storage=storage, policy=policy).load()

        if load() != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("not a file of torch.save")
        load()  # version of the format
        load()  # sizes of C's integers
        content = load()
        for key in load():
            (elements,) = struct.unpack("<q", file.read(8))
            if elements != storages[key].numel():
                raise pickle.UnpicklingError(f"storage {key} has another length than its tensors say")
            raw = bytearray(file.read(elements * storages[key].dtype.itemsize))
            storages[key].copy_(torch.frombuffer(raw, dtype=storages[key].dtype) if raw else torch.empty(0))
    return content


class _Inert(dict[object, object]):
    """Stands in for a foreign class or function, and for what it would have made; does nothing, keeps nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __call__(self, *_: object, **__: object) -> _Inert:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, value: object) -> None:
        """Take an element of a pickled list."""

    extend = add = append


def _inert(module: str, name: str) -> type[_Inert]:
    del module, name
    return _Inert


def flat_tensors(content: object) -> dict[str, Tensor]:
    """Collect the tensors of nested dicts, without the state of the training.

    Args:
        content: what a file holds.

    Returns:
        Tensors of their own memory, by the keys on the way, joined by SEPARATOR.
    """
    found: dict[str, Tensor] = {}
    pending: list[tuple[str, object]] = [("", content)]
    seen: set[int] = set()
    while pending:
        prefix, value = pending.pop()
        if isinstance(value, Tensor):
            found[prefix] = value.detach().clone(memory_format=torch.contiguous_format)
        elif isinstance(value, Mapping) and not isinstance(value, _Inert) and id(value) not in seen:
            seen.add(id(value))
            for key, inner in value.items():
                if prefix or not str(key).startswith(_STATES_OF_TRAINING):
                    pending.append((f"{prefix}{SEPARATOR if prefix else ''}{_plain(key)}", inner))
    return found


def _plain(key: object) -> str:
    return str(key).replace(SEPARATOR, "?")


def nested(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """Undo `flat_tensors`: nested dicts of tensors."""
    content: dict[str, Any] = {}
    for name, tensor in flat.items():
        *path, last = name.split(SEPARATOR)
        inner = content
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = tensor
    return content


def read_untrusted(path: Path) -> dict[str, Any]:
    """Read the tensors of a pickled file that nobody vouches for, in a process of its own.

    Args:
        path: a file of torch.save, whatever else it holds.

    Returns:
        The file's nested dicts, with tensors only, on the CPU.

    Raises:
        ValueError: if the file is damaged or holds no tensors.
    """
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tensors.safetensors"
        packages = Path(torch.__file__).parents[1]  # isolation would hide those of a user's own folder
        script, source = Path(__file__).resolve(), path.resolve()
        command = [sys.executable, "-I", "-c", _START, *map(str, (packages, script, source, target))]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path}: reading its tensors took more than {_SECONDS} s") from error
        if done.returncode != 0 or not target.is_file():
            lines = done.stderr.strip().splitlines() or [f"the reading process ended with status {done.returncode}"]
            raise ValueError(f"{path}: {lines[-1]}")
        return nested(load_file(target))


def main(source: str, target: str) -> int:
    """Write the tensors of a pickled file into a safetensors file; returns the exit status."""
    from safetensors.torch import save_file

    path = Path(source)
    try:
        read = unpickle_archive if zipfile.is_zipfile(path) else unpickle_legacy
        tensors = flat_tensors(read(path, policy=_inert))
    except (*UNREADABLE, OSError) as error:
        text = str(error).strip().splitlines() or [""]
        sys.stderr.write(f"not a readable file of torch.save ({type(error).__name__}: {text[0][:120]})\n")
        return 1
    if not tensors:
        sys.stderr.write("holds no dict of tensors\n")
        return 1
    save_file(tensors, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
