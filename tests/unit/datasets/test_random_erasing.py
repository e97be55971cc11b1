import math
import random

import pytest
import torch

from slowfast.datasets.random_erasing import ErasingSettings, draw_boxes, random_erasing

MEAN, STD = (0.48, 0.45, 0.4), (0.27, 0.26, 0.28)
MARK = 7.25  # no fill takes this value


def erase(frames, seed=1, **options):
    settings = ErasingSettings(**{"probability": 1.0, "mean": MEAN, "std": STD, **options})
    return random_erasing(frames, settings=settings, seed=seed)


def blank(count=4, side=64, *, dtype=torch.float32):
    return torch.full((3, count, side, side), MARK).to(dtype)


def where(frames):
    """Which pixels were erased, (T, H, W)."""
    return (frames != MARK).all(dim=0)


class TestBoxes:
    @pytest.mark.parametrize("count", [1, 3])
    def test_area_and_aspect(self, count):
        rng = random.Random(3)
        boxes = [box for _ in range(600) for box in draw_boxes((200, 300), count=count, rng=rng)]
        assert len(boxes) == 600 * count
        areas = torch.tensor([box.height * box.width / (200 * 300) for box in boxes])
        assert 0.018 / count < areas.min() < 0.03 / count
        assert 0.32 / count < areas.max() < 0.34 / count
        assert areas.mean().item() == pytest.approx((0.02 + 1 / 3) / 2 / count, rel=0.1)
        aspects = torch.tensor([math.log(box.height / box.width) for box in boxes])
        assert aspects.abs().max() < math.log(1 / 0.3) * 1.1
        assert aspects.mean().abs() < 0.15  # a tall box may be too tall
        assert all(0 <= box.top <= 200 - box.height and 0 <= box.left <= 300 - box.width for box in boxes)

    def test_position_is_even(self):
        rng = random.Random(5)
        boxes = [draw_boxes((100, 100), count=1, rng=rng)[0] for _ in range(800)]
        centre = torch.tensor([[b.top + b.height / 2, b.left + b.width / 2] for b in boxes]).mean(dim=0)
        assert centre.tolist() == pytest.approx([50, 50], abs=3)

    def test_no_box_is_flat_enough_for_a_strip(self):
        assert draw_boxes((2, 200), count=1, rng=random.Random(0)) == []


class TestErasing:
    @pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
    def test_same_box_in_all_frames(self, mode):
        frames = blank()
        for seed in range(10):
            mask = where(erase(frames, seed, mode=mode))
            assert mask.any()
            assert torch.equal(mask, mask[:1].expand_as(mask))
            rows, columns = mask[0].any(dim=1), mask[0].any(dim=0)
            assert torch.equal(mask[0], rows[:, None] & columns[None])  # one rectangle
        assert (frames == MARK).all()

    def test_mean_colour(self):
        erased = erase(blank(), mode="const")
        inside = erased[:, where(erased)]
        expected = torch.tensor(MEAN)[:, None] * 255
        assert torch.equal(inside, expected.expand_as(inside))
        # what a network sees after normalisation
        assert ((inside / 255 - torch.tensor(MEAN)[:, None]) / torch.tensor(STD)[:, None]).abs().max() < 1e-6

    def test_one_random_colour_per_frame(self):
        erased = erase(blank(), mode="rand")
        colours = [erased[:, t][:, where(erased)[t]] for t in range(4)]
        assert all(torch.equal(colour, colour[:, :1].expand_as(colour)) for colour in colours)
        assert len({tuple(colour[:, 0].tolist()) for colour in colours}) == 4

    def test_noise_is_standard_normal_once_normalised(self):
        erased = erase(blank(16, 96), mode="pixel")
        inside = erased[:, where(erased)]
        noise = (inside / 255 - torch.tensor(MEAN)[:, None]) / torch.tensor(STD)[:, None]
        assert noise.shape[1] > 3000
        assert noise.mean(dim=1).tolist() == pytest.approx([0, 0, 0], abs=0.06)
        assert noise.std(dim=1).tolist() == pytest.approx([1, 1, 1], abs=0.06)
        assert not torch.equal(erased[:, 0], erased[:, 1])

    @pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
    def test_uint8_is_the_rounded_and_clamped_float32(self, mode):
        frames = torch.randint(256, (3, 4, 48, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        for seed in range(5):
            small = erase(frames, seed, mode=mode)
            exact = erase(frames.float(), seed, mode=mode)
            assert small.dtype == torch.uint8
            assert exact.dtype == torch.float32
            assert torch.equal(small, exact.round().clamp(0, 255).byte())
        noise = erase(frames.float(), mode="pixel")
        assert noise.min() < 0  # not clamped
        assert noise.max() > 255

    def test_probability(self):
        frames = blank(1, 16)
        assert erase(frames, probability=0.0) is frames
        changed = sum(where(erase(frames, seed, probability=0.25)).any().item() for seed in range(400))
        assert 70 < changed < 130

    def test_count_is_drawn_up_to_the_limit(self, monkeypatch):
        counts = []

        def boxes(size, *, count, rng):
            counts.append(count)
            return []

        monkeypatch.setattr("slowfast.datasets.random_erasing.draw_boxes", boxes)
        for seed in range(200):
            erase(blank(1, 8), seed, count=3)
        assert set(counts) == {1, 2, 3}
        assert min(counts.count(n) for n in (1, 2, 3)) > 40

    def test_follows_from_the_seed(self):
        assert torch.equal(erase(blank(), 5), erase(blank(), 5))
        assert not torch.equal(erase(blank(), 5), erase(blank(), 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, "AUG.RE_PROB: found 1.5, allowed: from 0 to 1"),
        ({"mode": "noise"}, "AUG.RE_MODE: found 'noise', allowed: 'const', 'rand', 'pixel'"),
        ({"count": 0}, "AUG.RE_COUNT: found 0, allowed: 1 or more"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ErasingSettings(**options)
