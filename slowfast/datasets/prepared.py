"""The annotation files that `tools/prepare_data.py` makes of a dataset, and the manifest that describes them.

`label_db/<dataset>/splits/manifest.json` lists every annotation file of the folder with its classes, its rows, the rows
of the official list and the videos that were not found. A list is known by its path without the suffix:

    full/{train,val,test}                  the whole dataset
    split{1,2,3}/{train,test}              official splits of UCF101 and HMDB51
    half{0..9}/test                        half-class draws of Open-VCLIP, each with its own class list
    zero_shot_split{1,2,3}/test            160 classes of Kinetics-600 that Kinetics-400 does not have
    few_shot/{2,4,8,16}/train              K videos of each class
    base_to_novel/seed{1,2,3}/train        16 videos of each base class
    base_to_novel/{base,novel}_test        test videos of either half of the classes
    episodic/<benchmark>/{train,val,test}  class splits of episodic few-shot learning

An annotation file has the rows `path,label`, paths relative to the root of the videos.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slowfast.datasets.label_set import LabelSet
from slowfast.utils.io import atomic_write_text, parse_json

FORMAT = "slowfast-stdd/splits/1"
SPLITS_FOLDER = "splits"
MANIFEST = "manifest.json"
SEPARATOR = ","
PLAIN_NAMES, REPHRASED_NAMES = "index2cls", "rephrased"


@dataclass(frozen=True, kw_only=True)
class DraftList:
    """An annotation list as its source has it, before its videos are looked up.

    Attributes:
        rows: (video as the source names it, label) in the order of the source; labels index `classes`.
        classes: class file relative to `label_db/<dataset>`, e.g. "index2cls.json".
        official: rows that the published list has; None where nothing was published.
        origin: where the rows come from, for people, e.g. "testlist01.txt" or "16 per class, seed 1".
    """

    rows: tuple[tuple[str, int], ...]
    classes: str
    official: int | None = None
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class PreparedList:
    """One annotation file of a prepared dataset.

    Attributes:
        classes: class file relative to `label_db/<dataset>`.
        rows: rows of the annotation file.
        official: rows that the published list has; None where nothing was published.
        missing: rows, or dropped rows, whose video was not found.
        dropped: missing rows that were left out of the file.
        origin: where the rows come from.
    """

    classes: str
    rows: int
    official: int | None = None
    missing: int = 0
    dropped: int = 0
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """A dataset whose annotation files were made.

    Attributes:
        name: folder in `label_db`.
        folder: `label_db/<name>`.
        root: absolute path of the folder that the paths of the annotation files start from.
        lists: by name, see the module.
        sources: source file -> sha256.
        seed: seed of the draws that no source fixed.
    """

    name: str
    folder: Path
    root: str
    lists: Mapping[str, PreparedList]
    sources: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def csv(self, name: str) -> Path:
        """The annotation file of a list."""
        return self.folder / SPLITS_FOLDER / f"{name}.csv"

    def require(self, name: str) -> PreparedList:
        """A list by name.

        Raises:
            ValueError: if the dataset has none of that name.
        """
        if name not in self.lists:
            raise ValueError(
                f"{self.folder / SPLITS_FOLDER / MANIFEST}: has no list {name!r}; found: {', '.join(self.lists)}"
            )
        return self.lists[name]

    def label_set(self, name: str, *, names: str = PLAIN_NAMES) -> LabelSet:
        """The classes of a list.

        Args:
            name: the list.
            names: which wording of the class names: "index2cls" (plain) or "rephrased" ("Name: sentence").

        Raises:
            ValueError: if the class file is absent or not usable.
        """
        file = self.folder / self.require(name).classes
        return LabelSet.from_json(file.with_name(file.name.replace(PLAIN_NAMES, names)))


def write_manifest(dataset: PreparedDataset) -> Path:
    """Write the manifest of a dataset.

    Returns: the file.
    """
    path = dataset.folder / SPLITS_FOLDER / MANIFEST
    content = {
        "format": FORMAT,
        "dataset": dataset.name,
        "root": dataset.root,
        "seed": dataset.seed,
        "sources": dict(dataset.sources),
        "lists": {name: asdict(entry) for name, entry in dataset.lists.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def read_manifest(label_db: str | Path, name: str) -> PreparedDataset:
    """Read the manifest of a prepared dataset.

    Args:
        label_db: folder of the datasets.
        name: folder of the dataset in it.

    Raises:
        ValueError: if the dataset was not prepared, or its manifest is not usable.
    """
    folder = Path(label_db) / name
    path = folder / SPLITS_FOLDER / MANIFEST
    if not path.is_file():
        command = f"tools/prepare_data.py {name} --root ... --annotations ..."
        raise ValueError(f"{path}: no such file; it is made by {command}")
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return _parse(content, folder, name)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a usable manifest ({error})") from error


def _parse(content: Any, folder: Path, name: str) -> PreparedDataset:  # noqa: ANN401 - JSON
    if content["format"] != FORMAT:
        raise ValueError(f"format is {content['format']!r}; allowed: {FORMAT!r}")
    if content["dataset"] != name:
        raise ValueError(f"it describes {content['dataset']!r}")
    return PreparedDataset(
        name=name,
        folder=folder,
        root=str(content["root"]),
        lists={str(key): PreparedList(**entry) for key, entry in content["lists"].items()},
        sources={str(key): str(value) for key, value in content["sources"].items()},
        seed=int(content["seed"]),
    )
