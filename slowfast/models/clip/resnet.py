"""CLIP's ResNet image tower over the frames of a video."""

from __future__ import annotations

from collections import OrderedDict

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.models.clip.arch import HEAD_WIDTH, ResNetSizes

EXPANSION = 4
"""Channels that a block gives, per channel of its 3 x 3 convolution."""


class Bottleneck(nn.Module):
    """Residual block of three convolutions, 1 x 1, 3 x 3, 1 x 1, each with its batch norm.

    No convolution skips places: a block that halves the map does so by a mean over 2 x 2 places before the last one,
    and likewise on the way around.

    Args:
        inputs: channels of the input.
        width: channels of the 3 x 3 convolution; the output has four times as many.
        stride: 2 where the block halves the map, else 1.
    """

    def __init__(self, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.avgpool = _halving(stride)
        self.conv3 = nn.Conv2d(width, outputs, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            # CLIP's files count the parts of this way from its first convolution.
            self.downsample = nn.Sequential(
                OrderedDict(
                    (
                        ("-1", _halving(stride)),
                        ("0", nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)),
                        ("1", nn.BatchNorm2d(outputs)),
                    )
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps, (N, C, H, W) -> (N, 4 width, H / stride, W / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = self.avgpool(F.relu(self.bn2(self.conv2(inner))))
        return F.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


def _halving(stride: int) -> nn.Module:
    return nn.AvgPool2d(stride) if stride > 1 else nn.Identity()


class AttentionPool(nn.Module):
    """Pools a map by attention: the mean of all places is the query, and takes part as a key and value, too.

    Args:
        places: places of the map.
        width: channels of the map, D.
        embed_dim: channels of the output, E.
    """

    def __init__(self, places: int, width: int, embed_dim: int) -> None:
        super().__init__()
        self.num_heads = width // HEAD_WIDTH
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(places + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pool maps, (N, D, H, W) -> (N, E)."""
        tokens = x.flatten(2).transpose(1, 2)  # (N, H * W, D)
        tokens = torch.cat((tokens.mean(dim=1, keepdim=True), tokens), dim=1)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        # Only the mean's answer is used, so that no other token asks.
        q, k, v = (
            projected.unflatten(-1, (self.num_heads, HEAD_WIDTH)).transpose(1, 2)  # (N, heads, L, 64)
            for projected in (self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens))
        )
        pooled: Tensor = self.c_proj(F.scaled_dot_product_attention(q, k, v).flatten(1))
        return pooled


class ModifiedResNet(nn.Module):
    """ResNet with a stem of three convolutions, means in place of strides, and attention pooling; frame by frame.

    In training mode the batch norms take the statistics of all frames of the input and move their running ones by a
    tenth; in evaluation mode a frame is embedded by the running ones, whatever it comes with. A tower of which nothing
    trains stays in evaluation mode: it is a constant.

    Source: Radford et al. (2021), section 2.4; names of the parameters as in OpenAI's files.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, sizes: ResNetSizes) -> None:
        super().__init__()
        self.image_size = sizes.image_size
        width = sizes.vision_width
        self.conv1 = nn.Conv2d(3, width // 2, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, kernel_size=3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        inputs = width
        for stage, blocks in enumerate(sizes.vision_layers):
            inner = width << stage
            first = Bottleneck(inputs, inner, stride=2 if stage else 1)
            inputs = EXPANSION * inner
            others = [Bottleneck(inputs, inner) for _ in range(1, blocks)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *others))
        assert inputs == sizes.pool_width
        self.attnpool = AttentionPool(sizes.grid_size**2, inputs, sizes.embed_dim)

    def train(self, mode: bool = True) -> ModifiedResNet:
        """Switch the mode; a tower of which nothing trains keeps its statistics, and stays in evaluation mode."""
        super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """Embed every frame.

        Args:
            frames: normalised frames, (B, 3, T, H, W) with H == W == image_size.

        Returns:
            Frame embeddings in the joint space, not normalised, (B, T, E).

        Raises:
            ValueError: if the frames have another shape.
        """
        if frames.ndim != 5 or frames.shape[1] != 3 or frames.shape[3:] != (self.image_size, self.image_size):
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; expected (B, 3, T, {self.image_size}, {self.image_size})"
            )
        x = rearrange(frames, "B C T H W -> (B T) C H W").to(self.conv1.weight.dtype)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)))
        x = F.avg_pool2d(x, 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        embedded: Tensor = self.attnpool(x).unflatten(0, (frames.shape[0], -1))
        return embedded
