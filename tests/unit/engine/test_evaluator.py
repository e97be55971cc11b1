import logging
import tracemalloc
from dataclasses import replace

import pytest
import torch

from slowfast.datasets.types import VideoBatch
from slowfast.engine import evaluator as module
from slowfast.engine.evaluator import (
    EvalConfig,
    ScoredBatch,
    gather_bad,
    gather_tally,
    merge_views,
    score_videos,
)
from slowfast.engine.precision import Precision
from slowfast.engine.score_store import ScoreStore
from slowfast.methods.base import Method, MethodOutput
from slowfast.protocols.metrics import Tally

CPU = torch.device("cpu")
V, VIEWS, K = 7, 2, 7


def stream(method, loader, *, device=CPU, **options):
    config = EvalConfig(**{"clips_per_forward": 4, **options})
    return score_videos(method, loader, precision=Precision(device.type), device=device, config=config)


def score(method, loader, **options):
    """All batches as one."""
    found = list(stream(method, loader, **options))
    whole = {name: torch.cat([getattr(part, name) for part in found]) for name in ("video_id", "label", "logits")}
    return ScoredBatch(**whole, bad=tuple(line for part in found for line in part.bad))


def batches(make_clips, size):
    return [make_clips(min(size, V - first), first=first, views=VIEWS) for first in range(0, V, size)]


def shuffled(batch, seed):
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    return replace(
        batch, frames=batch.frames[order], label=batch.label[order], video_id=batch.video_id[order],
        view=batch.view[order],
    )  # fmt: skip


@pytest.mark.parametrize("merge", ["sum", "max"])
@pytest.mark.parametrize("size", [2, 5, 7])
def test_batch_size_changes_no_bit(make_method, make_clips, size, merge):
    method = make_method()
    alone = score(method, batches(make_clips, 1), merge=merge)
    together = score(method, batches(make_clips, size), clips_per_forward=size, merge=merge)
    for name in ("logits", "label", "video_id"):
        assert torch.equal(getattr(together, name), getattr(alone, name))
    assert set(method.sizes) == {VIEWS}  # one video at a time


