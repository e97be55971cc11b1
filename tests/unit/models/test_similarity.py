import math

import pytest
import torch

from slowfast.models.similarity import class_logits, mean_cosine_distance, unit_norm

B, T, K, P, E = 2, 3, 4, 5, 6


@pytest.fixture
def video():
    return unit_norm(torch.randn(B, T, E, generator=torch.Generator().manual_seed(0)))


def dot(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_one_embedding_per_class_is_a_mean_over_frames(video):
    text = unit_norm(torch.randn(K, E, generator=torch.Generator().manual_seed(1)))
    found = class_logits(video, text, torch.tensor(20.0))
    for b in range(B):
        for k in range(K):
            expected = sum(20 * dot(video[b, t], text[k]) for t in range(T)) / T
            assert found[b, k].item() == pytest.approx(expected, abs=1e-4)


def test_many_prompts_per_class_are_best_matches_both_ways(video):
    text = unit_norm(torch.randn(K, P, E, generator=torch.Generator().manual_seed(1)))
    found = class_logits(video, text, torch.tensor(20.0))
    for b in range(B):
        for k in range(K):
            scores = [[20 * dot(video[b, t], text[k, j]) for j in range(P)] for t in range(T)]
            frames_for_prompts = sum(max(scores[t][j] for t in range(T)) for j in range(P)) / P
            prompts_for_frames = sum(max(row) for row in scores) / T
            assert found[b, k].item() == pytest.approx((frames_for_prompts + prompts_for_frames) / 2, abs=1e-4)


def test_one_prompt_and_one_frame_is_the_cosine(video):
    text = unit_norm(torch.randn(K, E, generator=torch.Generator().manual_seed(1)))
    scale = torch.tensor(3.0)
    one_frame = video[:, :1]
    assert torch.allclose(
        class_logits(one_frame, text, scale), class_logits(one_frame, text[:, None], scale), atol=1e-6
    )


def test_order_of_frames_and_prompts_does_not_matter(video):
    text = unit_norm(torch.randn(K, P, E))
    scale = torch.tensor(1.0)
    assert torch.allclose(class_logits(video, text, scale), class_logits(video.flip(1), text.flip(1), scale), atol=1e-6)


def test_gradient_reaches_video_and_scale(video):
    scale = torch.tensor(2.0, requires_grad=True)
    video = video.clone().requires_grad_()
    class_logits(video, unit_norm(torch.randn(K, P, E)), scale).sum().backward()
    assert video.grad.any()
    assert scale.grad != 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 7), r"^video embeddings have width 6, text embeddings 7$"),
        ((6,), r"^text embeddings have shape \(6,\); expected \(K, E\) or \(K, P, E\)$"),
        ((1, 1, 1, 6), r"^text embeddings have shape \(1, 1, 1, 6\); expected \(K, E\) or \(K, P, E\)$"),
    ],
)
def test_wrong_shapes(video, shape, message):
    with pytest.raises(ValueError, match=message):
        class_logits(video, torch.zeros(shape), torch.tensor(1.0))


def test_unit_norm_computes_in_fp32():
    x = torch.tensor([[300.0, 400.0]], dtype=torch.float16)  # 300^2 overflows fp16
    found = unit_norm(x)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor([[0.6, 0.8]]))


def test_mean_cosine_distance():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 3.0], [0.0, 1.0]])
    assert mean_cosine_distance(a, b).item() == pytest.approx(1 - (math.sqrt(0.5) + 1) / 2)
    assert mean_cosine_distance(a, a).item() == pytest.approx(0, abs=1e-6)
    assert mean_cosine_distance(a, -a).item() == pytest.approx(2)
