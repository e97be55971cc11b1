"""Build everything that a run needs and report, without data: parameters, operations, missing files."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from slowfast.config.node import CfgNode
from slowfast.config.values import LOOSE_PROTOCOLS
from slowfast.datasets.annotation import read_annotations
from slowfast.datasets.build import build_augmentation, build_mixup, check_split, missing_videos
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.pool import join_label_sets
from slowfast.datasets.types import Batch, Split
from slowfast.engine.build import build_optimizer, build_step
from slowfast.engine.complexity import describe, synthetic_clip, synthetic_episode
from slowfast.methods.base import Method
from slowfast.methods.build import build_method, text_files
from slowfast.models.clip.arch import PUBLISHED, published_clip, read_sizes
from slowfast.models.clip.weights import cached_archive, load_clip_state_dict
from slowfast.protocols.build import build_protocol, test_file
from slowfast.text.tokenizer import Tokenizer
from slowfast.utils.io import atomic_save, expanded
from slowfast.utils.logging import setup_logging
from slowfast.utils.seed import seed_everything

_STAND_IN_PROMPTS = 4
_TEMPLATE_CLASSES = 8
"""Classes whose templates are encoded; all of them would take minutes on a CPU."""


def dry_run(cfg: CfgNode) -> None:
    """Report on a configuration; files that are missing are replaced by random content of the right shape.

    Raises:
        ValueError: if something that is present does not fit.
    """
    setup_logging(None)
    missing = dict(missing_files(cfg))
    seed_everything(cfg.RNG_SEED)
    with tempfile.TemporaryDirectory() as folder:
        label_set = _label_set(cfg, missing)
        if cfg.TRAIN.ENABLE:  # a wrong value is found here
            build_augmentation(cfg)
            build_mixup(cfg, len(label_set))
        Tokenizer()(label_set.names)  # names that do not fit into the context are found here
        reads_texts = _reads_texts(cfg, label_set, missing)
        # A file about the classes belongs to all of them.
        few = label_set if reads_texts else LabelSet.from_names(label_set.names[:_TEMPLATE_CLASSES])
        has_sizes = cfg.MODEL.ARCH in PUBLISHED or "MODEL.CLIP_WEIGHTS" not in missing
        is_known = has_sizes and reads_texts is not None
        stand_in = _with_stand_ins(cfg, missing, Path(folder), len(few)) if is_known else cfg
        method = build_method(stand_in, few) if is_known else None
    _print("method", f"{cfg.METHOD}, {cfg.MODEL.ARCH}, temporal module {cfg.MODEL.TEMPORAL_MODELING_TYPE}")
    _print("classes", str(len(label_set)))
    if method is None and has_sizes:
        _print("size", "unknown: DATA.INDEX_LABEL_MAPPING_FILE tells where the texts about the classes lie")
    elif method is None:
        _print("size", f"unknown: MODEL.ARCH {cfg.MODEL.ARCH} takes its sizes from MODEL.CLIP_WEIGHTS")
    else:
        optimizer = build_optimizer(cfg, method)  # freezes what has a learning-rate factor of 0
        _print("size", describe(method, num_frames=cfg.DATA.NUM_FRAMES, side=cfg.DATA.TRAIN_CROP_SIZE))
        synthetic = synthetic_episode if cfg.EPISODES.TRAIN else synthetic_clip
        batch = synthetic(num_frames=cfg.DATA.NUM_FRAMES, side=cfg.DATA.TRAIN_CROP_SIZE)
        _print("synthetic batch", f"one training step, loss {_one_step(stand_in, method, optimizer, batch):.4f}")
    for key, path in missing.items():
        _print("missing", f"{key}: {path}")
    if not missing:
        _print("missing", "nothing")


def _reads_texts(cfg: CfgNode, label_set: LabelSet, missing: Mapping[str, str]) -> bool | None:
    """Whether files are about the classes; None where they would be found by a class list that is missing."""
    try:
        return bool(text_files(cfg, label_set))
    except ValueError:
        if "DATA.INDEX_LABEL_MAPPING_FILE" in missing:
            return None
        raise


def missing_files(cfg: CfgNode) -> Iterator[tuple[str, str]]:
    """Name the key and path of every file that the enabled phases would read and that does not exist."""
    data, train, test = cfg.DATA, cfg.TRAIN, cfg.TEST
    is_loose = cfg.PROTOCOL in LOOSE_PROTOCOLS
    wanted = {"DATA.INDEX_LABEL_MAPPING_FILE": data.INDEX_LABEL_MAPPING_FILE} if is_loose else {}
    if data.TEXT_AUG:
        wanted["DATA.TEXT_AUG_FEATURE_FILE"] = data.TEXT_AUG_FEATURE_FILE
    published = published_clip(cfg.MODEL.CLIP_WEIGHTS or cfg.MODEL.ARCH)
    if published is not None:
        archive = cached_archive(published, cache_dir=cfg.MODEL.CLIP_CACHE_DIR or None)
        wanted["MODEL.ARCH (downloaded by the first run)"] = str(archive)
    elif cfg.MODEL.CLIP_WEIGHTS != "random":
        wanted["MODEL.CLIP_WEIGHTS"] = cfg.MODEL.CLIP_WEIGHTS
    annotations = dict(_annotation_files(cfg))
    wanted |= {key: str(split.csv) for key, split in annotations.items()}
    weights = (
        ("TRAIN.CUSTOM_LOAD_FILE", train.CUSTOM_LOAD_FILE, train.ENABLE and train.CUSTOM_LOAD),
        (
            "TRAIN.CLIP_ORI_PATH",
            _clip_file(cfg, train.CLIP_ORI_PATH),
            train.ENABLE and train.LINEAR_CONNECT_CLIMB and train.CLIP_ORI_PATH,
        ),
        ("TRAIN.CHECKPOINT_FILE_PATH", train.CHECKPOINT_FILE_PATH, train.ENABLE and train.CHECKPOINT_FILE_PATH),
        ("TEST.CUSTOM_LOAD_FILE", test.CUSTOM_LOAD_FILE, test.ENABLE and test.CUSTOM_LOAD),
        (
            "TEST.CLIP_ORI_PATH",
            _clip_file(cfg, test.CLIP_ORI_PATH),
            test.ENABLE
            and ((test.CUSTOM_LOAD and test.PATCHING_MODEL) or (test.PATCHING_RATIOS and test.CLIP_ORI_PATH)),
        ),
        ("TEST.CHECKPOINT_FILE_PATH", test.CHECKPOINT_FILE_PATH, test.ENABLE and test.CHECKPOINT_FILE_PATH),
    )
    wanted |= {key: path for key, path, needed in weights if needed}
    for key, path in wanted.items():
        if not path or not expanded(path).is_file():
            yield key, path or "(empty)"
        elif key in annotations:
            missing = list(_missing_videos(cfg, key, annotations[key]))
            if not missing and annotations[key].episodes is not None:
                check_split(annotations[key], cfg=cfg)  # episodes that cannot be drawn are found here
            yield from missing


def _clip_file(cfg: CfgNode, source: str | None) -> str:
    """Where a CLIP lies: a file, or what the download of a published name becomes."""
    published = None if not source or Path(source).is_file() else published_clip(source)
    return str(cached_archive(published, cache_dir=cfg.MODEL.CLIP_CACHE_DIR or None)) if published else source or ""


def _annotation_files(cfg: CfgNode) -> Iterator[tuple[str, Split]]:
    """What to call each annotation file, and its split; the class names of loose files may be absent."""
    if cfg.PROTOCOL in LOOSE_PROTOCOLS:
        names = [("TRAIN_FILE", cfg.TRAIN_FILE), ("VAL_FILE", cfg.VAL_FILE)] if cfg.TRAIN.ENABLE else []
        names += [("TEST_FILE", test_file(cfg))] if cfg.TEST.ENABLE else []
        for key, name in names:
            csv = Path(cfg.DATA.PATH_TO_DATA_DIR) / name
            yield key, Split(name=key, csv=csv, label_set=LabelSet.from_names(["any"]), mode="val")
        return
    protocol = build_protocol(cfg)
    splits = [protocol.train_split(), protocol.val_split()] if cfg.TRAIN.ENABLE else []
    splits += protocol.eval_splits() if cfg.TEST.ENABLE else []
    for split in splits:
        yield f"list {split.name}", split


def _missing_videos(cfg: CfgNode, key: str, split: Split) -> Iterator[tuple[str, str]]:
    """Look for a sample of the videos of an annotation file."""
    separator = split.separator or cfg.DATA.PATH_LABEL_SEPARATOR
    prefix = cfg.DATA.PATH_PREFIX if split.prefix is None else split.prefix
    allow_outside = cfg.DATA.ALLOW_ABSOLUTE_PATHS
    records = read_annotations(split.csv, prefix=prefix, separator=separator, allow_outside=allow_outside)
    missing = missing_videos(records)
    if missing:
        yield f"videos of {key}", f"{len(missing)} of a sample, the first {missing[0].path}"


def _label_set(cfg: CfgNode, missing: dict[str, str]) -> LabelSet:
    if cfg.PROTOCOL not in LOOSE_PROTOCOLS:
        protocol = build_protocol(cfg)
        splits = [protocol.train_split()] if cfg.TRAIN.ENABLE else protocol.eval_splits()
        return join_label_sets([split.label_set for split in splits])[0]
    if "DATA.INDEX_LABEL_MAPPING_FILE" in missing:
        return LabelSet.from_names([f"class {number}" for number in range(cfg.MODEL.NUM_CLASSES)])
    return LabelSet.from_json(cfg.DATA.INDEX_LABEL_MAPPING_FILE)


def _with_stand_ins(cfg: CfgNode, missing: dict[str, str], folder: Path, num_classes: int) -> CfgNode:
    """Replace missing weights and text features by random ones; nothing is compiled, and a CPU computes in float32."""
    stand_in = cfg.clone()
    stand_in.defrost()
    stand_in.TRAIN.COMPILE = False
    if _device(cfg).type == "cpu":
        stand_in.TRAIN.MIXED_PRECISION = False  # a step in float16 takes many minutes there
    if any(key.startswith(("MODEL.ARCH", "MODEL.CLIP_WEIGHTS")) for key in missing):
        stand_in.MODEL.CLIP_WEIGHTS = "random"
    if "TRAIN.CLIP_ORI_PATH" in missing:
        stand_in.TRAIN.CLIP_ORI_PATH = None  # then it is the CLIP that the model is built from
    if "DATA.TEXT_AUG_FEATURE_FILE" in missing:
        path = folder / "text_features.pt"
        atomic_save(torch.randn(num_classes, _STAND_IN_PROMPTS, _embed_dim(cfg)), path)
        stand_in.DATA.TEXT_AUG_FEATURE_FILE = str(path)
    stand_in.freeze()
    return stand_in


def _embed_dim(cfg: CfgNode) -> int:
    if cfg.MODEL.ARCH in PUBLISHED:
        return PUBLISHED[cfg.MODEL.ARCH].sizes.embed_dim
    allow_torchscript = cfg.MODEL.CLIP_ALLOW_TORCHSCRIPT
    state = load_clip_state_dict(cfg.MODEL.CLIP_WEIGHTS, allow_torchscript=allow_torchscript)
    return read_sizes(state).embed_dim


def _device(cfg: CfgNode) -> torch.device:
    return torch.device("cuda" if cfg.NUM_GPUS > 0 and torch.cuda.is_available() else "cpu")


def _one_step(cfg: CfgNode, method: Method, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    device = _device(cfg)
    method.to(device).train()
    step, _ = build_step(cfg, method, optimizer, device=device)
    return step(batch.to(device)).loss.item()


def _print(title: str, text: str) -> None:
    sys.stdout.write(f"{title:<16} {text}\n")
