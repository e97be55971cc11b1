"""What a test run leaves behind: `results.json`, and the pickle that PySlowFast's users read."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from slowfast.config.redaction import redact
from slowfast.utils.io import atomic_write_text, atomic_writer, parse_json
from slowfast.utils.provenance import git_revision, package_versions

FORMAT = "slowfast-stdd/results/2"
RESULTS_FILE = "results.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitResult:
    """Figures of one split.

    Attributes:
        top1_acc: percent, likewise the next two.
        num_videos: videos that the split lists.
        num_scored: videos that were decoded and scored.
        num_classes: classes that they were scored over.
        num_official: videos of the published list; None where nothing was published.
        csv: its annotation file.
    """

    top1_acc: float
    top5_acc: float
    mean_class_acc: float
    num_videos: int
    num_scored: int
    num_classes: int
    csv: str
    num_official: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """Numbers of one evaluation and all that is needed to get them again.

    Attributes:
        metrics: name -> value; accuracies in percent.
        splits: figures of each split, by name.
        num_videos: videos that the splits list together, each counted once.
        num_scored: videos that were decoded and scored.
        missing: one line per video that was not scored.
        protocol: name of the protocol.
        dataset: SPLITS.DATASET, "" for loose annotation files.
        seed: RNG_SEED.
        config_sha256: hash of the resolved configuration.
        numbers_sha256: the same without the keys that say where and how fast it ran.
        inputs_sha256: hash of the annotation files, class names and text features that it read.
        weights: file of the weights, "" for weights that came from no file.
        weights_sha256: its hash, "" likewise.
        model_sha256: hash of the tensors that were scored, whatever file, mixture or seed they came from.
        patching_ratio: share of raw CLIP in them, of TEST.PATCHING_RATIOS; None, and not written, without that key.
        versions: package -> version.
        git_revision: commit of the code, None outside a checkout.
    """

    metrics: dict[str, float]
    num_videos: int
    num_scored: int
    protocol: str
    splits: dict[str, SplitResult]
    seed: int
    config_sha256: str
    numbers_sha256: str
    inputs_sha256: str
    model_sha256: str
    dataset: str = ""
    weights: str = ""
    weights_sha256: str = ""
    missing: tuple[str, ...] = ()
    patching_ratio: float | None = None
    versions: dict[str, str] = field(default_factory=package_versions)
    git_revision: str | None = field(default_factory=git_revision)

    @property
    def coverage(self) -> float:
        """Share of the split's videos that was scored, in [0, 1]."""
        return self.num_scored / self.num_videos if self.num_videos else 0.0

    def unlike_official(self) -> dict[str, tuple[int, int]]:
        """Rows of the lists, and of the published lists, of the splits where these numbers differ."""
        return {
            name: (split.num_videos, split.num_official)
            for name, split in self.splits.items()
            if split.num_official is not None and split.num_official != split.num_videos
        }


def mixture_suffix(ratio: float, ratios: Sequence[float]) -> str:
    """What TEST.PATCHING_RATIOS adds to the names of a test's files.

    Args:
        ratio: share of raw CLIP that was tested.
        ratios: all that are tested. The first gives the figures of the run, in files of the usual names.
    """
    return "" if ratio == ratios[0] else f"_clip{ratio:g}"


def to_dict(result: RunResult) -> dict[str, Any]:
    """The content of `results.json`."""
    content = asdict(result)
    # Paths and messages come from outside, and a results.json is passed on.
    content["weights"] = redact(result.weights)
    content["missing"] = [redact(line) for line in result.missing]
    for split in content["splits"].values():
        split["csv"] = redact(split["csv"])
    if result.patching_ratio is None:
        del content["patching_ratio"]
    return {"format": FORMAT, "coverage": result.coverage, **content}


