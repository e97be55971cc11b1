"""Console and file logs in PySlowFast's layout, with secrets removed."""

from __future__ import annotations

import contextlib
import decimal
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import simplejson

from slowfast.config.redaction import redact
from slowfast.utils.io import append_line

ROOT_NAME = "slowfast"
JSON_STATS_FILE = "json_stats.log"


def get_logger(name: str) -> logging.Logger:
    """Logger below the project's own, whatever the module's name.

    Args:
        name: usually `__name__`.
    """
    inside = name == ROOT_NAME or name.startswith(f"{ROOT_NAME}.")
    return logging.getLogger(name if inside else f"{ROOT_NAME}.{name}")


class RedactingFormatter(logging.Formatter):
    """Formatter that cleans the finished line, so that arguments and tracebacks are covered too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record without its secrets."""
        return redact(super().format(record))


class _LogFile(logging.FileHandler):
    """A log file that says once if it cannot be written, on a full disk for instance, and then rests."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Give the file up; the console goes on."""
        error = sys.exc_info()[1]
        self.setLevel(logging.CRITICAL + 1)
        sys.stderr.write(f"warning: {self.baseFilename}: cannot be written any more ({error})\n")

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost."""
        with contextlib.suppress(OSError):
            super().close()


def setup_logging(output_dir: str | Path | None, *, rank: int = 0) -> None:
    """Send the project's log to the console (rank 0) and to a file per process.

    A second call replaces the handlers of the first.

    Args:
        output_dir: folder of `stdout.log` (rank 0) and `stdout_rank{r}.log`; None writes no file.
        rank: number of this process.
    """
    logger = logging.getLogger(ROOT_NAME)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = []
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stdout))
    if output_dir is not None:
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        file_name = "stdout.log" if rank == 0 else f"stdout_rank{rank}.log"
        handlers.append(_LogFile(folder / file_name, encoding="utf-8"))
    formatter = RedactingFormatter(
        "[%(asctime)s][%(levelname)s] %(filename)s: %(lineno)3d: %(message)s", datefmt="%m/%d %H:%M:%S"
    )
    for handler in handlers or [logging.NullHandler()]:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def format_json_stats(stats: Mapping[str, Any]) -> str:
    """Write statistics as one line of strict JSON with sorted keys.

    Floats get five decimals, as PySlowFast writes them. Below 0.01 they keep five significant digits instead: at five
    decimals a learning rate of 3e-6 would read 0. Values that JSON lacks (nan, inf) become null.

    Args:
        stats: plain Python values.
    """
    rounded = {key: _round(value) if isinstance(value, float) else value for key, value in stats.items()}
    return str(simplejson.dumps(rounded, sort_keys=True, use_decimal=True))


def log_json_stats(stats: Mapping[str, Any], output_dir: str | Path | None = None) -> None:
    """Log `json_stats: {...}` and, on rank 0, append the same line to OUTPUT_DIR/json_stats.log.

    Args:
        stats: plain Python values.
        output_dir: folder of `json_stats.log`; None only logs.
    """
    line = redact(f"json_stats: {format_json_stats(stats)}")
    get_logger(__name__).info(line, stacklevel=2)
    if output_dir is None:
        return
    from slowfast.utils.distributed import is_master  # here, because it loads torch

    if is_master():
        append_line(Path(output_dir) / JSON_STATS_FILE, line)


def _round(value: float) -> decimal.Decimal | None:
    if not math.isfinite(value):
        return None
    fixed = value == 0 or abs(value) >= 0.01
    return decimal.Decimal(f"{value:.5f}" if fixed else f"{value:.4e}")
