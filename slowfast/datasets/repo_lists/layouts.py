"""Where published projects keep their lists: a table of path patterns, of class files and of row counts.

A pattern matches the end of a path below the checkout, whatever the case; `*` stands for anything inside one part.
A class pattern that begins with `./` is looked for in the folder of the list. `{n}` stands for each number of the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

SPLITS, SEEDS, SHOTS, DRAWS = (1, 2, 3), (1, 2, 3), (2, 4, 8, 16), tuple(range(10))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Where one of our lists is found.

    Attributes:
        name: our name of the list.
        files: patterns of the list file; the first one that matches is taken.
        classes: class file that its labels shall index, relative to `label_db/<dataset>`.
        class_files: patterns of the class file that its labels index in the checkout; the first one that matches a
            list of our classes is taken.
        numbers: what `{n}` in the fields above stands for.
        published: number -> rows of the published list, several where publications differ; the key is 0
            where there are no numbers.
        rows: how a line is written: "path label", or "class/path" as in `train8//videos/x.avi`.
        labels: "known" if our class file exists; "draw" if the checkout says which classes there are; "folders" if
            only the folders of the videos, or the official files, say so.
    """

    name: str
    files: tuple[str, ...]
    classes: str
    class_files: tuple[str, ...]
    numbers: tuple[int, ...] = (0,)
    published: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    rows: Literal["path label", "class/path"] = "path label"
    labels: Literal["known", "draw", "folders"] = "known"

    def expand(self) -> Iterator[Rule]:
        """The rule of each number."""
        for number in self.numbers:

            def at(text: str, number: int = number) -> str:
                return text.replace("{n}", str(number))

            yield replace(
                self,
                name=at(self.name),
                files=tuple(map(at, self.files)),
                classes=at(self.classes),
                class_files=tuple(map(at, self.class_files)),
                numbers=(number,),
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Published numbers of rows of an expanded rule."""
        return self.published.get(self.numbers[0], ())

    @property
    def looked_for(self) -> str:
        """The patterns, for people."""
        return " or ".join(self.files).replace("{n}", "{" + ",".join(map(str, self.numbers)) + "}")


WHOLE = "index2cls.json"
_HALVES = {"base": "base_to_novel/base_index2cls.json", "novel": "base_to_novel/novel_index2cls.json"}


def _counts(numbers: tuple[int, ...], *counts: int) -> dict[int, tuple[int, ...]]:
    return {number: (count,) for number, count in zip(numbers, counts, strict=True)}


def _class_json(dataset: str) -> tuple[str, ...]:
    return ("./*index2cls*.json", f"{dataset}*index2cls*.json", f"*{dataset}*index2cls*.json", "./*.json")


def _zero_shot_first(pattern: str) -> tuple[str, str]:
    return f"zs_label_db/{pattern}", pattern


def _folders_zero_shot(dataset: str, full: int, splits: tuple[int, ...], half: tuple[int, ...] = ()) -> list[Rule]:
    """Zero-shot lists of STDD, FROSTER and Open-VCLIP: a folder for each split, with test.csv.

    Where there is a zs_label_db, folders of such names in label_db hold lists of half of the classes.
    """
    class_files = _class_json(dataset)
    draw = f"{dataset}*_half_test/" + "{n}"
    return [
        Rule(
            name="full/test",
            files=_zero_shot_first(f"{dataset}*_full/test.csv"),
            classes=WHOLE,
            class_files=class_files,
            published={0: (full,)},
        ),
        Rule(
            name="split{n}/test",
            files=_zero_shot_first(f"{dataset}*_split" + "{n}/test.csv"),
            classes=WHOLE,
            class_files=class_files,
            numbers=SPLITS,
            published=_counts(SPLITS, *splits),
        ),
        Rule(
            name="half{n}/test",
            files=(f"{draw}/test.csv", f"{draw}/*.csv", f"{draw}.csv"),
            classes="splits/half{n}/index2cls.json",
            class_files=("./*index2cls*.json", "./*.json", "./{n}*.json", "./*_{n}.json"),
            numbers=DRAWS,
            published=dict.fromkeys(DRAWS, half),
            labels="draw",
        ),
    ]


def _folders_base_to_novel(dataset: str, *, plain: tuple[str, ...], train: int, base: int, novel: int) -> list[Rule]:
    """Base-to-novel lists of FROSTER and STDD: a folder for each seed, base test in val.csv, novel test in test.csv.

    A dataset with one seed has a `plain` folder without a number.
    """
    seeded, base_files = f"B2N_{dataset}*_s", ("./raw_train_idx2cls.json", "./train_rephrased.json")
    seed = Rule(
        name="base_to_novel/seed{n}/train",
        files=(seeded + "{n}/train.csv",),
        classes=_HALVES["base"],
        class_files=base_files,
        numbers=SEEDS[1:],
        published=dict.fromkeys(SEEDS, (train,)),
    )
    first = replace(seed, numbers=SEEDS[:1], files=(*seed.files, *(f"B2N_{name}/train.csv" for name in plain)))
    return [
        first,
        seed,
        Rule(
            name="base_to_novel/base_test",
            files=(f"B2N_{dataset}*/val.csv",),
            classes=_HALVES["base"],
            class_files=base_files,
            published={0: (base,)},
        ),
        Rule(
            name="base_to_novel/novel_test",
            files=(f"B2N_{dataset}*/test.csv",),
            classes=_HALVES["novel"],
            class_files=("./raw_test_idx2cls.json", "./test_rephrased.json"),
            published={0: (novel,)},
        ),
    ]


def _folders_k400() -> list[Rule]:
    """The fully supervised lists of STDD (19796 videos of validation), FROSTER and Open-VCLIP (19761)."""
    return [
        Rule(
            name=f"full/{part}",
            files=(f"weng_compress_full_splits/{part}.csv",),
            classes=WHOLE,
            class_files=_class_json("k400"),
            published={0: counts},
        )
        for part, counts in (("train", ()), ("val", (19796, 19761)), ("test", (19796, 19761)))
    ]


def _folders_k600() -> list[Rule]:
    return [
        Rule(
            name="zero_shot_split{n}/test",
            files=_zero_shot_first("k600_split{n}/test.csv"),
            classes="zero_shot_split{n}_index2cls.json",
            class_files=("./*index2cls*.json", "./*.json", "k600*split{n}*index2cls*.json", "k600*index2cls*.json"),
            numbers=SPLITS,
            published=_counts(SPLITS, 7276, 7226, 7261),
        )
    ]


def _texts(name: str, folder: str, file: str, labels: str, *counts: int, numbers: tuple[int, ...] = (0,)) -> Rule:
    """A list of ViFi-CLIP, TC-CLIP or OST: datasets_splits/**/*.txt, with its classes in labels/*.csv."""
    return Rule(
        name=name,
        files=(f"{folder}_splits/{file}.txt",),
        classes=WHOLE,
        class_files=(f"labels/{labels}_labels.csv", f"{labels}_labels.csv", f"{labels}_llm_labels.json"),
        numbers=numbers,
        published=_counts(numbers, *counts) if counts else {},
    )


def _texts_few_shot(folder: str, labels: str, num_classes: int) -> Rule:
    counts = tuple(shots * num_classes for shots in SHOTS)
    return _texts("few_shot/{n}/train", folder, "train1_few_shot_{n}", labels, *counts, numbers=SHOTS)


def _texts_base_to_novel(folder: str, labels: str, *, train: int, base: int, novel: int) -> list[Rule]:
    parent = f"base2novel_splits/{folder}"
    rules = [
        _texts(
            "base_to_novel/seed{n}/train", parent, "fs_base_s{n}_train", f"{labels}_base", *[train] * 3, numbers=SEEDS
        ),
        _texts("base_to_novel/base_test", parent, "base_val", f"{labels}_base", base),
        _texts("base_to_novel/novel_test", parent, "novel_val", f"{labels}_novel", novel),
    ]
    return [replace(rule, classes=_HALVES["novel" if "novel_test" in rule.name else "base"]) for rule in rules]


def _texts_k600() -> list[Rule]:
    """OST has the lists also with the names of the folders taken away ("filtered")."""
    return [
        Rule(
            name="zero_shot_split{n}/test",
            files=("k600_splits/ZS_split{n}_K600_eval.txt", "k600_splits/ZS_split{n}_K600_eval_filtered.txt"),
            classes="zero_shot_split{n}_index2cls.json",
            class_files=("labels/ZS_split{n}_K600.csv", "ZS_split{n}_K600.csv", "ZS_split{n}_K600_llm.json"),
            numbers=SPLITS,
            published=_counts(SPLITS, 14084, 13978, 14136),
        )
    ]


def _episodes(benchmark: str, train: int, val: int, test: int) -> list[Rule]:
    """Lists of CLIP-FSAR, class by class; its configurations beside them name the classes to train and to test on."""
    rules = [
        Rule(
            name=f"episodic/{benchmark}/{part}",
            files=(f"{benchmark}/{part}_few_shot.txt",),
            classes=f"episodic/{benchmark}/{part}_index2cls.json",
            class_files=("./*.yaml",),
            published={0: (count,)},
            rows="class/path",
        )
        for part, count in (("train", train), ("test", test))
    ]
    held_out = replace(
        rules[0],
        name=f"episodic/{benchmark}/val",
        files=(f"{benchmark}/val_few_shot.txt",),
        classes=f"splits/episodic/{benchmark}/val_index2cls.json",
        class_files=(),
        published={0: (val,)},
        labels="folders",
    )
    return [*rules, held_out]


LAYOUTS: dict[str, dict[str, list[Rule]]] = {
    "STDD, FROSTER, Open-VCLIP": {
        "ucf101": [
            *_folders_zero_shot("ucf", 13320, (3783, 3734, 3696)),
            *_folders_base_to_novel("ucf", plain=("ucf", "ucf101"), train=816, base=2088, novel=1695),
        ],
        "hmdb51": [
            *_folders_zero_shot("hmdb", 5100, (1530, 1530, 1529), half=(2500,)),
            *_folders_base_to_novel("hmdb", plain=("hmdb", "hmdb51"), train=416, base=780, novel=750),
        ],
        "k400": [
            *_folders_k400(),
            *_folders_base_to_novel("k400", plain=("k400",), train=3200, base=9883, novel=9933),
        ],
        "k600": _folders_k600(),
        "ssv2": _folders_base_to_novel("ssv2", plain=("ssv2",), train=1392, base=17562, novel=7215),
    },
    "ViFi-CLIP, TC-CLIP, OST": {
        "ucf101": [
            _texts("split{n}/test", "ucf", "val{n}", "ucf_101", 3783, 3734, 3696, numbers=SPLITS),
            _texts_few_shot("ucf", "ucf_101", 101),
            *_texts_base_to_novel("ucf", "ucf_101", train=816, base=2088, novel=1695),
        ],
        "hmdb51": [
            _texts("split{n}/test", "hmdb", "val{n}", "hmdb_51", 1530, 1530, 1530, numbers=SPLITS),
            _texts_few_shot("hmdb", "hmdb_51", 51),
            *_texts_base_to_novel("hmdb", "hmdb_51", train=416, base=780, novel=750),
        ],
        "k400": [
            _texts("full/train", "k400", "train", "kinetics_400"),
            _texts("full/val", "k400", "val", "kinetics_400", 19877),
            *_texts_base_to_novel("k400", "kinetics_400", train=3200, base=9944, novel=9933),
        ],
        "k600": _texts_k600(),
        "ssv2": [
            _texts("full/train", "ssv2", "train", "ssv2"),
            _texts("full/val", "ssv2", "validation", "ssv2", 24777),
            _texts_few_shot("ssv2", "ssv2", 174),
            *_texts_base_to_novel("ssv2", "ssv2_174", train=1392, base=17562, novel=7215),
        ],
    },
    "CLIP-FSAR": {
        "ucf101": _episodes("ucf101", 9154, 1421, 2745),
        "hmdb51": _episodes("hmdb51", 4280, 1194, 1292),
        "k400": _episodes("kinetics100", 6400, 1200, 2400),
        "ssv2": [
            *_episodes("ssv2_full", 67013, 1926, 2857),
            *_episodes("ssv2_small", 6400, 1200, 2400),
        ],
    },
}
"""Projects of one layout -> dataset -> rules."""

MENTIONS = {
    "ucf101": ("ucf",),
    "hmdb51": ("hmdb",),
    "k400": ("k400", "kinetics400", "kinetics_400", "kinetics100", "weng_"),
    "k600": ("k600", "kinetics600", "kinetics_600"),
    "ssv2": ("ssv2", "something"),
}
"""Dataset -> parts of the paths of lists about it, to name those that are left out."""


def rules_of(dataset: str) -> list[tuple[str, Rule]]:
    """Projects and unexpanded rule, of each list that a dataset may have.

    Raises:
        ValueError: if no project has lists of the dataset.
    """
    if dataset not in MENTIONS:
        raise ValueError(f"dataset {dataset!r}: no lists of it can be imported; allowed: {', '.join(MENTIONS)}")
    return [(projects, rule) for projects, datasets in LAYOUTS.items() for rule in datasets.get(dataset, [])]
