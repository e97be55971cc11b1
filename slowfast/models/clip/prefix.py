"""CLIP's text tower on texts that begin alike: what they share is computed once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from slowfast.models.clip.arch import HEAD_WIDTH
from slowfast.models.clip.layers import Attention, ResidualBlock
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.text import longest_text, trim_tokens
from slowfast.models.similarity import without_autocast

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
