"""Options of CLIP-FSAR: its section of the configuration, and what the method reads of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slowfast.config.node import CfgNode
from slowfast.config.shared import STDD_KEYS, ClipOptions, clip_options, refuse_foreign, scores_episodes

_FOREIGN = {
    **STDD_KEYS,
    # Of a checkpoint without a text tower there is no raw CLIP to speak of.
    "TRAIN.LINEAR_CONNECT_CLIMB": False,
    "TEST.PATCHING_MODEL": False,
    "TEST.PATCHING_RATIOS": [],
}


def add_config(node: CfgNode) -> None:
    """Declare the keys; names are those that the official code has under TRAIN, defaults those of its recipes."""
    node.CLIP_FSAR = CfgNode()
    # Learn the similarity of videos and the names of all base classes, too; weight of that term, >= 0; from it alone.
    node.CLIP_FSAR.USE_CLASSIFICATION = True
    node.CLIP_FSAR.USE_CLASSIFICATION_VALUE = 1.0
    node.CLIP_FSAR.USE_CLASSIFICATION_ONLY = False
    # Average several supports of a class before the temporal transformer, or behind it. The official 5-shot files do.
    node.CLIP_FSAR.MERGE_BEFORE = False
    # Align queries with prototypes only, not prototypes with queries.
    node.CLIP_FSAR.SINGLE_DIRECT = False
    # Layers of the temporal transformer, >= 1.
    node.CLIP_FSAR.TRANSFORMER_DEPTH = 1
    # At test: class names alone; class names and alignments, as a product of probabilities, that of the names to the
    # power TEXT_COFF, in [0, 1]. EVAL_TEXT counts where both are set.
    node.CLIP_FSAR.EVAL_TEXT = False
    node.CLIP_FSAR.COMBINE = False
    node.CLIP_FSAR.TEXT_COFF = 0.9
    # What a class name is put into, with one {}. TEST.PROMPT of the official code.
    node.CLIP_FSAR.PROMPT = "a photo of {}"


CHOICES: dict[str, tuple[Any, ...]] = {}
RANGES: dict[str, tuple[float, float | None]] = {
    "CLIP_FSAR.USE_CLASSIFICATION_VALUE": (0, None),
    "CLIP_FSAR.TRANSFORMER_DEPTH": (1, None),
    "CLIP_FSAR.TEXT_COFF": (0, 1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFsarConfig(ClipOptions):
    """Options of CLIP-FSAR."""

    use_classification: bool
    classification_only: bool
    classification_value: float
    merge_before: bool
    single_direct: bool
    depth: int
    eval_text: bool
    combine: bool
    text_coff: float
    prompt: str
    smoothing: float
    trains_on_episodes: bool
    own_head: bool
    """Episodes are compared by the method itself."""

    def __post_init__(self) -> None:
        ClipOptions.__post_init__(self)
        if self.prompt.count("{}") != 1 or set(self.prompt.replace("{}", "")) & {"{", "}"}:
            raise ValueError(f"CLIP_FSAR.PROMPT: {self.prompt!r}; allowed: a text with one {{}} for the class name")
        if (self.use_classification or self.classification_only) and not self.classification_value:
            raise ValueError(
                "CLIP_FSAR.USE_CLASSIFICATION_VALUE: 0 leaves nothing of the similarity to class names; allowed: above "
                "0, or CLIP_FSAR.USE_CLASSIFICATION and USE_CLASSIFICATION_ONLY False"
            )

    @property
    def trains_transformer(self) -> bool:
        """The temporal transformer learns."""
        return self.trains_on_episodes and not self.classification_only

    @property
    def reads_transformer(self) -> bool:
        """Tests in episodes use it."""
        return self.own_head and not self.eval_text

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> ClipFsarConfig:
        """Pick the keys of the method.

        Raises:
            ValueError: if a key asks for something that the method does not have.
        """
        refuse_foreign(cfg, _FOREIGN)
        if cfg.AVERAGE.METHOD and cfg.AVERAGE.START == 0:
            raise ValueError(
                "AVERAGE.START: 0 includes raw CLIP, of which checkpoints of METHOD 'clip_fsar' have no text tower; "
                "allowed: from 1"
            )
        own, episodes = cfg.CLIP_FSAR, cfg.EPISODES
        return cls(
            **clip_options(cfg),
            use_classification=own.USE_CLASSIFICATION,
            classification_only=own.USE_CLASSIFICATION_ONLY,
            classification_value=own.USE_CLASSIFICATION_VALUE,
            merge_before=own.MERGE_BEFORE,
            single_direct=own.SINGLE_DIRECT,
            depth=own.TRANSFORMER_DEPTH,
            eval_text=own.EVAL_TEXT,
            combine=own.COMBINE,
            text_coff=own.TEXT_COFF,
            prompt=own.PROMPT,
            smoothing=episodes.SMOOTHING,
            trains_on_episodes=episodes.TRAIN,
            own_head=scores_episodes(cfg) and episodes.HEAD == "own",
        )
