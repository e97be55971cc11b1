"""Frames and crops against those recorded from the reference.

Of the recipe the file keeps the sizes of clips, seeds and results. The rest of the spatial recipe is read off it: the
normalisation is a linear fit, the short side of the test crops is searched, and one jitter range that starts there has
to reproduce every training crop.
"""

import random
import re

import numpy as np
import pytest
import torch

from slowfast.datasets.frame_sampling import (
    ClipPosition,
    Stride,
    pyslowfast_indices,
    pyslowfast_whole_indices,
    pyslowfast_window,
)
from slowfast.datasets.transforms import SpatialSettings, random_view, short_side_resize, uniform_crop

# Constants of the recipe that leave no trace in the file: the default frame rate of the configuration, offset
# sampling on (it acts only where the duration is unknown), and Inception's box for the random resized crop.
TARGET_FPS = 30
OFFSETS = True
BOX_AREA, BOX_ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)

HALF_PRECISION = 2e-3  # results are stored in fp16, with absolute values up to about 2.5


def test_temporal_sampling(golden):
    cases = golden["temporal_sampling"]
    assert cases
    for case in cases:
        total, fps = case["n"], case["fps"]
        stride = Stride(num_frames=case["num_frames"], sampling_rate=case["rate"], target_fps=TARGET_FPS)
        is_random = case["clip_idx"] == -1
        position = ClipPosition(
            fraction=random.Random(case["seed"]).random() if is_random else None,
            view=max(case["clip_idx"], 0),
            views=case["views"],
        )
        if case["duration"]:
            window = pyslowfast_window(total, fps, stride=stride, position=position)
            pts = [number * case["tick"] for number in range(total)]
            indices = pyslowfast_indices(
                pts, window, total=total, duration=total * case["tick"], fps=fps, stride=stride
            )
        else:
            indices, window = pyslowfast_whole_indices(total, fps, stride=stride, position=position, offsets=OFFSETS)
        assert indices == case["index"], case
        assert list(window) == case["start_end"][0][:2], case


class Recipe:
    """Normalisation and short side that explain the test crops."""

    def __init__(self, cases):
        first = next(iter(cases[0]["test"].values()))
        self.size = first.shape[-1]
        self.short = min(range(self.size, 3 * self.size), key=lambda short: self._misfit(cases, short))
        assert self._misfit(cases, self.short) < HALF_PRECISION, "no short side explains the test crops"
        self.scale, self.shift = self._fit(cases, self.short)

    def _pairs(self, cases, short):
        """Raw and recorded values of all test crops, (3, number of values) each."""
        raw, recorded = [], []
        for case in cases:
            frames = short_side_resize(clip_of(case), short)
            for position, crop in case["test"].items():
                raw.append(uniform_crop(frames, self.size, position).flatten(1))
                recorded.append(crop.float().flatten(1))
        return torch.cat(raw, dim=1).double(), torch.cat(recorded, dim=1).double()

    def _fit(self, cases, short):
        raw, recorded = self._pairs(cases, short)
        centred = raw - raw.mean(dim=1, keepdim=True)
        scale = (centred * recorded).sum(dim=1) / (centred**2).sum(dim=1)
        return scale, recorded.mean(dim=1) - scale * raw.mean(dim=1)

    def _misfit(self, cases, short):
        raw, recorded = self._pairs(cases, short)
        scale, shift = self._fit(cases, short)
        return (raw * scale[:, None] + shift[:, None] - recorded).abs().max().item()

    def error(self, crop, recorded):
        normalised = crop.double() * self.scale.view(3, 1, 1, 1) + self.shift.view(3, 1, 1, 1)
        return (normalised - recorded.double()).abs().max().item()


def clip_of(case):
    return case["raw"].permute(3, 0, 1, 2).float()


def seeded(case, prefix):
    """(seed, crop) of the entries `<prefix>_<seed>`."""
    return [(int(m[1]), crop) for key, crop in case.items() if (m := re.fullmatch(prefix + r"_(\d+)", key))]


@pytest.fixture(scope="module")
def recipe(golden):
    return Recipe(golden["spatial_sampling"])


def draw(case, seed, settings):
    rng = np.random.RandomState(seed)
    return random_view(clip_of(case), settings=settings, rng=rng, box_rng=random.Random(seed))


def test_test_crops(golden, recipe):
    for case in golden["spatial_sampling"]:
        frames = short_side_resize(clip_of(case), recipe.short)
        for position, recorded in case["test"].items():
            crop = uniform_crop(frames, recipe.size, position)
            assert crop.shape == recorded.shape
            assert recipe.error(crop, recorded) < HALF_PRECISION, position


def test_training_crops(golden, recipe):
    cases = golden["spatial_sampling"]

    def is_reproduced(longest):
        plain = SpatialSettings(jitter_scales=(recipe.short, longest), train_crop=recipe.size, dtype="float32")
        inverse = SpatialSettings(
            jitter_scales=(recipe.short, longest), train_crop=recipe.size, inverse_uniform=True, dtype="float32"
        )
        expected = [(plain, seed, case, crop) for case in cases for seed, crop in case["train"].items()]
        expected += [(inverse, seed, case, crop) for case in cases for seed, crop in seeded(case, "train_inverse")]
        assert expected
        return all(
            recipe.error(draw(case, seed, settings), crop) < HALF_PRECISION for settings, seed, case, crop in expected
        )

    assert any(is_reproduced(longest) for longest in range(recipe.short, 2 * recipe.short))


def test_random_resized_crops(golden, recipe):
    settings = SpatialSettings(
        train_crop=recipe.size, relative_area=BOX_AREA, relative_aspect=BOX_ASPECT, dtype="float32"
    )
    for case in golden["spatial_sampling"]:
        assert seeded(case, "train_rrc")
        for seed, recorded in seeded(case, "train_rrc"):
            assert recipe.error(draw(case, seed, settings), recorded) < HALF_PRECISION
