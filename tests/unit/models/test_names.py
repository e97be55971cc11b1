import copy
import pickle

import torch
from torch import nn

from slowfast.models.names import hoist


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.layer = nn.Linear(2, 3)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.other = nn.Linear(1, 1)
        hoist(self, "inner")


NAMES = ["scale", "layer.weight", "layer.bias", "other.weight", "other.bias"]


def test_entries_of_the_child_appear_as_the_parents_own():
    assert sorted(Outer().state_dict()) == sorted(NAMES)
    assert {name for name, _ in Outer().named_parameters()} > {"inner.scale", "inner.layer.weight"}


def test_round_trip_strict_and_nested():
    tree = nn.ModuleDict({"a": Outer(), "b": Outer()})
    with torch.no_grad():
        for parameter in tree.parameters():
            parameter.normal_()
    state = tree.state_dict()
    assert "a.scale" in state
    other = nn.ModuleDict({"a": Outer(), "b": Outer()})
    before = list(state)
    other.load_state_dict(state)
    assert list(state) == before  # the caller's dict stays as it is
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())


def test_absent_and_foreign_names_are_reported():
    state = Outer().state_dict()
    del state["scale"]
    state["foreign"] = torch.ones(1)
    report = Outer().load_state_dict(state, strict=False)
    assert report.missing_keys == ["inner.scale"]
    assert report.unexpected_keys == ["foreign"]


def test_copies_keep_the_names():
    module = Outer()
    assert sorted(copy.deepcopy(module).state_dict()) == sorted(NAMES)
    assert sorted(pickle.loads(pickle.dumps(module)).state_dict()) == sorted(NAMES)
