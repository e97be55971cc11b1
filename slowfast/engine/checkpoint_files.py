"""The folder of a run's checkpoints: names, order, a manifest with hashes, and which file a run goes on from."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast.utils.distributed import is_master
from slowfast.utils.io import atomic_write_text, find_damage, sha256_file
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1


def checkpoint_folder(output_dir: str | Path) -> Path:
    """Folder of a run's checkpoints."""
    return Path(output_dir) / "checkpoints"


def checkpoint_path(output_dir: str | Path, epoch: int, *, task: str = "") -> Path:
    """Name of the checkpoint written after an epoch.

    Args:
        output_dir: the run's folder.
        epoch: 0-based; the name counts from 1.
        task: prefix of the name, may be empty.
    """
    return checkpoint_folder(output_dir) / f"{_task_prefix(task)}checkpoint_epoch_{epoch + 1:05d}.pyth"


def within_path(output_dir: str | Path, epoch: int, *, videos: int, task: str = "") -> Path:
    """Name of a checkpoint written within an epoch; patterns for those of epochs, `*_epoch_*`, leave it out.

    Args:
        output_dir: the run's folder.
        epoch: 0-based; the name counts from 1.
        videos: videos of that epoch that were seen, over all processes.
        task: prefix of the name, may be empty.
    """
    name = f"{_task_prefix(task)}checkpoint_within_{epoch + 1:05d}_{videos:08d}.pyth"
    return checkpoint_folder(output_dir) / name


def best_path(output_dir: str | Path, *, task: str = "") -> Path:
    """Name of the checkpoint of the best epoch; what lists, resumes, prunes or averages checkpoints leaves it out.

    Args:
        output_dir: the run's folder.
        task: prefix of the name, may be empty.
    """
    return checkpoint_folder(output_dir) / f"{_task_prefix(task)}checkpoint_best.pyth"


def list_checkpoints(output_dir: str | Path, *, task: str = "") -> list[tuple[int, Path]]:
    """Find the checkpoints of a run's epochs; partial and foreign files are not among them.

    Args:
        output_dir: the run's folder.
        task: prefix of the names.

    Returns: (number in the name, file), in increasing order.
    """
    found = _matches(output_dir, rf"{re.escape(_task_prefix(task))}checkpoint_epoch_(\d+)\.pyth")
    return sorted((int(match.group(1)), path) for match, path in found)


def last_checkpoint(output_dir: str | Path, *, task: str = "") -> Path | None:
    """The checkpoint of the latest epoch, None where there is none."""
    found = list_checkpoints(output_dir, task=task)
    return found[-1][1] if found else None


def list_within(output_dir: str | Path, *, task: str = "") -> list[tuple[tuple[int, int], Path]]:
    """Find the checkpoints within epochs.

    Returns: ((finished epochs, videos of the next), file), in increasing order.
    """
    found = _matches(output_dir, rf"{re.escape(_task_prefix(task))}checkpoint_within_(\d+)_(\d+)\.pyth")
    return sorted(((int(match.group(1)) - 1, int(match.group(2))), path) for match, path in found)


def find_resumable(output_dir: str | Path, *, task: str = "") -> Path | None:
    """Find the file that a run goes on from: of those that are whole, the one that came furthest.

    Damaged ones that came further are named in the log and set aside: they would be in the way of what is to come.

    Args:
        output_dir: the run's folder.
        task: prefix of the names.

    Returns: the file; None if there is none at all.

    Raises:
        ValueError: if there are checkpoints, but all of them are damaged.
    """
    places = [((number, 0), path) for number, path in list_checkpoints(output_dir, task=task)]
    # Of two files of one place, that of the epoch is the later one in the list.
    ordered = sorted([*list_within(output_dir, task=task), *places], key=lambda entry: entry[0])
    manifest = Manifest.read(checkpoint_folder(output_dir))
    damaged: dict[Path, str] = {}
    for _, path in reversed(ordered):
        fault = manifest.find_fault(path)
        if fault is None:
            for other, reason in damaged.items():
                aside = _free_name(other.with_name(f"{other.name}.damaged"))
                other.rename(aside)
                logger.warning("%s: %s; it is now %s", other, reason, aside.name)
            if damaged:
                manifest.forget(other.name for other in damaged)
                logger.warning("Going on from the checkpoint before: %s", path)
            return path
        damaged[path] = fault
    if damaged:
        newest, reason = next(iter(damaged.items()))
        raise ValueError(
            f"TRAIN.AUTO_RESUME: none of the {len(damaged)} checkpoints in {checkpoint_folder(output_dir)} is whole; "
            f"the newest: {newest.name}: {reason}; remove them, or set it False to start anew"
        )
    return None


