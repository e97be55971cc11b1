"""Which entries a ViFi-CLIP with learned prompts has beyond CLIP's, and their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.layouts import DEEP_PROMPT, PROMPT_CONTEXT, VISION_PROMPT

Shape = tuple[int, int]


def is_vifi_entry(name: str) -> bool:
    """Whether ViFi-CLIP has an entry of this name, or one like it, and CLIP does not."""
    return name in (PROMPT_CONTEXT, VISION_PROMPT) or name.endswith(DEEP_PROMPT)


def vifi_shapes(sizes: ClipSizes, found: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shapes of all that a ViFi-CLIP has beyond CLIP: prompts, each as many rows as its tower's first.

    Without prompts, which is a fully tuned model, it has nothing. With any, it has words of the text tower; those of
    the image tower are a choice. The blocks behind the first one, up to a depth, have their own.

    Args:
        sizes: of its CLIP.
        found: what there is, under the names of our checkpoints.
    """
    shapes: dict[str, Shape] = {}
    towers = (
        (PROMPT_CONTEXT, "transformer.resblocks.", sizes.text_width, sizes.text_layers),
        (VISION_PROMPT, "visual.transformer.resblocks.", sizes.vision_width, sizes.vision_layers),
    )
    for first, blocks, width, layers in towers:
        deep = [name for name in found if name.startswith(blocks)]
        if not found or (first == VISION_PROMPT and first not in found and not deep):
            continue
        rows = next((len(found[name]) for name in (first, *deep) if name in found and found[name].ndim), 1)
        shapes[first] = (rows, width)
        for layer in range(1, min(_depth(deep, blocks), layers)):
            shapes[f"{blocks}{layer}{DEEP_PROMPT}"] = (rows, width)
    return shapes


def _depth(names: Iterable[str], blocks: str) -> int:
    """One more than the highest number of a block, so that a prompt that is absent shows as missing."""
    numbers = [name.removeprefix(blocks).removesuffix(DEEP_PROMPT) for name in names]
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
