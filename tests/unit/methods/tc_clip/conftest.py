"""TC-CLIP on small CLIPs, with parameters that nothing is special about."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.build import build_method
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.weights import random_clip_state_dict

NAMES = ("surfing", "pouring tea", "ApplyLipstick", "riding a very old bike down a hill", "push_up")
COUNT = len(NAMES)
ORACLE = Path(__file__).resolve().parents[3] / "oracles" / "plain_tc_clip.py"


@pytest.fixture(scope="session")
def plain_tc_clip():
    """The class of the oracle."""
    spec = importlib.util.spec_from_file_location("plain_tc_clip", ORACLE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PlainTcClip


@pytest.fixture(scope="session")
def small_sizes():
    """Three blocks in either tower, two heads, 25 patches, and a joint space as wide as the text tower."""
    return ClipSizes(
        image_size=40, patch_size=8, vision_width=128, vision_layers=3, embed_dim=64, text_width=64, text_layers=3
    )


@pytest.fixture(scope="session")
def small_weights(small_sizes, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(random_clip_state_dict(small_sizes, seed=6), path)
    return path


SMALL = {"TC_CLIP.CONTEXT_TOKEN_K": 6, "TC_CLIP.TOME_R": 5, "DATA.NUM_FRAMES": 4, "MODEL.CLIP_ACTIVATION": "quick_gelu"}


@pytest.fixture(scope="session")
def labels():
    return lambda num_classes=COUNT: LabelSet.from_names(NAMES[:num_classes])


@pytest.fixture
def small_cfg(tiny_cfg, small_weights):
    """Makes a configuration of the small CLIP with further keys set."""
    return lambda **keys: tiny_cfg(METHOD="tc_clip", **{**SMALL, "MODEL.CLIP_WEIGHTS": str(small_weights), **keys})


@pytest.fixture
def build(small_cfg, labels):
    """Builds the method, with every parameter moved at random."""

    def make(dtype=torch.float64, *, num_classes=COUNT, **keys):
        method = build_method(small_cfg(**keys), labels(num_classes))
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in method.named_parameters():
                if name != "model.token_embedding.weight":
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        method.to(dtype)
        if dtype != torch.float32:
            normalise = method.normalise
            method.normalise = lambda frames: normalise(frames).to(dtype)
        return method

    return make


@pytest.fixture
def make_clips(small_sizes):
    """Makes a batch of uint8 noise."""

    def make(num_videos=2, num_frames=4, *, num_classes=COUNT, seed=0, side=small_sizes.image_size):
        generator = torch.Generator().manual_seed(seed)
        shape = (num_videos, 3, num_frames, side, side)
        return VideoBatch(
            frames=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
            label=torch.randint(num_classes, (num_videos,), generator=generator),
            video_id=torch.arange(num_videos),
            view=torch.zeros(num_videos, dtype=torch.long),
        )

    return make
