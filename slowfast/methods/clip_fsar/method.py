"""CLIP-FSAR: episodes of base classes, prototypes that know the names of their classes, alignment in time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import EpisodeBatch, VideoBatch
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.clip_fsar.head import FsarEpisodes, FsarHead
from slowfast.methods.clip_fsar.text import FrozenText
from slowfast.methods.explanation import Explanation, looking
from slowfast.methods.tower_views import patch_views
from slowfast.models.clip.programs import FixedShapes
from slowfast.models.clip.vision import VisionTransformer
from slowfast.models.episode_heads import EpisodeHead
from slowfast.models.losses import Loss
from slowfast.text.text_bank import TextBank

_TRANSFORMER = "head.context2."


class ClipFsar(Method):
    """An image tower that learns from episodes, and a frozen text tower that embeds the names of classes.

    From single videos, without episodes, it learns the similarity of videos and class names alone.

    Args:
        head: image tower, temporal transformer and scale.
        text: embeds class names.
        loss: classification loss of single videos, (B, K) and (B,) or (B, K) -> scalar.
        trains_transformer: the temporal transformer learns, from episodes; otherwise checkpoints leave it out.
        reads_transformer: tests in episodes use it, and want weights that have it.
        training: weights may be loaded that have no temporal transformer, which training starts.
        pixel_mean: mean of the training images, RGB, in [0, 1].
        pixel_std: their standard deviation.

    Source: CLIP-FSAR (IJCV 2023); README.md beside this file maps equations to functions.
    """

    learns_from_episodes: ClassVar[bool] = True
    texts: Tensor

    def __init__(
        self,
        head: FsarHead,
        *,
        text: FrozenText,
        loss: Loss,
        trains_transformer: bool = True,
        reads_transformer: bool = True,
        training: bool = True,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.head = head
        self.loss = loss
        self._text = text
        self._reads_transformer = reads_transformer
        self._programs: FixedShapes | None = None
        self.register_buffer("texts", torch.empty(0), persistent=False)
        options = head.options
        head.context2.requires_grad_(requires_grad=trains_transformer)
        learns_names = not trains_transformer or options.use_classification or options.classification_only
        head.scale.requires_grad = learns_names
        if training and not trains_transformer:
            self.transient_prefixes = (_TRANSFORMER,)
        if training:
            self.optional_prefixes = (_TRANSFORMER, "head.scale")
        elif not reads_transformer:
            self.optional_prefixes = (_TRANSFORMER,)

    @property
    def needs_weights(self) -> str:
        """The temporal transformer is random at the start."""
        return "CLIP_FSAR: the temporal transformer is random" if self._reads_transformer else ""

    @property
    def undecayed_names(self) -> Collection[str]:
        """Names with "bn" or "norm", as published: the norms of a ViT, and of ways around in a ResNet, are decayed."""
        return [name for name, _ in self.named_parameters() if "bn" in name or "norm" in name]

    def compile_vision(self) -> None:
        """Compile the image tower, see `FixedShapes`; names of parameters stay."""
        self._programs = FixedShapes(self.head.backbone)

    def text_bank(self, label_set: LabelSet) -> TextBank:
        """Write the text of each class of a label set.

        Raises:
            ValueError: if a text is too long for the text tower.
        """
        return self._text.bank(label_set)

    def set_label_set(self, label_set: LabelSet, bank: TextBank) -> None:
        """Choose the classes to score, in training the base classes.

        Raises:
            ValueError: if the bank has another number of rows than there are classes.
        """
        if len(bank) != len(label_set):
            raise ValueError(f"text prompts have {len(bank)} rows, but the label set has {len(label_set)} classes")
        self.texts = self._text.embed(bank).to(self.pixel_mean.device)

    def training_forward(self, batch: VideoBatch) -> MethodOutput:
        """Compare videos with class names and compute the loss; frames (B, 3, T, H, W) -> logits (B, K)."""
        logits = self.head.video_text_logits(self.frame_features(batch), self.texts)
        return MethodOutput(logits, {"video_text": self.loss(logits, batch.target)}, self._log())

    def eval_forward(self, batch: VideoBatch) -> MethodOutput:
        """Compare videos with class names; frames (B, 3, T, H, W) -> logits (B, K)."""
        return MethodOutput(self.head.video_text_logits(self.frame_features(batch), self.texts), {}, {})

    def episode_forward(self, batch: EpisodeBatch) -> MethodOutput:
        """Score the queries of episodes and compute the losses; logits (E * Q, N)."""
        # In two calls, as published: batch norms take the statistics of each.
        support, query = self.frame_features(batch.support), self.frame_features(batch.query)
        logits, losses = self.head.losses(
            support.unflatten(0, (len(batch), batch.way, batch.shot)),
            query.unflatten(0, (len(batch), -1)),
            batch.classes,
            self.texts,
        )
        return MethodOutput(logits.flatten(0, 1), losses, self._log())

    def frame_features(self, batch: VideoBatch) -> Tensor:
        """Embed the frames of clips, (B, T, D)."""
        frames, tower = self.normalise(batch.frames), self.head.backbone
        features: Tensor = tower(frames) if self._programs is None else self._programs(tower, frames)
        return features

    def episode_head(self, label_set: LabelSet) -> EpisodeHead:
        """Alignment with modulated prototypes, class names, or both, as CLIP_FSAR.EVAL_TEXT and COMBINE say."""
        return FsarEpisodes(self.head, self._text.embed(self.text_bank(label_set)).to(self.pixel_mean.device))

    def explain(self, batch: VideoBatch) -> list[Explanation]:
        """Show the class token's attention to the patches, of every block.

        Raises:
            ValueError: if the image tower is a ResNet.
        """
        tower = self.head.backbone
        if not isinstance(tower, VisionTransformer):
            raise ValueError("DEMO.EXPLAIN: True, but a ResNet image tower has no patches to show; allowed: False")
        with looking(self):
            return [Explanation(patches=views) for views in patch_views(tower, self.normalise(batch.frames))]

    def _log(self) -> dict[str, Tensor]:
        return {"scale": self.head.scale.detach()[0]}
