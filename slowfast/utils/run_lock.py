"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

LOCK_FILE = ".lock"


@contextlib.contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however it ends.

    The lock is one of POSIX records: children do not inherit it, and it works across the machines of a cluster where
    its file system does. One that cannot lock says so in the log, and the run goes on without.

    Args:
        folder: OUTPUT_DIR; made if it does not exist.

    Raises:
        ValueError: if another process holds it, naming that process.
    """
    path = Path(folder) / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked_file(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked_file(path: Path) -> TextIO:
    """Open the file and lock it; it is the one that the name stands for, and not one that its holder just removed."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file, path)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: TextIO, path: Path) -> None:
    try:
        import fcntl  # POSIX only

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise ValueError(
            f"OUTPUT_DIR: {path.parent} is in use by {holder}; wait for its end, or choose another folder"
        ) from None
    except (ImportError, OSError) as error:
        logger.warning("%s cannot be locked (%s): nothing keeps a second run out of the folder", path.parent, error)
