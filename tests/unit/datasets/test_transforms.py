import random

import numpy as np
import pytest
import torch

from slowfast.datasets.transforms import (
    SpatialSettings,
    crop_shapes,
    finish,
    fixed_views,
    random_view,
    short_side_resize,
    squash_resize,
    uniform_crop,
)


def clip(height, width, *, dtype=torch.uint8):
    values = torch.arange(3 * 2 * height * width, dtype=torch.int64).reshape(3, 2, height, width)
    return (values % 251).to(dtype)


def draw(frames, settings, seed):
    return random_view(frames, settings=settings, rng=np.random.RandomState(seed), box_rng=random.Random(seed))


class TestShortSideResize:
    @pytest.mark.parametrize(
        ("size", "short", "expected"),
        [((240, 320), 256, (256, 341)), ((320, 240), 256, (341, 256)), ((100, 100), 64, (64, 64))],
    )
    def test_long_side_is_floored(self, size, short, expected):
        assert short_side_resize(clip(*size), short).shape[-2:] == expected

    def test_right_size_stays_untouched(self):
        frames = clip(64, 80)
        assert short_side_resize(frames, 64) is frames

    def test_bilinear_without_antialias(self):
        frames = torch.tensor([[0.0, 10.0], [20.0, 30.0]]).repeat(3, 1, 1, 1)
        resized = short_side_resize(frames, 4)[0, 0]
        assert resized[0].tolist() == [0.0, 2.5, 7.5, 10.0]
        assert resized[:, 0].tolist() == [0.0, 5.0, 15.0, 20.0]


class TestFixedViews:
    def test_three_crops_of_a_wide_picture(self):
        frames = clip(64, 101)
        left, centre, right = fixed_views(frames, short=64, size=64, crops=3)
        assert torch.equal(left, frames[..., :64])
        assert torch.equal(centre, frames[..., 19:83])  # ceil(37 / 2)
        assert torch.equal(right, frames[..., 37:])

    def test_three_crops_of_an_upright_picture(self):
        frames = clip(101, 64)
        top, centre, bottom = fixed_views(frames, short=64, size=64, crops=3)
        assert torch.equal(top, frames[..., :64, :])
        assert torch.equal(centre, frames[..., 19:83, :])
        assert torch.equal(bottom, frames[..., 37:, :])

    def test_one_crop_is_the_centre(self):
        frames = clip(70, 101)
        (centre,) = fixed_views(frames, short=70, size=64, crops=1)
        assert torch.equal(centre, frames[..., 3:67, 19:83])

    def test_too_small(self):
        with pytest.raises(AssertionError):
            uniform_crop(clip(60, 80), 64, 1)


class TestRandomView:
    settings = SpatialSettings(jitter_scales=(40, 60), train_crop=32)

    def test_order_of_draws(self):
        frames = clip(50, 70)
        rng = np.random.RandomState(3)
        resized = short_side_resize(frames, round(rng.uniform(40, 60)))
        top = rng.randint(0, resized.shape[-2] - 32)
        left = rng.randint(0, resized.shape[-1] - 32)
        expected = resized[..., top : top + 32, left : left + 32]
        if rng.uniform() < 0.5:
            expected = expected.flip(-1)
        assert torch.equal(draw(frames, self.settings, 3), expected)

    def test_no_position_is_drawn_where_the_crop_fills_the_picture(self):
        frames = clip(32, 32)
        settings = SpatialSettings(jitter_scales=(32, 32), train_crop=32)
        flips = {seed: np.random.RandomState(seed).uniform(size=2)[1] < 0.5 for seed in range(6)}
        assert set(flips.values()) == {True, False}
        for seed, is_flipped in flips.items():
            assert torch.equal(draw(frames, settings, seed), frames.flip(-1) if is_flipped else frames)

    def test_without_flip(self):
        settings = SpatialSettings(jitter_scales=(32, 32), train_crop=32, flip=False)
        frames = clip(32, 32)
        assert all(torch.equal(draw(frames, settings, seed), frames) for seed in range(6))

    def test_inverse_uniform_prefers_short_sides(self):
        # the reciprocal is uniform: more than half of the draws lie below the middle of the range
        settings = SpatialSettings(jitter_scales=(32, 128), train_crop=32, inverse_uniform=True, flip=False)
        frames = torch.ones(3, 1, 32, 32)
        column = torch.arange(32.0).expand(3, 1, 32, 32)
        slopes = []
        for seed in range(60):
            crop = draw(frames * column, settings, seed)
            slopes.append((crop[0, 0, 5, 12:18].diff()).mean().item())
        assert np.median([1 / slope for slope in slopes if slope > 0]) < 80 / 32

    def test_random_resized_crop_is_resized_to_the_crop(self):
        settings = SpatialSettings(train_crop=24, relative_area=(0.1, 0.5), relative_aspect=(0.75, 1.33))
        assert draw(clip(50, 70), settings, 0).shape == (3, 2, 24, 24)

    @pytest.mark.parametrize(("size", "expected"), [((20, 200), (20, 40)), ((200, 20), (40, 20))])
    def test_random_resized_crop_falls_back_to_the_middle(self, size, expected, monkeypatch):
        settings = SpatialSettings(train_crop=24, relative_area=(0.9, 1.0), relative_aspect=(0.5, 2.0), flip=False)
        frames = clip(*size).float()
        height, width = expected
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        middle = frames[..., top : top + height, left : left + width]
        resized = torch.nn.functional.interpolate(middle, size=(24, 24), mode="bilinear", align_corners=False)
        assert torch.equal(draw(frames, settings, 0), resized)


