from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slowfast.config.defaults import get_cfg
from slowfast.datasets.mixup import MixUp, MixUpSettings
from slowfast.engine.build import build_optimizer, build_step
from slowfast.engine.interpolated_step import InterpolatedWeightStep
from slowfast.engine.optim import OptimizerConfig, fill_momentum, make_optimizer
from slowfast.engine.precision import Precision
from slowfast.engine.step import PlainStep, StepConfig, error_percent, fold_top2
from slowfast.methods import METHODS
from slowfast.methods.build import build_method


@pytest.fixture
def make_step(make_method):
    """Makes a step with plain gradient descent of rate 1, so that the parameters' change is the gradient."""

    def make(*, dtype=None, **options):
        method = make_method()
        precision = Precision("cpu", dtype)
        optimizer = torch.optim.SGD(method.head.parameters(), lr=1.0)
        scaler = precision.make_scaler()
        return PlainStep(method, optimizer=optimizer, scaler=scaler, precision=precision, config=StepConfig(**options))

    return make


def moved(step, before):
    return [old - new.detach() for old, new in zip(before, step.model.head.parameters(), strict=True)]


def run(step, batch):
    before = [parameter.detach().clone() for parameter in step.model.head.parameters()]
    return step(batch), moved(step, before)


def test_step_follows_the_gradient(make_step, make_clips, make_method):
    batch, reference = make_clips(6), make_method()
    logits = reference.scores(batch)
    loss = F.cross_entropy(logits, batch.label) + 0.01 * logits.square().mean()
    expected = torch.autograd.grad(loss, list(reference.head.parameters()))
    result, found = run(make_step(), batch)
    torch.testing.assert_close(found, list(expected))
    assert result.loss.item() == pytest.approx(loss.item())
    assert result.grad_norm.item() == pytest.approx(torch.cat([g.flatten() for g in expected]).norm().item())
    assert set(result.terms) == {"loss_classification", "loss_size", "spread"}
    assert not any(value.requires_grad for value in (result.loss, result.grad_norm, *result.terms.values()))


@pytest.mark.parametrize("parts", [2, 3, 4, 6, 9])
def test_accumulation_changes_no_gradient(make_step, make_clips, parts):
    batch = make_clips(6)
    whole, expected = run(make_step(), batch)
    step = make_step(accumulation_steps=parts)
    result, found = run(step, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert len(step.model.sizes) == min(parts, 6)
    assert sum(step.model.sizes) == 6
    for name in ("loss", "grad_norm", "top1_err", "top5_err"):
        assert getattr(result, name).item() == pytest.approx(getattr(whole, name).item(), rel=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 9])
def test_parts_of_episodes_give_the_mean_gradient(make_step, make_episodes, make_method, parts):
    """Each episode counts once, though its loss is not a sum over others."""
    batch, reference = make_episodes(5), make_method()
    losses, errors = [], []
    for episode in batch.split(5):
        output = reference(episode)
        losses.append(sum(output.losses.values()))
        errors.append(100 * (output.logits.argmax(dim=1) != torch.arange(3)).float().mean().item())
    expected = torch.autograd.grad(sum(losses) / 5, list(reference.head.parameters()))
    step = make_step(accumulation_steps=parts)
    step.model.episode_forward = counting(step.model.episode_forward, sizes := [])
    result, found = run(step, batch)
    torch.testing.assert_close(found, list(expected), rtol=1e-4, atol=1e-6)
    assert (len(sizes), sum(sizes)) == (min(parts, 5), 5)
    assert result.loss.item() == pytest.approx(sum(losses).item() / 5, rel=1e-5)
    assert result.top1_err.item() == pytest.approx(sum(errors) / 5, rel=1e-5)
    assert result.top5_err.item() == 0  # of three classes
    assert set(result.terms) == {"loss_few_shot", "loss_size", "spread"}


def counting(forward, sizes):
    def counted(batch):
        sizes.append(len(batch))
        return forward(batch)

    return counted


