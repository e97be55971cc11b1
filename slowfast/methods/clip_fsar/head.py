"""CLIP-FSAR's model: an image tower, the temporal transformer, and what is computed of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.methods.clip_fsar.prototype import HIDDEN_WIDTH, NUM_HEADS, TemporalTransformer
from slowfast.models.clip.model import ImageTower
from slowfast.models.episode_heads import Descriptions, EpisodeHead, alignment_length
from slowfast.models.similarity import at_least_fp32, offset_cosine, unit_norm, without_autocast


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOptions:
    """What is compared, and what is learned from it."""

    merge_before: bool
    """Average the supports of a class before the temporal transformer instead of behind it."""
    single_direct: bool
    """Align queries with prototypes, but not prototypes with queries."""
    use_classification: bool
    """Learn from the similarity of videos and the names of all base classes, too."""
    classification_only: bool
    """Learn from that alone."""
    classification_value: float
    """Weight of that term."""
    eval_text: bool
    """At test, compare queries with class names alone."""
    combine: bool
    """At test, multiply the probabilities of class names and of alignments."""
    text_coff: float
    """Exponent of the former, in [0, 1]; one minus it is that of the latter."""
    smoothing: float
    """lambda of the soft minimum of the alignment, > 0."""


class FsarHead(nn.Module):
    """Everything of the method that has parameters; names as in official checkpoints, which put "head." before them.

    Args:
        backbone: image tower, (B, 3, T, H, W) -> (B, T, D).
        width: of its embeddings, D.
        depth: layers of the temporal transformer.
        num_heads: of its attention.
        hidden: width of its feed-forward part.
        options: what is compared, and what is learned from it.

    Source: CLIP-FSAR (IJCV 2023); README.md beside this file maps equations to functions.
    """

    def __init__(
        self,
        backbone: ImageTower | nn.Module,
        *,
        width: int,
        depth: int = 1,
        num_heads: int = NUM_HEADS,
        hidden: int = HIDDEN_WIDTH,
        options: HeadOptions,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.context2 = TemporalTransformer(width, depth=depth, num_heads=num_heads, hidden=hidden)
        self.scale = nn.Parameter(torch.ones(1))
        self.options = options

    def query_tokens(self, features: Tensor) -> Tensor:
        """Transform the frames of queries, (..., T, D) -> (..., T, D)."""
        tokens: Tensor = self.context2(features.flatten(0, -3))
        return tokens.view(features.shape)

    def support_tokens(self, features: Tensor, texts: Tensor) -> Tensor:
        """Transform frames together with the name of their class; the token of the name is dropped behind it.

        Args:
            features: frame embeddings, (..., T, D).
            texts: class embeddings, (..., D).

        Returns:
            (..., T, D).
        """
        tokens = torch.cat((features, texts.to(features.dtype)[..., None, :]), dim=-2)
        transformed: Tensor = self.context2(tokens.flatten(0, -3))
        return transformed[:, :-1].reshape(features.shape)

    def prototypes(self, support: Tensor, texts: Tensor) -> Tensor:
        """Make the prototypes of classes, which are sequences.

        Args:
            support: frame embeddings of the supports, (E, N, S, T, D).
            texts: class embeddings, (E, N, D).

        Returns:
            (E, N, T, D).
        """
        if self.options.merge_before:
            return self.support_tokens(support.mean(dim=2), texts)
        return self.support_tokens(support, texts[:, :, None].expand(-1, -1, support.shape[2], -1)).mean(dim=2)

    def distances(self, query: Tensor, prototypes: Tensor) -> Tensor:
        """Align queries with prototypes, (E, Q, T, D) and (E, N, T, D) -> (E, Q, N)."""
        cosines = offset_cosine(query[:, :, None], prototypes[:, None])
        return alignment_length(1 - cosines, smoothing=self.options.smoothing, both_ways=not self.options.single_direct)

    def video_text_logits(self, features: Tensor, texts: Tensor) -> Tensor:
        """Compare videos, as means of their frames, with class names, (N, T, D) and (B, D) -> (N, B)."""
        with without_autocast(features.device.type):
            return self.scale * offset_cosine(at_least_fp32(features).mean(dim=1), texts)

    def losses(
        self, support: Tensor, query: Tensor, class_number: Tensor, texts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score the queries of episodes and compute the terms of the loss.

        Args:
            support: frame embeddings, (E, N, S, T, D).
            query: frame embeddings, (E, Q, T, D), class by class.
            class_number: classes of the episodes among the base classes, (E, N).
            texts: embeddings of all base classes, (B, D).

        Returns:
            Scores (E, Q, N), and the terms "few_shot" and "video_text", weights applied.
        """
        options, per_class = self.options, query.shape[1] // support.shape[1]
        # Queries first: the order of the draws of dropout is the published one.
        tokens = self.query_tokens(query)
        logits = -self.distances(tokens, self.prototypes(support, texts[class_number]))
        terms: dict[str, Tensor] = {}
        if not options.classification_only:
            target = torch.arange(support.shape[1], device=logits.device).repeat_interleave(per_class)
            terms["few_shot"] = F.cross_entropy(logits.flatten(0, 1), target.repeat(len(logits)))
        if options.use_classification or options.classification_only:
            videos = torch.cat((support.flatten(1, 2), query), dim=1).flatten(0, 1)
            labels = [class_number.repeat_interleave(number, dim=1) for number in (support.shape[2], per_class)]
            names = self.video_text_logits(videos, texts)
            terms["video_text"] = options.classification_value * F.cross_entropy(names, torch.cat(labels, 1).flatten())
        return logits, terms

    def episode_logits(self, support: Tensor, query: Tensor, texts: Tensor) -> Tensor:
        """Score the queries of episodes at test in one call, for who has their features at hand; see `FsarEpisodes`.

        Args:
            support: frame embeddings, (E, N, S, T, D).
            query: frame embeddings, (E, Q, T, D).
            texts: embeddings of the classes, (E, N, D).

        Returns:
            (E, Q, N).
        """
        episodes, way, shot = support.shape[:3]
        head = FsarEpisodes(self, texts.flatten(0, 1))
        classes = torch.arange(episodes * way, device=support.device)
        supports = head.describe(support.flatten(0, 2), classes.repeat_interleave(shot))
        queries = head.describe(query.flatten(0, 1), classes.new_zeros(query.shape[:2].numel()))
        return head.score(
            {name: rows.unflatten(0, (episodes, way, shot)) for name, rows in supports.items()},
            {name: rows.unflatten(0, (episodes, -1)) for name, rows in queries.items()},
            classes.view(episodes, way),
        )

    def text_scores(self, videos: Tensor, texts: Tensor) -> Tensor:
        """Logarithms of the probabilities of class names, (E, Q, D) and (E, N, D) -> (E, Q, N)."""
        with without_autocast(videos.device.type):
            cosines = unit_norm(videos) @ unit_norm(texts).transpose(1, 2)
            return (self.scale * cosines).log_softmax(dim=-1)

    def combined(self, distances: Tensor, videos: Tensor, texts: Tensor, *, num_frames: int) -> Tensor:
        """Scores of alignments, or of alignments and class names, (E, Q, N).

        Args:
            distances: (E, Q, N).
            videos: means over the frames of the queries, (E, Q, D).
            texts: embeddings of the classes, (E, N, D).
            num_frames: T.
        """
        if not self.options.combine:
            return -distances
        share = self.options.text_coff
        visual = (-distances / num_frames).log_softmax(dim=-1)
        return share * self.text_scores(videos, texts) + (1 - share) * visual


