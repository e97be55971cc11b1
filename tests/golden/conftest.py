"""Recordings of the reference, and the recipe that made them.

`golden_stdd.pt` lies in the directory that SLOWFAST_GOLDEN_DIR names (default: `data` beside this file). The shipped
copy keeps names and structure of the full recording but only what the tests read: of the block outputs the first block
and its first channels, of the block internals one case. Tests take sizes, seeds and values from the file.

The recipe, as far as it leaves no trace in the file:

- STDD's block ran with CHANNEL_FOLD 32 unless a case says otherwise; every other option had its default.
- TEMPORAL_SHUFFLE acted in evaluation too, so TEMPORAL_SHUFFLE_EVAL is on.
- Inputs are normalised frames: the method gets pixel mean 0 and deviation 1/255, which leaves them as they are.
- Whole models were seeded with 77 right before each forward; the tower alone with the seed of its case.
- The recorded distillation value is the term without its weight.
"""

import os
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.build import build_method
from slowfast.models.build import build_clip
from slowfast.models.temporal import TEMPORAL_BLOCKS

RECORDED_OPTIONS = {"channel_fold": 32, "temporal_shuffle_eval": True}
MODEL_SEED = 77
TOLERANCE = 2e-5  # fp32 on the CPU, relative to the largest value
TYPE_KEY = "MODEL.TEMPORAL_MODELING_TYPE"


@lru_cache(maxsize=1)
def read_golden():
    folder = Path(os.environ.get("SLOWFAST_GOLDEN_DIR") or Path(__file__).parent / "data")
    return torch.load(folder / "golden_stdd.pt", weights_only=True)


def pytest_generate_tests(metafunc):
    """Run a test once per recorded case that the package can build."""
    if "vision_case" in metafunc.fixturenames:
        metafunc.parametrize("vision_case", [name for name in read_golden()["vision"] if name in TEMPORAL_BLOCKS])
    if "stdd_case" in metafunc.fixturenames:
        metafunc.parametrize("stdd_case", list(read_golden()["stdd"]))
    if "model_case" in metafunc.fixturenames:
        models = read_golden()["models"]
        buildable = [n for n, model in models.items() if str(model["overrides"].get(TYPE_KEY)) in TEMPORAL_BLOCKS]
        metafunc.parametrize("model_case", buildable)


@pytest.fixture(scope="session")
def golden():
    return read_golden()


@pytest.fixture(scope="session")
def clip_state(golden):
    """CLIP's tensors in fp32, the token embedding made dense."""
    state = {}
    for name, value in golden["clip_sd"].items():
        if isinstance(value, dict):
            dense = torch.zeros(tuple(value["shape"]))
            dense[value["sparse_rows"].long()] = value["values"].float()
            state[name] = dense
        else:
            state[name] = value.float()
    return state


@pytest.fixture(scope="session")
def label_set(golden):
    classes = golden["meta"]["classes"]
    return LabelSet.from_names([classes[str(index)] for index in range(len(classes))])


@pytest.fixture(scope="session")
def assert_close():
    """Compares within the tolerance, relative to the largest expected value."""

    def check(found, expected, tolerance=TOLERANCE):
        found, expected = found.detach().float(), expected.float()
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())

    return check


@pytest.fixture(scope="session")
def build_tower(clip_state):
    """Builds CLIP with a temporal module and the options of a recording."""

    def build(temporal_modeling_type, train=False, **kwargs):
        clip = build_clip(
            clip_state,
            temporal_modeling_type=temporal_modeling_type,
            block_options={**RECORDED_OPTIONS, **kwargs},
        )
        return clip.train(train)

    return build


@pytest.fixture(scope="session")
def stdd_recording(golden):
    """Looks up a case of the STDD tower; one that only changes the input (`<case>_T<n>`) inherits from its case."""

    def look_up(name):
        case = golden["stdd"][name]
        if "kwargs" in case:
            return {"input": "video", **case}
        return {**golden["stdd"][name.rsplit("_T", 1)[0]], "masks": [], "block_out": [], **case}

    return look_up


@pytest.fixture(scope="session")
def weight_files(golden, clip_state, tmp_path_factory):
    """CLIP's weights and the prompt features as files."""
    folder = tmp_path_factory.mktemp("golden")
    torch.save(clip_state, folder / "clip.pt")
    torch.save(golden["inputs"]["text_aug_features"], folder / "features.pt")
    return {"MODEL.CLIP_WEIGHTS": str(folder / "clip.pt"), "DATA.TEXT_AUG_FEATURE_FILE": str(folder / "features.pt")}


@pytest.fixture(scope="session")
def build_recorded_method(golden, label_set, weight_files):
    """Builds the whole method of a case from its configuration keys."""

    def build(model_case, distillation_mode="intended"):
        recorded = golden["models"][model_case]
        settings = {
            "MODEL.ARCH": "custom",
            "DATA.MEAN": [0.0] * 3,
            "DATA.STD": [1 / 255] * 3,
            "MODEL.DISTILLATION_MODE": distillation_mode,
            **{f"MODEL.{name.upper()}": value for name, value in RECORDED_OPTIONS.items()},
            **weight_files,
            **recorded["overrides"],
        }
        cfg = get_cfg()
        cfg.merge_from_list([item for pair in settings.items() for item in pair])
        method = build_method(cfg, label_set)
        first, last = recorded["projector_v"]
        method.projector_v.load_state_dict({"0.weight": first, "2.weight": last})
        return method

    return build


@pytest.fixture(scope="session")
def recorded_batch(golden):
    video, labels = golden["inputs"]["video"].float(), golden["inputs"]["labels"]
    return VideoBatch(frames=video, label=labels, video_id=torch.arange(len(labels)), view=torch.zeros_like(labels))


@pytest.fixture(scope="session")
def run_recorded():
    """Calls a method or a tower as the recording did."""

    def run(function, *args, seed=MODEL_SEED):
        torch.manual_seed(seed)
        return function(*args)

    return run
