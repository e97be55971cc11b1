import numpy as np
import pytest
import torch

from slowfast.datasets.sampler import EvalSampler, TrainBatchSampler


def flat(batches):
    return [key for batch in batches for key in batch]


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_the_global_batches(world_size):
    whole = epoch_of(TrainBatchSampler(40, batch_size=2 * world_size, seed=5), 3)
    parts = [
        epoch_of(TrainBatchSampler(40, batch_size=2, rank=rank, world_size=world_size, seed=5), 3)
        for rank in range(world_size)
    ]
    assert [flat(part[step] for part in parts) for step in range(len(whole))] == whole


def test_epoch_is_a_permutation_that_depends_on_seed_and_epoch():
    sampler = TrainBatchSampler(12, batch_size=4, seed=1)
    keys = flat(epoch_of(sampler, 2))
    assert {epoch for epoch, _ in keys} == {2}
    assert sorted(index for _, index in keys) == list(range(12))
    assert [i for _, i in flat(epoch_of(sampler, 3))] != [i for _, i in keys]
    assert flat(epoch_of(TrainBatchSampler(12, batch_size=4, seed=1), 2)) == keys
    assert flat(epoch_of(TrainBatchSampler(12, batch_size=4, seed=2), 2)) != keys


def test_incomplete_batch():
    assert [len(batch) for batch in TrainBatchSampler(10, batch_size=4)] == [4, 4]
    assert len(TrainBatchSampler(10, batch_size=4)) == 2
    kept = TrainBatchSampler(10, batch_size=4, drop_last=False, shuffle=False)
    assert [len(batch) for batch in kept] == [4, 4, 2]
    assert len(kept) == 3
    assert next(iter(kept)) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_too_few_videos():
    message = "TRAIN.BATCH_SIZE: 8 videos per step over all processes, but the split holds only 7"
    with pytest.raises(ValueError, match=message):
        TrainBatchSampler(7, batch_size=4, world_size=2)


def test_eval_ranks_share_without_padding():
    parts = [list(EvalSampler(7, rank, 3)) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    assert [len(EvalSampler(7, rank, 3)) for rank in range(3)] == [3, 2, 2]


def test_eval_ranks_leave_out_what_is_done():
    parts = [list(EvalSampler(7, rank, 3, skip={0, 4, 5})) for rank in range(3)]
    assert parts == [[3, 6], [1], [2]]
    assert [len(EvalSampler(7, rank, 3, skip=np.array([0, 4, 5]))) for rank in range(3)] == [2, 1, 1]
    assert list(EvalSampler(3, skip=range(3))) == []


def test_ranks_that_disagree_on_what_is_done_lose_no_video():
    """The second process reads what is done after the first has begun."""
    seen = [*EvalSampler(7, 0, 2, skip=[1]), *EvalSampler(7, 1, 2, skip=[0, 1, 2])]
    assert sorted(seen) == [0, 2, 3, 4, 5, 6]


def test_videos_to_leave_out_are_of_the_split():
    with pytest.raises(AssertionError, match=r"not in \[0, 7\)"):
        EvalSampler(7, skip=[7])


def parts_of(batch, count):
    return [[batch[i] for i in part] for part in torch.arange(len(batch)).tensor_split(min(count, len(batch)))]


@pytest.mark.parametrize(("size", "parts", "world_size"), [(12, 3, 2), (16, 4, 2), (16, 2, 4), (8, 8, 1)])
def test_the_same_videos_meet_in_a_part_on_any_number_of_ranks(size, parts, world_size):
    one = epoch_of(TrainBatchSampler(50, batch_size=size, num_parts=parts, seed=5), 1)
    share = {"batch_size": size // world_size, "world_size": world_size, "num_parts": parts, "seed": 5}
    ranks = [epoch_of(TrainBatchSampler(50, rank=rank, **share), 1) for rank in range(world_size)]
    for number, batch in enumerate(one):
        pieces = zip(*(parts_of(rank[number], parts) for rank in ranks), strict=True)
        assert [flat(piece) for piece in pieces] == parts_of(batch, parts)


def test_parts_that_do_not_divide_leave_no_video_out():
    share = {"batch_size": 5, "world_size": 2, "num_parts": 3, "shuffle": False, "drop_last": False}
    ranks = [epoch_of(TrainBatchSampler(23, rank=rank, **share), 0) for rank in range(2)]
    assert [sorted(index for _, index in flat(pair)) for pair in zip(*ranks, strict=True)] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 23)),
    ]
