from pathlib import Path

import pytest

from slowfast.datasets.traits import DatasetTraits, read_traits

LABEL_DB = Path(__file__).resolve().parents[3] / "label_db"


def test_shipped_datasets():
    assert read_traits(LABEL_DB / "ucf101") == DatasetTraits(title="UCF101")
    assert read_traits(LABEL_DB / "k400") == DatasetTraits(title="Kinetics-400", scored="val")
    assert read_traits(LABEL_DB / "ssv2") == DatasetTraits(title="SSv2", mirror=False, scored="val")


def test_defaults(tmp_path):
    assert read_traits(tmp_path / "mine") == DatasetTraits(title="mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mirror: maybe", r"mirror is 'maybe'; allowed: true, false"),
        ("scored: train", r"scored is 'train'; allowed: val, test"),
        ("heading: x", r"unknown entries \['heading'\]; allowed: \['title', 'mirror', 'scored'\]"),
        ("- a", r"expected a mapping, found list"),
        ("a: [", r"while parsing"),
        ("title: 3", r"title is 3; expected a name"),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/dataset\.yaml: .*{message}") as error:
        read_traits(tmp_path)
    assert "\n" not in str(error.value)
