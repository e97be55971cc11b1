import itertools

import numpy as np
import pytest

from slowfast.visualization.paint import (
    INK,
    PAPER,
    below,
    beside,
    draw_chosen,
    draw_groups,
    draw_heat,
    enlarge,
    framed,
    grey,
    group_colour,
    heat_bar,
    heat_colours,
    heat_table,
    outlined,
    range_bar,
    spread,
    table_cell,
    text_block,
    text_width,
)


@pytest.fixture
def frames():
    """Three frames of one colour, 40 x 40."""
    return np.broadcast_to(np.array([200, 40, 90], np.uint8), (3, 40, 40, 3)).copy()


def inside(picture, row, column, *, patch=10, line=2):
    """The pixels of a patch away from its borders."""
    return picture[row * patch + line : (row + 1) * patch - line, column * patch + line : (column + 1) * patch - line]


def test_spread_gives_every_pixel_its_patch():
    values = np.arange(8).reshape(2, 2, 2)
    wide = spread(values, 6)
    assert wide.shape == (2, 6, 6)
    for t, row, column in itertools.product(range(2), range(6), range(6)):
        assert wide[t, row, column] == values[t, row // 3, column // 3]


def test_enlarged_frames(frames):
    large = enlarge(frames, 77)
    assert large.shape == (3, 77, 77, 3)
    assert (large == frames[0, 0, 0]).all()


def test_heat_rises_in_brightness():
    light = heat_colours(np.linspace(0, 1, 50)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light) > 0).all()


def test_heat_map(frames):
    shares = np.zeros((3, 4, 4))
    shares[1, 2, 3], shares[2, 0, 0] = 0.1, 0.7
    picture = draw_heat(frames, shares, top=0.1)
    assert (picture.shape, picture.dtype) == (frames.shape, np.uint8)
    cold = inside(picture[0], 0, 0)[0, 0]
    expected = 0.8 * grey(frames)[0, 0, 0] + 0.2 * heat_colours(np.array(0.0))
    assert np.abs(cold - expected).max() <= 0.5
    hot = inside(picture[1], 2, 3)
    assert (hot == hot[0, 0]).all()
    assert np.abs(hot[0, 0] - (0.2 * grey(frames)[0, 0, 0] + 0.8 * heat_colours(np.array(1.0)))).max() <= 0.5
    assert (inside(picture[2], 0, 0) == hot[0, 0]).all()  # beyond the top
    changed = (picture != cold).any(-1)
    assert changed.sum() == 2 * 100
    assert (draw_heat(frames, np.zeros((3, 4, 4)), top=0.0) == cold).all()


def test_chosen_patches_stay_bright(frames):
    chosen = np.zeros((3, 4, 4), bool)
    chosen[0, 1, 2] = chosen[2] = True
    picture = draw_chosen(frames, chosen)
    assert (inside(picture[0], 1, 2) == frames[0, 0, 0]).all()
    assert (picture[0, 10, 20:30] == PAPER).all()
    dark = inside(picture[0], 0, 0)
    assert np.abs(dark - 0.3 * grey(frames)[0, 0, 0]).max() <= 0.5
    assert (picture[1] == dark[0, 0]).all()
    assert (picture[2] == frames[2]).all()  # no outline where there is no border


def test_colours_of_groups_are_distinct():
    colours = np.array([group_colour(number) for number in range(128)])
    distance = np.abs(colours[:, None] - colours[None]).max(-1)
    assert distance[~np.eye(128, dtype=bool)].min() >= 8
    following = np.abs(np.diff(colours, axis=0)).max(-1)
    assert following.min() > 80


def test_a_group_has_one_colour_in_all_frames(frames):
    group = np.full((3, 4, 4), -1)
    group[0, 0, 0] = group[1, 3, 2] = 5
    group[1, 1, 1] = 70
    chosen = group >= 0
    chosen[2, 2, 2] = True
    picture = draw_groups(frames, group, chosen)
    assert (inside(picture[0], 0, 0) == inside(picture[1], 3, 2)).all()
    expected = 0.55 * frames[0, 0, 0] + 0.45 * np.array(group_colour(5))
    assert np.abs(inside(picture[0], 0, 0) - expected).max() <= 0.5
    assert (inside(picture[0], 0, 0)[0, 0] != inside(picture[1], 1, 1)[0, 0]).any()
    assert (picture[1, 10, 12:18] == group_colour(70)).all()
    assert (inside(picture[2], 2, 2) == frames[2, 0, 0]).all()
    assert inside(picture[2], 0, 0).max() < 60


