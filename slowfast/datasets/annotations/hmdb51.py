"""HMDB51: `<class>_test_split{1,2,3}.txt` of testTrainMulti_7030_splits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from slowfast.datasets.annotations.class_names import ClassNames
from slowfast.datasets.annotations.episodic import episodic_lists
from slowfast.datasets.annotations.files import AnnotationFiles, AnnotationRequest
from slowfast.datasets.annotations.rows import Row, check_counts, draft, refuse_repeats
from slowfast.datasets.annotations.standard import standard_lists
from slowfast.datasets.prepared import DraftList

FOLDER = "testTrainMulti_7030_splits"
ADVICE = f"expected the {FOLDER} folder of test_train_splits.rar, unpacked (for example by unrar x)"
SPLITS = (1, 2, 3)
TRAIN, TEST, UNUSED = "1", "2", "0"
NUM_TRAIN, NUM_TEST, USED_VIDEOS = 3570, 1530, 5100
BASE_TO_NOVEL = {"base": 780, "novel": 750}


def read_hmdb51(request: AnnotationRequest) -> dict[str, DraftList]:
    """Read the three splits of HMDB51 and derive the lists of all protocols.

    Raises:
        ValueError: one line naming file, line and what is wrong.

    Source: Kuehne et al., HMDB (ICCV 2011): 70 training and 30 test videos of each class, the others unused.
    """
    names = ClassNames(request.class_files / "index2cls.json")
    if request.annotations.suffix.lower() == ".rar":
        raise ValueError(f"--annotations {request.annotations}: an archive that has to be unpacked; {ADVICE}")
    files = request.open(FOLDER, advice=ADVICE)
    lists: dict[str, DraftList] = {}
    for split in SPLITS:
        flagged = list(_rows(files, split, names, request))
        refuse_repeats(row for row, _ in flagged)
        sides = {flag: [row for row, found in flagged if found == flag] for flag in (TRAIN, TEST)}
        origin = f"*_test_split{split}.txt"
        lists[f"split{split}/train"] = draft(sides[TRAIN], official=NUM_TRAIN, origin=f"{origin}, flag 1")
        lists[f"split{split}/test"] = draft(sides[TEST], official=NUM_TEST, origin=f"{origin}, flag 2")
        if split == 1:
            used = [row for row, flag in flagged if flag != UNUSED]
            lists["full/test"] = draft(used, official=USED_VIDEOS, origin=f"{origin}, flags 1 and 2")
            every = draft([row for row, _ in flagged], official=None, origin=origin)
    if not request.any_counts:
        check_counts(lists, source=files.path)
    standard = standard_lists(
        lists,
        request,
        train=lists["split1/train"],
        test=lists["split1/test"],
        published=BASE_TO_NOVEL,
        halves_of=lists["full/test"],
    )
    return standard | episodic_lists(request, names, {"every": every})


def _rows(
    files: AnnotationFiles, split: int, names: ClassNames, request: AnnotationRequest
) -> Iterator[tuple[Row, str]]:
    """Rows of a split with their flags, class after class in the order of the labels."""
    found: dict[int, tuple[str, str]] = {}
    for file in files.names:
        title = re.fullmatch(rf"(.+)_test_split{split}\.txt", file)
        if title:
            found[names.match(title[1], files.where(file))] = (title[1], file)
    absent = [name for label, name in enumerate(names.names) if label not in found]
    if absent and not (request.any_counts and found):
        wanted = f"{absent[0].replace(' ', '_')}_test_split{split}.txt"
        raise ValueError(f"--annotations {files.path}: has no {wanted} ({len(absent)} classes lack one); {ADVICE}")
    for label, (folder, file) in sorted(found.items()):
        for where, line in files.lines(file):
            video, _, flag = line.rpartition(" ")
            if flag not in (TRAIN, TEST, UNUSED) or not video.strip():
                raise ValueError(f"{where}: expected a file name and 0, 1 or 2, found {line!r}")
            yield Row(video=f"{folder}/{video.strip()}", label=label, where=where), flag
