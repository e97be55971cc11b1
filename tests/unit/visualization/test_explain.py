import io
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from slowfast.methods.explanation import Explanation, MatchView, PatchView
from slowfast.visualization.explain import (
    choose_layers,
    clip_pixels,
    contact_sheet,
    file_names,
    film_frames,
    patch_strips,
    write_pictures,
)


@pytest.fixture
def make():
    """Makes frames and an explanation of them: make(num_frames, grid, layers, kind=...)."""

    def build(num_frames=3, grid=4, layers=(1, 2, 3), *, kind="mask"):
        rng = np.random.default_rng(0)
        generator = torch.Generator().manual_seed(0)
        frames = rng.integers(0, 256, (num_frames, 12 * grid, 12 * grid, 3), dtype=np.uint8)
        shape, views = (num_frames, grid, grid), []
        for layer in layers:
            attention = torch.rand(shape, generator=generator) / grid**2
            chosen = torch.rand(shape, generator=generator) < (0.5 if kind != "none" else 0)
            group = torch.randint(9, shape, generator=generator).where(chosen, -1) if kind == "groups" else None
            views.append(PatchView(layer=layer, attention=attention, chosen=chosen, what="seed tokens", group=group))
        return frames, Explanation(tuple(views))

    return build


@pytest.mark.parametrize(
    ("known", "wanted", "chosen"),
    [
        (range(1, 13), [], (1, 6, 12)),
        (range(1, 4), [], (1, 2, 3)),
        (range(1, 3), [], (1, 2)),
        ([7], [], (7,)),
        (range(1, 13), [12, 3, 3], (3, 12)),
        ([], [], ()),
    ],
)
def test_layers(make, known, wanted, chosen):
    assert choose_layers(make(layers=known)[1], wanted) == chosen


@pytest.mark.parametrize(
    ("known", "allowed"),
    [(range(1, 13), "1 to 12"), ([2, 4, 8], "2, 4, 8"), ([5], "5"), ([], "none, the method has no view of layers")],
)
def test_layers_that_do_not_exist(make, known, allowed):
    message = f"DEMO.EXPLAIN_LAYERS: there is no layer 13 to draw; allowed: {allowed}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        choose_layers(make(layers=known)[1], [13])


def test_pixels_of_a_clip():
    frames = torch.arange(3 * 2 * 4 * 4, dtype=torch.uint8).view(3, 2, 4, 4)
    pixels = clip_pixels(frames)
    assert (pixels.shape, pixels.dtype) == ((2, 4, 4, 3), np.uint8)
    assert pixels[1, 2, 3].tolist() == frames[:, 1, 2, 3].tolist()
    assert clip_pixels(frames, bgr=True)[1, 2, 3].tolist() == frames[:, 1, 2, 3].tolist()[::-1]
    assert clip_pixels(torch.full((3, 1, 4, 4), 254.7)).max() == 255
    assert clip_pixels(torch.full((3, 1, 4, 4), -0.4)).max() == 0


