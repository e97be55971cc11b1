import re

import pytest
import torch

from slowfast.datasets.label_set import LabelSet
from slowfast.methods.stdd import DISTILLATIONS
from slowfast.methods.stdd.method import STDD
from slowfast.methods.stdd.text_head import FixedText
from slowfast.models.losses import soft_cross_entropy
from slowfast.models.similarity import class_logits, unit_norm
from slowfast.text.text_bank import TextBank
from slowfast.utils.registry import resolve


@pytest.fixture
def make_method(build_tiny, tiny_labels):
    def make(kind="stcross_attend", *, mode=None, ratio=2.0, prompts=None):
        distillation = resolve(DISTILLATIONS, mode, key="mode")(ratio=ratio) if mode else None
        method = STDD(
            build_tiny(kind),
            text=FixedText(32),
            loss=soft_cross_entropy,
            raw_model=build_tiny() if distillation is not None and distillation.active else None,
            distillation=distillation,
            pixel_mean=[0.5] * 3,
            pixel_std=[0.25] * 3,
        )
        shape = (len(tiny_labels), 32) if prompts is None else (len(tiny_labels), prompts, 32)
        features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        method.set_label_set(tiny_labels, TextBank(features=unit_norm(features)))
        return method

    return make


@pytest.mark.parametrize("prompts", [None, 4])
def test_scores_are_class_logits_of_the_frames(make_method, make_batch, prompts):
    method, batch = make_method(prompts=prompts).eval(), make_batch()
    video = unit_norm(method.model.encode_video((batch.frames / 255 - 0.5) / 0.25))
    expected = class_logits(video, method.text(method.model).features, method.model.logit_scale.exp())
    assert torch.allclose(method(batch).logits, expected, atol=1e-5)


def test_classes_are_scored_by_the_prompts_that_they_have(make_method, make_batch, tiny_labels):
    method, batch = make_method("stcross_attend", mode="kl").eval(), make_batch()
    features = unit_norm(torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(1)))
    mask = torch.tensor([[True, False, False, False], [True] * 4, [False, True, True, False]])
    method.set_label_set(tiny_labels, TextBank(features=features, mask=mask))
    found = method(batch).logits
    for row in range(3):
        method.set_label_set(LabelSet.from_names(["alone"]), TextBank(features=features[row : row + 1, mask[row]]))
        assert torch.allclose(found[:, row], method(batch).logits[:, 0], atol=1e-5)
    method.set_label_set(tiny_labels, TextBank(features=features, mask=mask))
    losses = method.train()(batch).losses
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()


def test_training_and_evaluation_score_alike_without_temporal_module(make_method, make_batch):
    method, batch = make_method(None), make_batch()
    assert torch.allclose(method.train()(batch).logits, method.eval()(batch).logits, atol=1e-6)


def test_label_set_can_be_exchanged(make_method, make_batch):
    method = make_method().eval()
    method.set_label_set(LabelSet.from_names(["a", "b"]), TextBank(features=unit_norm(torch.randn(2, 5, 32))))
    assert method(make_batch()).logits.shape == (2, 2)
    assert not any("text" in name or "features" in name for name in method.checkpoint_state() if "model." not in name)


def test_bank_of_another_label_set(make_method, tiny_labels):
    message = "text features have 2 rows, but the label set has 3 classes"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_method().set_label_set(tiny_labels, TextBank(features=torch.ones(2, 32)))


def test_text_tower_is_frozen_and_the_temperature_is_not(make_method):
    trainable = {name for name, _ in make_method().trainable_parameters()}
    assert "model.logit_scale" in trainable
    assert all(name.startswith("model.visual.") for name in trainable - {"model.logit_scale"})


def test_intended_distillation(make_method, make_batch):
    method = make_method(mode="intended").train()
    output = method(make_batch())
    assert set(output.losses) == {"classification", "distillation"}
    output.losses["distillation"].backward()
    assert method.model.visual.proj.grad.any()
    assert method.model.logit_scale.grad is None
    assert method.projector_v[2].weight.grad.any()
    assert all(parameter.grad is None for parameter in method.raw_model.parameters())


def test_distillation_weight(make_method, make_batch):
    losses = []
    for ratio in (1.0, 3.0):
        torch.manual_seed(0)
        losses.append(make_method(mode="intended", ratio=ratio).train()(make_batch()).losses["distillation"])
    assert torch.allclose(losses[1], 3 * losses[0], rtol=1e-4)


def test_student_equal_to_the_teacher_has_no_distance(make_method, make_batch):
    """The projector starts at zero, so plain CLIP starts at its own teacher."""
    output = make_method(None, mode="intended").train()(make_batch())
    assert output.losses["distillation"].abs() < 1e-5


def test_teacher_is_frozen_in_every_mode(make_method):
    method = make_method(mode="intended")
    for mode in (True, False, True):
        method.train(mode)
        assert method.model.training is mode
        assert not any(module.training for module in method.raw_model.modules())
    assert not any(parameter.requires_grad for parameter in method.raw_model.parameters())


def test_published_distillation_skips_the_teacher(make_method, make_batch):
    plain, published = make_method(), make_method(mode="published")
    assert published.raw_model is None
    gradients = []
    for method in (plain, published):
        torch.manual_seed(0)
        output = method.train()(make_batch())
        assert list(output.losses) == ["classification"]
        output.losses["classification"].backward()
        gradients.append({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_without_weight_there_is_no_teacher(make_method):
    assert make_method(mode="intended", ratio=0.0).raw_model is None


def test_teacher_stays_out_of_checkpoints(make_method):
    method = make_method(mode="intended")
    names = set(method.checkpoint_state())
    assert any(name.startswith("raw_model.") for name in method.state_dict())
    assert not any(name.startswith("raw_model.") for name in names)
    assert {"projector_v.0.weight", "projector_v.2.weight"} <= names
    assert names == set(make_method().checkpoint_state())


def test_scores_are_fp32_under_autocast(make_method, make_batch):
    method = make_method().eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = method(make_batch()).logits
    with torch.no_grad():
        exact = method(make_batch()).logits
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, atol=0.3)
    assert not torch.equal(found, found.bfloat16().float())
