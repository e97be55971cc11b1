import json
from pathlib import Path

import av
import numpy as np
import pytest

from slowfast.datasets.synthetic import (
    COLOURS,
    MOTIONS,
    PHRASINGS,
    SHAPES,
    MotionShapes,
    class_name,
    phrasings,
    render_clip,
    render_still,
    render_stills,
    write_class_folders,
    write_motion_shapes,
    write_video,
)

PAIRS = [
    ("moving left", "moving right"),
    ("moving up", "moving down"),
    ("growing", "shrinking"),
    ("rotating clockwise", "rotating counterclockwise"),
]


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_division_covers_every_shape_and_motion_among_the_seen():
    spec = MotionShapes()
    assert not set(spec.seen) & set(spec.unseen)
    assert set(spec.seen) | set(spec.unseen) == {(s, m) for s in SHAPES for m in MOTIONS}
    assert {s for s, _ in spec.seen} == set(SHAPES)
    assert {m for _, m in spec.seen} == set(MOTIONS)


def test_unseen_classes_are_whole_pairs():
    unseen = set(MotionShapes().unseen)
    for first, second in PAIRS:
        for shape in SHAPES:
            assert ((shape, first) in unseen) == ((shape, second) in unseen)


def test_class_splits_divide_the_seen_classes_and_test_the_unseen_ones():
    spec = MotionShapes()
    splits = spec.class_splits
    assert list(splits) == ["train", "val", "test"]
    assert sorted(splits["train"] + splits["val"]) == sorted(spec.seen)
    assert splits["test"] == spec.unseen
    assert not set(splits["train"]) & set(splits["val"])
    assert {s for s, _ in splits["train"]} == set(SHAPES)
    assert {m for _, m in splits["train"]} == set(MOTIONS)


@pytest.mark.parametrize("part", ["val", "test"])
def test_held_out_classes_are_whole_pairs(part):
    classes = set(MotionShapes().class_splits[part])
    opposite = dict(PAIRS) | {second: first for first, second in PAIRS}
    assert classes == {(shape, opposite[motion]) for shape, motion in classes}


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_opposite_motions_hold_the_same_frames_in_reversed_order(shape, first, second):
    forward = render_clip(shape, first, colour="red", seed=5)
    backward = render_clip(shape, second, colour="red", seed=5)
    assert np.array_equal(forward, backward[::-1])
    assert not np.array_equal(forward, backward)


def centre_of(frame: np.ndarray) -> np.ndarray:
    red = frame[..., 0].astype(int) - frame[..., 1] > 60
    return np.argwhere(red).mean(axis=0)


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("moving left", 1, -1), ("moving right", 1, 1), ("moving up", 0, -1), ("moving down", 0, 1)],
)
def test_shape_moves_where_its_name_says(motion, axis, sign):
    clip = render_clip("square", motion, colour="red", seed=1)
    travel = centre_of(clip[-1]) - centre_of(clip[0])
    assert sign * travel[axis] > 15
    assert abs(travel[1 - axis]) < 2


def test_growing_grows_and_blinking_vanishes():
    grown = [
        np.count_nonzero(f[..., 0].astype(int) - f[..., 1] > 60)
        for f in render_clip("star", "growing", colour="red", seed=2)
    ]
    assert grown[-1] > 2 * grown[0]
    blinks = [
        np.count_nonzero(f[..., 0].astype(int) - f[..., 1] > 60)
        for f in render_clip("star", "blinking", colour="red", seed=2)
    ]
    assert min(blinks) < 10
    assert max(blinks) > 100


def test_same_seed_gives_identical_pixels():
    first = render_clip("heart", "growing", colour="blue", seed=(3, 1))
    assert np.array_equal(first, render_clip("heart", "growing", colour="blue", seed=(3, 1)))
    assert not np.array_equal(first, render_clip("heart", "growing", colour="blue", seed=(3, 2)))
    assert first.shape == (16, 48, 48, 3)
    assert first.dtype == np.uint8