def test_gradients_are_clipped_after_they_are_measured(make_step, make_clips):
    batch = make_clips(6)
    free, gradient = run(make_step(), batch)
    norm = free.grad_norm.item()
    clipped, found = run(make_step(max_grad_norm=norm / 2), batch)
    assert clipped.grad_norm.item() == pytest.approx(norm)
    torch.testing.assert_close(found, [g / 2 for g in gradient], rtol=1e-4, atol=1e-6)
    _, found = run(make_step(max_grad_norm=norm * 2), batch)
    torch.testing.assert_close(found, gradient)
    _, found = run(make_step(max_grad_value=0.01, max_grad_norm=1e-9), batch)
    torch.testing.assert_close(found, [g.clamp(-0.01, 0.01) for g in gradient])


def test_steps_do_not_add_up(make_step, make_clips):
    step, batch = make_step(), make_clips(4)
    step(batch)
    _, second = run(step, batch)
    fresh = make_step()
    fresh.model.load_state_dict(step.model.state_dict())
    before = [p + g for p, g in zip(step.model.head.parameters(), second, strict=True)]
    with torch.no_grad():
        for parameter, value in zip(fresh.model.head.parameters(), before, strict=True):
            parameter.copy_(value)
    _, again = run(fresh, batch)
    torch.testing.assert_close(again, second)


def test_fp16_scaler_gives_the_gradient_of_fp32(make_step, make_clips):
    batch = make_clips(6)
    _, expected = run(make_step(), batch)
    step = make_step(dtype=torch.float16)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)  # the usual first scale overflows here
    result, found = run(step, batch)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=5e-3)
    assert result.loss.dtype == torch.float32
    assert 0 < result.grad_norm.item() < 100  # unscaled


def test_fp16_step_that_overflows_is_left_out(make_step, make_clips):
    step = make_step(dtype=torch.float16)
    with torch.no_grad():
        step.model.head.weight.mul_(1e4)
    scale = step.scaler.get_scale()
    _, found = run(step, make_clips(6))
    assert all(not change.any() for change in found)
    assert step.scaler.get_scale() < scale


def test_accumulation_must_be_positive():
    with pytest.raises(ValueError, match=r"^TRAIN\.ACCUMULATION_STEPS: 0; it must be at least 1$"):
        StepConfig(accumulation_steps=0)


@pytest.mark.parametrize(("count", "parts", "sizes"), [(7, 3, [3, 2, 2]), (2, 5, [1, 1]), (4, 1, [4])])
def test_split_batch(make_clips, count, parts, sizes):
    batch = make_clips(count, bad=("a.mp4: broken",))
    pieces = batch.split(parts)
    assert [len(piece) for piece in pieces] == sizes
    for name in ("frames", "label", "video_id", "view"):
        assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(batch, name))
    assert not any(piece.bad for piece in pieces)  # reported once, with the batch
    assert all(piece.weights is None for piece in pieces)


def test_split_batch_splits_soft_targets(make_clips):
    batch = replace(make_clips(5), weights=torch.rand(5, 3))
    pieces = batch.split(2)
    assert [len(piece.target) for piece in pieces] == [3, 2]
    assert torch.equal(torch.cat([piece.target for piece in pieces]), batch.weights)


def test_error_percent():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    label = torch.tensor([0, 1, 2, 1])
    assert error_percent(logits, label, k=1).item() == 50.0
    assert error_percent(logits, label, k=2).item() == 25.0
    assert error_percent(logits, label, k=5).item() == 0.0


def test_fold_top2_leaves_hard_labels_alone():
    logits, label = torch.randn(4, 5), torch.tensor([0, 4, 2, 2])
    assert fold_top2(logits, label) == (logits, label)


