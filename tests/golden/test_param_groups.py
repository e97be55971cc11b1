"""Parameter groups against the lists recorded from the reference."""

import pytest
import torch

from slowfast.engine.optim import DEFAULT_KEYWORD, OptimizerConfig, make_optimizer, parameter_groups


@pytest.fixture(scope="module")
def named_shapes(golden):
    """Names and shapes of a method with a projector, in the model's order, the frozen teacher left out."""
    model = next(m for m in golden["models"].values() if any(k.startswith("projector_v") for k in m["state_dict_keys"]))
    names = [name for name in model["state_dict_keys"] if not name.startswith("raw_model.")]
    projectors = dict(zip((n for n in names if n.startswith("projector_v")), model["projector_v"], strict=True))

    def shape(name):
        if name in projectors:
            return tuple(projectors[name].shape)
        value = golden["clip_sd"][name.removeprefix("model.")]
        return tuple(value["shape"]) if isinstance(value, dict) else tuple(value.shape)

    return [(name, shape(name)) for name in names]


def as_dicts(groups):
    return [
        {"weight_decay": g.weight_decay, "lr": g.lr, "lr_factor": g.lr_factor, "names": list(g.names)} for g in groups
    ]


def settings(recorded):
    return {
        "base_lr": recorded[0]["lr"] / recorded[0]["lr_factor"],
        "weight_decay": max(group["weight_decay"] for group in recorded),
        "zero_wd_1d": True,
    }


def test_default(golden, named_shapes):
    recorded = golden["param_groups"]["default"]
    assert as_dicts(parameter_groups(named_shapes, **settings(recorded))) == recorded


def test_factors(golden, named_shapes):
    # The recording froze everything (default factor 0) but the MLPs.
    recorded = golden["param_groups"]["factors"]
    factors = {DEFAULT_KEYWORD: 0.0, "mlp": recorded[0]["lr_factor"]}
    assert as_dicts(parameter_groups(named_shapes, **settings(recorded), factors=factors)) == recorded


def test_new_modules_of_tc_clip(golden_tc_clip):
    recorded = golden_tc_clip["param_groups"]
    names = [name for group in recorded for name in group["names"]]
    config = OptimizerConfig(
        method="adamw",
        base_lr=recorded[0]["lr"],
        weight_decay=recorded[0]["weight_decay"],
        betas=tuple(recorded[0]["betas"]),
        prefix_factors={"prompt_learner.": 10.0, "text_encoder.prompt_generation_layer.": 10.0},
    )
    parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in names}
    found = make_optimizer(parameters.items(), config).param_groups
    for group, expected in zip(found, recorded, strict=True):
        assert {key: group[key] for key in ("names", "weight_decay", "betas", "eps")} == {
            key: value for key, value in expected.items() if key != "lr"
        }
        assert group["lr"] == pytest.approx(expected["lr"])