class TestSquash:
    settings = SpatialSettings(jitter_scales=(256, 256), train_crop=224, flip=False, squash=True)

    @staticmethod
    def published(frames, top=16, left=16):
        """CLIP-FSAR's: values in [0, 1], a square of 256, a crop of 224; the centre in tests."""
        pictures = (frames.float() / 255).transpose(0, 1)
        square = torch.nn.functional.interpolate(pictures, size=(256, 256), mode="bilinear", align_corners=False)
        return square[..., top : top + 224, left : left + 224].transpose(0, 1)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    @pytest.mark.parametrize("size", [(240, 320), (320, 240), (256, 340), (100, 90), (480, 480)])
    def test_the_centre_is_the_published_one(self, size, dtype):
        frames = clip(*size, dtype=dtype)
        (crop,) = fixed_views(frames, short=256, size=224, crops=1, squash=True)
        assert crop.shape == (3, 2, 224, 224)
        torch.testing.assert_close(crop / 255, self.published(frames), atol=1e-6, rtol=0)
        rounded = finish(crop, self.settings)
        assert (rounded.float() / 255 - self.published(frames)).abs().max() <= 0.5 / 255 + 1e-6

    def test_training_crops_are_published_ones(self):
        frames, places = clip(48, 64), set()
        for seed in range(40):
            rng = np.random.RandomState(seed)
            rng.uniform()
            top, left = int(rng.randint(0, 32)), int(rng.randint(0, 32))
            crop = draw(frames, self.settings, seed) / 255
            torch.testing.assert_close(crop, self.published(frames, top, left), atol=1e-6, rtol=0)
            places.add((top, left))
        assert len(places) > 30

    @pytest.mark.parametrize("inverse", [False, True])
    def test_the_side_is_drawn(self, inverse):
        """A gradient from left to right becomes flatter with the side."""
        settings = SpatialSettings(
            jitter_scales=(32, 64), train_crop=32, flip=False, squash=True, inverse_uniform=inverse
        )
        frames = torch.arange(64.0).expand(3, 1, 16, 64)
        sides = []
        for seed in range(40):
            crop = draw(frames, settings, seed)
            assert crop.shape == (3, 1, 32, 32)
            sides.append(64 / crop[0, 0, 5, 12:18].diff().mean().item())
        assert 31 < min(sides) < 38
        assert 58 < max(sides) < 65

    def test_right_size_stays_untouched(self):
        frames = clip(64, 64)
        assert squash_resize(frames, 64) is frames
        assert squash_resize(clip(64, 80), 64).shape[-2:] == (64, 64)

    def test_a_square_has_one_place(self):
        with pytest.raises(AssertionError, match="3 crops of a square"):
            fixed_views(clip(40, 60), short=32, size=32, crops=3, squash=True)


