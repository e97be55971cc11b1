"""Account for every entry of a foreign weight file, and write it in ours or that of another project."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from slowfast.models.clip.arch import AnyClipSizes, ClipSizes, read_sizes
from slowfast.models.clip.files import ACTIVATION_ENTRY, license_record
from slowfast.models.clip.layers import Activation
from slowfast.models.clip.layouts import (
    AUTO,
    BIAS_TABLE,
    CLIP_PREFIX,
    DEEP_PROMPT,
    PROMPT_CONTEXT,
    SIZE_ENTRIES,
    TEACHER_PREFIX,
    TOKEN_EMBEDDING,
    VISION_PROMPT,
    WITHOUT_TOKENS,
    Renamed,
    clip_names,
    encoder_names,
    without_wrappers,
)
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.tc_clip_entries import POSITIONS, is_tc_clip_entry, of_one_frame, tc_clip_shapes
from slowfast.models.clip.vifi_entries import is_vifi_entry, vifi_shapes
from slowfast.utils.io import atomic_save, atomic_writer

TargetLayout = Literal["ours", "openai", "ost", "vifi", "tc_clip"]

SUFFIXES = (".pth", ".pyth", ".pt", ".safetensors")

_ENCODER_LAYOUTS = ("ost", "vifi", "tc_clip")
_TRAINING_ONLY = ("projector_v.", "projector_t.")
_HEADS = ("head", "prompt_embed")
_ADAPTER = re.compile(
    r"visual\.transformer\.resblocks\.\d+\."
    r"(stadapt_|message_|experts_head\.|experts_tail\.|routing[12]\.)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What a conversion may pass over.

    Attributes:
        to: the layout to write.
        layout: the file's, a key of LAYOUTS, or AUTO.
        strip_prefix: prefix before the names of all entries of interest.
        allow_missing: beginnings of OpenAI's names that the file may lack.
        leave: beginnings of OpenAI's names, or names of groups as a report has them, that are left behind.
        keep_teacher: whether a frozen teacher is converted too.
    """

    to: TargetLayout = "ours"
    layout: str = AUTO
    strip_prefix: str = ""
    allow_missing: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    keep_teacher: bool = False


@dataclass(kw_only=True, slots=True)
class Conversion:
    """A state dict with every entry accounted for.

    Attributes:
        sizes: sizes of the model.
        clip: CLIP's own weights under OpenAI's names, in the order of the model.
        adapters: weights of a temporal module, of experts or of learned prompts in the towers, under the names of our
            checkpoints.
        beside: parts of a method outside CLIP, likewise.
        renamed: number of entries that the file has under other names, prefixes of wrappers aside.
        left: group of names -> number of entries left behind.
        missing: names that CLIP has and the file lacks.
        allowed: those of them that may be absent.
        unexpected: names of the file that have no place.
        wrong: what entries of another shape or kind are and should be.
    """

    sizes: AnyClipSizes
    clip: dict[str, Tensor]
    adapters: dict[str, Tensor] = field(default_factory=dict)
    beside: dict[str, Tensor] = field(default_factory=dict)
    renamed: int = 0
    left: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """What makes the conversion fail, by kind."""
        faults = {"missing": self.missing, "unexpected": self.unexpected, "wrong shape": self.wrong}
        return {kind: names for kind, names in faults.items() if names}


