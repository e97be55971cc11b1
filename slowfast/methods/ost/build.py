"""Build OST and its descriptors from the configuration."""

from __future__ import annotations

from pathlib import Path

import torch

from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.ost.config import OstConfig
from slowfast.methods.ost.method import OST
from slowfast.methods.ost.scores import make_matcher
from slowfast.methods.ost.text import DescriptorText
from slowfast.models.alignment import SinkhornOptions
from slowfast.models.build import build_clip
from slowfast.models.initial import choose_activation, clip_weights
from slowfast.text.descriptors import descriptor_bank, file_classes, find_file
from slowfast.text.text_bank import TextBank
from slowfast.text.tokenizer import Tokenizer


def build(cfg: CfgNode, label_set: LabelSet, *, training: bool, device: torch.device) -> OST:
    """Build OST for a label set.

    Raises:
        ValueError: if weights, descriptors or options are not usable.
    """
    del training  # nothing of the model serves training alone
    return assemble(OstConfig.from_cfg(cfg), label_set, device=device)


def text_files(cfg: CfgNode, label_set: LabelSet) -> list[str | Path]:
    """The files of descriptors, and the class lists that number them."""
    config = OstConfig.from_cfg(cfg)
    files: list[str | Path] = []
    for kind, given in config.files.items():
        if given:
            files += [given, config.file_classes]
        else:
            found = find_file(kind, count=config.num_descriptors, source=label_set.source)
            files += [found, file_classes(found)]
    return files


def assemble(config: OstConfig, label_set: LabelSet, *, device: torch.device | str = "cpu") -> OST:
    """Build OST from typed options.

    Args:
        config: options of the method.
        label_set: the classes to score.
        device: where the method goes.

    Returns:
        The method on the device, in training mode.

    Raises:
        ValueError: if weights, descriptors or options are not usable.
    """
    (state, recorded), source = clip_weights(config)
    clip = build_clip(state, activation=choose_activation(config, recorded, source=source), source=source)
    clip.recompute_blocks(config.recompute)
    options = SinkhornOptions(
        eps=config.eps,
        max_iterations=config.max_iterations,
        tolerance=config.tolerance,
        stop=config.stop,
        log_domain=config.log_domain,
    )
    method = OST(
        clip,
        text=DescriptorText(config.kinds, trains=config.use != "image"),
        matcher=make_matcher(config.solver, options),
        plan_options=options if config.solver == "sinkhorn" else None,
        use=config.use,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    ).to(device)
    method.set_label_set(label_set, text_bank(config, label_set))
    if config.compile:
        clip.compile_vision()
    return method


def text_bank(config: OstConfig, label_set: LabelSet) -> TextBank:
    """Read the descriptors of the classes into their templates.

    Raises:
        ValueError: if they are absent or do not fit, or a prompt is too long for the text tower.
    """
    return descriptor_bank(
        label_set,
        config.files,
        count=config.num_descriptors,
        classes=config.file_classes,
        tokenizer=Tokenizer(),
    )
