import pytest
import torch

from slowfast.methods.stdd.distillation import FrameDistillation, residual_projector, student_embedding
from slowfast.models.similarity import unit_norm


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
    ("mode", "ratio", "active"), [("intended", 2.0, True), ("intended", 0.0, False), ("published", 2.0, False)]
)
def test_when_the_term_counts(mode, ratio, active):
    assert FrameDistillation(mode=mode, ratio=ratio).active is active


def test_term_against_a_loop(build_tiny, tiny_frames):
    teacher, projector = build_tiny(), residual_projector(32)
    torch.nn.init.normal_(projector[2].weight)
    video = unit_norm(torch.randn(2, 4, 32))
    with torch.no_grad():
        target = teacher.encode_video(tiny_frames)
        student = student_embedding(video, projector)
    found = FrameDistillation(mode="intended", ratio=2.0).losses(
        video, tiny_frames, projector=projector, teacher=teacher
    )
    total = 0.0
    for b in range(2):
        for t in range(4):
            s, g = student[b, t], target[b, t]
            total += float(s @ g / (s.norm() * g.norm()))
    assert found["distillation"].item() == pytest.approx(2 * (1 - total / 8), abs=1e-5)
