"""Files that are either whole or absent: atomic writes, content hashes, safe loading of tensors."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from torch import Tensor

PART_SUFFIX = ".part"
_LONGEST_LINE = 1 << 16

MAX_EXPANSION = 4
"""How many times larger than the file the content of an archive may be; torch.save does not compress at all."""
_SMALL_BYTES = 1 << 20

_UNREADABLE = (
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What torch raises over a damaged file, besides pickle's own error."""

_DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
    struct.error,
)
"""What Python's zipfile raises over a damaged archive."""


@contextmanager
def file_named(path: str | Path) -> Iterator[None]:
    """Let an error of writing say of which file it is: a full disk does not.

    Args:
        path: what is written in the block.

    Raises:
        OSError: with the file's name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


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
        with file_named(target):
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            _fsync_folder(target.parent)
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
        member = _damaged_member(source)
    except _DAMAGED_ZIP as error:
        return f"it is truncated or damaged ({_brief(error)})"
    return f"it is damaged: {member} does not have the checksum that it was written with" if member else None


def _damaged_member(path: Path) -> str | None:
    """Name of the first entry of a zip archive whose checksum does not fit."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that readers see the old content or the new one, never a part.

    Args:
        path: the final name.
        text: the whole content.
    """
    with atomic_writer(path) as file:
        file.write(text.encode("utf-8"))


def atomic_link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, under which readers see what it was before or the file; it takes no room on the disk.

    Where the file system has no links it is copied.

    Args:
        source: a file that is only ever replaced, never written into.
        target: the second name, in a folder that exists.

    Raises:
        OSError: if the file is not there or cannot be copied; an old file of the second name is then as it was.
    """
    path = Path(target)
    part = path.with_name(path.name + PART_SUFFIX)
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        with Path(source).open("rb") as original, atomic_writer(path) as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
        return
    try:
        part.replace(path)
        _fsync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)  # where both names were those of the file already


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file; the part of a line that an interrupted write left at its end goes.

    Args:
        path: made if it does not exist; its folder must.
        line: text without a line break.
    """
    with file_named(path), Path(path).open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_LINE))
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
        file.write(line.encode("utf-8") + b"\n")


def expanded(path: str | Path) -> Path:
    """Replace a leading ~; one of a user that this machine does not know stays, and names no file.

    Args:
        path: as somebody wrote it.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def require_file(path: str | Path) -> os.stat_result:
    """Make sure that a path is a file: reading a pipe waits for a writer, and a device may have no end.

    Args:
        path: what is to be opened.

    Returns: what `os.stat` says of the file.

    Raises:
        OSError: if it is something else, or is not there.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "The name holds a NUL character", str(path))
    state = Path(path).stat()
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "Is a pipe, a socket or a device, not a file", str(path))
    return state


def read_text(path: str | Path, *, what: str, max_bytes: int) -> str:
    """Read a text file that somebody else wrote: UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        what: what the file should be, for the error ("annotation file").
        max_bytes: size of the largest sensible file.

    Returns: the text, with line ends of any kind as line feeds.

    Raises:
        ValueError: if the file is absent, too large, or no text; one line that names it.
    """
    try:
        size = require_file(path).st_size
        if size > max_bytes:
            raise ValueError(f"{path}: the {what} has {size} bytes; allowed: {max_bytes}")
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot read the {what} ({error.strerror or type(error).__name__})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the {what} is not UTF-8 text") from error


def parse_json(text: str, *, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:  # noqa: ANN401
    """`json.loads` that raises nothing but JSONDecodeError over a text, however it is made.

    Args:
        text: JSON.
        object_pairs_hook: as for `json.loads`; what it raises goes through.

    Returns: what the text says.

    Raises:
        json.JSONDecodeError: a ValueError.
    """
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except ValueError as error:
        if not str(error).startswith("Exceeds the limit"):
            raise
        raise json.JSONDecodeError("an integer has too many digits", text, 0) from None


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


def refuse_zip_bomb(path: str | Path) -> None:
    """Refuse an archive that takes far more room in memory than on the disk; of other files nothing is read.

    Args:
        path: an existing file.

    Raises:
        ValueError: naming the file.
    """
    size = Path(path).stat().st_size
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            content = sum(entry.file_size for entry in archive.infolist())
    except _DAMAGED_ZIP:
        return  # whoever reads it next says so
    if content > MAX_EXPANSION * size + _SMALL_BYTES:
        raise ValueError(f"{path}: would unpack to {content} bytes, from {size}; torch.save writes no such file")


def _refuse_damaged_zip(path: Path, what: str) -> None:
    """Compare the checksums of an archive, which torch does not: a flipped bit would be another weight."""
    try:
        damaged = _damaged_member(path) if zipfile.is_zipfile(path) else None
    except _DAMAGED_ZIP:
        return  # torch says what is wrong with it
    if damaged is not None:
        raise ValueError(
            f"{path}: {what} is damaged: the checksum of {damaged!r:.200} does not fit (torch.save after "
            "set_crc32_options(False) writes such files too: save it anew)"
        )


def describe_odd_tensor(tensor: Tensor) -> str:
    """Say why a tensor of a file cannot be computed with as it is; "" if it can.

    Args:
        tensor: what a file holds.
    """
    import torch

    if tensor.layout != torch.strided:
        return f"sparse ({tensor.layout})"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.is_meta:
        return "without content (device meta)"
    if tensor.is_complex():
        return f"complex ({tensor.dtype})"
    return ""


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
    refuse_zip_bomb(source)
    if not memory_map:
        _refuse_damaged_zip(source, what)
    try:
        with warnings.catch_warnings():
            # What is odd about a file is refused in one line; torch's remarks on it would come before.
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True, mmap=memory_map or None)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{source}: {what} is damaged or holds objects that are unsafe to load ({_refused(error)})"
            f"{'; ' if advice else ''}{advice}"
        ) from error
    except _UNREADABLE as error:
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
