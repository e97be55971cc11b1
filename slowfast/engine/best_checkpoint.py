"""The checkpoint of the epoch with the least validation error: which it is, keeping it, testing it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from slowfast.engine.checkpoint_files import Manifest, best_path, checkpoint_path, last_checkpoint
from slowfast.utils.distributed import is_master
from slowfast.utils.io import atomic_link, load_tensors
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)


def best_epoch(validations: Mapping[int, Mapping[str, float]]) -> int | None:
    """Find the epoch of the least top-1 error, of equal ones the earliest; an error that is no number is none.

    Args:
        validations: epoch, from 0 -> {"top1_err", ...}, percent.

    Returns: the epoch; None if there is no error to compare.
    """
    errors = {epoch: found["top1_err"] for epoch, found in validations.items() if not math.isnan(found["top1_err"])}
    return min(errors, key=lambda epoch: (errors[epoch], epoch), default=None)


def keep_best(output_dir: str | Path, validations: Mapping[int, Mapping[str, float]], *, task: str = "") -> None:
    """Let `checkpoint_best.pyth` be the checkpoint of the best epoch, a second name of its file; only rank 0 does.

    It depends on what was found so far alone, not on what was best when it was called before: called after every
    validation and when a run goes on, it leaves the same file wherever the run was interrupted. A file of an epoch
    that is not the best, as one that had come further leaves it, goes.

    Args:
        output_dir: the run's folder.
        validations: as for `best_epoch`, of the epochs that training has come to.
        task: prefix of the names.

    Raises:
        OSError: if the file system has no links, and the file cannot be copied.
    """
    epoch = best_epoch(validations)
    if epoch is None or not is_master():
        return
    source, target = checkpoint_path(output_dir, epoch, task=task), best_path(output_dir, task=task)
    manifest = Manifest.read(target.parent)
    if not source.is_file():
        if target.is_file() and _epoch_of(target) == epoch:
            return
        target.unlink(missing_ok=True)
        manifest.forget([target.name])
        logger.warning(
            "TRAIN.KEEP_BEST: epoch %d has the least validation error, but %s is gone: there is no %s until a later "
            "epoch is better", epoch + 1, source.name, target.name,
        )  # fmt: skip
        return
    entry, own = (manifest.files.get(path.name) for path in (source, target))
    is_copy = entry is not None and entry == own
    if not (target.is_file() and (is_copy or target.samefile(source))):
        manifest.forget([target.name])
        atomic_link(source, target)
        error = validations[epoch]["top1_err"]
        logger.info("Epoch %d has the least validation error, %.2f: it is now %s", epoch + 1, error, target.name)
    if entry is not None and not is_copy:
        manifest.record(target, sha256=entry["sha256"])


def find_tested(output_dir: str | Path, *, task: str = "", best: bool = False) -> Path | None:
    """Find the checkpoint that is tested where no weights are named.

    Args:
        output_dir: the run's folder.
        task: prefix of the names.
        best: that of the best epoch instead of the last one.

    Returns: the file; None if there is no checkpoint at all.

    Raises:
        ValueError: if there are checkpoints of epochs, but none of the best.
    """
    last, path = last_checkpoint(output_dir, task=task), best_path(output_dir, task=task)
    if not best:
        return last
    if last is not None and not path.is_file():
        raise ValueError(
            f"TRAIN.KEEP_BEST: {path}: no such file, though there are checkpoints of epochs; name one of them "
            "(TEST.CHECKPOINT_FILE_PATH), or set it False to test the last"
        )
    return path if path.is_file() else None


def _epoch_of(path: Path) -> int | None:
    """Epoch, from 0, of a checkpoint, whose tensors stay on the disk; None if it does not say."""
    try:
        content = load_tensors(path, what="checkpoint", memory_map=True)
    except ValueError:
        return None  # what cannot be read cannot be tested either
    epoch = content.get("epoch") if isinstance(content, dict) else None
    return epoch if type(epoch) is int else None