class TestMultiScaleCrop:
    SCALES = (1.0, 0.875, 0.75, 0.66)

    def settings(self, *, size=224, short=256, flip=False, scales=SCALES):
        return SpatialSettings(jitter_scales=(short, short), train_crop=size, flip=flip, crop_scales=scales)

    def test_shapes_of_the_published_recipe(self):
        shapes = crop_shapes(256, self.SCALES, size=224)
        assert len(shapes) == 10
        assert set(shapes) == {
            *((side, side) for side in (256, 224, 192, 168)),
            *((256, 224), (224, 256), (224, 192), (192, 224), (192, 168), (168, 192)),
        }

    def test_sides_near_the_crop_become_it(self):
        assert crop_shapes(100, (0.8, 0.78, 0.77, 0.82, 0.83), size=80)[0] == (80, 80)
        sides = [crop_shapes(100, (share,), size=80)[0][0] for share in (0.77, 0.78, 0.79, 0.81, 0.82, 0.83)]
        assert sides == [77, 80, 80, 80, 80, 83]
        assert crop_shapes(79, (1.0,), size=80) == [(79, 79)]  # never beyond the picture

    def test_every_shape_at_every_place_is_the_resized_box(self):
        frames = clip(256, 341).float()
        boxes = {
            (height, width, place): torch.nn.functional.interpolate(
                frames[..., top : top + height, left : left + width],
                size=(224, 224),
                mode="bilinear",
                align_corners=False,
            )
            for height, width in crop_shapes(256, self.SCALES, size=224)
            for down, right in [((256 - height) // 4, (341 - width) // 4)]
            for place, (top, left) in enumerate(
                [(0, 0), (0, 4 * right), (4 * down, 0), (4 * down, 4 * right), (2 * down, 2 * right)]
            )
        }
        found = {}
        for seed in range(120):
            crop = draw(frames, self.settings(), seed)
            names = [name for name, box in boxes.items() if torch.equal(crop, box)]
            assert names
            for name in names:
                found[name] = found.get(name, 0) + 1
        assert {name[:2] for name in found} == set(crop_shapes(256, self.SCALES, size=224))
        assert {name[2] for name in found} == set(range(5))

    def test_mirrors_half_of_the_clips_after_the_crop(self):
        frames, mirrored = clip(40, 48), 0
        for seed in range(60):
            plain, crop = (draw(frames, self.settings(size=32, short=40, flip=flip), seed) for flip in (False, True))
            assert torch.equal(crop, plain) or torch.equal(crop, plain.flip(-1))
            mirrored += not torch.equal(crop, plain)
        assert 18 < mirrored < 42

    def test_pictures_smaller_than_the_crop_are_scaled_up(self):
        for seed in range(10):
            crop = draw(clip(30, 20), self.settings(size=32, short=24), seed)
            assert crop.shape == (3, 2, 32, 32)

    def test_a_box_of_the_size_of_the_crop_is_not_resized(self):
        frames = clip(32, 32)
        assert torch.equal(draw(frames, self.settings(size=32, short=32, scales=(1.0,)), 0), frames)


class TestFinish:
    def test_uint8_rounds_half_to_even_and_clamps(self):
        frames = torch.tensor([0.5, 1.5, 2.5, 254.6, 255.4, -0.2]).repeat(3, 1, 1, 1)
        finished = finish(frames, SpatialSettings())
        assert finished.dtype == torch.uint8
        assert finished[0, 0, 0].tolist() == [0, 2, 2, 255, 255, 0]

    def test_uint8_without_resize_is_exact(self):
        frames = clip(8, 8)
        assert torch.equal(finish(frames, SpatialSettings()), frames)

    def test_float32_keeps_fractions(self):
        frames = torch.full((3, 1, 2, 2), 1.25)
        assert torch.equal(finish(frames, SpatialSettings(dtype="float32")), frames)
        assert finish(clip(2, 2), SpatialSettings(dtype="float32")).dtype == torch.float32

    def test_bgr(self):
        frames = clip(4, 4)
        assert torch.equal(finish(frames, SpatialSettings(bgr=True)), frames[[2, 1, 0]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"jitter_scales": (320, 256)}, "DATA.TRAIN_JITTER_SCALES: found"),
        ({"crop_scales": (1.0, 0.0)}, r"DATA.TRAIN_CROP_SCALES: found \[1.0, 0.0\], allowed: above 0"),
        ({"crop_scales": (1.2,)}, "DATA.TRAIN_CROP_SCALES: found"),
        (
            {"crop_scales": (1.0,), "relative_area": (0.1, 1.0), "relative_aspect": (0.5, 2.0)},
            "DATA.TRAIN_CROP_SCALES: choose it or DATA.TRAIN_JITTER_SCALES_RELATIVE",
        ),
        (
            {"squash": True, "crop_scales": (1.0,)},
            "DATA.SQUASH: choose it or DATA.TRAIN_CROP_SCALES, not both",
        ),
        (
            {"squash": True, "relative_area": (0.1, 1.0), "relative_aspect": (0.5, 2.0)},
            "DATA.SQUASH: choose it or DATA.TRAIN_JITTER_SCALES_RELATIVE, not both",
        ),
        ({"relative_area": (0.1, 1.0)}, "DATA.TRAIN_JITTER_ASPECT_RELATIVE: set both or neither"),
    ],
)
def test_settings_refuse(fields, message):
    with pytest.raises(ValueError, match=message):
        SpatialSettings(**fields)
