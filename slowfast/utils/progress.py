"""How far a long job is: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

LOG_PERIOD_SECONDS = 30.0


class Progress:
    """Counts items and how many of them failed; a context manager.

    Args:
        total: items to come.
        doing: what is done, e.g. "inspect".
        unit: what an item is, in the singular.
    """

    def __init__(self, total: int, *, doing: str, unit: str) -> None:
        self._doing = doing
        self._unit = unit
        self._total = total
        self._done = self._failed = 0
        self._said_at = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=doing, unit=unit, disable=not self._on_terminal)

    def step(self, *, failed: bool = False) -> None:
        """Count one item."""
        self._done += 1
        self._failed += failed
        if failed:
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update()
        now = time.monotonic()
        if not self._on_terminal and now - self._said_at >= LOG_PERIOD_SECONDS:
            self._said_at = now
            logger.info("%s: %d of %d %ss, %d failed", self._doing, self._done, self._total, self._unit, self._failed)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
