"""Build CLIP-FSAR from the configuration."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.clip_fsar.config import ClipFsarConfig
from slowfast.methods.clip_fsar.head import FsarHead, HeadOptions
from slowfast.methods.clip_fsar.method import ClipFsar
from slowfast.methods.clip_fsar.prototype import NUM_HEADS
from slowfast.methods.clip_fsar.text import FrozenText
from slowfast.models.build import load_clip
from slowfast.models.clip.arch import read_sizes
from slowfast.models.clip.layers import use_activation
from slowfast.models.clip.model import CLIP
from slowfast.models.initial import choose_activation, clip_weights
from slowfast.models.losses import LOSSES
from slowfast.utils.registry import resolve


def build(cfg: CfgNode, label_set: LabelSet, *, training: bool, device: torch.device) -> ClipFsar:
    """Build CLIP-FSAR for a label set.

    Raises:
        ValueError: if weights, class names or options are not usable.
    """
    config = ClipFsarConfig.from_cfg(cfg)
    if training and cfg.TRAIN.ENABLE:  # a dry run of a test builds a method in training, too
        _refuse_random_transformer(config)
    return assemble(config, label_set, training=training, device=device)


def text_files(cfg: CfgNode, label_set: LabelSet) -> list[str | Path]:
    """None: a class is its name.

    Raises:
        ValueError: if an option is not usable.
    """
    del label_set
    ClipFsarConfig.from_cfg(cfg)  # a table asks for files before it starts
    return []


def assemble(
    config: ClipFsarConfig, label_set: LabelSet, *, training: bool = True, device: torch.device | str = "cpu"
) -> ClipFsar:
    """Build CLIP-FSAR from typed options.

    Args:
        config: options of the method.
        label_set: the classes to score, in training the base classes.
        training: whether it will be trained, so that weights without a temporal transformer are taken.
        device: where the method goes.

    Returns:
        The method on the device, in training mode.

    Raises:
        ValueError: if weights, class names or options are not usable.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # of what CLIP does not have, wherever the method is built
        method = _assemble(config, training=training)
    method.to(device).set_label_set(label_set, method.text_bank(label_set))
    if config.compile:
        method.compile_vision()
    return method


def _refuse_random_transformer(config: ClipFsarConfig) -> None:
    """Refuse a training whose tests would read what it does not train.

    Raises:
        ValueError: naming the key.
    """
    if config.reads_transformer and not config.trains_transformer:
        key = "EPISODES.TRAIN: False" if not config.trains_on_episodes else "CLIP_FSAR.USE_CLASSIFICATION_ONLY: True"
        raise ValueError(
            f"{key} leaves the temporal transformer as it is, random, and EPISODES.HEAD is 'own'; allowed with it: "
            "EPISODES.HEAD prototype or otam, or CLIP_FSAR.EVAL_TEXT True"
        )


def _assemble(config: ClipFsarConfig, *, training: bool) -> ClipFsar:
    (state, recorded), source = clip_weights(config)
    sizes = read_sizes(state, source=source)
    if sizes.embed_dim % NUM_HEADS:
        raise ValueError(
            f"MODEL.CLIP_WEIGHTS: {source} has a joint space of {sizes.embed_dim}; allowed: multiples of {NUM_HEADS}, "
            "the heads of the temporal transformer"
        )
    clip = CLIP(sizes)
    use_activation(clip, choose_activation(config, recorded, source=source))
    load_clip(clip, state, source=source)
    clip.recompute_blocks(config.recompute)
    tower, clip.visual = clip.visual, nn.Identity()  # type: ignore[assignment] # texts are all that is left to embed
    head = FsarHead(tower, width=sizes.embed_dim, depth=config.depth, options=head_options(config))
    return ClipFsar(
        head,
        text=FrozenText(clip, template=config.prompt),
        loss=resolve(LOSSES, config.loss_func, key="MODEL.LOSS_FUNC"),
        trains_transformer=config.trains_transformer,
        reads_transformer=config.reads_transformer,
        training=training,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    )


def head_options(config: ClipFsarConfig) -> HeadOptions:
    """What the head reads of the options."""
    return HeadOptions(
        merge_before=config.merge_before,
        single_direct=config.single_direct,
        use_classification=config.use_classification,
        classification_only=config.classification_only,
        classification_value=config.classification_value,
        eval_text=config.eval_text,
        combine=config.combine,
        text_coff=config.text_coff,
        smoothing=config.smoothing,
    )
