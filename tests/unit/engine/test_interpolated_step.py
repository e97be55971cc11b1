"""Interpolated-weight regularisation: its gradient against a direct computation, and what it leaves untouched."""

import copy
from dataclasses import replace

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.engine.build import build_optimizer, build_step
from slowfast.engine.interpolated_step import InterpolatedWeightStep, InterpolationConfig, RawClip, clip_parameters
from slowfast.engine.precision import Precision
from slowfast.engine.step import PlainStep, StepConfig
from slowfast.engine.tested_weights import load_into
from slowfast.methods.build import build_method
from slowfast.models.temporal import TEMPORAL_BLOCKS

RATIO, LOW, HIGH = 0.5, 0.1, 0.6
SEED = 11
DISTILLATION = {
    "MODEL.KEEP_RAW_MODEL": True,
    "MODEL.RAW_MODEL_DISTILLATION": True,
    "MODEL.DISTILLATION_MODE": "intended",
}
EXPERTS = {"MODEL.NUM_EXPERTS": 2, "MODEL.EXPERT_INSERT_LAYERS": [0, 1], "MODEL.RECORD_ROUTING": True}
SWITCHES = {
    "froster": DISTILLATION | {"MODEL.DISTILLATION_MODE": "froster"},
    "kl": DISTILLATION | {"MODEL.DISTILLATION_MODE": "kl"},
    "tuned head": {"TUNE_HEAD": True},
    "learned context": {"MODEL.TEXT_PROMPT": True, "MODEL.PROMPT_NUM": 4},
    "experts": EXPERTS,
    "recomputation": {"MODEL.USE_CHECKPOINT": True},
}
LINEAR_CONNECT = {
    "TRAIN.LINEAR_CONNECT_CLIMB": True,
    "TRAIN.LINEAR_CONNECT_LOSS_RATIO": RATIO,
    "TRAIN.LINEAR_CONNECT_SAMPLE_L": LOW,
    "TRAIN.LINEAR_CONNECT_SAMPLE_R": HIGH,
}
SHARED = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "resblocks", "ln_post", "proj", "logit_scale")


@pytest.fixture
def make_cfg(tiny_weights):
    def make(temporal_type=None, **options):
        cfg = get_cfg()
        cfg.merge_from_list(["MODEL.ARCH", "custom", "MODEL.CLIP_WEIGHTS", str(tiny_weights)])
        cfg.merge_from_list(["MODEL.CHANNEL_FOLD", 8, "MODEL.TEMPORAL_SCALE", [1, 2], "DATA.NUM_FRAMES", 4])
        cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.CLIP_GRAD_L2NORM", 1e6])
        for key, value in options.items():
            cfg.merge_from_list([key, value])
        cfg.MODEL.TEMPORAL_MODELING_TYPE = temporal_type
        return cfg

    return make


@pytest.fixture
def make_tuned(make_cfg, tiny_labels):
    """Makes a method whose trainable parameters have left their initial values, all of them."""

    def make(temporal_type=None, **options):
        method = build_method(make_cfg(temporal_type, **options), tiny_labels)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for _, parameter in method.trainable_parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return method.train()

    return make


@pytest.fixture
def make_step(tiny_state):
    """Makes a step that leaves gradients to look at; with rate 0 it moves nothing."""

    def make(method, *, lr=0.0, dtype=None, scaler=None, **options):
        precision = Precision("cpu", dtype)
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr)
        plain = PlainStep(
            method,
            optimizer=optimizer,
            scaler=scaler or precision.make_scaler(),
            precision=precision,
            config=StepConfig(**options),
        )
        config = InterpolationConfig(loss_ratio=RATIO, sample_low=LOW, sample_high=HIGH)
        return InterpolatedWeightStep(plain, raw_clip=RawClip(method, tiny_state, source="tiny"), config=config)

    return make


def gradients(method):
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def run(step, batch, seed=SEED):
    torch.manual_seed(seed)
    result = step(batch)
    return result, gradients(step.plain.model)