def test_fold_top2_gives_the_heavier_class_the_probability_of_both():
    logits = torch.tensor([[1.0, 2.0, 2.5], [5.0, -1.0, 0.5]])
    weights = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.2, 0.7]])
    before = logits.clone()
    folded, label = fold_top2(logits, weights)
    assert label.tolist() == [0, 2]
    chance = logits.softmax(dim=1)
    expected = torch.stack([
        torch.stack([chance[0, 0] + chance[0, 1], torch.tensor(0.0), chance[0, 2]]),
        torch.stack([chance[1, 0], torch.tensor(0.0), chance[1, 1] + chance[1, 2]]),
    ])  # fmt: skip
    torch.testing.assert_close(folded.softmax(dim=1), expected)
    assert torch.equal(logits, before)
    shifted, _ = fold_top2(logits + 100.0, weights)  # as CLIP's are
    assert torch.equal(shifted.argmax(dim=1), folded.argmax(dim=1))


def test_fold_top2_of_one_class():
    folded, label = fold_top2(torch.tensor([[7.0]]), torch.tensor([[1.0]]))
    assert (folded.shape, label.tolist()) == ((1, 1), [0])
    assert error_percent(folded, label, k=1).item() == 0.0


def test_errors_of_mixed_samples_are_folded(make_step, make_clips):
    batch = make_clips(6)
    step = make_step()
    logits = step.model.scores(batch).detach()
    best = logits.topk(2, dim=1).indices
    weights = torch.zeros_like(logits).scatter(1, best, torch.tensor([0.4, 0.6]).expand(6, 2))
    folded, label = fold_top2(logits, weights)
    result = step(replace(batch, label=label, weights=weights))
    assert result.top1_err.item() == error_percent(folded, label, k=1).item()
    assert label.tolist() == best[:, 1].tolist()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(make_method, make_clips, kind, fused, where):
    """Weights, moments and step counts: the next step is what it would have been without the bad one."""

    def run(*, with_bad):
        method = make_method()
        options = {"momentum": 0.9} if kind == "SGD" else {}
        optimizer = getattr(torch.optim, kind)(method.head.parameters(), lr=0.1, fused=fused, **options)
        step = PlainStep(
            method, optimizer=optimizer, scaler=Precision("cpu").make_scaler(), precision=Precision("cpu"),
            config=StepConfig(max_grad_norm=1.0),
        )  # fmt: skip
        flags = [step(make_clips(4)).nonfinite.item()]
        if with_bad:
            handle = spoil(method, where)
            flags.append(step(make_clips(4, first=4)).nonfinite.item())
            handle.remove()
        flags.append(step(make_clips(4, first=8)).nonfinite.item())
        return flags, method.head.state_dict(), optimizer.state_dict()["state"]

    (flags, weights, state), (clean, expected, expected_state) = run(with_bad=True), run(with_bad=False)
    assert (flags, clean) == ([0, 1, 0], [0, 0])
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    for number, moments in expected_state.items():
        assert all(torch.equal(torch.as_tensor(state[number][k]), torch.as_tensor(v)) for k, v in moments.items())


def spoil(method, where):
    if where == "gradient":
        return method.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    return method.head.register_forward_hook(lambda module, args, output: output * float("nan"))


def test_an_overflow_is_the_gradient_scaler_s_business(make_method, make_clips):
    method = make_method()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    step = PlainStep(
        method,
        optimizer=torch.optim.SGD(method.head.parameters(), lr=0.1),
        scaler=scaler,
        precision=Precision("cpu"),
        config=StepConfig(),
    )
    handle = spoil(method, "gradient")
    result = step(make_clips(4))
    handle.remove()
    assert result.nonfinite.item() == 0
    assert not result.grad_norm.isfinite()
    assert scaler.get_scale() == 2.0
    handle = spoil(method, "loss")
    assert step(make_clips(4)).nonfinite.item() == 1