def convert(
    state: Mapping[str, Tensor], rules: Rules, *, source: str, token_embedding: Tensor | None = None
) -> Conversion:
    """Rename a state dict and compare it with the model that its sizes describe.

    Args:
        state: names as in the file.
        rules: what may be passed over.
        source: what to call the state dict in an error.
        token_embedding: what stands in for a table of tokens that the file lacks, (vocabulary, D).

    Raises:
        ValueError: if there is no CLIP inside, or one that our CLIP cannot be.
    """
    renamed = clip_names(state, source=source, layout=rules.layout, strip_prefix=rules.strip_prefix)
    found = renamed.clip
    if token_embedding is not None:
        found = {**found, TOKEN_EMBEDDING: token_embedding}
    is_tc_clip = rules.to == "tc_clip" or _is_tc_clip(renamed)
    sizes: AnyClipSizes
    if is_tc_clip:
        sizes = ClipSizes.from_state_dict(of_one_frame(found), source=source, taker="TC-CLIP")
    else:
        sizes = read_sizes(found, source=source)
    more, extras = _beyond_clip(sizes, {**found, **renamed.beside}, is_tc_clip=is_tc_clip, to=rules.to)
    with torch.device("meta"):
        expected = CLIP(sizes).state_dict()
        if is_tc_clip and rules.to in ("ours", "tc_clip") and found[POSITIONS].ndim == 3:
            expected[POSITIONS] = torch.empty(len(found[POSITIONS]), *expected[POSITIONS].shape)
    result = Conversion(sizes=sizes, clip={name: found[name] for name in expected if name in found})
    kept = {*found, *renamed.beside, *renamed.left}
    result.renamed = sum(
        name.startswith(rules.strip_prefix) and name not in kept for name in map(without_wrappers, state)
    )
    result.left.update(_group(name) for name in renamed.left)
    result.left.update(_group(name) for name in map(without_wrappers, state) if not name.startswith(rules.strip_prefix))
    for name in (*expected, *extras):
        if name not in found and name not in more:
            (result.allowed if name.startswith(rules.allow_missing) else result.missing).append(name)
    for name, tensor in found.items():
        if name not in expected:
            is_known = (name in more and name in extras) or (rules.to == "ours" and _ADAPTER.match(name))
            _place(result, name, tensor, result.adapters if is_known else None, rules)
    for name, tensor in renamed.beside.items():
        is_known = name in extras or (rules.to == "ours" and (name.startswith(_TRAINING_ONLY) or name in _HEADS))
        _place(result, name, tensor, result.beside if is_known else None, rules)
    wanted = expected | extras
    written = (result.clip | result.adapters | result.beside).items()
    result.wrong = [text for name, tensor in written if name in wanted and (text := _fault(name, tensor, wanted[name]))]
    if rules.to in WITHOUT_TOKENS and (table := result.clip.pop(TOKEN_EMBEDDING, None)) is not None:
        if renamed.layout == "ost":
            _place(result, TOKEN_EMBEDDING, table, None, rules)  # tuned there, so that without it the model is another
        else:
            result.left[_group(TOKEN_EMBEDDING)] += 1
    return result


def _is_tc_clip(renamed: Renamed) -> bool:
    """Whether weights are a TC-CLIP's, as opposed to those of a CLIP or of a ViFi-CLIP."""
    if renamed.layout == "tc_clip":
        return True
    if PROMPT_CONTEXT in renamed.beside and of_one_frame(renamed.clip) is not renamed.clip:
        return True  # positions of every frame
    return any(is_tc_clip_entry(name) and name != PROMPT_CONTEXT for name in (*renamed.clip, *renamed.beside))


