"""CLIP's text tower on texts that begin alike, with tokens or learned words: what they share is computed once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.models.clip.arch import HEAD_WIDTH
from slowfast.models.clip.layers import Attention, ResidualBlock
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.text import longest_text, trim_tokens
from slowfast.models.similarity import at_least_fp32, without_autocast

_CacheEntry = tuple[Tensor, Tensor]
"""Keys and values of the prefixes in one block, (G, heads, S, 64) each."""


def encode_continuations(
    clip: CLIP, prefixes: Tensor, group: Tensor, tails: Tensor, *, batch_size: int = 256
) -> Tensor:
    """Embed texts given as a shared beginning and a rest, in the parameters' own precision.

    Under the causal mask a token never sees what follows it, so the beginning of several texts is the same
    computation; keys and values of its tokens are all that the rest needs of it. The result is that of
    ``encode_text`` on the joined tokens, up to rounding.

    Args:
        clip: the model; no gradient is kept.
        prefixes: G beginnings of equal length, start-of-text token included, (G, S).
        group: which beginning each text has, (N,).
        tails: what follows it, up to the end-of-text token and 0 behind it, (N, L).
        batch_size: texts at a time.

    Returns:
        Text embeddings, not normalised, (N, E), on the model's device.

    Raises:
        ValueError: if a text is longer than the context.
    """
    device, start = clip.logit_scale.device, prefixes.shape[1]
    length = start + longest_text(tails)
    if length > clip.sizes.context_length:
        raise ValueError(f"texts have {length} tokens; the context holds {clip.sizes.context_length}")
    order = tails.argmax(dim=-1).argsort(stable=True)
    with torch.no_grad(), without_autocast(device.type):
        cache = _read_prefixes(clip, prefixes.to(device))
        parts = [
            _encode_tails(clip, cache, group[rows].to(device), trim_tokens(tails[rows]).to(device), start=start)
            for rows in order.split(batch_size)
        ]
        features = torch.cat(parts)
    return torch.empty_like(features).index_copy_(0, order.to(device), features)


def _read_prefixes(clip: CLIP, prefixes: Tensor) -> list[_CacheEntry]:
    x = clip.token_embedding(prefixes) + clip.positional_embedding[: prefixes.shape[1]]
    cache = []
    for block in clip.transformer.resblocks:
        assert isinstance(block, ResidualBlock)
        q, k, v = heads(block.attn, block.ln_1(x))
        cache.append((k, v))
        x = finish(block, x, F.scaled_dot_product_attention(q, k, v, is_causal=True))
    return cache


def _encode_tails(clip: CLIP, cache: list[_CacheEntry], group: Tensor, tails: Tensor, *, start: int) -> Tensor:
    rows, length = tails.shape
    x = clip.token_embedding(tails) + clip.positional_embedding[start : start + length]
    sees = torch.ones(length, start + length, dtype=torch.bool, device=x.device).tril(start)
    ends = tails.argmax(dim=-1)
    for block, (prefix_k, prefix_v) in zip(clip.transformer.resblocks, cache, strict=True):
        assert isinstance(block, ResidualBlock)
        q, k, v = heads(block.attn, block.ln_1(x))
        k, v = torch.cat((prefix_k[group], k), dim=2), torch.cat((prefix_v[group], v), dim=2)
        x = finish(block, x, F.scaled_dot_product_attention(q, k, v, attn_mask=sees))
    return clip.ln_final(x[torch.arange(rows, device=x.device), ends]) @ clip.text_projection


def heads(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (N, L, D) -> three times (N, heads, L, 64)."""
    qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, HEAD_WIDTH)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def finish(block: ResidualBlock, x: Tensor, attended: Tensor) -> Tensor:
    """Both residuals of a block, given its heads, (N, L, D) and (N, heads, L, 64) -> (N, L, D)."""
    x = x + block.attn.out_proj(attended.transpose(1, 2).reshape(x.shape))
    return x + block.feed_forward(block.ln_2(x))


class PromptLearner(nn.Module):
    """The learned words.

    Args:
        words: what they start from, (n, D).
    """

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.ctx = nn.Parameter(words)


class Prompts(NamedTuple):
    """States of all prompts between two blocks; a leading axis of 1 stands for all videos."""

    start: Tensor
    """Start-of-text token and learned words, shared by all classes, (1 or B, S, D)."""
    rest: Tensor
    """What follows them, (1 or B, K, M, D)."""


def residual_block(block: nn.Module) -> ResidualBlock:
    """A block of a tower under its own type."""
    assert isinstance(block, ResidualBlock)
    return block


