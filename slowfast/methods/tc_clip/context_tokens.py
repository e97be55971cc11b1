"""TC-CLIP's image tower: frames attend to their own tokens and to context tokens made of the whole video.

In every block the class token of a frame picks seed tokens among the frame's patches; the seeds of all frames are
merged into K context tokens, which the next block's attention sees beside the tokens of each frame.

Source: TC-CLIP (ECCV 2024), temporal contextualisation; README.md beside this file maps equations to functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.methods.tc_clip.token_merge import group_means, merge_groups, merge_schedule, steps_by_layer
from slowfast.models.clip.arch import HEAD_WIDTH, ClipSizes
from slowfast.models.clip.class_attention import class_attention
from slowfast.models.clip.layers import Attention, ResidualBlock
from slowfast.models.clip.vision import VisionTransformer
from slowfast.models.context_attention import Context, Way, context_attention
from slowfast.models.similarity import at_least_fp32, without_autocast
from slowfast.models.temporal.st_cross import take_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextOptions:
    """How context tokens are made and read."""

    enabled: bool = True
    """Whether there are any (TC_CLIP.TEMPORAL_CONTEXT)."""
    num_tokens: int = 96
    """Context tokens of a video, K (TC_CLIP.CONTEXT_TOKEN_K); fewer seeds than that stay as they are."""
    seed_share: float = 0.3
    """Seed tokens of a frame as a share of its patches, in (0, 1] (TC_CLIP.SEED_TOKEN_A)."""
    merge_step: int = 100
    """Tokens that a step of merging removes (TC_CLIP.TOME_R)."""
    merge_inflection: float = 0.0
    """How that changes over the layers, in [-1, 1] (TC_CLIP.TOME_D)."""
    bias: bool = True
    """Whether a learned bias weighs context against frame (TC_CLIP.LOCAL_GLOBAL_BIAS)."""
    way: Way = "auto"
    """How attention is computed (TC_CLIP.CONTEXT_ATTENTION)."""


class Tokens(NamedTuple):
    """What goes from block to block."""

    frames: Tensor
    """Tokens of the frames, (B, T, L, D)."""
    context: Tensor | None
    """Context tokens, (B, K, D); None before the first block."""


class Seeds(NamedTuple):
    """What a block made of the patches; numbers without gradient."""

    scores: Tensor
    """Attention of the class token to the patches of its frame, mean over heads, (B, T, P), at least fp32."""
    patches: Tensor
    """Numbers of the seed patches from 0, the best first, (B, T, m)."""
    group: Tensor
    """Context token that each seed went into, seeds in order of time and rank, (B, T m)."""


class LastTokens(NamedTuple):
    """What is read of the last block."""

    classes: Tensor
    """Class tokens of the frames, (B, T, D)."""
    context: Tensor | None
    """Context tokens, (B, K, D)."""
    seeds: Seeds | None


class VideoTokens(NamedTuple):
    """What the tower makes of videos, in the joint space, not normalised."""

    frames: Tensor
    """Class tokens of the last block, (B, T, E)."""
    context: tuple[Tensor, ...]
    """Context tokens of each wanted block, (B, K, E); class tokens of the frames where there are none, (B, T, E)."""


class ContextAttention(Attention):
    """CLIP's attention whose keys and values are those of a frame and of the video's context tokens."""

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__(width)
        self.local_global_bias_table: nn.Parameter | None = None
        if bias:
            self.local_global_bias_table = nn.Parameter(torch.empty(self.num_heads, 1, 2))
            nn.init.trunc_normal_(self.local_global_bias_table, std=0.02)

    def read_context(self, context: Tensor) -> Context:
        """Keys and values of normed context tokens, (B, K, D), once for all frames.

        A softmax only sees by how much the bias of the context exceeds that of the frame.
        """
        keys, values = self.keys_values(context)
        table = self.local_global_bias_table
        return Context(keys, values, None if table is None else table[:, 0, 1] - table[:, 0, 0])

    def merge_heads(self, attended: Tensor) -> Tensor:
        """Output projection, (..., heads, 64) -> (..., D)."""
        return self.out_proj(attended.flatten(-2))


class ContextBlock(ResidualBlock):
    """A block of the tower.

    Args:
        sizes: of the CLIP.
        options: of the context tokens.
        layer: number of the block, from 0; the first has no context to read.
    """

    def __init__(self, sizes: ClipSizes, options: ContextOptions, layer: int) -> None:
        super().__init__(sizes.vision_width)
        self.options = options
        self.merge_step = steps_by_layer(sizes.vision_layers, options.merge_step, options.merge_inflection)[layer]
        self.attn: ContextAttention = ContextAttention(
            sizes.vision_width, bias=options.enabled and options.bias and layer > 0
        )

    def forward(self, tokens: Tokens) -> Tokens:  # type: ignore[override]
        """Transform the tokens of whole videos and make their next context tokens."""
        return self.run(tokens)[0]

    def run(self, tokens: Tokens) -> tuple[Tokens, Seeds | None]:
        """As ``forward``; also tells which seeds were chosen and what became of them."""
        x = tokens.frames
        q, k, v = self.attn.project(self.ln_1(x)).unflatten(-1, (3, self.attn.num_heads, HEAD_WIDTH)).unbind(-3)
        shared = None if tokens.context is None else self.attn.read_context(self.ln_1(tokens.context))
        y = x + self.attn.merge_heads(self._attend(q, k, v, shared))
        if not self.options.enabled:
            return Tokens(self._feed_forward(y), None), None
        scores, patches = self._choose_seeds(q[:, :, 0], k, shared)
        context, group = self._summarise(take_tokens(y, 1 + patches))
        return Tokens(self._feed_forward(y), self._feed_forward(context)), Seeds(scores, patches, group)

    def run_last(self, tokens: Tokens, *, wants_context: bool, detached: bool) -> LastTokens:
        """What ``run`` makes of the class tokens and the context, without what nobody reads.

        Of the other tokens of a frame only its seeds are read, and of them no more than the residual of the attention.

        Args:
            tokens: input of the block.
            wants_context: whether the context tokens are read.
            detached: whether they are read without gradient.
        """
        x = tokens.frames
        normed = self.ln_1(x)
        k, v = self.attn.keys_values(normed)
        shared = None if tokens.context is None else self.attn.read_context(self.ln_1(tokens.context))

        def residual(rows: Tensor, rows_normed: Tensor) -> Tensor:
            attended = self._attend(self.attn.queries(rows_normed), k, v, shared)
            return rows + self.attn.merge_heads(attended)

        first = self._feed_forward(residual(x[:, :, :1], normed[:, :, :1]))[:, :, 0]
        if not (wants_context and self.options.enabled):
            return LastTokens(first, None, None)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detached):
            scores, patches = self._choose_seeds(self.attn.queries(normed[:, :, 0]), k, shared)
            seeds = residual(take_tokens(x, 1 + patches), take_tokens(normed, 1 + patches))
            context, group = self._summarise(seeds)
            return LastTokens(first, self._feed_forward(context), Seeds(scores, patches, group))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Context | None) -> Tensor:
        """(B, T, L, heads, 64) and keys and values (B, T, N, heads, 64) -> (B, T, L, heads, 64)."""
        if shared is not None:
            return context_attention(q, k, v, shared, way=self.options.way)
        q_frame, k_frame, v_frame = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q_frame, k_frame, v_frame)
        return attended.transpose(1, 2).unflatten(0, q.shape[:2])

    @torch.no_grad()
    def _choose_seeds(self, q: Tensor, k: Tensor, shared: Context | None) -> tuple[Tensor, Tensor]:
        """Let the class token of each frame pick the patches that it attends to most.

        Args:
            q: queries of the class tokens, (B, T, heads, 64).
            k: keys of the frames, (B, T, L, heads, 64).
            shared: what else the class tokens attended to, which counts in the softmax.

        Returns:
            Scores of the patches, (B, T, P), and numbers of the best, best first, (B, T, m).
        """
        wide = at_least_fp32(q) * HEAD_WIDTH**-0.5
        with without_autocast(q.device.type):  # which would round them to half precision again
            scores = torch.einsum("bthd,btlhd->bthl", wide, at_least_fp32(k))
            num_own = scores.shape[-1]
            if shared is not None:
                beside = torch.einsum("bthd,bkhd->bthk", wide, at_least_fp32(shared.keys))
                if shared.bias is not None:
                    beside = beside + shared.bias.to(beside.dtype)[:, None]
                scores = torch.cat((scores, beside), dim=-1)
        scores = scores.softmax(dim=-1)[..., 1:num_own].mean(dim=2)  # (B, T, P)
        count = seeds_per_frame(scores.shape[-1], self.options.seed_share)
        return scores, scores.argsort(dim=-1, descending=True, stable=True)[..., :count]

    def _summarise(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Merge seeds, (B, T, m, D), into context tokens, (B, K, D); and the group of each seed, (B, T m)."""
        seeds = seeds.flatten(1, 2)
        removals = merge_schedule(seeds.shape[1], self.options.num_tokens, self.merge_step)
        group = merge_groups(seeds, removals)
        if not removals:
            return seeds, group
        return group_means(seeds, group, seeds.shape[1] - sum(removals)), group

    def _feed_forward(self, x: Tensor) -> Tensor:
        return x + self.feed_forward(self.ln_2(x))


