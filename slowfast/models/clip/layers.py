"""Layers shared by CLIP's image and text towers, under OpenAI's parameter names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from slowfast.models.clip.arch import HEAD_WIDTH
from slowfast.models.clip.experts import ExpertMixture, RoutingType
from slowfast.models.names import hoist
from slowfast.models.similarity import at_least_fp32

Activation = Literal["quick_gelu", "gelu"]
Input = TypeVar("Input")
Output = TypeVar("Output")


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in at least fp32; the result has the input's dtype, as the residual stream needs it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis, (..., D) -> (..., D)."""
        wide = at_least_fp32(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, self.normalized_shape, weight, bias, self.eps).to(x.dtype)


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

        Args:
            x: tokens, (..., L, D); every leading axis is a batch axis.

        Returns:
            Concatenated heads of the first token, before the output projection, (..., D).
        """
        tokens = x.flatten(0, -3)  # (N, L, D)
        q = self.through_keys(self.queries(tokens[:, 0]))
        keys = tokens[:, None].to(q.dtype)
        mean = F.scaled_dot_product_attention(q[:, None], keys, keys, scale=HEAD_WIDTH**-0.5)  # (N, 1, heads, D)
        values = self.through_values(mean[:, 0])
        bias_v = self.in_proj_bias.chunk(3)[2]
        return (values.flatten(1) + bias_v).to(values.dtype).view(*x.shape[:-2], x.shape[-1])

    def queries(self, x: Tensor) -> Tensor:
        """Queries alone, (..., D) -> (..., heads, 64)."""
        width = x.shape[-1]
        q = F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width])
        return q.unflatten(-1, (self.num_heads, HEAD_WIDTH))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values in one product, (..., D) -> twice (..., heads, 64)."""
        width = x.shape[-1]
        both = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])
        k, v = both.unflatten(-1, (2, self.num_heads, HEAD_WIDTH)).unbind(-3)
        return k, v

    def through_keys(self, q: Tensor) -> Tensor:
        """Send queries through the keys' weights, so that tokens themselves serve as the keys of every head.

        A query times W_k x is (the query times W_k) times x. The bias of the keys, which is left out, adds the same to
        every score of a query, and the softmax ignores it.

        Args:
            q: queries of a few tokens, (N, heads, 64).

        Returns:
            What the tokens are multiplied with, (N, heads, D).
        """
        width = self.in_proj_weight.shape[-1]
        weight = self.in_proj_weight[width : 2 * width].view(-1, HEAD_WIDTH, width)
        return (q.transpose(0, 1) @ weight).transpose(0, 1)

    def through_values(self, mean: Tensor) -> Tensor:
        """Make values of weighted means of tokens: that of W_v x is W_v times the mean of x; without the values' bias.

        Args:
            mean: weighted mean of the tokens for each head, (N, heads, D).

        Returns:
            Values, (N, heads, 64).
        """
        width = mean.shape[-1]
        weight = self.in_proj_weight[2 * width :].view(-1, HEAD_WIDTH, width).transpose(1, 2)
        return (mean.transpose(0, 1) @ weight).transpose(0, 1)

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

    def run(self, block: nn.Module, function: Callable[[Input], Output], x: Input) -> Output:
        """Apply a function of a block, which a training step computes twice if it shall recompute."""
        leaves_routing = isinstance(block, ResidualBlock) and block.records_routing
        if self.recompute and self.training and torch.is_grad_enabled() and not leaves_routing:
            recomputed: Output = checkpoint(function, x, use_reentrant=False)
            return recomputed
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