def test_a_bad_term_without_a_gradient_leaves_the_step_out_under_a_scaler_too(make_method, make_clips):
    method = make_method()
    forward = method.training_forward

    def spoilt(batch):
        output = forward(batch)
        return output._replace(losses=output.losses | {"constant": torch.tensor(float("nan"))})

    method.training_forward = spoilt
    step = PlainStep(
        method,
        optimizer=torch.optim.SGD(method.head.parameters(), lr=0.1),
        scaler=torch.amp.GradScaler("cpu", init_scale=4.0),
        precision=Precision("cpu"),
        config=StepConfig(),
    )
    before = method.head.weight.detach().clone()
    assert step(make_clips(4)).nonfinite.item() == 1
    assert torch.equal(method.head.weight, before)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_the_first_step_of_sgd_may_be_left_out(make_method, make_clips, scaled, dampening):
    """Its fused kernel would leave momentum behind that nothing has written."""

    def run(*, with_bad):
        method = make_method()
        config = OptimizerConfig(
            method="sgd", base_lr=0.1, weight_decay=0.0, dampening=dampening, nesterov=not dampening
        )
        optimizer = make_optimizer(method.head.named_parameters(), config)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
        step = PlainStep(method, optimizer=optimizer, scaler=scaler, precision=Precision("cpu"), config=StepConfig())
        if with_bad:
            handle = spoil(method, "gradient")
            step(make_clips(4, first=4))
            handle.remove()
            moments = [entry.get("momentum_buffer") for entry in optimizer.state.values()]
            assert not any(moment is not None and moment.any() for moment in moments)
        for number in range(2):
            step(make_clips(4, first=8 + 4 * number))
        return method.head.weight.detach()

    torch.testing.assert_close(run(with_bad=True), run(with_bad=False), rtol=1e-6, atol=1e-7)