def _beyond_clip(
    sizes: AnyClipSizes, found: Mapping[str, Tensor], *, is_tc_clip: bool, to: TargetLayout
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What there is of a method's own entries, and what there should be, as tensors without memory.

    Args:
        sizes: of the CLIP.
        found: all entries of the model.
        is_tc_clip: whether it is a TC-CLIP.
        to: the layout to write, which may have no place for them.
    """
    shapes: Mapping[str, tuple[int, ...]]
    if not isinstance(sizes, ClipSizes):
        return {}, {}  # no method puts anything into a ResNet
    if is_tc_clip and to in ("ours", "tc_clip"):
        more = {name: tensor for name, tensor in found.items() if is_tc_clip_entry(name)}
        shapes = tc_clip_shapes(sizes, more)
    elif to in ("ours", "vifi"):
        more = {name: tensor for name, tensor in found.items() if is_vifi_entry(name)}
        shapes = vifi_shapes(sizes, more)
    else:
        return {}, {}
    return more, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _place(result: Conversion, name: str, tensor: Tensor, place: dict[str, Tensor] | None, rules: Rules) -> None:
    """Keep an entry where it belongs, or leave it behind, or note that it is unexpected."""
    if name.startswith(rules.leave) or _group(name) in rules.leave:
        result.left[_group(name)] += 1
    elif name.startswith(TEACHER_PREFIX):
        if rules.keep_teacher and rules.to == "ours":
            result.beside[name] = tensor
        else:
            result.left[_group(name)] += 1
    elif place is not None:
        place[name] = tensor
    elif name.startswith(_TRAINING_ONLY):
        result.left[_group(name)] += 1  # the features of the trained model do not depend on them
    else:
        result.unexpected.append(name)


def _group(name: str) -> str:
    """What to call entries like this one."""
    last = name.rsplit(".", 1)[-1]
    if last in ("attn_mask", "position_ids"):
        return f"*.{last}"
    if match := _ADAPTER.match(name):
        return f"*.{match[1].rstrip('.')}*"
    if name == VISION_PROMPT or name.endswith((BIAS_TABLE, DEEP_PROMPT)):
        return f"*.{last}"
    first, dot, _ = name.partition(".")
    return f"{first}.*" if dot else first


def _fault(name: str, found: Tensor, expected: Tensor) -> str:
    if found.shape != expected.shape:
        return f"{name} is {tuple(found.shape)} instead of {tuple(expected.shape)}"
    if found.is_floating_point() != expected.is_floating_point():  # a ResNet's batch norms count in integers
        kind = "a floating-point" if expected.is_floating_point() else "an integer"
        return f"{name} is {found.dtype} instead of {kind} type"
    return ""


def groups(names: Iterable[str]) -> Counter[str]:
    """Count names by what they belong to, for a report."""
    return Counter(_group(name) for name in names)


def target_state(conversion: Conversion, to: TargetLayout) -> dict[str, Tensor]:
    """Name the converted weights as the target layout does; every tensor has memory of its own."""
    clip = conversion.clip | conversion.adapters
    if to in _ENCODER_LAYOUTS:
        state = encoder_names(clip | conversion.beside, projections_apart=to == "tc_clip")
    else:
        prefix = CLIP_PREFIX if to == "ours" else ""
        state = {prefix + name: tensor for name, tensor in clip.items()} | conversion.beside
    taken: set[int] = set()
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in taken or storage.nbytes() != tensor.nbytes or not tensor.is_contiguous():
            state[name] = tensor.clone(memory_format=torch.contiguous_format)
        taken.add(state[name].untyped_storage().data_ptr())
    return state


def write_weights(
    conversion: Conversion, target: Path, *, to: TargetLayout, activation: Activation, license_: str = ""
) -> int:
    """Write converted weights, whole or not at all; missing folders are made.

    A safetensors file has the activation, and the licence if there is one, in its metadata. Otherwise ours is
    ``{"model_state": ..., "clip_activation": ..., "license": ...}``; those of OST, ViFi-CLIP and TC-CLIP have
    ``"model"`` for the first of them. OpenAI's layout is a plain state dict with the sizes that OpenAI's own has, which
    stand for QuickGELU; with GELU, or a licence, it is ``{"state_dict": ..., "clip_activation": ..., "license": ...}``,
    which OpenAI's package refuses: it is made for QuickGELU.

    Args:
        conversion: without faults.
        target: the file; its suffix chooses the kind.
        to: the layout to write.
        activation: what the weights were trained with.
        license_: under which they may be used, "" where none binds.

    Returns:
        How many tensors of the model the file has.
    """
    assert not conversion.faults
    state = target_state(conversion, to)
    record = {ACTIVATION_ENTRY: activation, **license_record(license_)}
    if target.suffix == ".safetensors":
        from safetensors.torch import save  # needed for this kind of file only

        data = save(state, metadata={"format": "pt", "layout": to, **record})
        header = _sorted_header(data)
        with atomic_writer(target) as file:
            file.write(header)
            file.write(memoryview(data)[len(header) :])
        return len(state)
    content: dict[str, Any]
    if to == "ours":
        content = {"model_state": state, **record}
    elif to in _ENCODER_LAYOUTS:
        content = {"model": state, **record}
    elif activation == "quick_gelu" and not license_:
        sizes = conversion.sizes
        values = (sizes.image_size, sizes.context_length, sizes.vocab_size)
        content = {**state, **{name: torch.tensor(value) for name, value in zip(SIZE_ENTRIES, values, strict=True)}}
    else:
        content = {"state_dict": state, **record}
    atomic_save(content, target)
    return len(state)


def _sorted_header(data: bytes) -> bytes:
    """Header of a safetensors file, its metadata in alphabetical order: the library's differs from call to call."""
    end = 8 + int.from_bytes(data[:8], "little")  # the file begins with the length of the JSON text that follows
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= end - 8
    return data[:8] + text.ljust(end - 8)


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that cannot be written, before hours are spent on reading.

    Raises:
        ValueError: if the suffix is unknown, or the file exists and may not be replaced.
    """
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: unknown suffix {target.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    if target.is_dir():
        raise ValueError(f"{target}: is a folder, expected a file name")
    if target.exists() and not force:
        raise ValueError(f"{target}: exists already; --force replaces it")


def first_names(names: Sequence[str], count: int) -> str:
    """The first few of a list of names, in one line."""
    return ", ".join(names[:count]) + (f", and {len(names) - count} more" if len(names) > count else "")
