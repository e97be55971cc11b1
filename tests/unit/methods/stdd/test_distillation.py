from dataclasses import replace

import pytest
import torch

from slowfast.methods.stdd import DISTILLATIONS
from slowfast.methods.stdd.distillation import (
    FrameDistillation,
    FrameTextDistillation,
    LogitDistillation,
    Student,
    residual_projector,
    student_embedding,
)
from slowfast.methods.stdd.text_head import ClassText
from slowfast.models.similarity import class_logits, unit_norm
from slowfast.utils.registry import resolve


def test_projector_starts_at_zero():
    projector = residual_projector(32)
    assert [name for name, _ in projector.named_parameters()] == ["0.weight", "2.weight"]
    assert projector[0].weight.any()
    video = torch.randn(2, 3, 32)
    assert torch.equal(student_embedding(video, projector), video)


def test_student_embedding_against_the_formula():
    projector = residual_projector(4)
    torch.nn.init.normal_(projector[2].weight)
    first, last = (projector[i].weight.double() for i in (0, 2))
    video = torch.randn(2, 3, 4)
    hidden = video.double() @ first.T
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    expected = video.double() + 0.1 * hidden @ last.T
    assert torch.allclose(student_embedding(video, projector).double(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "ratio", "active"),
    [
        ("intended", 2.0, True),
        ("intended", 0.0, False),
        ("published", 2.0, False),
        ("froster", 2.0, True),
        ("kl", 2.0, True),
    ],
)
def test_when_the_term_counts(mode, ratio, active):
    assert resolve(DISTILLATIONS, mode, key="mode")(ratio=ratio).active is active


@pytest.fixture
def student(tiny_frames):
    text = ClassText(unit_norm(torch.randn(3, 32)), unit_norm(torch.randn(3, 32)))
    video, scale = unit_norm(torch.randn(2, 4, 32)), torch.tensor(5.0)
    logits = class_logits(video, text.features, scale)
    return Student(frames=tiny_frames, video=video, text=text, logits=logits, scale=scale)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_frame_term_against_a_loop(build_tiny, student):
    teacher, projector = build_tiny(), residual_projector(32)
    torch.nn.init.normal_(projector[2].weight)
    found = FrameDistillation(ratio=2.0).losses(student, teacher=teacher, projector_v=projector, projector_t=None)
    with torch.no_grad():
        target, projected = teacher.encode_video(student.frames), student_embedding(student.video, projector)
    mean = sum(cosine(projected[b, t], target[b, t]) for b in range(2) for t in range(4)) / 8
    assert list(found) == ["distillation"]
    assert found["distillation"].item() == pytest.approx(2 * (1 - mean), abs=1e-5)


def test_text_term_against_a_loop(build_tiny, student):
    projector_v, projector_t = residual_projector(32), residual_projector(32)
    torch.nn.init.normal_(projector_t[2].weight)
    found = FrameTextDistillation(ratio=2.0).losses(
        student, teacher=build_tiny(), projector_v=projector_v, projector_t=projector_t
    )
    with torch.no_grad():
        projected = student_embedding(student.text.features, projector_t)
    mean = sum(cosine(projected[k], student.text.raw[k]) for k in range(3)) / 3
    assert set(found) == {"distillation", "text_distillation"}
    assert found["text_distillation"].item() == pytest.approx(2 * (1 - mean), abs=1e-5)


def test_logit_term_against_a_loop(build_tiny, student):
    teacher = build_tiny()
    found = LogitDistillation(ratio=3.0).losses(
        student, teacher=teacher, projector_v=residual_projector(32), projector_t=None
    )
    with torch.no_grad():
        raw = 5.0 * (unit_norm(teacher.encode_video(student.frames)) @ student.text.features.T).mean(dim=1)
    total = 0.0
    for b in range(2):
        p, q = raw[b].double().softmax(dim=0), student.logits[b].double().softmax(dim=0)
        total += sum(float(p[k] * (p[k] / q[k]).log()) for k in range(3))
    assert found["distillation"].item() == pytest.approx(3 * total / 6, abs=1e-5)


def test_logit_term_vanishes_where_both_agree(build_tiny, student):
    teacher = build_tiny()
    with torch.no_grad():
        video = unit_norm(teacher.encode_video(student.frames))
    same = replace(student, video=video, logits=class_logits(video, student.text.features, student.scale))
    found = LogitDistillation(ratio=3.0).losses(same, teacher=teacher, projector_v=None, projector_t=None)
    assert found["distillation"].item() == pytest.approx(0, abs=1e-7)


def test_logit_term_has_no_gradient_through_its_target(build_tiny, student):
    text, scale, logits = (t.detach().requires_grad_() for t in (student.text.features, student.scale, student.logits))
    leaves = replace(student, text=ClassText(text), scale=scale, logits=logits)
    found = LogitDistillation(ratio=3.0).losses(leaves, teacher=build_tiny(), projector_v=None, projector_t=None)
    found["distillation"].backward()
    assert logits.grad.any()
    assert text.grad is None
    assert scale.grad is None
