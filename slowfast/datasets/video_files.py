"""Finding the videos of annotation lists below a folder, and writing the lists with their manifest."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from slowfast.datasets.prepared import (
    MANIFEST,
    SEPARATOR,
    SPLITS_FOLDER,
    DraftList,
    PreparedDataset,
    PreparedList,
    read_manifest,
    write_manifest,
)
from slowfast.utils.io import atomic_write_text

VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"})
"""File names that a folder is searched for."""
MISSING, UNDECODABLE = "missing.txt", "undecodable.txt"
_SEGMENT = re.compile(r"_\d{6}_\d{6}$")
_SUBSETS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}

MissingPolicy = Literal["refuse", "keep", "drop"]
Found = Mapping[str, tuple[str | None, ...]]
"""List -> path of each row relative to the root, None where no file was found."""


class MissingVideosError(ValueError):
    """Videos of the lists are not there, and lists without them were not asked for."""


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """The video files below a folder.

    Attributes:
        root: the folder.
        paths: paths relative to it, with "/", sorted.
    """

    root: Path
    paths: tuple[str, ...]

    @cached_property
    def _exact(self) -> frozenset[str]:
        return frozenset(self.paths)

    @cached_property
    def _without_suffix(self) -> dict[str, tuple[str, ...]]:
        return _group(self.paths, _bare)

    @cached_property
    def _by_stem(self) -> dict[str, tuple[str, ...]]:
        return _group(self.paths, _stem)

    @cached_property
    def _by_id(self) -> dict[str, tuple[str, ...]]:
        """Files of Kinetics by the id in front of `_<start>_<end>`."""
        segments = (path for path in self.paths if _SEGMENT.search(_stem(path)))
        return _group(segments, lambda path: _SEGMENT.sub("", _stem(path)))

    def find(self, video: str) -> str | None:
        """Find the file of a video.

        In this order: the path itself; the path with another suffix; a file of that name anywhere; for a Kinetics
        video, a file of that id with or without its segment. Of several files of one name, the one in a folder named
        like the subset that `video` begins with is taken ("val", "val_256", "videos_val").

        Args:
            video: as the list names it, for instance "Class/v_1.avi" or "val/abcdefghijk_000001_000011".

        Returns: its path relative to the root; None if there is no file.

        Raises:
            ValueError: if several files are equally good.
        """
        if video in self._exact:
            return video
        bare, stem = _bare(video), _stem(video)
        video_id = _SEGMENT.sub("", stem)
        candidates = self._without_suffix.get(bare) or self._by_stem.get(stem)
        if not candidates:
            candidates = self._by_id.get(stem) if video_id == stem else self._by_stem.get(video_id)
        if not candidates or len(candidates) == 1:
            return candidates[0] if candidates else None
        return self._of_subset(video, candidates)

    def _of_subset(self, video: str, candidates: tuple[str, ...]) -> str:
        subset = _SUBSETS.get(PurePosixPath(video).parts[0])
        fitting = [path for path in candidates if subset and subset in _subsets_of(path)]
        if len(fitting) == 1:
            return fitting[0]
        first, second = (fitting or candidates)[:2]
        raise ValueError(f"{self.root}: {video} may be {first} or {second}; leave one of them in the folder")


def _bare(video: str) -> str:
    """A path without the suffix of a video file; other dots belong to the name."""
    path = PurePosixPath(video)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else str(path)


def _stem(video: str) -> str:
    return PurePosixPath(_bare(video)).name


def _subsets_of(path: str) -> set[str]:
    words = {word for folder in PurePosixPath(path).parts[:-1] for word in re.split(r"[^a-z]+", folder.lower())}
    return {_SUBSETS[word] for word in words & set(_SUBSETS)}


def index_videos(root: Path, *, leave_out: Path | None = None) -> VideoIndex:
    """List the video files below a folder. Links are followed, each folder is entered once.

    Args:
        root: the folder.
        leave_out: a folder below it that is not entered.

    Raises:
        ValueError: if the folder is absent, unreadable or holds no video.
    """
    if not root.is_dir():
        raise ValueError(f"--root {root}: no such folder")
    paths = sorted(_walk(root, visited=set() if leave_out is None else {_identity(leave_out)}))
    if not paths:
        raise ValueError(f"--root {root}: holds no video file ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return VideoIndex(root=root, paths=tuple(paths))


def _group(paths: Iterable[str], key: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return {name: tuple(group) for name, group in groups.items()}


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _walk(root: Path, *, visited: set[tuple[int, int] | None]) -> Iterator[str]:
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        identity = _identity(folder)
        if identity in visited:
            continue
        visited.add(identity)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(f"--root {folder}: cannot be read ({error.strerror})") from error
        for entry in found:
            if PurePosixPath(entry.name).suffix.lower() in VIDEO_SUFFIXES and _holds(entry.is_file):
                yield prefix + entry.name
        # The last one is taken first: in reverse, so that of several links to a folder the first name counts.
        folders = [entry for entry in reversed(found) if _holds(entry.is_dir)]
        waiting += [(folder / entry.name, f"{prefix}{entry.name}/") for entry in folders]


def _holds(test: Callable[[], bool]) -> bool:
    """Ask about a folder entry; a link that leads to itself is neither a file nor a folder."""
    try:
        return test()
    except OSError:
        return False


def find_videos(index: VideoIndex, drafts: Mapping[str, DraftList]) -> dict[str, tuple[str | None, ...]]:
    """Find the file of every row.

    Args:
        index: the files.
        drafts: lists by name.

    Returns: see `Found`.

    Raises:
        ValueError: if a video may be several files, two videos of a list are one file, or a path cannot be written in a
            list.
    """
    known: dict[str, str | None] = {}
    found = {}
    for name, entry in drafts.items():
        owner: dict[str, str] = {}
        for video, _ in entry.rows:
            if video not in known:
                known[video] = index.find(video)
                _check_writable(known[video] or video)
            path = known[video]
            if path is not None and owner.setdefault(path, video) != video:
                raise ValueError(f"{index.root / path}: is both {owner[path]} and {video} of list {name}")
        found[name] = tuple(known[video] for video, _ in entry.rows)
    return found


def _check_writable(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{path!r}: the name of a video is not UTF-8; rename the file") from error
    wrong = [text for text in (SEPARATOR, "\n", "\r") if text in path] or ([" "] if path != path.strip() else [])
    if wrong:
        raise ValueError(
            f"{path!r}: the name of a video has {wrong[0]!r}, which annotation files cannot hold; rename it"
        )


def without(found: Found, unusable: Collection[str]) -> dict[str, tuple[str | None, ...]]:
    """Treat some files as if they had not been found.

    Args:
        found: see `Found`.
        unusable: paths relative to the root.
    """
    return {name: tuple(None if path in unusable else path for path in paths) for name, paths in found.items()}


def missing_videos(drafts: Mapping[str, DraftList], found: Found) -> dict[str, list[str]]:
    """List -> videos without a file; lists without such videos are left out."""
    missing = {
        name: [video for (video, _), path in zip(entry.rows, found[name], strict=True) if path is None]
        for name, entry in drafts.items()
    }
    return {name: videos for name, videos in missing.items() if videos}


@dataclass(frozen=True, kw_only=True)
class ListWriter:
    """Writes the lists of a dataset.

    Attributes:
        folder: folder of the dataset in `label_db`.
        root: folder that the paths start from.
        missing: what becomes of rows without a file: refuse the lists, keep the rows, drop them.
        seed: seed of the draws.
        sources: annotation file -> sha256.
        class_files: further files of the dataset, path relative to `folder` -> text.
    """

    folder: Path
    root: Path
    missing: MissingPolicy = "refuse"
    seed: int = 0
    sources: Mapping[str, str]
    class_files: Mapping[str, str]

    def write(self, drafts: Mapping[str, DraftList], found: Found) -> PreparedDataset:
        """Write class files, lists and manifest; remove the lists of an earlier run. Lists without rows are left out.

        A manifest never names a list that is not there: it goes first and comes last.

        Raises:
            MissingVideosError: if videos are missing and that is refused; the lists of an earlier run stay.
            ValueError: if no list would have a row.
        """
        splits = self.folder / SPLITS_FOLDER
        missing = missing_videos(drafts, found)
        write_or_remove(splits / MISSING, (f"{name}\t{video}" for name, videos in missing.items() for video in videos))
        if missing and self.missing == "refuse":
            absent = len({video for videos in missing.values() for video in videos})
            total = len({video for entry in drafts.values() for video, _ in entry.rows})
            raise MissingVideosError(
                f"{self.root}: {absent} of {total} videos were not found, see {splits / MISSING}; "
                "--missing keep leaves them in the lists, --missing drop leaves them out"
            )
        lists = self._entries(drafts, missing)
        earlier = self._earlier_files()
        (splits / MANIFEST).unlink(missing_ok=True)
        for path, text in self.class_files.items():
            atomic_write_text(self.folder / path, text)
        dataset = PreparedDataset(
            name=self.folder.name,
            folder=self.folder,
            root=str(self.root.absolute()),
            lists=lists,
            sources=dict(self.sources),
            seed=self.seed,
        )
        for name in lists:
            atomic_write_text(dataset.csv(name), self._text(drafts[name], found[name]))
        write_manifest(dataset)
        new = {dataset.csv(name) for name in lists} | {self.folder / path for path in self.class_files}
        _remove(earlier - new, top=splits)
        return dataset

    def _entries(self, drafts: Mapping[str, DraftList], missing: Mapping[str, list[str]]) -> dict[str, PreparedList]:
        """What the manifest says of each list; a list that lost all its rows is left out."""
        lists = {}
        for name, entry in drafts.items():
            absent = len(missing.get(name, ()))
            dropped = absent if self.missing == "drop" else 0
            if len(entry.rows) > dropped:
                lists[name] = PreparedList(
                    classes=entry.classes,
                    rows=len(entry.rows) - dropped,
                    official=entry.official,
                    missing=absent,
                    dropped=dropped,
                    origin=entry.origin,
                )
        if not lists:
            raise ValueError(f"{self.root}: none of the videos of any list is there")
        return lists

    def _text(self, entry: DraftList, paths: tuple[str | None, ...]) -> str:
        rows = []
        for (video, label), path in zip(entry.rows, paths, strict=True):
            if path is not None or self.missing != "drop":
                rows.append(f"{path or expected_path(video)}{SEPARATOR}{label}\n")
        return "".join(rows)

    def _earlier_files(self) -> set[Path]:
        """Lists, and class lists beside them, that an earlier run wrote."""
        try:
            earlier = read_manifest(self.folder.parent, self.folder.name)
        except ValueError:
            return set()
        files = {earlier.csv(name) for name in earlier.lists}
        beside = {self.folder / entry.classes for entry in earlier.lists.values()}
        return files | {
            sibling
            for file in beside
            if self.folder / SPLITS_FOLDER in file.parents
            for sibling in file.parent.glob("*.json")
            if sibling.name != MANIFEST
        }


def expected_path(video: str) -> str:
    """Where a video that was not found would be."""
    return video if PurePosixPath(video).suffix.lower() in VIDEO_SUFFIXES else f"{video}.mp4"


def write_or_remove(path: Path, lines: Iterable[str]) -> None:
    """Write lines, or remove the file of an earlier run if there are none."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        atomic_write_text(path, text)
    else:
        path.unlink(missing_ok=True)


def _remove(files: Iterable[Path], *, top: Path) -> None:
    """Remove files, and the folders below `top` that become empty."""
    for file in files:
        file.unlink(missing_ok=True)
        folder = file.parent
        while top in folder.parents and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent
