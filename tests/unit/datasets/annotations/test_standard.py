"""Lists that follow from a training and a test list."""

import pytest

from slowfast.datasets.annotations.files import AnnotationRequest
from slowfast.datasets.annotations.standard import read_ids, standard_lists
from slowfast.datasets.prepared import DraftList


def every_class(count, prefix):
    rows = tuple((f"{prefix}{label}_{clip}", label) for label in range(51) for clip in range(count))
    return DraftList(rows=rows, classes="index2cls.json", origin=prefix)


def test_lists_depend_on_what_there_is(label_db, tmp_path):
    request = AnnotationRequest(annotations=tmp_path, class_files=label_db / "hmdb51")
    own = {"full/val": every_class(1, "val")}
    only_test = standard_lists(own, request, train=None, test=own["full/val"])
    assert list(only_test) == ["full/val", "base_to_novel/base_test", "base_to_novel/novel_test"]
    train = every_class(16, "train")
    assert list(standard_lists({}, request, train=train, test=None, few_shot=False)) == [
        f"base_to_novel/seed{run}/train" for run in (1, 2, 3)
    ]
    assert "few_shot/16/train" in standard_lists({}, request, train=train, test=None)


def test_published_halves_are_checked(label_db, tmp_path):
    request = AnnotationRequest(annotations=tmp_path, class_files=label_db / "hmdb51")
    with pytest.raises(ValueError, match=r"list base_to_novel/base_test .* has 26 rows, the official one has 780"):
        standard_lists({}, request, train=None, test=every_class(1, "val"), published={"base": 780, "novel": 750})


def test_too_few_videos_for_the_shots(label_db, tmp_path):
    request = AnnotationRequest(annotations=tmp_path, class_files=label_db / "hmdb51")
    with pytest.raises(ValueError, match="class 0 has 15 videos, 16 are to be drawn; --any-counts"):
        standard_lists({}, request, train=every_class(15, "train"), test=None)


@pytest.mark.parametrize(
    ("text", "message"), [("[1, ", "not valid JSON"), ('{"0": 1}', "expected a list of class numbers")]
)
def test_ids_that_are_no_ids(tmp_path, text, message):
    path = tmp_path / "base_ids.json"
    with pytest.raises(ValueError, match="cannot be read"):
        read_ids(path)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_ids(path)
