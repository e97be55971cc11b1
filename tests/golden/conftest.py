"""Recordings of the reference, and the recipe that made them.

`golden_stdd.pt` lies in the directory that SLOWFAST_GOLDEN_DIR names (default: `data` beside this file). The shipped
copy keeps names and structure of the full recording but only what the tests read: of the block outputs the first block
and its first channels, of the block internals the first channels of one case, of the videos for spatial sampling one;
`channel_shift_T4_leak` is left out. Equal tensors share memory, and the archive is deflated. Tests take sizes, seeds
and values from the file.

`golden_tc_clip.pt` lies beside it. The shipped copy has what the tests read; random weights do not get smaller, so the
text tower and its prompt layers are in a second file, which the entry `continued_in` names.

`golden_ost.pt` lies there too. The shipped copy lacks the tokens of bare class names, which no score uses.

`golden_clip_fsar.pt` too, with the two matrices of its feed-forward part in files of their own. The shipped copy lacks
the second layer of the transformer and what needs it, the model from images on, the larger alignments, some lengths of
the transformer's input, and the tokens, distances and gradients of inputs of all cases but one or two.

The recipe, as far as it leaves no trace in the file:

- STDD's block ran with CHANNEL_FOLD 32 unless a case says otherwise; every other option had its default.
- TEMPORAL_SHUFFLE acted in evaluation too, so TEMPORAL_SHUFFLE_EVAL is on.
- Inputs are normalised frames: the method gets pixel mean 0 and deviation 1/255, which leaves them as they are.
- Whole models were seeded with 77 right before each forward; the tower alone with the seed of its case.
- The recorded distillation value is the term without its weight.
- `channel_shift` was recorded from code that shifts in runs of eight frames, whatever the length of a clip, and then
  reads the shifted memory of every head transposed. Ours is the correct shift; a test adds the second defect to it and
  meets the recording of clips of eight frames. With shorter ones the reference leaks from clip to clip.

`golden_tc_clip.pt`, `golden_ost.pt` and `golden_clip_fsar.pt`, in the same directory, hold what the code of TC-CLIP, of
OST and of CLIP-FSAR computes with small random weights.
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
PUBLISHED_BROKEN = {"channel_shift"}
MODEL_SEED = 77
TOLERANCE = 2e-5  # fp32 on the CPU, relative to the largest value
TYPE_KEY = "MODEL.TEMPORAL_MODELING_TYPE"


def golden_folder():
    return Path(os.environ.get("SLOWFAST_GOLDEN_DIR") or Path(__file__).parent / "data")


@lru_cache(maxsize=1)
def read_golden():
    return torch.load(golden_folder() / "golden_stdd.pt", weights_only=True)


def read_parts(name):
    """A recording with those of its entries that are in further files."""
    recording = torch.load(golden_folder() / name, weights_only=True)
    for part in recording.pop("continued_in", []):
        for entry, content in torch.load(golden_folder() / part, weights_only=True).items():
            recording[entry] |= content
    return recording


@lru_cache(maxsize=1)
def read_golden_tc_clip():
    return read_parts("golden_tc_clip.pt")


@lru_cache(maxsize=1)
def read_golden_ost():
    return torch.load(golden_folder() / "golden_ost.pt", weights_only=True)


@lru_cache(maxsize=1)
def read_golden_clip_fsar():
    return read_parts("golden_clip_fsar.pt")


def vision_type(name):
    """The temporal module of a case of the tower, `<type>` or `<type>_<variant>`."""
    return max((kind for kind in TEMPORAL_BLOCKS if f"{name}_".startswith(f"{kind}_")), key=len)


def pytest_generate_tests(metafunc):
    """Run a test once per recorded case that the package can build."""
    if "vision_case" in metafunc.fixturenames:
        names = [name for name in read_golden()["vision"] if vision_type(name) not in PUBLISHED_BROKEN]
        metafunc.parametrize("vision_case", names)
    if "stdd_case" in metafunc.fixturenames:
        metafunc.parametrize("stdd_case", list(read_golden()["stdd"]))
    if "model_case" in metafunc.fixturenames:
        models = read_golden()["models"]
        buildable = [n for n, model in models.items() if str(model["overrides"].get(TYPE_KEY)) in TEMPORAL_BLOCKS]
        metafunc.parametrize("model_case", buildable)
    if "tc_variant" in metafunc.fixturenames:
        metafunc.parametrize("tc_variant", list(read_golden_tc_clip()["variants"]))
    if "ost_solver_case" in metafunc.fixturenames:
        metafunc.parametrize("ost_solver_case", list(read_golden_ost()["solver"]))
    if "ost_loss_case" in metafunc.fixturenames:
        metafunc.parametrize("ost_loss_case", range(len(read_golden_ost()["loss"])))
    if "fsar_case" in metafunc.fixturenames:
        metafunc.parametrize("fsar_case", list(read_golden_clip_fsar()["cases"]))
    for fixture, training in (("fsar_train_case", True), ("fsar_eval_case", False)):
        if fixture in metafunc.fixturenames:
            cases = read_golden_clip_fsar()["cases"]
            metafunc.parametrize(fixture, [name for name, case in cases.items() if case["training"] == training])
    if "otam_case" in metafunc.fixturenames:
        metafunc.parametrize("otam_case", range(len(read_golden_clip_fsar()["otam"])))
    if "transformer_case" in metafunc.fixturenames:
        metafunc.parametrize("transformer_case", list(read_golden_clip_fsar()["temporal_transformer"]))


@pytest.fixture(scope="session")
def golden():
    return read_golden()


@pytest.fixture(scope="session")
def golden_tc_clip():
    return read_golden_tc_clip()


@pytest.fixture(scope="session")
def golden_ost():
    return read_golden_ost()


@pytest.fixture(scope="session")
def golden_clip_fsar():
    return read_golden_clip_fsar()


@pytest.fixture(scope="session")
def golden_resnet():
    return torch.load(golden_folder() / "golden_clip_resnet.pt", weights_only=True)


@pytest.fixture(scope="session")
def clip_state(golden):
    """CLIP's tensors in fp32, the token embedding made dense."""
    return dense_state(golden["clip_sd"])


