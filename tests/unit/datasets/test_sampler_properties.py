from collections import Counter
from itertools import chain

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.sampler import EvalSampler, TrainBatchSampler


@st.composite
def trainings(draw):
    """A split and how it is cut: keyword arguments of TrainBatchSampler but for the rank."""
    batch_size, world_size = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    drop_last = draw(st.booleans())
    least = batch_size * world_size if drop_last else 1
    return {
        "num_samples": draw(st.integers(least, 80)),
        "batch_size": batch_size,
        "world_size": world_size,
        "seed": draw(st.integers(0, 2**32 - 1)),
        "shuffle": draw(st.booleans()),
        "drop_last": drop_last,
    }


def batches_of(options, *, epoch, rank=0, **changed):
    options = {**options, **changed}
    sampler = TrainBatchSampler(options.pop("num_samples"), rank=rank, **options)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


epochs = st.integers(0, 1000)


@given(trainings(), epochs)
def test_an_epoch_has_every_sample_at_most_once(options, epoch):
    ranks = [batches_of(options, epoch=epoch, rank=rank) for rank in range(options["world_size"])]
    keys = Counter(key for batches in ranks for batch in batches for key in batch)
    assert set(keys.values()) <= {1}
    assert {of for of, _ in keys} <= {epoch}
    indices = {index for _, index in keys}
    assert indices <= set(range(options["num_samples"]))
    whole = options["batch_size"] * options["world_size"]
    left_out = options["num_samples"] % whole if options["drop_last"] else 0
    assert len(indices) == options["num_samples"] - left_out


@given(trainings(), epochs)
def test_ranks_together_are_one_rank_with_the_global_batch(options, epoch):
    ranks = [batches_of(options, epoch=epoch, rank=rank) for rank in range(options["world_size"])]
    joined = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    whole = options["batch_size"] * options["world_size"]
    assert joined == batches_of(options, epoch=epoch, batch_size=whole, world_size=1)


@given(trainings(), epochs, epochs)
def test_order_follows_from_seed_and_epoch(options, epoch, before):
    first = batches_of(options, epoch=epoch)
    size = options.pop("num_samples")
    sampler = TrainBatchSampler(size, **options)
    sampler.set_epoch(before)
    list(sampler)
    sampler.set_epoch(epoch)
    assert list(sampler) == list(sampler) == first


@given(st.integers(0, 2**32 - 1), epochs)
def test_epochs_and_seeds_have_orders_of_their_own(seed, epoch):
    def order(seed, epoch):
        options = {"num_samples": 64, "batch_size": 64, "seed": seed}
        return [index for _, index in batches_of(options, epoch=epoch)[0]]

    orders = [order(seed, epoch), order(seed, epoch + 1), order(seed + 1, epoch), list(range(64))]
    assert len(set(map(tuple, orders))) == len(orders)


@st.composite
def scorings(draw):
    size = draw(st.integers(0, 60))
    skip = draw(st.sets(st.integers(0, size - 1))) if size else set()
    return size, draw(st.integers(1, 5)), skip


@given(scorings())
def test_every_video_is_scored_once(case):
    size, world_size, skip = case
    shares = [list(EvalSampler(size, rank, world_size, skip=skip)) for rank in range(world_size)]
    assert sorted(chain(*shares)) == [index for index in range(size) if index not in skip]
    for rank, share in enumerate(shares):
        assert len(EvalSampler(size, rank, world_size, skip=skip)) == len(share)
        assert share == sorted(share)
        # Ranks that know of different videos still have shares that do not meet.
        assert set(share) <= set(EvalSampler(size, rank, world_size))


@given(trainings(), epochs, st.data())
def test_an_epoch_goes_on_behind_any_video_with_any_batch(options, epoch, data):
    """What comes behind the first videos is the rest of the order, cut into batches of whatever size there is now."""
    one = {**options, "batch_size": 1, "world_size": 1, "drop_last": False}
    order = list(chain(*batches_of(one, epoch=epoch)))
    first = data.draw(st.integers(0, options["num_samples"] + 3))
    whole = options["batch_size"] * options["world_size"]
    ranks = []
    for rank in range(options["world_size"]):
        sampler = TrainBatchSampler(
            options["num_samples"], rank=rank, **{k: v for k, v in options.items() if k != "num_samples"}
        )
        sampler.set_epoch(epoch, first=first)
        ranks.append(list(sampler))
        assert len(sampler) == len(batches_of(options, epoch=epoch, rank=rank))  # of a whole epoch
        assert all(batch == sampler.batch(epoch, first=first + whole * n) for n, batch in enumerate(ranks[-1]))
    seen = [key for parts in zip(*ranks, strict=True) for part in parts for key in part]
    rest = order[first:]
    assert seen == rest[: len(rest) // whole * whole if options["drop_last"] else None]
