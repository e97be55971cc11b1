"""Mixture of experts in the feed-forward part of a block (Open-VCLIP's MODEL.NUM_EXPERTS)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

RoutingType = Literal["patch-level", "image-level"]

_EXPERT = re.compile(r"experts_(?:head|tail)\.\d+\.")


class ExpertMixture(nn.Module):
    """Every token's weighted mean over a block's own feed-forward part and further experts.

    All experts are computed and mixed twice: before the activation, and behind the last layer. State-dict names are the
    published ones: ``experts_head.{i}.c_fc``, ``experts_tail.{i}.c_proj``, ``routing1``, ``routing2``.

    Args:
        width: channels, D.
        count: experts beside the block's own feed-forward part, e.
        routing_type: "patch-level": each token weighs for itself; "image-level": the first token weighs for all.

    Source: published code of Open-VCLIP, which STDD inherits.
    """

    def __init__(self, width: int, count: int, *, routing_type: RoutingType) -> None:
        super().__init__()
        self.experts_head = nn.ModuleList(_named("c_fc", nn.Linear(width, 4 * width)) for _ in range(count))
        self.experts_tail = nn.ModuleList(_named("c_proj", nn.Linear(4 * width, width)) for _ in range(count))
        self.routing1 = nn.Linear(width, count + 1)
        self.routing2 = nn.Linear(4 * width, count + 1)
        self.routing_type = routing_type
        self.record = False
        self.routing: tuple[Tensor, ...] = ()

    def copy_from(self, mlp: nn.Sequential) -> None:
        """Start every expert as a copy of the block's own feed-forward part."""
        for head, tail in zip(self.experts_head, self.experts_tail, strict=True):
            head.load_state_dict({name: t for name, t in mlp.state_dict().items() if name.startswith("c_fc.")})
            tail.load_state_dict({name: t for name, t in mlp.state_dict().items() if name.startswith("c_proj.")})

    def forward(self, x: Tensor, mlp: nn.Sequential) -> Tensor:
        """Mix, (..., L, D) -> (..., L, D).

        Args:
            x: normalised tokens, (..., L, D).
            mlp: the block's own feed-forward part, with the layers c_fc, gelu, c_proj.
        """
        first, activation, last = mlp
        head = self._weights(self.routing1, x)
        hidden = activation(_mix(head, x, [first, *self.experts_head]))
        tail = self._weights(self.routing2, hidden)
        if self.record and self.training:
            self.routing = (head, tail)
        return _mix(tail, hidden, [last, *self.experts_tail])

    def _weights(self, routing: nn.Module, x: Tensor) -> Tensor:
        """Share of each expert, (..., L, e + 1), or (..., 1, e + 1) where the first token decides."""
        return routing(x[..., :1, :] if self.routing_type == "image-level" else x).softmax(dim=-1)


def _named(name: str, layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict([(name, layer)]))


def _mix(weights: Tensor, x: Tensor, layers: list[nn.Module]) -> Tensor:
    shares = weights.unsqueeze(-2).unbind(dim=-1)
    mixed = shares[0] * layers[0](x)
    for share, layer in zip(shares[1:], layers[1:], strict=True):
        mixed = mixed + share * layer(x)
    return mixed.to(x.dtype)  # shares are fp32 under autocast; the residual stream keeps its precision


def record_routing(module: nn.Module) -> None:
    """Make all mixtures inside a module keep the shares of their last forward, for `take_routing`."""
    for mixture in _mixtures(module):
        mixture.record = True


def take_routing(module: nn.Module) -> list[Tensor]:
    """Hand out the shares of the last forward, and forget them: they hold on to its graph.

    Returns:
        Two tensors (..., e + 1) per mixture, in the order of the blocks; expert 0 is the block's own.
    """
    routing: list[Tensor] = []
    for mixture in _mixtures(module):
        routing.extend(mixture.routing)
        mixture.routing = ()
    return routing


def _mixtures(module: nn.Module) -> list[ExpertMixture]:
    return [child for child in module.modules() if isinstance(child, ExpertMixture)]


def routing_penalty(routing: Iterable[Tensor], *, target: float, kind: Literal["mse", "hinge"]) -> Tensor:
    """Punish experts that leave the block's own feed-forward part less, or other, than its share.

    Args:
        routing: shares, (..., e + 1) each; equal numbers of tokens per tensor weigh equally.
        target: wanted share of expert 0, in [0, 1].
        kind: "mse": the squared distance; "hinge": only what is missing counts.

    Returns:
        Mean over tokens and mixtures, scalar.
    """
    gaps = [target - shares[..., 0].float() for shares in routing]
    distance = {"mse": torch.square, "hinge": torch.relu}[kind]
    return torch.stack([distance(gap).mean() for gap in gaps]).mean()


def experts_like_clip(clip: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """What raw CLIP would be as a mixture: each expert is CLIP's own feed-forward part.

    Args:
        clip: raw CLIP under OpenAI's names.
        names: entries of a tuned model, without prefix.

    Returns:
        A tensor of CLIP for every expert among the names.
    """
    own = {name: _EXPERT.sub("mlp.", name) for name in names if _EXPERT.search(name)}
    return {name: clip[source] for name, source in own.items() if source in clip}
