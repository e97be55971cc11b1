"""Names of CLIP's parameters in the files of other projects, and what they are called here.

Here they have OpenAI's names. Every renaming of a foreign file is in this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

CLIP_PREFIX = "model."
"""What our checkpoints, and those of the PySlowFast family, put before CLIP's names."""
TEACHER_PREFIX = "raw_model."
"""Likewise for the frozen teacher, a second CLIP."""
AUTO = "auto"

TOKEN_EMBEDDING = "token_embedding.weight"
WITHOUT_TOKENS = {"vifi": "ViFi-CLIP", "tc_clip": "TC-CLIP"}
"""Layouts whose files lack it -> the project that does not save it."""
SIZE_ENTRIES = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's archives that are sizes, not weights."""
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


@dataclass(kw_only=True, slots=True)
class Renamed:
    """A state dict sorted by what its entries are.

    Attributes:
        source: what to call the state dict in an error.
        layout: key of LAYOUTS.
        clip: entries of a CLIP under OpenAI's names, those of a temporal module in its towers included. A name that no
            rule knows is here too, unchanged: whoever builds a model from it will not find a place for it.
        beside: parts of a method outside CLIP, under the names of our checkpoints.
        left: names of entries that are no weights, such as masks, position numbers and text of a label set.
    """

    source: str
    layout: str
    clip: dict[str, Tensor] = field(default_factory=dict)
    beside: dict[str, Tensor] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def add(self, name: str, tensor: Tensor) -> None:
        """Add an entry of a CLIP.

        Raises:
            ValueError: if there is one of this name.
        """
        if name in self.clip:
            raise ValueError(f"{self.source}: two entries are CLIP's {name!r}")
        self.clip[name] = tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How one family of projects names CLIP's parameters.

    Attributes:
        title: what to call it in a report.
        marks: names, or beginnings of names that end with a dot, of which the layout has at least one.
        without: likewise, of which it has none.
        rename: sorts a state dict without wrappers' prefixes into a result.
    """

    title: str
    marks: tuple[str, ...]
    rename: Callable[[Mapping[str, Tensor], Renamed], None]
    without: tuple[str, ...] = ()

    def is_of(self, names: Iterable[str]) -> bool:
        """Whether the names are the layout's."""
        names = list(names)
        return _has_one(names, self.marks) and not _has_one(names, self.without)


def _has_one(names: Iterable[str], marks: tuple[str, ...]) -> bool:
    return any(name == mark or (mark[-1] == "." and name.startswith(mark)) for name in names for mark in marks)


