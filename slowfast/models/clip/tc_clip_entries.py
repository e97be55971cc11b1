"""Which entries a TC-CLIP has beyond CLIP's, and their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from slowfast.models.clip.arch import HEAD_WIDTH, ClipSizes
from slowfast.models.clip.layouts import BIAS_TABLE, PROMPT_CONTEXT, PROMPT_GENERATION

Shape = tuple[int, ...]

POSITIONS = "visual.positional_embedding"
"""CLIP's has a row per token, (L, D); TC-CLIP's may have one per frame and token, (T, L, D)."""


def is_tc_clip_entry(name: str) -> bool:
    """Whether TC-CLIP has an entry of this name, or one like it, and CLIP does not."""
    return name == PROMPT_CONTEXT or name.startswith(PROMPT_GENERATION) or name.endswith(BIAS_TABLE)


def of_one_frame(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Give the positions of the first frame for those of all: they tell the sizes of CLIP."""
    positions = state.get(POSITIONS)
    return {**state, POSITIONS: positions[0]} if positions is not None and positions.ndim == 3 else state


def of_all_frames(name: str, clip: Tensor, shape: Shape) -> Tensor:
    """Repeat CLIP's positions where a model has them for each of its frames.

    Args:
        name: of an entry of CLIP.
        clip: its value in raw CLIP.
        shape: of the same entry in the model.

    Returns:
        The value as a view of that shape; as it is where it is something else, or does not fit anyway.
    """
    fits = name == POSITIONS and len(shape) == 3 and shape[1:] == tuple(clip.shape)
    return clip.expand(shape) if fits else clip


def tc_clip_shapes(sizes: ClipSizes, found: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shapes of all that a TC-CLIP has beyond CLIP.

    The learned context always belongs to it. Its options leave out bias tables, of all blocks, and whole layers of
    prompt generation; where one of these is found the others of its kind are expected.

    Args:
        sizes: of its CLIP.
        found: what there is, under the names of our checkpoints.
    """
    width = sizes.text_width
    rows = found[PROMPT_CONTEXT].shape[0] if PROMPT_CONTEXT in found and found[PROMPT_CONTEXT].ndim else 1
    shapes: dict[str, Shape] = {PROMPT_CONTEXT: (rows, width)}
    if any(name.endswith(BIAS_TABLE) for name in found):
        # The first block has no context to weigh against the tokens of its frame.
        shapes |= {
            f"visual.transformer.resblocks.{layer}.{BIAS_TABLE}": (sizes.vision_width // HEAD_WIDTH, 1, 2)
            for layer in range(1, sizes.vision_layers)
        }
    for layer in range(_num_layers(found)):
        shapes |= {f"{PROMPT_GENERATION}{layer}.{name}": shape for name, shape in _layer_shapes(width).items()}
    return shapes


def _num_layers(names: Iterable[str]) -> int:
    """One more than the highest number of a layer, so that a layer that is absent shows as missing."""
    names = [name for name in names if name.startswith(PROMPT_GENERATION)]
    numbers = [name.removeprefix(PROMPT_GENERATION).split(".", 1)[0] for name in names]
    highest = max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
    return min(highest, len(names))


def _layer_shapes(width: int) -> dict[str, Shape]:
    norms = {f"{norm}.{part}": (width,) for norm in ("ln_1", "ln_1_kv", "ln_2") for part in ("weight", "bias")}
    return {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
        **norms,
    }
