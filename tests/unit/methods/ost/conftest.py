"""OST on the tiny CLIP, with made-up descriptors and parameters that nothing is special about."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.methods.build import build_method

NAMES = ("surfing", "pouring tea", "ApplyLipstick", "riding a very old bike down a hill", "push_up")
ORACLE = Path(__file__).resolve().parents[3] / "oracles" / "plain_ost.py"
COUNT = 3
TEXTS = {
    "spatio": ("a {} scene", "grass", "somebody's hands, close up, in the evening light of a late summer"),
    "temporal": ("Begin.", "Go on with {} until nothing is left to do", "Look at what has become of it"),
}


@pytest.fixture(scope="session")
def plain_ost():
    """The class of the oracle."""
    spec = importlib.util.spec_from_file_location("plain_ost", ORACLE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PlainOst


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Keys of files with three descriptors for each of the classes, of all lengths."""
    folder = tmp_path_factory.mktemp("ost")
    for kind, texts in TEXTS.items():
        rows = {str(number): [text.format(name) for text in texts] for number, name in enumerate(NAMES)}
        (folder / f"{kind}.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(dict(enumerate(NAMES))), encoding="utf-8")
    return {
        "OST.DES_SPATIAL": str(folder / "spatio.json"),
        "OST.DES_TEMPORAL": str(folder / "temporal.json"),
        "OST.DES_CLASSES": str(folder / "classes.json"),
    }


@pytest.fixture(scope="session")
def labels():
    return lambda *names: LabelSet.from_names(names or NAMES)


@pytest.fixture
def ost_cfg(tiny_cfg, files):
    keys = {"METHOD": "ost", "OST.N": COUNT, "MODEL.CLIP_ACTIVATION": "quick_gelu", **files}
    return lambda **changed: tiny_cfg(**{**keys, **changed})


@pytest.fixture
def build(ost_cfg, labels):
    """Builds the method, with every parameter of its towers moved at random."""

    def make(dtype=torch.float64, *, names=(), **keys):
        method = build_method(ost_cfg(**keys), labels(*names))
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in method.named_parameters():
                if name not in ("model.token_embedding.weight", "model.logit_scale"):
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        method.to(dtype)
        if dtype != torch.float32:
            normalise = method.normalise
            method.normalise = lambda frames: normalise(frames).to(dtype)
        return method

    return make
