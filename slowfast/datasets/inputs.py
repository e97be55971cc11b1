"""What a run reads, as one hash: lists, class names and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from slowfast.datasets.types import Split
from slowfast.utils.io import sha256_file


def inputs_sha256(splits: Sequence[Split], files: Iterable[str | Path | None] = ()) -> str:
    """Hash of the content of annotation files, of their class names, and of other files.

    Where the files lie does not matter: a dataset that moved is the same. The videos themselves are not read.

    Args:
        splits: what is trained on or scored.
        files: text features, weights; names that are no file, such as vitb16 for a published CLIP, count as they are.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: if an annotation file cannot be read.
    """
    lists = [[split.name, sha256_file(split.csv), split.label_set.names] for split in splits]
    others = [sha256_file(file) if file and Path(file).is_file() else str(file or "") for file in files]
    return hashlib.sha256(json.dumps([lists, others]).encode()).hexdigest()
