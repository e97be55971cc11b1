import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from slowfast.datasets.annotation import VideoRecord, read_annotations
from slowfast.datasets.decode import DECODERS
from slowfast.datasets.episode_dataset import EpisodeDataset
from slowfast.datasets.episodes import EpisodeDraws, EpisodePlan, plan_episodes
from slowfast.datasets.frame_cache import SUFFIX as FRAMES_SUFFIX
from slowfast.datasets.frame_cache import CachedDecoder
from slowfast.datasets.frame_colors import ColorSettings
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.loader import VideoLoader
from slowfast.datasets.mixup import MixUp, MixUpSettings
from slowfast.datasets.pool import VideoPool, pool_splits
from slowfast.datasets.rand_augment import parse_rand_augment
from slowfast.datasets.random_erasing import ErasingSettings
from slowfast.datasets.sampler import EvalSampler, TrainBatchSampler
from slowfast.datasets.transforms import AugmentSettings, SpatialSettings
from slowfast.datasets.types import EpisodeSpec, Mode, Split, VideoBatch, collate, collate_episodes
from slowfast.datasets.video_dataset import SamplingSettings, VideoDataset
from slowfast.datasets.workers import bury_workers_at_exit, shield_worker
from slowfast.utils.bounded_store import BoundedStore
from slowfast.utils.logging import get_logger
from slowfast.utils.registry import resolve
from slowfast.utils.seed import derive_seed

if TYPE_CHECKING:
    from slowfast.config.node import CfgNode

logger = get_logger(__name__)

# Rows of an annotation file whose videos are looked for at the start.
_NUM_PROBED = 32


