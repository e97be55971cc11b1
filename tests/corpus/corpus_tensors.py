"""Files of tensors, features of texts and weights, that are damaged, foreign, evil, or of other sizes."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus_case import Case
from corpus_texts import file, special_files

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.weights import random_clip_state_dict

CLASSES, PROMPTS, WIDTH = 3, 2, 8
NAMES = ("surfing", "golf", "archery")
SIZES = ClipSizes(
    image_size=16,
    patch_size=8,
    vision_width=64,
    vision_layers=1,
    embed_dim=WIDTH,
    text_width=64,
    text_layers=1,
    context_length=8,
    vocab_size=32,
)
MARK = "executed"
"""What evil files make beside themselves if they are let."""


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _saved(name: str, content: Callable[[], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content(), folder / name)
        return folder / name

    return write


def _pickled(name: str, content: Callable[[Path], Any], *, protocol: int = 2) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(pickle.dumps(content(folder), protocol=protocol))
        return folder / name

    return write


def _safetensors(name: str, tensors: Callable[[], dict[str, torch.Tensor]], **metadata: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from safetensors.torch import save_file

        save_file(tensors(), folder / name, metadata=metadata or None)
        return folder / name

    return write


def _headed(name: str, header: object, data: bytes = bytes(64), *, length: int | None = None) -> Callable[[Path], Path]:
    """A safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return file(name, struct.pack("<Q", len(text) if length is None else length) + text + data)


def _cut(write: Callable[[Path], Path], share: float) -> Callable[[Path], Path]:
    def cut(folder: Path) -> Path:
        path = write(folder)
        os.truncate(path, int(share * path.stat().st_size))
        return path

    return cut


def _flipped(write: Callable[[Path], Path], seed: int, flips: int) -> Callable[[Path], Path]:
    def flip(folder: Path) -> Path:
        path = write(folder)
        data, rng = bytearray(path.read_bytes()), random.Random(seed)
        for _ in range(flips):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        return path

    return flip


def _bomb(name: str, content: Callable[[], Any]) -> Callable[[Path], Path]:
    """A file of torch.save, compressed: its zeros take a thousandth on the disk."""

    def write(folder: Path) -> Path:
        buffer = io.BytesIO()
        torch.save(content(), buffer)
        with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in whole.namelist():
                packed.writestr(entry, whole.read(entry))
        return folder / name

    return write


def _laughs(folder: Path) -> Any:
    """Nested lists that stand for 9^9 texts; pickle writes each once."""
    value: list[Any] = ["a"] * 9
    for _ in range(8):
        value = [value] * 9
    return value


def _deep_pickle(name: str, depth: int) -> Callable[[Path], Path]:
    return file(name, b"\x80\x02" + b"(" * depth + b"l" * depth + b".")


def _foreign(name: str) -> dict[str, tuple[str, Callable[[Path], Path]]]:
    """Pickles that hold more than tensors, for any place where tensors are expected."""

    def evil_file(make: Callable[[str], Evil], *, zipped: bool) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            content = {"model_state": make(str(folder / MARK))}
            if zipped:
                torch.save(content, folder / name)
            else:
                (folder / name).write_bytes(pickle.dumps(content))
            return folder / name

        return write

    return {
        "evil-system": ("a pickle that runs a command",
                        evil_file(lambda mark: Evil(os.system, f"mkdir {mark}"), zipped=False)),
        "evil-system-zip": ("the same inside an archive of torch.save",
                            evil_file(lambda mark: Evil(os.system, f"mkdir {mark}"), zipped=True)),
        "evil-mkdir": ("a pickle that makes a folder", evil_file(lambda mark: Evil(os.mkdir, mark), zipped=True)),
        "evil-eval": ("a pickle that evaluates code",
                      evil_file(lambda mark: Evil(eval, f"__import__('os').mkdir({mark!r})"), zipped=True)),
        "evil-exec": ("a pickle that executes code",
                      evil_file(lambda mark: Evil(exec, f"import os; os.mkdir({mark!r})"), zipped=False)),
        "evil-import": ("a pickle that imports a module", evil_file(lambda mark: Evil(__import__, "antigravity"),
                                                                        zipped=False)),
        "foreign-array": ("a numpy array", _saved(name, lambda: {"model_state": np.zeros(3)})),
        "foreign-scalar": ("a numpy number", _saved(name, lambda: {"model_state": {}, "epoch": np.float64(3)})),
        "foreign-namespace": ("an argparse.Namespace",
                              _saved(name, lambda: {"model_state": {}, "args": argparse.Namespace(lr=1)})),
        "foreign-path": ("a pathlib.Path", _saved(name, lambda: {"model_state": {}, "path": Path("a")})),
        "foreign-yacs": ("a CfgNode of yacs", _saved(name, _yacs)),
        "foreign-defaultdict": ("a defaultdict",
                                _saved(name, lambda: {"model_state": collections.defaultdict(list, a=[1])})),
        "foreign-module": ("a whole model", _saved(name, lambda: torch.nn.Linear(2, 2))),
        "plain-pickle": ("a pickled text", _pickled(name, lambda folder: "lecture notes")),
        "new-protocol": ("a pickle of protocol 5", _pickled(name, lambda folder: {"a": 1}, protocol=5)),
        "deep-pickle": ("100 000 lists in each other", _deep_pickle(name, 100_000)),
        "laughs": ("lists that stand for 9^9 texts", _pickled(name, lambda folder: {"epoch": _laughs(folder)})),
        "text": ("text", file(name, b"lecture notes\n" * 50)),
        "random": ("random bytes", file(name, random.Random(3).randbytes(5000))),
        "zip-of-text": ("a zip archive of something else", _zip_of_text(name)),
        "zip-empty": ("a zip archive of nothing", file(name, b"PK\x05\x06" + bytes(18))),
    }  # fmt: skip


