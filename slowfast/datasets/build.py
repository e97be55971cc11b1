from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from slowfast.datasets.types import Split, VideoBatch

if TYPE_CHECKING:
    from slowfast.config.node import CfgNode


def build_split_loader(split: Split, *, cfg: "CfgNode", rank: int = 0, world_size: int = 1) -> "DataLoader[VideoBatch]":
    """Build the loader of one split.

    A train or val loader yields TRAIN.BATCH_SIZE videos per machine; a test loader TEST.BATCH_SIZE clips, whole videos
    (all their views) at a time. `loader.batch_sampler.set_epoch(epoch)` selects the epoch of a train loader.
    """
    raise NotImplementedError