def test_momentum_of_nought_changes_no_number(make_method, make_clips):
    def run(*, fill):
        method = make_method()
        optimizer = torch.optim.SGD(method.head.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
        for number in range(3):
            method.head.zero_grad()
            method.training_forward(make_clips(4, first=4 * number)).losses["classification"].backward()
            if fill:
                fill_momentum(optimizer)
            optimizer.step()
        return method.head.weight.detach()

    assert torch.equal(run(fill=True), run(fill=False))


STEPS = {
    "plain": {},
    "parts": {"TRAIN.ACCUMULATION_STEPS": 2, "SOLVER.CLIP_GRAD_L2NORM": 1.0},
    "clipped values": {"SOLVER.CLIP_GRAD_VAL": 0.1, "SOLVER.OPTIMIZING_METHOD": "sgd"},
    "recomputed": {"MODEL.USE_CHECKPOINT": True},
    "interpolated": {
        "TRAIN.LINEAR_CONNECT_CLIMB": True,
        "TRAIN.LINEAR_CONNECT_LOSS_RATIO": 0.5,
        "TRAIN.LINEAR_CONNECT_SAMPLE_L": 0.1,
        "TRAIN.LINEAR_CONNECT_SAMPLE_R": 0.6,
    },
}


IN_FULL = {
    "stdd": {
        "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
        "MODEL.TEMPORAL_SCALE": [1, 2],
        "MODEL.KEEP_RAW_MODEL": True,
        "MODEL.RAW_MODEL_DISTILLATION": True,
    },
    "tc_clip": {"TC_CLIP.CONTEXT_TOKEN_K": 5, "TC_CLIP.TOME_R": 4},
    "ost": {},
    "vifi_clip": {
        "VIFI_CLIP.N_CTX_VISION": 3,
        "VIFI_CLIP.PROMPT_DEPTH_VISION": 2,
        "VIFI_CLIP.N_CTX_TEXT": 4,
        "VIFI_CLIP.PROMPT_DEPTH_TEXT": 2,
    },
    "clip_fsar": {},
}
"""Settings of a method with the tiny CLIP."""
TAKES_NO_MIXED_CLIPS = {"ost"}
HAS_NO_RAW_CLIP = {"clip_fsar"}


@pytest.fixture(params=METHODS)
def make_real_step(request, tiny_weights, tiny_labels, descriptor_keys):
    """Builds a method and the step of a configuration."""

    settings = {**descriptor_keys, **IN_FULL[request.param]}

    def make(device, **keys):
        cfg = get_cfg()
        cfg.merge_from_list(["MODEL.ARCH", "custom", "MODEL.CLIP_WEIGHTS", str(tiny_weights)])
        cfg.merge_from_list(["METHOD", request.param, *(word for pair in settings.items() for word in pair)])
        cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.BASE_LR", 1e-3])
        for key, value in keys.items():
            cfg.merge_from_list([key, value])
        cfg.freeze()
        method = build_method(cfg, tiny_labels).to(device).train()
        optimizer = build_optimizer(cfg, method)
        step, _ = build_step(cfg, method, optimizer, device=torch.device(device))
        return step

    return make


class DeviceGuard(TorchDispatchMode):
    """Notes operations that join the host and the device; the meta device itself has no value to hand over."""

    def __init__(self):
        super().__init__()
        self.joined = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.joined.append(str(func))
        return result


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("mixed", [None, {}, {"partner": "permuted", "group_size": 3}])
def test_nothing_in_a_step_waits_for_the_device(request, make_real_step, make_batch, monkeypatch, name, mixed):
    """The meta device stands in for a GPU: whatever asks it for a value or for a shape that depends on one raises."""
    autocast = Precision.autocast
    monkeypatch.setattr(Precision, "autocast", lambda self: autocast(replace(self, device_type="cpu")))
    # The meta device has no fused optimisers, which look at the flag themselves.
    monkeypatch.setattr(PlainStep, "_update_unless", lambda self, flag: flags.append(flag) or self.optimizer.step())
    flags = []
    method = request.node.callspec.params["make_real_step"]
    if name == "interpolated" and method in HAS_NO_RAW_CLIP:
        with pytest.raises(ValueError, match=r"^TRAIN\.LINEAR_CONNECT_CLIMB: True does nothing under METHOD "):
            make_real_step("meta", **STEPS[name])
        return
    step = make_real_step("meta", **STEPS[name])
    assert isinstance(step, InterpolatedWeightStep) == (name == "interpolated")
    mix = None if mixed is None else MixUp(settings=MixUpSettings(**mixed), num_classes=3)
    batch = make_batch(4).to("meta")
    if mix is not None and method in TAKES_NO_MIXED_CLIPS:
        with pytest.raises(ValueError, match=r"^MIXUP\.ENABLE: True, but "):
            step(mix(batch))
        return
    for _ in range(2):
        with DeviceGuard() as guard:
            result = step(batch if mix is None else mix(batch))
        assert guard.joined == []
        reported = (result.loss, result.grad_norm, result.top1_err, result.top5_err, *result.terms.values())
        assert all(value.is_meta and value.shape == () for value in (*reported, *flags))


def test_a_validation_between_steps_scores_the_weights_as_they_are(make_real_step, make_batch):
    """What a method keeps of its texts belongs to weights that the optimiser's fused kernels change without a trace."""
    step, batch = make_real_step("cpu"), make_batch(4)
    assert all(group["fused"] for group in step.optimizer.param_groups)
    copy = make_real_step("cpu").model.eval()
    for _ in range(2):
        step.model.train()
        step(batch)
        copy.load_state_dict(step.model.state_dict())
        with torch.no_grad():
            assert torch.allclose(step.model.eval()(batch).logits, copy(batch).logits, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", STEPS)
def test_nothing_in_a_step_waits_for_a_gpu(request, make_real_step, make_batch, name):
    if name == "interpolated" and request.node.callspec.params["make_real_step"] in HAS_NO_RAW_CLIP:
        return
    step, batch = make_real_step("cuda", **STEPS[name]), make_batch(4).to("cuda")
    step(batch)  # the first one sets libraries up
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(result.loss)
