"""What turns the recording of TC-CLIP into ours: names, keys, a method with the recorded parameters.

The recipe, as far as it leaves no trace in the file:

- Options are those of `meta`, and `overrides` under the official names; unknown ones are an error.
- `vp_from_clip` and `ctx_from_words` leave the prompt layers, or the words, as they are built.
- Inputs are normalised frames, (B, T, 3, H, W), which the method must leave as they are.
"""

import re
from types import SimpleNamespace

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.build import build_method

PLACES = (
    ("module.", ""),
    ("image_encoder.", "model.visual."),
    ("text_encoder.prompt_generation_layer.", "text.prompt_generation_layer."),
    ("text_encoder.", "model."),
    ("prompt_learner.", "text.prompt_learner."),
    ("logit_scale", "model.logit_scale"),
)
META_KEYS = (
    "context_token_k",
    "seed_token_a",
    "tome_r",
    "tome_d",
    "prompt_generation_layer_level",
    "n_ctx",
    "ctx_init",
)
LEFT_AS_BUILT = {"vp_from_clip": "text.prompt_generation_layer.", "ctx_from_words": "text.prompt_learner."}


def own_name(official):
    """Our name of an official parameter, and which third of it that is: "q", "k", "v", or "" for all of it."""
    name = official
    for theirs, ours in PLACES:
        if name.startswith(theirs):
            name = ours + name[len(theirs) :]
            if theirs != "module.":
                break
    found = re.fullmatch(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)", name)
    return (f"{found[1]}in_proj_{found[3]}", found[2]) if found else (name, "")


def pick(tensor, part):
    return tensor.chunk(3)["qkv".index(part)] if part else tensor


def key_and_value(name, value):
    """A key of ours for an option under its official name."""
    if name == "prompt_generation_layer_level":
        value = [int(level) for level in value.split("+")] if isinstance(value, str) else value
        value = [value] if isinstance(value, int) else list(value)
    elif name == "freeze":
        value = value or ""
    key = f"TC_CLIP.{name.upper()}"
    default = get_cfg().leaves()[key]  # an unknown option ends here
    return key, float(value) if isinstance(default, float) else value


@pytest.fixture(scope="session")
def official():
    """Functions that translate names: own_name(official) -> (ours, part), pick(tensor, part)."""
    return SimpleNamespace(own_name=own_name, pick=pick)


@pytest.fixture(scope="session")
def tc_weights(tc_clip_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden_tc_clip") / "clip.pt"
    torch.save(tc_clip_state, path)
    return path


@pytest.fixture(scope="session")
def tc_settings(golden_tc_clip, tc_weights):
    """Keys of the recording, with those of official options on top."""
    meta = golden_tc_clip["meta"]

    def make(overrides):
        options = {**{name: meta[name] for name in META_KEYS}, **overrides}
        return {
            "METHOD": "tc_clip",
            "MODEL.ARCH": "custom",
            "MODEL.CLIP_WEIGHTS": str(tc_weights),
            "MODEL.CLIP_ACTIVATION": "quick_gelu",
            "DATA.MEAN": [0.0] * 3,
            "DATA.STD": [1 / 255] * 3,
            "DATA.NUM_FRAMES": meta["dims"]["T"],
            **dict(key_and_value(name, value) for name, value in options.items()),
        }

    return make


@pytest.fixture(scope="session")
def make_cfg(tc_settings):
    """Makes a configuration with official options and further keys of ours."""

    def make(overrides=None, **keys):
        cfg = get_cfg()
        settings = {**tc_settings(overrides or {}), **keys}
        cfg.merge_from_list([item for pair in settings.items() for item in pair])
        return cfg

    return make


@pytest.fixture(scope="session")
def build_tc(golden_tc_clip, make_cfg):
    """Builds the method of a case, "" for the base, with its recorded parameters, in a precision."""

    def build(case="", dtype=torch.float32, *, classes=None, **keys):
        overrides = golden_tc_clip["variants"][case]["overrides"] if case else {}
        names = classes or golden_tc_clip["text"]["classes"]
        method = build_method(make_cfg(overrides, **keys), LabelSet.from_names(names))
        own = dict(method.named_parameters())
        given = dict(golden_tc_clip["extra_params"])
        if overrides.get("positional_embedding_type") == "joint":
            given["image_encoder.positional_embedding"] = golden_tc_clip["joint_positional_embedding"]
        absent = []
        for official_name, value in given.items():
            name, part = own_name(official_name)
            assert not part
            if case in LEFT_AS_BUILT and name.startswith(LEFT_AS_BUILT[case]):
                continue
            if name in own:
                assert own[name].shape == value.shape, name
                own[name].data.copy_(value)
            else:
                absent.append(name)
        levels = len(method.text.levels)
        for name in absent:  # only what the case does not have
            layer = re.match(r"text\.prompt_generation_layer\.(\d+)\.", name)
            no_bias = name.endswith("local_global_bias_table") and overrides.get("local_global_bias") is False
            assert no_bias or (layer and int(layer[1]) >= levels), name
        method.to(dtype)
        method.normalise = lambda frames: frames.to(dtype)
        return method

    return build


@pytest.fixture(scope="session")
def tc_batch(golden_tc_clip):
    """Makes the recorded batch; other frames or targets on request, `weights` None for the hard labels."""
    inputs = golden_tc_clip["inputs"]

    def make(frames=None, weights=inputs["soft_targets"]):
        frames = inputs["video"] if frames is None else frames
        return VideoBatch(
            frames=frames.float().transpose(1, 2),
            label=inputs["labels"],
            video_id=torch.arange(len(frames)),
            view=torch.zeros(len(frames), dtype=torch.long),
            weights=weights,
        )

    return make


@pytest.fixture(scope="session")
def near():
    """Compares with a recorded value, which is exact in fp64 (`exact`), or stored in fp32."""

    def check(found, expected, *, exact=False, relative=1e-5, absolute=2e-5):
        expected = expected if isinstance(expected, torch.Tensor) else torch.tensor(expected, dtype=torch.float64)
        found = found.detach()
        assert found.shape == expected.shape
        error = (found.double() - expected.double()).abs().max().item()
        largest = expected.double().abs().max().item()
        assert error <= (1e-10 * max(1.0, largest) if exact else absolute + relative * largest), error

    return check


@pytest.fixture(scope="session")
def check_gradients(golden_tc_clip, official):
    """Compares all gradients of a model with recorded norms; `rename` maps the file's names to ours."""
    skipped = set(golden_tc_clip["base"]["zero_by_symmetry"])

    def check(model, norms, dtype, rename=official.own_name):
        own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        seen = set()
        for official_name, expected in norms.items():
            name, part = rename(official_name)
            seen.add(name)
            found = pick(own[name].grad, part).double().norm().item()
            if dtype == torch.float64:
                assert abs(found - expected) <= 1e-9 * abs(expected) + 1e-13, official_name
            elif official_name not in skipped:
                assert abs(found - expected) <= 3e-4 * abs(expected) + 2e-6, official_name
        assert seen == set(own)

    return check
