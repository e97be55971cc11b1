"""Build TC-CLIP and its prompts from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.tc_clip.config import TcClipConfig
from slowfast.methods.tc_clip.context_tokens import ContextOptions, ContextTower
from slowfast.methods.tc_clip.method import TCCLIP
from slowfast.methods.tc_clip.prompts import PromptedText
from slowfast.models.build import load_clip
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.layers import Activation, use_activation
from slowfast.models.clip.model import CLIP
from slowfast.models.initial import choose_activation, clip_weights
from slowfast.models.losses import LOSSES
from slowfast.text.text_bank import TextBank, context_bank, spoken_name
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.registry import resolve

_LEVEL_KEY = "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL"
_POSITIONS = "visual.positional_embedding"


def build(cfg: CfgNode, label_set: LabelSet, *, training: bool, device: torch.device) -> TCCLIP:
    """Build TC-CLIP for a label set.

    Raises:
        ValueError: if weights, class names or options are not usable.
    """
    del training  # nothing of the model serves training alone
    return assemble(TcClipConfig.from_cfg(cfg), label_set, device=device)


def text_files(cfg: CfgNode, label_set: LabelSet) -> list[str | Path]:
    """None: a class is its name."""
    del cfg, label_set
    return []


def assemble(config: TcClipConfig, label_set: LabelSet, *, device: torch.device | str = "cpu") -> TCCLIP:
    """Build TC-CLIP from typed options.

    Args:
        config: options of the method.
        label_set: the classes to score.
        device: where the method goes.

    Returns:
        The method on the device, in training mode.

    Raises:
        ValueError: if weights, class names or options are not usable.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # of what CLIP does not have, wherever the method is built
        method = _assemble(config)
    method.to(device).set_label_set(label_set, text_bank(config, label_set))
    if config.compile:
        method.model.compile_vision()
    return method


def _assemble(config: TcClipConfig) -> TCCLIP:
    (state, recorded), source = clip_weights(config)
    sizes = ClipSizes.from_state_dict(state, source=source, taker="METHOD tc_clip")
    text_levels, vision_levels = find_levels(config.levels, sizes)
    clip = _build_clip(
        config,
        state,
        levels=vision_levels,
        activation=choose_activation(config, recorded, source=source),
        source=source,
    )
    text = PromptedText(sizes, words=first_words(config, clip), levels=text_levels)
    text.start_layers(clip, copy=config.copies_block)
    return TCCLIP(
        clip,
        text=text,
        loss=resolve(LOSSES, config.loss_func, key="MODEL.LOSS_FUNC"),
        freeze=config.freeze,
        new_module_factor=config.new_module_factor,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    )


def _build_clip(
    config: TcClipConfig, state: Mapping[str, Tensor], *, levels: tuple[int, ...], activation: Activation, source: str
) -> CLIP:
    options = ContextOptions(
        enabled=config.temporal_context,
        num_tokens=config.num_context,
        seed_share=config.seed_share,
        merge_step=config.merge_step,
        merge_inflection=config.merge_inflection,
        bias=config.bias,
        way=config.way,
    )
    sizes = ClipSizes.from_state_dict(state, source=source)
    tower = ContextTower(
        sizes,
        options,
        levels=levels,
        stop_gradient=config.stop_gradient,
        position_frames=config.num_frames if config.joint_positions else None,
    )
    clip = CLIP(sizes, visual=tower)
    use_activation(clip, activation)
    if config.joint_positions:
        state = {**state, _POSITIONS: state[_POSITIONS].expand(config.num_frames, -1, -1)}
    load_clip(clip, state, source=source)
    clip.recompute_blocks(config.recompute)
    return clip


def find_levels(levels: tuple[int, ...], sizes: ClipSizes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks of the text tower that prompts are generated for, and the blocks of the image tower that they read.

    A block of the text tower reads the block of the image tower that is as far from the end as itself: in ViT-B the one
    with the same number, as published.

    Args:
        levels: numbers of blocks from 1, or from the end, negative.
        sizes: of the CLIP.

    Returns:
        Numbers from 0, increasing, of the text tower and of the image tower.

    Raises:
        ValueError: if a block does not exist, or is named twice.
    """
    last = sizes.text_layers
    least = max(1, last - sizes.vision_layers + 1)
    chosen = sorted(level if level > 0 else last + 1 + level for level in levels)
    wrong = [level for level in chosen if not least <= level <= last]
    if wrong or len(set(chosen)) != len(chosen):
        raise ValueError(
            f"{_LEVEL_KEY}: {list(levels)}; allowed: different blocks from {least} to {last}, or from the end, -1 to "
            f"{least - last - 1}"
        )
    text = tuple(level - 1 for level in chosen)
    return text, tuple(level + sizes.vision_layers - sizes.text_layers for level in text)


def first_words(config: TcClipConfig, clip: CLIP) -> Tensor:
    """What the learned words start from: embeddings of the words of TC_CLIP.CTX_INIT, others at random, (n, D).

    Raises:
        ValueError: if there are more words than TC_CLIP.N_CTX, or one is not a single token.
    """
    words = config.words.split()
    tokens = Tokenizer().encode(config.words)
    if len(tokens) != len(words):
        raise ValueError(f"TC_CLIP.CTX_INIT: {config.words!r} has {len(tokens)} tokens; allowed: words of one token")
    if len(words) > config.num_words:
        raise ValueError(
            f"TC_CLIP.CTX_INIT: {config.words!r} has {len(words)} words; allowed: at most TC_CLIP.N_CTX, "
            f"which is {config.num_words}"
        )
    start = 0.02 * torch.randn(config.num_words, clip.sizes.text_width)
    start[: len(words)] = clip.token_embedding.weight.detach()[tokens]
    return start


def text_bank(config: TcClipConfig, label_set: LabelSet) -> TextBank:
    """Write the prompt of each class: learned words, its name, a full stop.

    Raises:
        ValueError: if a prompt is too long for the text tower.
    """
    names = [spoken_name(name, split_capitals=config.split_capitals) for name in label_set.names]
    return context_bank(names, num_context=config.num_words, words=config.words, tokenizer=Tokenizer())
