"""Files that are either whole or absent: atomic writes, content hashes, safe loading of tensors."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from torch import Tensor

PART_SUFFIX = ".part"
_LONGEST_LINE = 1 << 16


@contextmanager
def atomic_writer(path: str | Path) -> Iterator[BinaryIO]:
    """Open `<path>.part` for writing and move it over `path` once it is complete and on the disk.

    Args:
        path: the final name; missing parent folders are made.

    Yields: a binary file. An exception inside the block leaves the old `path` intact and removes the partial file.

    Raises:
        OSError: if the file cannot be written, naming it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART_SUFFIX)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        _fsync_folder(target.parent)
    except OSError as error:
        if error.filename is None:
            # A full disk does not say of which file; the user should know.
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


class _Hashed(io.RawIOBase):
    """A binary file for writing that hashes what goes through."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()

        self.error: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401 - anything with a buffer
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise


def atomic_save(obj: Any, path: str | Path) -> str:  # noqa: ANN401 (whatever torch.save takes)
    """`torch.save` that an interruption cannot turn into a damaged file.

    Args:
        obj: anything `torch.save` takes; keep to tensors, numbers, strings and containers so that it loads safely.
        path: the final name.

    Returns: the sha256 of the file, 64 hexadecimal digits.

    Raises:
        OSError: if the file cannot be written; an old file of the name is then as it was.
    """
    import torch

    with atomic_writer(path) as file:
        hashed = _Hashed(file)
        try:
            torch.save(obj, cast("IO[bytes]", hashed))
        except RuntimeError:
            # PyTorch closes its archive after an error too, fails at that, and tells of this failure alone.
            if hashed.error is not None:
                raise hashed.error from None
            raise
    return hashed.digest.hexdigest()


def remove_parts(folder: str | Path) -> list[Path]:
    """Remove what interrupted writes left in a folder, while nobody writes there.

    Args:
        folder: need not exist.

    Returns: the removed files.
    """
    parts = sorted(Path(folder).glob(f"*{PART_SUFFIX}"))
    for path in parts:
        path.unlink(missing_ok=True)
    return parts


def find_damage(path: str | Path) -> str | None:
    """Check a zip archive, as `torch.save` writes it, against the checksums that it holds; nothing is unpickled.

    PyTorch does not look at them: it would load a tensor with flipped bits as if nothing had happened.

    Args:
        path: a file that exists.

    Returns: what is wrong with it, for an error; None if all is well, or the file is no zip archive.
    """
    source = Path(path)
    with source.open("rb") as file:
        start = file.read(2)
    if start != b"PK":
        return None if start else "it is empty"
    try:
        with zipfile.ZipFile(source) as archive:
            member = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return f"it is truncated or damaged ({_brief(error)})"
    return f"it is damaged: {member} does not have the checksum that it was written with" if member else None


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that readers see the old content or the new one, never a part.

    Args:
        path: the final name.
        text: the whole content.
    """
    with atomic_writer(path) as file:
        file.write(text.encode("utf-8"))


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file; the part of a line that an interrupted write left at its end goes.

    Args:
        path: made if it does not exist; its folder must.
        line: text without a line break.
    """
    with Path(path).open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_LINE))
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
        file.write(line.encode("utf-8") + b"\n")


def sha256_file(path: str | Path) -> str:
    """Hash a file in blocks.

    Args:
        path: an existing file.

    Returns: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hash named tensors: names, dtypes, shapes and values, in the order of the names.

    Args:
        tensors: a state dict, on any device.

    Returns: 64 hexadecimal digits.
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(path: str | Path, *, what: str, advice: str = "", memory_map: bool = False) -> Any:  # noqa: ANN401 (the file decides)
    """Load a file of tensors on the CPU without ever executing what it holds.

    Args:
        path: a file written by `torch.save`.
        what: what the file should be, for the error ("checkpoint", "text features").
        advice: what to do about a file that holds other objects, for the error.
        memory_map: leave the tensors in the file until they are used, and unchecked; for zip archives only.

    Returns: the stored object.

    Raises:
        ValueError: if the file is missing, damaged, or holds anything but tensors and plain containers.
    """
    import torch

    source = Path(path)
    if not source.is_file():
        raise ValueError(f"{source}: {what} not found" if not source.exists() else f"{source}: {what} is not a file")
    damage = None if memory_map else find_damage(source)
    if damage:
        raise ValueError(f"{source}: {what} cannot be read: {damage}")
    try:
        with warnings.catch_warnings():
            # A foreign pickle is refused below, in one line; torch's remark on its protocol would come before it.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(source, map_location="cpu", weights_only=True, mmap=memory_map or None)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{source}: {what} is damaged or holds objects that are unsafe to load ({_refused(error)})"
            f"{'; ' if advice else ''}{advice}"
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:
        raise ValueError(f"{source}: {what} cannot be read ({_brief(error)})") from error


def _brief(error: BaseException) -> str:
    """One short line of an exception's message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}".rstrip(": ")


def _refused(error: pickle.UnpicklingError) -> str:
    """What torch's safe reader stumbled over, out of its page of advice."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it names {found[1]}" if found else "it is not what torch.save writes"


def _fsync_folder(folder: Path) -> None:
    """Make a rename durable; only POSIX lets one open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
