"""From annotation files and a folder of videos to the lists of a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from slowfast.datasets.annotations import OFFICIAL
from slowfast.datasets.annotations.class_names import ClassNames
from slowfast.datasets.annotations.episodic import FOLDER, episodic_lists, held_out_ids
from slowfast.datasets.annotations.files import AnnotationRequest
from slowfast.datasets.annotations.folder import read_folder
from slowfast.datasets.annotations.rows import check_counts
from slowfast.datasets.draws import half_classes
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.prepared import (
    MANIFEST,
    PLAIN_NAMES,
    REPHRASED_NAMES,
    SPLITS_FOLDER,
    DraftList,
    PreparedDataset,
)
from slowfast.datasets.video_files import (
    UNDECODABLE,
    Found,
    ListWriter,
    MissingPolicy,
    VideoIndex,
    find_videos,
    index_videos,
    without,
    write_or_remove,
)
from slowfast.utils.registry import resolve

REPLACED = ("few_shot/", "base_to_novel/seed", "half", "episodic/")
"""Beginnings of the names of lists that are drawn or made by a rule, and that published ones take the place of."""
_SHOWN = 10
_DESCRIPTORS = "descriptors"
INSPECTED, TRANSCODED = "inspection.jsonl", "transcode.jsonl"


class UndecodableVideosError(ValueError):
    """Videos of the lists cannot be decoded, and that was not accepted."""


@dataclass(frozen=True, kw_only=True)
class Drafts:
    """Lists of a source before their videos are looked up.

    Attributes:
        lists: by name.
        class_files: files that the lists need, path relative to the folder of the dataset -> text.
        sources: annotation file -> sha256.
    """

    lists: Mapping[str, DraftList]
    class_files: Mapping[str, str]
    sources: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How the lists of a dataset are made.

    Attributes:
        dataset: folder in `label_db`.
        root: folder of the videos.
        output: the `label_db` to write to.
        missing: what becomes of videos that are missing or cannot be decoded.
        seed: seed of the draws.
        check: how to try all videos; None does not.
        transcode: folder for smaller copies, which the lists then name; None makes none.
        workers: processes that try or transcode.
        say: takes a line about what is going on.
    """

    dataset: str
    root: Path
    output: Path
    missing: MissingPolicy = "refuse"
    seed: int = 0
    check: Literal["open", "decode"] | None = None
    transcode: Path | None = None
    workers: int = 1
    say: Callable[[str], None] = lambda _: None

    @property
    def folder(self) -> Path:
        """Folder of the dataset."""
        return self.output / self.dataset

    def index(self) -> VideoIndex:
        """List the videos of the root, but for the copies that this preparation makes."""
        index = index_videos(self.root, leave_out=self.transcode)
        self.say(f"{len(index.paths)} video files below {self.root}")
        return index

    def run(self, drafts: Drafts, index: VideoIndex) -> PreparedDataset:
        """Find the videos, transcode and try them as wanted, write the lists.

        Raises:
            ValueError: one line; the lists of an earlier run stay as they were.
        """
        found = find_videos(index, drafts.lists)
        failed: dict[str, str] = {}
        if self.transcode is not None:
            index, failed = self._transcode(found, self.transcode)
            found = find_videos(index, drafts.lists)
        if self.check is not None:
            undecodable = self._check(found, index.root)
            failed |= undecodable
            found = without(found, undecodable) if self.missing == "drop" else found
        lines = (f"{path}\t{reason}" for path, reason in sorted(failed.items()))
        write_or_remove(self.folder / SPLITS_FOLDER / UNDECODABLE, lines)
        if failed and self.missing == "refuse":
            raise UndecodableVideosError(
                f"{self.root}: {len(failed)} videos cannot be decoded, see "
                f"{self.folder / SPLITS_FOLDER / UNDECODABLE}; --missing keep leaves them in the lists, --missing drop "
                "leaves them out"
            )
        writer = ListWriter(
            folder=self.folder,
            root=index.root,
            missing=self.missing,
            seed=self.seed,
            sources=drafts.sources,
            class_files=drafts.class_files,
        )
        dataset = writer.write(drafts.lists, found)
        empty = [name for name in drafts.lists if name not in dataset.lists]
        if empty:
            self.say(f"left out, since no video of them is there: {', '.join(empty)}")
        return dataset

    def _transcode(self, found: Found, target: Path) -> tuple[VideoIndex, dict[str, str]]:
        from slowfast.datasets.transcode import transcode_videos

        report = transcode_videos(
            [self.root / path for path in _unique(found)],
            root=self.root,
            target=target,
            workers=self.workers,
            record=target / TRANSCODED,
        )
        self.say(f"transcoded into {target}: {report.done} new, {report.skipped} earlier, {len(report.failed)} failed")
        return index_videos(target), dict(report.failed)

    def _check(self, found: Found, root: Path) -> dict[str, str]:
        from slowfast.datasets.inspection import inspect_videos

        assert self.check is not None
        report = inspect_videos(
            [root / path for path in _unique(found)],
            root=root,
            record=self.folder / SPLITS_FOLDER / INSPECTED,
            workers=self.workers,
            mode=self.check,
        )
        self.say(
            f"checked ({self.check}): {report.checked} videos now, {report.reused} earlier; "
            f"{len(report.failed)} cannot be decoded, {len(report.damaged)} are damaged"
        )
        for name, damage in list(report.damaged.items())[:_SHOWN]:
            self.say(f"  {name}: {damage}")
        for line in report.stats.lines() if report.stats else ():
            self.say(f"  {line}")
        return dict(report.failed)


