import math

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.engine.average import METHODS, AverageConfig, EpochWeights, average, epoch_weights

# A narrow bell far away leaves no weight, which is refused; this one never does.
BELL = {"gwa_mean": 8.0, "gwa_std": 10.0}
EPSILON = 1e-5


@st.composite
def windows(draw):
    """A configuration and which epochs of its window are there."""
    start = draw(st.integers(0, 5))
    end = draw(st.integers(start, start + 20))
    present = draw(st.sets(st.integers(start, end), min_size=1, max_size=6))
    decay = draw(st.floats(0.05, 0.95))
    return AverageConfig(start=start, end=end, ewa_decay=decay, **BELL), sorted(present)


def states_of(seed, count, *, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (torch.randn(*shape, generator=generator) * 3).to(dtype)

    return [{"model.w": draw(3, 4), "model.b": draw(5), "n": torch.tensor(k)} for k in range(count)]


def members_of(epochs, states):
    return [
        EpochWeights(epoch=epoch, name=f"{epoch}.pyth", load=lambda state=state: state)
        for epoch, state in zip(epochs, states, strict=True)
    ]


@given(windows(), st.sampled_from(METHODS))
def test_weights_sum_to_one(window, method):
    config, epochs = window
    weights = epoch_weights(method, epochs, config)
    assert list(weights) == epochs
    assert all(weight >= 0 for weight in weights.values())
    assert math.isclose(math.fsum(weights.values()), 1.0, rel_tol=1e-12)


@given(windows(), st.integers(0, 2**31), st.sampled_from(METHODS))
def test_an_average_of_equals_is_what_they_are(window, seed, method):
    config, epochs = window
    state = states_of(seed, 1)[0]
    found = average(members_of(epochs, [state] * len(epochs)), [method], config)[method].state
    assert set(found) == set(state)
    for name, value in state.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=EPSILON, atol=EPSILON), name


@given(windows(), st.integers(0, 2**31))
def test_an_average_lies_between_its_members(window, seed):
    config, epochs = window
    states = states_of(seed, len(epochs))
    results = average(members_of(epochs, states), METHODS, config)
    for method, name in ((method, name) for method in METHODS for name in ("model.w", "model.b")):
        stacked = torch.stack([state[name] for state in states])
        found = results[method].state[name]
        assert (found >= stacked.amin(0) - EPSILON).all()
        assert (found <= stacked.amax(0) + EPSILON).all()


@given(windows(), st.integers(0, 2**31))
def test_swa_is_the_mean(window, seed):
    config, epochs = window
    states = states_of(seed, len(epochs))
    found = average(members_of(epochs, states), ["swa"], config)["swa"].state
    for name in ("model.w", "model.b"):
        expected = sum(state[name].double() for state in states) / len(states)
        assert torch.allclose(found[name].double(), expected, rtol=EPSILON, atol=EPSILON)
    assert found["n"] == len(states) - 1, "integers are the last checkpoint's"


@given(windows(), st.integers(0, 2**31), st.sampled_from(METHODS))
def test_methods_side_by_side_are_methods_on_their_own(window, seed, method):
    config, epochs = window
    members = members_of(epochs, states_of(seed, len(epochs)))
    together, alone = average(members, METHODS, config)[method], average(members, [method], config)[method]
    assert together.weights == alone.weights
    assert all(torch.equal(together.state[name], value) for name, value in alone.state.items())


@given(windows(), st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_order_of_names_and_files_does_not_matter(window, seed, random):
    config, epochs = window
    states = states_of(seed, len(epochs))
    first = average(members_of(epochs, states), METHODS, config)
    names = list(states[0])
    random.shuffle(names)
    shuffled = [{name: state[name] for name in names} for state in states]
    again = average(members_of(epochs, shuffled), METHODS, config)
    for method in METHODS:
        assert all(torch.equal(first[method].state[name], again[method].state[name]) for name in names)
    # Except for ewa, which follows the epochs, a weight belongs to its epoch wherever the file stands in the list.
    place = random.sample(range(len(epochs)), len(epochs))
    moved = average(members_of([epochs[i] for i in place], [states[i] for i in place]), METHODS[:3], config)
    for method in METHODS[:3]:
        for name in ("model.w", "model.b"):
            assert torch.allclose(first[method].state[name], moved[method].state[name], rtol=EPSILON, atol=EPSILON)


@given(windows(), st.integers(0, 2**31), st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_is_averaged_in_full(window, seed, dtype):
    config, epochs = window
    states = states_of(seed, len(epochs), dtype=dtype)
    full = [{name: value.float() if value.is_floating_point() else value for name, value in s.items()} for s in states]
    found = average(members_of(epochs, states), METHODS, config)
    expected = average(members_of(epochs, full), METHODS, config)
    for method in METHODS:
        for name, value in expected[method].state.items():
            assert found[method].state[name].dtype == value.dtype
            assert torch.equal(found[method].state[name], value)
