"""What trains, what training reports, and what is shown."""

from dataclasses import replace

import pytest
import torch

from slowfast.methods.ost.build import text_bank
from slowfast.methods.ost.config import OstConfig
from slowfast.methods.ost.method import class_scores


@pytest.fixture
def batch(make_batch):
    return replace(make_batch(3, 4), label=torch.tensor([3, 0, 3]))


def test_what_trains(build):
    everything = {name for name, _ in build().named_parameters()}
    image = {name for name in everything if name.startswith("model.visual.")}
    assert image
    assert {name for name, _ in build().trainable_parameters()} == everything
    assert {name for name, _ in build(**{"OST.USE": "image"}).trainable_parameters()} == image
    text = {name for name, _ in build(**{"OST.USE": "text"}).trainable_parameters()}
    assert text == everything - image - {"model.logit_scale"}
    assert "model.token_embedding.weight" in text


def test_everything_that_trains_has_a_gradient(build, batch):
    for use in ("both", "image", "text"):
        method = build(torch.float32, **{"OST.USE": use}).train()
        sum(method(batch).losses.values()).backward()
        for name, parameter in method.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name


def test_what_a_step_reports(build, batch):
    method = build().train()
    output = method(batch)
    assert list(output.losses) == ["video_text", "text_video"]
    assert output.log == {"logit_scale": method.model.logit_scale.exp()}
    assert not output.logits.requires_grad
    assert output.logits.isfinite().any(dim=0).tolist() == [True, False, False, True, False]
    with torch.no_grad():
        scores = method.eval()(batch).logits
    assert (output.logits[:, [0, 3]] - scores[:, [0, 3]]).abs().max() < 1e-9


def test_scores_of_texts_become_those_of_classes():
    scores = torch.tensor([[1.0, 2.0, 5.0], [4.0, 3.0, -1.0]])
    found = class_scores(scores, torch.tensor([2, 0, 2]), num_classes=4)
    never = -torch.inf
    assert found.tolist() == [[2.0, never, 5.0, never], [3.0, never, 4.0, never]]


def test_mixed_clips_have_no_descriptors(build, batch):
    with pytest.raises(ValueError, match=r"^MIXUP.ENABLE: True, but a mixed clip has no descriptors"):
        build().train()(replace(batch, weights=torch.full((3, 5), 0.2)))


def test_a_bank_of_other_classes(build, ost_cfg, labels):
    method, fewer = build(), labels("push_up")
    bank = text_bank(OstConfig.from_cfg(ost_cfg()), labels())
    with pytest.raises(ValueError, match=r"^descriptors have 5 rows, but the label set has 1 classes$"):
        method.set_label_set(fewer, bank)


def test_checkpoint_is_that_of_clip_alone(build):
    method = build()
    assert set(method.checkpoint_state()) == {f"model.{name}" for name in method.model.state_dict()}


def test_solvers(build, batch):
    def logits(**keys):
        with torch.no_grad():
            return build(**keys).eval()(batch).logits

    none, uniform = logits(**{"OST.SOLVER": "none"}), logits(**{"OST.SOLVER": "uniform"})
    transported = logits(**{"OST.TOLERANCE": 1e-9})
    assert (uniform - 2 * none).abs().max() < 1e-10
    assert (transported - uniform).min() > -1e-6
    assert (transported - uniform).max() > 1e-3


def test_kinds_are_averaged(build, batch):
    with torch.no_grad():
        both, spatial, temporal = (
            build(**{"OST.KINDS": kinds}).eval()(batch).logits
            for kinds in (["spatial", "temporal"], ["spatial"], ["temporal"])
        )
    assert (both - (spatial + temporal) / 2).abs().max() < 1e-10
    assert (spatial - temporal).abs().max() > 1e-3


def test_fewer_descriptors_are_the_first_of_the_files(build):
    three, two = build(), build(**{"OST.N": 2})
    assert torch.equal(two.text.tokens, three.text.tokens[:, :, :2, : two.text.tokens.shape[-1]])
    assert not three.text.tokens[:, :, :2, two.text.tokens.shape[-1] :].any()
    assert two.text.of_kind(0, "spatial") == three.text.of_kind(0, "spatial")[:2]
    assert two.text.of_kind(0, "temporal") == three.text.of_kind(0, "temporal")[:2]


def test_matches_of_the_best_class(build, batch):
    method = build(torch.float32)
    with torch.no_grad():
        logits = method.eval()(batch).logits
        scale = method.model.logit_scale.exp()
    explanations = method.explain(batch)
    for explanation, row in zip(explanations, logits, strict=True):
        best = int(row.argmax())
        assert [view.kind for view in explanation.matches] == ["spatial", "temporal"]
        score = 0.0
        for view in explanation.matches:
            assert view.class_name == method.text.names[best]
            assert view.texts == method.text.of_kind(best, view.kind)
            assert (view.plan.sum(dim=0) - 1 / 3).abs().max() < 1e-6
            assert view.plan.sum().item() == pytest.approx(1, abs=1e-6)
            score += scale * ((view.plan + 1 / view.plan.numel()) * view.cosines).sum() / 2
        assert score.item() == pytest.approx(row[best].item(), rel=1e-5)


@pytest.mark.parametrize("solver", ["none", "uniform"])
def test_scores_without_a_plan_show_none(build, batch, solver):
    with pytest.raises(ValueError, match=r"^OST\.SOLVER: there are no plans to show without one; allowed: sinkhorn$"):
        build(torch.float32, **{"OST.SOLVER": solver}).explain(batch)
