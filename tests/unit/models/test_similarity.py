import math

import pytest
import torch

from slowfast.models.similarity import class_logits, mean_cosine_distance, offset_cosine, pooled_logits, unit_norm

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


@pytest.fixture
def ragged():
    """Prompts of which the classes have 1, 5, 2 and 3, in any slots; the others hold a prompt that would win."""
    mask = torch.zeros(K, P, dtype=torch.bool)
    for row, slots in enumerate([[3], [0, 1, 2, 3, 4], [0, 4], [1, 2, 4]]):
        mask[row, slots] = True
    return unit_norm(torch.randn(K, P, E, generator=torch.Generator().manual_seed(1))), mask


def test_masked_prompts_against_a_naive_loop(video, ragged):
    text, mask = ragged
    text = torch.where(mask[..., None], text, video[0, 0])
    found = class_logits(video, text, torch.tensor(20.0), mask)
    for b in range(B):
        for k in range(K):
            slots = [j for j in range(P) if mask[k, j]]
            scores = [[20 * dot(video[b, t], text[k, j]) for j in slots] for t in range(T)]
            frames_for_prompts = sum(max(scores[t][j] for t in range(T)) for j in range(len(slots))) / len(slots)
            prompts_for_frames = sum(max(row) for row in scores) / T
            assert found[b, k].item() == pytest.approx((frames_for_prompts + prompts_for_frames) / 2, abs=1e-4)


def test_masked_score_is_that_of_each_class_with_its_own_prompts_only(video, ragged):
    text, mask = ragged
    scale = torch.tensor(20.0)
    own = [class_logits(video, text[k : k + 1, mask[k]], scale)[:, 0] for k in range(K)]
    assert torch.allclose(class_logits(video, text, scale, mask), torch.stack(own, dim=1), atol=1e-5)
    everything = torch.ones_like(mask)
    assert torch.allclose(class_logits(video, text, scale, everything), class_logits(video, text, scale), atol=1e-6)


def test_cyclic_padding_instead_of_a_mask_weighs_repeated_prompts(video, ragged):
    """Padding repeats the first prompts, which moves the mean over prompts but not the best one of a frame."""
    text, mask = ragged
    padded = torch.stack([row[m][torch.arange(P) % int(m.sum())] for row, m in zip(text, mask, strict=True)])
    masked, repeated = (
        class_logits(video, text, torch.tensor(20.0), mask), class_logits(video, padded, torch.tensor(20.0))
    )  # fmt: skip
    even = [k for k in range(K) if P % int(mask[k].sum()) == 0]
    uneven = [k for k in range(K) if k not in even]
    assert torch.allclose(masked[:, even], repeated[:, even], atol=1e-5)
    assert (masked - repeated)[:, uneven].abs().min() > 1e-3
    best = 20 * torch.einsum("bte,kpe->btkp", video, padded).amax(dim=-1).mean(dim=1) / 2
    both = [(score - best)[:, uneven] for score in (masked, repeated)]  # what is left is half the mean over prompts
    assert (both[0] - both[1]).abs().max() == pytest.approx((masked - repeated)[:, uneven].abs().max().item(), abs=1e-5)


def test_gradient_of_masked_scores_stays_within_the_mask(video, ragged):
    text, mask = ragged
    text = text.clone().requires_grad_()
    video = video.clone().requires_grad_()
    class_logits(video, text, torch.tensor(20.0), mask).sum().backward()
    assert (text.grad[mask].norm(dim=-1) > 0).all()
    assert not text.grad[~mask].any()
    assert video.grad.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda v, t: class_logits(v, t, torch.tensor(2.0, dtype=torch.double), mask),
        (video.detach().double().requires_grad_(), text.detach().double().requires_grad_()),
    )


def test_mask_of_another_shape(video):
    with pytest.raises(ValueError, match=r"^the mask of prompts has shape \(4, 4\), the prompts \(4, 5\)$"):
        class_logits(video, torch.zeros(K, P, E), torch.tensor(1.0), torch.ones(4, 4, dtype=torch.bool))


def test_pooled_score_against_a_loop():
    video = unit_norm(torch.randn(B, E, generator=torch.Generator().manual_seed(0)))
    text = unit_norm(torch.randn(B, K, E, generator=torch.Generator().manual_seed(1)))
    own, shared = (pooled_logits(video, t, torch.tensor(20.0)) for t in (text, text[0]))
    for b in range(B):
        for k in range(K):
            assert own[b, k].item() == pytest.approx(20 * dot(video[b], text[b, k]), abs=1e-4)
            assert shared[b, k].item() == pytest.approx(20 * dot(video[b], text[0, k]), abs=1e-4)


def test_pooled_score_of_equal_texts_does_not_depend_on_their_form():
    video, text = (unit_norm(torch.randn(n, E, generator=torch.Generator().manual_seed(n))) for n in (B, K))
    scale = torch.tensor(100.0)
    found = pooled_logits(video, text.expand(B, -1, -1), scale)
    assert torch.allclose(found, pooled_logits(video, text, scale), atol=1e-5)


def test_pooled_score_of_one_frame_is_that_of_the_frame(video):
    text, scale = unit_norm(torch.randn(K, E)), torch.tensor(20.0)
    assert torch.allclose(pooled_logits(video[:, 0], text, scale), class_logits(video[:, :1], text, scale), atol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
def test_pooled_score_is_not_rounded_by_autocast(axes):
    video = unit_norm(torch.randn(B, E))
    text = unit_norm(torch.randn(B, K, E))
    text, scale = text if axes == 3 else text[0], torch.tensor(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pooled_logits(video, text, scale)
    assert found.dtype == torch.float32
    assert torch.equal(found, pooled_logits(video, text, scale))


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


def test_offset_cosine_of_known_vectors():
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    expected = [[3 / 5.01, 0.0, 25 / 25.01]]
    torch.testing.assert_close(offset_cosine(x, y), torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


def test_offset_cosine_of_all_pairs_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, 1, T, E, generator=generator)
    y = torch.randn(K, P, E, generator=generator)
    found = offset_cosine(x, y)
    assert found.shape == (B, K, T, P)
    for b in range(B):
        for k in range(K):
            for t in range(T):
                for j in range(P):
                    u, v = x[b, 0, t], y[k, j]
                    expected = dot(u, v) / (math.sqrt(dot(u, u) * dot(v, v)) + 0.01)
                    assert found[b, k, t, j].item() == pytest.approx(expected, abs=1e-6)


def test_offset_cosine_depends_on_lengths():
    """The shorter, the nearer to zero; without the offset both would be 1."""
    x = torch.tensor([[0.1, 0.0]])
    assert offset_cosine(x, x).item() == pytest.approx(0.5)
    assert offset_cosine(100 * x, 100 * x).item() == pytest.approx(1, abs=1e-3)


def test_offset_cosine_has_gradients_at_zero_too():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, n, E, dtype=torch.float64, generator=generator).requires_grad_() for n in (2, 4))
    assert torch.autograd.gradcheck(offset_cosine, (x, y))
    x = torch.zeros(1, E, requires_grad=True)
    offset_cosine(x, torch.ones(1, E)).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((1, E), 100.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_offset_cosine_is_not_rounded_by_autocast(dtype):
    x, y = (torch.randn(n, E, generator=torch.Generator().manual_seed(n)).to(dtype) for n in (B, K))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = offset_cosine(x, y)
    assert found.dtype == torch.float32
    assert torch.equal(found, offset_cosine(x.float(), y.float()))
