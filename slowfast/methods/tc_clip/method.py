"""TC-CLIP: frames that see a summary of their video, and class texts that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.explanation import Explanation, looking
from slowfast.methods.tc_clip.config import Freeze
from slowfast.methods.tc_clip.context_tokens import ContextTower, VideoTokens
from slowfast.methods.tc_clip.patch_views import patch_views
from slowfast.methods.tc_clip.prompts import PromptedText
from slowfast.models.clip.model import CLIP
from slowfast.models.losses import Loss
from slowfast.models.names import hoist
from slowfast.models.similarity import pooled_logits, unit_norm
from slowfast.text.text_bank import TextBank


class TCCLIP(Method):
    """CLIP with context tokens and video-conditional prompts; all of it trains but CLIP's table of tokens.

    Args:
        clip: the model to tune, with a `ContextTower`.
        text: class embeddings.
        loss: classification loss, (B, K) and (B,) or (B, K) -> scalar.
        freeze: which towers do not train.
        new_module_factor: learning rate of learned words and prompt generation, relative to that of the rest.
        pixel_mean: mean of the training images, RGB, in [0, 1].
        pixel_std: their standard deviation.

    Source: TC-CLIP (ECCV 2024); README.md beside this file maps equations to functions.
    """

    def __init__(
        self,
        clip: CLIP,
        *,
        text: PromptedText,
        loss: Loss,
        freeze: Freeze = "",
        new_module_factor: float = 1.0,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.model = clip
        self.text = text
        hoist(self, "text")
        self.loss = loss
        self._new_module_factor = new_module_factor
        frozen: list[Tensor] = [clip.token_embedding.weight]
        if freeze in ("backbone", "image"):
            frozen += clip.visual.parameters()
        if freeze in ("backbone", "text"):
            frozen += clip.text_parameters()
        for parameter in frozen:
            parameter.requires_grad = False

    @property
    def learning_rate_factors(self) -> Mapping[str, float]:
        """New modules of the text learn faster (TC_CLIP.LR_10X); the bias of the attention does not, as published."""
        names = ("text.prompt_learner.", "text.prompt_generation_layer.")
        return dict.fromkeys(names, self._new_module_factor) if self._new_module_factor != 1 else {}

    def set_label_set(self, label_set: LabelSet, bank: TextBank) -> None:
        """Choose the classes to score.

        Raises:
            ValueError: if the bank has another number of rows than there are classes, or no tokens.
        """
        if len(bank) != len(label_set):
            raise ValueError(f"text prompts have {len(bank)} rows, but the label set has {len(label_set)} classes")
        self.text.set_bank(bank)

    def training_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch and compute its loss; frames (B, 3, T, H, W) -> logits (B, K)."""
        logits = self._score(batch)
        losses = {"classification": self.loss(logits, batch.target)}
        return MethodOutput(logits, losses, {"logit_scale": self.model.logit_scale.detach().exp()})

    def eval_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch; frames (B, 3, T, H, W) -> logits (B, K)."""
        return MethodOutput(self._score(batch), {}, {})

    def frame_features(self, batch: VideoBatch) -> Tensor:
        """Embed the frames of clips, (B, T, E)."""
        tokens: VideoTokens = self.model.run_visual(self.normalise(batch.frames))
        return tokens.frames

    def explain(self, batch: VideoBatch) -> list[Explanation]:
        """Show the class token's attention, the seeds, and which context token each went into, of every block."""
        with looking(self):
            views = patch_views(cast(ContextTower, self.model.visual), self.normalise(batch.frames))
        return [Explanation(patches) for patches in views]

    def _score(self, batch: VideoBatch) -> Tensor:
        tokens: VideoTokens = self.model.run_visual(self.normalise(batch.frames))
        text = self.text(self.model, tokens.context)  # (B, K, E), or (1, K, E)
        return pooled_logits(unit_norm(tokens.frames.mean(dim=1)), text, self.model.logit_scale.exp())
