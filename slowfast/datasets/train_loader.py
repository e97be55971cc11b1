"""Training batches by place: an epoch from any video on, and any batch once more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from slowfast.datasets.episode_dataset import EpisodeDataset
from slowfast.datasets.sampler import TrainBatchSampler
from slowfast.datasets.types import Batch


class TrainLoader:
    """The training batches of this process.

    Args:
        loader: over a `VideoDataset` in mode "train", or an `EpisodeDataset`, with a `TrainBatchSampler`.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        assert isinstance(loader.batch_sampler, TrainBatchSampler), "a training loader has a TrainBatchSampler"
        self._loader = loader
        self._sampler = loader.batch_sampler

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._sampler)

    @property
    def num_samples(self) -> int:
        """What an epoch counts: the videos of the split, or its episodes."""
        return len(self._loader.dataset)  # type: ignore[arg-type]

    @property
    def num_videos(self) -> int:
        """Videos of the split."""
        dataset = self._loader.dataset
        return dataset.num_videos if isinstance(dataset, EpisodeDataset) else self.num_samples

    @property
    def global_batch(self) -> int:
        """Samples per step over all processes."""
        return self._sampler.global_batch

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            epoch: from 0.
            first: samples of the epoch, over all processes, that are left out because they were seen.
        """
        self._sampler.set_epoch(epoch, first=first)
        return iter(self._loader)

    def again(self, epoch: int, *, first: int) -> Batch:
        """Make the batch that stands behind the `first` samples of an epoch, the same as before to the bit."""
        samples = [self._loader.dataset[key] for key in self._sampler.batch(epoch, first=first)]
        batch: Batch = self._loader.collate_fn(samples)
        return batch
