"""What the engine sees of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import Batch, EpisodeBatch, VideoBatch
from slowfast.methods.explanation import Explanation
from slowfast.models.episode_heads import EpisodeHead
from slowfast.text.text_bank import TextBank


class MethodOutput(NamedTuple):
    """What a forward returns, in training and in evaluation."""

    logits: Tensor
    """Scores of the classes of the current label set, (B, K); of the N classes of each query's episode, (E * Q, N)."""
    losses: dict[str, Tensor]
    """Terms of the loss by name, weights applied; their sum is minimised. Empty in evaluation."""
    log: dict[str, Tensor]
    """Further scalars worth logging, detached."""


class Method(nn.Module, ABC):
    """A model with its text and its losses.

    ``forward`` only dispatches, so that DistributedDataParallel may wrap the method.

    Args:
        pixel_mean: mean of the training images, RGB, in [0, 1].
        pixel_std: their standard deviation.
    """

    learns_from_episodes: ClassVar[bool] = False
    """Whether `episode_forward` computes losses; every method learns from videos."""
    transient_prefixes: tuple[str, ...] = ()
    """Prefixes of state-dict entries that never enter a checkpoint, such as a frozen teacher."""
    optional_prefixes: tuple[str, ...] = ()
    """Prefixes of entries that a weight file may lack: evaluation does not use them, or training is to start them."""
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        super().__init__()
        shape = (1, 3, 1, 1, 1)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(shape), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(shape), persistent=False)

    def normalise(self, frames: Tensor) -> Tensor:
        """Scale pixels to [0, 1], subtract the mean, divide by the deviation.

        Args:
            frames: pixels in [0, 255], uint8 or float32, (B, 3, T, H, W).

        Returns:
            Normalised frames, fp32, same shape.
        """
        return (frames.float() / 255 - self.pixel_mean) / self.pixel_std

    @property
    def learning_rate_factors(self) -> Mapping[str, float]:
        """Beginning of parameter names -> what their learning rate is multiplied by, such as that of new modules."""
        return {}

    @abstractmethod
    def set_label_set(self, label_set: LabelSet, bank: TextBank) -> None:
        """Choose the classes to score; ``bank`` holds their text features, row by row."""

    @abstractmethod
    def training_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch and compute its losses."""

    @abstractmethod
    def eval_forward(self, batch: VideoBatch) -> MethodOutput:
        """Score a batch.

        The score of a class depends on the video and on that class alone, so that the scores over fewer classes are
        columns of those over more: tests of several class lists score a video once.
        """

    def episode_forward(self, batch: EpisodeBatch) -> MethodOutput:
        """Score the queries of episodes and compute losses, in training; logits (E * Q, N).

        Raises:
            ValueError: if the method does not learn from episodes.
        """
        del batch
        name = type(self).__name__
        raise ValueError(f"EPISODES.TRAIN: True, but {name} learns from videos one by one; allowed: False")

    @abstractmethod
    def frame_features(self, batch: VideoBatch) -> Tensor:
        """Embed the frames of clips for comparisons without class names.

        Returns:
            Frame embeddings in the joint space, not normalised, (B, T, E).
        """

    def episode_head(self, label_set: LabelSet) -> EpisodeHead:
        """The method's own comparison of frame features in episodes.

        Args:
            label_set: classes of the videos.

        Raises:
            ValueError: if it has none.
        """
        del label_set
        name = type(self).__name__
        raise ValueError(f"EPISODES.HEAD: 'own', but {name} has none of its own; allowed: prototype, otam")

    @property
    def undecayed_names(self) -> Collection[str]:
        """Names of parameters whose weight decay is BN.WEIGHT_DECAY, such as those of batch norms."""
        return ()

    @property
    def needs_weights(self) -> str:
        """Why the method means nothing as it is built from raw CLIP, before weights are loaded; "" where it does."""
        return ""

    def explain(self, batch: VideoBatch) -> list[Explanation]:
        """Say what the method looks at when it scores the clips of a batch; it changes neither mode nor random state.

        Returns:
            One for each clip, on the CPU.

        Raises:
            ValueError: if the method has nothing to show.
        """
        del batch
        name = type(self).__name__
        raise ValueError(f"METHOD: {name} has nothing to explain; allowed: a method whose class defines explain")

    def forward(self, batch: Batch) -> MethodOutput:
        """Dispatch on the batch and ``self.training``; frames (B, 3, T, H, W) -> logits (B, K), or episodes."""
        if isinstance(batch, EpisodeBatch):
            return self.episode_forward(batch)
        return self.training_forward(batch) if self.training else self.eval_forward(batch)

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter of all that the optimiser moves."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def checkpoint_state(self) -> dict[str, Tensor]:
        """State dict without the transient entries."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith(self.transient_prefixes)}
