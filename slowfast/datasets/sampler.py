from collections.abc import Collection, Iterator

import torch
from torch.utils.data import Sampler

from slowfast.utils.seed import derive_seed


class TrainBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys; W ranks together see exactly the batches of one rank with the global batch.

    The permutation of an epoch follows from (seed, epoch) alone, so a run that restarts at epoch e goes on with the
    order of epoch e. Global batch g is `permutation[g*GB:(g+1)*GB]`, GB = batch_size * world_size; rank r takes its
    r-th contiguous slice.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        """Describe the batches of one rank.

        Args:
            num_samples: videos of the split.
            batch_size: videos per rank and step.
            rank: this process, in [0, world_size).
            world_size: number of processes.
            seed: run seed.
            shuffle: permute anew each epoch; otherwise csv order.
            drop_last: drop the incomplete last global batch.

        Raises:
            ValueError: if not a single global batch fits.
        """
        if drop_last and num_samples < batch_size * world_size:
            raise ValueError(
                f"TRAIN.BATCH_SIZE: {batch_size * world_size} videos per step over all processes, "
                f"but the split holds only {num_samples}"
            )
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch that the next iteration enumerates."""
        self._epoch = epoch

    def __len__(self) -> int:
        global_batch = self._batch_size * self._world_size
        if self._drop_last:
            return self._num_samples // global_batch
        return -(-self._num_samples // global_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self._epoch
        order = self._order(epoch)
        global_batch = self._batch_size * self._world_size
        for step in range(len(self)):
            start = step * global_batch + self._rank * self._batch_size
            stop = min(start + self._batch_size, (step + 1) * global_batch)
            yield [(epoch, index) for index in order[start:stop]]

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
