"""A dataset of one's own: `class/video.mp4`, or `train|val|test/class/video.mp4`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from slowfast.datasets.prepared import DraftList
from slowfast.utils.seed import derive_seed

SUBSETS = ("train", "val", "test")


def read_folder(
    paths: Sequence[str], *, val_share: float = 0.1, test_share: float = 0.2, seed: int = 0
) -> tuple[tuple[str, ...], dict[str, DraftList]]:
    """Make the lists of a folder of class folders.

    Args:
        paths: videos relative to the folder, with "/". Class folders lie at the top, or in folders `train`, `val` and
            `test`; below a class folder videos may lie at any depth.
        val_share: share of each class that validates, in [0, 1); of no effect where the folders say it.
        test_share: share of each class that tests, in [0, 1).
        seed: seed of the division.

    Returns: class names in the order of their labels, which is that of the folders; lists full/train, full/val and
        full/test, of which empty ones are left out.

    Raises:
        ValueError: if a video lies in no class folder, two class folders have one name, or the shares leave no video.
    """
    if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise ValueError(f"--val-share {val_share} --test-share {test_share}: allowed: 0 or more, together below 1")
    divided = _is_divided(paths)
    by_class: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts = PurePosixPath(path).parts
        if len(parts) < 2 + divided:
            wanted = "train|val|test/class/video" if divided else "class/video"
            raise ValueError(f"{path}: lies in no class folder; expected {wanted}")
        by_class[parts[divided]].append(path)
    folders = sorted(by_class)
    names = _class_names(folders)
    rows: dict[str, list[tuple[str, int]]] = {subset: [] for subset in SUBSETS}
    for label, folder in enumerate(folders):
        videos = by_class[folder]
        sides = _by_folder(videos) if divided else _divide(videos, val_share, test_share, seed)
        for subset, chosen in sides.items():
            rows[subset] += [(video, label) for video in chosen]
    origin = "folder {}" if divided else f"{{}} share, val {val_share:g}, test {test_share:g}, seed {seed}"
    return names, {
        f"full/{subset}": DraftList(rows=tuple(found), classes="index2cls.json", origin=origin.format(subset))
        for subset, found in rows.items()
        if found
    }


def _is_divided(paths: Sequence[str]) -> bool:
    """Whether the top folders are train, val and test.

    Raises:
        ValueError: if only some of them are.
    """
    deep = {parts[0] for parts in (PurePosixPath(path).parts for path in paths) if len(parts) > 2}
    shallow = {parts[0] for parts in (PurePosixPath(path).parts for path in paths) if len(parts) == 2}
    subsets = (deep - shallow) & set(SUBSETS)
    others = (deep | shallow) - subsets
    if subsets and others:
        raise ValueError(
            f"folder {min(subsets)} holds class folders but {min(others)} lies beside it; allowed beside: "
            f"{', '.join(SUBSETS)}"
        )
    return bool(subsets)


def _class_names(folders: Sequence[str]) -> tuple[str, ...]:
    """Folder names with spaces for underscores."""
    names: dict[str, str] = {}
    for folder in folders:
        name = " ".join(folder.replace("_", " ").split())
        if not name:
            raise ValueError(f"class folder {folder!r}: has no name for a class")
        if name in names:
            raise ValueError(f"class folders {names[name]!r} and {folder!r} have one name, {name!r}")
        names[name] = folder
    return tuple(names)


def _by_folder(videos: Sequence[str]) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = {subset: [] for subset in SUBSETS}
    for video in videos:
        sides[PurePosixPath(video).parts[0]].append(video)
    return sides


def _divide(videos: Sequence[str], val_share: float, test_share: float, seed: int) -> dict[str, list[str]]:
    """Divide the videos of a class; one at least trains, then one tests, then one validates."""
    ranked = sorted(videos, key=lambda video: (derive_seed("folder", seed, video), video))
    spare = len(videos) - 1
    num_test = min(spare, max(1, round(len(videos) * test_share))) if test_share else 0
    num_val = min(spare - num_test, max(1, round(len(videos) * val_share))) if val_share else 0
    side = dict.fromkeys(ranked[:num_test], "test")
    side |= dict.fromkeys(ranked[num_test : num_test + num_val], "val")
    sides: dict[str, list[str]] = {subset: [] for subset in SUBSETS}
    for video in videos:
        sides[side.get(video, "train")].append(video)
    return sides
