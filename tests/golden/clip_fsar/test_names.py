"""Names of an official checkpoint: each has a tensor of ours of the same shape, and the other way round."""

import pytest
import torch

from slowfast.methods.clip_fsar.head import FsarHead
from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.model import CLIP

ARCHS = {"ViT-B/16": ("vitb16", 512), "RN50": ("rn50", 1024)}
COUNTS = {"ViT-B/16": (164, 89_342_465), "RN50": (351, 46_711_649)}
OF_TRANSFORMER = {"ViT-B/16": 3_149_824, "RN50": 8_394_752}


@pytest.mark.parametrize("official", ARCHS)
def test_full_size(golden_clip_fsar, head_options, official):
    arch, width = ARCHS[official]
    dims = golden_clip_fsar["meta"]["dims"]
    options = head_options({"overrides": {}})
    with torch.device("meta"):
        clip = CLIP(PUBLISHED[arch].sizes)
        head = FsarHead(clip.visual, width=width, depth=1, num_heads=dims["heads"], hidden=dims["ffn"], options=options)
    recorded = golden_clip_fsar["full_size_state_dict"][official]
    found = {f"head.{name}": tuple(value.shape) for name, value in head.state_dict().items()}
    assert found == {name: tuple(shape) for name, shape in recorded["entries"].items()}
    trainable = sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad)
    assert trainable == recorded["trainable"]
    assert (len(found), trainable) == COUNTS[official]
    assert sum(parameter.numel() for parameter in head.context2.parameters()) == OF_TRANSFORMER[official]