def test_stills_are_named_and_show_no_trail_of_an_unseen_class():
    unseen = {class_name(s, m, colour=c) for s, m in MotionShapes().unseen for c in COLOURS}
    stills = list(render_stills(200, seed=0))
    assert {image.shape for image, _ in stills} == {(48, 48, 3)}
    texts = {text for _, text in stills}
    assert not texts & unseen
    assert any("moving" in text for text in texts)
    assert any("at the top left" in text for text in texts)


def test_long_exposure_differs_between_opposite_motions():
    left, name = render_still("cross", "moving left", colour="red", seed=4)
    right, _ = render_still("cross", "moving right", colour="red", seed=4)
    assert name == "a red cross moving left"
    assert np.abs(left.astype(int) - right).mean() > 1


def test_phrasings_start_with_the_name_and_are_distinct():
    prompts = phrasings("a star moving left")
    assert prompts[0] == "a star moving left"
    assert "a red star moving left" in prompts
    assert len(set(prompts)) == len(prompts) == (1 + len(COLOURS)) * len(PHRASINGS)


def test_dataset_on_disk(tmp_path):
    counts = write_motion_shapes(tmp_path, seed=0, train_per_class=3, val_per_class=1, test_per_class=1)
    spec = MotionShapes()
    assert counts == {"train": 3 * len(spec.seen), "val": len(spec.seen), "test": len(spec.unseen)}
    suffixes = set()
    for split, names in (("train", "seen"), ("val", "seen"), ("test", "unseen")):
        labels = json.loads((tmp_path / f"{names}.json").read_text())
        assert list(labels) == [str(i) for i in range(len(labels))]
        rows = [line.split(",") for line in (tmp_path / f"{split}.csv").read_text().splitlines()]
        assert {int(label) for _, label in rows} == set(range(len(labels)))
        for name, _ in rows[:: len(rows) // 4]:
            suffixes.add(Path(name).suffix)
            assert decode(tmp_path / name).shape == (16, 48, 48, 3)
    assert suffixes == {".mp4", ".avi"}


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_encoding_keeps_the_picture(tmp_path, suffix):
    clip = render_clip("star", "moving left", colour="red", seed=7)
    path = tmp_path / f"clip{suffix}"
    write_video(path, clip, fps=16)
    assert np.abs(decode(path).astype(int) - clip).mean() < 12


def test_unknown_suffix_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix '\.gif'; allowed: \.mp4, \.avi"):
        write_video(tmp_path / "clip.gif", render_clip("star", "growing", colour="red", seed=0), fps=16)


def test_class_folders(tmp_path):
    spec = MotionShapes(size_px=32, num_frames=4)
    names = write_class_folders(tmp_path / "one", per_class={"train": 1, "val": 2, "test": 4}, seed=3, spec=spec)
    assert {part: len(classes) for part, classes in names.items()} == {"train": 29, "val": 8, "test": 8}
    assert {folder.name.replace("_", " ") for folder in (tmp_path / "one").iterdir()} == set().union(*names.values())
    videos = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(videos) == 29 + 2 * 8 + 4 * 8
    tested = [str(path) for path in videos if path.parent.name == "a_star_moving_left"]
    assert tested == [f"a_star_moving_left/{name}" for name in ("000.mp4", "001.mp4", "002.avi", "003.mp4")]
    assert decode(tmp_path / "one" / tested[0]).shape == (4, 32, 32, 3)


def test_class_folders_depend_on_the_seed_alone(tmp_path):
    spec, counts = MotionShapes(size_px=32, num_frames=4), {"train": 1, "val": 1, "test": 1}
    contents = []
    for name, seed, workers in (("one", 3, 0), ("two", 3, 2), ("other", 4, 0)):
        write_class_folders(tmp_path / name, per_class=counts, seed=seed, num_workers=workers, spec=spec)
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).rglob("*.mp4"))])
    assert contents[0] == contents[1]
    assert not any(one == other for one, other in zip(contents[0], contents[2], strict=True))
