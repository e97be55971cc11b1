"""ViFi-CLIP: a video is the mean of its frames, a class is its name in a short sentence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

from torch import Tensor, nn

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.explanation import Explanation, looking
from slowfast.methods.vifi_clip.config import Trained
from slowfast.methods.vifi_clip.patch_views import patch_views
from slowfast.methods.vifi_clip.text import ClassText
from slowfast.methods.vifi_clip.vision import PromptedTower
from slowfast.models.clip.model import CLIP
from slowfast.models.losses import Loss
from slowfast.models.names import hoist
from slowfast.models.similarity import at_least_fp32, pooled_logits, unit_norm
from slowfast.text.text_bank import TextBank

_PROMPTS = ("VPT", "VPT_shallow", "ctx")
"""Last part of the names of learned vectors."""


class ViFiCLIP(Method):
    """CLIP tuned as it is, or learned vectors in its towers.

    Args:
        clip: the model, with a `PromptedTower`.
        text: class embeddings.
        loss: classification loss, (B, K) and (B,) or (B, K) -> scalar.
        use: what trains; not read where only the learned vectors do.
        prompts_only: only the learned vectors train.
        starts_prompts: weights may be loaded that have no learned vectors, which training starts; some are refused.
        pixel_mean: mean of the training images, RGB, in [0, 1].
        pixel_std: their standard deviation.

    Source: ViFi-CLIP (CVPR 2023); README.md beside this file maps equations to functions.
    """

    def __init__(
        self,
        clip: CLIP,
        *,
        text: ClassText,
        loss: Loss,
        use: Trained = "both",
        prompts_only: bool = False,
        starts_prompts: bool = True,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.model = clip
        self.text = text
        hoist(self, "text")
        self.loss = loss
        for name, parameter in self.named_parameters():
            parameter.requires_grad = trains(name, use=use, prompts_only=prompts_only)
        self.register_load_state_dict_pre_hook(
            _refuse_some_of([name for name, _ in self.named_parameters() if _is_prompt(name)])
        )
        if starts_prompts:
            self.optional_prefixes = tuple(name for name in self.state_dict() if _is_prompt(name))

    @property
    def needs_weights(self) -> str:
        """Learned vectors are random at the start."""
        if not any(_is_prompt(name) for name, _ in self.named_parameters()):
            return ""
        return "VIFI_CLIP.N_CTX_VISION, N_CTX_TEXT: the learned vectors are random"

    def set_label_set(self, label_set: LabelSet, bank: TextBank) -> None:
        """Choose the classes to score.

        Raises:
            ValueError: if the bank has another number of rows than there are classes, or no usable tokens.
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
        return self.model.encode_video(self.normalise(batch.frames))

    def explain(self, batch: VideoBatch) -> list[Explanation]:
        """Show the class token's attention to the patches, of every block."""
        with looking(self):
            views = patch_views(cast(PromptedTower, self.model.visual), self.normalise(batch.frames))
        return [Explanation(patches) for patches in views]

    def _score(self, batch: VideoBatch) -> Tensor:
        frames = at_least_fp32(self.model.encode_video(self.normalise(batch.frames)))  # (B, T, E)
        return pooled_logits(unit_norm(frames.mean(dim=1)), self.text(self.model), self.model.logit_scale.exp())


def trains(name: str, *, use: Trained, prompts_only: bool) -> bool:
    """Whether a parameter of the method trains, by its name; CLIP's table of tokens never does.

    Learned vectors belong to the tower that they are put into.
    """
    if name == "model.token_embedding.weight":
        return False
    if prompts_only:
        return _is_prompt(name)
    if use == "both":
        return True
    of_image = name.startswith("model.visual.")
    return of_image if use == "image" else not of_image and name != "model.logit_scale"


def _is_prompt(name: str) -> bool:
    return name.rpartition(".")[2] in _PROMPTS


def _refuse_some_of(names: Collection[str]) -> Any:  # noqa: ANN401 - a hook of PyTorch
    """Make a hook for loading that wants all entries of these names, or none: a mixture would go unnoticed."""

    def check(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        del module, rest
        absent = [name for name in names if prefix + name not in state]
        if absent and len(absent) < len(names):
            raise ValueError(
                f"VIFI_CLIP.PROMPT_DEPTH_VISION, PROMPT_DEPTH_TEXT: the weights hold {len(names) - len(absent)} of "
                f"{len(names)} tensors of learned vectors, {absent[0]} is missing; allowed: all or none"
            )

    return check
