"""Build ViFi-CLIP and its texts from the configuration."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.vifi_clip.config import VifiClipConfig
from slowfast.methods.vifi_clip.method import ViFiCLIP
from slowfast.methods.vifi_clip.text import ClassText
from slowfast.methods.vifi_clip.vision import PromptedBlock, PromptedTower, random_vectors
from slowfast.models.build import load_clip
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.layers import use_activation
from slowfast.models.clip.model import CLIP
from slowfast.models.initial import choose_activation, clip_weights
from slowfast.models.losses import LOSSES
from slowfast.text.text_bank import TextBank, context_bank, spoken_name, template_bank
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.registry import resolve

_MOST_WORDS = 4
"""Learned vectors of the text that start from the words of CTX_INIT; more of them start at random, as published."""


def build(cfg: CfgNode, label_set: LabelSet, *, training: bool, device: torch.device) -> ViFiCLIP:
    """Build ViFi-CLIP for a label set.

    Raises:
        ValueError: if weights, class names or options are not usable.
    """
    return assemble(VifiClipConfig.from_cfg(cfg), label_set, training=training, device=device)


def text_files(cfg: CfgNode, label_set: LabelSet) -> list[str | Path]:
    """None: a class is its name."""
    del cfg, label_set
    return []


def assemble(
    config: VifiClipConfig, label_set: LabelSet, *, training: bool = True, device: torch.device | str = "cpu"
) -> ViFiCLIP:
    """Build ViFi-CLIP from typed options.

    Args:
        config: options of the method.
        label_set: the classes to score.
        training: whether learned vectors may start here, so that weights without them are taken.
        device: where the method goes.

    Returns:
        The method on the device, in training mode.

    Raises:
        ValueError: if weights, class names or options are not usable.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # of what CLIP does not have, wherever the method is built
        method = _assemble(config, training=training)
    method.to(device).set_label_set(label_set, text_bank(config, label_set))
    if config.compile:
        method.model.compile_vision()
    return method


def _assemble(config: VifiClipConfig, *, training: bool) -> ViFiCLIP:
    clip = _build_clip(config)
    return ViFiCLIP(
        clip,
        text=ClassText(num_start=_num_start(config), words=first_words(config, clip)),
        loss=resolve(LOSSES, config.loss_func, key="MODEL.LOSS_FUNC"),
        use=config.use,
        prompts_only=config.prompts_only,
        starts_prompts=training,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    )


def _build_clip(config: VifiClipConfig) -> CLIP:
    (state, recorded), source = clip_weights(config)
    sizes = ClipSizes.from_state_dict(state, source=source, taker="METHOD vifi_clip")
    check_depths(config, sizes)
    tower = PromptedTower(sizes, num_prompts=config.num_vision_prompts, depth=config.vision_depth)
    clip = CLIP(sizes, visual=tower)
    if config.num_text_prompts:
        for layer in range(1, config.text_depth):
            block = PromptedBlock(sizes.text_width, num_prompts=config.num_text_prompts, causal=True)
            clip.transformer.resblocks[layer] = block
    use_activation(clip, choose_activation(config, recorded, source=source))
    load_clip(clip, state, source=source)
    clip.recompute_blocks(config.recompute)
    return clip


def check_depths(config: VifiClipConfig, sizes: ClipSizes) -> None:
    """Refuse learned vectors in blocks that a tower does not have.

    Raises:
        ValueError: naming the key.
    """
    for key, number, depth, layers in (
        ("PROMPT_DEPTH_VISION", config.num_vision_prompts, config.vision_depth, sizes.vision_layers),
        ("PROMPT_DEPTH_TEXT", config.num_text_prompts, config.text_depth, sizes.text_layers),
    ):
        if number and depth > layers:
            raise ValueError(f"VIFI_CLIP.{key}: {depth}; allowed: at most {layers}, the blocks of the tower")


def first_words(config: VifiClipConfig, clip: CLIP) -> Tensor | None:
    """What the learned vectors of the text start from, (n, D); None where there are none.

    Raises:
        ValueError: if there are few enough for the words of VIFI_CLIP.CTX_INIT, but not as many as their tokens.
    """
    number = config.num_text_prompts
    if not number:
        return None
    if number > _MOST_WORDS or not config.words:
        return random_vectors(number, clip.sizes.text_width)
    tokens = Tokenizer().encode(config.words)
    if len(tokens) != number:
        raise ValueError(
            f"VIFI_CLIP.CTX_INIT: {config.words!r} has {len(tokens)} tokens; allowed: as many as "
            f"VIFI_CLIP.N_CTX_TEXT, which is {number}, or none"
        )
    return clip.token_embedding.weight.detach()[tokens].clone()


def text_bank(config: VifiClipConfig, label_set: LabelSet) -> TextBank:
    """Write the text of each class: words or learned vectors, its name, a full stop; or its bare name.

    Raises:
        ValueError: if a text is too long for the text tower.
    """
    tokenizer = Tokenizer()
    if config.bare_names:
        return template_bank(label_set.names, tokenizer=tokenizer, templates=("{}",))
    if not config.num_text_prompts:
        number = _num_start(config) - 1
        return context_bank(label_set.names, num_context=number, words=config.words, tokenizer=tokenizer)
    names = [spoken_name(name, split_capitals=False) for name in label_set.names]
    return context_bank(names, num_context=config.num_text_prompts, tokenizer=tokenizer)


def _num_start(config: VifiClipConfig) -> int:
    """Tokens before the class name: start of text, and the learned vectors or the words."""
    if config.bare_names:
        return 1
    return 1 + (config.num_text_prompts or len(Tokenizer().encode(config.words)))