def mixed(method, tiny_state, share, mix):
    """An independent method at the interpolation."""
    other = copy.deepcopy(method)
    with torch.no_grad():
        for name, value in tiny_state.items():
            parameter = other.state_dict()[f"model.{name}"]
            parameter.copy_(mix(parameter, value.float(), share))
    return other


def loss_gradients(method, batch, *, weight=1.0, dtype=None):
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        losses = method(batch).losses
        loss = torch.stack(list(losses.values())).sum() * weight
    named = dict(method.trainable_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return loss.detach(), {name: g for name, g in zip(named, found, strict=True) if g is not None}


def direct(method, tiny_state, batch, *, mix=torch.lerp, dtype=None):
    """Loss at the interpolation and the gradient to expect, from two methods and without the step."""
    torch.manual_seed(SEED)
    share = LOW + (HIGH - LOW) * torch.rand((), dtype=torch.float64).item()
    _, here = loss_gradients(copy.deepcopy(method), batch, dtype=dtype)
    loss, at_mixture = loss_gradients(mixed(method, tiny_state, share, mix), batch, weight=RATIO, dtype=dtype)
    assert here.keys() == at_mixture.keys()
    return loss, {name: here[name] + at_mixture[name] for name in here}


def largest_difference(found, expected):
    assert found.keys() == expected.keys()
    return max((found[name] - expected[name]).abs().max().item() for name in found)


@pytest.mark.parametrize("temporal_type", [None if name == "None" else name for name in TEMPORAL_BLOCKS])
def test_gradient_is_that_of_both_places(make_tuned, make_step, make_batch, tiny_state, temporal_type):
    method, batch = make_tuned(temporal_type, **DISTILLATION), make_batch()
    loss, expected = direct(method, tiny_state, batch)
    result, found = run(make_step(method), batch)
    assert largest_difference(found, expected) == 0.0
    assert result.terms["loss_interpolated"].item() == pytest.approx(loss.item(), rel=1e-6)
    assert {"projector_v.0.weight", "projector_v.2.weight"} < found.keys()
    assert all(any(part in name for name in found) for part in SHARED)


@pytest.mark.parametrize("switch", SWITCHES)
def test_gradient_with_every_switch(make_tuned, make_step, make_batch, tiny_state, switch):
    temporal_type = "cross_frame_attend" if switch == "experts" else "stcross_attend"
    method, batch = make_tuned(temporal_type, **SWITCHES[switch]), make_batch()
    _, expected = direct(method, tiny_state, batch)
    _, found = run(make_step(method), batch)
    assert largest_difference(found, expected) == 0.0
    assert found.keys() == {name for name, _ in method.trainable_parameters()}


def test_gradient_of_mixed_samples(make_tuned, make_step, make_batch, tiny_state):
    method, batch = make_tuned("stcross_attend"), make_batch()
    batch = replace(batch, weights=torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.2, 0.8]]))
    _, expected = direct(method, tiny_state, batch)
    _, found = run(make_step(method), batch)
    assert largest_difference(found, expected) == 0.0


