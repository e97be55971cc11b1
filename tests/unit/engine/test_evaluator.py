import logging

import pytest
import torch

from slowfast.engine.evaluator import EvalConfig, evaluate
from slowfast.engine.precision import Precision
from slowfast.engine.step import split_batch

CPU = torch.device("cpu")
V, VIEWS, K = 7, 2, 7


def score(method, loader, **options):
    config = EvalConfig(**{"num_videos": V, "num_classes": K, "clips_per_forward": 4, **options})
    return evaluate(method, loader, precision=Precision("cpu"), device=CPU, config=config)


def batches(make_clips, size):
    return [make_clips(min(size, V - first), first=first, views=VIEWS) for first in range(0, V, size)]


@pytest.mark.parametrize("size", [2, 5, 7])
def test_batch_size_changes_no_bit(make_method, make_clips, size):
    method = make_method()
    alone = score(method, batches(make_clips, 1))
    together = score(method, batches(make_clips, size), clips_per_forward=size)
    assert torch.equal(together.logits, alone.logits)
    assert torch.equal(together.label, alone.label)
    assert set(method.sizes) == {VIEWS}  # one video at a time


def test_batch_size_changes_no_bit_of_stdd(stdd, make_batch):
    method, clips = stdd("stcross_attend"), make_batch(num_videos=5)
    found = [score(method, split_batch(clips, -(-5 // size)), num_videos=5, num_classes=3).logits for size in (1, 2, 5)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_logits_of_the_views_are_merged(make_method, make_clips):
    method, clips = make_method().eval(), make_clips(V, views=VIEWS)
    with torch.no_grad():
        expected = method(clips).logits.view(V, VIEWS, K)
    torch.testing.assert_close(score(method, [clips]).logits, expected.sum(dim=1))
    torch.testing.assert_close(score(method, [clips], merge="max").logits, expected.amax(dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_restored(make_method, make_clips, training):
    method = make_method().train(training)
    score(method, batches(make_clips, 3))
    assert method.training is training
    assert method.draws == []  # scored by eval_forward


def test_mode_is_restored_after_an_error(make_method):
    method = make_method().train()

    def broken():
        raise OSError("disk gone")
        yield

    with pytest.raises(OSError, match="disk gone"):
        score(method, broken())
    assert method.training


def test_bad_videos_are_reported_not_replaced(make_method, make_clips, caplog):
    loader = [make_clips(2), make_clips(0, bad=("b.mp4: broken",)), make_clips(1, first=4, bad=("a.mp4: broken",))]
    with caplog.at_level(logging.WARNING):
        found = score(make_method(), loader)
    assert found.video_id.tolist() == [0, 1, 4]
    assert found.num_expected == V
    assert found.bad == ("a.mp4: broken", "b.mp4: broken")
    assert [record.getMessage() for record in caplog.records] == [
        "not scored: a.mp4: broken", "not scored: b.mp4: broken"
    ]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_scores_at_most_so_many_clips_at_once(make_method, make_clips):
    device = torch.device("cuda")
    method = make_method().to(device)
    config = EvalConfig(num_videos=V, num_classes=K, clips_per_forward=4)
    loader = batches(make_clips, 5)
    found = evaluate(method, loader, precision=Precision("cuda"), device=device, config=config)
    assert max(method.sizes) <= 4
    expected = score(make_method(), loader)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