def _yacs() -> dict[str, Any]:
    from yacs.config import CfgNode

    return {"model_state": {}, "cfg": CfgNode({"A": 1})}


def _zip_of_text(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("notes.txt", "lecture notes")
        return folder / name

    return write


# ------------------------------------------------------------------------------------------------------------ features


def features() -> torch.Tensor:
    """Features of three classes, two prompts each, (3, 2, 8)."""
    return torch.randn(CLASSES, PROMPTS, WIDTH, generator=torch.Generator().manual_seed(1))


def _with(value: float, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    tensor = features().to(dtype)
    tensor[1, 1, 3] = value
    return tensor


def _feature_errors() -> dict[str, tuple[str, Callable[[Path], Path], str]]:
    name, safe = "text.pt", "text.safetensors"

    def saved(content: Callable[[], Any]) -> Callable[[Path], Path]:
        return _saved(name, content)

    def entry(**parts: Any) -> Callable[[Path], Path]:
        return saved(lambda: {"features": features(), **parts})

    zero = features()
    zero[2, 0] = 0
    return {
        "rows": ("features of two of three classes", saved(lambda: features()[:2].clone()), "has 2 rows"),
        "no-class": ("features of no class", saved(lambda: features()[:0].clone()), "has 0 rows"),
        "no-prompt": ("no prompt for any class", saved(lambda: features()[:, :0].clone()), "no prompt"),
        "no-width": ("features of width 0", saved(lambda: features()[..., :0].clone()), "width 0"),
        "width": ("features of half the width", saved(lambda: features()[..., :4].clone()), "width 4"),
        "two-axes": ("two axes", saved(lambda: features()[:, 0].clone()), "expected a float tensor"),
        "four-axes": ("four axes", saved(lambda: features()[None].clone()), "expected a float tensor"),
        "one-number": ("a single number", saved(lambda: torch.tensor(1.0)), "expected a float tensor"),
        "integers": ("integers", saved(lambda: features().long()), "torch.int64"),
        "truth-values": ("truth values", saved(lambda: features() > 0), "torch.bool"),
        "complex": ("complex numbers", saved(lambda: features().to(torch.complex64)), "torch.complex64"),
        "quantised": (
            "a quantised tensor",
            saved(lambda: torch.quantize_per_tensor(features(), 0.1, 0, torch.qint8)),
            "torch.qint8",
        ),
        "sparse": ("a sparse tensor", saved(lambda: features().to_sparse()), "sparse"),
        "sparse-rows": ("a sparse tensor of rows", saved(lambda: features()[:, 0].to_sparse_csr()), ""),
        "no-memory": ("a tensor without content", saved(lambda: features().to("meta")), "meta"),
        "expanded": (
            "a tensor of 8 numbers that says it is one of 24 billion",
            saved(lambda: torch.ones(WIDTH).expand(CLASSES, 10**9, WIDTH)),
            "numbers",
        ),
        "nan": ("a number that is none", saved(lambda: _with(float("nan"))), "[1, 1] is zero, infinite or absent"),
        "infinite": ("an infinite number", saved(lambda: _with(float("inf"))), "[1, 1] is zero, infinite or absent"),
        "infinite-half": (
            "an infinite number in half precision",
            saved(lambda: _with(float("-inf"), dtype=torch.float16)),
            "[1, 1] is zero, infinite or absent",
        ),
        "huge": ("numbers whose squares are infinite", saved(lambda: _with(1e30)), "zero, infinite or absent"),
        "zero": ("a feature of zeros", saved(lambda: zero), "[2, 0] is zero, infinite or absent"),
        "list": ("a list of tensors", saved(lambda: [features()]), "holds list"),
        "mapping": ("a mapping without features", saved(lambda: {"text": features()}), "holds dict"),
        "none": ("nothing", saved(lambda: None), "holds NoneType"),
        "mask-shape": ("a mask of another shape", entry(mask=torch.ones(2, 2, dtype=torch.bool)), "mask is"),
        "mask-numbers": ("a mask of numbers", entry(mask=torch.ones(CLASSES, PROMPTS)), "mask is"),
        "mask-text": ("a text for a mask", entry(mask="all"), "mask is str"),
        "mask-empty-class": (
            "a mask that leaves a class without a prompt",
            entry(mask=torch.tensor([[True, True], [False, False], [True, False]])),
            "leaves class 1",
        ),
        "names-few": ("two names for three rows", entry(names=list(NAMES[:2])), "has 2 names for 3 rows"),
        "names-other": ("names of other classes", entry(names=["a", "b", "c"]), "surfing"),
        "names-twice": ("a name twice", entry(names=["surfing", "surfing", "golf"]), ""),
        "names-numbers": ("numbers for names", entry(names=[0, 1, 2]), "not a list of class names"),
        "names-text": ("a text for names", entry(names="abc"), "not a list of class names"),
        "safetensors-empty": ("an empty safetensors file", file(safe, b""), "cannot be read"),
        "safetensors-text": ("text named safetensors", file(safe, b"lecture notes " * 9), "cannot be read"),
        "safetensors-none": ("safetensors without features", _safetensors(safe, lambda: {"a": features()}),
                             "no entry 'features'"),
        "safetensors-length": ("safetensors whose header is longer than the file",
                               _headed(safe, {"features": {}}, length=2**40), "cannot be read"),
        "safetensors-offsets": (
            "safetensors whose tensor lies behind the end",
            _headed(safe, {"features": {"dtype": "F32", "shape": [3, 2, 8], "data_offsets": [0, 192]}}, bytes(64)),
            "cannot be read",
        ),
        "safetensors-names": (
            "safetensors whose names are no JSON",
            _safetensors(safe, lambda: {"features": features()}, names="[1,"),
            "cannot be read",
        ),
        "safetensors-deep-names": (
            "safetensors whose names are 100 000 lists in each other",
            _safetensors(safe, lambda: {"features": features()}, names="[" * 100_000),
            "cannot be read",
        ),
        "bomb": ("64 kB that unpack to 64 MB", _bomb(name, lambda: torch.zeros(1 << 24)), "unpack"),
    }  # fmt: skip


def _feature_cases() -> list[Case]:
    cases = special_files("features", "text.pt", content=b"text")
    cases += [
        Case(id=f"features/{key}", text=text, expected="error", write=write, message=message)
        for key, (text, write, message) in _feature_errors().items()
    ]
    cases += [
        Case(id=f"features/{key}", text=text, expected="error", write=write)
        for key, (text, write) in _foreign("text.pt").items()
    ]
    whole = _saved("text.pt", features)
    cases += [
        Case(id=f"features/cut-{share:.2f}", text=f"cut after {share:.0%}", expected="error", write=_cut(whole, share))
        for share in (0.1, 0.5, 0.9)
    ]
    cases += [
        Case(id=f"features/flipped-{seed}", text=f"8 flipped bits, seed {seed}", expected="any",
             write=_flipped(whole, seed, 8))
        for seed in range(4)
    ]  # fmt: skip
    order = [2, 0, 1]
    reads: dict[str, tuple[str, Callable[[Path], Path]]] = {
        "plain": ("a tensor", whole),
        "half": ("half precision", _saved("text.pt", lambda: features().half())),
        "bfloat16": ("bfloat16", _saved("text.pt", lambda: features().bfloat16())),
        "double": ("double precision", _saved("text.pt", lambda: features().double())),
        "gradient": ("a tensor that requires a gradient", _saved("text.pt", lambda: features().requires_grad_())),
        "parameter": ("a parameter", _saved("text.pt", lambda: torch.nn.Parameter(features()))),
        "turned": ("a transposed view", _saved("text.pt", lambda: features().mT.contiguous().mT)),
        "long": ("features of any length", _saved("text.pt", lambda: features() * 1000)),
        "named": ("names in another order", _saved("text.pt", lambda: {
            "features": features()[order], "names": [NAMES[number] for number in order]})),
        "legacy": ("the format of torch.save before 1.6", _legacy("text.pt", features)),
        "safetensors": ("a safetensors file", _safetensors("text.safetensors", lambda: {"features": features()})),
    }  # fmt: skip
    return cases + [
        Case(id=f"features/{key}", text=text, expected="reads", write=write) for key, (text, write) in reads.items()
    ]


def _legacy(name: str, content: Callable[[], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content(), folder / name, _use_new_zipfile_serialization=False)
        return folder / name

    return write


# ------------------------------------------------------------------------------------------------------------- weights


@cache
def _state() -> dict[str, torch.Tensor]:
    return random_clip_state_dict(SIZES, seed=1)


def weights() -> dict[str, torch.Tensor]:
    """A very small CLIP under OpenAI's names."""
    return dict(_state())


def checkpoint(**more: Any) -> dict[str, Any]:
    """The same as a checkpoint of ours."""
    return {"model_state": {f"model.{name}": value for name, value in weights().items()}, "epoch": 3, **more}


def _changed(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        return {**weights(), name: change(_state()[name].clone())}

    return make


def _without(*names: str) -> Callable[[], dict[str, Any]]:
    return lambda: {name: value for name, value in weights().items() if name not in names}


def _filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def fill(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return fill


def _weight_errors() -> dict[str, tuple[str, Callable[[Path], Path], str]]:
    name, safe = "clip.pt", "clip.safetensors"
    other = ClipSizes(image_size=16, patch_size=8, vision_width=128, vision_layers=2, embed_dim=WIDTH, text_width=64,
                      text_layers=1, context_length=8, vocab_size=32)  # fmt: skip
    first = "visual.proj"

    def saved(content: Callable[[], Any]) -> Callable[[Path], Path]:
        return _saved(name, content)

    return {
        "other-sizes": ("a CLIP of other sizes", saved(lambda: random_clip_state_dict(other, seed=1)), "do not fit"),
        "other-depth": ("a CLIP without a block", saved(lambda: {
            key: value for key, value in weights().items() if ".resblocks.0." not in key}), ""),
        "lacks-one": ("one tensor is missing", saved(_without("visual.ln_post.weight")), "visual.ln_post.weight"),
        "lacks-size": ("a tensor that tells a size is missing", saved(_without("text_projection")), "text_projection"),
        "one-more": ("a tensor too many", saved(lambda: {**weights(), "visual.extra": torch.zeros(2)}), "visual.extra"),
        "one-turned": ("a transposed tensor", saved(_changed(first, lambda value: value.t().contiguous())), ""),
        "one-number": ("a number for a tensor", saved(_changed(first, lambda value: 3.0)), ""),
        "one-text": ("a text for a tensor", saved(_changed(first, lambda value: "zeros")), ""),
        "one-none": ("nothing for a tensor", saved(_changed(first, lambda value: None)), ""),
        "one-sparse": ("a sparse tensor", saved(_changed(first, lambda value: value.to_sparse())), "sparse"),
        "one-meta": ("a tensor without content", saved(_changed(first, lambda value: value.to("meta"))), "meta"),
        "one-integer": ("integers for weights", saved(_changed(first, lambda value: value.long())), "int64"),
        "one-complex": ("complex numbers for weights", saved(_changed(first, lambda value: value.to(torch.complex64))),
                        "complex64"),
        "one-quantised": ("a quantised tensor", saved(_changed(
            first, lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8))), "qint8"),
        "expanded": ("a tensor of one number that says it is one of 10^10", saved(_changed(
            "visual.conv1.weight", lambda value: torch.zeros(1).expand(10**5, 10**5))), ""),
        "nan": ("weights that are no numbers", saved(_changed(first, _filled(float("nan")))), first),
        "nan-last": ("one weight that is no number, in a bias", saved(_changed(
            "transformer.resblocks.0.mlp.c_proj.bias", _filled(float("nan")))), "mlp.c_proj.bias"),
        "infinite": ("an infinite weight", saved(_changed(first, _filled(float("inf")))), first),
        "nan-checkpoint": ("a checkpoint of a run that diverged", saved(lambda: {"model_state": {
            f"model.{key}": value * float("nan") for key, value in weights().items()}}), "nan"),
        "nan-safetensors": ("the same as safetensors", _safetensors(
            safe, _changed(first, _filled(float("nan")))), first),
        "nothing": ("an empty mapping", saved(dict), ""),
        "no-state": ("a checkpoint without model_state", saved(lambda: {"epoch": 1}), ""),
        "state-list": ("a list for model_state", saved(lambda: {"model_state": [1, 2]}), ""),
        "state-none": ("nothing for model_state", saved(lambda: {"model_state": None}), ""),
        "state-empty": ("an empty model_state", saved(lambda: {"model_state": {}}), ""),
        "tensor": ("a bare tensor", saved(lambda: torch.zeros(3)), ""),
        "number": ("a number", saved(lambda: 3), ""),
        "list": ("a list of tensors", saved(lambda: [torch.zeros(3)]), ""),
        "number-names": ("numbers for names", saved(lambda: dict(enumerate(weights().values()))), ""),
        "resnet": ("one entry of a ResNet", saved(lambda: {"visual.layer1.0.conv1.weight": torch.zeros(1)}), "missing"),
        "two-layouts": ("names of two projects", saved(lambda: {
            **weights(), "vision_model.embeddings.class_embedding": torch.zeros(1)}), "layouts"),
        "twice": ("a tensor with and without the prefix of a wrapper", saved(lambda: {
            **weights(), f"module.{first}": torch.zeros(1)}), "two entries"),
        "epoch-text": ("a text for the epoch", saved(lambda: checkpoint(epoch="three")), "epoch is"),
        "epoch-fraction": ("a fraction for the epoch", saved(lambda: checkpoint(epoch=3.5)), "epoch is"),
        "optimizer-list": ("a list for the state of the optimiser", saved(lambda: checkpoint(optimizer_state=[1])),
                           "optimizer_state"),
        "activation": ("an unknown activation", saved(lambda: checkpoint(clip_activation="relu")), "relu"),
        "activation-number": ("a number for the activation", saved(lambda: checkpoint(clip_activation=3)), "3"),
        "safetensors-empty": ("an empty safetensors file", file(safe, b""), "not a readable"),
        "safetensors-text": ("text named safetensors", file(safe, b"lecture notes " * 9), "not a readable"),
        "safetensors-length": ("safetensors whose header is longer than the file",
                               _headed(safe, {"a": {}}, length=2**40), "not a readable"),
        "safetensors-length-max": ("safetensors whose header has 2^64 - 1 bytes",
                                   _headed(safe, {"a": {}}, length=2**64 - 1), "not a readable"),
        "safetensors-no-json": ("safetensors whose header is no JSON", _headed(safe, b"{" * 200), "not a readable"),
        "safetensors-offsets": ("safetensors whose tensor lies behind the end", _headed(
            safe, {"a": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}), "not a readable"),
        "safetensors-overlap": ("safetensors whose tensors overlap", _headed(
            safe, {"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
                   "b": {"dtype": "F32", "shape": [8], "data_offsets": [32, 64]}}), "not a readable"),
        "safetensors-dtype": ("safetensors of an unknown type", _headed(
            safe, {"a": {"dtype": "X9", "shape": [16], "data_offsets": [0, 64]}}), "not a readable"),
        "safetensors-shape": ("safetensors of a negative size", _headed(
            safe, {"a": {"dtype": "F32", "shape": [-16], "data_offsets": [0, 64]}}), "not a readable"),
        "safetensors-none": ("safetensors without tensors", _safetensors(safe, dict), ""),
        "pickle-named-safetensors": ("a pickle named safetensors", _saved(safe, weights), "not a readable"),
        "bomb": ("64 kB that unpack to 64 MB", _bomb(name, lambda: {
            "model_state": {"model.visual.proj": torch.zeros(1 << 24)}}), "unpack"),
        "bomb-torchscript": ("a TorchScript archive of 64 kB that unpacks to 128 MB", _torchscript_bomb, "unpack"),
        "torchscript-evil": ("a TorchScript archive that runs a command", _torchscript_evil, "not a readable"),
        "torchscript-empty": ("a TorchScript archive of nothing", _torchscript_empty, "not a readable"),
    }  # fmt: skip


def _archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"clip/{name}"), data, compression)
    return path


def _torchscript_bomb(folder: Path) -> Path:
    zeros = bytes(1 << 26)
    entries = {"constants.pkl": b"\x80\x02).", "data.pkl": b"\x80\x02}.", "data/0": zeros, "code/a.py": zeros}
    return _archive(folder / "clip.pt", entries, zipfile.ZIP_DEFLATED)


def _torchscript_evil(folder: Path) -> Path:
    evil = pickle.dumps(Evil(os.mkdir, str(folder / MARK)), protocol=2)
    return _archive(folder / "clip.pt", {"constants.pkl": b"\x80\x02).", "data.pkl": evil})


def _torchscript_empty(folder: Path) -> Path:
    return _archive(folder / "clip.pt", {"constants.pkl": b"\x80\x02)."})


def _weight_cases() -> list[Case]:
    cases = special_files("weights", "clip.pt", content=b"text")
    cases.append(
        Case(
            id="weights/unknown-user",
            text="a home folder that does not exist",
            expected="error",
            write=lambda folder: Path("~nobody-of-this-name/clip.pt"),
        )
    )
    cases += [
        Case(id=f"weights/{key}", text=text, expected="error", write=write, message=message)
        for key, (text, write, message) in _weight_errors().items()
    ]
    cases += [
        Case(id=f"weights/{key}", text=text, expected="error", write=write)
        for key, (text, write) in _foreign("clip.pt").items()
    ]
    kinds: dict[str, Callable[[Path], Path]] = {
        "zip": _saved("clip.pt", checkpoint),
        "legacy": _legacy("clip.pt", checkpoint),
        "safetensors": _safetensors("clip.safetensors", weights),
    }
    for kind, whole in kinds.items():
        cases += [
            Case(id=f"weights/cut-{kind}-{share:.3f}", text=f"{kind}, cut after {100 * share:g} %", expected="error",
                 write=_cut(whole, share))
            for share in (0.001, 0.1, 0.5, 0.9, 0.999)
        ]  # fmt: skip
        cases += [
            Case(id=f"weights/flipped-{kind}-{flips}-{seed}", text=f"{kind}, {flips} flipped bits, seed {seed}",
                 expected="any", write=_flipped(whole, seed, flips))
            for flips in (1, 200)
            for seed in range(3)
        ]  # fmt: skip
    reads: dict[str, tuple[str, Callable[[Path], Path]]] = {
        "clip": ("a CLIP under OpenAI's names", _saved("clip.pt", weights)),
        "checkpoint": ("a checkpoint of ours", kinds["zip"]),
        "checkpoint-legacy": ("a checkpoint in the format before torch 1.6", kinds["legacy"]),
        "safetensors": ("a safetensors file", kinds["safetensors"]),
        "no-epoch": ("a checkpoint without an epoch", _saved("clip.pt", lambda: {
            "model_state": checkpoint()["model_state"]})),
        "ordered": ("an OrderedDict", _saved("clip.pt", lambda: collections.OrderedDict(weights()))),
        "half": ("half precision", _saved("clip.pt", lambda: {key: value.half() for key, value in weights().items()})),
        "gradient": ("tensors that require gradients", _saved("clip.pt", lambda: {
            key: value.clone().requires_grad_() for key, value in weights().items()})),
        "wrapped": ("the prefix of DistributedDataParallel", _saved("clip.pt", lambda: {
            f"module.{key}": value for key, value in weights().items()})),
        "mask": ("an attention mask of minus infinity beside the weights", _saved("clip.pt", lambda: {
            **weights(), "attn_mask": torch.full((8, 8), float("-inf")).triu_(1)})),
        "no-suffix": ("a name without a suffix", lambda folder: kinds["zip"](folder).rename(folder / "weights")),
        "name-unicode": ("a name in another script", lambda folder: kinds["zip"](folder).rename(folder / "重み.pt")),
    }  # fmt: skip
    return cases + [
        Case(id=f"weights/{key}", text=text, expected="reads", write=write) for key, (text, write) in reads.items()
    ]


TENSOR_CASES: tuple[Case, ...] = (*_feature_cases(), *_weight_cases())
