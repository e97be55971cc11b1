"""UCF101: classInd.txt, trainlist0N.txt and testlist0N.txt of ucfTrainTestlist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from slowfast.datasets.annotations.class_names import ClassNames
from slowfast.datasets.annotations.episodic import episodic_lists
from slowfast.datasets.annotations.files import AnnotationFiles, AnnotationRequest
from slowfast.datasets.annotations.rows import Row, check_counts, draft, refuse_overlap, refuse_repeats
from slowfast.datasets.annotations.standard import standard_lists
from slowfast.datasets.prepared import DraftList

FOLDER = "ucfTrainTestlist"
ADVICE = f"expected the {FOLDER} folder of UCF101TrainTestSplits-RecognitionTask.zip, or that archive"
COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}
ALL_VIDEOS = 13320
BASE_TO_NOVEL = {"base": 2088, "novel": 1695}


def read_ucf101(request: AnnotationRequest) -> dict[str, DraftList]:
    """Read the three splits of UCF101 and derive the lists of all protocols.

    Raises:
        ValueError: one line naming file, line and what is wrong.

    Source: Soomro et al., UCF101 (2012); number of videos of each list as in the files of the authors.
    """
    names = ClassNames(request.class_files / "index2cls.json")
    files = request.open(FOLDER, advice=ADVICE)
    numbers = dict(_class_numbers(files, names))
    lists: dict[str, DraftList] = {}
    for split, (num_train, num_test) in COUNTS.items():
        train = list(_rows(files, f"trainlist0{split}.txt", names, numbers))
        test = list(_rows(files, f"testlist0{split}.txt", names, numbers))
        refuse_repeats(train)
        refuse_repeats(test)
        refuse_overlap(train, test)
        lists[f"split{split}/train"] = draft(train, official=num_train, origin=f"trainlist0{split}.txt")
        lists[f"split{split}/test"] = draft(test, official=num_test, origin=f"testlist0{split}.txt")
        if split == 1:
            lists["full/test"] = draft(
                [*train, *test], official=ALL_VIDEOS, origin="trainlist01.txt and testlist01.txt"
            )
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
    return standard | episodic_lists(request, names, {"full": lists["full/test"]})


def _class_numbers(files: AnnotationFiles, names: ClassNames) -> Iterator[tuple[int, int]]:
    """(number of the class in the training lists, our label)."""
    for where, line in files.lines("classInd.txt"):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip():
            raise ValueError(f"{where}: expected a number and a class name, found {line!r}")
        yield int(number), names.match(name, where)


def _rows(files: AnnotationFiles, name: str, names: ClassNames, numbers: dict[int, int]) -> Iterator[Row]:
    """Rows `Class/video.avi`, followed by the number of the class in training lists."""
    for where, line in files.lines(name):
        video, _, number = line.partition(" ")
        if len(PurePosixPath(video).parts) != 2:
            raise ValueError(f"{where}: expected Class/video.avi, found {line!r}")
        label = names.match(PurePosixPath(video).parts[0], where)
        if number.strip() and numbers.get(_number(number, where)) != label:
            raise ValueError(f"{where}: {video!r} has class number {number.strip()}, which is another class")
        yield Row(video=video, label=label, where=where)


def _number(text: str, where: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"{where}: expected a class number after the video, found {text.strip()!r}")
    return int(text)
