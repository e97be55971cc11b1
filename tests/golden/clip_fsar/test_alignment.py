"""Ordered alignment and cosines alone, of costs of many kinds, shapes and smoothings."""

import pytest
import torch

from slowfast.models.alignment import otam
from slowfast.models.similarity import offset_cosine


def measure(dists, smoothing):
    """Both directions, their sum, and the gradient of the total of it."""
    dists = dists.requires_grad_()
    forth, back = otam(dists, smoothing=smoothing), otam(dists.transpose(-2, -1), smoothing=smoothing)
    (gradient,) = torch.autograd.grad((forth + back).sum(), dists)
    return {"fwd": forth, "bwd": back, "sum": forth + back, "grad_of_sum": gradient}


def test_alignment_in_double_precision(golden_clip_fsar, otam_case, near):
    case = golden_clip_fsar["otam"][otam_case]
    for name, found in measure(case["dists"].double(), case["lambda"]).items():
        near(found, case[f"{name}64"], 1e-9 if name == "grad_of_sum" else 1e-10, name)


def test_alignment(golden_clip_fsar, otam_case, near):
    """Where the plain formula is not accurate in float32 ours still is."""
    case = golden_clip_fsar["otam"][otam_case]
    assert ("fwd" in case) == case["float32_plain_formula_ok"]
    for name, found in measure(case["dists"].float(), case["lambda"]).items():
        assert found.dtype == torch.float32
        near(found, case[f"{name}64"], 2e-5, name)
        if name in case:
            near(found, case[name], 2e-5, name)


@pytest.mark.parametrize("smoothing", [0.5, 0.1])
def test_constant_costs(golden_clip_fsar, smoothing, near):
    for case in golden_clip_fsar["otam_constant"]:
        costs = torch.full((case["T"], case["T"]), case["value"], dtype=torch.float64)
        exact, plain = case[f"lambda_{smoothing}_f64"], case[f"lambda_{smoothing}"]
        near(otam(costs, smoothing=smoothing), exact, 1e-10)
        found = otam(costs.float(), smoothing=smoothing)
        near(found, exact, 2e-5)
        if plain != float("inf"):
            near(found, plain, 2e-5)


def test_cosines(golden_clip_fsar, near):
    case = golden_clip_fsar["cos_sim"]
    near(offset_cosine(case["x"].double(), case["y"].double()), case["out64"], 1e-10)
    near(offset_cosine(case["x"].float(), case["y"].float()), case["out"], 2e-5)
    near(offset_cosine(case["x"], case["y"]), case["out"], 2e-5)
    assert not case["x"][0].any()
    assert not case["out"][0].any()


def test_cosines_of_the_specification(near):
    x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    near(offset_cosine(x, y), [[0.598802, 0.0, 0.999600]], 1e-6)


def test_alignment_of_the_specification(near):
    q, c, i, j = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (2, 2, 8, 8)), indexing="ij")
    costs = (3 * i + 5 * j + 2 * q + c).remainder(11) / 5.5
    found = measure(costs, 0.5)
    near(found["fwd"].flatten(), [2.313947, 2.567861, 2.248533, 2.445448], 1e-6)
    near(found["bwd"].flatten(), [1.307360, 0.885507, 1.213989, 1.208826], 1e-6)
    near(found["sum"].flatten(), [3.621308, 3.453368, 3.462523, 3.654274], 1e-6)
    near(otam(costs, smoothing=0.1).flatten(), [4.144803, 4.420392, 4.107625, 4.256193], 1e-6)
