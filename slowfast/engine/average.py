"""Weight averaging over epochs (swa, gwa, bwa, ewa), and mixing with raw CLIP.

All averages are weighted means, so one pass over the files serves any number of them: a checkpoint is read, added to
one fp32 sum per method, and dropped before the next is read.

The weight of a checkpoint belongs to its epoch, not to its place in the list, and the weights of the files that exist
are scaled to sum 1. With every epoch of the window present this is the published formula; a missing epoch no longer
shifts the others. Raw CLIP may stand for epoch 0. It has no value for weights beyond CLIP (adapters, projector): those
are averaged over the other checkpoints as though epoch 0 were not in the window.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from slowfast.engine.checkpoint import read_checkpoint
from slowfast.models.clip.layouts import CLIP_PREFIX, TEACHER_PREFIX
from slowfast.models.clip.tc_clip_entries import POSITIONS, of_all_frames

METHODS = ("swa", "gwa", "bwa", "ewa")
DEFAULT_PATTERN = "*_epoch_*.pyth"
_EPOCH = re.compile(r"_(\d+)\.[^_]*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class AverageConfig:
    """Window and shape of the weights.

    Attributes:
        start: first epoch, 1-based; 0 is raw CLIP.
        end: last epoch, included.
        gwa_mean: centre of gwa's bell, epochs.
        gwa_std: width of gwa's bell, epochs.
        ewa_decay: what ewa keeps of the old average at each epoch, in (0, 1).
    """

    start: int
    end: int
    gwa_mean: float = 15.0
    gwa_std: float = 10.0
    ewa_decay: float = 0.9

    def __post_init__(self) -> None:
        """Refuse an empty window and weights that do not exist."""
        if not 0 <= self.start <= self.end:
            raise ValueError(f"epoch window: {self.start}..{self.end}; need 0 <= start <= end")
        if self.gwa_std <= 0:
            raise ValueError(f"gwa std: {self.gwa_std} must be positive")
        if not 0.0 < self.ewa_decay < 1.0:
            raise ValueError(f"ewa decay: {self.ewa_decay} is outside (0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochWeights:
    """One member of the average, read only when its turn comes.

    Attributes:
        epoch: 1-based epoch; 0 for raw CLIP.
        name: file name, for errors.
        load: reads the state dict, in the names of a checkpoint.
        clip_only: whether weights beyond CLIP may be absent.
    """

    epoch: int
    name: str
    load: Callable[[], Mapping[str, Tensor]]
    clip_only: bool = False


@dataclass(frozen=True, slots=True)
class Averaged:
    """Result of one method.

    Attributes:
        state: averaged weights, floating-point ones in fp32.
        weights: epoch -> weight of CLIP's parameters, sum 1.
    """

    state: dict[str, Tensor]
    weights: dict[int, float]


def epoch_weights(method: str, epochs: Sequence[int], config: AverageConfig) -> dict[int, float]:
    """Weight of every epoch that is present.

    Args:
        method: one of `METHODS`.
        epochs: present epochs, increasing, inside the window.
        config: window and shape.

    Returns: epoch -> weight, sum 1.

    Source: STDD's averaging tool. swa: equal; gwa: normal density at the epoch; bwa: density of Beta(1/2, 1/2) at
        (epoch - start + 1/2) / (length of the window); ewa: W = decay * W + (1 - decay) * next, written out.
    """
    if method == "swa":
        raw = [1.0] * len(epochs)
    elif method == "gwa":
        raw = [math.exp(-0.5 * ((epoch - config.gwa_mean) / config.gwa_std) ** 2) for epoch in epochs]
    elif method == "bwa":
        length = config.end - config.start + 1
        positions = [(epoch - config.start + 0.5) / length for epoch in epochs]
        raw = [1.0 / math.sqrt(x * (1.0 - x)) for x in positions]
    elif method == "ewa":
        fresh = 1.0 - config.ewa_decay
        raw = [(1.0 if i == 0 else fresh) * config.ewa_decay ** (len(epochs) - 1 - i) for i in range(len(epochs))]
    else:
        raise ValueError(f"averaging method: unknown value {method!r}; allowed: {list(METHODS)}")
    total = math.fsum(raw)
    if total == 0.0:
        raise ValueError(f"{method}: every weight is 0; epochs {epochs[0]}..{epochs[-1]} lie too far from the centre")
    return {epoch: value / total for epoch, value in zip(epochs, raw, strict=True)}


def find_members(folder: str | Path, config: AverageConfig, *, pattern: str = DEFAULT_PATTERN) -> list[EpochWeights]:
    """Find the checkpoints of the window.

    Args:
        folder: where the files lie.
        config: the window.
        pattern: glob of the file names; the epoch is the number between the last underscore and the suffix.

    Returns: members in order of epoch; nothing is read yet.

    Raises:
        ValueError: if two files are of one epoch, or none is in the window.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of checkpoints")
    files: dict[int, Path] = {}
    for path in sorted(folder.glob(pattern)):
        match = _EPOCH.search(path.name)
        if match is None or not path.is_file() or not config.start <= int(match.group(1)) <= config.end:
            continue
        epoch = int(match.group(1))
        if epoch in files:
            raise ValueError(f"{folder}: {files[epoch].name} and {path.name} are of one epoch; narrow the pattern")
        files[epoch] = path
    if not files:
        raise ValueError(f"{folder}: no file {pattern!r} of epochs {config.start}..{config.end}")
    return [_file_member(epoch, files[epoch]) for epoch in sorted(files)]


