"""Keys of PySlowFast, Open-VCLIP and STDD that do nothing here: accepted where harmless, refused by name elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """One key that is accepted only at the value at which it never did anything.

    Args:
        value: the accepted value, which is the official default.
        reason: completes the sentence "this key ...".
    """

    value: Any
    reason: str


_DEAD = "was never read by the published code"
_EWC = "belongs to the EWC penalty, which the published code cannot run"
_PULL = "belongs to the per-epoch pull towards CLIP, replaced by weight averaging and TEST.PATCHING_RATIO"
_CAFFE2 = "reads Caffe2 and inflated 2D weights, which CLIP does not have"
_CHUNKS = "belongs to the chunked reading of the CSV, which is read whole here"
_MAE = "belongs to masked pre-training, which is not part of this project"
_VISUAL = "belongs to PySlowFast's TensorBoard visualisation, which is not part of this project"

# Full key -> the only accepted value. An official YAML may carry these keys; a run never depends on them.
REMOVED: dict[str, Removed] = {
    "IMAGENET_SIMPLELABEL_PATH": Removed(value=None, reason="serves ClipImage on ImageNet, not part of this project"),
    "TRAIN.CHECKPOINT_TYPE": Removed(value="pytorch", reason=_CAFFE2),
    "TRAIN.CHECKPOINT_INFLATE": Removed(value=False, reason=_CAFFE2),
    "TRAIN.CHECKPOINT_IN_INIT": Removed(value=False, reason="loads weights in the constructor of SSL networks"),
    "TRAIN.LINEAR_CONNECT_SAMPLE": Removed(value=True, reason=_DEAD),
    "TRAIN.ZERO_SHOT_META_LEARN": Removed(value=False, reason=_DEAD),
    "TRAIN.ZS_CONS": Removed(value=False, reason=_PULL),
    "TRAIN.ZS_INIT_CONS": Removed(value=False, reason=_PULL),
    "TRAIN.ZS_RESTART_CONS": Removed(value=False, reason=_PULL),
    "TRAIN.ZS_RESTART_EPOCH": Removed(value=-1, reason=_PULL),
    "TRAIN.ZS_CONS_RATIO": Removed(value=0.8, reason=_PULL),
    "TRAIN.ADAPT_ZS_CONS_RATIO": Removed(value=False, reason=_PULL),
    "TRAIN.EWC_SET": Removed(value=False, reason=_EWC),
    "TRAIN.EWC_CONSTRAIN_RATIO": Removed(value=1.0, reason=_EWC),
    "TRAIN.EWC_LOAD_FILE": Removed(value=None, reason=_EWC),
    "TRAIN.EWC_IDENTITY_FISHER": Removed(value=False, reason=_EWC),
    "TRAIN.EWC_IGNORE_LOGIT_SCALE": Removed(value=False, reason=_EWC),
    "TEST.CHECKPOINT_TYPE": Removed(value="pytorch", reason=_CAFFE2),
    "TEST.UPDATE_STATE": Removed(value=False, reason=_DEAD),
    "DATA.MULTI_LABEL": Removed(value=False, reason="trains multi-label targets; a video has one label here"),
    "DATA.LOADER_CHUNK_SIZE": Removed(value=0, reason=_CHUNKS),
    "DATA.LOADER_CHUNK_OVERALL_SIZE": Removed(value=0, reason=_CHUNKS),
    "DATA.SKIP_ROWS": Removed(value=0, reason=_CHUNKS),
    "DATA.DUMMY_LOAD": Removed(value=False, reason="repeats one decoded video; use the rendered quickstart data"),
    "DATA.PATH_TO_PRELOAD_IMDB": Removed(value="", reason="belongs to PySlowFast's ImageNet loader"),
    "DATA.TRAIN_JITTER_MOTION_SHIFT": Removed(value=False, reason="moves the crop over time; no CLIP recipe does"),
    "DATA.TRAIN_CROP_NUM_TEMPORAL": Removed(value=1, reason="draws several clips of a video; see AUG.NUM_SAMPLE"),
    "DATA.TRAIN_CROP_NUM_SPATIAL": Removed(value=1, reason="draws several crops of a clip; see AUG.NUM_SAMPLE"),
    "DATA.SSL_COLOR_JITTER": Removed(value=False, reason="belongs to contrastive learning"),
    "DATA.SSL_MOCOV2_AUG": Removed(value=False, reason="belongs to contrastive learning"),
    "DATA.COLOR_RND_GRAYSCALE": Removed(value=0.0, reason="belongs to contrastive learning"),
    "AUG.GEN_MASK_LOADER": Removed(value=False, reason=_MAE),
    "MODEL.CONTEXT_LENGTH": Removed(value=77, reason="is the length that CLIP was trained with; no other length works"),
    "MODEL.FROZEN_BN": Removed(value=False, reason="freezes batch normalisation, which CLIP does not have"),
    "MODEL.DETACH_FINAL_FC": Removed(value=False, reason="detaches a linear head, which CLIP does not have"),
    "MODEL.FP16_ALLREDUCE": Removed(value=False, reason="rounds gradients to float16 between GPUs, unscaled"),
    "MODEL.ACT_CHECKPOINT": Removed(value=False, reason="is MViT's switch; for CLIP it is called MODEL.USE_CHECKPOINT"),
    "SOLVER.LARS_ON": Removed(value=False, reason="wraps the optimiser in LARS, which no CLIP recipe does"),
    "CONTRASTIVE.DELTA_CLIPS_MIN": Removed(value=float("-inf"), reason="spaces the clips of contrastive learning"),
    "CONTRASTIVE.DELTA_CLIPS_MAX": Removed(value=float("inf"), reason="spaces the clips of contrastive learning"),
    "TENSORBOARD.PREDICTIONS_PATH": Removed(value="", reason=_VISUAL),
    "TENSORBOARD.CLASS_NAMES_PATH": Removed(value="", reason=_VISUAL),
    "TENSORBOARD.CATEGORIES_PATH": Removed(value="", reason=_VISUAL),
    "TENSORBOARD.CONFUSION_MATRIX.ENABLE": Removed(value=False, reason=_VISUAL),
    "TENSORBOARD.HISTOGRAM.ENABLE": Removed(value=False, reason=_VISUAL),
    "TENSORBOARD.MODEL_VIS.ENABLE": Removed(value=False, reason=_VISUAL),
    "TENSORBOARD.WRONG_PRED_VIS.ENABLE": Removed(value=False, reason=_VISUAL),
}

# Full key -> official default. Official CLIP files set these keys, and no value of theirs ever reached a CLIP model.
IGNORED: dict[str, Any] = {
    "BN.USE_PRECISE_STATS": False,
    "BN.NUM_BATCHES_PRECISE": 200,
    "BN.NORM_TYPE": "batchnorm",
    "BN.NUM_SPLITS": 1,
    "BN.NUM_SYNC_DEVICES": 1,
    "BN.GLOBAL_SYNC": False,
    "MODEL.DROPOUT_RATE": 0.5,
    "MODEL.DROPCONNECT_RATE": 0.0,
    "MODEL.FC_INIT_STD": 0.01,
    "MODEL.HEAD_ACT": "softmax",
    "MODEL.SINGLE_PATHWAY_ARCH": [],
    "MODEL.MULTI_PATHWAY_ARCH": [],
    "DATA.INPUT_CHANNEL_NUM": [3, 3],
    "DATA.TRAIN_PCA_EIGVAL": [0.225, 0.224, 0.229],
    "DATA.TRAIN_PCA_EIGVEC": [],
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE": False,
    "TENSORBOARD.CONFUSION_MATRIX.FIGSIZE": [8, 8],
    "TENSORBOARD.CONFUSION_MATRIX.SUBSET_PATH": "",
    "TENSORBOARD.HISTOGRAM.FIGSIZE": [8, 8],
    "TENSORBOARD.HISTOGRAM.SUBSET_PATH": "",
    "TENSORBOARD.HISTOGRAM.TOPK": 10,
    "TENSORBOARD.MODEL_VIS.MODEL_WEIGHTS": False,
    "TENSORBOARD.MODEL_VIS.ACTIVATIONS": False,
    "TENSORBOARD.MODEL_VIS.INPUT_VIDEO": False,
    "TENSORBOARD.MODEL_VIS.LAYER_LIST": [],
    "TENSORBOARD.MODEL_VIS.TOPK_PREDS": 1,
    "TENSORBOARD.MODEL_VIS.COLORMAP": "Pastel2",
    "TENSORBOARD.MODEL_VIS.GRAD_CAM.ENABLE": True,
    "TENSORBOARD.MODEL_VIS.GRAD_CAM.LAYER_LIST": [],
    "TENSORBOARD.MODEL_VIS.GRAD_CAM.USE_TRUE_LABEL": False,
    "TENSORBOARD.MODEL_VIS.GRAD_CAM.COLORMAP": "viridis",
    "TENSORBOARD.WRONG_PRED_VIS.TAG": "Incorrectly classified videos.",
    "TENSORBOARD.WRONG_PRED_VIS.SUBSET_PATH": "",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.STEP_SIZE": 1,
    "SOLVER.WARMUP_FACTOR": 0.1,
}

# Whole sections of PySlowFast that have no counterpart here.
ABSENT_SECTIONS: dict[str, str] = {
    "RESNET": "PySlowFast's convolutional networks",
    "SLOWFAST": "PySlowFast's convolutional networks",
    "NONLOCAL": "PySlowFast's convolutional networks",
    "X3D": "PySlowFast's convolutional networks",
    "MVIT": "MViT",
    "UNIFORMER": "UniFormer",
    "DETECTION": "spatio-temporal detection",
    "AVA": "spatio-temporal detection",
    "MASK": "masked pre-training",
    "VIS_MASK": "masked pre-training",
    "CONTRASTIVE": "contrastive learning",
    "MULTIGRID": "multigrid training",
    "BENCHMARK": "PySlowFast's data-loader benchmark",
}


def inert_defaults() -> dict[str, Any]:
    """Return every key of this module with the value that the tree declares for it."""
    return {**{key: entry.value for key, entry in REMOVED.items()}, **IGNORED}


def reason_absent(full_key: str) -> str | None:
    """Say why a key of a section that this project leaves out cannot be set; None for any other key."""
    section = full_key.partition(".")[0]
    if section not in ABSENT_SECTIONS:
        return None
    return f"section {section} configures {ABSENT_SECTIONS[section]}, which is not part of this project"
