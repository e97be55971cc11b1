"""What single keys may hold: the closed lists of names, bounds of numbers, shapes of lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Names that other packages resolve; configuration imports none of them, and a test compares the lists.
PROTOCOL_NAMES = ("single_dataset", "zero_shot", "few_shot", "base_to_novel", "fully_supervised", "episodic")
LOOSE_PROTOCOLS = ("single_dataset",)  # read annotation files by path; the others need SPLITS.DATASET
EPISODE_PROTOCOLS = ("episodic",)  # draw tasks of a few videos
AVERAGES = ("", "swa", "gwa", "bwa", "ewa")
TEMPORAL_MODELING_TYPES = (
    None,
    "stcross_attend",
    "expand_temporal_view",
    "expand_temporal_view_step2",
    "expand_temporal_view_step3",
    "channel_shift",
    "cross_frame_attend",
    "stadapt_zeroinit",
)
DISTILLATION_MODES = ("intended", "published", "froster", "kl")
LOSS_FUNCS = ("cross_entropy", "soft_cross_entropy", "bce_logit", "mse", "nce_loss")
DECODING_BACKENDS = ("pyav", "torchcodec")

# Patches along one side of the grid at 224 pixels, the only size of OpenAI's archives here.
ARCH_GRIDS = {"vitb32": 7, "vitb16": 14, "vitl14": 16}
RESNETS = ("rn50",)  # of these there are no patches
CLIP_IMAGE_SIZE = 224


# Key -> the values that it may take.
CHOICES: dict[str, tuple[Any, ...]] = {
    "PROTOCOL": PROTOCOL_NAMES,
    "SPLITS.NAMES": ("index2cls", "rephrased"),
    "AVERAGE.METHOD": AVERAGES,
    "EPISODES.VAL": ("val", "test"),
    "EPISODES.HEAD": ("own", "prototype", "otam"),
    "EPISODES.TEST_FRAMES": ("middle", "random"),
    "DIST_BACKEND": ("nccl", "gloo"),
    "TRAIN.DATASET": ("kinetics",),
    "TRAIN.AMP_DTYPE": ("auto", "bfloat16", "float16"),
    "TEST.DATASET": ("kinetics",),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "TEST.PRECISION": ("fp32", "amp"),
    "DATA.FRAME_SAMPLING": ("dense", "pyslowfast", "uniform", "interval"),
    "DATA.CLIP_DTYPE": ("uint8", "float32"),
    "DATA.ENSEMBLE_METHOD": ("sum", "max"),
    "MODEL.MODEL_NAME": ("TemporalClipVideo", "BasicClipVideo"),
    "MODEL.LOSS_FUNC": LOSS_FUNCS,
    "MODEL.CLIP_ACTIVATION": ("auto", "quick_gelu", "gelu"),
    "MODEL.TEMPORAL_MODELING_TYPE": TEMPORAL_MODELING_TYPES,
    "MODEL.STCROSS_MLP_INPUT": ("unmerged", "merged"),
    "MODEL.STCROSS_QKV": ("auto", "own", "shared"),
    "MODEL.DISTILLATION_MODE": DISTILLATION_MODES,
    "MODEL.ROUTING_TYPE": ("patch-level", "image-level"),
    "MODEL.LOSS_FREQ_TYPE": ("mse", "hinge"),
    "AUG.INTERPOLATION": ("bicubic", "bilinear", "random"),
    "AUG.RE_MODE": ("pixel", "rand", "const"),
    "AUG.JITTER_PER": ("frame", "clip"),
    "MIXUP.PARTNER": ("mirrored", "permuted"),
    "SOLVER.LR_POLICY": ("cosine", "cosine_shared_end", "steps_with_relative_lrs"),
    "SOLVER.OPTIMIZING_METHOD": ("sgd", "adam", "adamw", "mt_adamw"),
    "SOLVER.LAYER_DECAY": (1.0,),
}

# Key -> (lowest, highest) value; None for no bound.
RANGES: dict[str, tuple[float, float | None]] = {
    "NUM_GPUS": (0, None),
    "NUM_SHARDS": (1, None),
    "SHARD_ID": (0, None),
    "RNG_SEED": (0, 2**32 - 1),
    "LOG_PERIOD": (1, None),
    "DIST_TIMEOUT_MINUTES": (0.01, 7 * 24 * 60),
    "SPLITS.SHOTS": (1, None),
    "SPLITS.SEED": (1, None),
    "SPLITS.NUMBER": (1, 3),
    "EPISODES.WAY": (2, None),
    "EPISODES.WAY_TEST": (0, None),
    "EPISODES.SHOT": (1, None),
    "EPISODES.SHOT_TEST": (0, None),
    "EPISODES.QUERY": (1, None),
    "EPISODES.QUERY_TEST": (1, None),
    "EPISODES.NUM_TRAIN": (1, None),
    "EPISODES.NUM_VAL": (1, None),
    "EPISODES.NUM_TEST": (1, None),
    "EPISODES.SEED": (0, None),
    "EPISODES.SMOOTHING": (1e-3, None),
    "EPISODES.MEMO_GB": (0, None),
    "AVERAGE.START": (0, None),
    "AVERAGE.END": (0, None),
    "TRAIN.BATCH_SIZE": (1, None),
    "TRAIN.EVAL_PERIOD": (1, None),
    "TRAIN.CHECKPOINT_PERIOD": (1, None),
    "TRAIN.KEEP_LAST_CHECKPOINTS": (0, None),
    "TRAIN.CHECKPOINT_STEPS": (0, None),
    "TRAIN.CHECKPOINT_MINUTES": (0, None),
    "TRAIN.KEEP_LAST_WITHIN_EPOCH": (1, None),
    "TRAIN.NONFINITE_BUDGET": (0, None),
    "TRAIN.ACCUMULATION_STEPS": (1, None),
    "TRAIN.KILL_LOSS_EXPLOSION_FACTOR": (0, None),
    "TEST.BATCH_SIZE": (1, None),
    "TEST.PATCHING_RATIO": (0, 1),
    "DATA.NUM_FRAMES": (1, None),
    "DATA.SAMPLING_RATE": (1, None),
    "DATA.TARGET_FPS": (1, None),
    "DATA.TRAIN_JITTER_FPS": (0, None),
    "DATA.CACHE_GB": (0, None),
    "DATA.MAX_BAD_FRACTION": (0, 1),
    "DATA.TRAIN_CROP_SIZE": (1, None),
    "DATA.TEST_CROP_SIZE": (1, None),
    "DATA_LOADER.NUM_WORKERS": (0, None),
    "DATA_LOADER.TIMEOUT_SECONDS": (1, None),
    "TRAIN.LINEAR_CONNECT_LOSS_RATIO": (0, None),
    "TRAIN.LINEAR_CONNECT_SAMPLE_L": (0, 1),
    "TRAIN.LINEAR_CONNECT_SAMPLE_R": (0, 1),
    "AUG.NUM_SAMPLE": (1, None),
    "AUG.COLOR_JITTER": (0, None),
    "AUG.RE_PROB": (0, 1),
    "AUG.RE_COUNT": (1, None),
    "AUG.FRAME_JITTER_PROB": (0, 1),
    "AUG.GRAY_PROB": (0, 1),
    "MIXUP.ALPHA": (0, None),
    "MIXUP.CUTMIX_ALPHA": (0, None),
    "MIXUP.PROB": (0, 1),
    "MIXUP.SWITCH_PROB": (0, 1),
    "MIXUP.LABEL_SMOOTH_VALUE": (0, 1),
    "MIXUP.GROUP_SIZE": (0, None),
    "MODEL.NUM_CLASSES": (1, None),
    "MODEL.MASK_RATE": (0, 1),
    "MODEL.CHANNEL_FOLD": (2, None),
    "MODEL.DISTILLATION_RATIO": (0, None),
    "MODEL.PROMPT_NUM": (1, 75),
    "MODEL.NUM_EXPERTS": (0, None),
    "MODEL.ENSEMBLE_RAWMODEL_RATIO": (0, 1),
    "MODEL.ROUTING_FREQUENCE_CONSTRAIN": (0, 1),
    "MODEL.ROUTING_FREQ_CONS_FACTOR": (0, None),
    "MODEL.CLS_LOSS_RATIO": (0, None),
    "MODEL.FINETUNE_FACTOR": (0, None),
    "MODEL.ADAPT_FINETUNE_FACTOR": (0, None),
    "MODEL.MLP_FINETUNE_FACTOR": (0, None),
    "MODEL.EXPERT_FINETUNE_FACTOR": (0, None),
    "MODEL.ROUTING_FINETUNE_FACTOR": (0, None),
    "MODEL.DEFAULT_FINETUNE_FACTOR": (0, None),
    "SOLVER.BASE_LR": (0, None),
    "SOLVER.MAX_EPOCH": (1, None),
    "SOLVER.WARMUP_EPOCHS": (0, None),
    "SOLVER.WARMUP_START_LR": (0, None),
    "SOLVER.COSINE_END_LR": (0, None),
    "SOLVER.COSINE_RESTART_EPOCH": (0, None),
    "SOLVER.WEIGHT_DECAY": (0, None),
    "SOLVER.MOMENTUM": (0, 1),
    "DEMO.TOPK": (1, None),
}

# Keys whose default is None and which, once set, must be text or a positive number.
OPTIONAL_PATHS = ("TRAIN.CUSTOM_LOAD_FILE", "TRAIN.CLIP_ORI_PATH", "TEST.CUSTOM_LOAD_FILE", "TEST.CLIP_ORI_PATH")
OPTIONAL_NUMBERS = ("SOLVER.CLIP_GRAD_VAL", "SOLVER.CLIP_GRAD_L2NORM")

# Key -> published values that are refused -> why.
REFUSED: dict[str, dict[str, str]] = {
    "MODEL.MODEL_NAME": {
        "ClipImage": "classifies images, which is not part of this project",
        "SlowFast": "is one of PySlowFast's networks, which are not part of this project",
    },
    "MODEL.LOSS_FUNC": {
        "bce": "needs probabilities, and CLIP's scores are none; use bce_logit",
        "contrastive_loss": "belongs to contrastive learning, which is not part of this project",
        "multi_mse": "belongs to masked pre-training, which is not part of this project",
    },
}


def is_number(value: object) -> bool:
    """Whether a value is a finite integer or float; a truth value is neither."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def is_count(value: object) -> bool:
    """Whether a value is an integer of at least 1."""
    return type(value) is int and value >= 1


