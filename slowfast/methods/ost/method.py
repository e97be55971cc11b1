"""OST: CLIP frame by frame, whose classes are sets of descriptors that frames are matched to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.explanation import Explanation, MatchView, looking
from slowfast.methods.ost.config import Trained
from slowfast.methods.ost.scores import Matcher, descriptor_logits, frame_cosines
from slowfast.methods.ost.text import DescriptorText
from slowfast.models.alignment import SinkhornOptions, sinkhorn
from slowfast.models.clip.model import CLIP
from slowfast.models.losses import contrastive_divergence
from slowfast.models.similarity import unit_norm
from slowfast.text.text_bank import TextBank
from slowfast.utils.distributed import all_gather_table, get_rank
from slowfast.utils.gather import all_gather_rows


class OST(Method):
    """The tuned CLIP and its descriptors. Training matches the videos of a batch, over all processes, with each other's
    texts: there are as many classes as videos, and those of one class match each other.

    Args:
        clip: the model to tune.
        text: descriptors of the classes.
        matcher: how frames are matched to them.
        plan_options: of the transport plan, None if the matcher has none.
        use: what trains.
        pixel_mean: mean of the training images, RGB, in [0, 1].
        pixel_std: their standard deviation.

    Source: OST (CVPR 2024); README.md beside this file maps equations to functions.
    """

    def __init__(
        self,
        clip: CLIP,
        *,
        text: DescriptorText,
        matcher: Matcher,
        plan_options: SinkhornOptions | None,
        use: Trained = "both",
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.model = clip
        self.text = text
        self._matcher, self._plan_options = matcher, plan_options
        frozen: list[Tensor] = []
        if use != "both":
            frozen.append(clip.logit_scale)
            frozen += clip.text_parameters() if use == "image" else clip.visual.parameters()
        for parameter in frozen:
            parameter.requires_grad = False

    def set_label_set(self, label_set: LabelSet, bank: TextBank) -> None:
        """Choose the classes to score.

        Raises:
            ValueError: if the bank has another number of rows than there are classes, or no tokens.
        """
        if len(bank) != len(label_set):
            raise ValueError(f"descriptors have {len(bank)} rows, but the label set has {len(label_set)} classes")
        self.text.set_bank(label_set.names, bank)

    def training_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score the videos of all processes with each other's descriptors; frames (B, 3, T, H, W) -> logits (B, K).

        Classes that are not in the batch have a score of minus infinity.

        Raises:
            ValueError: if the clips of the batch are mixed.
        """
        if batch.weights is not None:
            raise ValueError("MIXUP.ENABLE: True, but a mixed clip has no descriptors of its own; allowed: False")
        video = unit_norm(self.model.encode_video(self.normalise(batch.frames)))  # (B, T, E)
        text = self.text.of_labels(self.model, batch.label, batch.label_numbers)  # (S, B, N, E)
        # G = B times the number of processes.
        label = all_gather_table(batch.label).flatten()  # (G,)
        videos, texts = all_gather_rows(video), all_gather_rows(text.transpose(0, 1)).transpose(0, 1)
        scale = self.model.logit_scale.exp()
        logits = descriptor_logits(frame_cosines(videos, texts), scale, self._matcher)  # (G, G)
        forth, back = contrastive_divergence(logits, label)
        first = get_rank() * len(batch)
        own = class_scores(logits.detach()[first : first + len(batch)], label, num_classes=len(self.text.names))
        return MethodOutput(own, {"video_text": forth, "text_video": back}, {"logit_scale": scale.detach()})

    def eval_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch; frames (B, 3, T, H, W) -> logits (B, K)."""
        cosines = self._cosines(batch)
        return MethodOutput(descriptor_logits(cosines, self.model.logit_scale.exp(), self._matcher), {}, {})

    def frame_features(self, batch: VideoBatch) -> Tensor:
        """Embed the frames of clips, (B, T, E)."""
        return self.model.encode_video(self.normalise(batch.frames))

    def explain(self, batch: VideoBatch) -> list[Explanation]:
        """Show the transport plans between the frames of each clip and the descriptors of its best class.

        Raises:
            ValueError: if scores are made without plans.
        """
        if self._plan_options is None:
            raise ValueError("OST.SOLVER: there are no plans to show without one; allowed: sinkhorn")
        with looking(self):
            cosines = self._cosines(batch)
            best = descriptor_logits(cosines, self.model.logit_scale.exp(), self._matcher).argmax(dim=1)
            rows = torch.arange(len(best), device=best.device)
            chosen = cosines[:, rows, best].transpose(0, 1)  # (B, S, T, N)
            plans = sinkhorn(chosen, self._plan_options).plan
        return [
            Explanation(matches=self._views(number, clip.float().cpu(), plan.float().cpu()))
            for number, clip, plan in zip(best.tolist(), chosen, plans, strict=True)
        ]

    def _views(self, number: int, cosines: Tensor, plans: Tensor) -> tuple[MatchView, ...]:
        return tuple(
            MatchView(
                kind=kind,
                class_name=self.text.names[number],
                texts=self.text.of_kind(number, kind),
                plan=plan,
                cosines=cosine,
            )
            for kind, cosine, plan in zip(self.text.kinds, cosines, plans, strict=True)
        )

    def _cosines(self, batch: VideoBatch) -> Tensor:
        video = unit_norm(self.model.encode_video(self.normalise(batch.frames)))
        return frame_cosines(video, self.text.all(self.model))


def class_scores(scores: Tensor, classes: Tensor, *, num_classes: int) -> Tensor:
    """Scores of the texts in a batch as scores of classes, minus infinity for a class that has none.

    Args:
        scores: of each video with each text, (B, G).
        classes: that the texts belong to, (G,).
        num_classes: K.

    Returns:
        (B, K).
    """
    none = scores.new_full((len(scores), num_classes), -torch.inf)
    return none.scatter_reduce(1, classes.expand(len(scores), -1), scores, "amax")