def _unique(found: Found) -> list[str]:
    return sorted({path for paths in found.values() for path in paths if path is not None})


def read_official(dataset: str, request: AnnotationRequest, *, output: Path) -> Drafts:
    """Read the official annotation files of a dataset.

    Args:
        dataset: a key of OFFICIAL.
        request: see there.
        output: folder of the dataset that the lists are for.

    Raises:
        ValueError: one line naming file and line.
    """
    lists = resolve(OFFICIAL, dataset, key="dataset")(request)
    if request.any_counts:
        lists = {name: entry for name, entry in lists.items() if entry.rows}
    names = ClassNames(request.class_files / f"{PLAIN_NAMES}.json")
    ids = half_ids(len(names), lists) | held_out_ids(request.class_files, names, lists)
    files = {**class_files(request.class_files, output), **own_class_files(request.class_files, ids)}
    return Drafts(lists=lists, class_files=files, sources=request.sources)


def read_repository(
    dataset: str,
    repo: Path,
    *,
    label_db: Path,
    output: Path,
    any_counts: bool = False,
    known: Mapping[str, int] | None = None,
) -> Drafts:
    """Import the lists of a checkout of another project.

    Args:
        dataset: folder in `label_db`.
        repo: the checkout.
        label_db: folder of the shipped class lists.
        output: folder of the dataset that the lists are for.
        any_counts: accept lists that are not as long as the published ones.
        known: see `import_lists`.

    Raises:
        ValueError: one line naming file and line.
    """
    from slowfast.datasets.repo_lists import import_lists

    imported = import_lists(repo, dataset, label_db=label_db, known=known)
    if not any_counts:
        check_counts(imported.lists, source=repo)
    source = label_db / dataset
    files = {**class_files(source, output), **own_class_files(source, imported.class_files)}
    return Drafts(lists=imported.lists, class_files=files, sources=imported.sources)


def read_sources(
    dataset: str,
    official: AnnotationRequest | None,
    repos: Sequence[Path],
    *,
    label_db: Path,
    output: Path,
    any_counts: bool = False,
) -> Drafts:
    """Read the official files of a dataset, checkouts of other projects, or both, see `merged`.

    Args:
        dataset: a key of OFFICIAL.
        official: see `read_official`.
        repos: see `read_repository`.
        label_db: folder of the shipped class lists.
        output: folder of the dataset that the lists are for.
        any_counts: accept lists that are not as long as the published ones.

    Raises:
        ValueError: one line naming file and line.
    """
    own = None if official is None else read_official(dataset, official, output=output)
    known = {} if own is None else _labels_of_videos(own.lists)
    imported = [
        read_repository(dataset, repo, label_db=label_db, output=output, any_counts=any_counts, known=known)
        for repo in repos
    ]
    return merged(own, imported)


def _labels_of_videos(lists: Mapping[str, DraftList]) -> dict[str, int]:
    """File name without suffix -> label, of lists of all classes; names of several classes are left out."""
    rows = [row for entry in lists.values() if entry.classes == f"{PLAIN_NAMES}.json" for row in entry.rows]
    labels: dict[str, set[int]] = {}
    for video, label in rows:
        labels.setdefault(PurePosixPath(video).stem, set()).add(label)
    return {name: min(found) for name, found in labels.items() if len(found) == 1}


def merged(official: Drafts | None, imported: Sequence[Drafts]) -> Drafts:
    """Put official lists and those of checkouts together.

    Each list is taken from the first source that has it, but a published draw goes before one of our own, and published
    episodic lists, with their order of videos, before those made by class.

    Args:
        official: lists of the official files, if they were given.
        imported: lists of checkouts, in the order of preference.
    """
    own = official or Drafts(lists={}, class_files={}, sources={})
    lists, files, sources = dict(own.lists), dict(own.class_files), dict(own.sources)
    open_names = {name for name in lists if name.startswith(REPLACED)}
    for source in imported:
        taken = {name: entry for name, entry in source.lists.items() if name not in lists or name in open_names}
        open_names -= set(taken)
        folders = {str(PurePosixPath(entry.classes).parent) for entry in taken.values()}
        for file, text in source.class_files.items():
            if file not in files or str(PurePosixPath(file).parent) in folders:
                files[file] = text
        lists |= taken
        sources |= source.sources
    return Drafts(lists=lists, class_files=files, sources=sources)


