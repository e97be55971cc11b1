"""Build the chosen method."""

from __future__ import annotations

from pathlib import Path

import torch

from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.methods import METHODS
from slowfast.methods.base import Method
from slowfast.utils.registry import resolve


def build_method(
    cfg: CfgNode, label_set: LabelSet, *, training: bool = True, device: torch.device | str = "cpu"
) -> Method:
    """Build the method that METHOD names, with the text of a label set.

    Args:
        cfg: the frozen configuration.
        label_set: the classes to score.
        training: whether it will be trained; otherwise what only training needs, such as a teacher, is left out.
        device: where it goes; its text is encoded there.

    Returns:
        The method on the device.

    Raises:
        ValueError: if the method is unknown, or its weights or text files are not usable.
    """
    build = resolve(METHODS, cfg.METHOD, key="METHOD")
    method: Method = build(cfg, label_set, training=training, device=torch.device(device))
    if training and cfg.TRAIN.ENABLE and cfg.EPISODES.TRAIN and not method.learns_from_episodes:
        raise ValueError(
            f"EPISODES.TRAIN: True, but METHOD {cfg.METHOD!r} learns from videos one by one; allowed: False"
        )
    return method


def text_files(cfg: CfgNode, label_set: LabelSet) -> list[str | Path]:
    """Files with texts about the classes, or with their features, that the method reads beside its weights.

    Args:
        cfg: the frozen configuration.
        label_set: the classes to score.

    Raises:
        ValueError: if the method is unknown, or a file is not found.
    """
    builders = {name: f"{target.partition(':')[0]}:text_files" for name, target in METHODS.items()}
    files: list[str | Path] = resolve(builders, cfg.METHOD, key="METHOD")(cfg, label_set)
    return files
