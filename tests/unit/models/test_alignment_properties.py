"""What holds for every transport plan."""

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.methods.ost.scores import descriptor_logits, make_matcher
from slowfast.models.alignment import SinkhornOptions, sinkhorn

CONVERGED = SinkhornOptions(tolerance=1e-12, max_iterations=2000)


@st.composite
def problems(draw, *, spread=0.3):
    """Cosines of some videos and texts, (2, P, T, N)."""
    shape = [2, draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 6))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    width = draw(st.floats(0, spread))
    return (draw(st.floats(-0.3, 0.4)) + width * (2 * torch.rand(shape, generator=generator) - 1)).double()


options = st.builds(
    SinkhornOptions,
    eps=st.sampled_from([0.05, 0.1, 0.5]),
    max_iterations=st.sampled_from([1, 3, 100]),
    stop=st.sampled_from(["each", "batch"]),
    log_domain=st.booleans(),
)


def near(found, expected, tolerance):
    assert (found - expected).abs().max().item() <= tolerance


@given(cosines=problems(), chosen=options, single=st.booleans())
def test_mass(cosines, chosen, single):
    plan, iterations, change = sinkhorn(cosines.float() if single else cosines, chosen)
    assert (plan >= 0).all()
    near(plan.sum(dim=(-2, -1)), 1, 1e-5 if single else 1e-12)
    near(plan.sum(dim=-2), 1 / cosines.shape[-1], 1e-5 if single else 1e-12)
    assert iterations.min() >= 1
    assert iterations.max() <= chosen.max_iterations
    assert ((change < chosen.tolerance) | (iterations == chosen.max_iterations)).all()


@given(cosines=problems(), chosen=options, data=st.data())
def test_order_of_frames_and_texts(cosines, chosen, data):
    frames = data.draw(st.permutations(range(cosines.shape[-2])))
    texts = data.draw(st.permutations(range(cosines.shape[-1])))
    found, moved = sinkhorn(cosines, chosen), sinkhorn(cosines[..., frames, :][..., texts], chosen)
    near(moved.plan, found.plan[..., frames, :][..., texts], 1e-10)
    assert torch.equal(moved.iterations, found.iterations)


@given(cosines=problems(), chosen=options, of_frames=st.booleans())
def test_what_is_alike_is_treated_alike(cosines, chosen, of_frames):
    """Identical frames or identical texts: every pair has the same mass, and transport is pooling."""
    axis = -2 if of_frames else -1
    alike = cosines.narrow(axis, 0, 1).expand_as(cosines)
    plan = sinkhorn(alike, chosen).plan
    if of_frames:  # with identical texts the columns are alike from the start, the rows from the first iteration
        near(plan, 1 / plan[0, 0].numel(), 1e-12)
    near(sinkhorn(alike, CONVERGED).plan, 1 / plan[0, 0].numel(), 1e-12)
    near((sinkhorn(alike, CONVERGED).plan * alike).sum(dim=(-2, -1)), alike.mean(dim=(-2, -1)), 1e-12)


@settings(max_examples=20)
@given(cosines=problems(spread=0.2), seed=st.integers(0, 1000), log_domain=st.booleans())
def test_only_the_interaction_counts(cosines, seed, log_domain):
    """A function of the frame alone, or of the text alone, leaves the converged plan as it is."""
    generator = torch.Generator().manual_seed(seed)
    chosen = SinkhornOptions(tolerance=1e-11, max_iterations=2000, log_domain=log_domain)
    of_frame = 0.3 * torch.rand(*cosines.shape[:-1], 1, generator=generator)
    of_text = 0.3 * torch.rand(*cosines.shape[:-2], 1, cosines.shape[-1], generator=generator)
    near(sinkhorn(cosines + of_frame + of_text, chosen).plan, sinkhorn(cosines, chosen).plan, 1e-9)


@settings(max_examples=30)
@given(cosines=problems())
def test_transport_scores_at_least_as_much_as_pooling(cosines):
    plan = sinkhorn(cosines, CONVERGED).plan
    assert ((plan * cosines).sum(dim=(-2, -1)) - cosines.mean(dim=(-2, -1)) >= -1e-10).all()


@given(cosines=problems(), chosen=options)
def test_one_text_or_one_frame_leaves_no_choice(cosines, chosen):
    one_text, one_frame = cosines[..., :1], cosines[..., :1, :]
    near(sinkhorn(one_text, chosen).plan, 1 / cosines.shape[-2], 1e-12)
    near(sinkhorn(one_frame, chosen).plan, 1 / cosines.shape[-1], 1e-12)


@given(cosines=problems(), chosen=options)
def test_each_stops_as_if_alone(cosines, chosen):
    alone = SinkhornOptions(eps=chosen.eps, max_iterations=chosen.max_iterations, log_domain=chosen.log_domain)
    together = sinkhorn(cosines, alone)
    for place in range(cosines.shape[1]):
        own = sinkhorn(cosines[:, place : place + 1], alone)
        near(together.plan[:, place : place + 1], own.plan, 1e-12)
        assert torch.equal(together.iterations[:, place : place + 1], own.iterations)


@given(cosines=problems())
def test_logarithms_give_the_same(cosines):
    linear, logs = (sinkhorn(cosines, SinkhornOptions(log_domain=flag)) for flag in (False, True))
    near(logs.plan, linear.plan, 1e-10)
    assert torch.equal(logs.iterations, linear.iterations)


@given(cosines=problems(), scale=st.floats(0.1, 100), chosen=options)
def test_gradient_of_a_score(cosines, scale, chosen):
    """The plan is a constant: a cosine counts with its mass beside that of pooling, averaged over kinds."""
    leaf = cosines[:, None].clone().requires_grad_()  # (S, B, K, T, N)
    factor = torch.tensor(scale, dtype=torch.float64)
    logits = descriptor_logits(leaf, factor, make_matcher("sinkhorn", chosen))
    assert not sinkhorn(leaf, chosen).plan.requires_grad
    (gradient,) = torch.autograd.grad(logits.sum(), leaf)
    plan = sinkhorn(cosines[:, None], chosen).plan
    near(gradient, scale * (plan + 1 / plan[0, 0, 0].numel()) / 2, 1e-10)


@given(cosines=problems(), scale=st.floats(0.1, 100))
def test_other_ways_to_match(cosines, scale):
    factor, whole = torch.tensor(scale, dtype=torch.float64), cosines[:, None]
    pooled, uniform, transported = (
        descriptor_logits(whole, factor, make_matcher(solver, CONVERGED)) for solver in ("none", "uniform", "sinkhorn")
    )
    near(pooled, scale * whole.mean(dim=(-2, -1)).mean(dim=0), 1e-10)
    near(uniform, 2 * pooled, 1e-10)
    assert (transported - uniform >= -1e-8).all()
