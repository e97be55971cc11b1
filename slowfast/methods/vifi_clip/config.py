"""Options of ViFi-CLIP: its section of the configuration, and what the method reads of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from slowfast.config.node import CfgNode
from slowfast.config.shared import STDD_KEYS, ClipOptions, clip_options, refuse_foreign

Trained = Literal["both", "image", "text"]


def add_config(node: CfgNode) -> None:
    """Declare the keys; names and defaults are those of the official code."""
    node.VIFI_CLIP = CfgNode()
    # What trains: both towers and logit_scale, the image tower alone, or the text tower alone; the table of tokens
    # never does. Learned vectors train with their tower. Not read where PROMPT_MODEL is set.
    node.VIFI_CLIP.USE = "both"
    # Text of a class: these words, its name, a full stop. With ZS_EVAL: the bare name.
    node.VIFI_CLIP.CTX_INIT = "a photo of a"
    node.VIFI_CLIP.ZS_EVAL = False
    # Learned vectors in the towers: how many, 0 for none, and before how many blocks they are put in anew; a vision
    # depth of 0 means none, too. CTX_INIT is what at most 4 vectors of the text start from, else they are random.
    # PROMPT_MODEL: nothing else trains.
    node.VIFI_CLIP.PROMPT_MODEL = False
    node.VIFI_CLIP.N_CTX_VISION = 0
    node.VIFI_CLIP.N_CTX_TEXT = 0
    node.VIFI_CLIP.PROMPT_DEPTH_VISION = 0
    node.VIFI_CLIP.PROMPT_DEPTH_TEXT = 1


CHOICES: dict[str, tuple[Any, ...]] = {"VIFI_CLIP.USE": ("both", "image", "text")}
RANGES: dict[str, tuple[float, float | None]] = {
    "VIFI_CLIP.N_CTX_VISION": (0, None),
    "VIFI_CLIP.N_CTX_TEXT": (0, 70),
    "VIFI_CLIP.PROMPT_DEPTH_VISION": (0, None),
    "VIFI_CLIP.PROMPT_DEPTH_TEXT": (1, None),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VifiClipConfig(ClipOptions):
    """Options of ViFi-CLIP."""

    use: Trained
    words: str
    bare_names: bool
    """VIFI_CLIP.ZS_EVAL."""
    prompts_only: bool
    """VIFI_CLIP.PROMPT_MODEL."""
    num_vision_prompts: int
    """Learned vectors of the image tower; 0 as well where VIFI_CLIP.PROMPT_DEPTH_VISION is."""
    num_text_prompts: int
    vision_depth: int
    text_depth: int

    def __post_init__(self) -> None:
        ClipOptions.__post_init__(self)
        vision, text = self.num_vision_prompts, self.num_text_prompts
        if text and self.bare_names:
            raise ValueError(
                f"VIFI_CLIP.N_CTX_TEXT: {text} learned vectors have no place in the bare names of VIFI_CLIP.ZS_EVAL "
                "True; allowed: 0"
            )
        if self.prompts_only:
            if not vision and not text:
                raise ValueError(
                    "VIFI_CLIP.PROMPT_MODEL: True, but there are no learned vectors to train; allowed: with "
                    "VIFI_CLIP.N_CTX_TEXT, or N_CTX_VISION and PROMPT_DEPTH_VISION, of at least 1"
                )
            return
        for number, key, other in ((vision, "N_CTX_VISION", "text"), (text, "N_CTX_TEXT", "image")):
            if number and self.use == other:
                raise ValueError(
                    f"VIFI_CLIP.{key}: {number} learned vectors would not train with VIFI_CLIP.USE {other!r}; "
                    "allowed: 0, or VIFI_CLIP.PROMPT_MODEL True"
                )

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> VifiClipConfig:
        """Pick ViFi-CLIP's keys out of the configuration.

        Raises:
            ValueError: if a key of another method is set, or keys contradict each other.
        """
        refuse_foreign(cfg, STDD_KEYS)
        own = cfg.VIFI_CLIP
        return cls(
            **clip_options(cfg),
            use=own.USE,
            words=own.CTX_INIT.replace("_", " "),
            bare_names=own.ZS_EVAL,
            prompts_only=own.PROMPT_MODEL,
            num_vision_prompts=own.N_CTX_VISION if own.PROMPT_DEPTH_VISION else 0,
            num_text_prompts=own.N_CTX_TEXT,
            vision_depth=own.PROMPT_DEPTH_VISION,
            text_depth=own.PROMPT_DEPTH_TEXT,
        )
