"""Sizes of CLIP models: the published ones by name, any other read off a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

HEAD_WIDTH = 64
"""Channels per attention head in every CLIP ViT and text tower; the number of heads is width // 64."""

_OTHER_HEADS = {
    1280: ("ViT-H", 80),
    1408: ("ViT-g", 88),
    1664: ("ViT-bigG", 104),
    1792: ("ViT-e", 112),
}
"""Width of image towers whose heads are known to be wider -> (name, channels per head). The weights do not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSizes:
    """Sizes that determine every parameter shape of a CLIP with a ViT image tower.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021), table 20.
    """

    image_size: int
    """Side of the input image, pixels; a multiple of patch_size."""
    patch_size: int
    """Side of one patch, pixels."""
    vision_width: int
    vision_layers: int
    embed_dim: int
    """Width of the joint space, E."""
    text_width: int
    text_layers: int
    context_length: int = 77
    """Longest text, tokens."""
    vocab_size: int = 49408

    def __post_init__(self) -> None:
        for name in ("vision_width", "text_width"):
            if getattr(self, name) % HEAD_WIDTH:
                raise ValueError(f"CLIP {name} is {getattr(self, name)}; it must be a multiple of {HEAD_WIDTH}")
        if self.image_size % self.patch_size:
            raise ValueError(f"CLIP image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image, P."""
        return self.image_size // self.patch_size

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], *, source: str = "state dict") -> ClipSizes:
        """Read the sizes off the tensors of a CLIP state dict.

        Args:
            state: tensors under OpenAI's names, without prefix.
            source: what to call the state dict in an error, usually its file.

        Raises:
            ValueError: if a tensor that carries a size is absent, or the image tower is a ResNet.
        """
        if "visual.layer1.0.conv1.weight" in state:
            raise ValueError(f"{source}: holds a CLIP with a ResNet image tower; only ViT image towers are supported")
        needed = ("visual.conv1.weight", "visual.positional_embedding", "text_projection", "positional_embedding")
        missing = [name for name in (*needed, "ln_final.weight", "token_embedding.weight") if name not in state]
        if missing:
            raise ValueError(f"{source}: not a CLIP state dict: {missing[0]} is missing (found {len(state)} entries)")
        shapes = {name: tuple(state[name].shape) for name in needed}
        if [len(shape) for shape in shapes.values()] != [4, 2, 2, 2]:
            raise ValueError(f"{source}: not a CLIP state dict: shapes are {shapes}")
        width, patch_size = shapes["visual.conv1.weight"][0], shapes["visual.conv1.weight"][-1]
        _check_width(width, "vision", source=source)
        _check_width(state["ln_final.weight"].shape[0], "text", source=source)
        grid_size = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
        return cls(
            image_size=patch_size * grid_size,
            patch_size=patch_size,
            vision_width=width,
            vision_layers=_count_blocks(state, "visual.transformer.resblocks."),
            embed_dim=state["text_projection"].shape[1],
            text_width=state["ln_final.weight"].shape[0],
            text_layers=_count_blocks(state, "transformer.resblocks."),
            context_length=state["positional_embedding"].shape[0],
            vocab_size=state["token_embedding.weight"].shape[0],
        )


def _check_width(width: int, tower: str, *, source: str) -> None:
    """Refuse towers that heads of HEAD_WIDTH channels do not make up."""
    if tower == "vision" and width in _OTHER_HEADS:
        name, head_width = _OTHER_HEADS[width]
        raise ValueError(
            f"{source}: vision width {width} is that of {name}, whose attention heads are {head_width} wide; "
            f"only models with heads {HEAD_WIDTH} wide are supported"
        )
    if width % HEAD_WIDTH:
        raise ValueError(f"{source}: {tower} width {width} is not a multiple of {HEAD_WIDTH}, the width of a head")


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """One more than the highest number of a block, so that a block that is absent shows as missing."""
    numbers = {name[len(prefix) :].split(".", 1)[0] for name in state if name.startswith(prefix)}
    highest = max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
    return min(highest, len(state))


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedClip:
    """One model that OpenAI published."""

    name: str
    url: str
    sha256: str
    sizes: ClipSizes


_HOST = "https://openaipublic.azureedge.net/clip/models"


def _published(name: str, sha256: str, sizes: ClipSizes) -> PublishedClip:
    file_name = name.replace("/", "-") + ".pt"
    return PublishedClip(name=name, url=f"{_HOST}/{sha256}/{file_name}", sha256=sha256, sizes=sizes)


PUBLISHED: dict[str, PublishedClip] = {
    "vitb32": _published(
        "ViT-B/32",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        ClipSizes(
            image_size=224,
            patch_size=32,
            vision_width=768,
            vision_layers=12,
            embed_dim=512,
            text_width=512,
            text_layers=12,
        ),
    ),
    "vitb16": _published(
        "ViT-B/16",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        ClipSizes(
            image_size=224,
            patch_size=16,
            vision_width=768,
            vision_layers=12,
            embed_dim=512,
            text_width=512,
            text_layers=12,
        ),
    ),
    "vitl14": _published(
        "ViT-L/14",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        ClipSizes(
            image_size=224,
            patch_size=14,
            vision_width=1024,
            vision_layers=24,
            embed_dim=768,
            text_width=768,
            text_layers=12,
        ),
    ),
}
"""MODEL.ARCH -> the archive it stands for. The hash is the one in the archive's address."""


def published_clip(name: str) -> PublishedClip | None:
    """Find a published model by MODEL.ARCH ("vitb16") or by OpenAI's name ("ViT-B/16"); None if there is none."""
    for arch, published in PUBLISHED.items():
        if name in (arch, published.name):
            return published
    return None
