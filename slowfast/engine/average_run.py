"""Average the checkpoints of a run and write the files that tests read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.engine.average import (
    DEFAULT_PATTERN,
    AverageConfig,
    Averaged,
    EpochWeights,
    average,
    clip_member,
    find_members,
    missing_epochs,
)
from slowfast.models.clip.files import ACTIVATION_ENTRY, joined_licenses, license_record
from slowfast.models.clip.layers import Activation
from slowfast.models.clip.weights import clip_activation, read_clip, weights_license
from slowfast.utils.io import atomic_save


@dataclass(frozen=True, kw_only=True)
class AverageReport:
    """What was averaged.

    Attributes:
        members: the checkpoints, in order of epoch.
        missing: epochs of the window without a checkpoint; the weights of the others are scaled to sum 1.
        results: method -> weights of the epochs, and the averaged state.
        paths: method -> the file.
    """

    members: Sequence[EpochWeights]
    missing: Sequence[int]
    results: Mapping[str, Averaged]
    paths: Mapping[str, Path]


def averaged_file(folder: str | Path, method: str, *, start: int, end: int) -> Path:
    """Name of an averaged file, as the official tool has it."""
    return Path(folder) / f"{method}_{start}_{end}.pth"


def average_run(
    source_dir: str | Path,
    output_dir: str | Path,
    *,
    methods: Sequence[str],
    config: AverageConfig,
    clip: str = "",
    allow_torchscript: bool = False,
    pattern: str = DEFAULT_PATTERN,
) -> AverageReport:
    """Average the checkpoints of a folder with one or more methods, and write {method}_{start}_{end}.pth of each.

    Args:
        source_dir: folder of the checkpoints.
        output_dir: folder of the averaged files.
        methods: names of `average.METHODS`.
        config: window and shape.
        clip: raw CLIP to use as epoch 0, a file or a name such as vitb16; empty: none.
        allow_torchscript: whether `clip` may be a TorchScript archive that is none of the published CLIPs.
        pattern: glob of the checkpoints' names.

    Raises:
        ValueError: if there is no checkpoint in the window, or they do not belong to one model.
    """
    members = find_members(source_dir, config, pattern=pattern)
    files = [Path(source_dir) / member.name for member in members]
    found = {str(path): clip_activation(path) for path in files}
    licenses = [weights_license(path) for path in files]
    if clip:
        raw = read_clip(clip, allow_torchscript=allow_torchscript)
        found = {clip: raw.activation, **found}
        licenses.append(weights_license(clip))
        members = [clip_member(lambda: raw.state, name=clip), *members]
    record = _activation_record(found) | license_record(joined_licenses(licenses))
    results = average(members, methods, config)
    paths = {}
    for method in methods:
        paths[method] = averaged_file(output_dir, method, start=config.start, end=config.end)
        atomic_save({"model_state": results[method].state, **record}, paths[method])
    return AverageReport(members=members, missing=missing_epochs(members, config), results=results, paths=paths)


def _activation_record(activations: Mapping[str, Activation | None]) -> dict[str, str]:
    """What the averaged files say about the activation of their CLIP, if the checkpoints say anything.

    Args:
        activations: file -> activation.

    Raises:
        ValueError: if they have different ones.
    """
    found = {file: activation for file, activation in activations.items() if activation is not None}
    if len(set(found.values())) > 1:
        texts = ", ".join(f"{file} has {activation}" for file, activation in found.items())
        raise ValueError(f"weights of models with different activations cannot be averaged: {texts}")
    return {ACTIVATION_ENTRY: next(iter(found.values()))} if found else {}
