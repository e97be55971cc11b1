"""The CLIP that a training starts from: found by name or file, or made up; and its activation."""

import logging
import re
from dataclasses import dataclass, replace

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.methods import METHODS
from slowfast.methods.build import build_method
from slowfast.models.clip.arch import PUBLISHED, ClipSizes
from slowfast.models.initial import RANDOM, choose_activation, clip_weights


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the options of every method say about its CLIP."""

    arch: str = "vitb16"
    clip_weights: str = ""
    clip_cache_dir: str = ""
    clip_allow_torchscript: bool = False
    activation: str = "auto"
    seed: int = 3


@pytest.fixture
def small_vitb16(tiny_sizes, monkeypatch):
    """Gives vitb16 the sizes of the tiny CLIP."""
    monkeypatch.setitem(PUBLISHED, "vitb16", replace(PUBLISHED["vitb16"], sizes=tiny_sizes))


@pytest.mark.parametrize(("arch", "file"), [("slowfast", ""), ("custom", ""), ("custom", RANDOM)])
def test_unknown_architecture(arch, file):
    message = (
        f"MODEL.ARCH: unknown value {arch!r}; allowed: vitb32, vitb16, vitl14, rn50, "
        "or custom with MODEL.CLIP_WEIGHTS naming a file"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clip_weights(Choice(arch=arch, clip_weights=file))


def test_weights_of_other_sizes_than_the_architecture(tiny_weights, tiny_sizes):
    message = f"MODEL.ARCH: is vitb16, but {tiny_weights} holds {tiny_sizes}; set MODEL.ARCH to custom to use its sizes"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clip_weights(Choice(clip_weights=str(tiny_weights)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arch", ["slowfast", "vitb16"])
def test_every_method_asks_the_same_questions(tiny_weights, tiny_labels, method, arch):
    cfg = get_cfg()
    cfg.merge_from_list(["METHOD", method, "MODEL.ARCH", arch, "MODEL.CLIP_WEIGHTS", str(tiny_weights)])
    with pytest.raises(ValueError, match=r"^MODEL.ARCH: "):
        build_method(cfg, tiny_labels)


@pytest.mark.usefixtures("small_vitb16")
def test_random_weights_have_the_sizes_of_the_architecture(tiny_sizes):
    (state, activation), source = clip_weights(Choice(clip_weights=RANDOM))
    (again, _), _ = clip_weights(Choice(clip_weights=RANDOM))
    (other, _), _ = clip_weights(Choice(clip_weights=RANDOM, seed=4))
    assert (source, activation) == (RANDOM, None)
    assert ClipSizes.from_state_dict(state) == tiny_sizes
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not torch.equal(state["visual.proj"], other["visual.proj"])


@pytest.mark.usefixtures("small_vitb16")
@pytest.mark.parametrize("arch", ["vitb16", "custom"])
def test_weights_of_a_file(tiny_weights, tiny_state, arch):
    (state, activation), source = clip_weights(Choice(arch=arch, clip_weights=str(tiny_weights)))
    assert source == str(tiny_weights)
    assert activation is None
    assert all(torch.equal(state[name], tensor) for name, tensor in tiny_state.items())


def test_without_a_file_the_published_archive_is_meant(monkeypatch, tmp_path):
    asked = []

    def read(source, *, cache_dir, allow_torchscript):
        asked.append((source, cache_dir, allow_torchscript))
        raise ValueError("not here")

    monkeypatch.setattr("slowfast.models.initial.read_clip", read)
    for cache in ("", str(tmp_path)):
        with pytest.raises(ValueError, match="not here"):
            clip_weights(Choice(arch="vitl14", clip_cache_dir=cache, clip_allow_torchscript=bool(cache)))
    assert asked == [("vitl14", None, False), ("vitl14", str(tmp_path), True)]


@pytest.mark.parametrize(
    ("wanted", "recorded", "expected"),
    [
        ("auto", "gelu", "gelu"),
        ("auto", "quick_gelu", "quick_gelu"),
        ("auto", None, "quick_gelu"),
        ("gelu", None, "gelu"),
        ("gelu", "gelu", "gelu"),
        ("quick_gelu", None, "quick_gelu"),
    ],
)
@pytest.mark.parametrize("source", ["a.pt", RANDOM])
def test_activation(caplog, wanted, recorded, expected, source):
    with caplog.at_level(logging.WARNING, logger="slowfast"):
        assert choose_activation(Choice(activation=wanted), recorded, source=source) == expected
    guessed = wanted == "auto" and recorded is None and source != RANDOM
    assert [record.getMessage() for record in caplog.records] == [
        "a.pt does not say which activation it was trained with: taking QuickGELU, OpenAI's; "
        "set MODEL.CLIP_ACTIVATION to gelu if it is one of laion's"
    ] * guessed


def test_activation_against_the_file():
    message = "MODEL.CLIP_ACTIVATION: is gelu, but a.pt was trained with quick_gelu; allowed: auto"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        choose_activation(Choice(activation="gelu"), "quick_gelu", source="a.pt")
