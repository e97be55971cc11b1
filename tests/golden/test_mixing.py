"""MixUp and CutMix of TC-CLIP: its recorded draws applied by our functions.

The recording drew from two generators, ours draws from one, so that draws are taken from the file. Where a box was
centred is not in it; the seed is.
"""

import pytest
import torch

from slowfast.datasets.mixup import MixUp, MixUpSettings, box_span, mixed_targets, paste
from slowfast.datasets.types import VideoBatch


@pytest.fixture(scope="module")
def blending(golden_tc_clip):
    return golden_tc_clip["blending"]


def cases_of(blending, kind):
    cases = [case for case in blending["cases"] if case["kind"] == kind]
    assert len(cases) >= 3
    return cases


def clips(blending):
    """(B, T, 3, H, W) as recorded -> (B, 3, T, H, W)."""
    return blending["images"].transpose(1, 2)


def assert_targets(blending, case, share):
    found = mixed_targets(
        blending["labels"],
        case["permutation"].tolist(),
        share=share,
        num_classes=blending["num_classes"],
        smoothing=blending["smoothing"],
    )
    torch.testing.assert_close(found, case["labels"].float(), atol=1e-6, rtol=0)


def test_mixup(blending):
    for case in cases_of(blending, "mixup"):
        share, frames = float(case["lambda_drawn"]), clips(blending).float()
        mixed = torch.lerp(frames[case["permutation"]], frames, share)
        torch.testing.assert_close(mixed, case["images"].transpose(1, 2).float(), atol=1e-5, rtol=1e-5)
        assert_targets(blending, case, share)


def test_cutmix(blending):
    for case in cases_of(blending, "cutmix"):
        frames = clips(blending).clone()
        left, top, right, bottom = case["box"]
        share = paste(frames, frames[case["permutation"]], (top, bottom), (left, right))
        assert torch.equal(frames, case["images"].transpose(1, 2))
        assert share == pytest.approx(case["lambda_used"])
        assert_targets(blending, case, share)


def test_box(blending):
    for case in cases_of(blending, "cutmix"):
        torch.manual_seed(case["seed"])
        assert torch.equal(torch.randperm(len(blending["labels"])), case["permutation"])
        share = torch.distributions.Beta(blending["cutmix_alpha"], blending["cutmix_alpha"]).sample()
        assert share.item() == pytest.approx(float(case["lambda_drawn"]))
        height, width = blending["images"].shape[-2:]
        x, y = (int(torch.randint(side, (1,))) for side in (width, height))
        left, top, right, bottom = case["box"]
        assert box_span(width, share.item(), centre=x) == (left, right)
        assert box_span(height, share.item(), centre=y) == (top, bottom)


def test_smoothing_alone(blending):
    settings = MixUpSettings(prob=0.0, label_smoothing=blending["smoothing"], partner="permuted", group_size=2)
    count = len(blending["labels"])
    batch = VideoBatch(clips(blending).float(), blending["labels"], torch.arange(count), torch.zeros(count).long())
    mixed = MixUp(settings=settings, num_classes=blending["num_classes"])(batch)
    torch.testing.assert_close(mixed.weights, blending["smoothed"].float(), atol=1e-6, rtol=0)
