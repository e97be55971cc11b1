"""Build STDD and its text features from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.stdd.config import StddConfig
from slowfast.methods.stdd.distillation import FrameDistillation
from slowfast.methods.stdd.method import STDD
from slowfast.models.build import block_option_names, build_clip
from slowfast.models.clip.arch import PUBLISHED, ClipSizes
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.text import trim_tokens
from slowfast.models.clip.weights import load_clip_state_dict, random_clip_state_dict
from slowfast.models.losses import LOSSES
from slowfast.text.text_bank import TextBank, load_feature_file, template_bank
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.registry import resolve

RANDOM = "random"


def build(cfg: CfgNode, label_set: LabelSet, *, training: bool, device: torch.device) -> STDD:
    """Build STDD for a label set.

    Raises:
        ValueError: if weights, text features or options are not usable.
    """
    options = {name: getattr(cfg.MODEL, name.upper()) for name in block_option_names()}
    return assemble(StddConfig.from_cfg(cfg), options, label_set, training=training, device=device)


def assemble(
    config: StddConfig,
    block_options: Mapping[str, Any],
    label_set: LabelSet,
    *,
    training: bool = True,
    device: torch.device | str = "cpu",
) -> STDD:
    """Build STDD from typed options.

    Args:
        config: options of the method.
        block_options: options of the temporal module.
        label_set: the classes to score.
        training: whether to build the teacher.
        device: where the method goes; its text is encoded there.

    Returns:
        The method on the device, in training mode.

    Raises:
        ValueError: if weights or text features are not usable.
    """
    state, source = clip_weights(config)
    clip = build_clip(
        state,
        temporal_modeling_type=config.temporal_modeling_type,
        block_options=block_options,
        source=source,
    )
    distillation, teacher = None, None
    if config.distil and training:
        distillation = FrameDistillation(mode=config.distillation_mode, ratio=config.distillation_ratio)
        teacher = build_clip(state, source=source) if distillation.active else None
    method = STDD(
        clip,
        loss=resolve(LOSSES, config.loss_func, key="MODEL.LOSS_FUNC"),
        teacher=teacher,
        distillation=distillation,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    ).to(device)
    method.set_label_set(label_set, text_bank(clip, label_set, feature_file=config.text_feature_file))
    if config.compile:
        for tower in (clip.visual, *([teacher.visual] if teacher is not None else [])):
            # Compiled code draws its masks from the same stream as eager code, so that the switch changes no number.
            # Batch sizes may vary: a program for each would soon exceed what torch.compile allows of one function.
            tower.compile(fullgraph=True, options={"fallback_random": True})
    return method


def clip_weights(config: StddConfig) -> tuple[dict[str, Tensor], str]:
    """Find the initial CLIP.

    Returns:
        Its state dict, and what to call it in an error.

    Raises:
        ValueError: if there is none, or it has other sizes than MODEL.ARCH.
    """
    published = PUBLISHED.get(config.arch)
    if published is None and (config.arch != "custom" or config.clip_weights in ("", RANDOM)):
        raise ValueError(
            f"MODEL.ARCH: unknown value {config.arch!r}; allowed: {', '.join(PUBLISHED)}, "
            "or custom with MODEL.CLIP_WEIGHTS naming a file"
        )
    if published is not None and config.clip_weights == RANDOM:
        return random_clip_state_dict(published.sizes, seed=config.seed), RANDOM
    source = config.clip_weights or config.arch
    state = load_clip_state_dict(source, cache_dir=config.clip_cache_dir or None)
    if published is not None:
        found = ClipSizes.from_state_dict(state, source=source)
        if found != published.sizes:
            raise ValueError(
                f"MODEL.ARCH: is {config.arch}, but {source} holds {found}; set MODEL.ARCH to custom to use its sizes"
            )
    return state, source


def text_bank(clip: CLIP, label_set: LabelSet, *, feature_file: str | None) -> TextBank:
    """Read the prompt features of a label set, or make its classifier from templates.

    Raises:
        ValueError: if the file does not fit the label set and the model.
    """
    if feature_file is not None:
        return load_feature_file(feature_file, num_classes=len(label_set), embed_dim=clip.sizes.embed_dim)
    device = clip.logit_scale.device
    return template_bank(
        label_set.names, encode=lambda tokens: clip.encode_text(trim_tokens(tokens).to(device)), tokenizer=Tokenizer()
    )
