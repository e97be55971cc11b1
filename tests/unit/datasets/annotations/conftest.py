"""Annotation files of the size of the originals, with made-up videos, and what to do with them."""

import json

import pytest

from slowfast.datasets.annotations.files import AnnotationRequest
from slowfast.datasets.label_set import class_key

UCF_HALVES = {"base": 2088, "novel": 1695}
UCF_COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


def _spread(total, parts):
    """Whole numbers that differ by one at most and add up to the total."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _names(label_db, dataset, file="index2cls"):
    content = json.loads((label_db / dataset / f"{file}.json").read_text(encoding="utf-8"))
    return [content[str(label)] for label in range(len(content))]


def _spread_groups(groups):
    """Videos of each class, so that groups of classes (total, labels) have the given sums."""
    counts = {}
    for total, labels in groups:
        counts |= dict(zip(labels, _spread(total, len(labels)), strict=True))
    return [counts[label] for label in range(len(counts))]


def _half_ids(label_db, dataset, half):
    return json.loads((label_db / dataset / "base_to_novel" / f"{half}_ids.json").read_text(encoding="utf-8"))


def _parts(label_db, dataset, benchmark):
    """Labels of the classes of a benchmark to train on, to test on, and of the others."""
    names = [class_key(name) for name in _names(label_db, dataset)]
    train, test = (
        [names.index(class_key(name)) for name in _names(label_db, dataset, f"episodic/{benchmark}/{part}_index2cls")]
        for part in ("train", "test")
    )
    return train, test, [label for label in range(len(names)) if label not in {*train, *test}]


@pytest.fixture(scope="session")
def label_db(request):
    return request.config.rootpath / "label_db"


@pytest.fixture(scope="session")
def names_of(label_db):
    """names_of(dataset) -> class names in the order of the labels."""
    return lambda dataset, file="index2cls": _names(label_db, dataset, file)


@pytest.fixture
def ask(label_db):
    """ask(dataset, path, ...) -> AnnotationRequest."""

    def make(dataset, path, **options):
        return AnnotationRequest(annotations=path, class_files=label_db / dataset, **options)

    return make


@pytest.fixture(scope="session")
def ucf101_files(label_db):
    """Name -> text of the files of ucfTrainTestlist, with the published numbers of rows."""
    titles = [{"Yoyo": "YoYo"}.get(name, name.replace(" ", "")) for name in _names(label_db, "ucf101")]
    files = {"classInd.txt": "".join(f"{number} {title}\r\n" for number, title in enumerate(titles, start=1))}
    totals = _spread_groups(zip((9154, 2745, 1421), _parts(label_db, "ucf101", "ucf101"), strict=True))
    for split, (_, num_test) in UCF_COUNTS.items():
        tests = _spread(num_test, 101)
        if split == 1:
            tests = _spread_groups((num, _half_ids(label_db, "ucf101", half)) for half, num in UCF_HALVES.items())
        rows = {"train": [], "test": []}
        for label, (total, test) in enumerate(zip(totals, tests, strict=True)):
            train = total - test
            clips = [f"{titles[label]}/v_{titles[label]}_g{clip:03d}_c01.avi" for clip in range(train + test)]
            rows["train"] += [f"{clip} {label + 1}" for clip in clips[:train]]
            rows["test"] += clips[train:]
        for side, lines in rows.items():
            files[f"{side}list0{split}.txt"] = "".join(f"{line}\n" for line in lines)
    return files


@pytest.fixture(scope="session")
def hmdb51_files(label_db):
    """Name -> text of the files of testTrainMulti_7030_splits; each class has videos that no split uses."""
    files = {}
    totals = _spread_groups(zip((4280, 1292, 1194), _parts(label_db, "hmdb51", "hmdb51"), strict=True))
    for name, total in zip(_names(label_db, "hmdb51"), totals, strict=True):
        word = name.replace(" ", "_")
        for split in (1, 2, 3):
            flags = ["1"] * 70 + ["2"] * 30 + ["0"] * (total - 100)
            turned = flags[split:] + flags[:split]
            files[f"{word}_test_split{split}.txt"] = "".join(
                f"clip({number})_{word}_f_cm_np1_fr_med_0.avi {flag} \n" for number, flag in enumerate(turned)
            )
    return files


@pytest.fixture(scope="session")
def ssv2_files(label_db):
    """Name -> text of the JSON files of Something-Something v2."""
    names = _names(label_db, "ssv2")
    files = {"labels": {name: str(label) for label, name in enumerate(names)}}
    templates = [name.replace("something", "[something]").replace("Something", "[Something]") for name in names]
    first = 1
    train, test, others = _parts(label_db, "ssv2", "ssv2_full")
    for side, counts in (
        ("train", _spread_groups([(67_013, train), (168_913 - 67_013, [*test, *others])])),
        ("validation", _ssv2_validation(label_db, test)),
    ):
        rows = [template for template, count in zip(templates, counts, strict=True) for _ in range(count)]
        files[side] = [
            {"id": str(first + number), "label": "a made-up sentence", "template": row, "placeholders": []}
            for number, row in enumerate(rows)
        ]
        first += len(rows)
    return {f"something-something-v2-{side}.json": json.dumps(content) for side, content in files.items()}


def _ssv2_validation(label_db, test):
    """Videos of each class; the halves of base-to-novel have the published sums, as have the classes of episodes."""
    fixed = dict(zip(test, _spread(2857, len(test)), strict=True))
    groups = [(2857, test)]
    for half, total in (("base", 17_562), ("novel", 7_215)):
        ids = _half_ids(label_db, "ssv2", half)
        free = [label for label in ids if label not in fixed]
        groups.append((total - sum(fixed.get(label, 0) for label in ids), free))
    return _spread_groups(groups)


@pytest.fixture
def write_files(tmp_path):
    """write_files(folder name, {name: text}, changed={name: text}) -> folder."""

    def write(folder, files, **changed):
        target = tmp_path / folder
        target.mkdir(parents=True)
        for name, text in {**files, **changed}.items():
            (target / name).write_text(text, encoding="utf-8", newline="")
        return target

    return write
