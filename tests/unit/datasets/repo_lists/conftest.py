"""Small checkouts: list files and class files as the published projects have them."""

import json
from pathlib import Path

import pytest

LABEL_DB = Path(__file__).resolve().parents[4] / "label_db"


class FakeCheckout:
    """Writes the files of a checkout into a folder."""

    def __init__(self, root):
        self.root = root

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def rows(self, path, rows, separator=" "):
        return self.write(path, "".join(f"{video}{separator}{label}\n" for video, label in rows))

    def names_json(self, path, names):
        return self.write(path, json.dumps({str(label): name for label, name in enumerate(names)}))

    def names_csv(self, path, names):
        return self.write(path, "id,name\n" + "".join(f"{label},{name}\n" for label, name in enumerate(names)))


@pytest.fixture
def fake(tmp_path):
    return FakeCheckout(tmp_path / "checkout")


@pytest.fixture(scope="session")
def label_db():
    return LABEL_DB


@pytest.fixture(scope="session")
def names_of():
    """Class names of a class file of label_db."""

    def read(dataset, file="index2cls.json"):
        return list(json.loads((LABEL_DB / dataset / file).read_text()).values())

    return read
