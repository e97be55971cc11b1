"""Transport plans against values in closed form, a solver of others, and what stopping promises."""

import math

import pytest
import torch

from slowfast.methods.ost.scores import descriptor_logits, frame_cosines, make_matcher
from slowfast.models.alignment import SinkhornOptions, sinkhorn
from slowfast.models.losses import contrastive_divergence
from slowfast.models.similarity import unit_norm

EXACT = {"stop": "batch"}
CONVERGED = SinkhornOptions(tolerance=1e-13, max_iterations=5000)


def grid(*sizes):
    """Indices of each axis, shaped to be combined."""
    return [
        torch.arange(size, dtype=torch.float64).view([-1 if i == axis else 1 for i in range(len(sizes))])
        for axis, size in enumerate(sizes)
    ]


def stress():
    """Two videos of three frames, two texts of two descriptors per kind, four numbers each."""
    b, t, d = grid(2, 3, 4)
    a, n, e = grid(2, 2, 4)
    video = (1 + 0.7 * b + 1.3 * t + 2.1 * d).sin()
    spatial, temporal = (0.5 + 0.9 * a + 1.7 * n + 0.6 * e).cos(), (0.2 + 1.1 * a + 0.8 * n + 1.9 * e).sin()
    return unit_norm(video), unit_norm(torch.stack((spatial, temporal)))


def like_clip():
    """Three videos of eight frames, two classes of four descriptors; cosines from 0.1 to 0.4."""
    b, t, d = grid(3, 8, 16)
    a, n, e = grid(2, 4, 16)
    first, second = torch.eye(16, dtype=torch.float64)[:2]
    video = 0.08 * (1 + 0.7 * b + 1.3 * t + 2.1 * d + 0.11 * b * t * d).sin() + first
    common = 0.25 * first + 0.9682458365518543 * second
    spatial = 0.08 * (0.5 + 0.9 * a + 1.7 * n + 0.6 * e + 0.05 * n * e).cos() + common
    temporal = 0.08 * (0.2 + 1.1 * a + 0.8 * n + 1.9 * e + 0.07 * n * e).sin() + common
    return unit_norm(video), unit_norm(torch.stack((spatial, temporal)))


def scores(video, text, scale, solver="sinkhorn", **options):
    matcher = make_matcher(solver, SinkhornOptions(**{**EXACT, **options}))
    return descriptor_logits(frame_cosines(video, text), scale, matcher)


def single(tensors):
    return (tensor.float() for tensor in tensors)


def near(found, expected, tolerance):
    assert (found - torch.as_tensor(expected, dtype=found.dtype)).abs().max().item() <= tolerance


# ------------------------------------------------------------------------------------------------------- closed form


def test_stress_plans():
    cosines = frame_cosines(*stress())
    near(cosines[0, 0, 0], [[0.170780, -0.098509], [-0.171591, -0.099871], [-0.295138, 0.053687]], 1e-6)
    plan, iterations, change = sinkhorn(cosines, SinkhornOptions(**EXACT))
    near(plan[0, 0, 0], [[0.321814, 0.011521], [0.159982, 0.173352], [0.018205, 0.315128]], 1e-6)
    near(plan[1, 0, 0], [[0.145027, 0.188306], [0.021728, 0.311605], [0.333245, 0.0000884]], 1e-6)
    assert iterations.tolist() == [[[19] * 2] * 2, [[37] * 2] * 2]
    near(change[:, 0, 0], [5.82e-3, 9.36e-3], 5e-6)