def read_own(name: str, index: VideoIndex, *, folder: Path, val_share: float, test_share: float, seed: int) -> Drafts:
    """Make the lists of a folder of class folders, and episodic ones where `folder` has class files of a benchmark.

    Args:
        name: of the dataset.
        index: its videos.
        folder: the folder in `label_db` that it gets.
        val_share: see `read_folder`.
        test_share: see `read_folder`.
        seed: see `read_folder`.

    Raises:
        ValueError: if the folders do not say which video has which class, or `folder` holds other classes, also in the
            class files of a benchmark.
    """
    names, lists = read_folder(index.paths, val_share=val_share, test_share=test_share, seed=seed)
    file = folder / f"{PLAIN_NAMES}.json"
    if file.exists() and not (folder / SPLITS_FOLDER / MANIFEST).exists() and LabelSet.from_json(file).names != names:
        raise ValueError(f"{file}: has other classes; choose another --name than {name!r}")
    if (folder / FOLDER).is_dir():
        parts = {title.removeprefix("full/"): entry for title, entry in lists.items()}
        request = AnnotationRequest(annotations=index.root, class_files=folder, seed=seed)
        lists |= episodic_lists(request, ClassNames(file, names), parts)
    return Drafts(lists=lists, class_files={file.name: _class_json(names)}, sources={})


def class_files(source: Path, target: Path) -> dict[str, str]:
    """Class lists, texts and traits, copied so that a dataset in another `label_db` is complete; none in the same one.

    Descriptors are copied where the target has no others: those may be its owner's, with numbers of their own.
    """
    if not source.is_dir() or (target.exists() and source.samefile(target)):
        return {}
    copied = {
        file.relative_to(source).as_posix(): file.read_text(encoding="utf-8")
        for kind in (f"*{PLAIN_NAMES}.json", f"*{REPHRASED_NAMES}.json", "*_ids.json", "dataset.yaml")
        for file in sorted(source.rglob(kind))
        if file.relative_to(source).parts[0] != SPLITS_FOLDER
    }
    return copied | _descriptor_files(source, target)


def _descriptor_files(source: Path, target: Path) -> dict[str, str]:
    files = sorted((source / _DESCRIPTORS).rglob("*_descriptors.json"))
    texts = {file.relative_to(source).as_posix(): file.read_text(encoding="utf-8") for file in files}
    for file in (target / _DESCRIPTORS).rglob("*.json"):
        if texts.get(file.relative_to(target).as_posix(), "").encode() != file.read_bytes():
            return {}
    # Of Kinetics-600 only the classes of the zero-shot splits have texts; a list beside its folder numbers them, which
    # comes to lie with the texts: nothing is written outside of the dataset's folder.
    numbering = source.parent / f"{source.name}-{PLAIN_NAMES}.json"
    if texts and numbering.is_file():
        text = numbering.read_text(encoding="utf-8")
        if text != (source / f"{PLAIN_NAMES}.json").read_text(encoding="utf-8"):
            texts[f"{_DESCRIPTORS}/{PLAIN_NAMES}.json"] = text
    return texts


def half_ids(num_classes: int, lists: Mapping[str, DraftList]) -> dict[str, tuple[int, ...]]:
    """Class file -> labels, of the half-class draws that `lists` name."""
    wanted = {entry.classes for entry in lists.values()}
    halves = {
        f"{SPLITS_FOLDER}/half{draw}/{PLAIN_NAMES}.json": ids for draw, ids in enumerate(half_classes(num_classes))
    }
    return {file: ids for file, ids in halves.items() if file in wanted}


def own_class_files(source: Path, ids: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Class files of some of the classes of a dataset, in every wording that it has.

    Args:
        source: folder of the dataset in `label_db`.
        ids: class file -> its classes as labels of `index2cls.json`.

    Returns: file -> text.
    """
    files = {}
    for wording in (PLAIN_NAMES, REPHRASED_NAMES) if ids else ():
        if (source / f"{wording}.json").is_file():
            names = LabelSet.from_json(source / f"{wording}.json").names
            for file, chosen in ids.items():
                files[file.replace(PLAIN_NAMES, wording)] = _class_json([names[label] for label in chosen])
    return files


def _class_json(names: Sequence[str]) -> str:
    return json.dumps({str(label): name for label, name in enumerate(names)}, indent=1, ensure_ascii=False) + "\n"