def test_gradient_by_the_published_formula(make_tuned, make_step, make_batch, tiny_state):
    method, batch = make_tuned("stcross_attend", **DISTILLATION), make_batch()
    _, expected = direct(method, tiny_state, batch, mix=lambda own, raw, share: share * raw + (1 - share) * own)
    _, found = run(make_step(method), batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_both_places_matter(make_tuned, make_step, make_batch):
    method, batch = make_tuned("stcross_attend"), make_batch()
    step = make_step(method)
    _, both = run(step, batch)
    torch.manual_seed(SEED)
    step.plain(batch)
    plain = gradients(method)
    assert all((both[name] - plain[name]).abs().max() > 1e-4 for name in plain if name.endswith("mlp.c_fc.weight"))


def test_report_is_that_of_the_ordinary_pass(make_tuned, make_step, make_batch):
    method, batch = make_tuned(**DISTILLATION), make_batch()
    step = make_step(method)
    result, _ = run(step, batch)
    plain = step.plain(batch)
    assert result.loss.item() == plain.loss.item()
    assert result.terms.keys() - plain.terms.keys() == {"loss_interpolated"}
    assert all(torch.equal(result.terms[name], plain.terms[name]) for name in plain.terms)
    assert not result.terms["loss_interpolated"].requires_grad


def test_weights_come_back_bit_for_bit(make_tuned, make_step, make_batch):
    method = make_tuned("stcross_attend", **DISTILLATION)
    places = [(p.data_ptr(), id(p)) for p in method.parameters()]
    before = {name: value.clone() for name, value in method.state_dict().items()}
    run(make_step(method, lr=0.0), make_batch())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert [(p.data_ptr(), id(p)) for p in method.parameters()] == places


def test_weights_come_back_when_the_pass_fails(make_tuned, make_step, make_batch, monkeypatch):
    method = make_tuned()
    step = make_step(method)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    forward = method.training_forward

    def fail(batch):
        if torch.equal(method.model.visual.proj, before["model.visual.proj"]):
            return forward(batch)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(method, "training_forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        step(make_batch())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_every_clip_parameter_moves_and_no_other(make_tuned, make_step, make_batch, tiny_state, monkeypatch):
    method, seen = make_tuned("stcross_attend", **DISTILLATION), []
    with torch.no_grad():  # as if other weights had been loaded: frozen, and not those of raw CLIP
        method.model.ln_final.weight.add_(1.0)
    forward = method.training_forward

    def look(batch):
        seen.append({name: value.clone() for name, value in method.state_dict().items()})
        return forward(batch)

    monkeypatch.setattr(method, "training_forward", look)
    run(make_step(method), make_batch())
    torch.manual_seed(SEED)
    share = LOW + (HIGH - LOW) * torch.rand((), dtype=torch.float64).item()
    outside, inside = seen
    for name, value in outside.items():
        raw = tiny_state.get(name.removeprefix("model.")) if name.startswith("model.") else None
        expected = value if raw is None else share * raw + (1 - share) * value
        torch.testing.assert_close(inside[name], expected, rtol=1e-6, atol=1e-6)
    assert inside["model.ln_final.weight"].mean().item() == pytest.approx(2 - share, abs=1e-5)


def test_raw_clip_has_its_positions_in_every_frame(make_cfg, tiny_labels, tiny_state):
    options = {"METHOD": "tc_clip", "TC_CLIP.POSITIONAL_EMBEDDING_TYPE": "joint"}
    method = build_method(make_cfg(**options), tiny_labels)
    positions = method.model.visual.positional_embedding
    assert positions.ndim == 3
    with torch.no_grad():
        positions.normal_()
    tuned, raw = positions.clone(), tiny_state["visual.positional_embedding"].float()
    with RawClip(method, tiny_state, source="CLIP").interpolated(0.25):
        torch.testing.assert_close(positions, 0.25 * raw + 0.75 * tuned)
    assert torch.equal(positions, tuned)


def test_text_of_loaded_weights_is_not_taken_from_the_interpolation(make_tuned, make_step, make_batch):
    method, other = make_tuned("stcross_attend"), make_tuned("stcross_attend")
    with torch.no_grad():
        for parameter in other.model.text_parameters():
            parameter.mul_(1.3)
    weights = other.state_dict()
    method.load_state_dict(weights)
    other.load_state_dict(weights)  # embeds its text anew at the next forward, as the first does
    run(make_step(method), make_batch())
    other.eval()(make_batch())
    assert torch.equal(method.text.features, other.text.features)


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulation_interpolates_once(make_tuned, make_step, make_batch, monkeypatch, parts):
    method, batch = make_tuned(**DISTILLATION), make_batch(num_videos=5)
    _, expected = run(make_step(method), batch)
    step = make_step(method, accumulation_steps=parts)
    shares, sizes = [], []
    interpolated, forward = step.raw_clip.interpolated, method.training_forward
    monkeypatch.setattr(step.raw_clip, "interpolated", lambda share: shares.append(share) or interpolated(share))
    monkeypatch.setattr(method, "training_forward", lambda batch: sizes.append(len(batch)) or forward(batch))
    result, found = run(step, batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert len(shares) == 1
    assert len(sizes) == 2 * parts
    assert sum(sizes) == 2 * 5
    whole, _ = run(make_step(method), batch)
    assert result.terms["loss_interpolated"].item() == pytest.approx(whole.terms["loss_interpolated"].item(), rel=1e-5)


def test_bf16(make_tuned, make_step, make_batch, tiny_state):
    method, batch = make_tuned("stcross_attend", **DISTILLATION), make_batch()
    _, expected = direct(method, tiny_state, batch, dtype=torch.bfloat16)
    _, found = run(make_step(method, dtype=torch.bfloat16), batch)
    assert largest_difference(found, expected) == 0.0


def test_scaler_scales_both_passes(make_tuned, make_step, make_batch):
    method, batch = make_tuned("stcross_attend", **DISTILLATION), make_batch()
    _, expected = run(make_step(method), batch)
    _, found = run(make_step(method, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0)), batch)
    assert largest_difference(found, expected) == 0.0


def test_fp16(make_tuned, make_step, make_batch):
    method, batch = make_tuned("stcross_attend", **DISTILLATION), make_batch()
    _, expected = run(make_step(method), batch)
    _, found = run(make_step(method, dtype=torch.float16, scaler=torch.amp.GradScaler("cpu", init_scale=64.0)), batch)
    gap, size = (torch.cat([g.flatten() for g in gs]).norm() for gs in (
        [found[name] - expected[name] for name in expected], list(expected.values())
    ))  # fmt: skip
    assert gap < 0.01 * size


def test_step_that_overflows_leaves_the_weights(make_tuned, make_step, make_batch):
    method = make_tuned("stcross_attend")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    step = make_step(method, lr=1.0, dtype=torch.float16, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**40))
    run(step, make_batch())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert step.plain.scaler.get_scale() == 2.0**39


def test_share_is_one_draw_of_the_cpu_generator():
    config = InterpolationConfig(loss_ratio=1.0, sample_low=0.4, sample_high=0.6)
    torch.manual_seed(3)
    shares, after = [config.draw() for _ in range(200)], torch.rand(1)
    assert 0.4 <= min(shares) < 0.41
    assert 0.59 < max(shares) < 0.6
    torch.manual_seed(3)
    assert [config.draw() for _ in range(200)] == shares
    torch.manual_seed(3)
    torch.rand(200, dtype=torch.float64)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan")])
def test_loss_ratio_must_be_positive(ratio):
    with pytest.raises(ValueError, match=r"^TRAIN\.LINEAR_CONNECT_LOSS_RATIO: .*; it must be above 0$"):
        InterpolationConfig(loss_ratio=ratio, sample_low=0.0, sample_high=0.6)


@pytest.mark.parametrize(("low", "high"), [(0.6, 0.4), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_bounds_must_be_in_order(low, high):
    with pytest.raises(ValueError, match=r"^TRAIN\.LINEAR_CONNECT_SAMPLE_L: .* expected 0 <= L < R <= 1$"):
        InterpolationConfig(loss_ratio=1.0, sample_low=low, sample_high=high)


def connected(cfg, method):
    cfg.merge_from_list([word for pair in LINEAR_CONNECT.items() for word in pair])
    optimizer = build_optimizer(cfg, method)
    step, _ = build_step(cfg, method, optimizer, device=torch.device("cpu"))
    return step


def test_build_step_chooses_by_key(make_cfg, make_tuned):
    method = make_tuned()
    optimizer = build_optimizer(make_cfg(), method)
    plain, _ = build_step(make_cfg(), method, optimizer, device=torch.device("cpu"))
    assert type(plain) is PlainStep
    step = connected(make_cfg(), method)
    assert step.config == InterpolationConfig(loss_ratio=RATIO, sample_low=LOW, sample_high=HIGH)


def test_raw_clip_is_the_one_that_was_built(make_cfg, make_tuned, tiny_labels, tiny_state):
    method = build_method(make_cfg("stcross_attend"), tiny_labels)
    step = connected(make_cfg(), method)
    load_into(method, make_tuned("stcross_attend").state_dict(), source="fine-tuned weights")
    assert not torch.equal(method.model.visual.proj, tiny_state["visual.proj"])
    for name, raw in zip(clip_parameters(method), step.raw_clip.raw, strict=True):
        assert torch.equal(raw, tiny_state[name])


def test_raw_clip_from_a_file(make_cfg, make_tuned, tiny_state, tmp_path):
    torch.save({name: 2 * tensor.half() for name, tensor in tiny_state.items()}, tmp_path / "raw.pt")
    method = make_tuned()
    step = connected(make_cfg(**{"TRAIN.CLIP_ORI_PATH": str(tmp_path / "raw.pt")}), method)
    for name, raw in zip(clip_parameters(method), step.raw_clip.raw, strict=True):
        assert raw.dtype == torch.float32
        assert torch.equal(raw, 2 * tiny_state[name].half().float())


def test_raw_clip_of_another_activation_is_refused(make_cfg, make_tuned, tiny_state, tmp_path):
    path = tmp_path / "raw.pt"
    torch.save({"state_dict": tiny_state, "clip_activation": "gelu"}, path)
    with pytest.raises(ValueError, match=r"^TRAIN\.CLIP_ORI_PATH: .*raw\.pt: was trained with the activation gelu"):
        connected(make_cfg(**{"TRAIN.CLIP_ORI_PATH": str(path)}), make_tuned())


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "visual.proj"), "is not raw CLIP .*1 entries missing .*visual.proj.*, 0 unexpected"),
        (lambda s: s | {"adapter": torch.ones(1)}, "is not raw CLIP .*0 entries missing .*, 1 unexpected .*adapter"),
        (lambda s: s | {"visual.proj": torch.ones(64, 31)}, r"visual.proj has shape \(64, 31\), the model \(64, 32\)"),
        (lambda s: without(s, "ln_final.weight"), "not a CLIP state dict: ln_final.weight is missing"),
    ],
)
def test_other_weights_are_refused(make_cfg, make_tuned, tiny_state, tmp_path, change, message):
    path = tmp_path / "raw.pt"
    torch.save(change(tiny_state), path)
    with pytest.raises(ValueError, match=message) as error:
        connected(make_cfg(**{"TRAIN.CLIP_ORI_PATH": str(path)}), make_tuned())
    assert str(error.value).startswith(f"TRAIN.CLIP_ORI_PATH: {path}: ")
    assert "\n" not in str(error.value)


def test_method_without_clip_is_refused(make_method):
    with pytest.raises(ValueError, match=r"^TRAIN\.LINEAR_CONNECT_CLIMB: not a CLIP state dict: "):
        clip_parameters(make_method())


def test_frozen_parameters_are_interpolated_without_gradient(make_cfg, make_tuned, make_batch, monkeypatch):
    method, seen = make_tuned(), []
    step = connected(make_cfg(**{"MODEL.MLP_FINETUNE_FACTOR": 0.0}), method)
    with torch.no_grad():
        for raw in step.raw_clip.raw:
            raw.zero_()
    weight = method.model.visual.transformer.resblocks[0].mlp.c_fc.weight
    before, forward = weight.clone(), method.training_forward
    monkeypatch.setattr(method, "training_forward", lambda batch: seen.append(weight.clone()) or forward(batch))
    _, found = run(step, make_batch())
    assert not weight.requires_grad
    assert torch.equal(seen[0], before)
    assert (1 - HIGH) * before.norm() < seen[1].norm() < (1 - LOW) * before.norm()
    assert torch.equal(weight, before)
    assert not any(".mlp." in name for name in found)
    assert "model.visual.proj" in found
