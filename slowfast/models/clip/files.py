"""Containers of weights: TorchScript archives, safetensors, and what torch.save writes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.config_files import checked_activation, hugging_face_config, open_clip_config
from slowfast.models.clip.layers import Activation
from slowfast.models.clip.layouts import SIZE_ENTRIES, find_layout, without_wrappers
from slowfast.models.clip.pickles import read_untrusted
from slowfast.models.clip.torchscript import is_torchscript, read_torchscript_tensors, torchscript_activation
from slowfast.utils.io import describe_odd_tensor, expanded, load_tensors, refuse_zip_bomb, sha256_file

ACTIVATION_ENTRY = "clip_activation"
"""Where our files name the activation: beside ``model_state``, or in the metadata of a safetensors file."""

LICENSE_ENTRY = "license"
"""Where our files name, likewise, the licence of the weights that they were made from."""
PUBLISHED_UNDER = {"tc_clip": ("TC-CLIP", "CC-BY-NC-4.0"), "ost": ("OST", "CC-BY-NC-SA-4.0")}
"""Layout -> whose it is, and the licence of the weights that its authors published; both are non-commercial."""
_LONGEST_LICENSE = 200

TORCHSCRIPT = "TorchScript archive"
"""What `WeightFile.container` says of one."""
_PARAMETER = re.compile(r"(weight|bias|proj|embedding|logit_scale)$")
"""Names that are weights of a CLIP in every layout, as opposed to counters and position numbers."""

STATE_ENTRIES = ("model_state", "state_dict", "model")
"""Entries that may hold a file's state dict: PySlowFast's, open_clip's, ViFi-CLIP's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: the file.
        container: what kind of file it is, for a report.
        state: tensors by name, as in the file; not a mapping of tensors where the file is something else.
        entry: name of the file's entry that is the state dict, "" where the file is nothing else.
        entries: what lies beside the state dict, by name.
        recorded: the activation that the file itself names, or that its kind implies.
        recorded_license: the licence that the file itself names, "" for none.
    """

    path: Path
    container: str
    state: Any
    entry: str = ""
    entries: Mapping[str, Any] = field(default_factory=dict)
    recorded: Activation | None = None
    recorded_license: str = ""

    @property
    def is_state_dict(self) -> bool:
        """Whether `state` is tensors by name; sizes, which OpenAI's archives have among the weights, may be numbers."""
        return isinstance(self.state, Mapping) and all(
            isinstance(value, Tensor) or name in SIZE_ENTRIES for name, value in self.state.items()
        )

    def tensors(self) -> dict[str, Tensor]:
        """The state dict without the sizes of OpenAI's archives.

        Raises:
            ValueError: if the file holds something else, or weights that are no finite numbers.
        """
        if not self.is_state_dict:
            raise ValueError(f"{self.path}: holds {type(self.state).__name__}, not a state dict of tensors")
        tensors = {
            str(name): value for name, value in self.state.items() if without_wrappers(str(name)) not in SIZE_ENTRIES
        }
        for name, value in tensors.items():
            fault = _fault(name, value)
            if fault:
                raise ValueError(f"{self.path}: {name!r:.200} {fault}")
        return tensors

    def activation(self) -> Activation | None:
        """Which activation the weights were trained with; None where neither the file nor a configuration says.

        Raises:
            ValueError: if they disagree, or the configuration describes a model that our CLIP is not.
        """
        if not isinstance(self.state, Mapping):
            return self.recorded
        names = [without_wrappers(str(name)) for name in self.state]
        layout = find_layout(names, source=str(self.path))
        config = None
        if layout == "hf":
            config = hugging_face_config(self.path)
        elif layout in ("openai", "open_clip"):
            config = open_clip_config(self.path)
        elif layout is not None and self.recorded is None:
            return "quick_gelu"  # all of these start from OpenAI's archives; where ours do not, they say so
        if config is None:
            return self.recorded
        if self.recorded not in (None, config.activation):
            raise ValueError(
                f"{self.path}: records the activation {self.recorded}, but {config.path} says {config.activation}"
            )
        return config.activation

    def license(self, *, strip_prefix: str = "") -> str:
        """Licence of the weights, as far as it is known to bind whoever uses them; "" where nothing says so.

        Args:
            strip_prefix: what the names of interest have before those of their layout.

        Raises:
            ValueError: if the entries of two layouts are mixed.
        """
        if self.recorded_license or self.recorded is not None or not isinstance(self.state, Mapping):
            return self.recorded_license  # a file of ours, which says the activation, would say the licence too
        short = [name for name in (without_wrappers(str(name)) for name in self.state) if name.startswith(strip_prefix)]
        names = [without_wrappers(name.removeprefix(strip_prefix)) for name in short]
        layout = find_layout(names, source=str(self.path))
        return PUBLISHED_UNDER[layout][1] if layout in PUBLISHED_UNDER else ""


def joined_licenses(licenses: Iterable[str]) -> str:
    """Licence of what is made of several files, "" if none of them has one."""
    return " AND ".join(sorted({part for text in licenses if text for part in text.split(" AND ")}))


