"""ST-Adapter: a narrow convolution over time before the attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.class_attention import attention_shares, class_query_and_keys
from slowfast.models.clip.layers import ResidualBlock


class TemporalConvolution(torch.autograd.Function):
    """Depthwise convolution over three frames with channels last, zeros outside the clip.

    Shifted multiply-adds: they keep the layout, which a convolution kernel would permute, and save only their input.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401 (PyTorch's context)
        """(B, T, L, D), (D, 3) for frames t - 1, t and t + 1, (D,) -> (B, T, L, D)."""
        ctx.save_for_backward(x, taps)
        previous, own, following = taps.unbind(1)
        out = torch.addcmul(bias, x, own)
        out[:, 1:].addcmul_(x[:, :-1], previous)
        out[:, :-1].addcmul_(x[:, 1:], following)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        """(B, T, L, D) -> gradients of the input, the taps and the bias."""
        x, taps = ctx.saved_tensors
        previous, own, following = taps.unbind(1)
        grad_x = grad * own
        grad_x[:, :-1].addcmul_(grad[:, 1:], previous)
        grad_x[:, 1:].addcmul_(grad[:, :-1], following)
        products = (grad[:, 1:] * x[:, :-1], grad * x, grad[:, :-1] * x[:, 1:])
        grad_taps = torch.stack([product.sum(dim=(0, 1, 2)) for product in products], dim=1)
        return grad_x, grad_taps, grad.sum(dim=(0, 1, 2))


class StAdapterBlock(ResidualBlock):
    """CLIP's block behind an ST-Adapter on the patches, which adds nothing at first: its last layer starts at zero.

    Source: ST-Adapter (NeurIPS 2022), without an activation and before the attention, as in FROSTER's code.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        """No options."""

    options_class: ClassVar[type] = Options

    def __init__(self, sizes: ClipSizes, options: Options) -> None:
        del options
        width = sizes.vision_width
        super().__init__(width)
        narrow = width // 2
        # Modules for the sake of the published names and shapes; on (B, T, L, D) the pointwise ones are linear layers.
        self.stadapt_down_1 = nn.Conv3d(width, narrow, kernel_size=1)
        self.stadapt_conv3d_1 = nn.Conv3d(narrow, narrow, kernel_size=(3, 1, 1), padding=(1, 0, 0), groups=narrow)
        self.stadapt_up_1 = nn.Conv3d(narrow, width, kernel_size=1)
        for parameter in self.stadapt_up_1.parameters():
            nn.init.zeros_(parameter)

    def adapt(self, x: Tensor) -> Tensor:
        """Compute what the adapter adds, (B, T, L, D) -> (B, T, L, D), zero at the class token."""
        down, conv, up = self.stadapt_down_1, self.stadapt_conv3d_1, self.stadapt_up_1
        # The class token goes along, which is cheaper than cutting it off and putting it back.
        narrow = F.linear(x, down.weight.flatten(1), down.bias)
        assert conv.bias is not None
        taps, bias = conv.weight.flatten(1).to(narrow.dtype), conv.bias.to(narrow.dtype)
        narrow = TemporalConvolution.apply(narrow, taps, bias)
        adapted = F.linear(narrow, up.weight.flatten(1), up.bias)
        adapted[:, :, 0] = 0
        return adapted

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of whole videos, (B, T, L, D) -> (B, T, L, D)."""
        return super().forward(x + self.adapt(x))

    def class_token(self, x: Tensor) -> Tensor:
        """What ``forward`` makes of the class token alone, (B, T, L, D) -> (B, T, D)."""
        return self.first_token(x + self.adapt(x))

    def class_attention(self, x: Tensor) -> Tensor:
        """The class token's attention to adapted patches, (B, T, L, D) -> (B, T, L - 1)."""
        return attention_shares(*class_query_and_keys(self.attn, self.ln_1(x + self.adapt(x))))[..., 1:]
