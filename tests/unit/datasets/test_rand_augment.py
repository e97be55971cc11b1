import math
import random
from collections import Counter

import pytest
import torch

from slowfast.datasets.rand_augment import (
    OPERATIONS,
    RandAugmentSettings,
    Warp,
    color_jitter,
    parse_rand_augment,
    rand_augment,
)

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
ENHANCING = ("Color", "Contrast", "Brightness", "Sharpness")
FILL = (10, 20, 30)


def noise(count=3, height=24, width=32, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def smooth(count=2, height=64, width=96):
    """A slope in each direction, without edges: sampling it anywhere is exact to rounding."""
    x, y = torch.arange(width)[None].expand(height, -1), torch.arange(height)[:, None].expand(-1, width)
    return torch.stack([40 + x, 50 + 2 * y, 20 + x + y]).to(torch.uint8).expand(count, 3, height, width)


def apply(name, amount, frames, **warp):
    return OPERATIONS[name].apply(frames, amount, Warp(**{"fill": FILL, **warp}))


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("rand", {}),
            (
                "rand-m7-n4-mstd0.5-inc1",
                {"magnitude": 7, "layers": 4, "deviation": 0.5, "increasing": True},
            ),
            ("rand-m9-mstd0.5-inc1", {"magnitude": 9, "layers": 2, "deviation": 0.5, "increasing": True}),
            ("rand-inc0-n1-m0", {"magnitude": 0, "layers": 1, "increasing": False}),
            ("rand-mstdinf", {"deviation": math.inf}),
            ("rand-mstd101", {"deviation": math.inf}),
            ("rand-mstd.5-p1", {"deviation": 0.5, "probability": 1.0}),
            ("rand-w0-p0.25", {"weighted": True, "probability": 0.25}),
        ],
    )
    def test_is_read(self, text, expected):
        assert parse_rand_augment(text) == RandAugmentSettings(**expected)

    def test_defaults(self):
        settings = parse_rand_augment("rand", interpolation="random", fill=FILL)
        assert (settings.magnitude, settings.layers, settings.deviation) == (10, 2, 0.0)
        assert (settings.increasing, settings.weighted, settings.probability) == (False, False, 0.5)
        assert (settings.interpolation, settings.fill) == ("random", FILL)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("augmix-m3", "found 'augmix-m3'"),
            ("original", "found 'original'"),
            ("rand-m11", "m11 is out of range"),
            ("rand-n0", "n0 is out of range"),
            ("rand-p1.5", r"p1\.5 is out of range"),
            ("rand-m7.5", r"unknown part 'm7\.5'"),
            ("rand-mmax10", "unknown part 'mmax10'"),
            ("rand-tboth", "unknown part 'tboth'"),
            ("rand-inc2", "unknown part 'inc2'"),
            ("rand-w1", "unknown part 'w1'"),
            ("rand-mstd-1", "unknown part 'mstd'"),
            ("rand-mstdnan", "unknown part 'mstdnan'"),
            ("rand-", "unknown part ''"),
            ("rand-m3-n1-m4", "two values for the same thing, 'm4'"),
            ("rand-w0-n14", "w0 draws different operations, found n14"),
        ],
    )
    def test_is_refused_in_one_line(self, text, found):
        with pytest.raises(ValueError, match=rf"^AUG\.AA_TYPE: .*{found}.*allowed: ") as caught:
            parse_rand_augment(text)
        assert "\n" not in str(caught.value)

    def test_interpolation_is_checked(self):
        with pytest.raises(ValueError, match=r"^AUG\.INTERPOLATION: found 'lanczos', allowed: 'bicubic', 'bilinear'"):
            parse_rand_augment("rand", interpolation="lanczos")