def test_batch_size_changes_no_bit_of_stdd(stdd, make_batch):
    method, clips = stdd("stcross_attend"), make_batch(num_videos=5)
    found = [score(method, clips.split(-(-5 // size))).logits for size in (1, 2, 5)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_one_answer_per_batch_before_the_next_is_read(make_method, make_clips):
    read = []

    def loader():
        for batch in batches(make_clips, 3):
            read.append(len(batch))
            yield batch

    videos = [(len(read), found.video_id.tolist()) for found in stream(make_method(), loader())]
    assert videos == [(1, [0, 1, 2]), (2, [3, 4, 5]), (3, [6])]


def test_scores_are_plain_tensors_on_the_cpu(make_method, make_clips):
    (found,) = stream(make_method(), [make_clips(2)])
    for tensor in (found.video_id, found.label, found.logits):
        assert not tensor.is_inference()
        assert not tensor.requires_grad
    assert not torch.is_inference_mode_enabled()


def test_the_caller_is_not_in_inference_mode(make_method, make_clips):
    for _ in stream(make_method(), batches(make_clips, 3)):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_logits_of_the_views_are_merged(make_method, make_clips):
    method, clips = make_method().eval(), make_clips(V, views=VIEWS)
    with torch.no_grad():
        expected = method(clips).logits.view(V, VIEWS, K)
    torch.testing.assert_close(score(method, [clips]).logits, expected.sum(dim=1))
    torch.testing.assert_close(score(method, [clips], merge="max").logits, expected.amax(dim=1))


@pytest.mark.parametrize(("how", "combine"), [("sum", torch.add), ("max", torch.maximum)])
def test_views_are_merged_one_by_one_whatever_their_order(make_clips, how, combine):
    """Negative and large scores, so that the order of a sum shows and a zero would win the maximum."""
    clips, views = make_clips(4, first=3, views=5), 5
    logits = -1e3 * torch.rand(4 * views, K, generator=torch.Generator().manual_seed(1)) ** 4 - 1e-3
    expected = logits.view(4, views, K)[:, 0]
    for number in range(1, views):
        expected = combine(expected, logits.view(4, views, K)[:, number])
    for seed in range(4):
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
        video_id, label, merged = merge_views(shuffled(clips, seed), logits[order], how=how)
        assert video_id.tolist() == [3, 4, 5, 6]
        assert label.tolist() == [3, 4, 5, 6]
        assert torch.equal(merged, expected)


def test_videos_may_differ_in_their_views(make_clips):
    clips = make_clips(3, views=3)
    kept = torch.tensor([0, 1, 2, 4, 7, 8])  # views 0 to 2 of video 0, 1 of video 1, 1 and 2 of video 2
    part = replace(
        clips, frames=clips.frames[kept], label=clips.label[kept], video_id=clips.video_id[kept], view=clips.view[kept]
    )
    merged = merge_views(part, torch.ones(6, K), how="sum")[2]
    assert merged[:, 0].tolist() == [3, 1, 2]


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_restored(make_method, make_clips, training):
    method = make_method().train(training)
    score(method, batches(make_clips, 3))
    assert method.training is training
    assert method.draws == []  # scored by eval_forward


def test_mode_is_restored_if_the_caller_stops_early(make_method, make_clips):
    method = make_method().train()
    for _ in stream(method, batches(make_clips, 3)):
        assert not method.training
        break
    assert method.training
    assert method.sizes == [VIEWS] * 3


def test_mode_is_restored_after_an_error(make_method):
    method = make_method().train()

    def broken():
        raise OSError("disk gone")
        yield

    with pytest.raises(OSError, match="disk gone"):
        list(stream(method, broken()))
    assert method.training


def test_bad_videos_are_reported_not_replaced(make_method, make_clips):
    loader = [make_clips(2), make_clips(0, bad=("b.mp4: broken",)), make_clips(1, first=4, bad=("a.mp4: broken",))]
    found = list(stream(make_method(), loader))
    assert [part.video_id.tolist() for part in found] == [[0, 1], [], [4]]
    assert [part.bad for part in found] == [(), ("b.mp4: broken",), ("a.mp4: broken",)]
    assert [tuple(part.logits.shape) for part in found] == [(2, K), (0, 0), (1, K)]


def test_unknown_way_to_merge():
    with pytest.raises(ValueError, match=r"^DATA\.ENSEMBLE_METHOD: unknown value 'mean'; allowed: sum, max$"):
        EvalConfig(clips_per_forward=1, merge="mean")


def counts(seed):
    generator = torch.Generator().manual_seed(seed)
    tally = Tally(K)
    tally.add(torch.randn(20, K, generator=generator), torch.randint(K, (20,), generator=generator))
    return tally


def test_processes_are_added_up(monkeypatch, caplog):
    ranks = [(counts(0), ("b.mp4: broken", "a.mp4: broken")), (counts(1), ("a.mp4: broken",))]
    monkeypatch.setattr(
        module, "all_gather_objects", lambda own: [rank[0 if isinstance(own, Tally) else 1] for rank in ranks]
    )
    with caplog.at_level(logging.WARNING):
        found = [gather_tally(tally, bad) for tally, bad in ranks]
    for total, bad in found:
        assert torch.equal(total.confusion, ranks[0][0].confusion + ranks[1][0].confusion)
        assert total.num_scored == 40
        assert bad == ("a.mp4: broken", "b.mp4: broken")
    assert ranks[0][0].num_scored == 20
    assert [record.getMessage() for record in caplog.records] == [
        "not scored: a.mp4: broken", "not scored: b.mp4: broken"
    ] * 2  # fmt: skip


def test_one_process_needs_no_other():
    total, bad = gather_tally(counts(0), ["a", "a"])
    assert torch.equal(total.confusion, counts(0).confusion)
    assert bad == gather_bad(("a",)) == ("a",)


class Echo(Method):
    """Scores K classes without a computation to speak of."""

    def __init__(self, num_classes):
        super().__init__(pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3)
        self.num_classes = num_classes

    def set_label_set(self, label_set, bank):
        pass

    def training_forward(self, batch):
        raise NotImplementedError

    def eval_forward(self, batch):
        return MethodOutput(batch.video_id[:, None] % torch.arange(1.0, self.num_classes + 1), {}, {})

    def frame_features(self, batch):
        raise NotImplementedError


def peak_of_a_test(folder, *, count, num_classes=400, step=200):
    """Score, store, read back and count; returns the most bytes that Python and NumPy held meanwhile."""

    def loader():
        for first in range(0, count, step):
            ids = torch.arange(first, first + step)
            yield VideoBatch(torch.zeros(step, 3, 1, 1, 1, dtype=torch.uint8), ids % num_classes, ids, 0 * ids)

    tally = Tally(num_classes)
    tracemalloc.start()
    try:
        with ScoreStore(folder, identity="x", num_classes=num_classes) as store:
            for scored in stream(Echo(num_classes), loader(), clips_per_forward=step):
                store.append(scored)
            for _, label, logits in store.chunks(rows=1000):
                tally.add(logits, label)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tally.num_scored == count
    return peak


def test_memory_does_not_grow_with_the_scores(tmp_path):
    """20000 videos of 400 classes are 32 MB of scores; what grows are the index of the store and its sorting."""
    few, many = 5_000, 20_000
    growth = peak_of_a_test(tmp_path / "many", count=many) - peak_of_a_test(tmp_path / "few", count=few)
    assert growth < 100 * (many - few)  # a row of scores alone has 1600 bytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_scores_at_most_so_many_clips_at_once(make_method, make_clips):
    device = torch.device("cuda")
    method = make_method().to(device)
    loader = batches(make_clips, 5)
    found = score(method, loader, device=device)
    assert max(method.sizes) <= 4
    expected = score(make_method(), loader)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
