from collections.abc import Collection, Iterator

import torch
from torch.utils.data import Sampler

from slowfast.utils.seed import derive_seed


class TrainBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys; W ranks together see exactly the batches of one rank with the global batch.

    The permutation of an epoch follows from (seed, epoch) alone, so a run that restarts at epoch e goes on with the
    order of epoch e. Global batch g is `permutation[g*GB:(g+1)*GB]`, GB = batch_size * world_size; rank r takes its
    r-th contiguous slice. Where a step computes its batch in parts, it takes its slice of each part: videos that meet
    in a part, whose losses may depend on each other, are then the same on any number of ranks that the parts divide by.

    An epoch may start behind some of its videos. Places are counted in videos, not in steps: a run that goes on with
    another GB keeps the order, and leaves out none but what does not fill a last batch.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_parts: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        what: str = "videos",
    ) -> None:
        """Describe the batches of one rank.

        Args:
            num_samples: videos of the split.
            batch_size: videos per rank and step.
            rank: this process, in [0, world_size).
            world_size: number of processes.
            num_parts: how many parts a rank's batch is computed in, as nearly equal as possible, the larger ones first.
            seed: run seed.
            shuffle: permute anew each epoch; otherwise csv order.
            drop_last: drop the incomplete last global batch.
            what: the samples are, for errors.

        Raises:
            ValueError: if not a single global batch fits.
        """
        if drop_last and num_samples < batch_size * world_size:
            raise ValueError(
                f"TRAIN.BATCH_SIZE: {batch_size * world_size} {what} per step over all processes, "
                f"but {'an epoch' if what == 'episodes' else 'the split'} holds only {num_samples}"
            )
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._parts = [len(part) for part in torch.arange(batch_size).tensor_split(min(num_parts, batch_size))]
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._epoch = 0
        self._first = 0

    @property
    def global_batch(self) -> int:
        """Videos per step over all ranks."""
        return self._batch_size * self._world_size

    def set_epoch(self, epoch: int, *, first: int = 0) -> None:
        """Select what the next iteration enumerates.

        Args:
            epoch: from 0.
            first: videos of the epoch, over all ranks, that were seen before.
        """
        assert first >= 0, f"first: {first}"
        self._epoch, self._first = epoch, first

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._num_batches(self._num_samples)

    def _num_batches(self, num_samples: int) -> int:
        if self._drop_last:
            return num_samples // self.global_batch
        return -(-num_samples // self.global_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, first = self._epoch, self._first
        order = self._order(epoch)
        for step in range(self._num_batches(max(0, self._num_samples - first))):
            yield self._slice(order, epoch, first + step * self.global_batch)

    def batch(self, epoch: int, *, first: int) -> list[tuple[int, int]]:
        """This rank's share of one global batch, for whoever wants to see it again.

        Args:
            epoch: from 0.
            first: videos of the epoch that come before the global batch.
        """
        return self._slice(self._order(epoch), epoch, first)

    def _slice(self, order: list[int], epoch: int, first: int) -> list[tuple[int, int]]:
        keys: list[tuple[int, int]] = []
        for size in self._parts:
            start = first + self._rank * size
            keys += [(epoch, index) for index in order[start : start + size]]
            first += self._world_size * size
        return keys

    def _order(self, epoch: int) -> list[int]:
        if not self._shuffle:
            return list(range(self._num_samples))
        generator = torch.Generator().manual_seed(derive_seed("order", self._seed, epoch))
        return torch.randperm(self._num_samples, generator=generator).tolist()


class EvalSampler(Sampler[int]):
    """Every world_size-th video from `rank` on: each video exactly once over all ranks, no padding.

    Shares do not depend on `skip`: ranks that disagree on it leave no video out and take none twice.

    Args:
        num_samples: videos of the split.
        rank: this process.
        world_size: number of processes.
        skip: videos to leave out, in [0, num_samples).
    """

    def __init__(self, num_samples: int, rank: int = 0, world_size: int = 1, *, skip: Collection[int] = ()) -> None:
        left_out = {int(index) for index in skip}
        assert all(0 <= index < num_samples for index in left_out), f"skip: not in [0, {num_samples})"
        share = range(rank, num_samples, world_size)
        self._indices = [index for index in share if index not in left_out] if left_out else share

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)
