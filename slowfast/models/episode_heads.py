"""Few-shot classification: how the queries of an episode are compared with its supports.

A head works in two steps, because a video is in many episodes: what depends on one video alone is computed once
(`describe`), what depends on the others of its episode each time (`score`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from slowfast.models.alignment import otam
from slowfast.models.similarity import unit_norm, without_autocast

Descriptions = Mapping[str, Tensor]
"""Name -> what a head keeps of videos, one row each."""


class EpisodeHead(ABC):
    """Compares queries with supports."""

    @abstractmethod
    def describe(self, features: Tensor, label: Tensor) -> Descriptions:
        """Compute what depends on one video alone.

        Args:
            features: frame embeddings as the encoder gives them, (V, T, E).
            label: classes of the videos in the label set, (V,).

        Returns:
            Name -> rows, (V, ...).
        """

    @abstractmethod
    def score(self, support: Descriptions, query: Descriptions, classes: Tensor) -> Tensor:
        """Score the classes of episodes.

        Args:
            support: descriptions of the supports, (E, N, S, ...).
            query: descriptions of the queries, (E, Q, ...).
            classes: the classes in the label set, (E, N).

        Returns:
            Scores, (E, Q, N).
        """


class PrototypeHead(EpisodeHead):
    """Cosine between a query and the prototype of a class, which is the mean of its supports.

    A video is the mean of its frames, of unit length.

    Source: prototypical networks (Snell et al., 2017), on frozen features.
    """

    def describe(self, features: Tensor, label: Tensor) -> Descriptions:
        """Average the frames, (V, T, E) -> (V, E)."""
        del label
        return {"video": unit_norm(features.mean(dim=1))}

    def score(self, support: Descriptions, query: Descriptions, classes: Tensor) -> Tensor:
        """Score the classes of episodes, (E, Q, N)."""
        del classes
        prototypes = unit_norm(support["video"].mean(dim=2))  # (E, N, D)
        return query["video"] @ prototypes.transpose(1, 2)


class OtamHead(EpisodeHead):
    """Minus the length of the ordered alignment of a query and a prototype, both ways.

    A prototype is the mean of the supports, frame by frame; the distance of two frames is one minus their cosine.

    Args:
        smoothing: lambda of the soft minimum, > 0.

    Source: OTAM (CVPR 2020), on frozen features.
    """

    def __init__(self, *, smoothing: float) -> None:
        self._smoothing = smoothing

    def describe(self, features: Tensor, label: Tensor) -> Descriptions:
        """Scale the frames to unit length, (V, T, E)."""
        del label
        return {"frames": unit_norm(features)}

    def score(self, support: Descriptions, query: Descriptions, classes: Tensor) -> Tensor:
        """Score the classes of episodes, (E, Q, N)."""
        del classes
        prototypes = unit_norm(support["frames"].mean(dim=2))  # (E, N, T, D)
        with without_autocast(prototypes.device.type):
            distances = 1 - torch.einsum("eqid,enjd->eqnij", query["frames"], prototypes)
        return -alignment_length(distances, smoothing=self._smoothing)


def alignment_length(distances: Tensor, *, smoothing: float, both_ways: bool = True) -> Tensor:
    """Length of the ordered alignment of the rows with the columns, and of the columns with the rows.

    Args:
        distances: (..., T, T).
        smoothing: lambda of the soft minimum, > 0.
        both_ways: the sum of both directions; False: rows with columns alone.

    Returns:
        (...).

    Source: OTAM (CVPR 2020), as in CLIP-FSAR (IJCV 2023).
    """
    if not both_ways:
        return otam(distances, smoothing=smoothing)
    return otam(torch.stack((distances, distances.transpose(-1, -2))), smoothing=smoothing).sum(dim=0)
