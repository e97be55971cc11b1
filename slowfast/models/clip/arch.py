"""Sizes of CLIP models: the published ones by name, any other read off a state dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

HEAD_WIDTH = 64
"""Channels per attention head in every tower and pooling of CLIP; the number of heads is width // 64."""

_OTHER_HEADS = {
    1280: ("ViT-H", 80),
    1408: ("ViT-g", 88),
    1664: ("ViT-bigG", 104),
    1792: ("ViT-e", 112),
}
"""Width of image towers whose heads are known to be wider -> (name, channels per head). The weights do not tell."""


STAGES = 4
"""Stages of a ResNet image tower, ``layer1`` to ``layer4``."""
RESNET_SHRINK = 32
"""Pixels per place of a ResNet's last map, along one side; also how many times its width the last map is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommonSizes:
    """Sizes that every CLIP has, whatever its image tower is."""

    image_size: int
    """Side of the input image, pixels."""
    embed_dim: int
    """Width of the joint space, E."""
    text_width: int
    text_layers: int
    context_length: int = 77
    """Longest text, tokens."""
    vocab_size: int = 49408

    def __post_init__(self) -> None:
        if self.text_width % HEAD_WIDTH:
            raise ValueError(f"CLIP text_width is {self.text_width}; it must be a multiple of {HEAD_WIDTH}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSizes(CommonSizes):
    """Sizes that determine every parameter shape of a CLIP with a ViT image tower.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021), table 20.
    """

    patch_size: int
    """Side of one patch, pixels; image_size is a multiple of it."""
    vision_width: int
    vision_layers: int

    def __post_init__(self) -> None:
        if self.vision_width % HEAD_WIDTH:
            raise ValueError(f"CLIP vision_width is {self.vision_width}; it must be a multiple of {HEAD_WIDTH}")
        CommonSizes.__post_init__(self)
        if self.image_size % self.patch_size:
            raise ValueError(f"CLIP image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image, P."""
        return self.image_size // self.patch_size

    @property
    def image_tower(self) -> str:
        """The image tower in a few words, for a report."""
        return f"patches of {self.patch_size} px, image tower {self.vision_layers} x {self.vision_width}"

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], *, source: str = "state dict", taker: str = "") -> ClipSizes:
        """Read the sizes off the tensors of a CLIP whose image tower must be a ViT.

        Args:
            state: tensors under OpenAI's names, without prefix.
            source: what to call the state dict in an error, usually its file.
            taker: who takes nothing else, for the error.

        Raises:
            ValueError: if a tensor that carries a size is absent, or the image tower is a ResNet.
        """
        if has_resnet(state):
            raise ValueError(
                f"{source}: holds a CLIP with a ResNet image tower; only ViT image towers are supported"
                + (f" by {taker}" if taker else "")
            )
        shapes = _shapes(state, ("visual.conv1.weight", "visual.positional_embedding"), source=source)
        width, patch_size = shapes["visual.conv1.weight"][0], shapes["visual.conv1.weight"][-1]
        _check_width(width, "vision", source=source)
        return cls(
            image_size=patch_size * _grid_size(shapes["visual.positional_embedding"]),
            patch_size=patch_size,
            vision_width=width,
            vision_layers=_count_blocks(state, "visual.transformer.resblocks."),
            **_text_sizes(state, source=source),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetSizes(CommonSizes):
    """Sizes that determine every parameter shape of a CLIP with a ResNet image tower.

    Source: Radford et al. (2021), section 2.4 and table 19.
    """

    vision_width: int
    """Channels behind the stem; an even number."""
    vision_layers: tuple[int, ...]
    """Blocks of the four stages."""

    def __post_init__(self) -> None:
        if self.vision_width < 2 or self.vision_width % 2:
            raise ValueError(f"CLIP vision_width is {self.vision_width}; of a ResNet it must be an even number")
        if len(self.vision_layers) != STAGES or min(self.vision_layers) < 1:
            raise ValueError(f"CLIP vision_layers is {self.vision_layers}; a ResNet has {STAGES} stages of some blocks")
        CommonSizes.__post_init__(self)
        if self.image_size % RESNET_SHRINK:
            raise ValueError(f"CLIP image_size {self.image_size} is not a multiple of {RESNET_SHRINK}, as of a ResNet")

    @property
    def grid_size(self) -> int:
        """Places along one side of the last map."""
        return self.image_size // RESNET_SHRINK

    @property
    def pool_width(self) -> int:
        """Channels of the last map, which the attention pooling takes."""
        return self.vision_width * RESNET_SHRINK

    @property
    def image_tower(self) -> str:
        """The image tower in a few words, for a report."""
        return f"image tower ResNet {'-'.join(map(str, self.vision_layers))} x {self.vision_width}"

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], *, source: str = "state dict") -> ResNetSizes:
        """Read the sizes off the tensors of a CLIP whose image tower is a ResNet.

        Args:
            state: tensors under OpenAI's names, without prefix.
            source: what to call the state dict in an error, usually its file.

        Raises:
            ValueError: if a tensor that carries a size, or a stage, is absent.
        """
        shapes = _shapes(state, ("visual.layer1.0.conv1.weight", "visual.attnpool.positional_embedding"), source=source)
        layers = tuple(_count_blocks(state, f"visual.layer{stage}.") for stage in range(1, STAGES + 1))
        if 0 in layers:
            raise ValueError(f"{source}: not a CLIP state dict: visual.layer{layers.index(0) + 1} is missing")
        width = shapes["visual.layer1.0.conv1.weight"][0]
        if width % 2:
            raise ValueError(f"{source}: vision width {width} of a ResNet is not an even number")
        return cls(
            image_size=RESNET_SHRINK * _grid_size(shapes["visual.attnpool.positional_embedding"]),
            vision_width=width,
            vision_layers=layers,
            **_text_sizes(state, source=source),
        )


