import colorsys
import random

import pytest
import torch

from slowfast.datasets.frame_colors import (
    ColorSettings,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    change_colors,
)


def noise(count=6, side=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(30, 200, (3, count, side, side), dtype=torch.uint8, generator=generator)


def change(frames, seed=1, **options):
    return change_colors(frames, settings=ColorSettings(**options), seed=seed)


def still(count=6):
    return noise(1).expand(-1, count, -1, -1)


ONLY = {"jitter_prob": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def test_nothing_is_asked_for():
    frames = noise()
    assert change(frames) is frames
    torch.testing.assert_close(change(frames, **ONLY), frames.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shape_and_input_stay(dtype):
    frames = noise().to(dtype)
    given = frames.clone()
    for options in ({"jitter_prob": 1.0}, {"gray_prob": 1.0}, {"jitter_prob": 1.0, "gray_prob": 1.0}):
        changed = change(frames, **options)
        assert (changed.shape, changed.dtype) == (frames.shape, torch.float32)
        assert changed.min() >= 0
        assert changed.max() <= 255
    assert torch.equal(frames, given)
    assert torch.equal(change(frames, jitter_prob=1.0), change(noise(), jitter_prob=1.0))


@pytest.mark.parametrize("seed", range(3))
def test_changes_are_those_of_torchvision(seed):
    kernels = pytest.importorskip("torchvision.transforms.v2.functional")
    picture = torch.rand((3, 40, 50), generator=torch.Generator().manual_seed(seed)) * 255
    picture[:, :4] = picture[:1, :4]  # grey
    picture[:, 4] = 0
    for ours, theirs, amounts in (
        (adjust_brightness, kernels.adjust_brightness, (0.0, 0.6, 1.4, 3.0)),
        (adjust_contrast, kernels.adjust_contrast, (0.0, 0.6, 1.4, 3.0)),
        (adjust_saturation, kernels.adjust_saturation, (0.0, 0.8, 1.2, 3.0)),
        (adjust_hue, kernels.adjust_hue, (-0.5, -0.1, 0.0, 0.07, 0.5)),
    ):
        for amount in amounts:
            found, expected = ours(picture, amount), theirs(picture / 255, amount) * 255
            torch.testing.assert_close(found, expected, atol=0.06, rtol=0)  # its grey levels sum up to 0.9999


def test_hues_of_pure_colors():
    red = torch.tensor([255.0, 0.0, 0.0]).view(3, 1, 1)
    for thirds, expected in ((0, [255, 0, 0]), (1, [0, 255, 0]), (-1, [0, 0, 255]), (3, [255, 0, 0])):
        assert adjust_hue(red, thirds / 3).flatten().tolist() == pytest.approx(expected, abs=1e-3)
    assert adjust_hue(red, 1 / 6).flatten().tolist() == pytest.approx([255, 255, 0], abs=1e-3)


def test_frames_follow_the_draws_of_their_clip():
    frames, rng = noise().float(), random.Random(5)
    rng.random()
    expected = []
    for picture in frames.unbind(1):
        changes = [
            (adjust_brightness, rng.uniform(0.6, 1.4)),
            (adjust_contrast, rng.uniform(0.6, 1.4)),
            (adjust_saturation, rng.uniform(0.8, 1.2)),
            (adjust_hue, rng.uniform(-0.1, 0.1)),
        ]
        rng.shuffle(changes)
        for change_one, amount in changes:
            picture = change_one(picture, amount)
        expected.append(picture)
    expected = torch.stack(expected, dim=1)
    assert torch.equal(change(frames, seed=5, jitter_prob=1.0), expected)
    is_gray = rng.random() < 0.5  # drawn last
    assert is_gray == torch.equal(*change(frames, seed=5, jitter_prob=1.0, gray_prob=0.5)[:2])


def test_each_frame_is_changed_in_its_own_way():
    changed = change(still(), jitter_prob=1.0)
    assert len({tuple(changed[:, t].flatten().tolist()) for t in range(6)}) == 6


def test_the_order_is_drawn_too():
    """Brightness and contrast do not commute: with fixed factors two results remain."""
    frames, found = still(1), set()
    settings = {**ONLY, "hue": 0.0, "saturation": 0.0, "brightness": 0.4, "contrast": 0.4}
    for seed in range(30):
        found.add(tuple(change(frames, seed=seed, **settings).flatten().tolist()))
    assert len(found) == 30


@pytest.mark.parametrize("strength", [0.2, 0.4])
def test_brightness_stays_within_its_strength(strength):
    frames = torch.full((3, 400, 2, 2), 100, dtype=torch.uint8)
    levels = change(frames, **{**ONLY, "brightness": strength})[0, :, 0, 0].float() / 100
    assert 1 - strength - 0.01 <= levels.min() < 1 - 0.9 * strength
    assert 1 + 0.9 * strength < levels.max() <= 1 + strength
    assert levels.mean().item() == pytest.approx(1.0, abs=0.1 * strength + 0.01)


def test_contrast_keeps_the_mean_gray_and_saturation_the_gray():
    frames = noise(side=32)
    gray = change(frames, gray_prob=1.0)[0].float()
    contrast = change(change(frames, **{**ONLY, "contrast": 0.4}), gray_prob=1.0)[0].float()
    assert (contrast.mean(dim=(-2, -1)) - gray.mean(dim=(-2, -1))).abs().max() < 1.5
    saturation = change(change(frames, **{**ONLY, "saturation": 0.2}), gray_prob=1.0)[0].float()
    assert (saturation - gray).abs().max() <= 2


def test_hue_turns_within_its_range():
    frames = torch.tensor([200, 60, 60], dtype=torch.uint8).view(3, 1, 1, 1).expand(-1, 300, 2, 2)
    changed = change(frames, **{**ONLY, "hue": 0.1})[:, :, 0, 0].double() / 255
    hues = torch.tensor([colorsys.rgb_to_hsv(*color)[0] for color in changed.T.tolist()])
    turns = (hues + 0.5) % 1 - 0.5
    assert -0.105 < turns.min() < -0.08
    assert 0.08 < turns.max() < 0.105


def test_gray_is_for_whole_clips():
    frames, gray = noise(), []
    for seed in range(300):
        changed = change(frames, seed=seed, gray_prob=0.2)
        is_gray = [(changed[0, t] == changed[1, t]).all() and (changed[1, t] == changed[2, t]).all() for t in range(6)]
        assert all(is_gray) or not any(is_gray)
        gray.append(is_gray[0])
    assert 0.13 < sum(gray) / 300 < 0.27


def test_share_of_changed_clips():
    frames = noise(2, 4)
    changed = sum(not torch.equal(change(frames, seed=seed, jitter_prob=0.8), frames) for seed in range(300))
    assert 0.73 < changed / 300 < 0.87


def test_follows_from_the_seed():
    frames = noise()
    options = {"jitter_prob": 1.0, "gray_prob": 0.5}
    assert torch.equal(change(frames, seed=5, **options), change(frames, seed=5, **options))
    assert not torch.equal(change(frames, seed=5, **options), change(frames, seed=6, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jitter_prob": 1.2}, r"AUG\.FRAME_JITTER_PROB: found 1\.2, allowed: from 0 to 1"),
        ({"gray_prob": -0.1}, r"AUG\.GRAY_PROB: found -0\.1"),
        ({"hue": 0.6}, r"AUG\.FRAME_JITTER: found \[0\.4, 0\.4, 0\.2, 0\.6\]"),
        ({"contrast": -1.0}, r"AUG\.FRAME_JITTER: found \[0\.4, -1\.0"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ColorSettings(**options)


QUERIES = {"per": "clip", "jitter_prob": 1.0, "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.25}


class TestPerClip:
    """CLIP-FSAR's: one draw for all frames, and grey before the jitter."""

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    @pytest.mark.parametrize("gray_prob", [0.0, 0.5])
    def test_follows_the_published_order(self, dtype, gray_prob):
        """Against a plain reading of the recipe on each picture, with the draws that it made."""
        frames, grays = noise().to(dtype), 0
        for seed in range(12):
            rng = random.Random(seed)
            rng.random()
            pictures = list(frames.float().unbind(1))
            if rng.random() < gray_prob:
                grays += 1
                weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
                pictures = [(picture * weights).sum(dim=0).expand(3, -1, -1) for picture in pictures]
            changes = [
                *((change, rng.uniform(0.5, 1.5)) for change in (adjust_brightness, adjust_contrast)),
                (adjust_saturation, rng.uniform(0.5, 1.5)),
                (adjust_hue, rng.uniform(-0.25, 0.25)),
            ]
            rng.shuffle(changes)
            for change_one, amount in changes:
                pictures = [change_one(picture, amount) for picture in pictures]
            changed = change(frames, seed=seed, gray_prob=gray_prob, **QUERIES)
            assert changed.dtype == torch.float32
            torch.testing.assert_close(changed, torch.stack(pictures, dim=1), atol=1e-3, rtol=0)
        assert bool(grays) == bool(gray_prob)

    @pytest.mark.parametrize("gray_prob", [0.0, 1.0])
    def test_all_frames_are_changed_alike(self, gray_prob):
        changed = change(still(), gray_prob=gray_prob, **QUERIES)
        assert all(torch.equal(changed[:, 0], changed[:, t]) for t in range(6))
        frames = noise()
        changed = change(frames, gray_prob=gray_prob, **QUERIES)
        for t in range(6):
            alone = change(frames[:, t : t + 1], gray_prob=gray_prob, **QUERIES)
            assert torch.equal(alone[:, 0], changed[:, t])

    def test_factors_and_order_differ_between_clips(self):
        frames = noise(1)
        assert len({tuple(change(frames, seed=seed, **QUERIES).flatten().tolist()) for seed in range(30)}) == 30

    def test_contrast_turns_about_the_mean_of_each_frame(self):
        frames = noise(4, 32).float() * torch.tensor([0.3, 0.6, 0.9, 1.2]).view(1, 4, 1, 1)
        options = {**ONLY, "per": "clip", "contrast": 0.2}
        levels = [change(clip, gray_prob=1.0)[0].mean(dim=(-2, -1)) for clip in (frames, change(frames, **options))]
        torch.testing.assert_close(*levels, atol=0.5, rtol=0)
        assert levels[0].max() - levels[0].min() > 50

    def test_grey_clips_stay_grey_and_change_their_light(self):
        frames = noise()
        gray = change(frames, gray_prob=1.0)
        for seed in range(8):
            changed = change(frames, seed=seed, gray_prob=1.0, **QUERIES)
            assert torch.equal(changed[0], changed[1])
            assert torch.equal(changed[1], changed[2])
            assert (changed - gray).abs().max() > 1
        options = {**QUERIES, "brightness": 0.0, "contrast": 0.0}
        torch.testing.assert_close(change(frames, gray_prob=1.0, **options), gray, atol=1e-3, rtol=0)

    def test_shares(self):
        frames, found = noise(2, 4), []
        for seed in range(400):
            changed = change(frames, seed=seed, jitter_prob=0.8, gray_prob=0.3, per="clip")
            is_gray = torch.equal(changed[0].float(), changed[2].float())
            plain = change(frames, gray_prob=1.0) if is_gray else frames
            found.append((is_gray, not torch.equal(changed.float(), plain.float())))
        assert 0.23 < sum(gray for gray, _ in found) / 400 < 0.37
        assert 0.74 < sum(light for _, light in found) / 400 < 0.86
        assert len(set(found)) == 4, "the two are drawn on their own"

    def test_nothing_is_asked_for_and_the_input_stays(self):
        frames = noise()
        given = frames.clone()
        assert change(frames, per="clip") is frames
        change(frames, gray_prob=1.0, **QUERIES)
        assert torch.equal(frames, given)
