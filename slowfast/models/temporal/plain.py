"""No temporal module: CLIP's block, every frame on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.layers import ResidualBlock


class PlainBlock(ResidualBlock):
    """CLIP's block as a temporal module (MODEL.TEMPORAL_MODELING_TYPE None)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        """No options."""

    options_class: ClassVar[type] = Options

    def __init__(self, sizes: ClipSizes, options: Options) -> None:
        del options
        super().__init__(sizes.vision_width)
