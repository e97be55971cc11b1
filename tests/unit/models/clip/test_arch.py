import re

import pytest
import torch

from slowfast.models.clip.arch import PUBLISHED, ClipSizes, published_clip, read_sizes
from slowfast.models.clip.model import CLIP


@pytest.mark.parametrize("arch", PUBLISHED)
def test_sizes_are_read_off_the_state_dict(arch):
    sizes = PUBLISHED[arch].sizes
    with torch.device("meta"):
        state = CLIP(sizes).state_dict()
    assert read_sizes(state) == sizes


def test_sizes_of_no_published_model(tiny_state, tiny_sizes):
    assert ClipSizes.from_state_dict(tiny_state) == tiny_sizes


@pytest.mark.parametrize(("arch", "grid"), [("vitb32", 7), ("vitb16", 14), ("vitl14", 16), ("rn50", 7)])
def test_grid_of_published_models(arch, grid):
    assert PUBLISHED[arch].sizes.grid_size == grid


@pytest.mark.parametrize(
    ("arch", "name"), [("vitb32", "ViT-B/32"), ("vitb16", "ViT-B/16"), ("vitl14", "ViT-L/14"), ("rn50", "RN50")]
)
def test_published_models_have_two_names(arch, name):
    assert published_clip(arch) is published_clip(name) is PUBLISHED[arch]


def test_unknown_name():
    assert published_clip("vitb8") is None


def test_address_carries_the_hash():
    for published in PUBLISHED.values():
        assert re.fullmatch(r"[0-9a-f]{64}", published.sha256)
        assert f"/{published.sha256}/" in published.url
    assert len({published.sha256 for published in PUBLISHED.values()}) == len(PUBLISHED)


def test_state_dict_without_a_size(tiny_state):
    state = {name: tensor for name, tensor in tiny_state.items() if name != "text_projection"}
    message = f"here.pt: not a CLIP state dict: text_projection is missing (found {len(state)} entries)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ClipSizes.from_state_dict(state, source="here.pt")


def test_resnet_is_named(tiny_state):
    state = {**tiny_state, "visual.layer1.0.conv1.weight": torch.empty(1)}
    with pytest.raises(ValueError, match=r"^r50\.pt: holds a CLIP with a ResNet image tower; only ViT image towers"):
        ClipSizes.from_state_dict(state, source="r50.pt")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "visual.conv1.weight",
            (1280, 3, 8, 8),
            "vision width 1280 is that of ViT-H, whose attention heads are 80 wide",
        ),
        (
            "visual.conv1.weight",
            (1408, 3, 8, 8),
            "vision width 1408 is that of ViT-g, whose attention heads are 88 wide",
        ),
        ("visual.conv1.weight", (100, 3, 8, 8), "vision width 100 is not a multiple of 64, the width of a head"),
        ("ln_final.weight", (65,), "text width 65 is not a multiple of 64, the width of a head"),
        ("visual.conv1.weight", (64, 3), "not a CLIP state dict: shapes are {'visual.conv1.weight': (64, 3), "),
    ],
)
def test_towers_that_are_not_supported(tiny_state, name, shape, message):
    with pytest.raises(ValueError, match=f"^x\\.pt: {re.escape(message)}"):
        ClipSizes.from_state_dict({**tiny_state, name: torch.empty(shape)}, source="x.pt")


def test_layers_are_counted_by_their_highest_number(tiny_state):
    """So that a block that is absent in the middle is missed, and a wild number does not build a giant."""
    state = {name: t for name, t in tiny_state.items() if not name.startswith("visual.transformer.resblocks.0.")}
    assert ClipSizes.from_state_dict(state).vision_layers == 2
    state["transformer.resblocks.999999999.ln_1.bias"] = torch.empty(1)
    assert ClipSizes.from_state_dict(state).text_layers == len(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_width": 100}, "CLIP vision_width is 100; it must be a multiple of 64"),
        ({"text_width": 65}, "CLIP text_width is 65; it must be a multiple of 64"),
        ({"image_size": 30}, "CLIP image_size 30 is not a multiple of patch_size 8"),
    ],
)
def test_impossible_sizes(change, message):
    sizes = {
        "image_size": 32,
        "patch_size": 8,
        "vision_width": 64,
        "vision_layers": 1,
        "embed_dim": 32,
        "text_width": 64,
        "text_layers": 1,
    }
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ClipSizes(**{**sizes, **change})