@pytest.fixture(scope="session")
def tc_clip_state(golden_tc_clip):
    """The same of the CLIP in the recording of TC-CLIP."""
    return dense_state(golden_tc_clip["clip_sd"])


@pytest.fixture(scope="session")
def dense():
    """Makes the tensors of a recorded CLIP fp32 and dense."""
    return dense_state


def dense_state(recorded):
    state = {}
    for name, value in recorded.items():
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
    """Builds CLIP with a temporal module, its recorded parameters and the options of a recording."""

    def build(temporal_modeling_type, train=False, extra_params=None, **kwargs):
        own = {name: value.float() for name, value in (extra_params or {}).items()}
        clip = build_clip(
            {**clip_state, **own},
            temporal_modeling_type=temporal_modeling_type,
            block_options={**RECORDED_OPTIONS, **kwargs},
        )
        return clip.train(train)

    return build


@pytest.fixture(scope="session")
def vision_recording(golden):
    """Looks up the temporal module and the case of a name; a variant of a case has its input, but no parameters."""

    def look_up(name):
        kind = vision_type(name)
        base = {"input": golden["vision"][kind]["input"], "extra_params": {}, "block_out": []}
        return kind, {**base, **golden["vision"][name]}

    return look_up


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
    torch.save(golden["inputs"]["text_aug_features"].clone(), folder / "features.pt")
    return {"MODEL.CLIP_WEIGHTS": str(folder / "clip.pt"), "DATA.TEXT_AUG_FEATURE_FILE": str(folder / "features.pt")}


@pytest.fixture(scope="session")
def build_recorded_method(golden, label_set, weight_files):
    """Builds the whole method of a case from its configuration keys."""

    def build(model_case, distillation_mode="intended", ensemble_ratio=0.0):
        recorded = golden["models"][model_case]
        settings = {
            "MODEL.ARCH": "custom",
            "DATA.MEAN": [0.0] * 3,
            "DATA.STD": [1 / 255] * 3,
            "MODEL.DISTILLATION_MODE": distillation_mode,
            "MODEL.ENSEMBLE_RAWMODEL_RATIO": ensemble_ratio,
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
