"""Layers shared by CLIP's image and text towers, under OpenAI's parameter names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from slowfast.models.clip.arch import HEAD_WIDTH
from slowfast.models.clip.experts import ExpertMixture, RoutingType
from slowfast.models.names import hoist

Activation = Literal["quick_gelu", "gelu"]


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in fp32; the result has the input's dtype, so the residual stream keeps its precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis, (..., D) -> (..., D)."""
        normed = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's approximation of the GELU: SiLU(1.702 x) / 1.702, whose gradient is one kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply element-wise, any shape."""
        return F.silu(1.702 * x).mul_(1 / 1.702)


ACTIVATIONS: dict[str, type[nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}
"""Activation of the feed-forward parts: OpenAI trained with QuickGELU, most models of open_clip with the exact GELU."""


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

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values in one product, (..., D) -> (..., 3 D)."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)

    def attend(self, qkv: Tensor, *, causal: bool = False) -> Tensor:
        """Attend within each sequence and concatenate the heads, before the output projection.

        Args:
            qkv: queries, keys and values, (..., L, 3 D); every leading axis is a batch axis.
            causal: whether token i sees tokens 0..i only.

        Returns:
            Concatenated heads, (..., L, D).
        """
        # Three views (N, heads, L, 64); the gradient of a split is one concatenation.
        q, k, v = (
            part.unflatten(-1, (self.num_heads, HEAD_WIDTH)).transpose(1, 2)
            for part in qkv.flatten(0, -3).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return attended.transpose(1, 2).reshape(*qkv.shape[:-1], -1)

    def attend_first(self, x: Tensor) -> Tensor:
        """Let the first token of each sequence attend to all of it; no other token's query, key or value is formed.

        A query times W_k x is (the query times W_k) times x, and a weighted mean of W_v x is W_v times the mean of x:
        each head sends its query through the keys' weights, and all heads share the tokens as keys and as values. The
        bias of the keys adds the same to every score of a head, which the softmax ignores.

        Args:
            x: tokens, (..., L, D); every leading axis is a batch axis.

        Returns:
            Concatenated heads of the first token, before the output projection, (..., D).
        """
        width = x.shape[-1]
        tokens = x.flatten(0, -3)  # (N, L, D)
        weight_q, weight_k, weight_v = self.in_proj_weight.chunk(3)
        bias_q, _, bias_v = self.in_proj_bias.chunk(3)
        q = F.linear(tokens[:, 0], weight_q, bias_q).unflatten(-1, (self.num_heads, HEAD_WIDTH)).transpose(0, 1)
        q = (q @ weight_k.view(-1, HEAD_WIDTH, width)).transpose(0, 1)  # (N, heads, D)
        keys = tokens[:, None].to(q.dtype)
        mean = F.scaled_dot_product_attention(q[:, None], keys, keys, scale=HEAD_WIDTH**-0.5)  # (N, 1, heads, D)
        weight_v = weight_v.view(-1, HEAD_WIDTH, width).transpose(1, 2)
        values = (mean[:, 0].transpose(0, 1) @ weight_v).transpose(0, 1)  # (N, heads, 64)
        return (values.flatten(1) + bias_v).to(values.dtype).view(*x.shape[:-2], width)

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """Attend within each sequence, (..., L, D) -> (..., L, D)."""
        return self.out_proj(self.attend(self.project(x), causal=causal))


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
        self.mixture: ExpertMixture | None = None

    def add_experts(self, count: int, *, routing_type: RoutingType = "patch-level") -> None:
        """Make the feed-forward part a mixture of itself and further experts, which start as copies of it.

        Args:
            count: number of further experts, at least 1.
            routing_type: who chooses: every token, or the class token for its whole frame.
        """
        self.mixture = ExpertMixture(self.attn.out_proj.in_features, count, routing_type=routing_type)
        hoist(self, "mixture")
        self.start_experts()

    def start_experts(self) -> None:
        """Make every expert a copy of the block's own feed-forward part."""
        assert self.mixture is not None
        self.mixture.copy_from(self.mlp)

    @property
    def records_routing(self) -> bool:
        """Whether a forward leaves the shares of its experts behind, for the loss."""
        return self.mixture is not None and self.mixture.record

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward part without its residual, with experts where there are any, (..., L, D) -> (..., L, D)."""
        return self.mlp(x) if self.mixture is None else self.mixture(x, self.mlp)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens, (..., L, D) -> (..., L, D)."""
        x = x + self.attn(self.ln_1(x), causal=self.causal)
        return x + self.feed_forward(self.ln_2(x))

    def class_token(self, x: Tensor) -> Tensor:
        """What ``forward`` makes of the first token, at less cost where this block can, (..., L, D) -> (..., D).

        A block whose ``forward`` is its own computes everything, unless it overrides this method, too.
        """
        return self.first_token(x) if type(self).forward is ResidualBlock.forward else self(x)[..., 0, :]

    def first_token(self, x: Tensor) -> Tensor:
        """The first token behind CLIP's own block, (..., L, D) -> (..., D)."""
        if self.mixture is not None:  # the shares of experts count every token
            return ResidualBlock.forward(self, x)[..., 0, :]
        first = x[..., 0, :] + self.attn.out_proj(self.attn.attend_first(self.ln_1(x)))
        return first + self.feed_forward(self.ln_2(first))


class Transformer(nn.Module):
    """A stack of blocks under the name that CLIP's files give it, ``resblocks``.

    With ``recompute`` set, a training step keeps the input of each block only and computes its inside a second time in
    the backward pass: memory for time, the same numbers. Blocks that leave something behind for the loss keep theirs.
    """

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)
        self.recompute = False

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks in order; shapes are the blocks' own."""
        for block in self.resblocks:
            x = self.run(block, block, x)
        return x

    def class_token(self, x: Tensor) -> Tensor:
        """Apply the blocks in order; of the last one only the first token is computed, (..., L, D) -> (..., D)."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = self.run(block, block, x)
        return self.run(last, last.class_token, x) if isinstance(last, ResidualBlock) else last(x)[..., 0, :]

    def run(self, block: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a function of a block, which a training step computes twice if it shall recompute."""
        leaves_routing = isinstance(block, ResidualBlock) and block.records_routing
        if self.recompute and self.training and torch.is_grad_enabled() and not leaves_routing:
            return checkpoint(function, x, use_reentrant=False)
        return function(x)


def use_activation(module: nn.Module, name: Activation) -> None:
    """Give every block inside a module the activation of a name of ACTIVATIONS."""
    for block in module.modules():
        if isinstance(block, ResidualBlock):
            block.mlp.gelu = ACTIVATIONS[name]()


def activation_of(module: nn.Module) -> Activation | None:
    """Name the activation of the blocks inside a module; None where there is no block."""
    used = {type(block.mlp.gelu) for block in module.modules() if isinstance(block, ResidualBlock)}
    assert len(used) <= 1, f"blocks with different activations: {used}"
    return None if not used else "quick_gelu" if used == {QuickGELU} else "gelu"