def unwrapped(state: Mapping[str, Tensor], *, source: str, strip_prefix: str = "") -> dict[str, Tensor]:
    """Remove the prefixes of wrappers from all names that have them.

    Args:
        state: names as in the file.
        source: what to call the state dict in an error.
        strip_prefix: a further prefix to remove; entries without it are left out.

    Raises:
        ValueError: if two entries become one, or none has the prefix.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = without_wrappers(name)
        if strip_prefix and not short.startswith(strip_prefix):
            continue
        short = without_wrappers(short.removeprefix(strip_prefix))
        if short in result:
            raise ValueError(f"{source}: two entries are {short!r} but for a prefix")
        result[short] = tensor
    if strip_prefix and not result:
        raise ValueError(f"{source}: no entry begins with {strip_prefix!r} (found {_examples(state)})")
    return result


def without_wrappers(name: str) -> str:
    """Remove what DistributedDataParallel and torch.compile put before a name."""
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def find_layout(names: Iterable[str], *, source: str) -> str | None:
    """Recognise the layout of a state dict without wrappers' prefixes.

    Returns:
        A key of LAYOUTS, None where no name is CLIP's.

    Raises:
        ValueError: if the entries of two layouts are mixed.
    """
    names = list(names)
    found = [key for key, layout in LAYOUTS.items() if layout.is_of(names)]
    for special, general in _SPECIAL:
        if special in found and general in found:
            found.remove(general)
    if len(found) > 1:
        raise ValueError(f"{source}: holds names of {len(found)} layouts, {' and '.join(found)}")
    return found[0] if found else None


def clip_names(state: Mapping[str, Tensor], *, source: str, layout: str = AUTO, strip_prefix: str = "") -> Renamed:
    """Bring a state dict of any known layout to OpenAI's names.

    Args:
        state: names as in the file.
        source: what to call the state dict in an error.
        layout: a key of LAYOUTS, or AUTO.
        strip_prefix: as in `unwrapped`.

    Raises:
        ValueError: if the layout is not recognised, or the model is one that is known not to be readable.
    """
    plain = unwrapped(state, source=source, strip_prefix=strip_prefix)
    _refuse_relatives(plain, source=source)
    found = find_layout(plain, source=source)
    if layout not in (AUTO, found) and (found, layout) not in _ALSO_CALLED:
        raise ValueError(
            f"{source}: no entry has a name of the layout {layout} "
            f"({LAYOUTS[layout].title}: {', '.join(LAYOUTS[layout].marks)}); found {_examples(plain)}"
        )
    if found is None:
        raise ValueError(f"{source}: not a CLIP state dict: {unknown_names(plain)}")
    result = Renamed(source=source, layout=found)
    LAYOUTS[found].rename(plain, result)
    return result


def require_token_embedding(renamed: Renamed, *, source: str) -> None:
    """Name the way out for files of ViFi-CLIP and TC-CLIP, which lack the table of tokens.

    Raises:
        ValueError: if this is one.
    """
    if renamed.layout in WITHOUT_TOKENS and TOKEN_EMBEDDING not in renamed.clip:
        raise ValueError(
            f"{source}: lacks {TOKEN_EMBEDDING}, which {WITHOUT_TOKENS[renamed.layout]} does not save; "
            f"python tools/convert_weights.py {source} TARGET --clip ViT-B/16 takes it from the raw CLIP"
        )


def _refuse_relatives(names: Mapping[str, Tensor], *, source: str) -> None:
    """Say what a file holds that looks like a CLIP and cannot be one here."""
    for pattern, what in _RELATIVES:
        if any(pattern.search(name) for name in names):
            raise ValueError(f"{source}: {what}")


def unknown_names(names: Mapping[str, Tensor]) -> str:
    """What to say of names without wrappers' prefixes of which none is CLIP's: some of them, and what would do."""
    text = f"found {len(names)} entries such as {_examples(names)}" if names else "found no entries"
    for mark in ("visual.conv1.weight", "vision_model.embeddings.class_embedding", "image_encoder.conv1.weight"):
        for name in names:
            if name.endswith(mark):
                # What stands before our own "model.", if that is there: what lies beside CLIP has it too.
                prefix = name.removesuffix(mark)
                prefix = prefix.removesuffix(CLIP_PREFIX) or prefix
                return f"{text}; tools/convert_weights.py with --strip-prefix {prefix} reads it"
    known = [layout.marks[0] for key, layout in LAYOUTS.items() if (key, "vifi") not in _SPECIAL]
    return f"{text}; known are names that begin with {', '.join(known)}"


def _examples(names: Iterable[str], count: int = 2) -> str:
    names = list(names)
    return (", ".join(names[:count]) or "nothing") + (", ..." if len(names) > count else "")


# --- ours and PySlowFast's ---


def _from_ours(state: Mapping[str, Tensor], result: Renamed) -> None:
    """``model.<OpenAI's name>``, beside projector, head and teacher."""
    for name, tensor in state.items():
        if name.startswith(CLIP_PREFIX):
            result.add(name.removeprefix(CLIP_PREFIX), tensor)
        else:
            result.beside[name] = tensor


# --- OpenAI's and open_clip's ---


def _from_openai(state: Mapping[str, Tensor], result: Renamed) -> None:
    """OpenAI's own names; open_clip has them too, in newer models with ``text.`` before those of the text tower."""
    for name, tensor in state.items():
        short = name.removeprefix("text.")
        if short in SIZE_ENTRIES or short.endswith("attn_mask"):
            result.left.append(name)
        else:
            result.add(short, tensor)


# --- Hugging Face's ---