@pytest.mark.parametrize(
    ("kind", "titles"),
    [
        ("none", ["Layer 1: attention of the class token"]),
        ("mask", ["Layer 1: attention of the class token", "Layer 1: seed tokens, "]),
        ("groups", ["Layer 1: attention of the class token", "Layer 1: seed tokens, "]),
    ],
)
@pytest.mark.parametrize("grid", [1, 4, 14])
def test_strips_of_a_layer(make, kind, titles, grid):
    frames, explanation = make(grid=grid, layers=[1], kind=kind)
    strips = patch_strips(frames, explanation.patches[0], least_side=100)
    if explanation.patches[0].chosen.any() or kind != "mask":
        assert len(strips) == len(titles)
    for strip, title in zip(strips, titles, strict=False):
        assert strip.title.startswith(title)
        assert strip.pictures.shape == (3, *[grid * -(-100 // grid)] * 2, 3)
        assert (strip.scale is None) == ("seed" in title)


def test_strips_count_what_they_show(make):
    frames, explanation = make(kind="groups")
    view = explanation.patches[0]
    counts = view.chosen.sum(dim=(1, 2)).tolist()
    title = patch_strips(frames, view, least_side=100)[1].title
    assert title == f"Layer 1: seed tokens, {min(counts)} to {max(counts)} of 16 patches per frame"
    # Of the frame alone: a class token may also see tokens that are none of its patches.
    assert patch_strips(frames, view, least_side=100)[0].note.endswith("spread evenly over the frame: 5.9 %")
    num_groups = len(view.group[view.group >= 0].unique())
    assert f" for each of {num_groups} context tokens" in patch_strips(frames, view, least_side=100)[1].note


@pytest.mark.parametrize("kind", ["none", "mask", "groups"])
@pytest.mark.parametrize("num_frames", [1, 3, 8])
@pytest.mark.parametrize("grid", [4, 14])
def test_sheet_and_film(make, kind, num_frames, grid):
    frames, explanation = make(num_frames, grid, kind=kind)
    sheet = contact_sheet(frames, explanation, title="a title", layers=(1, 3))
    side = grid * -(-150 // grid)
    num_rows = 1 + 2 * (1 if kind == "none" else 2)
    assert sheet.shape[1] >= num_frames * side
    assert num_rows * side < sheet.shape[0] < num_rows * (side + 90) + 100
    film = film_frames(frames, explanation, title="a title", layers=(1, 3))
    assert len(film) == num_frames
    assert film.shape[1] % 2 == film.shape[2] % 2 == 0
    assert film.shape[2] >= 3 * 300
    for t in range(1, num_frames):
        assert (film[t] != film[0]).any()
    again = film_frames(frames, explanation, title="a title", layers=(1, 3))
    assert (film == again).all()


def test_more_layers_are_more_rows(make):
    frames, explanation = make()
    one, two = (contact_sheet(frames, explanation, title="", layers=layers) for layers in ((2,), (1, 2)))
    assert one.shape[0] < two.shape[0]
    assert one.shape[1] == two.shape[1]


def test_an_explanation_without_patches_shows_the_frames(make):
    frames, explanation = make(layers=[])
    assert contact_sheet(frames, explanation, title="t", layers=()).shape[0] > 150
    assert len(film_frames(frames, explanation, title="t", layers=())) == 3


def matches_of(num_frames):
    plan = torch.full((num_frames, 4), 1 / (4 * num_frames))
    fields = {"class_name": "archery", "texts": ("a", "b", "c", "d"), "plan": plan, "cosines": plan}
    return tuple(MatchView(kind=kind, **fields) for kind in ("spatial", "temporal"))


@pytest.mark.parametrize("num_frames", [1, 8, 32])
def test_matches_alone(make, num_frames):
    frames, _ = make(num_frames, layers=[])
    one, two = (Explanation(matches=matches_of(num_frames)[:count]) for count in (1, 2))
    assert choose_layers(two) == ()
    sheets = [contact_sheet(frames, explanation, title="t", layers=()) for explanation in (one, two)]
    assert sheets[0].shape[1] == sheets[1].shape[1]
    # Each table has frames of its own, and no row of large ones is above them.
    assert sheets[0].shape[0] < sheets[1].shape[0] < 2 * sheets[0].shape[0]
    films = [film_frames(frames, explanation, title="t", layers=()) for explanation in (one, two)]
    assert [len(film) for film in films] == [num_frames] * 2
    assert films[0].shape[1] < films[1].shape[1]
    assert all(side % 2 == 0 for film in films for side in film.shape[1:3])


def test_matches_beside_patches(make):
    frames, patches = make(8)
    both = Explanation(patches.patches, matches_of(8))
    for draw in (contact_sheet, film_frames):
        with_matches, without = (draw(frames, each, title="t", layers=(1, 2)) for each in (both, patches))
        assert with_matches.shape[-3] >= without.shape[-3]
        assert with_matches.size > without.size


def test_layers_of_a_method_that_matches():
    message = "DEMO.EXPLAIN_LAYERS: there is no layer 1 to draw; allowed: none, the method has no view of layers"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        choose_layers(Explanation(matches=matches_of(2)), [1])


def test_files(make, tmp_path):
    frames, explanation = make(kind="groups")
    folder = tmp_path / "new" / "folder"
    sheet, film = write_pictures(folder, "clip_view1", frames, explanation, title="a\nb", layers=(1, 2))
    assert sorted(path.name for path in folder.iterdir()) == ["clip_view1.mp4", "clip_view1.png"]
    drawn = contact_sheet(frames, explanation, title="a\nb", layers=(1, 2))
    assert (np.asarray(Image.open(io.BytesIO(sheet.read_bytes()))) == drawn).all()
    with av.open(str(film)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    pages = film_frames(frames, explanation, title="a\nb", layers=(1, 2))
    assert len(decoded) == 5 * len(pages)
    for number, picture in enumerate(decoded):
        page = pages[number // 5].astype(int)
        assert picture.shape == page.shape
        assert np.abs(picture - page).mean() < 12  # lossy, and half the resolution in colour


def test_the_same_bytes_every_time(make, tmp_path):
    frames, explanation = make(kind="groups")
    files = [write_pictures(tmp_path / n, "a", frames, explanation, title="t", layers=(1,)) for n in ("one", "two")]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_names_of_files_are_plain_and_unique():
    videos = [
        *("a/clip.mp4", "b/clip.avi", "CLIP.mp4", "clip-2.mp4", "two words.mp4", "two_words.mp4", "../up.mp4"),
        *("-o.mp4", ".hidden.mp4", "視頻.mp4", "$(x);'\"|&.mp4", "x" * 300 + ".mp4", "x" * 301 + ".mp4", "a.b.mp4"),
    ]
    names = file_names([Path(video) for video in videos])
    assert names[:9] == ["clip", "clip-2", "CLIP-3", "clip-2-2", "two_words", "two_words-2", "up", "o", "hidden"]
    assert names[9:11] == ["video", "x"]
    assert names[-1] == "a.b"
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
        assert len(name) < 90
    assert file_names([Path(video) for video in videos]) == names
