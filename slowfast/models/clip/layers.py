"""Layers shared by CLIP's image and text towers, under OpenAI's parameter names."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.models.clip.arch import HEAD_WIDTH


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in fp32; the result has the input's dtype, so the residual stream keeps its precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis, (..., D) -> (..., D)."""
        normed = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's approximation of the GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply element-wise, any shape."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention with a packed input projection, on the fused kernels of PyTorch.

    Parameter names and layout are those of ``nn.MultiheadAttention``, which CLIP's files use.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = width // HEAD_WIDTH
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def heads(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """Attend within each sequence and concatenate the heads, before the output projection.

        Args:
            x: tokens, (..., L, D); every leading axis is a batch axis.
            causal: whether token i sees tokens 0..i only.

        Returns:
            Concatenated heads, (..., L, D).
        """
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        # (..., L, 3 D) -> three views (N, heads, L, 64)
        q, k, v = qkv.flatten(0, -3).unflatten(-1, (3, self.num_heads, HEAD_WIDTH)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return attended.transpose(1, 2).reshape(x.shape)

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """Attend within each sequence, (..., L, D) -> (..., L, D)."""
        return self.out_proj(self.heads(x, causal=causal))


def mlp(width: int) -> nn.Sequential:
    """The feed-forward part of a block, (..., D) -> (..., D), with a hidden width of 4 D."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["c_fc"] = nn.Linear(width, 4 * width)
    layers["gelu"] = QuickGELU()
    layers["c_proj"] = nn.Linear(4 * width, width)
    return nn.Sequential(layers)


class ResidualBlock(nn.Module):
    """Pre-norm transformer block: attention, then feed-forward, each with a residual.

    As a temporal module (MODEL.TEMPORAL_MODELING_TYPE None) it treats every frame on its own.
    """

    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.attn = Attention(width)
        self.ln_1 = LayerNorm(width)
        self.mlp = mlp(width)
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens, (..., L, D) -> (..., L, D)."""
        x = x + self.attn(self.ln_1(x), causal=self.causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks under the name that CLIP's files give it, ``resblocks``."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks in order; shapes are the blocks' own."""
        for block in self.resblocks:
            x = block(x)
        return x
