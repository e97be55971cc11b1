"""Build STDD and its text features from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.stdd import DISTILLATIONS
from slowfast.methods.stdd.config import StddConfig
from slowfast.methods.stdd.distillation import Distillation
from slowfast.methods.stdd.method import STDD, RoutingLoss
from slowfast.methods.stdd.text_head import ContextText, EncodedText, FixedText, TextHead, TunedHead, TunedText
from slowfast.models.build import ExpertOptions, block_option_names, build_clip
from slowfast.models.clip.arch import read_sizes
from slowfast.models.clip.model import CLIP
from slowfast.models.initial import choose_activation, clip_weights
from slowfast.models.losses import LOSSES
from slowfast.text.text_bank import TextBank, context_bank, load_feature_file, rephrased_bank, template_bank
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.registry import resolve


def build(cfg: CfgNode, label_set: LabelSet, *, training: bool, device: torch.device) -> STDD:
    """Build STDD for a label set.

    Raises:
        ValueError: if weights, text features or options are not usable.
    """
    options = {name: getattr(cfg.MODEL, name.upper()) for name in block_option_names()}
    return assemble(StddConfig.from_cfg(cfg), options, label_set, training=training, device=device)


def text_files(cfg: CfgNode, label_set: LabelSet) -> list[str | Path]:
    """The file of text features, where there is one."""
    del label_set  # one file serves all classes
    return [cfg.DATA.TEXT_AUG_FEATURE_FILE] if cfg.DATA.TEXT_AUG else []


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
    (state, recorded), source = clip_weights(config)
    activation = choose_activation(config, recorded, source=source)
    clip = build_clip(
        state,
        temporal_modeling_type=config.temporal_modeling_type,
        block_options=block_options,
        experts=_experts(config),
        activation=activation,
        source=source,
    )
    clip.recompute_blocks(config.recompute)
    distillation = _distillation(config) if training else None
    needs_raw = config.ensemble_ratio > 0 or (distillation is not None and distillation.active)
    raw_model = build_clip(_plain(state), activation=activation, source=source) if needs_raw else None
    method = STDD(
        clip,
        text=text_head(config, clip),
        loss=resolve(LOSSES, config.loss_func, key="MODEL.LOSS_FUNC"),
        raw_model=raw_model,
        distillation=distillation,
        ensemble_ratio=config.ensemble_ratio,
        routing=_routing(config) if training else None,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    ).to(device)
    method.set_label_set(label_set, text_bank(config, label_set, embed_dim=clip.sizes.embed_dim))
    if config.compile:
        clip.compile_vision()
        if raw_model is not None:
            raw_model.compile_vision()
    return method


def _experts(config: StddConfig) -> ExpertOptions | None:
    if not config.num_experts:
        return None
    return ExpertOptions(count=config.num_experts, layers=config.expert_layers, routing_type=config.routing_type)


def _routing(config: StddConfig) -> RoutingLoss | None:
    if not config.record_routing:
        return None
    return RoutingLoss(
        target=config.routing_target,
        factor=config.routing_factor,
        kind=config.routing_kind,
        classification_ratio=config.classification_ratio,
    )


def _distillation(config: StddConfig) -> Distillation | None:
    if config.distillation is None:
        return None
    distillation_class = resolve(DISTILLATIONS, config.distillation, key="MODEL.DISTILLATION_MODE")
    return distillation_class(ratio=config.distillation_ratio)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what is not CLIP's own, such as adapters that the initial weights come with."""
    with torch.device("meta"):
        own = CLIP(read_sizes(state)).state_dict()
    return {name: tensor for name, tensor in state.items() if name in own}


def text_head(config: StddConfig, clip: CLIP) -> TextHead:
    """Choose where the class embeddings come from."""
    embed_dim = clip.sizes.embed_dim
    if config.num_context:
        return ContextText(embed_dim, num_context=config.num_context, width=clip.sizes.text_width)
    if config.tune_head:
        return TunedHead(embed_dim)
    if config.text_feature_file is not None:
        return FixedText(embed_dim)
    return TunedText(embed_dim) if _tunes_text(config) else EncodedText(embed_dim)


def text_bank(config: StddConfig, label_set: LabelSet, *, embed_dim: int) -> TextBank:
    """Read the prompt features of a label set, or write its prompts.

    Raises:
        ValueError: if the file does not fit the label set and the model, or a prompt is too long for the text tower.
    """
    if config.text_feature_file is not None:
        return load_feature_file(config.text_feature_file, names=label_set.names, embed_dim=embed_dim)
    tokenizer = Tokenizer()
    if config.num_context:
        return context_bank(label_set.names, num_context=config.num_context, tokenizer=tokenizer)
    make = rephrased_bank if config.rephrased else template_bank
    return make(label_set.names, tokenizer=tokenizer)


def _tunes_text(config: StddConfig) -> bool:
    """Whether the text tower trains."""
    distillation = _distillation(config)
    return distillation is not None and distillation.tunes_text
