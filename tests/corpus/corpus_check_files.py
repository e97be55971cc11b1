"""Read a file of the corpus with the functions that a run reads it with."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from corpus_case import Case
from corpus_check_videos import WrongError
from corpus_tensors import MARK, NAMES, SIZES, WIDTH, features, weights
from corpus_texts import NUM_CLASSES

from slowfast.config.defaults import assert_and_infer_cfg
from slowfast.config.node import ConfigError
from slowfast.datasets.annotation import read_annotations
from slowfast.datasets.label_set import LabelSet
from slowfast.engine.checkpoint import load_model_state, read_checkpoint
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.weights import load_clip_state_dict
from slowfast.text.text_bank import load_feature_file
from slowfast.utils.errors import USER_ERRORS, describe_error
from slowfast.utils.parser import load_config

MOST_CHARACTERS = 700
"""Of a message, its paths aside. The longest list the allowed values of a key."""


def check_annotation(case: Case, path: Path, folder: Path) -> str:
    """Read an annotation file."""
    del folder

    def read() -> str:
        records = read_annotations(path, separator=case.separator, num_classes=NUM_CLASSES)
        _equal(tuple((record.path, record.label) for record in records), case.rows)
        return f"read: {len(records)} rows"

    return _outcome(case, path, read)


def check_labels(case: Case, path: Path, folder: Path) -> str:
    """Read a label map."""
    del folder

    def read() -> str:
        labels = LabelSet.from_json(path)
        _equal(labels.names, case.names)
        return f"read: {len(labels)} classes"

    return _outcome(case, path, read)


def check_features(case: Case, path: Path, folder: Path) -> str:
    """Read features of texts, for three classes."""
    del folder

    def read() -> str:
        bank = load_feature_file(path, names=NAMES, embed_dim=WIDTH)
        found = bank.features
        assert found is not None
        if not torch.isfinite(found).all():
            raise WrongError("features are not finite")
        if case.expected == "reads":
            expected = torch.nn.functional.normalize(features(), dim=-1)
            _equal(bool(torch.allclose(found.float(), expected, atol=0.01)), True)
        return f"read: {tuple(found.shape)}"

    return _outcome(case, path, read)


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = CLIP(SIZES)


def check_weights(case: Case, path: Path, folder: Path) -> str:
    """Read weights as the CLIP of a run, and as a checkpoint for its model."""
    del folder

    def fit() -> str:
        model = _Model()
        load_model_state(model, read_checkpoint(path, allow_torchscript=True).model_state, source=path)
        for name, value in model.state_dict().items():
            if not torch.isfinite(value).all():
                raise WrongError(f"{name} is not finite")
        if case.expected == "reads":
            own = model.model.state_dict()
            _equal(all(torch.allclose(own[name], value.float(), atol=0.01) for name, value in weights().items()), True)
        return f"read: {len(model.state_dict())} tensors"

    def clip() -> str:
        state = load_clip_state_dict(path, allow_torchscript=True)
        model = CLIP(SIZES)
        load_model_state(model, state, source=path)
        return f"read: {len(state)} tensors"

    # What is wrong beside the weights does not concern those who want nothing else.
    _outcome(replace(case, expected="any") if case.expected == "error" else case, path, clip)
    return _outcome(case, path, fit)


def check_config(case: Case, path: Path, folder: Path) -> str:
    """Resolve a configuration file."""
    os.chdir(folder)  # evil files leave their mark here

    def read() -> str:
        cfg = assert_and_infer_cfg(load_config(Namespace(opts=None), str(path)))
        leaves = cfg.leaves()
        for key, value in case.settings:
            _equal((key, leaves[key], type(leaves[key])), (key, value, type(value)))
        return "read"

    outcome = _outcome(case, path, read, error=ConfigError)
    _unmarked(folder)
    return outcome


def _outcome(
    case: Case,
    path: Path,
    read: Callable[[], str],
    *,
    error: type[Exception] | tuple[type[Exception], ...] = USER_ERRORS,
) -> str:
    """Read, and see whether what comes of it is allowed."""
    try:
        outcome = read()
    except error as caught:
        outcome = f"error: {_message(case, caught, path)}"
    _unmarked(path.parent)
    if case.expected != "any" and outcome.startswith("error") != (case.expected == "error"):
        raise WrongError(f"expected {case.expected}, found {outcome}")
    return outcome


def _message(case: Case, error: Exception, path: Path) -> str:
    text = describe_error(error)
    if not text.isprintable():
        raise WrongError(f"more than one line: {text!r:.500}")
    named = str(path) in text or (
        case.kind == "config" and any(key in text for key in (path.name, case.message or " "))
    )
    if not named:
        raise WrongError(f"does not name the file: {text!r:.500}")
    if len(text.replace(str(path), "")) > MOST_CHARACTERS:
        raise WrongError(f"{len(text)} characters: {text:.200}")
    return text


def _unmarked(folder: Path) -> None:
    if (folder / MARK).exists():
        raise WrongError("code of the file was executed")


def _equal(found: object, expected: object) -> None:
    if found != expected:
        raise WrongError(f"found {found!r}, expected {expected!r}")
