"""X-CLIP's block: the frames of a video talk through one message token each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.class_attention import attention_shares, class_query_and_keys
from slowfast.models.clip.layers import Attention, LayerNorm, ResidualBlock


class CrossFrameBlock(ResidualBlock):
    """CLIP's block with cross-frame communication.

    Every frame makes a message of its class token, the messages of a video attend to each other, and each frame's
    attention sees its own message as one more token. The message ends with the block.

    Source: X-CLIP (ECCV 2022), cross-frame communication transformer.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        """No options."""

    options_class: ClassVar[type] = Options

    def __init__(self, sizes: ClipSizes, options: Options) -> None:
        del options
        width = sizes.vision_width
        super().__init__(width)
        self.message_fc = nn.Linear(width, width)
        self.message_ln = LayerNorm(width)
        self.message_attn = Attention(width)
        nn.init.zeros_(self.message_attn.out_proj.bias)

    def messages(self, class_tokens: Tensor) -> Tensor:
        """Make the messages of the frames and let them attend to each other, (B, T, D) -> (B, T, D)."""
        messages = self.message_fc(class_tokens)
        return messages + self.message_attn(self.message_ln(messages))

    def extended(self, x: Tensor) -> Tensor:
        """Append its message to every frame, (B, T, L, D) -> (B, T, L + 1, D)."""
        return torch.cat((x, self.messages(x[:, :, 0])[:, :, None].to(x.dtype)), dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of whole videos, (B, T, L, D) -> (B, T, L, D)."""
        x = x + self.attn(self.ln_1(self.extended(x)))[:, :, :-1]
        return x + self.feed_forward(self.ln_2(x))

    def class_token(self, x: Tensor) -> Tensor:
        """What ``forward`` makes of the class token alone, (B, T, L, D) -> (B, T, D)."""
        return self(x)[:, :, 0] if self.mixture is not None else self.first_token(self.extended(x))

    def class_attention(self, x: Tensor) -> Tensor:
        """The class token's attention to patches beside the message, (B, T, L, D) -> (B, T, L - 1)."""
        return attention_shares(*class_query_and_keys(self.attn, self.ln_1(self.extended(x))))[..., 1:-1]