def test_stress_scores():
    video, text = stress()
    scale = torch.tensor(100.0, dtype=torch.float64)
    pools = [[[-7.344047, -3.367663], [-8.417677, -0.528869]], [[-13.227012, 32.739821], [-34.382141, 1.146847]]]
    transported = [[[2.060561, 5.126320], [-2.853367, 4.550903]], [[4.405822, 42.731166], [-7.780663, 8.507235]]]
    for kind in range(2):
        own = text[kind : kind + 1]
        pool = scores(video, own, scale, "none")
        near(pool, pools[kind], 1e-6)
        near(scores(video, own, scale) - pool, transported[kind], 1e-6)
    cosines = frame_cosines(video, text)
    near(
        100 * (sinkhorn(cosines, CONVERGED).plan * cosines).sum(dim=(-2, -1))[0],
        [[2.060538, 5.126310], [-2.853367, 4.550903]],
        1e-6,
    )
    expected = [[-7.052338, 38.614822], [-26.716924, 6.838058]]
    near(scores(video, text, scale), expected, 1e-6)
    near(scores(*single(stress()), scale.float()), expected, 2e-5)


def test_stress_losses():
    video, text = stress()
    logits = scores(video, text, torch.tensor(100.0, dtype=torch.float64))
    for label, forth, back in (([0, 1], 22.832806, 15.887608), ([4, 4], 19.112388, 12.167190)):
        found = contrastive_divergence(logits, torch.tensor(label))
        near(torch.stack(found), [forth, back], 1e-6)


def test_stress_gradients():
    video, text = (x.requires_grad_() for x in stress())
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = sum(contrastive_divergence(scores(video, text, log_scale.exp()), torch.tensor([0, 1])))
    loss.backward()
    near(loss, 1.4744755, 1e-7)
    near(log_scale.grad, 0.1174589, 1e-7)
    near(video.grad.norm(), 0.5718125, 1e-7)
    near(text.grad.flatten(1).norm(dim=1), [0.2095349, 0.2096331], 1e-7)
    near(video.grad[0, 0], [-0.0442266, -0.2018638, -0.0481530, 0.0879752], 1e-7)


def test_plans_of_cosines_like_those_of_clip():
    cosines = frame_cosines(*like_clip())
    plan, iterations, change = sinkhorn(cosines, SinkhornOptions(**EXACT))
    assert iterations.flatten(1)[:, 0].tolist() == [3, 4]
    near(change[:, 0, 0], [9.268e-5, 0.00153895], 3e-8)
    near(plan[0, 0, 0, 0], [0.03069205, 0.03268775, 0.03085778, 0.03076243], 1e-8)
    near(plan[1, 0, 0, 0], [0.02370029, 0.03508610, 0.04143586, 0.02477755], 1e-8)
    for count, spatial, temporal in ((1, 65.465, 43.2024), (2, 0.240679, 1.361176), (3, 9.268e-5, 0.0398117)):
        change = sinkhorn(cosines, SinkhornOptions(**EXACT, max_iterations=count)).change[:, 0, 0]
        near(change / torch.tensor([spatial, temporal]), [1, 1], 5e-5)
    difference = (sinkhorn(cosines, CONVERGED).plan - plan) * cosines * 100
    assert 1e-9 < difference[0].sum(dim=(-2, -1)).abs().max() < 1e-8
    assert 1e-6 < difference[1].sum(dim=(-2, -1)).abs().max() < 2e-5


@pytest.mark.parametrize("stop", ["each", "batch"])
def test_scores_like_those_of_clip(stop):
    expected = [[50.808688, 49.867784], [52.301342, 51.244578], [53.741226, 52.650685]]
    scale = torch.tensor(100.0, dtype=torch.float64)
    logits = scores(*like_clip(), scale, stop=stop)
    near(logits, expected, 1e-6 if stop == "batch" else 1e-3)
    near(scores(*like_clip(), scale, stop=stop, log_domain=True), logits, 1e-10)
    near(logits.softmax(dim=1)[0], [0.719282, 0.280718], 1e-6 if stop == "batch" else 1e-4)
    near(scores(*single(like_clip()), scale.float(), stop=stop), expected, 1e-4 if stop == "batch" else 1e-3)