def set_checkpoints_aside(output_dir: str | Path) -> Path | None:
    """Rename the folder of checkpoints, for a run that starts anew: two runs in one folder would be taken for one.

    Returns: the new name; None if there is no checkpoint.
    """
    folder = checkpoint_folder(output_dir)
    if not folder.is_dir() or not any(folder.glob("*.pyth")):
        return None
    return folder.rename(_free_name(folder.with_name(f"{folder.name}_before")))


def _free_name(path: Path) -> Path:
    """The path, or with the first number behind it that makes it one of nothing."""
    numbered = (path.with_name(f"{path.name}{number}") for number in itertools.count(2))
    return path if not path.exists() else next(other for other in numbered if not other.exists())


def is_checkpoint_due(epoch: int, *, period: int, max_epoch: int) -> bool:
    """Whether a checkpoint is written after an epoch: every `period` epochs and at the end.

    Args:
        epoch: 0-based.
        period: epochs; 0 leaves only the last.
        max_epoch: length of the run, epochs.
    """
    return epoch + 1 == max_epoch or (period > 0 and (epoch + 1) % period == 0)


def prune_checkpoints(output_dir: str | Path, *, keep: int, task: str = "") -> list[Path]:
    """Delete all but the latest checkpoints of epochs; only rank 0 does.

    Args:
        output_dir: the run's folder.
        keep: number to keep; 0 keeps all.
        task: prefix of the names.

    Returns: the deleted files.
    """
    if keep <= 0:
        return []
    return _remove(path for _, path in list_checkpoints(output_dir, task=task)[:-keep])


def prune_within(output_dir: str | Path, *, keep: int, task: str = "") -> list[Path]:
    """Delete all but the latest checkpoints within epochs; only rank 0 does.

    Args:
        output_dir: the run's folder.
        keep: number to keep, >= 0.
        task: prefix of the names.

    Returns: the deleted files.
    """
    found = list_within(output_dir, task=task)
    return _remove(path for _, path in found[: len(found) - keep])


@dataclass(frozen=True, slots=True)
class Manifest:
    """Size and sha256 of the files of a folder, as they were written.

    Attributes:
        folder: the folder.
        files: name -> {"bytes": size, "sha256": 64 hexadecimal digits}.
    """

    folder: Path
    files: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder; an absent one is empty.

        Raises:
            ValueError: if it is damaged.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            entries = content["files"]
            files = {str(name): {"bytes": int(e["bytes"]), "sha256": str(e["sha256"])} for name, e in entries.items()}
        except FileNotFoundError:
            return cls(folder, {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a manifest of checkpoints ({error}); remove it to go on without") from error
        return cls(folder, files)

    def find_fault(self, path: Path) -> str | None:
        """Compare a file with its entry; one without an entry has at least to be whole as an archive.

        Returns: what is wrong with it; None if nothing is.
        """
        entry = self.files.get(path.name)
        if entry is None:
            return find_damage(path)
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"it has {size} bytes, but {entry['bytes']} were written"
        if sha256_file(path) != entry["sha256"]:
            return "it is damaged: its sha256 is not that of what was written"
        return None

    def record(self, path: Path, *, sha256: str) -> None:
        """Add a file that was just written."""
        self.files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256}
        self._write()

    def forget(self, names: Iterable[str]) -> None:
        """Take files out, before they are replaced or after they are removed."""
        known = [name for name in names if self.files.pop(name, None) is not None]
        if known:
            self._write()

    def _write(self) -> None:
        content = {"format": _MANIFEST_FORMAT, "files": dict(sorted(self.files.items()))}
        atomic_write_text(self.folder / MANIFEST, json.dumps(content, indent=1) + "\n")


def _matches(output_dir: str | Path, pattern: str) -> list[tuple[re.Match[str], Path]]:
    folder = checkpoint_folder(output_dir)
    if not folder.is_dir():
        return []
    found = ((re.fullmatch(pattern, path.name), path) for path in folder.iterdir() if path.is_file())
    return [(match, path) for match, path in found if match]


def _remove(paths: Iterable[Path]) -> list[Path]:
    old = list(paths)
    if not old or not is_master():
        return []
    for path in old:
        path.unlink(missing_ok=True)
    Manifest.read(old[0].parent).forget(path.name for path in old)
    return old


def _task_prefix(task: str) -> str:
    return f"{task}_" if task else ""