def test_numbers_of_groups_where_there_is_room(frames):
    group = np.zeros((3, 2, 2), np.int64)
    patch = inside(draw_groups(frames, group, group >= 0)[0], 0, 0, patch=20)
    assert len(np.unique(patch.reshape(-1, 3), axis=0)) > 2
    small = np.zeros((3, 4, 4), np.int64)
    assert len(np.unique(draw_groups(frames, small, small >= 0).reshape(-1, 3), axis=0)) == 1


def test_no_group_at_all(frames):
    group = np.full((3, 4, 4), -1)
    assert draw_groups(frames, group, group >= 0).max() < 60


def test_text_is_broken_to_the_width():
    line, block = text_block("one two three", width=300), text_block("one two three", width=40)
    assert line.shape[1:] == (300, 3)
    assert block.shape[1:] == (40, 3)
    assert block.shape[0] == 3 * line.shape[0]
    assert line.min() < 100
    assert text_block("one\ntwo", width=300).shape[0] == 2 * line.shape[0]
    assert text_block("", width=10).shape[0] == line.shape[0]


def test_long_words_lose_their_middle():
    assert text_block("x" * 500, width=60).shape[0] == text_block("x", width=60).shape[0]
    assert text_block("x" * 500, width=1).shape[1] == 1


def test_texts_of_too_many_lines_end_in_an_ellipsis():
    text = " ".join(["word"] * 60)
    cut, whole = text_block(text, width=150, max_lines=2), text_block(text, width=150)
    assert cut.shape[0] == text_block("a\nb", width=150).shape[0] < whole.shape[0]
    first = cut.shape[0] // 2
    assert (cut[:first] == whole[:first]).all()
    # As many words as there is room for beside the ellipsis.
    most = max(words for words in range(20) if text_width("word " * words + "...") <= 150)
    assert (cut[first:] == text_block("word " * most + "...", width=150)).all()
    assert (text_block("one two", width=150, max_lines=1) == text_block("one two", width=150)).all()
    assert (text_block("one two", width=1, max_lines=1) == text_block("...", width=1, max_lines=1)).all()


def test_letters_that_the_font_lacks():
    assert (text_block("視頻 é", width=80) == text_block("?? é", width=80)).all()
    assert text_width("視頻") == text_width("??")


def test_scale_says_its_top():
    assert heat_bar(0.042).shape[1] > 120
    assert (heat_bar(0.042).shape != heat_bar(0.5).shape) or (heat_bar(0.042) != heat_bar(0.5)).any()


def test_scale_between_two_shares():
    bar = range_bar(0.166, 0.366, mark=0.25)
    assert (range_bar(0.166, 0.366, mark=0.3) != bar).any()
    assert (range_bar(0.166, 0.376, mark=0.25) != bar).any()
    for mark in (0.0, 1.0):
        assert range_bar(0.0, 1.0, mark=mark).shape == bar.shape


def test_table_of_colours():
    values, heights = np.array([[0.0, 1.0, 0.5], [0.25, 0.75, 1.0]]), [10, 20]
    size = {"heights": heights, "cell_px": 12, "gap_px": 2}
    table = heat_table(values, labels=[[""] * 3] * 2, **size)
    assert table.shape == (32, 40, 3)
    paper = np.ones(table.shape[:2], bool)
    for row, column in np.ndindex(2, 3):
        left, top, right, bottom = table_cell(row, column, **size)
        assert (right - left + 1, bottom - top + 1) == (12, heights[row])
        cell = table[top : bottom + 1, left : right + 1]
        assert np.abs(cell - heat_colours(values)[row, column]).max() <= 0.5
        paper[top : bottom + 1, left : right + 1] = False
    assert (table[paper] == PAPER).all()
    labelled = heat_table(values, labels=[["", "x", ""], [""] * 3], **size)
    changed = set(np.flatnonzero((labelled != table).any(axis=(0, 2))).tolist())
    assert changed
    assert changed <= set(range(14, 26))
    marked = outlined(table, [table_cell(1, 1, **size)])
    assert (marked[12, 14:26] == INK).all()
    assert (marked[14, 16:24] == PAPER).all()
    assert (marked[16:28, 18:22] == table[16:28, 18:22]).all()
    assert (marked[:12] == table[:12]).all()


def test_layout():
    one, two = np.zeros((3, 5, 3), np.uint8), np.full((4, 2, 3), 9, np.uint8)
    row = beside(one, two, gap=1)
    assert row.shape == (4, 8, 3)
    assert (row[:3, :5] == 0).all()
    assert (row[3, :6] == 255).all()
    assert (row[:, 6:] == 9).all()
    column = below(one, two, gap=1)
    assert column.shape == (8, 5, 3)
    assert (column[4:, :2] == 9).all()
    assert framed(one, 2).shape == (8, 10, 3)
    assert framed(two, 1).shape == (6, 4, 3)
