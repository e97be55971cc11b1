"""A DataLoader whose failures are one line: which video hangs, which one ended a worker, what a worker ran into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import DataLoader, Dataset

from slowfast.config.shown import one_line
from slowfast.datasets.types import Batch
from slowfast.utils.errors import USER_ERRORS

_MOST_NAMED = 4


@runtime_checkable
class Watched(Protocol):
    """A dataset that tells which videos its workers are at."""

    def watch(self, workers: int) -> None:
        """Let workers note which video they are at, where this process can read it."""

    def in_progress(self) -> list[str]:
        """Videos that workers are at, the one that was begun first in front."""


class VideoLoader(DataLoader[Any]):
    """Batches of a dataset of videos, or of episodes.

    A worker that gives nothing for `timeout` seconds hangs in a file or behind a dead disk, which nothing in its own
    process can notice: the run ends with a line that names the video. Without workers there is no such watch.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:  # noqa: ANN401 - those of DataLoader
        """Make a loader.

        Args:
            dataset: what to read.
            **options: as for DataLoader.
        """
        assert isinstance(dataset, Watched), f"{type(dataset).__name__} does not tell which videos it reads"
        super().__init__(dataset, **options)
        dataset.watch(self.num_workers)

    def __iter__(self) -> Any:  # noqa: ANN401 - DataLoader promises an iterator of its own kind
        """Begin an epoch.

        Raises:
            ValueError: while it is read, naming the video that hangs, or the file that a worker could not use.
        """
        return _Batches(super().__iter__(), self)


class _Batches(Iterator[Batch]):
    def __init__(self, batches: Iterator[Batch], loader: VideoLoader) -> None:
        self._batches, self._loader = batches, loader

    def __next__(self) -> Batch:
        try:
            return next(self._batches)
        except RuntimeError as error:
            reason = self._lost(str(error))
            if not reason:
                raise
            raise ValueError(reason) from error
        except USER_ERRORS as error:
            if not str(error).startswith("Caught "):
                raise
            raise ValueError(_message_of(str(error))) from error

    def _lost(self, text: str) -> str:
        """Say how a worker was lost; "" if the error is another one."""
        dataset = self._loader.dataset
        assert isinstance(dataset, Watched)
        at = dataset.in_progress()
        if text.startswith("DataLoader timed out"):
            seconds = f"{self._loader.timeout:g} s"
            if not at:
                return f"DATA_LOADER.TIMEOUT_SECONDS: no batch came for {seconds}, though no worker was at a video"
            return one_line(f"{at[0]}: reading took longer than DATA_LOADER.TIMEOUT_SECONDS, which is {seconds}")
        if text.startswith("DataLoader worker (pid"):
            how = text.splitlines()[0].partition(") ")[2].strip(". ") or "ended"
            among = ", ".join(at[:_MOST_NAMED]) + (", ..." if len(at) > _MOST_NAMED else "")
            return one_line(f"a worker process {how}; workers were at: {among or 'no video'}")
        return ""


def _message_of(text: str) -> str:
    """The message of a worker's exception, which arrives with its traceback, an indented text, in front."""
    lines = text.strip().splitlines()
    last = max((number for number, line in enumerate(lines) if line.startswith("  ")), default=-1)
    return one_line(" ".join(lines[last + 1 :]).partition(": ")[2])
