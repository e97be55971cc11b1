"""Whole models, built from their configuration keys: predictions, losses, gradients, names."""

import pytest
import torch

from slowfast.methods.stdd.distillation import student_embedding
from slowfast.models.similarity import class_logits, mean_cosine_distance, unit_norm

GRADIENT_TOLERANCE = 1e-4  # norms of tensors that sum over thousands of rounded products


@pytest.fixture
def recorded(golden, model_case):
    return golden["models"][model_case]


def distils(recorded):
    return bool(recorded["overrides"].get("MODEL.RAW_MODEL_DISTILLATION"))


def test_evaluation(recorded, model_case, build_recorded_method, recorded_batch, run_recorded, assert_close):
    method = build_recorded_method(model_case).eval()
    with torch.no_grad():
        output = run_recorded(method, recorded_batch)
    assert_close(output.logits, recorded["eval"][0])
    assert output.losses == {}


def test_scores_of_frozen_clip(
    recorded, model_case, build_recorded_method, build_tower, recorded_batch, run_recorded, assert_close
):
    """The reference's second evaluation output: the same head over the teacher's features."""
    method, teacher = build_recorded_method(model_case).eval(), build_tower(None)
    for expected in recorded["eval"][1:]:
        with torch.no_grad():
            features = unit_norm(run_recorded(teacher.encode_video, recorded_batch.frames))
            found = class_logits(features, method.text(method.model).features, method.model.logit_scale.exp())
        assert_close(found, expected)


def test_ensemble_with_frozen_clip(
    recorded, model_case, build_recorded_method, recorded_batch, run_recorded, assert_close
):
    """The reference mixes its two evaluation outputs."""
    if not recorded["overrides"].get("MODEL.ENSEMBLE_PRED"):
        return  # one output
    tuned, raw = recorded["eval"]
    method = build_recorded_method(model_case, ensemble_ratio=0.4).eval()
    with torch.no_grad():
        assert_close(run_recorded(method, recorded_batch).logits, 0.4 * raw + 0.6 * tuned)


def test_training_prediction_and_cross_entropy(
    recorded, model_case, build_recorded_method, recorded_batch, run_recorded, assert_close
):
    method = build_recorded_method(model_case, "published").train()
    output = run_recorded(method, recorded_batch)
    assert_close(output.logits, recorded["train"]["pred"])
    assert list(output.losses) == ["classification"]
    assert_close(output.losses["classification"], recorded["train"]["ce"])


def test_distillation_value(recorded, model_case, build_recorded_method, recorded_batch, run_recorded, assert_close):
    method = build_recorded_method(model_case, "intended").train()
    output = run_recorded(method, recorded_batch)
    assert_close(output.logits, recorded["train"]["pred"])
    if not distils(recorded):
        assert "distillation" not in output.losses
        return
    ratio = recorded["overrides"]["MODEL.DISTILLATION_RATIO"]
    assert_close(output.losses["distillation"], ratio * recorded["train"]["distill"])
    assert_close(output.losses["classification"], recorded["train"]["ce"])


def test_student_and_teacher_embeddings(
    recorded, model_case, build_recorded_method, build_tower, recorded_batch, run_recorded, assert_close
):
    if "student" not in recorded["train"]:
        return  # the reference returns them only where it keeps frozen CLIP
    method = build_recorded_method(model_case).train()
    video = unit_norm(run_recorded(method.model.encode_video, recorded_batch.frames))
    teacher = unit_norm(build_tower(None).encode_video(recorded_batch.frames))
    student = student_embedding(video, method.projector_v)
    assert_close(student.flatten(0, 1), recorded["train"]["student"])
    assert_close(teacher.flatten(0, 1), recorded["train"]["teacher"])
    assert_close(mean_cosine_distance(student, teacher), recorded["train"]["distill"])


def gradients(method, batch, run_recorded):
    method.train()
    output = run_recorded(method, batch)
    sum(output.losses.values()).backward()
    return {name: p.grad.norm().item() for name, p in method.named_parameters() if p.grad is not None}


def test_gradients_as_published(recorded, model_case, build_recorded_method, recorded_batch, run_recorded):
    """The published distillation term is a constant: the recorded gradients are those of the cross entropy."""
    norms = gradients(build_recorded_method(model_case, "published"), recorded_batch, run_recorded)
    assert norms == pytest.approx(recorded["train"]["grad_norms"], rel=GRADIENT_TOLERANCE)
    assert not set(recorded["train"]["grad_none"]) & set(norms)
    if "student_requires_grad" in recorded["train"]:
        assert recorded["train"]["student_requires_grad"] is False


def test_intended_distillation_trains_the_projector(
    recorded, model_case, build_recorded_method, recorded_batch, run_recorded
):
    if not distils(recorded):
        return  # nothing to train
    norms = gradients(build_recorded_method(model_case, "intended"), recorded_batch, run_recorded)
    assert {"projector_v.0.weight", "projector_v.2.weight"} <= set(norms)
    published = recorded["train"]["grad_norms"]
    assert any(abs(norms[name] - published[name]) > 1e-2 * published[name] for name in published)


def test_names_of_a_checkpoint(recorded, model_case, build_recorded_method):
    if recorded["state_dict_keys"] is None:
        return  # recorded for some models only
    method = build_recorded_method(model_case)
    expected = [name for name in recorded["state_dict_keys"] if not name.startswith("raw_model.")]
    assert list(method.checkpoint_state()) == expected
    if distils(recorded):  # the teacher lives in the state dict, but not in a checkpoint
        assert sorted(method.state_dict()) == sorted(recorded["state_dict_keys"])
