"""ViFi-CLIP on a small CLIP, with parameters that nothing is special about."""

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
ORACLE = Path(__file__).resolve().parents[3] / "oracles" / "plain_vifi_clip.py"


@pytest.fixture(scope="session")
def plain_vifi_clip():
    """The class of the oracle."""
    spec = importlib.util.spec_from_file_location("plain_vifi_clip", ORACLE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PlainVifiClip


@pytest.fixture(scope="session")
def small_sizes():
    """Four blocks in either tower, two heads, 9 patches."""
    return ClipSizes(
        image_size=24, patch_size=8, vision_width=128, vision_layers=4, embed_dim=32, text_width=64, text_layers=4
    )


@pytest.fixture(scope="session")
def small_weights(small_sizes, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(random_clip_state_dict(small_sizes, seed=6), path)
    return path


@pytest.fixture(scope="session")
def labels():
    return lambda: LabelSet.from_names(NAMES)


@pytest.fixture
def small_cfg(tiny_cfg, small_weights):
    """Makes a configuration of the small CLIP; keys of the section VIFI_CLIP go without their section."""

    def make(**keys):
        elsewhere = [key for key in keys if "." in key or key == "RNG_SEED"]
        full = {key if key in elsewhere else f"VIFI_CLIP.{key}": value for key, value in keys.items()}
        settings = {"MODEL.CLIP_WEIGHTS": str(small_weights), "MODEL.CLIP_ACTIVATION": "quick_gelu", **full}
        return tiny_cfg(METHOD="vifi_clip", **settings)

    return make


@pytest.fixture
def make(small_cfg, labels):
    """Builds the method as it starts."""

    def build(*, training=True, **keys):
        return build_method(small_cfg(**keys), labels(), training=training)

    return build


@pytest.fixture
def build(make):
    """Builds the method, with every parameter moved at random."""

    def moved(dtype=torch.float64, **keys):
        method, generator = make(**keys), torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in method.named_parameters():
                if name != "model.token_embedding.weight":
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        method.to(dtype)
        if dtype != torch.float32:
            normalise = method.normalise
            method.normalise = lambda frames: normalise(frames).to(dtype)
        return method

    return moved


@pytest.fixture
def make_clips(small_sizes):
    """Makes a batch of uint8 noise."""

    def make(num_videos=2, num_frames=3, *, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (num_videos, 3, num_frames, small_sizes.image_size, small_sizes.image_size)
        return VideoBatch(
            frames=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
            label=torch.randint(len(NAMES), (num_videos,), generator=generator),
            video_id=torch.arange(num_videos),
            view=torch.zeros(num_videos, dtype=torch.long),
        )

    return make