class FsarEpisodes(EpisodeHead):
    """The comparisons of a head at test, in two steps.

    Args:
        head: the model, in evaluation mode.
        texts: embeddings of the classes of the label set, (K, D).
    """

    def __init__(self, head: FsarHead, texts: Tensor) -> None:
        self._head, self._texts = head, texts

    def describe(self, features: Tensor, label: Tensor) -> Descriptions:
        """Average and transform the frames of videos, as queries and as the only support of their class."""
        described = {"video": features.mean(dim=1)}
        if self._head.options.eval_text:
            return described
        texts = self._texts.to(features.device)[label]
        described |= {
            "query": self._head.query_tokens(features), "support": self._head.support_tokens(features, texts)
        }  # fmt: skip
        return described | ({"features": features} if self._head.options.merge_before else {})

    def score(self, support: Descriptions, query: Descriptions, classes: Tensor) -> Tensor:
        """Score the classes of episodes, (E, Q, N)."""
        texts = self._texts.to(classes.device)[classes]
        if self._head.options.eval_text:
            return self._head.text_scores(query["video"], texts)
        shots = support["support"].shape[2]
        # A single support is its own mean.
        merges = self._head.options.merge_before and shots > 1
        prototypes = self._head.prototypes(support["features"], texts) if merges else support["support"].mean(dim=2)
        distances = self._head.distances(query["query"], prototypes)
        return self._head.combined(distances, query["video"], texts, num_frames=query["query"].shape[2])