def is_text(value: object) -> bool:
    """Whether a value is a string that is not empty."""
    return isinstance(value, str) and bool(value)


Lists = Mapping[str, tuple[Callable[[Any], bool], tuple[int, ...] | None, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedValues:
    """What single keys may hold: the tables of this module and those of the methods."""

    choices: Mapping[str, tuple[Any, ...]]
    ranges: Mapping[str, tuple[float, float | None]]
    lists: Lists


# Key -> (test of one element, allowed lengths or None, what is expected, in words).
LISTS: dict[str, tuple[Callable[[Any], bool], tuple[int, ...] | None, str]] = {
    "DATA.MEAN": (is_number, (3,), "three numbers"),
    "DATA.STD": (lambda x: is_number(x) and x > 0, (3,), "three numbers > 0"),
    "DATA.TRAIN_JITTER_SCALES": (lambda x: is_number(x) and x > 0, (2,), "two numbers > 0"),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": (lambda x: is_number(x) and x > 0, (0, 2), "no or two numbers > 0"),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": (lambda x: is_number(x) and x > 0, (0, 2), "no or two numbers > 0"),
    "TEST.PATCHING_RATIOS": (lambda x: is_number(x) and 0 <= x <= 1, None, "a list of numbers in [0, 1]"),
    "DATA.TRAIN_CROP_SCALES": (lambda x: is_number(x) and 0 < x <= 1, None, "a list of numbers > 0 and <= 1"),
    "AUG.FRAME_JITTER": (lambda x: is_number(x) and x >= 0, (4,), "four numbers >= 0"),
    "TEST.NUM_TEMPORAL_CLIPS": (is_count, None, "a list of integers >= 1"),
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": (is_text, None, "a list of non-empty strings"),
    "MODEL.MASK_STRIDE": (is_count, (3,), "three integers >= 1"),
    "MODEL.EXPERT_INSERT_LAYERS": (lambda x: type(x) is int and x >= 0, None, "a list of integers >= 0"),
    "SOLVER.BETAS": (lambda x: is_number(x) and 0 <= x < 1, (2,), "two numbers in [0, 1)"),
    "SOLVER.STEPS": (is_number, None, "a list of numbers"),
    "SOLVER.LRS": (is_number, None, "a list of numbers"),
    "DEMO.VIDEOS": (is_text, None, "a list of non-empty strings"),
    "DEMO.CLASSES": (is_text, None, "a list of non-empty strings"),
    "DEMO.EXPLAIN_LAYERS": (is_count, None, "a list of integers >= 1"),
}