class TestAmounts:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [  # magnitudes 0, 5 and 10: AutoAugment's ranges
            ("AutoContrast", (0, 0, 0)),
            ("Equalize", (0, 0, 0)),
            ("Invert", (0, 0, 0)),
            ("Rotate", (0, 15, 30)),
            ("Posterize", (0, 2, 4)),
            ("Solarize", (0, 128, 256)),
            ("SolarizeAdd", (0, 55, 110)),
            ("Color", (0.1, 1.0, 1.9)),
            ("Contrast", (0.1, 1.0, 1.9)),
            ("Brightness", (0.1, 1.0, 1.9)),
            ("Sharpness", (0.1, 1.0, 1.9)),
            ("ShearX", (0, 0.15, 0.3)),
            ("ShearY", (0, 0.15, 0.3)),
            ("TranslateXRel", (0, 0.225, 0.45)),
            ("TranslateYRel", (0, 0.225, 0.45)),
        ],
    )
    def test_plain_set(self, name, expected):
        amounts = [OPERATIONS[name].amount(magnitude) for magnitude in (0, 5, 10)]
        assert amounts == pytest.approx(expected)
        signed = [OPERATIONS[name].amount(magnitude, sign=-1) for magnitude in (0, 5, 10)]
        assert signed == pytest.approx([-value for value in expected] if name in GEOMETRIC else expected)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("Posterize", (4, 2, 0)),
            ("Solarize", (256, 128, 0)),
            ("SolarizeAdd", (0, 55, 110)),
            ("Color", (1.0, 1.45, 1.9)),
            ("Contrast", (1.0, 1.45, 1.9)),
            ("Brightness", (1.0, 1.45, 1.9)),
            ("Sharpness", (1.0, 1.45, 1.9)),
            ("Rotate", (0, 15, 30)),
            ("ShearX", (0, 0.15, 0.3)),
            ("ShearY", (0, 0.15, 0.3)),
            ("TranslateXRel", (0, 0.225, 0.45)),
            ("TranslateYRel", (0, 0.225, 0.45)),
        ],
    )
    def test_increasing_set(self, name, expected):
        amounts = [OPERATIONS[name].amount(magnitude, increasing=True) for magnitude in (0, 5, 10)]
        assert amounts == pytest.approx(expected)

    @pytest.mark.parametrize("name", ENHANCING)
    def test_increasing_enhancements_go_both_ways(self, name):
        amounts = [OPERATIONS[name].amount(magnitude, sign=-1, increasing=True) for magnitude in (0, 5, 10)]
        assert amounts == pytest.approx((1.0, 0.55, 0.1))

    def test_whole_numbers_are_rounded_down(self):
        assert OPERATIONS["Posterize"].amount(9.9) == 3
        assert OPERATIONS["Posterize"].amount(9.9, increasing=True) == 1
        assert OPERATIONS["Solarize"].amount(7.0) == 179
        assert OPERATIONS["SolarizeAdd"].amount(0.05) == 0

    def test_names_and_weights(self):
        assert len(OPERATIONS) == 15
        assert sum(operation.weight for operation in OPERATIONS.values()) == pytest.approx(1.0)