def test_training_like_that_of_clip():
    video, text = (x.requires_grad_() for x in like_clip())
    label = torch.tensor([0, 1, 0])
    log_scale = torch.tensor(100.0, dtype=torch.float64).log().requires_grad_()
    own = text[:, label]
    own.retain_grad()
    logits = scores(video, own, log_scale.exp())
    near(logits[:, 2], [50.808688, 52.301342, 53.741226], 1e-6)
    forth, back = contrastive_divergence(logits, label)
    (forth + back).backward()
    near(torch.stack((forth, back)), [0.7473898, 1.2427234], 1e-7)
    near(log_scale.grad, 1.2539954, 1e-7)
    near(video.grad.norm(), 37.754947, 1e-6)
    near(own.grad.flatten(1).norm(dim=1), [10.823652, 10.825458], 1e-6)


# ----------------------------------------------------------------------------------------------------- other solvers


@pytest.mark.parametrize(("num_frames", "num_texts"), [(1, 4), (8, 1), (3, 5), (32, 4), (17, 8)])
@pytest.mark.parametrize("eps", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("log_domain", [False, True], ids=["linear", "logarithms"])
def test_converged_plans_are_those_of_another_library(num_frames, num_texts, eps, log_domain):
    ot = pytest.importorskip("ot")
    cosines = 0.2 + 0.1 * torch.randn(3, num_frames, num_texts, dtype=torch.float64, generator=seeded(num_frames))
    found = sinkhorn(cosines, SinkhornOptions(eps=eps, tolerance=1e-12, max_iterations=3000, log_domain=log_domain))
    for plan, own in zip(found.plan, cosines, strict=True):
        rows, columns = (torch.full((size,), 1 / size, dtype=torch.float64) for size in own.shape)
        expected = ot.sinkhorn(
            rows.numpy(), columns.numpy(), (1 - own).numpy(), reg=eps, stopThr=1e-14, numItermax=3000
        )
        near(plan, expected, 1e-12)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def loop(cosines, *, eps, limit, tolerance):
    """One problem, number by number."""
    count, texts = cosines.shape
    kernel = [[math.exp((cosines[t, n].item() - 1) / eps) for n in range(texts)] for t in range(count)]
    rows, columns, iterations = [1.0] * count, [1.0] * texts, 0
    while iterations < limit:
        before = rows
        rows = [1 / count / sum(kernel[t][n] * columns[n] for n in range(texts)) for t in range(count)]
        columns = [1 / texts / sum(kernel[t][n] * rows[t] for t in range(count)) for n in range(texts)]
        iterations += 1
        if sum(abs(new - old) for new, old in zip(rows, before, strict=True)) / count < tolerance:
            break
    return torch.tensor([[rows[t] * kernel[t][n] * columns[n] for n in range(texts)] for t in range(count)]), iterations


def test_against_a_loop():
    cosines = torch.randn(5, 6, 3, dtype=torch.float64, generator=seeded(1)) * 0.3
    found = sinkhorn(cosines, SinkhornOptions(eps=0.2, max_iterations=40, tolerance=1e-3))
    counts = []
    for plan, own in zip(found.plan, cosines, strict=True):
        expected, count = loop(own, eps=0.2, limit=40, tolerance=1e-3)
        near(plan, expected.double(), 1e-7)
        counts.append(count)
    assert found.iterations.tolist() == counts
    assert 1 < min(counts) < max(counts)


# ---------------------------------------------------------------------------------------------------------- stopping


def mixed_problems(dtype=torch.float32):
    """Easy and hard ones side by side, (2, 3, 6, 4)."""
    spread = torch.tensor([0.01, 0.05, 0.3])[:, None, None]
    return (0.2 + spread * torch.randn(2, 3, 6, 4, generator=seeded(2))).to(dtype)


@pytest.mark.parametrize("log_domain", [False, True], ids=["linear", "logarithms"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_problem_is_solved_as_if_alone(log_domain, dtype):
    cosines, options = mixed_problems(dtype), SinkhornOptions(log_domain=log_domain)
    together = sinkhorn(cosines, options)
    assert len(set(together.iterations.flatten().tolist())) > 2
    for b in range(2):
        for a in range(3):
            alone = sinkhorn(cosines[b, a], options)
            assert together.iterations[b, a] == alone.iterations
            near(together.plan[b, a], alone.plan, 20 * torch.finfo(dtype).eps)  # kernels of few numbers round otherwise


@pytest.mark.parametrize("log_domain", [False, True], ids=["linear", "logarithms"])
def test_what_the_other_problems_are_does_not_matter(log_domain):
    cosines, options = mixed_problems(), SinkhornOptions(log_domain=log_domain)
    found = sinkhorn(cosines, options)
    for place in range(3):
        others = torch.randn(2, 3, 6, 4, generator=seeded(place))
        others[:, place] = cosines[:, place]
        for whole, own in zip(sinkhorn(others, options), found, strict=True):
            assert torch.equal(whole[:, place], own[:, place])
            assert not torch.equal(whole, own)


def test_a_batch_ends_together_and_its_kinds_on_their_own():
    cosines = mixed_problems(torch.float64)
    cosines[1] = 0.2 + 0.5 * (cosines[1] - 0.2)
    together = sinkhorn(cosines, SinkhornOptions(stop="batch"))
    counts = together.iterations
    assert (counts == counts[:, :1]).all()
    assert counts[0, 0] != counts[1, 0]
    for kind in range(2):
        near(sinkhorn(cosines[kind : kind + 1], SinkhornOptions(stop="batch")).plan[0], together.plan[kind], 0)
        # The mean change over all problems: not over each, and not the largest.
        changes = sinkhorn(cosines[kind], SinkhornOptions(max_iterations=int(counts[kind, 0]), tolerance=0.0)).change
        near(together.change[kind], changes.mean().expand(3), 1e-15)
        assert changes.mean() < 1e-2 < changes.max()


@pytest.mark.parametrize("stop", ["each", "batch"])
def test_no_more_iterations_than_allowed(stop):
    for limit in (1, 7):
        found = sinkhorn(mixed_problems(), SinkhornOptions(max_iterations=limit, tolerance=0.0, stop=stop))
        assert (found.iterations == limit).all()
        assert found.change.isfinite().all()
    assert (sinkhorn(mixed_problems(), SinkhornOptions(tolerance=1e9, stop=stop)).iterations == 1).all()


@pytest.mark.parametrize("log_domain", [False, True], ids=["linear", "logarithms"])
def test_nothing_waits_for_a_device(log_domain):
    """A device without values cannot be waited for."""
    cosines = torch.empty(2, 3, 5, 7, 4, device="meta")
    found = sinkhorn(cosines, SinkhornOptions(log_domain=log_domain, stop="batch"))
    assert found.plan.shape == cosines.shape
    assert found.iterations.shape == found.change.shape == (2, 3, 5)
    assert found.plan.is_meta


# --------------------------------------------------------------------------------------------------------- precision


def test_small_regularisation_needs_logarithms():
    cosines = torch.linspace(-0.9, 0.9, 12).view(3, 4)[None]
    linear = sinkhorn(cosines, SinkhornOptions(eps=0.005)).plan
    assert not linear.isfinite().all()
    plan = sinkhorn(cosines, SinkhornOptions(eps=0.005, log_domain=True)).plan
    assert plan.isfinite().all()
    near(plan.sum(dim=1), torch.full((1, 4), 0.25), 1e-5)


def test_smallest_cosines_are_no_trouble_in_single_precision():
    plan = sinkhorn(torch.full((1, 3, 4), -1.0), SinkhornOptions()).plan
    near(plan, torch.full((1, 3, 4), 1 / 12), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    cosines = mixed_problems(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sinkhorn(cosines, SinkhornOptions())
    assert found.plan.dtype == found.change.dtype == torch.float32
    assert torch.equal(found.plan, sinkhorn(cosines.float(), SinkhornOptions()).plan)


def test_scores_are_computed_without_autocast():
    video, text = single(stress())
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = scores(video, text, scale)
    assert torch.equal(found, scores(video, text, scale))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps: is 0.0; it must be above 0"),
        ({"eps": math.nan}, "eps: is nan; it must be above 0"),
        ({"max_iterations": 0}, "max_iterations: is 0; it must be at least 1"),
        ({"tolerance": -1.0}, "tolerance: is -1.0; it must be at least 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        SinkhornOptions(**options)