def license_record(license_: str) -> dict[str, str]:
    """The entry that passes a licence on, none for an empty one."""
    return {LICENSE_ENTRY: license_} if license_ else {}


TORCHSCRIPT_FLAG = "--allow-torchscript of tools/convert_weights.py"
"""What lets an unpublished TorchScript archive in where nothing else does."""


def _fault(name: str, value: Tensor) -> str:
    """What makes a tensor unfit for a model, "" if nothing does."""
    odd = describe_odd_tensor(value)
    if odd:
        return f"is {odd}; expected a plain tensor"
    if value.numel() * value.itemsize > value.untyped_storage().nbytes():
        return f"says it has {value.numel()} numbers, more than the file holds for it"
    if not value.is_floating_point():
        return f"is {value.dtype}; expected weights" if _PARAMETER.search(name) else ""
    if name.endswith("mask"):
        return ""  # of attention: minus infinity is what it is made of
    numbers = value if value.itemsize > 1 else value.float()
    return "" if bool(torch.isfinite(numbers).all()) else "holds nan or infinity: the model that wrote it had diverged"


def read_weight_file(
    path: str | Path,
    *,
    what: str = "CLIP weights",
    allow_pickle: bool = False,
    allow_torchscript: bool = False,
    torchscript_flag: str = TORCHSCRIPT_FLAG,
    memory_map: bool = False,
) -> WeightFile:
    """Read a file of weights on the CPU, without executing anything it holds.

    Args:
        path: the file.
        what: what the file should be, for an error.
        allow_pickle: whether a file with foreign objects is read too, for its tensors alone, in another process.
        allow_torchscript: whether a TorchScript archive is read that is none of the published CLIPs.
        torchscript_flag: how the user sets `allow_torchscript`, for the error.
        memory_map: leave the tensors in the file until they are used, where its kind allows that.

    Raises:
        ValueError: if the file is absent, damaged, or has foreign objects or TorchScript without being allowed to.
    """
    path = expanded(path)
    if not path.is_file():  # a pipe would be waited for, and a device may have no end
        raise ValueError(f"{path}: {what} not found" if not path.exists() else f"{path}: {what} is not a file")
    refuse_zip_bomb(path)
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        return WeightFile(
            path=path,
            container="safetensors",
            state=tensors,
            recorded=_recorded(metadata, source=path),
            recorded_license=_recorded_license(metadata),
        )
    if is_torchscript(path):
        if not allow_torchscript:
            _require_published(path, flag=torchscript_flag)
        tensors, recorded = read_torchscript_tensors(path), torchscript_activation(path)
        return WeightFile(path=path, container=TORCHSCRIPT, state=tensors, recorded=recorded)
    container = "torch.save"
    try:
        content = load_tensors(
            path, what=what, advice=pickle_advice(path), memory_map=memory_map and zipfile.is_zipfile(path)
        )
    except ValueError:
        if not allow_pickle:
            raise
        content, container = read_untrusted(path), "torch.save, read for its tensors alone"
    entry = _state_entry(content)
    return WeightFile(
        path=path,
        container=container,
        state=content[entry] if entry else content,
        entry=entry,
        entries={name: value for name, value in content.items() if name != entry} if entry else {},
        recorded=_recorded(content, source=path),
        recorded_license=_recorded_license(content),
    )


def _require_published(path: Path, *, flag: str) -> None:
    """Refuse a TorchScript archive that OpenAI did not publish, before anything of it is parsed."""
    found = sha256_file(path)
    if found not in {published.sha256 for published in PUBLISHED.values()}:
        raise ValueError(
            f"{path}: TorchScript archive with sha256 {found}, which is none of the published CLIPs; "
            f"allowed with {flag}"
        )


def pickle_advice(path: Path) -> str:
    """The command that takes the tensors out of a file which holds more than tensors."""
    target = path.with_suffix(".safetensors").name
    return f"to take its tensors out: python tools/convert_weights.py {path} {target} --allow-pickle"


def _state_entry(content: object) -> str:
    if not isinstance(content, Mapping):
        return ""
    return next((entry for entry in STATE_ENTRIES if isinstance(content.get(entry), Mapping)), "")


def _recorded(content: object, *, source: Path) -> Activation | None:
    if not isinstance(content, Mapping):
        return None
    if content.get(ACTIVATION_ENTRY) is not None:
        return checked_activation(content[ACTIVATION_ENTRY], source=f"{source}: {ACTIVATION_ENTRY}")
    # The state dict of one of OpenAI's archives carries the sizes, open_clip's do not.
    return "quick_gelu" if all(name in content for name in SIZE_ENTRIES) else None


def _recorded_license(content: object) -> str:
    value = content.get(LICENSE_ENTRY) if isinstance(content, Mapping) else None
    return " ".join(value.split())[:_LONGEST_LICENSE] if isinstance(value, str) else ""


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open  # heavy and needed for this kind of file only

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
