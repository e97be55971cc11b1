"""Files about one split of a test: each video, each class, each pair of classes."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from torch import Tensor

from slowfast.config.redaction import redact
from slowfast.protocols.metrics import Tally, topk_correct
from slowfast.utils.io import atomic_write_text, atomic_writer

PREDICTIONS_FILE = "predictions.csv"
PER_CLASS_FILE = "per_class.csv"
CONFUSION_FILE = "confusion.csv"
EPISODES_FILE = "episodes.csv"


class SplitFiles:
    """Writes the files of one split while its scores stream by; a context manager.

    `predictions.csv`: video, label, predicted, in_top5. `per_class.csv`: class, videos, top1 and top5 in percent, the
    class that it is most often taken for and the share of that. `confusion.csv`: videos by true class (row) and
    predicted class. Nothing is left behind if an error ends the context.

    Args:
        folder: where they go; made if it is absent.
        names: class names of the split, K.
        paths: videos by id.
    """

    def __init__(self, folder: str | Path, *, names: Sequence[str], paths: Sequence[str]) -> None:
        self.folder = Path(folder)
        self.tally = Tally(len(names))
        self._names = names
        self._paths = paths
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SplitFiles:
        """Open the list of predictions."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self._stack.enter_context(atomic_writer(self.folder / PREDICTIONS_FILE))
        self._file.write(_csv_lines([("video", "label", "predicted", "in_top5")]).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the files, or remove what was written of them."""
        self._stack.__exit__(kind, error, trace)
        if error is None:
            atomic_write_text(self.folder / PER_CLASS_FILE, _csv_lines(_per_class(self.tally, self._names)))
            rows = [[name, *counts] for name, counts in zip(self._names, self.tally.confusion.tolist(), strict=True)]
            atomic_write_text(self.folder / CONFUSION_FILE, _csv_lines([["class", *self._names], *rows]))

    def add(self, video_id: Tensor, label: Tensor, logits: Tensor) -> None:
        """Add V videos: ids (V,), labels (V,), scores (V, K)."""
        if not len(label):
            return
        self.tally.add(logits, label)
        predicted, found = logits.argmax(dim=1).tolist(), topk_correct(logits, label, k=5).tolist()
        rows = [
            (redact(self._paths[index]), self._names[true], self._names[best], int(hit))
            for index, true, best, hit in zip(video_id.tolist(), label.tolist(), predicted, found, strict=True)
        ]
        self._file.write(_csv_lines(rows).encode())


def write_episodes(path: str | Path, rows: Iterable[tuple[int, int]], *, num_queries: int) -> None:
    """Write how many answers of each episode are right, for comparisons episode by episode.

    Args:
        path: the file.
        rows: number of an episode, and its right answers.
        num_queries: answers of each.
    """
    lines = [("episode", "right", "queries"), *((number, right, num_queries) for number, right in rows)]
    atomic_write_text(path, _csv_lines(lines))


def remove_other_splits(folder: str | Path, names: Sequence[str]) -> None:
    """Remove the files of splits that an earlier test of the same folder had; whatever is not ours stays.

    Args:
        folder: folder of the folders of the splits; it need not be there.
        names: splits of this test.
    """
    for other in Path(folder).glob("*/"):
        if other.name not in names and not other.is_symlink():
            for name in (PREDICTIONS_FILE, PER_CLASS_FILE, CONFUSION_FILE, EPISODES_FILE):
                (other / name).unlink(missing_ok=True)
            if not any(other.iterdir()):
                other.rmdir()


def _per_class(tally: Tally, names: Sequence[str]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [("class", "videos", "top1", "top5", "most_confused_with", "share")]
    wrong = tally.confusion.clone().fill_diagonal_(0)
    for number, name in enumerate(names):
        videos = int(tally.videos[number])
        if not videos:
            rows.append((name, 0, "", "", "", ""))
            continue
        other, count = int(wrong[number].argmax()), int(wrong[number].max())
        confused = (names[other], _percent(count, videos)) if count else ("", "")
        top1, top5 = int(tally.top1[number]), int(tally.top5[number])
        rows.append((name, videos, _percent(top1, videos), _percent(top5, videos), *confused))
    return rows


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}"


def _csv_lines(rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