def write_results(result: RunResult, path: str | Path) -> Path:
    """Check a result and write it; readers never see half a file.

    Args:
        result: what to write.
        path: a file, or a folder that gets `results.json`.

    Returns: the file.
    """
    target = Path(path)
    if target.is_dir() or not target.suffix:
        target = target / RESULTS_FILE
    content = to_dict(result)
    validate_results(content, source=str(target))
    atomic_write_text(target, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
    return target


def read_results(path: str | Path) -> RunResult:
    """Read and check a `results.json`.

    Raises:
        ValueError: if the file is missing, is not JSON, or breaks the schema.
    """
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"{source}: results not found")
    try:
        content = parse_json(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{source}: not JSON ({error})") from error
    validate_results(content, source=str(source))
    known = {f.name for f in fields(RunResult)}
    values = {key: value for key, value in content.items() if key in known}
    splits = {name: SplitResult(**entry) for name, entry in values["splits"].items()}
    return RunResult(**{**values, "splits": splits, "missing": tuple(values["missing"])})


def validate_results(content: object, *, source: str) -> None:
    """Check a dict against the schema of `results.json`.

    Args:
        content: what the file holds.
        source: the file, for errors.

    Raises:
        ValueError: naming the first entry that is wrong.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{source}: holds {type(content).__name__}, expected an object")
    for key, (check, expected) in _SCHEMA.items():
        if key not in content:
            if key in _OPTIONAL:
                continue
            raise ValueError(f"{source}: {key} is absent; expected {expected}")
        if not check(content[key]):
            raise ValueError(f"{source}: {key} is {content[key]!r}; expected {expected}")
    if unknown := sorted(set(content) - set(_SCHEMA)):
        raise ValueError(f"{source}: unknown entries {unknown}; allowed: {sorted(_SCHEMA)}")
    if content["num_scored"] > content["num_videos"]:
        raise ValueError(f"{source}: num_scored {content['num_scored']} is above num_videos {content['num_videos']}")


def save_predictions(video_preds: Tensor, video_labels: Tensor, path: str | Path) -> None:
    """Write the file of TEST.SAVE_RESULTS_PATH.

    It is a pickle because that is its published format and scripts exist that read it. We only ever write it: nothing
    in this package unpickles.

    Args:
        video_preds: summed scores, (V, K).
        video_labels: labels, (V,).
        path: the file.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    if video_preds.ndim != 2 or video_labels.shape != video_preds.shape[:1]:
        raise ValueError(
            f"{path}: scores {tuple(video_preds.shape)} and labels {tuple(video_labels.shape)} do not match"
        )
    with atomic_writer(path) as file:
        pickle.dump([video_preds.detach().cpu().float(), video_labels.detach().cpu().long()], file)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_table(value: object, kind: type | None = None) -> bool:
    if not isinstance(value, Mapping):
        return False
    good = _is_number if kind is None else lambda entry: isinstance(entry, kind)
    return all(isinstance(name, str) and good(entry) for name, entry in value.items())


def _is_splits(value: object) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    for entry in value.values():
        if not isinstance(entry, Mapping) or set(entry) != {f.name for f in fields(SplitResult)}:
            return False
        good = all(_is_number(entry[name]) for name in ("top1_acc", "top5_acc", "mean_class_acc"))
        good &= all(_is_count(entry[name]) for name in ("num_videos", "num_scored", "num_classes"))
        good &= entry["num_official"] is None or _is_count(entry["num_official"])
        if not good or not isinstance(entry["csv"], str):
            return False
    return True


_SCHEMA = {
    "format": (lambda v: v == FORMAT, repr(FORMAT)),
    "metrics": (lambda v: _is_table(v) and bool(v), "an object of finite numbers, not empty"),
    "coverage": (lambda v: _is_number(v) and 0 <= v <= 1, "a number in [0, 1]"),
    "num_videos": (_is_count, "an integer >= 0"),
    "num_scored": (_is_count, "an integer >= 0"),
    "missing": (lambda v: isinstance(v, list) and all(isinstance(line, str) for line in v), "a list of strings"),
    "protocol": (lambda v: isinstance(v, str) and bool(v), "a name"),
    "splits": (lambda v: _is_splits(v), "an object of split figures, not empty"),
    "dataset": (lambda v: isinstance(v, str), "a name or an empty string"),
    "seed": (lambda v: isinstance(v, int) and not isinstance(v, bool), "an integer"),
    "config_sha256": (_is_hash, "64 hexadecimal digits"),
    "numbers_sha256": (_is_hash, "64 hexadecimal digits"),
    "inputs_sha256": (_is_hash, "64 hexadecimal digits"),
    "model_sha256": (_is_hash, "64 hexadecimal digits"),
    "weights": (lambda v: isinstance(v, str), "a file name or an empty string"),
    "weights_sha256": (lambda v: v == "" or _is_hash(v), "64 hexadecimal digits or an empty string"),
    "patching_ratio": (lambda v: _is_number(v) and 0 <= v <= 1, "a number in [0, 1]"),
    "versions": (lambda v: _is_table(v, str), "an object of strings"),
    "git_revision": (lambda v: v is None or isinstance(v, str), "a string or null"),
}
_OPTIONAL = ("patching_ratio",)
