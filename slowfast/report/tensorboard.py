"""Scalars to TensorBoard, through a callback that the loop is handed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType


class TensorboardWriter:
    """Callback `(step, scalars)` that writes event files.

    Args:
        log_dir: folder of the event files.

    Raises:
        ValueError: if the tensorboard package is not installed.
    """

    def __init__(self, log_dir: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f"TENSORBOARD.ENABLE: True needs the package tensorboard ({error}); install it, or set False"
            ) from error
        self._writer = SummaryWriter(str(log_dir))

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars.

        Args:
            step: iterations since the start of the run.
            scalars: tag ("train/loss", "val/top1_err") -> value.
        """
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Write out what is buffered."""
        self._writer.close()

    def __enter__(self) -> TensorboardWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, whatever happened."""
        self.close()
