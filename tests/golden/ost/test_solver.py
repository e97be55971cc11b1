"""The solver alone, in every recorded case and both precisions."""

import pytest
import torch

from slowfast.methods.ost.scores import descriptor_logits, make_matcher
from slowfast.models.alignment import sinkhorn


def recorded_places(errors, iterations):
    """The iteration, from 1, of each recorded error: all of them, or the first and the last."""
    if len(errors) == iterations:
        return list(range(1, iterations + 1))
    half = len(errors) // 2
    return [*range(1, half + 1), *range(iterations - (len(errors) - half) + 1, iterations + 1)]


def resolvable(recorded, dtype, tolerance):
    """Whether a precision tells a change of the tolerance from rounding: factors may be as large as millions."""
    return recorded["errors"][0] * torch.finfo(dtype).eps < tolerance / 10


@pytest.fixture
def case(golden_ost, ost_solver_case, precision):
    """Cosines, one kind of them, (1, B, A, T, N); what was recorded; the scale."""
    recorded = golden_ost["solver"][ost_solver_case]
    return recorded["cos"].to(precision.dtype)[None], recorded[precision.name], recorded["scale"]


@pytest.mark.parametrize("log_domain", [False, True], ids=["linear", "logarithms"])
def test_plans_and_iterations(golden_ost, case, precision, sinkhorn_options, near, ost_solver_case, log_domain):
    cosines, recorded, _ = case
    options = sinkhorn_options(log_domain=log_domain)
    plan, iterations, change = sinkhorn(cosines, options)
    near(plan[0], recorded["plan"], relative=precision.values)
    assert plan.dtype == change.dtype == precision.dtype
    assert (iterations == iterations.flatten()[0]).all()  # the decision is a common one
    if resolvable(recorded, precision.dtype, options.tolerance):
        assert int(iterations.flatten()[0]) == recorded["iterations"]
        assert not golden_ost["solver"][ost_solver_case]["hits_cap"] or recorded["iterations"] == options.max_iterations
    else:
        assert not precision.exact


def test_changes(case, precision, sinkhorn_options):
    """What is compared with the tolerance, after so many iterations."""
    cosines, recorded, _ = case
    errors = recorded["errors"]
    noise = 20 * torch.finfo(precision.dtype).eps * errors[0]
    places = recorded_places(errors, recorded["iterations"])
    assert len(places) == len(errors)
    for place, expected in zip(places, errors, strict=True):
        if place > 8 and not resolvable(recorded, precision.dtype, sinkhorn_options().tolerance):
            break  # from here on rounding is all there is
        change = sinkhorn(cosines, sinkhorn_options(max_iterations=place, tolerance=0.0)).change.flatten()[0].item()
        assert abs(change - expected) <= (1e-9 if precision.exact else 1e-2) * expected + noise, place


def test_scores_and_gradient(case, precision, sinkhorn_options, near):
    """Through the scoring path: what the transport adds to the pooled score."""
    cosines, recorded, scale = case
    plan = sinkhorn(cosines, sinkhorn_options()).plan
    near(scale * (plan * cosines).sum(dim=(-2, -1))[0], recorded["ot"], relative=precision.values, absolute=1e-12)
    leaf, factor = cosines.clone().requires_grad_(), cosines.new_tensor(scale)
    both, pooled = (
        descriptor_logits(leaf, factor, make_matcher(solver, sinkhorn_options())) for solver in ("sinkhorn", "none")
    )
    near(both - pooled, recorded["ot"], relative=precision.values, absolute=precision.values)
    near(pooled, scale * cosines.mean(dim=(-2, -1))[0], relative=precision.values, absolute=precision.values)
    (gradient,) = torch.autograd.grad((both - pooled).sum(), leaf)
    near(gradient[0], recorded["grad_cos"], relative=precision.values)


def test_problems_that_end_on_their_own(golden_ost, sinkhorn_options, near):
    coupled = {name: case for name, case in golden_ost["solver"].items() if "alone" in case}
    assert coupled
    for case in coupled.values():
        dtype = case["alone"][0]["plan"].dtype
        plan, iterations, _ = sinkhorn(case["cos"].to(dtype)[None], sinkhorn_options(stop="each"))
        plans, counts = plan.flatten(0, 2), iterations.flatten().tolist()
        assert counts == [alone["iterations"] for alone in case["alone"]]
        assert len(set(counts)) > 1
        for found, alone in zip(plans, case["alone"], strict=True):
            near(found, alone["plan"].reshape(found.shape), relative=1e-10)


def test_default_rule_is_as_good_where_cosines_are_those_of_clip(golden_ost, precision, sinkhorn_options, near):
    cases = [case for name, case in golden_ost["solver"].items() if name.startswith("cliplike")]
    assert cases
    for case in cases:
        cosines = case["cos"].to(precision.dtype)
        plan = sinkhorn(cosines, sinkhorn_options(stop="each")).plan
        near(case["scale"] * (plan * cosines).sum(dim=(-2, -1)), case[precision.name]["ot"], absolute=1e-3)


@pytest.mark.parametrize("stop", ["each", "batch"])
@pytest.mark.parametrize("log_domain", [False, True], ids=["linear", "logarithms"])
def test_not_a_number_stays_in_its_problem(golden_ost, sinkhorn_options, near, stop, log_domain):
    """The published solver gives no value at all then."""
    assert golden_ost["solver_nan_returns_nothing"] is True
    name = next(n for n, case in golden_ost["solver"].items() if case["cos"].shape[:2].numel() > 1)
    cosines = golden_ost["solver"][name]["cos"].double()[None]
    sound = sinkhorn(cosines, sinkhorn_options(stop="each", tolerance=1e-12)).plan.flatten(0, 2)
    cosines[0, 0, 0, 0, 0] = torch.nan
    plans = sinkhorn(cosines, sinkhorn_options(stop=stop, tolerance=1e-12, log_domain=log_domain)).plan.flatten(0, 2)
    assert plans[0].isnan().any()
    near(plans[1:], sound[1:], relative=1e-9)