def _unseeded(block: ContextBlock, tokens: Tokens) -> Seeds:
    scores = class_attention(block, tokens.frames)
    none = torch.empty(len(scores), 0, dtype=torch.int64, device=scores.device)
    return Seeds(scores, none[:, None].expand(-1, scores.shape[1], -1), none)


def seeds_per_frame(num_patches: int, share: float) -> int:
    """Seed tokens of a frame, at least one."""
    return max(1, int(num_patches * share))


class ContextTower(VisionTransformer):
    """CLIP's image tower with context tokens.

    Args:
        sizes: of the CLIP.
        options: of the context tokens.
        levels: blocks whose context tokens are wanted, from 0, in increasing order.
        stop_gradient: whether no gradient goes back through the wanted context tokens (TC_CLIP.IM_STOP_GRAD).
        position_frames: frames with positions of their own; None for one position per patch in all frames.
    """

    def __init__(
        self,
        sizes: ClipSizes,
        options: ContextOptions,
        *,
        levels: tuple[int, ...],
        stop_gradient: bool = True,
        position_frames: int | None = None,
    ) -> None:
        super().__init__(sizes, block_factory=lambda sizes, layer: ContextBlock(sizes, options, layer))
        self.options = options
        self.levels = levels
        self.stop_gradient = stop_gradient
        if position_frames is not None:
            shape = (position_frames, *self.positional_embedding.shape)
            self.positional_embedding = nn.Parameter(self.positional_embedding.detach().expand(shape).clone())

    def forward(self, frames: Tensor) -> VideoTokens:  # type: ignore[override]
        """Embed videos, (B, 3, T, H, W) normalised."""
        *blocks, last = self._blocks()
        tokens = Tokens(self._embed(frames), None)
        context: dict[int, Tensor] = {}
        for layer, block in enumerate(blocks):
            tokens = self.transformer.run(block, block, tokens)
            if layer in self.levels:
                context[layer] = tokens.frames[:, :, 0] if tokens.context is None else tokens.context
        run_last = partial(last.run_last, wants_context=len(blocks) in self.levels, detached=self.stop_gradient)
        final = self.transformer.run(last, run_last, tokens)
        if len(blocks) in self.levels:
            context[len(blocks)] = final.classes if final.context is None else final.context
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            projected = tuple(self.project(context[layer]) for layer in self.levels)
        return VideoTokens(self.project(final.classes), projected)

    def trace(self, frames: Tensor) -> list[Seeds]:
        """What each block made of the patches, without gradient; no seeds where there are no context tokens."""
        traced: list[Seeds] = []
        *blocks, last = self._blocks()
        with torch.no_grad():
            tokens = Tokens(self._embed(frames), None)
            for block in blocks:
                before = tokens
                tokens, seeds = block.run(before)
                traced.append(seeds or _unseeded(block, before))
            seeds = last.run_last(tokens, wants_context=True, detached=True).seeds
            traced.append(seeds or _unseeded(last, tokens))
        return traced

    def _blocks(self) -> list[ContextBlock]:
        return [cast(ContextBlock, block) for block in self.transformer.resblocks]

    def _embed(self, frames: Tensor) -> Tensor:
        positions = self.positional_embedding
        if positions.ndim == 3 and frames.ndim == 5 and frames.shape[2] != len(positions):
            raise ValueError(
                f"TC_CLIP.POSITIONAL_EMBEDDING_TYPE: 'joint' has positions of {len(positions)} frames, but a clip has "
                f"{frames.shape[2]}; DATA.NUM_FRAMES must be that of training"
            )
        return self.embed(frames)
