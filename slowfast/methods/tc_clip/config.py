"""Options of TC-CLIP: its section of the configuration, and what the method reads of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from slowfast.config.node import CfgNode
from slowfast.config.shared import STDD_KEYS, ClipOptions, clip_options, refuse_foreign

Freeze = Literal["", "backbone", "image", "text"]


def add_config(node: CfgNode) -> None:
    """Declare the keys; names are those of the official code in upper case, defaults the published ones."""
    node.TC_CLIP = CfgNode()
    # Context tokens at all: without, every frame is on its own, and the prompts read the class tokens of the frames.
    # Ours.
    node.TC_CLIP.TEMPORAL_CONTEXT = True
    # Context tokens of a video, >= 1; seed tokens of a frame as a share of its patches, in [0, 1],
    # at least one.
    node.TC_CLIP.CONTEXT_TOKEN_K = 96
    node.TC_CLIP.SEED_TOKEN_A = 0.3
    # Tokens that each step of merging removes, >= 1, and how that changes over the layers, in [-1, 1]: 0 not at all,
    # towards 1 more in later layers, towards -1 in earlier ones.
    node.TC_CLIP.TOME_R = 100
    node.TC_CLIP.TOME_D = 0.0
    # A learned bias per head that weighs context tokens against those of the frame.
    node.TC_CLIP.LOCAL_GLOBAL_BIAS = True
    # Positions of patches: space (the same in all frames) or joint (each of the DATA.NUM_FRAMES frames has its own).
    node.TC_CLIP.POSITIONAL_EMBEDDING_TYPE = "space"
    # Learned words in front of the class name, >= 1, and what they say at the start, one token each; words that are
    # missing start at random. A space before each capital letter of a class name.
    node.TC_CLIP.N_CTX = 4
    node.TC_CLIP.CTX_INIT = "a photo of a"
    node.TC_CLIP.SPLIT_CAPITALS = True
    # Blocks of the text tower, from 1, before which the words read the video; negative numbers count from the end, -1
    # is the last (the published 12); []: none, the words are the same for all videos.
    node.TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL = [-1]
    # What reads it starts as a copy of that block (clip), or at random.
    node.TC_CLIP.PROMPT_GENERATION_LAYER_INIT = "clip"
    # No gradient goes from the text back into the context tokens.
    node.TC_CLIP.IM_STOP_GRAD = True
    # What does not train: nothing (empty), backbone (both towers), image, text. What TC-CLIP adds to the text and
    # logit_scale always train.
    node.TC_CLIP.FREEZE = ""
    # Ten times the learning rate for learned words and prompt generation.
    node.TC_CLIP.LR_10X = True
    # How frames attend to the context: parts (keys and values of the context are never copied to the frames), joined
    # (copied behind those of every frame), auto: parts on a CPU. The same numbers but for rounding. Ours.
    node.TC_CLIP.CONTEXT_ATTENTION = "auto"


CHOICES: dict[str, tuple[Any, ...]] = {
    "TC_CLIP.POSITIONAL_EMBEDDING_TYPE": ("space", "joint"),
    "TC_CLIP.PROMPT_GENERATION_LAYER_INIT": ("clip", "random"),
    "TC_CLIP.FREEZE": ("", "backbone", "image", "text"),
    "TC_CLIP.CONTEXT_ATTENTION": ("auto", "parts", "joined"),
}
RANGES: dict[str, tuple[float, float | None]] = {
    "TC_CLIP.CONTEXT_TOKEN_K": (1, None),
    "TC_CLIP.SEED_TOKEN_A": (0, 1),
    "TC_CLIP.TOME_R": (1, None),
    "TC_CLIP.TOME_D": (-1, 1),
    "TC_CLIP.N_CTX": (1, 70),
}
LISTS: dict[str, tuple[Callable[[Any], bool], tuple[int, ...] | None, str]] = {
    "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL": (
        lambda x: type(x) is int and x != 0,
        None,
        "a list of integers other than 0",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TcClipConfig(ClipOptions):
    """Options of TC-CLIP."""

    num_frames: int
    temporal_context: bool
    num_context: int
    seed_share: float
    merge_step: int
    merge_inflection: float
    bias: bool
    joint_positions: bool
    num_words: int
    words: str
    split_capitals: bool
    levels: tuple[int, ...]
    """Blocks from 1, or from the end, negative."""
    copies_block: bool
    stop_gradient: bool
    freeze: Freeze
    new_module_factor: float
    """Learning rate of learned words and prompt generation, relative to that of the rest."""
    way: Literal["auto", "parts", "joined"]

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> TcClipConfig:
        """Pick TC-CLIP's keys out of the configuration.

        Raises:
            ValueError: if a key of another method is set, or the learned words are not usable.
        """
        refuse_foreign(cfg, STDD_KEYS)
        own = cfg.TC_CLIP
        return cls(
            **clip_options(cfg),
            num_frames=cfg.DATA.NUM_FRAMES,
            temporal_context=own.TEMPORAL_CONTEXT,
            num_context=own.CONTEXT_TOKEN_K,
            seed_share=own.SEED_TOKEN_A,
            merge_step=own.TOME_R,
            merge_inflection=own.TOME_D,
            bias=own.LOCAL_GLOBAL_BIAS,
            joint_positions=own.POSITIONAL_EMBEDDING_TYPE == "joint",
            num_words=own.N_CTX,
            words=own.CTX_INIT.replace("_", " "),
            split_capitals=own.SPLIT_CAPITALS,
            levels=tuple(own.PROMPT_GENERATION_LAYER_LEVEL),
            copies_block=own.PROMPT_GENERATION_LAYER_INIT == "clip",
            stop_gradient=own.IM_STOP_GRAD,
            freeze=own.FREEZE,
            new_module_factor=10.0 if own.LR_10X else 1.0,
            way=own.CONTEXT_ATTENTION,
        )
