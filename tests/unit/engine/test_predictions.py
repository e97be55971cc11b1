import pytest
import torch

from slowfast.engine import predictions as module
from slowfast.engine.predictions import PredictionCollector

V, VIEWS, K = 6, 3, 4


@pytest.fixture
def scores():
    """Negative logits (V, VIEWS, K) and labels (V,)."""
    generator = torch.Generator().manual_seed(0)
    return -5 - torch.rand(V, VIEWS, K, generator=generator), torch.randint(K, (V,), generator=generator)


def collect(scores, order, *, chunk=4, collector=None):
    logits, label = scores
    collector = collector or PredictionCollector()
    for start in range(0, len(order), chunk):
        video, view = torch.tensor(order[start : start + chunk]).T
        collector.add(video_id=video, view=view, label=label[video], logits=logits[video, view])
    return collector


PAIRS = [(video, view) for video in range(V) for view in range(VIEWS)]


@pytest.mark.parametrize(("method", "reduce"), [("sum", torch.sum), ("max", torch.amax)])
def test_merge_of_negative_logits(scores, method, reduce):
    merged = collect(scores, PAIRS).merge(num_expected=V, num_classes=K, method=method)
    torch.testing.assert_close(merged.logits, reduce(scores[0], dim=1))
    assert torch.equal(merged.label, scores[1])
    assert merged.video_id.tolist() == list(range(V))
    assert (merged.num_expected, merged.bad) == (V, ())


@pytest.mark.parametrize("method", ["sum", "max"])
def test_order_and_batches_change_no_bit(scores, method):
    reference = collect(scores, PAIRS).merge(num_expected=V, num_classes=K, method=method)
    for seed in range(5):
        order = [PAIRS[i] for i in torch.randperm(len(PAIRS), generator=torch.Generator().manual_seed(seed))]
        found = collect(scores, order, chunk=seed + 1).merge(num_expected=V, num_classes=K, method=method)
        assert torch.equal(found.logits, reference.logits)
        assert torch.equal(found.label, reference.label)


def test_processes_change_no_bit(scores, monkeypatch):
    reference = collect(scores, PAIRS).merge(num_expected=V, num_classes=K)
    ranks = [collect(scores, [pair for pair in PAIRS if pair[0] % 2 == rank]) for rank in (1, 0)]
    ranks[0].bad.append("a.mp4: broken")
    ranks[1].bad.extend(["b.mp4: broken", "a.mp4: broken"])
    own = []
    monkeypatch.setattr(module, "all_gather_objects", lambda obj: own.append(obj) or list(own))
    ranks[0].merge(num_expected=V, num_classes=K)
    merged = ranks[1].merge(num_expected=V, num_classes=K)
    assert torch.equal(merged.logits, reference.logits)
    assert merged.bad == ("a.mp4: broken", "b.mp4: broken")


def test_missing_videos_leave_no_row(scores):
    kept = [pair for pair in PAIRS if pair[0] not in (0, 3)]
    merged = collect(scores, kept).merge(num_expected=V, num_classes=K)
    assert merged.video_id.tolist() == [1, 2, 4, 5]
    assert torch.equal(merged.label, scores[1][[1, 2, 4, 5]])
    torch.testing.assert_close(merged.logits, scores[0][[1, 2, 4, 5]].sum(dim=1))


def test_nothing_scored():
    merged = PredictionCollector().merge(num_expected=3, num_classes=K)
    assert (merged.logits.shape, len(merged.label), merged.num_expected) == ((0, K), 0, 3)


def test_scores_are_kept_in_fp32(scores):
    collector = PredictionCollector()
    zeros = torch.zeros(2, dtype=torch.long)
    logits = torch.full((2, K), 1.5, dtype=torch.bfloat16)
    collector.add(video_id=zeros, view=torch.arange(2), label=zeros, logits=logits)
    merged = collector.merge(num_expected=1, num_classes=K)
    assert merged.logits.dtype == torch.float32
    assert merged.logits.tolist() == [[3.0] * K]


def test_unknown_method():
    with pytest.raises(ValueError, match=r"^DATA\.ENSEMBLE_METHOD: unknown value 'mean'; allowed: sum, max$"):
        PredictionCollector().merge(num_expected=1, num_classes=K, method="mean")
