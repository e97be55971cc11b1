from dataclasses import replace

import pytest

from slowfast.datasets.inputs import inputs_sha256
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import Split


@pytest.fixture
def split(tmp_path):
    csv = tmp_path / "a" / "test.csv"
    csv.parent.mkdir()
    csv.write_text("1.mp4,0\n2.mp4,1\n")
    return Split(name="split1", csv=csv, label_set=LabelSet.from_names(["run", "jump"]), mode="test")


def test_a_dataset_that_moved_is_the_same(split, tmp_path):
    before = inputs_sha256([split])
    assert len(before) == 64
    moved = split.csv.rename(tmp_path / "moved.csv")
    assert inputs_sha256([replace(split, csv=moved, prefix="/elsewhere")]) == before


def test_rows_names_and_files_matter(split, tmp_path):
    features = tmp_path / "features.pt"
    features.write_bytes(b"one")
    found = {inputs_sha256([split]), inputs_sha256([split], [features]), inputs_sha256([split], ["vitb16"])}
    found |= {inputs_sha256([replace(split, label_set=LabelSet.from_names(["run", "leap"]))])}
    found |= {inputs_sha256([replace(split, name="split2")]), inputs_sha256([split, split])}
    features.write_bytes(b"two")
    found |= {inputs_sha256([split], [features])}
    split.csv.write_text("1.mp4,0\n2.mp4,0\n")
    found |= {inputs_sha256([split])}
    assert len(found) == 8
    assert inputs_sha256([split], [None]) == inputs_sha256([split], [""])


def test_a_list_that_is_absent(split):
    split.csv.unlink()
    with pytest.raises(OSError, match=r"test\.csv"):
        inputs_sha256([split])