class TestOperations:
    @pytest.mark.parametrize("name", OPERATIONS)
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_equal_frames_stay_equal(self, name, layout):
        frames = noise(1).expand(3, -1, -1, -1).contiguous(memory_format=layout)
        before = frames.clone()
        for increasing in (False, True):
            changed = OPERATIONS[name].apply(frames, OPERATIONS[name].amount(7, increasing=increasing), Warp())
            assert changed.shape == frames.shape
            assert changed.dtype == torch.uint8
            assert torch.equal(changed[0], changed[1])
            assert torch.equal(changed[0], changed[2])
        assert torch.equal(frames, before)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_frames_do_not_see_each_other(self, name):
        frames, amount = noise(3), OPERATIONS[name].amount(7)
        together = OPERATIONS[name].apply(frames, amount, Warp(interpolation="bicubic"))
        alone = torch.cat([OPERATIONS[name].apply(f[None], amount, Warp(interpolation="bicubic")) for f in frames])
        assert torch.equal(together, alone)

    @pytest.mark.parametrize("name", [*GEOMETRIC, *ENHANCING, "Solarize", "SolarizeAdd"])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_identity_at_zero_magnitude(self, name, interpolation):
        frames = noise()
        amount = OPERATIONS[name].amount(0, increasing=True)
        assert torch.equal(apply(name, amount, frames, interpolation=interpolation), frames)

    def test_colours_by_hand(self):
        frames = torch.tensor([0, 100, 127, 128, 200, 255], dtype=torch.uint8).expand(1, 3, 1, 6)

        def row(name, amount):
            return apply(name, amount, frames)[0, 0, 0].tolist()

        assert row("Invert", 0) == [255, 155, 128, 127, 55, 0]
        assert row("Solarize", 128) == [0, 100, 127, 127, 55, 0]
        assert row("Solarize", 256) == [0, 100, 127, 128, 200, 255]
        assert row("Solarize", 0) == [255, 155, 128, 127, 55, 0]
        assert row("SolarizeAdd", 110) == [110, 210, 237, 128, 200, 255]
        assert row("Posterize", 1) == [0, 0, 0, 128, 128, 128]
        assert row("Posterize", 4) == [0, 96, 112, 128, 192, 240]
        assert row("Posterize", 0) == [0] * 6
        assert row("Brightness", 0.5) == [0, 50, 63, 64, 100, 127]
        assert row("Brightness", 1.9) == [0, 190, 241, 243, 255, 255]

    def test_contrast_and_saturation(self):
        frames = noise()
        grey = apply("Color", 0.0, frames)
        assert torch.equal(grey[:, 0], grey[:, 1])
        flat = apply("Contrast", 0.0, frames)
        assert [frame.unique().numel() for frame in flat] == [1, 1, 1]
        assert apply("Contrast", 0.5, frames).float().std() < frames.float().std()

    def test_autocontrast_and_equalize(self):
        frames = (noise() // 4) + 60
        stretched = apply("AutoContrast", 0, frames)
        assert stretched.amin(dim=(2, 3)).unique().tolist() == [0]
        assert stretched.amax() >= 254
        assert apply("Equalize", 0, frames).float().std() > frames.float().std()

    def test_sharpness(self):
        frames = noise()
        blurred = apply("Sharpness", 0.1, frames)
        assert blurred.float().std() < frames.float().std()
        assert torch.equal(blurred[..., 0, :], frames[..., 0, :])  # the kernel does not fit at the border


class TestGeometry:
    """On slopes, so that the place that a pixel came from can be read off its colour."""

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize(
        ("name", "amount", "move"),
        [
            ("TranslateXRel", 0.25, lambda x, y: (x + 24, y)),
            ("TranslateXRel", -0.25, lambda x, y: (x - 24, y)),
            ("TranslateYRel", 0.125, lambda x, y: (x, y + 8)),
            ("ShearX", 0.3, lambda x, y: (x + 0.3 * (y + 0.5), y)),
            ("ShearY", -0.2, lambda x, y: (x, y - 0.2 * (x + 0.5))),
            (  # counter-clockwise about the middle
                "Rotate",
                90.0,
                lambda x, y: (48 - (y + 0.5 - 32) - 0.5, 32 + (x + 0.5 - 48) - 0.5),
            ),
        ],
    )
    def test_pixels_come_from_where_they_should(self, name, amount, move, interpolation):
        frames = smooth()
        changed = apply(name, amount, frames, interpolation=interpolation)
        filled = 0
        for y in range(0, 64, 3):
            for x in range(0, 96, 5):
                found = changed[0, :, y, x].tolist()
                from_x, from_y = move(x, y)
                if not (-0.5 < from_x < 95.5 and -0.5 < from_y < 63.5):
                    filled += 1
                    assert found == list(FILL)
                elif 1 < from_x < 94 and 1 < from_y < 62:
                    wanted = (40 + from_x, 50 + 2 * from_y, 20 + from_x + from_y)
                    assert found == pytest.approx(wanted, abs=1.0)
        assert filled

    def test_whole_pixels_are_moved_exactly(self):
        frames = noise(2, 20, 40)
        moved = apply("TranslateXRel", 0.25, frames, interpolation="bicubic")
        assert torch.equal(moved[..., :30], frames[..., 10:])
        assert moved[0, :, 0, 30].tolist() == list(FILL)

    def test_interpolations_differ(self):
        frames = noise()
        assert not torch.equal(
            apply("Rotate", 20.0, frames, interpolation="bilinear"),
            apply("Rotate", 20.0, frames, interpolation="bicubic"),
        )


class TestRandAugment:
    SETTINGS = parse_rand_augment("rand-m7-n4-mstd0.5-inc1")

    def draw(self, seed, settings=SETTINGS, frames=None):
        frames = noise() if frames is None else frames
        return rand_augment(frames, settings=settings, rng=random.Random(seed))

    def test_all_frames_alike(self):
        frames = noise(1).expand(4, -1, -1, -1)
        for seed in range(30):
            changed = self.draw(seed, frames=frames)
            assert torch.equal(changed, changed[:1].expand_as(changed))

    def test_follows_from_the_generator(self):
        frames = noise()
        outcomes = [self.draw(seed) for seed in range(20)]
        assert all(torch.equal(self.draw(seed), outcome) for seed, outcome in enumerate(outcomes))
        assert len({tuple(outcome.flatten().tolist()) for outcome in outcomes}) > 15
        assert torch.equal(frames, noise())

    def test_probability(self):
        frames = noise() // 2 + 40  # every operation changes them

        def changed(text, count):
            settings = parse_rand_augment(text)
            return sum(not torch.equal(self.draw(seed, settings, frames), frames) for seed in range(count))

        assert changed("rand-p0", 5) == 0
        assert 120 < changed("rand-n1-m6", 300) < 180
        assert changed("rand-n1-m6-p1", 60) == 60

    def test_drawn_operations_and_magnitudes(self, monkeypatch):
        seen = []
        for name, operation in list(OPERATIONS.items()):
            fake = type(operation)(
                lambda frames, amount, warp, name=name: (seen.append((name, amount, warp)), frames)[1],
                operation.level,
                operation.increasing,
                operation.weight,
            )
            monkeypatch.setitem(OPERATIONS, name, fake)
        frames = noise(1, 4, 4)

        def collect(text, count, **options):
            seen.clear()
            for seed in range(count):
                self.draw(seed, parse_rand_augment(text, **options), frames)
            return list(seen)

        names = Counter(name for name, _, _ in collect("rand-n3-p1", 500))
        assert set(names) == set(OPERATIONS)
        assert max(names.values()) < 160  # 100 each on average
        names = Counter(name for name, _, _ in collect("rand-w0-n1-p1", 500))
        assert names["Rotate"] > 110
        assert not {"Invert", "Posterize"} & set(names)
        for seed in range(20):
            one = [name for name, _, _ in collect("rand-w0-n13-p1", seed + 1)[-13:]]
            assert len(set(one)) == 13  # without repetition

        angles = [amount for name, amount, _ in collect("rand-m5-n1-p1", 1500) if name == "Rotate"]
        assert {round(abs(angle), 6) for angle in angles} == {15.0}
        assert min(angles) < 0 < max(angles)
        angles = [abs(amount) for name, amount, _ in collect("rand-m9-n1-p1-mstd1", 1500) if name == "Rotate"]
        assert max(angles) == 30.0  # clamped at magnitude 10
        assert torch.tensor(angles).mean().item() == pytest.approx(26.5, abs=1.5)
        angles = [abs(amount) for name, amount, _ in collect("rand-m8-n1-p1-mstdinf", 1500) if name == "Rotate"]
        assert max(angles) < 24.0
        assert torch.tensor(angles).mean().item() == pytest.approx(12.0, abs=2.0)

        kinds = Counter(warp.interpolation for _, _, warp in collect("rand-p1", 50, interpolation="random", fill=FILL))
        assert set(kinds) == {"bilinear", "bicubic"}
        assert {warp.fill for _, _, warp in seen} == {FILL}
        assert {warp.interpolation for _, _, warp in collect("rand-p1", 20)} == {"bicubic"}


class TestColorJitter:
    def draw(self, strength, seed, frames):
        return color_jitter(frames, strength=strength, rng=random.Random(seed))

    def test_no_strength_changes_nothing(self):
        assert torch.equal(self.draw(0.0, 1, noise()), noise())

    def test_frames_alike_and_clips_different(self):
        frames = noise(1).expand(3, -1, -1, -1)
        outcomes = [self.draw(0.4, seed, frames) for seed in range(10)]
        assert all(torch.equal(outcome, outcome[:1].expand_as(outcome)) for outcome in outcomes)
        assert len({tuple(outcome.flatten().tolist()) for outcome in outcomes}) == 10

    def test_factors_stay_in_range(self):
        frames = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)  # flat and grey: only the brightness changes
        levels = [self.draw(0.4, seed, frames).float().mean().item() for seed in range(200)]
        assert 58 <= min(levels) < 65
        assert 135 < max(levels) <= 140
        assert self.draw(3.0, 5, frames).dtype == torch.uint8
