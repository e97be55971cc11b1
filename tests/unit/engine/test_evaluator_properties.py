import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.types import VideoBatch
from slowfast.engine.evaluator import merge_views


@st.composite
def scored(draw):
    """Videos with some views each: (ids, views, logits), in any order."""
    ids = draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=6, unique=True))
    pairs = [(video, view) for video in ids for view in range(draw(st.integers(1, 4)))]
    seed = draw(st.integers(0, 2**31))
    logits = torch.randn(len(pairs), 5, generator=torch.Generator().manual_seed(seed)) * 10
    return pairs, logits, draw(st.permutations(range(len(pairs))))


def merged(pairs, logits, rows, how):
    batch = VideoBatch(
        frames=torch.zeros(len(rows), 3, 1, 1, 1, dtype=torch.uint8),
        label=torch.tensor([pairs[row][0] % 5 for row in rows]),
        video_id=torch.tensor([pairs[row][0] for row in rows]),
        view=torch.tensor([pairs[row][1] for row in rows]),
    )
    ids, label, scores = merge_views(batch, logits[list(rows)], how=how)
    return {video: (kind, score) for video, kind, score in zip(ids.tolist(), label.tolist(), scores, strict=True)}


@given(scored(), st.sampled_from(["sum", "max"]))
def test_views_merge_alike_in_any_order_and_any_batch(case, how):
    pairs, logits, order = case
    whole = merged(pairs, logits, range(len(pairs)), how)
    assert list(whole) == sorted({video for video, _ in pairs})
    shuffled = merged(pairs, logits, order, how)
    alone = {}
    for video in whole:
        alone |= merged(pairs, logits, [row for row in order if pairs[row][0] == video], how)
    for video, (label, score) in whole.items():
        rows = [row for row, (of, _) in enumerate(pairs) if of == video]
        naive = logits[rows].double().sum(0) if how == "sum" else logits[rows].amax(0).double()
        assert torch.allclose(score.double(), naive, rtol=1e-5, atol=1e-4)
        for other in (shuffled, alone):
            assert other[video][0] == label == video % 5
            assert torch.equal(other[video][1], score), "to the bit"