def clip_member(load: Callable[[], Mapping[str, Tensor]], *, name: str) -> EpochWeights:
    """Raw CLIP as epoch 0.

    Args:
        load: reads CLIP under OpenAI's names.
        name: its file, for errors.
    """

    def prefixed() -> dict[str, Tensor]:
        return {CLIP_PREFIX + key: value for key, value in load().items()}

    return EpochWeights(epoch=0, name=name, load=prefixed, clip_only=True)


def missing_epochs(members: Sequence[EpochWeights], config: AverageConfig) -> list[int]:
    """Epochs of the window without a file."""
    present = {member.epoch for member in members}
    return [epoch for epoch in range(config.start, config.end + 1) if epoch not in present]


def average(members: Sequence[EpochWeights], methods: Sequence[str], config: AverageConfig) -> dict[str, Averaged]:
    """Average checkpoints with one or more methods, reading each file once.

    Integer tensors are copied from the last checkpoint. The frozen teacher is left out.

    Args:
        members: in order of epoch, at least one of them a full checkpoint.
        methods: names of `METHODS`.
        config: window and shape.

    Returns: method -> result.

    Raises:
        ValueError: if names or shapes differ between the members.
    """
    full = [member for member in members if not member.clip_only]
    if not full:
        raise ValueError("averaging needs at least one checkpoint besides raw CLIP")
    for_all = {method: epoch_weights(method, [m.epoch for m in members], config) for method in methods}
    for_full = {method: epoch_weights(method, [m.epoch for m in full], config) for method in methods}
    sums: dict[str, dict[str, Tensor]] = {method: {} for method in methods}
    clip_shapes: dict[str, tuple[int, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    # Raw CLIP first: it says which weights have a value at epoch 0.
    for member in sorted(members, key=lambda member: not member.clip_only):
        state = {name: value for name, value in member.load().items() if not name.startswith(TEACHER_PREFIX)}
        found = {name: tuple(value.shape) for name, value in state.items()}
        if member.clip_only:
            clip_shapes = found
        elif not shapes:
            shapes = found
            _spread_positions(sums.values(), clip_shapes, found)
            _check(member.name, found, {**found, **clip_shapes})
        else:
            _check(member.name, found, shapes)
        for method in methods:
            for name, value in state.items():
                table = for_all if not clip_shapes or name in clip_shapes else for_full
                _add(sums[method], name, value, weight=table[method][member.epoch])
        del state
    return {method: Averaged({name: sums[method][name] for name in shapes}, for_all[method]) for method in methods}


def patch_state(
    clip_state: Mapping[str, Tensor],
    model_state: Mapping[str, Tensor],
    *,
    ratio: float,
) -> dict[str, Tensor]:
    """Mix raw CLIP into tuned weights: ratio * CLIP + (1 - ratio) * tuned, in fp32.

    Args:
        clip_state: CLIP under OpenAI's names, in the file's dtypes.
        model_state: tuned weights, CLIP's under "model."; other names are copied.
        ratio: share of raw CLIP, in [0, 1].

    Returns: a new state dict with the names of `model_state`.

    Raises:
        ValueError: if the tuned weights lack one of CLIP's, or the shapes differ.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"TEST.PATCHING_RATIO: {ratio} is outside [0, 1]")
    missing = [name for name in clip_state if CLIP_PREFIX + name not in model_state]
    if missing:
        raise ValueError(f"patching: the checkpoint lacks {len(missing)} of CLIP's weights ({', '.join(missing[:3])})")
    patched = dict(model_state)
    for name, clip in clip_state.items():
        tuned = model_state[CLIP_PREFIX + name]
        clip = of_all_frames(name, clip, tuple(tuned.shape))
        if tuned.shape != clip.shape:
            raise ValueError(f"patching: {name} is {tuple(tuned.shape)}, in CLIP {tuple(clip.shape)}")
        if tuned.is_floating_point():
            patched[CLIP_PREFIX + name] = clip.float() * ratio + tuned.float() * (1.0 - ratio)
    return patched


def _spread_positions(
    totals: Iterable[dict[str, Tensor]],
    clip_shapes: dict[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
) -> None:
    """Give sums that hold raw CLIP alone its positions once per frame, if the checkpoints have them so."""
    name = CLIP_PREFIX + POSITIONS
    if name not in clip_shapes or name not in found:
        return
    for total in totals:
        total[name] = of_all_frames(POSITIONS, total[name], found[name]).clone()
        clip_shapes[name] = tuple(total[name].shape)


def _add(total: dict[str, Tensor], name: str, value: Tensor, *, weight: float) -> None:
    if not value.is_floating_point():
        total[name] = value.clone()
    elif name in total:
        total[name].add_(value.float(), alpha=weight)
    else:
        total[name] = value.float() * weight


def _check(name: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    faults = {
        "lacks": [key for key in expected if key not in found],
        "has besides the others'": [key for key in found if key not in expected],
        "has in another shape": [key for key in found if key in expected and found[key] != expected[key]],
    }
    texts = [f"{verb} {len(keys)} weights ({', '.join(keys[:3])})" for verb, keys in faults.items() if keys]
    if texts:
        raise ValueError(f"{name}: cannot be averaged with the other files: {'; '.join(texts)}")


def _file_member(epoch: int, path: Path) -> EpochWeights:
    return EpochWeights(epoch=epoch, name=path.name, load=lambda: read_checkpoint(path).model_state)
