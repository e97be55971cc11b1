"""The state of an optimiser fits and is finite, or is refused by name."""

import copy

import pytest
import torch
from torch import nn

from slowfast.engine.optim import OptimizerConfig, make_optimizer
from slowfast.engine.optimizer_state import is_optimizer_state, load_optimizer_state


def stepped(method="adamw"):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    optimizer = make_optimizer(
        module.named_parameters(), OptimizerConfig(method=method, base_lr=0.1, weight_decay=0.1, zero_wd_1d=True)
    )
    module(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


def changed(state, path, value):
    state = copy.deepcopy(state)
    inner = state
    for name in path[:-1]:
        inner = inner[name]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return state


@pytest.mark.parametrize("method", ["sgd", "adam", "adamw"])
def test_round_trip(method, tmp_path):
    first, second = stepped(method), stepped(method)
    torch.save(first.state_dict(), tmp_path / "o.pt")
    load_optimizer_state(second, torch.load(tmp_path / "o.pt", weights_only=True), source=tmp_path / "o.pt")
    left, right = first.state_dict(), second.state_dict()
    assert left["param_groups"] == right["param_groups"]
    for key, entry in left["state"].items():
        assert all(torch.equal(torch.as_tensor(right["state"][key][k]), torch.as_tensor(v)) for k, v in entry.items())


def test_a_parameter_that_never_moved_has_no_state():
    optimizer = stepped()
    state = changed(optimizer.state_dict(), ("state", 1), None)
    load_optimizer_state(stepped(), state, source="x.pyth")


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("state", 0, "exp_avg"), torch.zeros(9, 9), "'exp_avg' of parameter 0 has the shape (9, 9)"),
        (("state", 0, "exp_avg"), torch.full((2, 3), torch.nan), "'exp_avg' of parameter 0 holds nan or infinity"),
        (("state", 0, "exp_avg"), None, "parameter 0 lacks exp_avg; it is of another optimiser"),
        (("state", 0, "step"), "one", "'step' of parameter 0 is 'one', expected a number or a tensor"),
        (("state", 0, "step"), float("inf"), "'step' of parameter 0 is inf, expected a number or a tensor"),
        (("state", 0), [1], "parameter 0 has [1], expected a dict"),
    ],
)  # fmt: skip
def test_faults(path, value, fault):
    optimizer = stepped()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"^x\.pyth: optimizer_state: ") as caught:
        load_optimizer_state(optimizer, changed(optimizer.state_dict(), path, value), source="x.pyth")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]


def test_a_state_of_another_optimiser():
    with pytest.raises(ValueError, match=r"parameter 0 lacks step"):
        load_optimizer_state(stepped(), stepped("sgd").state_dict(), source="x.pyth")


@pytest.mark.parametrize(
    "state",
    [None, [], {}, {"state": {}}, {"state": {}, "param_groups": [1]}, {"state": {}, "param_groups": [{"params": 3}]}],
)
def test_what_is_none(state):
    assert not is_optimizer_state(state)


def test_settings_are_those_of_this_run():
    optimizer, state = stepped(), stepped().state_dict()
    for group in state["param_groups"]:
        group |= {"weight_decay": 0.7, "betas": (0.5, 0.6), "lr": "fast", "fused": None}
    before = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    load_optimizer_state(optimizer, state, source="x.pyth")
    after = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    assert after == before
