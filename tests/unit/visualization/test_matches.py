import numpy as np
import pytest
import torch

from slowfast.methods.explanation import MatchView
from slowfast.visualization.matches import (
    best_matches,
    colour_range,
    frame_shares,
    match_film,
    match_lines,
    match_sheet,
    shortened,
)
from slowfast.visualization.paint import PAPER

LONG = " ".join(f"word{number}" for number in range(49))


def view_of(plan, *, texts=None, cosines=None, class_name="archery"):
    plan = torch.as_tensor(plan, dtype=torch.float32)
    texts = texts or tuple(f"descriptor {n}" for n in range(plan.shape[1]))
    cosines = torch.zeros_like(plan) if cosines is None else torch.as_tensor(cosines)
    return MatchView(kind="spatial", class_name=class_name, texts=tuple(texts), plan=plan, cosines=cosines)


def random_view(num_frames, num_texts, *, texts=None):
    generator = torch.Generator().manual_seed(num_frames)
    plan = torch.rand(num_frames, num_texts, generator=generator) + 0.01
    return view_of(plan / plan.sum(dim=0) / num_texts, texts=texts)


def frames_of(num_frames):
    return np.random.default_rng(0).integers(0, 256, (num_frames, 32, 32, 3), dtype=np.uint8)


def test_shares_are_of_the_mass_of_a_frame():
    view = view_of([[0.3, 0.1], [0.2, 0.1], [0.0, 0.3]])
    expected = [[0.75, 0.25], [2 / 3, 1 / 3], [0.0, 1.0]]
    assert frame_shares(view) == pytest.approx(np.array(expected), abs=1e-6)
    assert best_matches(view).tolist() == [0, 0, 1]


def test_of_equal_matches_the_first():
    assert best_matches(view_of(torch.full((3, 4), 1 / 12))).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([[0.1, 0.9], [0.6, 0.4]], (0.1, 0.9)),
        ([[0.5, 0.5]], (0.49, 0.51)),
        ([[0.501, 0.499]], (0.49, 0.51)),
        ([[1.0, 0.0]], (0.0, 1.0)),
        ([[1.0]], (0.99, 1.0)),
    ],
)
def test_colours_span_what_there_is(shares, expected):
    assert colour_range(np.array(shares)) == pytest.approx(expected)


def test_lines_name_the_best_match_of_each_frame():
    view = view_of([[0.4, 0.1], [0.1, 0.4]], texts=["a bow", "an arrow"], cosines=[[0.31, 0.2], [-0.1, 0.1234]])
    assert match_lines(view) == [
        "spatial descriptors of archery; weight: share of a frame's mass, spread evenly 50.0%",
        "frame  weight  cosine  descriptor with the greatest weight",
        "    1   80.0%   0.310  1 a bow",
        "    2   80.0%   0.123  2 an arrow",
    ]


@pytest.mark.parametrize(("num_frames", "num_texts"), [(1, 1), (8, 8), (32, 4), (120, 12)])
def test_lines_are_aligned_and_bounded(num_frames, num_texts):
    lines = match_lines(random_view(num_frames, num_texts, texts=[LONG] * num_texts))
    assert len(lines) == 2 + num_frames
    starts = {line.index("word0") for line in lines[2:]}
    assert len(starts) == 1
    assert all(len(line) <= 118 for line in lines)
    assert all(line.endswith(" ...") for line in lines[2:])
    assert [int(line.split()[0]) for line in lines[2:]] == list(range(1, num_frames + 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a bow", "a bow"),
        ("exactly 12 l", "exactly 12 l"),
        ("one two three four", "one two ..."),
        ("one twothreefour", "one ..."),
        ("onetwothreefour", "onetwothr..."),
        ("a\n b\tc ", "a b c"),
        ("red\x1b[31m", r"red\x1b[31m"),
        ("", ""),
    ],
)
def test_texts_are_cut_behind_a_word(text, expected):
    assert shortened(text, 12) == expected
    assert len(shortened(text, 12)) <= 12


@pytest.mark.parametrize(("num_frames", "cell"), [(1, 120), (8, 120), (32, 60), (64, 60)])
@pytest.mark.parametrize("num_texts", [1, 4, 8])
def test_sheet_has_a_column_for_each_frame(num_frames, cell, num_texts):
    view = random_view(num_frames, num_texts, texts=[LONG] * num_texts)
    sheet = match_sheet(frames_of(num_frames), view)
    assert num_frames * (cell - 2) < sheet.shape[1] - 400 < num_frames * (cell + 2) + 100
    # The 49 words take several lines; the rows are as high as these.
    assert sheet.shape[0] > cell + num_texts * 4 * 18


def test_best_match_is_outlined():
    frames = frames_of(2)
    one, other = (match_sheet(frames, view_of(plan)) for plan in ([[0.3, 0.2], [0.2, 0.3]], [[0.2, 0.3], [0.3, 0.2]]))
    assert one.shape == other.shape
    # The colours of the two differ where plans do, and nowhere else: one has the rows of the other in turn.
    rows = np.flatnonzero((one != other).any(axis=(1, 2)))
    assert rows.size
    table = one[rows.min() : rows.max() + 1, -242:]
    light = [(table[: len(table) // 2, column : column + 120] == PAPER).all(-1).sum() for column in (0, 122)]
    assert light[0] > light[1] + 100


@pytest.mark.parametrize("num_frames", [1, 8, 32, 80])
def test_film_points_at_the_frame(num_frames):
    film = match_film(random_view(num_frames, 4))
    assert len(film) == num_frames
    assert film.dtype == np.uint8
    for t in range(1, num_frames):
        # The arrow and the outline go to the right.
        left, right = (np.flatnonzero((film[a] != film[b]).any(axis=(0, 2))) for a, b in ((t - 1, t), (0, t)))
        assert left.size
        assert right.max() >= left.max()


def test_long_texts_are_cut_in_the_film_alone():
    short, long = ([f"{LONG} {end}"] for end in ("a", "b"))
    films = [match_film(random_view(2, 1, texts=texts)) for texts in (short, long)]
    assert (films[0] == films[1]).all()
    sheets = [match_sheet(frames_of(2), random_view(2, 1, texts=texts)) for texts in (short, long)]
    assert (sheets[0] != sheets[1]).any()
