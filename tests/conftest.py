"""A CLIP small enough for every test: 2 layers, width 64, patches of 8 on 32 pixels, the full vocabulary."""

import importlib.util
import json
import signal
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.models.build import build_clip
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.weights import random_clip_state_dict


def pytest_configure():
    """Property tests draw the same examples everywhere, and keep none."""
    if importlib.util.find_spec("hypothesis"):
        from hypothesis import settings

        settings.register_profile("same", derandomize=True, deadline=None, database=None, max_examples=60)
        settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def _interrupts():
    """A shell starts background jobs with interrupts ignored, and their processes inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_sizes():
    return ClipSizes(
        image_size=32, patch_size=8, vision_width=64, vision_layers=2, embed_dim=32, text_width=64, text_layers=2
    )


@pytest.fixture(scope="session")
def tiny_state(tiny_sizes):
    """Its random weights; shared, so leave them as they are."""
    return random_clip_state_dict(tiny_sizes, seed=5)


@pytest.fixture(scope="session")
def build_tiny(tiny_state):
    """Builds the tiny CLIP with a temporal module and its options."""

    def build(temporal_modeling_type=None, **options):
        return build_clip(tiny_state, temporal_modeling_type=temporal_modeling_type, block_options=options)

    return build


@pytest.fixture(scope="session")
def tiny_weights(tiny_state, tmp_path_factory):
    """The tiny CLIP as a file."""
    path = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(tiny_state, path)
    return path


@pytest.fixture(scope="session")
def tiny_labels():
    return LabelSet.from_names(["surfing", "pouring tea", "climbing stairs"])


@pytest.fixture(scope="session")
def write_descriptors():
    """Writes made-up descriptors of classes in label_db's layout: write_descriptors(folder, names, count=4)."""

    def write(folder, names, *, count=4):
        for kind, word in (("spatio", "scene"), ("temporal", "step")):
            rows = {
                str(number): [f"{word} {index} of {name}" for index in range(count)]
                for number, name in enumerate(names)
            }
            path = folder / f"{kind}_descriptors" / f"{count}_descriptors.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows), encoding="utf-8")

    return write


@pytest.fixture(scope="session")
def descriptor_keys(write_descriptors, tiny_labels, tmp_path_factory):
    """What a configuration says of the descriptors of a few classes, those of `tiny_labels` among them."""
    folder = tmp_path_factory.mktemp("descriptors")
    names = [*tiny_labels.names, "archery"]
    write_descriptors(folder, names)
    (folder / "classes.json").write_text(json.dumps(dict(enumerate(names))), encoding="utf-8")
    return {
        "OST.DES_SPATIAL": str(folder / "spatio_descriptors" / "4_descriptors.json"),
        "OST.DES_TEMPORAL": str(folder / "temporal_descriptors" / "4_descriptors.json"),
        "OST.DES_CLASSES": str(folder / "classes.json"),
    }


@pytest.fixture(scope="session")
def make_batch(tiny_sizes):
    """Makes a batch of uint8 noise for the tiny CLIP."""

    def make(num_videos=2, num_frames=4, *, num_classes=3, seed=0):
        generator = torch.Generator().manual_seed(seed)
        side = tiny_sizes.image_size
        return VideoBatch(
            frames=torch.randint(256, (num_videos, 3, num_frames, side, side), generator=generator, dtype=torch.uint8),
            label=torch.randint(num_classes, (num_videos,), generator=generator),
            video_id=torch.arange(num_videos),
            view=torch.zeros(num_videos, dtype=torch.long),
        )

    return make


@pytest.fixture
def tiny_frames(make_batch):
    """Normalised frames, (2, 3, 4, 32, 32)."""
    return make_batch().frames.float() / 127.5 - 1


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_llm():
    """A language model's server, see fake_llm.py."""
    server = _load("fake_llm").FakeLLM()
    yield server
    server.close()


@pytest.fixture(scope="session")
def write_miniature():
    """Writes a small copy of a dataset as downloaded, see miniature.py: write_miniature(name, folder, ...)."""
    return _load("miniature").write_miniature


@pytest.fixture(scope="session")
def miniature(write_miniature, tmp_path_factory):
    """One copy of each for all tests, so leave it as it is: miniature(name, **options)."""
    return cache(lambda name, **options: write_miniature(name, tmp_path_factory.mktemp("miniature") / name, **options))