_HUGGING_FACE = (
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.(weight|bias)", r"visual.ln_pre.\1"),  # Hugging Face's spelling
    (r"vision_model\.post_layernorm\.(weight|bias)", r"visual.ln_post.\1"),
    (r"visual_projection\.weight", "visual.proj"),
    (r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm\.(weight|bias)", r"ln_final.\1"),
    (r"text_projection\.weight", "text_projection"),
    (r"logit_scale", "logit_scale"),
)
_HUGGING_FACE_BLOCK = (
    (r"self_attn\.out_proj\.(weight|bias)", r"attn.out_proj.\1"),
    (r"self_attn\.([qkv]_proj)\.(weight|bias)", r"attn.\1.\2"),  # joined below
    (r"layer_norm([12])\.(weight|bias)", r"ln_\1.\2"),
    (r"mlp\.fc1\.(weight|bias)", r"mlp.c_fc.\1"),
    (r"mlp\.fc2\.(weight|bias)", r"mlp.c_proj.\1"),
)
_HUGGING_FACE_TOWERS = {"vision_model": "visual.transformer", "text_model": "transformer"}
_LAYER = re.compile(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.+)")
_TRANSPOSED = ("visual.proj", "text_projection")


def _from_hugging_face(state: Mapping[str, Tensor], result: Renamed) -> None:
    """CLIPModel: the projections of queries, keys and values apart, those into the joint space transposed."""
    for name, tensor in state.items():
        if name.endswith(".position_ids"):
            result.left.append(name)
            continue
        short = _hugging_face_name(name)
        turn = short in _TRANSPOSED and tensor.ndim == 2
        result.add(short, tensor.t().contiguous() if turn else tensor)
    _join_projections(result.clip)


def _hugging_face_name(name: str) -> str:
    if match := _LAYER.fullmatch(name):
        tower, layer, inner = match.groups()
        return f"{_HUGGING_FACE_TOWERS[tower]}.resblocks.{layer}.{_translate(inner, _HUGGING_FACE_BLOCK)}"
    return _translate(name, _HUGGING_FACE)


def _translate(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return name


def _join_projections(state: dict[str, Tensor]) -> None:
    """Put q, k and v of each block into one tensor, (D, ...) x 3 -> (3 D, ...); incomplete triples stay as they are."""
    for name in [name for name in state if ".attn.q_proj." in name]:
        triple = [name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        parts = [state[part] for part in triple if part in state]
        if len(parts) == len(triple) and len({(part.shape, part.dtype) for part in parts}) == 1:
            for part in triple:
                del state[part]
            state[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)


# --- those of ViFi-CLIP and OST ---

PROMPT_CONTEXT = "prompt_learner.ctx"
"""Learned words of the prompt, which TC-CLIP has beside CLIP, and ViFi-CLIP where it learns prompts."""
VISION_PROMPT = "visual.VPT"
"""What ViFi-CLIP with learned prompts adds to the tokens of a frame."""
DEEP_PROMPT = ".VPT_shallow"
"""And what takes the place of learned words and tokens before a later block."""
_ENCODERS = ("image_encoder.", "text_encoder.")
_TEXT_OF_A_LABEL_SET = tuple(
    f"prompt_learner.{name}" for name in ("complete_text_embeddings", "token_prefix", "token_suffix")
)


def _require_encoders(state: Mapping[str, Tensor], *, source: str) -> None:
    """Say which tower has a name that nobody knows, instead of what it lacks for that.

    Raises:
        ValueError: if one of the towers is not there, and something else is.
    """
    strange = [name for name in state if not name.startswith((*_ENCODERS, "prompt_learner.", "logit_scale"))]
    for encoder in _ENCODERS:
        if strange and not any(name.startswith(encoder) for name in state):
            raise ValueError(
                f"{source}: not a CLIP state dict: found {len(strange)} entries such as {_examples(strange)}; known "
                f"are {' and '.join(_ENCODERS)}, and none begins with {encoder}"
            )


def _from_vifi(state: Mapping[str, Tensor], result: Renamed) -> None:
    """``image_encoder.`` and ``text_encoder.`` before OpenAI's names, beside learned words."""
    _require_encoders(state, source=result.source)
    for name, tensor in state.items():
        if name in _TEXT_OF_A_LABEL_SET:
            result.left.append(name)
        elif name == PROMPT_CONTEXT:
            result.beside[name] = tensor
        elif name.startswith("image_encoder."):
            result.add("visual." + name.removeprefix("image_encoder."), tensor)
        else:
            result.add(name.removeprefix("text_encoder."), tensor)


# --- TC-CLIP's ---

PROMPT_GENERATION = "prompt_generation_layer."
"""What TC-CLIP has beside CLIP and learned words of the prompt: the layers that change these for each video."""
BIAS_TABLE = "attn.local_global_bias_table"
"""And in the blocks of its image tower."""


def _from_tc_clip(state: Mapping[str, Tensor], result: Renamed) -> None:
    """As ViFi-CLIP's, but for the image tower's projections of queries, keys and values, which are apart."""
    _require_encoders(state, source=result.source)
    for name, tensor in state.items():
        short = name.removeprefix("text_encoder.")
        if name in _TEXT_OF_A_LABEL_SET:
            result.left.append(name)
        elif name == PROMPT_CONTEXT or (name != short and short.startswith(PROMPT_GENERATION)):
            result.beside[short] = tensor
        elif name.startswith("image_encoder."):
            result.add("visual." + name.removeprefix("image_encoder."), tensor)
        else:
            result.add(short, tensor)
    _join_projections(result.clip)


def encoder_names(state: Mapping[str, Tensor], *, projections_apart: bool) -> dict[str, Tensor]:
    """Bring weights to the names of the official checkpoints of OST, ViFi-CLIP or TC-CLIP.

    Args:
        state: CLIP under OpenAI's names, and what a method adds under the names of our checkpoints.
        projections_apart: whether each third of the image tower's packed projections is a tensor of its own (TC-CLIP).

    Returns:
        Tensors by their official names.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in ("logit_scale", PROMPT_CONTEXT):
            found[name] = tensor
        elif not name.startswith("visual."):
            found["text_encoder." + name] = tensor
        elif projections_apart and ".attn.in_proj_" in name:
            start, kind = name.removeprefix("visual.").split("in_proj_")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                found[f"image_encoder.{start}{letter}_proj.{kind}"] = part
        else:
            found["image_encoder." + name.removeprefix("visual.")] = tensor
    return {"module." + name: tensor for name, tensor in found.items()}


LAYOUTS: dict[str, Layout] = {
    "ours": Layout(
        title="this project and its relatives (Open-VCLIP, FROSTER, STDD)",
        marks=("model.visual.", "model.transformer.", "model.token_embedding.", "model.text_projection"),
        rename=_from_ours,
    ),
    "openai": Layout(
        title="OpenAI's names, which open_clip has too",
        marks=("visual.", "transformer.resblocks.", "token_embedding.", "text_projection"),
        rename=_from_openai,
    ),
    "open_clip": Layout(
        title="open_clip with a text tower apart",
        marks=("text.transformer.", "text.token_embedding.", "text.text_projection"),
        rename=_from_openai,
    ),
    "hf": Layout(title="Hugging Face CLIPModel", marks=("vision_model.", "text_model."), rename=_from_hugging_face),
    "ost": Layout(
        title="OST, a ViFi-CLIP with its table of tokens",
        marks=("text_encoder.token_embedding.",),
        without=("prompt_learner.",),  # a relative of ViFi-CLIP that saves the table is not of OST's authors
        rename=_from_vifi,
    ),
    "vifi": Layout(title="ViFi-CLIP", marks=_ENCODERS, rename=_from_vifi),
    "tc_clip": Layout(
        title="TC-CLIP",
        marks=("image_encoder.transformer.resblocks.0.attn.q_proj.", f"text_encoder.{PROMPT_GENERATION}"),
        rename=_from_tc_clip,
    ),
}
"""Layout by the name that --from takes."""

_SPECIAL = (("open_clip", "openai"), ("tc_clip", "ost"), ("tc_clip", "vifi"), ("ost", "vifi"))
"""Layouts that have names of another layout too, and go before it: open_clip's image tower has OpenAI's, for one."""

_ALSO_CALLED = (("openai", "open_clip"), ("open_clip", "openai"), ("ost", "vifi"))
"""(layout that is found, another that --from may have asked for)."""

_RELATIVES = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"^visual\.trunk\.", "holds an open_clip model with an image tower of timm, which is no CLIP ViT"),
        (r"^text\.transformer\.(embeddings|encoder)\.", "holds an open_clip model whose text tower is not CLIP's"),
        (r"^logit_bias$|^vision_model\.head\.", "holds a SigLIP model, which is no CLIP"),
    )
)
