import copy

import pytest
import torch
from torch import nn

from slowfast.models.clip import programs
from slowfast.models.clip.programs import FixedShapes


@pytest.fixture
def compiled(monkeypatch):
    """Compiles a module with a backend that does nothing; returns what calls it, and the list of its programs."""
    compile_module = nn.Module.compile

    def make(module):
        found = []

        def count(graph, inputs):
            found.append(graph)
            return graph.forward

        def with_fast_backend(module, *, options, **others):
            assert options == {"fallback_random": True}
            compile_module(module, backend=count, **others)

        monkeypatch.setattr(nn.Module, "compile", with_fast_backend)
        torch._dynamo.reset()
        return FixedShapes(module), found

    return make


def test_the_first_shapes_of_each_mode_have_programs(compiled):
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0))
    call, found = compiled(module)
    for mode in (True, False):
        module.train(mode)
        for size in (5, 4, 3, 2, 1, 4, 5):
            x = torch.randn(size, 3)
            torch.testing.assert_close(call(module, x), module.forward(x))
            with torch.no_grad():
                torch.testing.assert_close(call(module, x), module.forward(x))
    assert len(call._shapes) == 4
    assert all(len(shapes) == programs.MOST_SHAPES for shapes in call._shapes.values())
    assert len(found) == 4 * programs.MOST_SHAPES


def test_more_towers_than_torch_compile_takes_by_itself(compiled):
    module = nn.Linear(3, 2)
    call, _ = compiled(module)
    for width in range(4, 24):
        other = nn.Linear(width, 2)
        other_call = FixedShapes(other)
        for size in (2, 3):
            assert other_call(other, torch.randn(size, width)).shape == (size, 2)
            assert call(module, torch.randn(size, 3)).shape == (size, 2)


def test_copies_are_not_compiled(compiled):
    module = nn.Linear(3, 2)
    call, found = compiled(module)
    twin, twin_call = copy.deepcopy((module, call))
    assert twin_call(twin, torch.randn(5, 3)).shape == (5, 2)
    assert found == []
    call(module, torch.randn(5, 3))
    assert len(found) == 1