def build_split_loader(
    split: Split, *, cfg: "CfgNode", rank: int = 0, world_size: int = 1, local_world_size: int = 1
) -> "DataLoader[Any]":
    """Build the loader of a split to train on or to validate with; test splits are read as a pool.

    TRAIN.BATCH_SIZE is videos per machine, or, where episodes are trained on, episodes.
    `loader.batch_sampler.set_epoch(epoch)` selects the epoch of a train loader; the other loaders read every video
    once, in order, `rank::world_size`.

    Args:
        split: what to read.
        cfg: the run's configuration.
        rank: this process.
        world_size: number of processes.
        local_world_size: processes on this machine, which share its batch size.

    Raises:
        ValueError: one line naming the key, or the file and its line.
    """
    assert split.mode != "test", "test splits are read as a pool"
    if split.mode == "train":
        _compare_num_classes(cfg, split.label_set)
    trains_on_episodes = split.mode == "train" and split.episodes is not None
    dataset = build_episode_dataset(split, cfg=cfg) if trains_on_episodes else build_dataset(split, cfg=cfg)
    options = _loader_options(cfg, rank=rank)
    if split.mode == "train" and cfg.TRAIN.BATCH_SIZE % local_world_size:
        raise ValueError(f"TRAIN.BATCH_SIZE: {cfg.TRAIN.BATCH_SIZE} does not divide among {local_world_size} processes")
    per_rank = max(1, cfg.TRAIN.BATCH_SIZE // local_world_size)
    if split.mode == "train":
        batches = TrainBatchSampler(
            len(dataset),
            batch_size=per_rank,
            rank=rank,
            world_size=world_size,
            num_parts=cfg.TRAIN.ACCUMULATION_STEPS,
            seed=cfg.RNG_SEED,
            shuffle=not trains_on_episodes,  # they are in random order as they are
            what="episodes" if trains_on_episodes else "videos",
        )
        if trains_on_episodes:
            options["collate_fn"] = collate_episodes
        return VideoLoader(dataset, batch_sampler=batches, **options)
    return VideoLoader(dataset, batch_size=per_rank, sampler=EvalSampler(len(dataset), rank, world_size), **options)


def check_split(split: Split, *, cfg: "CfgNode") -> None:
    """Find out before a run whether a split can be read, and its episodes drawn.

    Raises:
        ValueError: one line naming the key, or the file and its line.
    """
    if split.episodes is None:
        build_dataset(split, cfg=cfg)
    elif split.mode == "train":
        build_episode_dataset(split, cfg=cfg)
    else:
        build_episode_plan(split, cfg=cfg)


def build_pool(splits: Sequence[Split], *, cfg: "CfgNode") -> VideoPool:
    """Read the annotation files of test splits and join them.

    Raises:
        ValueError: one line naming the file and its line.
    """
    return pool_splits([(split, _records(split, cfg=cfg)) for split in splits])


def build_pool_loader(
    pool: VideoPool,
    *,
    cfg: "CfgNode",
    rank: int = 0,
    world_size: int = 1,
    local_world_size: int = 1,
    skip: Collection[int] = (),
) -> "DataLoader[VideoBatch]":
    """Build the test loader of a pool: every video once, all views of each side by side.

    TEST.BATCH_SIZE is clips per machine; a batch holds whole videos, and at least one.

    Args:
        pool: what to read.
        cfg: the run's configuration.
        rank: this process.
        world_size: number of processes.
        local_world_size: processes on this machine, which share its batch size.
        skip: video ids that were scored before.
    """
    dataset = _dataset(pool.records, mode="test", views=pool.views, crops=pool.crops, cfg=cfg)
    videos = max(1, cfg.TEST.BATCH_SIZE // local_world_size // (pool.views * pool.crops))
    sampler = EvalSampler(len(dataset), rank, world_size, skip=skip)
    return VideoLoader(dataset, batch_size=videos, sampler=sampler, **_loader_options(cfg, rank=rank))


def build_video_loader(
    videos: Sequence[Path], *, cfg: "CfgNode", rank: int = 0, world_size: int = 1
) -> "DataLoader[VideoBatch]":
    """Build the loader of loose video files: the views and crops of a test, one video at a time, all labels 0.

    Args:
        videos: the files; the position is the video id.
        cfg: the run's configuration.
        rank: this process.
        world_size: number of processes.
    """
    dataset = _dataset(
        [VideoRecord(str(path), 0) for path in videos],
        mode="test",
        views=max(1, cfg.TEST.NUM_ENSEMBLE_VIEWS),
        crops=cfg.TEST.NUM_SPATIAL_CROPS,
        cfg=cfg,
    )
    sampler = EvalSampler(len(dataset), rank, world_size)
    return VideoLoader(dataset, batch_size=1, sampler=sampler, **_loader_options(cfg, rank=rank))


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _loader_options(cfg: "CfgNode", *, rank: int) -> dict[str, Any]:
    # More workers than cores only wait for each other; the samples are the same for any number.
    num_workers = min(cfg.DATA_LOADER.NUM_WORKERS, _num_cores())
    if num_workers > 0:
        bury_workers_at_exit()
    return {
        "collate_fn": collate,
        "num_workers": num_workers,
        "worker_init_fn": shield_worker,
        "persistent_workers": num_workers > 0,
        "pin_memory": cfg.DATA_LOADER.PIN_MEMORY and torch.cuda.is_available(),
        "timeout": cfg.DATA_LOADER.TIMEOUT_SECONDS if num_workers > 0 else 0,
        # a generator of its own: making an iterator must not draw from the global one
        "generator": torch.Generator().manual_seed(derive_seed("workers", cfg.RNG_SEED, rank)),
    }


def build_dataset(split: Split, *, cfg: "CfgNode") -> VideoDataset:
    """Read the annotation file of a split and describe how its clips are drawn.

    Raises:
        ValueError: one line naming the key, or the file and its line.
    """
    records = _records(split, cfg=cfg)
    return _dataset(records, mode=split.mode, views=split.views, crops=split.crops, cfg=cfg)


def build_episode_plan(split: Split, *, cfg: "CfgNode") -> EpisodePlan:
    """Read the annotation file of a split to score, and draw its episodes.

    Raises:
        ValueError: one line naming the key, or the file and its line.
    """
    assert split.episodes is not None, "a split without episodes"
    records = _records(split, cfg=cfg)
    return plan_episodes(_draws(split, records, spec=split.episodes), records)


def build_plan_loader(
    plan: EpisodePlan,
    *,
    mode: Mode,
    cfg: "CfgNode",
    rank: int = 0,
    world_size: int = 1,
    local_world_size: int = 1,
    skip: Collection[int] = (),
) -> "DataLoader[VideoBatch]":
    """Build the loader of the clips that episodes are made of: every clip once, TEST.BATCH_SIZE per machine.

    Args:
        plan: the episodes.
        mode: "val" or "test".
        cfg: the run's configuration.
        rank: this process.
        world_size: number of processes.
        local_world_size: processes on this machine, which share its batch size.
        skip: clips that were encoded before.
    """
    frames_seed = plan.spec.seed if plan.spec.random_frames else None
    dataset = _dataset(plan.records, mode=mode, views=1, crops=1, frames_seed=frames_seed, cfg=cfg)
    sampler = EvalSampler(len(dataset), rank, world_size, skip={*plan.unused, *skip})
    batch_size = max(1, cfg.TEST.BATCH_SIZE // local_world_size)
    return VideoLoader(dataset, batch_size=batch_size, sampler=sampler, **_loader_options(cfg, rank=rank))


def build_episode_dataset(split: Split, *, cfg: "CfgNode") -> EpisodeDataset:
    """Read the annotation file of a training split, and describe its episodes and how their clips are drawn.

    Raises:
        ValueError: one line naming the key, or the file and its line.
    """
    assert split.episodes is not None, "a split without episodes"
    records = _records(split, cfg=cfg)
    draws = _draws(split, records, spec=split.episodes)
    query = _dataset(records, mode="train", views=1, crops=1, cfg=cfg)
    support = _dataset(records, mode="train", views=1, crops=1, plain=True, cfg=cfg) if _plain_support(cfg) else query
    return EpisodeDataset(draws, support=support, query=query)


def _draws(split: Split, records: Sequence[VideoRecord], *, spec: EpisodeSpec) -> EpisodeDraws:
    labels = [record.label for record in records]
    return EpisodeDraws(labels, spec=spec, where=str(split.csv), names=split.label_set.names)


def _plain_support(cfg: "CfgNode") -> bool:
    return bool(cfg.EPISODES.PLAIN_SUPPORT) and (cfg.AUG.ENABLE or cfg.DATA.RANDOM_FLIP)


def _records(split: Split, *, cfg: "CfgNode") -> list[VideoRecord]:
    prefix = cfg.DATA.PATH_PREFIX if split.prefix is None else split.prefix
    records = read_annotations(
        split.csv,
        prefix=prefix,
        separator=split.separator or cfg.DATA.PATH_LABEL_SEPARATOR,
        num_classes=len(split.label_set),
        allow_outside=cfg.DATA.ALLOW_ABSOLUTE_PATHS,
    )
    _refuse_missing_videos(split.csv, records, prefix)
    return records


def _compare_num_classes(cfg: "CfgNode", label_set: LabelSet) -> None:
    if len(label_set) != cfg.MODEL.NUM_CLASSES:
        logger.warning(
            "MODEL.NUM_CLASSES is %d, but the label map has %d classes, which decides",
            cfg.MODEL.NUM_CLASSES,
            len(label_set),
        )


def _dataset(
    records: Sequence[VideoRecord],
    *,
    mode: Mode,
    views: int,
    crops: int,
    plain: bool = False,
    frames_seed: int | None = None,
    cfg: "CfgNode",
) -> VideoDataset:
    """Describe how clips are drawn.

    `plain` ones are neither mirrored nor augmented in training. With a seed of their own, the frames of other clips are
    drawn too.
    """
    data = cfg.DATA
    sampling = SamplingSettings(
        num_frames=data.NUM_FRAMES,
        sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS,
        jitter_fps=data.TRAIN_JITTER_FPS,
        rule=data.FRAME_SAMPLING,
        offsets=data.USE_OFFSET_SAMPLING,
        reverse=data.REVERSE_FRAMES,
    )
    spatial = SpatialSettings(
        jitter_scales=tuple(data.TRAIN_JITTER_SCALES),
        train_crop=data.TRAIN_CROP_SIZE,
        test_crop=data.TEST_CROP_SIZE,
        flip=data.RANDOM_FLIP and not plain,
        inverse_uniform=data.INV_UNIFORM_SAMPLE,
        relative_area=tuple(data.TRAIN_JITTER_SCALES_RELATIVE) or None,
        relative_aspect=tuple(data.TRAIN_JITTER_ASPECT_RELATIVE) or None,
        crop_scales=tuple(data.TRAIN_CROP_SCALES),
        squash=data.SQUASH,
        bgr=data.REVERSE_INPUT_CHANNEL,
        dtype=data.CLIP_DTYPE,
    )
    return VideoDataset(
        records,
        mode=mode,
        sampling=sampling,
        spatial=spatial,
        views=views,
        crops=crops,
        crops_per_clip=cfg.AUG.NUM_SAMPLE,
        augment=build_augmentation(cfg) if mode == "train" and not plain else None,
        seed=cfg.RNG_SEED if frames_seed is None else frames_seed,
        random_frames=frames_seed is not None,
        decode=_decoder(cfg, frames="" if mode == "train" or frames_seed is not None else f"{mode} {views} {sampling}"),
    )


def _decoder(cfg: "CfgNode", *, frames: str) -> Callable[..., Any]:
    """What reads videos; `frames` says which are read of each, empty if others in every epoch."""
    decode: Callable[..., Any] = resolve(DECODERS, cfg.DATA.DECODING_BACKEND, key="DATA.DECODING_BACKEND")
    if not cfg.DATA.CACHE_DIR:
        return decode
    store = BoundedStore(cfg.DATA.CACHE_DIR, int(cfg.DATA.CACHE_GB * 1e9), suffix=FRAMES_SUFFIX, key="DATA.CACHE_GB")
    return CachedDecoder(decode, store, purpose=frames, whole=not frames)


def build_augmentation(cfg: "CfgNode") -> AugmentSettings | None:
    """Describe what training clips go through, or None if AUG.ENABLE is off.

    Raises:
        ValueError: one line naming the key.
    """
    aug, data = cfg.AUG, cfg.DATA
    if not aug.ENABLE:
        return None
    if aug.RE_SPLIT and aug.NUM_SAMPLE == 1:
        raise ValueError("AUG.RE_SPLIT: True keeps the first crop, and AUG.NUM_SAMPLE 1 makes no other; allowed: False")
    # Frames are normalised as they travel; before that, while they are augmented, they are always RGB.
    mean, std = tuple(data.MEAN), tuple(data.STD)
    fill = tuple(min(255, round(255 * value)) for value in (mean[::-1] if data.REVERSE_INPUT_CHANNEL else mean))
    return AugmentSettings(
        rand_augment=parse_rand_augment(aug.AA_TYPE, interpolation=aug.INTERPOLATION, fill=fill)
        if aug.AA_TYPE
        else None,
        color_jitter=aug.COLOR_JITTER,
        colors=_color_settings(cfg),
        erasing=ErasingSettings(probability=aug.RE_PROB, mode=aug.RE_MODE, count=aug.RE_COUNT, mean=mean, std=std),
        clean_first=aug.RE_SPLIT,
    )


def _color_settings(cfg: "CfgNode") -> ColorSettings | None:
    """How the colours of crops change; None if neither they nor the loss of colour are asked for."""
    aug = cfg.AUG
    if not (aug.FRAME_JITTER_PROB or aug.GRAY_PROB):
        return None
    brightness, contrast, saturation, hue = aug.FRAME_JITTER
    return ColorSettings(
        jitter_prob=aug.FRAME_JITTER_PROB,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        gray_prob=aug.GRAY_PROB,
        per=aug.JITTER_PER,
    )


def build_mixup(cfg: "CfgNode", num_classes: int) -> MixUp | None:
    """Build what mixes training batches, or None if MIXUP.ENABLE is off.

    Args:
        cfg: the run's configuration.
        num_classes: classes of the training split.

    Raises:
        ValueError: one line naming the key.
    """
    if not cfg.MIXUP.ENABLE:
        return None
    settings = MixUpSettings(
        alpha=cfg.MIXUP.ALPHA,
        cutmix_alpha=cfg.MIXUP.CUTMIX_ALPHA,
        prob=cfg.MIXUP.PROB,
        switch_prob=cfg.MIXUP.SWITCH_PROB,
        label_smoothing=cfg.MIXUP.LABEL_SMOOTH_VALUE,
        partner=cfg.MIXUP.PARTNER,
        group_size=cfg.MIXUP.GROUP_SIZE,
    )
    return MixUp(settings=settings, num_classes=num_classes)


def missing_videos(records: Sequence[VideoRecord]) -> list[VideoRecord]:
    """Look for a sample of the videos, spread over the annotation file, and return those that do not exist."""
    return [record for record in _probed(records) if not _is_there(record.path)]


def _is_there(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False  # a name that no file can have, or below a folder that may not be read


def _probed(records: Sequence[VideoRecord]) -> Sequence[VideoRecord]:
    return records[:: max(1, len(records) // _NUM_PROBED)]


def _refuse_missing_videos(csv: Path, records: Sequence[VideoRecord], prefix: str) -> None:
    """A wrong prefix makes every video missing; say so before the run starts.

    Only a sample is looked at, and one file that exists is enough: single missing videos are the loop's to report.
    """
    if len(missing_videos(records)) == len(_probed(records)):
        record = records[0]
        raise ValueError(f"{csv}:{record.line}: no such video {record.path} (DATA.PATH_PREFIX is {prefix!r})")