AnyClipSizes = ClipSizes | ResNetSizes
"""Sizes of a CLIP by the kind of its image tower."""


def has_resnet(names: Iterable[str]) -> bool:
    """Whether the names of a CLIP, OpenAI's, are those of one with a ResNet image tower."""
    return any(name.startswith("visual.layer1.") for name in names)


def read_sizes(state: Mapping[str, Tensor], *, source: str = "state dict") -> AnyClipSizes:
    """Read the sizes off the tensors of any CLIP.

    Args:
        state: tensors under OpenAI's names, without prefix.
        source: what to call the state dict in an error, usually its file.

    Raises:
        ValueError: if a tensor that carries a size is absent.
    """
    kind = ResNetSizes if has_resnet(state) else ClipSizes
    return kind.from_state_dict(state, source=source)


def _shapes(state: Mapping[str, Tensor], names: tuple[str, str], *, source: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the entries that carry sizes: two of the image tower, 4 and 2 axes, and those of the text tower."""
    needed = (*names, "text_projection", "positional_embedding")
    missing = [name for name in (*needed, "ln_final.weight", "token_embedding.weight") if name not in state]
    if missing:
        raise ValueError(f"{source}: not a CLIP state dict: {missing[0]} is missing (found {len(state)} entries)")
    shapes = {name: tuple(state[name].shape) for name in needed}
    if [len(shape) for shape in shapes.values()] != [4, 2, 2, 2]:
        raise ValueError(f"{source}: not a CLIP state dict: shapes are {shapes}")
    return shapes


def _grid_size(positions: tuple[int, ...]) -> int:
    """Side of the square whose places, and one token more, have the positions, (L, D)."""
    return round((positions[0] - 1) ** 0.5)


def _text_sizes(state: Mapping[str, Tensor], *, source: str) -> dict[str, int]:
    width = state["ln_final.weight"].shape[0]
    _check_width(width, "text", source=source)
    return {
        "embed_dim": state["text_projection"].shape[1],
        "text_width": width,
        "text_layers": _count_blocks(state, "transformer.resblocks."),
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state["token_embedding.weight"].shape[0],
    }


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
    sizes: AnyClipSizes


_HOST = "https://openaipublic.azureedge.net/clip/models"


def _published(name: str, sha256: str, sizes: AnyClipSizes) -> PublishedClip:
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
    "rn50": _published(
        "RN50",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        ResNetSizes(
            image_size=224,
            vision_width=64,
            vision_layers=(3, 4, 6, 3),
            embed_dim=1024,
            text_width=512,
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
