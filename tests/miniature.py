"""Small copies of UCF101, HMDB51, Kinetics and Something-Something, as one downloads them, and a plain folder.

A few real classes of each dataset have a handful of rendered videos each, under the names and in the folders of the
original, and the annotation files have the original's format down to line ends and headers. The classes are chosen so
that both halves of base-to-novel and each zero-shot split have some; on demand each part of the episodic benchmarks
has enough for episodes, too. Equal seeds give equal pixels.
"""

from __future__ import annotations

import csv
import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from slowfast.datasets.annotations.episodic import BENCHMARKS
from slowfast.datasets.label_set import class_key
from slowfast.datasets.synthetic import COLOURS, MotionShapes, render_clip, write_video

LABEL_DB = Path(__file__).resolve().parents[1] / "label_db"
OWN_NAME = "kitchen"
"""Name of the dataset made of a plain folder."""
SPEC = MotionShapes(size_px=32, num_frames=12, fps=12)
_CLASSES_PER_HALF, _FREQUENT = 3, 20
_CLASSES_PER_PART = 6  # an episode takes five
_ID_CHARACTERS = string.ascii_letters + string.digits + "-_"


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """A dataset as downloaded.

    Attributes:
        name: as tools/prepare_data.py calls it.
        root: folder of the videos.
        annotations: folder of the annotation files; None where the folders are the annotation.
        videos: path relative to `root` -> name of the class as in label_db.
    """

    name: str
    root: Path
    annotations: Path | None
    videos: dict[str, str]

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have videos, in the order of the labels."""
        return list(dict.fromkeys(self.videos.values()))

    @property
    def dataset(self) -> str:
        """Its folder in label_db."""
        return OWN_NAME if self.annotations is None else self.name

    @property
    def arguments(self) -> list[str]:
        """What tools/prepare_data.py needs to be told."""
        words = [self.name, "--root", str(self.root)]
        if self.annotations is None:
            return [*words, "--name", self.dataset]
        return [*words, "--annotations", str(self.annotations), "--any-counts"]


def write_miniature(name: str, folder: Path, *, seed: int = 0, episodic: bool = False) -> Miniature:
    """Write `videos/` and `annotations/` of a dataset of MINIATURES into a folder.

    With `episodic` each part of the dataset's episodic benchmarks has classes enough for 5-way episodes, of six videos
    or more: 5 shots and a query. Only for datasets that have such benchmarks.
    """
    root, annotations = folder / "videos", folder / "annotations"
    root.mkdir(parents=True)
    if name != "folder":
        annotations.mkdir()
    more = _episodic_classes(name) if episodic else ()
    videos = MINIATURES[name](root, annotations, random.Random(seed), more)
    labels = list(dict.fromkeys(videos.values()))
    for number, (path, label) in enumerate(videos.items()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _write_clip(root / path, labels.index(label), seed=(seed, number))
    return Miniature(name=name, root=root, annotations=annotations if name != "folder" else None, videos=videos)


def _class_names(dataset: str, file: str = "index2cls") -> list[str]:
    content = json.loads((LABEL_DB / dataset / f"{file}.json").read_text(encoding="utf-8"))
    return [content[str(number)] for number in range(len(content))]


def _episodic_classes(dataset: str) -> tuple[str, ...]:
    """Some classes of each part of its benchmarks, spelled as in index2cls.json."""
    names = {class_key(name): name for name in _class_names(dataset)}
    chosen: dict[str, None] = {}
    for benchmark, rule in BENCHMARKS[dataset].items():
        rest = dict(names)
        for part in ("train", "test"):
            keys = [class_key(name) for name in _class_names(dataset, f"episodic/{benchmark}/{part}_index2cls")]
            chosen |= dict.fromkeys(names[key] for key in keys[:_CLASSES_PER_PART])
            rest = {key: name for key, name in rest.items() if key not in keys}
        chosen |= dict.fromkeys(list(rest.values())[:_CLASSES_PER_PART] if rule.rest else ())
    return tuple(chosen)


def _chosen(dataset: str, *extra: str) -> dict[int, str]:
    """Label -> name of some classes of either half, in the order of the labels."""
    names = _class_names(dataset)
    labels = {names.index(name) for name in extra}
    for half in ("base", "novel"):
        ids = json.loads((LABEL_DB / dataset / "base_to_novel" / f"{half}_ids.json").read_text(encoding="utf-8"))
        labels |= set(ids[:: len(ids) // _CLASSES_PER_HALF][:_CLASSES_PER_HALF])
    return {label: names[label] for label in sorted(labels)}


# --------------------------------------------------------------------------------------------------------- the datasets


def _ucf101(root: Path, annotations: Path, rng: random.Random, more: Sequence[str]) -> dict[str, str]:
    """v_<Class>_g<group>_c<clip>.avi; groups 1 to 7, 8 to 14 and 15 to 21 are the tests of the three splits."""
    folder = annotations / "ucfTrainTestlist"
    folder.mkdir()
    official = [_ucf_folder(name) for name in _class_names("ucf101")]
    (folder / "classInd.txt").write_text(
        "".join(f"{number} {name}\r\n" for number, name in enumerate(official, start=1)), encoding="utf-8", newline=""
    )
    videos, lists = {}, {(kind, split): [] for kind in ("train", "test") for split in (1, 2, 3)}
    for label, name in _chosen("ucf101", "Handstand Pushups", "Yoyo", *more).items():
        # The one class whose videos are not named like their folder.
        stem = official[label].replace("Handstand", "HandStand") if name == "Handstand Pushups" else official[label]
        for group in (1, 2, 8, 9, 15, 22):
            path = f"{official[label]}/v_{stem}_g{group:02d}_c01.avi"
            videos[path] = name
            for split in (1, 2, 3):
                test = 7 * (split - 1) < group <= 7 * split
                lists["test" if test else "train", split].append(path if test else f"{path} {label + 1}")
    for (kind, split), rows in lists.items():
        (folder / f"{kind}list{split:02d}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return videos


def _ucf_folder(name: str) -> str:
    """Folder of a class: its words run together."""
    return {"Yoyo": "YoYo"}.get(name, name.replace(" ", ""))


_HMDB_FLAGS = ("112", "111", "121", "120", "211", "211", "002")
"""Flags of the seven videos of a class in split 1, 2 and 3: 1 train, 2 test, 0 in neither."""


def _hmdb51(root: Path, annotations: Path, rng: random.Random, more: Sequence[str]) -> dict[str, str]:
    """One list per class and split, `video.avi <flag> `; the names have characters that a shell would not like."""
    folder = annotations / "testTrainMulti_7030_splits"
    folder.mkdir()
    chosen = set(_chosen("hmdb51", *more).values())
    videos = {}
    for name in _class_names("hmdb51"):
        word = name.replace(" ", "_")
        heads = ("April_09", "#20_Rhythm", "Catch!_Part(2)", "A&B_Story;", "[Home]_Movie", "50_FIRST_DATES", "21+1")
        files = [f"{head}_{word}_u_nm_np1_fr_goo_{index}.avi" for index, head in enumerate(heads)]
        for split in (1, 2, 3):
            rows = [f"{file} {flags[split - 1]} \n" for file, flags in zip(files, _HMDB_FLAGS, strict=True)]
            text = "".join(rows) if name in chosen else ""
            (folder / f"{word}_test_split{split}.txt").write_text(text, encoding="utf-8")
        if name in chosen:
            videos |= {f"{word}/{file}": name for file in files}
    return videos


def _youtube_ids(rng: random.Random, count: int) -> list[str]:
    ids = {"-" + "".join(rng.choices(_ID_CHARACTERS, k=10)): None}  # one that looks like an option
    while len(ids) < count:
        ids["".join(rng.choices(_ID_CHARACTERS, k=11))] = None
    return list(ids)


def _kinetics(
    annotations: Path,
    rng: random.Random,
    names: Sequence[str],
    counts: dict[str, int],
    path: Callable[[str, str, str], str],
    *,
    frequent: str = "",
) -> dict[str, str]:
    """{train,val,test}.csv with a header and the times of each clip, which are in the names of its files too."""
    videos, header = {}, ("label", "youtube_id", "time_start", "time_end", "split")
    ids = iter(_youtube_ids(rng, len(names) * sum(counts.values()) + _FREQUENT))
    for split, count in counts.items():
        rows = []
        for name in names:
            clips = _FREQUENT if split == "train" and name == frequent else count
            for start in (rng.randrange(0, 300) for _ in range(clips)):
                youtube_id = next(ids)
                videos[path(split, name, f"{youtube_id}_{start:06d}_{start + 10:06d}.mp4")] = name
                rows.append((name, youtube_id, start, start + 10, "validate" if split == "val" else split))
        rng.shuffle(rows)
        with (annotations / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    order = {name: number for number, name in enumerate(names)}
    return dict(sorted(videos.items(), key=lambda item: (order[item[1]], item[0])))


def _k400(root: Path, annotations: Path, rng: random.Random, more: Sequence[str]) -> dict[str, str]:
    """All clips of a split in one folder. One base class has more training clips than 16 shots take."""
    names = list(_chosen("k400", *more).values())
    base = json.loads((LABEL_DB / "k400" / "base_to_novel" / "base_ids.json").read_text(encoding="utf-8"))
    frequent = _class_names("k400")[base[0]]
    counts = {"train": 4, "val": 2, "test": 1}
    return _kinetics(annotations, rng, names, counts, lambda split, _, file: f"{split}/{file}", frequent=frequent)


def _k600(root: Path, annotations: Path, rng: random.Random, more: Sequence[str]) -> dict[str, str]:
    """A folder per class. Two classes are in all three zero-shot splits, one in each of them only, one in none."""
    splits = [_class_names("k600", f"zero_shot_split{number}_index2cls") for number in (1, 2, 3)]
    common = [name for name in splits[0] if all(name in split for split in splits)]
    names = {common[0], common[-1], _class_names("k400")[0]}
    for split in splits:
        names.add(next(name for name in split if sum(name in other for other in splits) == 1))
    ordered = [name for name in _class_names("k600") if name in names]
    counts = {"train": 1, "val": 2, "test": 1}
    return _kinetics(annotations, rng, ordered, counts, lambda split, name, file: f"{split}/{name}/{file}")


def _ssv2(root: Path, annotations: Path, rng: random.Random, more: Sequence[str]) -> dict[str, str]:
    """JSON lists of <id>.webm; the class is the template without its brackets."""
    labels = _class_names("ssv2")
    (annotations / "labels.json").write_text(
        json.dumps({name: str(number) for number, name in enumerate(labels)}, indent=0), encoding="utf-8"
    )
    chosen = list(_chosen("ssv2", "Poking a hole into some substance", *more).values())
    # Episodes of one benchmark are tested on validation videos alone.
    counts = {"train": 6 if more else 4, "validation": 6 if more else 2}
    numbers = iter(rng.sample(range(1, 220848), sum(counts.values()) * len(chosen) + 2))
    videos, lists = {}, {"train": [], "validation": []}
    for name in chosen:
        for split in (split for split, count in counts.items() for _ in range(count)):
            number = str(next(numbers))
            videos[f"{number}.webm"] = name
            template = name.replace("something", "[something]").replace("Something", "[Something]")
            lists[split].append({
                "id": number,
                "label": name.lower().replace("something", "a red cup"),
                "template": template.replace("some substance", "[some substance]"),
                "placeholders": ["a red cup"] * max(1, template.lower().count("[something]")),
            })  # fmt: skip
    for split, rows in lists.items():
        rng.shuffle(rows)
        (annotations / f"{split}.json").write_text(json.dumps(rows, indent=0), encoding="utf-8")
    unlabelled = [{"id": str(number)} for number in numbers]
    (annotations / "test.json").write_text(json.dumps(unlabelled, indent=0), encoding="utf-8")
    return videos


def _folder(root: Path, annotations: Path, rng: random.Random, more: Sequence[str]) -> dict[str, str]:
    """class/video.mp4, with what else lies around in such folders."""
    (root / "notes.txt").write_text("not a video\n", encoding="utf-8")
    names = ("pouring tea", "stacking cups", "opening a jar")
    for name in names:
        (root / name).mkdir()
        (root / name / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    kinds = ("mp4", "avi")
    return {f"{name}/take {index}.{kinds[index % 2]}": name for name in sorted(names) for index in range(10)}


MINIATURES = {"ucf101": _ucf101, "hmdb51": _hmdb51, "k400": _k400, "k600": _k600, "ssv2": _ssv2, "folder": _folder}
"""Dataset -> what writes its annotation files and names its videos."""


# ----------------------------------------------------------------------------------------------------------- the videos


def _write_clip(path: Path, label: int, *, seed: tuple[int, int]) -> None:
    """Render a clip whose shape and motion, and mostly its colour, belong to the label, its place to the seed."""
    classes, colours, rng = SPEC.seen, list(COLOURS), np.random.default_rng(seed)
    colour = colours[label % len(colours) if rng.random() < 0.8 else int(rng.integers(len(colours)))]
    frames = render_clip(*classes[label % len(classes)], colour=colour, seed=(*seed, 1), spec=SPEC)
    if path.suffix == ".webm":
        _write_webm(path, frames)
    else:
        write_video(path, frames, fps=SPEC.fps)


def _write_webm(path: Path, frames: np.ndarray) -> None:
    # Without this the file gets a random number of its own.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"deadline": "realtime", "cpu-used": "8", "crf": "12", "b": "2M"}
        stream = container.add_stream("libvpx", rate=Fraction(SPEC.fps), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