def read_block(block: ResidualBlock, prompts: Prompts, *, going_on: int | None = None) -> Prompts:
    """Apply a block of the text tower to the start of the prompts and to the rest, which sees the start.

    Args:
        block: any but the last.
        prompts: its input.
        going_on: how many tokens of the start the next block reads, >= 1; of the others, which something else replaces,
            only keys and values are computed. None: all of them.

    Returns:
        Its output; the start has ``going_on`` tokens.
    """
    start, rest = prompts
    q, k, v = heads(block.attn, block.ln_1(start))
    num_videos, num_classes, length = max(len(start), len(rest)), rest.shape[1], start.shape[1]
    rest = rest.expand(num_videos, -1, -1, -1)
    # Projected for all videos at once where it is the same.
    q_rest, k_rest, v_rest = heads(block.attn, block.ln_1(prompts.rest).flatten(0, 1))

    def behind(own: Tensor, shared: Tensor) -> Tensor:
        own = own.unflatten(0, (-1, num_classes)).expand(num_videos, -1, -1, -1, -1)
        copies = shared[:, None].expand(num_videos, num_classes, -1, -1, -1)
        return torch.cat((copies, own), dim=3).flatten(0, 1)

    sees = torch.ones(rest.shape[2], length + rest.shape[2], dtype=torch.bool, device=rest.device).tril(length)
    q_rest = q_rest.unflatten(0, (-1, num_classes)).expand(num_videos, -1, -1, -1, -1).flatten(0, 1)
    attended = F.scaled_dot_product_attention(q_rest, behind(k_rest, k), behind(v_rest, v), attn_mask=sees)
    new_rest = finish(block, rest.flatten(0, 1), attended).unflatten(0, (num_videos, num_classes))
    # Under the causal mask the first tokens see each other alone.
    q, k, v = (x[:, :, :going_on] for x in (q, k, v))
    new_start = finish(block, start[:, :going_on], F.scaled_dot_product_attention(q, k, v, is_causal=True))
    return Prompts(new_start, new_rest)


def end_of_text(block: ResidualBlock, prompts: Prompts, *, ends: Tensor) -> Tensor:
    """Apply the last block to the end-of-text token of each prompt alone.

    Its attention to the rest of its prompt is computed once for all videos where the rest is the same; the start joins
    as S further keys under the same softmax, of which the rest is one, whose score is the logarithm of its normaliser.
    Tokens themselves serve as keys and values, as in `Attention.attend_first`.

    Args:
        block: the last of the text tower.
        prompts: its input.
        ends: place of the end-of-text token within the rest, (K,).

    Returns:
        States of the end-of-text tokens, (1 or B, K, D).
    """
    start, rest = prompts
    attn, width = block.attn, rest.shape[-1]
    place = ends[None, :, None, None].expand(len(rest), -1, -1, width)
    own = rest.gather(2, place)[:, :, 0]  # (1 or B, K, D)
    normed = block.ln_1(rest)
    q = attn.queries(block.ln_1(own)) * HEAD_WIDTH**-0.5  # (1 or B, K, heads, 64)
    through = attn.through_keys(q.flatten(0, 1)).unflatten(0, q.shape[:2])
    scores = at_least_fp32(through @ normed.transpose(2, 3).to(through.dtype))  # (1 or B, K, heads, M)
    behind_end = torch.arange(rest.shape[2], device=rest.device) > ends[:, None]
    scores = scores.masked_fill(behind_end[:, None], -torch.inf)
    mean = scores.softmax(dim=-1).to(through.dtype) @ normed.to(through.dtype)
    value = attn.through_values(mean.flatten(0, 1)).unflatten(0, q.shape[:2])

    normed_start = block.ln_1(start)
    _, weight_k, weight_v = attn.in_proj_weight.chunk(3)
    k, v = (F.linear(normed_start, w).unflatten(-1, (attn.num_heads, HEAD_WIDTH)) for w in (weight_k, weight_v))
    scores_start = at_least_fp32(torch.einsum("bkhd,bshd->bkhs", q.expand(max(len(q), len(k)), -1, -1, -1), k))
    total = scores.logsumexp(dim=-1, keepdim=True).expand(len(scores_start), -1, -1, -1)
    weights = torch.cat((total, scores_start), dim=-1).softmax(dim=-1).to(value.dtype)
    attended = weights[..., :1] * value + torch.einsum("bkhs,bshd->bkhd", weights[..., 1:], v)
    x = own + attn.out_proj(attended.flatten(2) + attn.in_proj_bias.chunk(3)[2])
    return x + block.feed_forward(block.ln_2(x))
