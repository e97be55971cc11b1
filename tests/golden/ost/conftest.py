"""What turns the recording of OST into ours: names, files of descriptors, a method with the recorded weights.

The recipe, as far as it leaves no trace in the file:

- The stopping decision is common to all problems of a call, and of a kind: OST.STOP batch.
- Inputs are normalised frames, (B, T, 3, H, W), which the method must leave as they are.
- The gather of two processes gave a gradient to local rows alone, and gradients were averaged.
"""

import json
from types import SimpleNamespace

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.build import build_method
from slowfast.models.alignment import SinkhornOptions

KINDS = ("spatial", "temporal")


def own_name(official):
    """Our name of an official parameter."""
    name = official.removeprefix("module.").replace("image_encoder.", "visual.", 1)
    return "model." + name.removeprefix("text_encoder.")


def assert_near(found, expected, *, relative=0.0, absolute=0.0):
    """Compare within `absolute`, and `relative` to the largest expected value."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    found = found.detach().double()
    assert found.shape == expected.shape
    error = (found - expected).abs().max().item()
    assert error <= absolute + relative * expected.abs().max().item(), error


@pytest.fixture(scope="session")
def official():
    return SimpleNamespace(own_name=own_name, kinds=KINDS)


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """A name of the file's; its dtype; what values and what gradients may be off by, relative to the largest."""
    exact = request.param == "float64"
    return SimpleNamespace(
        name=request.param,
        dtype=getattr(torch, request.param),
        values=1e-10 if exact else 2e-5,
        gradients=1e-8 if exact else 3e-4,
        exact=exact,
    )


@pytest.fixture(scope="session")
def near():
    return assert_near


@pytest.fixture(scope="session")
def sinkhorn_options(golden_ost):
    """Makes options of the recording with others on top."""
    meta = golden_ost["meta"]

    def make(**changed):
        recorded = {"eps": meta["eps"], "max_iterations": meta["max_iter"], "tolerance": meta["stop"]}
        return SinkhornOptions(**{**recorded, "stop": "batch", **changed})

    return make


@pytest.fixture(scope="session")
def ost_labels(golden_ost):
    return LabelSet.from_names(golden_ost["text"]["classes"])


@pytest.fixture(scope="session")
def ost_settings(golden_ost, dense, tmp_path_factory):
    """Keys of the recording; its weights and descriptors lie in files."""
    folder, meta = tmp_path_factory.mktemp("golden_ost"), golden_ost["meta"]
    torch.save(dense(golden_ost["clip_sd"]), folder / "clip.pt")
    for kind in KINDS:
        rows = {str(number): texts for number, texts in enumerate(golden_ost["text"][kind])}
        (folder / f"{kind}.json").write_text(json.dumps(rows), encoding="utf-8")
    return {
        "METHOD": "ost",
        "MODEL.ARCH": "custom",
        "MODEL.CLIP_WEIGHTS": str(folder / "clip.pt"),
        "MODEL.CLIP_ACTIVATION": "quick_gelu",
        "DATA.NUM_FRAMES": meta["dims"]["T"],
        "OST.N": meta["dims"]["N"],
        "OST.DES_SPATIAL": str(folder / "spatial.json"),
        "OST.DES_TEMPORAL": str(folder / "temporal.json"),
        "OST.EPS": meta["eps"],
        "OST.MAX_ITERATIONS": meta["max_iter"],
        "OST.TOLERANCE": meta["stop"],
        "OST.STOP": "batch",
    }


@pytest.fixture(scope="session")
def make_cfg(ost_settings):
    def make(**keys):
        cfg = get_cfg()
        cfg.merge_from_list([item for pair in {**ost_settings, **keys}.items() for item in pair])
        return cfg

    return make


@pytest.fixture(scope="session")
def build_ost(make_cfg, ost_labels):
    """Builds the method in a precision, with further keys; frames stay as they are."""

    def build(dtype=torch.float32, **keys):
        method = build_method(make_cfg(**keys), ost_labels).to(dtype)
        method.normalise = lambda frames: frames.to(dtype)
        return method

    return build


@pytest.fixture(scope="session")
def ost_batch(golden_ost):
    video, label = golden_ost["inputs"]["video"].float().transpose(1, 2), golden_ost["inputs"]["labels"]
    return VideoBatch(video, label=label, video_id=torch.arange(len(label)), view=torch.zeros_like(label))
