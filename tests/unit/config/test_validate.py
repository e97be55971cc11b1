"""Each check of values, with its exact message."""

import pytest

from slowfast.config import values
from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.node import ConfigError

CHOSEN = ["MODEL.MODEL_NAME", "TemporalClipVideo", "MODEL.ARCH", "vitb16", "DATA.TEST_CROP_SIZE", 224]
CROP_SCALES = [
    *("DATA.TRAIN_CROP_SCALES", [1, 0.75]),
    *("DATA.TRAIN_JITTER_SCALES_RELATIVE", [0.1, 1], "DATA.TRAIN_JITTER_ASPECT_RELATIVE", [0.5, 2]),
]
SQUASH = ["DATA.SQUASH", True, "TEST.NUM_SPATIAL_CROPS", 1]
FROSTER = ["MODEL.KEEP_RAW_MODEL", True, "MODEL.RAW_MODEL_DISTILLATION", True, "MODEL.DISTILLATION_MODE", "froster"]
TYPES = ", ".join(map(repr, values.TEMPORAL_MODELING_TYPES))
STDD = ["MODEL.TEMPORAL_MODELING_TYPE", "stcross_attend"]


def check(*overrides):
    cfg = get_cfg()
    cfg.merge_from_list([*CHOSEN, *overrides])
    return assert_and_infer_cfg(cfg)


@pytest.mark.parametrize(
    "overrides",
    [
        STDD,
        ["NUM_GPUS", 0],
        ["NUM_GPUS", 4],
        ["NUM_SHARDS", 2, "SHARD_ID", 1],
        ["TEST.NUM_ENSEMBLE_VIEWS", -1],
        ["TEST.NUM_SPATIAL_CROPS", 1],
        ["TEST.NUM_TEMPORAL_CLIPS", [1, 3]],
        ["MODEL.KEEP_RAW_MODEL", True, "MODEL.RAW_MODEL_DISTILLATION", True],
        ["MODEL.ARCH", "custom", "MODEL.CLIP_WEIGHTS", "a.pt", "DATA.TRAIN_CROP_SIZE", 48, "DATA.TEST_CROP_SIZE", 48],
        ["MODEL.ARCH", "vitb32", *STDD, "MODEL.MASK_STRIDE", [1, 1, 7]],
        ["MODEL.ARCH", "vitl14", *STDD, "MODEL.MASK_STRIDE", [1, 4, 4]],
        ["MODEL.ARCH", "rn50"],
        ["MODEL.MASK_RATE", 0, *STDD],
        ["SOLVER.CLIP_GRAD_L2NORM", 1],
        ["SOLVER.LR_POLICY", "steps_with_relative_lrs", "SOLVER.STEPS", [0, 10], "SOLVER.LRS", [1, 0.1]],
        ["TEST.PATCHING_MODEL", True],
        [*SQUASH, "DATA.FRAME_SAMPLING", "interval", "DATA.SAMPLING_RATE", 35, "DATA.TARGET_FPS", 12],
        [*SQUASH, "DATA.INV_UNIFORM_SAMPLE", True],
        ["AUG.JITTER_PER", "clip"],
        ["TRAIN.KEEP_BEST", True, "TRAIN.EVAL_PERIOD", 4, "TRAIN.CHECKPOINT_PERIOD", 2],
        ["TEST.PATCHING_RATIOS", [0.0, 0.3, 1]],
        ["SOLVER.WARMUP_EPOCHS", 2, "SOLVER.MAX_EPOCH", 1, "SOLVER.COSINE_AFTER_WARMUP", True],
    ],
)
def test_allowed(overrides):
    check(*overrides)


@pytest.mark.parametrize("key", values.RANGES)
def test_every_range_has_a_lower_end(key):
    low, high = values.RANGES[key]
    with pytest.raises(ConfigError) as caught:
        check(key, low - 1)
    allowed = f"at least {low}" if high is None else f"from {low} to {high}"
    assert str(caught.value).startswith(f"{key}: ")
    assert str(caught.value).endswith(f" is out of range; allowed: {allowed}")


@pytest.mark.parametrize("key", [key for key in values.CHOICES if key != "MODEL.TEMPORAL_MODELING_TYPE"])
def test_every_choice_lists_what_is_allowed(key):
    choices = values.CHOICES[key]
    given = "?" if isinstance(choices[0], str) else type(choices[0])(2)
    with pytest.raises(ConfigError) as caught:
        check(key, given)
    assert str(caught.value) == f"{key}: unknown value {given!r}; allowed: {', '.join(map(repr, choices))}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["MODEL.TEMPORAL_MODELING_TYPE", "stcross_attn"],
            "MODEL.TEMPORAL_MODELING_TYPE: unknown value 'stcross_attn'; did you mean 'stcross_attend'? "
            "allowed: " + TYPES,
        ),
        (
            ["MODEL.TEMPORAL_MODELING_TYPE", 3],
            "MODEL.TEMPORAL_MODELING_TYPE: unknown value 3; allowed: " + TYPES,
        ),
        (
            ["METHOD", "sttd"],
            "METHOD: unknown value 'sttd'; did you mean 'stdd'? allowed: 'stdd', 'tc_clip', 'ost', 'vifi_clip', "
            "'clip_fsar'",
        ),
        (
            ["MODEL.MODEL_NAME", "ClipImage"],
            "MODEL.MODEL_NAME: 'ClipImage' classifies images, which is not part of this project; "
            "allowed: 'TemporalClipVideo', 'BasicClipVideo'",
        ),
        (
            ["MODEL.MODEL_NAME", "X"],
            "MODEL.MODEL_NAME: unknown value 'X'; allowed: 'TemporalClipVideo', 'BasicClipVideo'",
        ),
        (
            ["MODEL.LOSS_FUNC", "bce"],
            "MODEL.LOSS_FUNC: 'bce' needs probabilities, and CLIP's scores are none; use bce_logit; "
            "allowed: 'cross_entropy', 'soft_cross_entropy', 'bce_logit', 'mse', 'nce_loss'",
        ),
        (
            ["MODEL.ENSEMBLE_PRED", True],
            "MODEL.ENSEMBLE_PRED: True needs the frozen CLIP; set MODEL.KEEP_RAW_MODEL True",
        ),
        (
            ["MODEL.TEXT_PROMPT", True, "TUNE_HEAD", True],
            "MODEL.TEXT_PROMPT: True makes the classifier from learned context; set TUNE_HEAD False",
        ),
        (
            [*FROSTER, "DATA.TEXT_AUG", True, "DATA.TEXT_AUG_FEATURE_FILE", "a.pt"],
            "MODEL.DISTILLATION_MODE: 'froster' trains the text tower; set DATA.TEXT_AUG False",
        ),
        (
            ["TRAIN.LINEAR_CONNECT_CLIMB", True, "TRAIN.LINEAR_CONNECT_SAMPLE_L", 0.6],
            "TRAIN.LINEAR_CONNECT_SAMPLE_L: 0.6 must be below TRAIN.LINEAR_CONNECT_SAMPLE_R, which is 0.6",
        ),
        (
            ["TRAIN.LINEAR_CONNECT_CLIMB", True, "TRAIN.LINEAR_CONNECT_LOSS_RATIO", 0],
            "TRAIN.LINEAR_CONNECT_LOSS_RATIO: 0 leaves nothing of TRAIN.LINEAR_CONNECT_CLIMB; allowed: above 0",
        ),
        (
            ["MIXUP.ENABLE", True, "MIXUP.ALPHA", 0, "MIXUP.CUTMIX_ALPHA", 0],
            "MIXUP.ALPHA: is 0 and MIXUP.CUTMIX_ALPHA too; one of them must be above 0 to mix anything",
        ),
        (
            ["MIXUP.ENABLE", True, "MIXUP.LABEL_SMOOTH_VALUE", 1],
            "MIXUP.LABEL_SMOOTH_VALUE: 1 leaves nothing of the labels; allowed: at least 0, below 1",
        ),
        (
            ["AUG.ENABLE", True, "AUG.RE_SPLIT", True],
            "AUG.RE_SPLIT: True keeps the first crop whole, and AUG.NUM_SAMPLE 1 makes no other; set it to 2",
        ),
        (
            ["MIXUP.GROUP_SIZE", 1],
            "MIXUP.GROUP_SIZE: 1 leaves a clip nothing to mix with; allowed: 0, or 2 and more",
        ),
        (
            ["MIXUP.PARTNER", "next"],
            "MIXUP.PARTNER: unknown value 'next'; allowed: 'mirrored', 'permuted'",
        ),
        (
            ["AUG.FRAME_JITTER", [0.4, 0.4, 0.2, 0.6]],
            "AUG.FRAME_JITTER: a hue of 0.6 turns; allowed: at most 0.5",
        ),
        (
            ["AUG.FRAME_JITTER", [0.4]],
            "AUG.FRAME_JITTER: expected four numbers >= 0, found [0.4]",
        ),
        (
            ["DATA.TRAIN_CROP_SCALES", [1, 1.5]],
            "DATA.TRAIN_CROP_SCALES: expected a list of numbers > 0 and <= 1, found [1, 1.5]",
        ),
        (
            CROP_SCALES,
            "DATA.TRAIN_CROP_SCALES: choose it or DATA.TRAIN_JITTER_SCALES_RELATIVE; allowed beside it: []",
        ),
        (
            [*SQUASH, "DATA.TRAIN_CROP_SCALES", [1, 0.75]],
            "DATA.SQUASH: choose it or DATA.TRAIN_CROP_SCALES; allowed beside it: []",
        ),
        (
            [*SQUASH, *CROP_SCALES[2:]],
            "DATA.SQUASH: choose it or DATA.TRAIN_JITTER_SCALES_RELATIVE; allowed beside it: []",
        ),
        (
            ["DATA.SQUASH", True],
            "TEST.NUM_SPATIAL_CROPS: 3 crops lie along the long side, and DATA.SQUASH True leaves none; allowed: 1",
        ),
        (
            ["AUG.JITTER_PER", "video"],
            "AUG.JITTER_PER: unknown value 'video'; allowed: 'frame', 'clip'",
        ),
        (
            ["SOLVER.LR_POLICY", "cosine_shared_end", "SOLVER.COSINE_AFTER_WARMUP", True],
            "SOLVER.COSINE_AFTER_WARMUP: True belongs to SOLVER.LR_POLICY 'cosine'; allowed: False",
        ),
        (
            ["SOLVER.LR_POLICY", "cosine_shared_end", "SOLVER.COSINE_RESTART_EPOCH", 3],
            "SOLVER.COSINE_RESTART_EPOCH: 3 belongs to SOLVER.LR_POLICY 'cosine'; allowed: 0",
        ),
        (
            ["SOLVER.LR_POLICY", "cosine_shared_end", "SOLVER.COSINE_END_LR", 1.0],
            "SOLVER.COSINE_END_LR: 1.0 must be below SOLVER.BASE_LR, which is 0.1",
        ),
        (
            ["MIXUP.ENABLE", True, "TRAIN.BATCH_SIZE", 1],
            "TRAIN.BATCH_SIZE: 1 leaves MIXUP nothing to mix a clip with; allowed: above 1",
        ),
        (
            ["MODEL.EXPERT_INSERT_LAYERS", [1, 1]],
            "MODEL.EXPERT_INSERT_LAYERS: [1, 1] names a block twice",
        ),
        (
            ["MODEL.RECORD_ROUTING", True],
            "MODEL.RECORD_ROUTING: True needs experts to route between; set MODEL.NUM_EXPERTS",
        ),
        (
            ["MODEL.ARCH", "vitb15"],
            "MODEL.ARCH: unknown value 'vitb15'; did you mean 'vitb16'? "
            "allowed: 'vitb32', 'vitb16', 'vitl14', 'rn50', 'custom'",
        ),
        (
            ["MODEL.ARCH", "custom", "MODEL.CLIP_WEIGHTS", "random"],
            "MODEL.CLIP_WEIGHTS: 'random' gives no sizes for MODEL.ARCH 'custom'; allowed: a file",
        ),
        (
            ["DATA.DECODING_BACKEND", "torchvision"],
            "DATA.DECODING_BACKEND: 'torchvision' is not supported, its video reader was removed from torchvision; "
            "allowed: 'pyav', 'torchcodec'",
        ),
        (
            ["TRAIN.KEEP_BEST", True, "TRAIN.EVAL_PERIOD", 3, "TRAIN.CHECKPOINT_PERIOD", 2],
            "TRAIN.KEEP_BEST: True needs a checkpoint of every validated epoch, but TRAIN.EVAL_PERIOD 3 is not a "
            "multiple of TRAIN.CHECKPOINT_PERIOD 2",
        ),
        (["NUM_GPUS", 3], "TRAIN.BATCH_SIZE: 64 is not a multiple of NUM_GPUS, which is 3"),
        (["SHARD_ID", 1], "SHARD_ID: 1 must be below NUM_SHARDS, which is 1"),
        (
            ["TEST.NUM_ENSEMBLE_VIEWS", 0],
            "TEST.NUM_ENSEMBLE_VIEWS: 0 is out of range; allowed: at least 1, or -1 for a series",
        ),
        (["TEST.NUM_SPATIAL_CROPS", 2], "TEST.NUM_SPATIAL_CROPS: unknown value 2; allowed: 1, 3"),
        (["TEST.NUM_TEMPORAL_CLIPS", [0]], "TEST.NUM_TEMPORAL_CLIPS: expected a list of integers >= 1, found [0]"),
        (
            ["DATA.PATH_LABEL_SEPARATOR", ""],
            "DATA.PATH_LABEL_SEPARATOR: is empty; allowed: one or more characters such as ','",
        ),
        (["DATA.MEAN", [0.5]], "DATA.MEAN: expected three numbers, found [0.5]"),
        (["DATA.STD", [1, 1, 0]], "DATA.STD: expected three numbers > 0, found [1, 1, 0]"),
        (
            ["DATA.TRAIN_JITTER_SCALES", [320, 256]],
            "DATA.TRAIN_JITTER_SCALES: the lower end comes first, found [320, 256]",
        ),
        (
            ["DATA.TRAIN_JITTER_SCALES", [128, 256]],
            "DATA.TRAIN_JITTER_SCALES: a short side of 128 pixels is less than DATA.TRAIN_CROP_SIZE, which is 224",
        ),
        (
            ["DATA.TRAIN_JITTER_SCALES_RELATIVE", [0.1, 1.0]],
            "DATA.TRAIN_JITTER_SCALES_RELATIVE: set it together with DATA.TRAIN_JITTER_ASPECT_RELATIVE, or neither",
        ),
        (
            ["DATA.TEXT_AUG", True],
            "DATA.TEXT_AUG_FEATURE_FILE: is empty, but DATA.TEXT_AUG is True; name a file (K, n, E)",
        ),
        (
            ["DATA.TRAIN_CROP_SIZE", 112],
            "DATA.TRAIN_CROP_SIZE: 112 does not fit MODEL.ARCH 'vitb16'; allowed: 224",
        ),
        (
            [*STDD, "MODEL.MASK_STRIDE", [1, 3, 2]],
            "MODEL.MASK_STRIDE: [1, 3, 2] does not divide the 14x14 patches of MODEL.ARCH 'vitb16'; "
            "allowed for rows and columns: [1, 2, 7, 14]",
        ),
        (
            [*STDD, "MODEL.ARCH", "vitb32"],
            "MODEL.MASK_STRIDE: [1, 2, 2] does not divide the 7x7 patches of MODEL.ARCH 'vitb32'; "
            "allowed for rows and columns: [1, 7]",
        ),
        (
            [*STDD, "MODEL.ARCH", "rn50"],
            "MODEL.TEMPORAL_MODELING_TYPE: 'stcross_attend' needs a ViT, and MODEL.ARCH is 'rn50'; allowed: None",
        ),
        (
            ["MODEL.ARCH", "rn50", "MODEL.USE_CHECKPOINT", True],
            "MODEL.USE_CHECKPOINT: True needs a ViT, and MODEL.ARCH is 'rn50'; allowed: False",
        ),
        (
            ["MODEL.MASK_STRIDE", [2, 2, 2]],
            "MODEL.MASK_STRIDE: the first number, in time, must be 1, found [2, 2, 2]",
        ),
        (["MODEL.MASK_STRIDE", [1, 2]], "MODEL.MASK_STRIDE: expected three integers >= 1, found [1, 2]"),
        (["MODEL.MASK_RATE", 1.5], "MODEL.MASK_RATE: 1.5 is out of range; allowed: from 0 to 1"),
        (["MODEL.MASK_RATE", float("nan")], "MODEL.MASK_RATE: nan is out of range; allowed: from 0 to 1"),
        (["MODEL.TEMPORAL_SCALE", []], "MODEL.TEMPORAL_SCALE: expected one or more integers >= 1, found []"),
        (["MODEL.TEMPORAL_SCALE", [0]], "MODEL.TEMPORAL_SCALE: expected one or more integers >= 1, found [0]"),
        (
            ["MODEL.RAW_MODEL_DISTILLATION", True],
            "MODEL.RAW_MODEL_DISTILLATION: True needs the frozen CLIP; set MODEL.KEEP_RAW_MODEL True",
        ),
        (
            ["TEST.CUSTOM_LOAD", True],
            "TEST.CUSTOM_LOAD_FILE: is empty, but TEST.CUSTOM_LOAD is True; name a file",
        ),
        (
            ["TEST.CUSTOM_LOAD", True, "TEST.CUSTOM_LOAD_FILE", "a", "TEST.PATCHING_MODEL", True],
            "TEST.CLIP_ORI_PATH: is empty, but TEST.PATCHING_MODEL is True; name the raw CLIP archive",
        ),
        (
            ["TEST.CHECKPOINT_FILE_PATH", "a", "TEST.PATCHING_MODEL", True],
            "TEST.PATCHING_MODEL: True mixes CLIP into TEST.CUSTOM_LOAD_FILE, not into TEST.CHECKPOINT_FILE_PATH; "
            "set TEST.CUSTOM_LOAD True",
        ),
        (
            ["TEST.PATCHING_RATIOS", [0.0, 1.1]],
            "TEST.PATCHING_RATIOS: expected a list of numbers in [0, 1], found [0.0, 1.1]",
        ),
        (["TEST.PATCHING_RATIOS", [0.3, 0, 0.3]], "TEST.PATCHING_RATIOS: [0.3, 0, 0.3] names a share twice"),
        (
            ["TEST.PATCHING_MODEL", True, "TEST.PATCHING_RATIOS", [0.3]],
            "TEST.PATCHING_RATIOS: [0.3] and TEST.PATCHING_MODEL True both mix raw CLIP in; set PATCHING_MODEL False, "
            "or PATCHING_RATIOS []",
        ),
        (["TRAIN.CUSTOM_LOAD_FILE", 3], "TRAIN.CUSTOM_LOAD_FILE: expected a path or None, found 3"),
        (["SOLVER.CLIP_GRAD_VAL", 0], "SOLVER.CLIP_GRAD_VAL: expected a number > 0 or None, found 0"),
        (
            ["SOLVER.COSINE_END_LR", 0.1],
            "SOLVER.COSINE_END_LR: 0.1 must be below SOLVER.BASE_LR, which is 0.1",
        ),
        (
            ["SOLVER.LR_POLICY", "steps_with_relative_lrs"],
            "SOLVER.STEPS: [] must start at 0, increase, and have one entry for each of SOLVER.LRS []",
        ),
        (["TEST.DATASET", "ssv2"], "TEST.DATASET: unknown value 'ssv2'; allowed: 'kinetics'"),
    ],
)  # fmt: skip
def test_refused(overrides, message):
    with pytest.raises(ConfigError) as caught:
        check(*overrides)
    assert str(caught.value) == message


EPISODIC = ["PROTOCOL", "episodic", "SPLITS.DATASET", "ucf101", "TRAIN.ENABLE", False, "TEST.ENABLE", False]
TESTED = [*EPISODIC, "TEST.ENABLE", True, "TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 1]
TRAINED = [*EPISODIC, "TRAIN.ENABLE", True, "EPISODES.TRAIN", True]
MIXED = ["MIXUP.ENABLE", True]


@pytest.mark.parametrize(
    "overrides",
    [
        TESTED,
        TRAINED,
        [*TESTED, *TRAINED, "TEST.ENABLE", True],
        [*TRAINED, "TEST.NUM_ENSEMBLE_VIEWS", 10, "TEST.NUM_SPATIAL_CROPS", 3],  # nothing is tested
        [*TRAINED, "TEST.NUM_TEMPORAL_CLIPS", [1, 2]],
        [*TRAINED, "EPISODES.TRAIN", False, *MIXED, "AUG.NUM_SAMPLE", 2],  # of videos one by one
        [*TESTED, *MIXED, "AUG.NUM_SAMPLE", 2, "EPISODES.TRAIN", True],  # nothing is trained
        [*TESTED, "TEST.NUM_TEMPORAL_CLIPS", []],
        [*TESTED, "TEST.NUM_TEMPORAL_CLIPS", [1]],
        [*TESTED, "EPISODES.WAY_TEST", 0, "EPISODES.SHOT_TEST", 0],
        [*TESTED, "EPISODES.WAY_TEST", 2, "EPISODES.SHOT_TEST", 1, "EPISODES.BENCHMARK", "ssv2_small"],
        ["EPISODES.WAY_TEST", 1],  # nobody reads it
    ],
)
def test_episodes_allowed(overrides):
    check(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["EPISODES.TRAIN", True],
            "EPISODES.TRAIN: True, but PROTOCOL is 'single_dataset'; allowed: PROTOCOL 'episodic'",
        ),
        (
            [*TESTED, "EPISODES.WAY_TEST", 1],
            "EPISODES.WAY_TEST: 1 leaves nothing to tell apart; allowed: 0 for EPISODES.WAY, or 2 and more",
        ),
        (
            [*TESTED, "TEST.NUM_ENSEMBLE_VIEWS", 3],
            "TEST.NUM_ENSEMBLE_VIEWS: 3, but PROTOCOL is 'episodic'; allowed: 1",
        ),
        (
            [*TESTED, "TEST.NUM_SPATIAL_CROPS", 3],
            "TEST.NUM_SPATIAL_CROPS: 3, but PROTOCOL is 'episodic'; allowed: 1",
        ),
        (
            [*TESTED, "TEST.NUM_TEMPORAL_CLIPS", [1, 2]],
            "TEST.NUM_TEMPORAL_CLIPS: [1, 2], but PROTOCOL is 'episodic'; allowed: [] or [1]",
        ),
        (
            [*TESTED, "TEST.NUM_TEMPORAL_CLIPS", [3]],
            "TEST.NUM_TEMPORAL_CLIPS: [3], but PROTOCOL is 'episodic'; allowed: [] or [1]",
        ),
        ([*TRAINED, *MIXED], "MIXUP.ENABLE: True, but PROTOCOL is 'episodic'; allowed: False"),
        ([*TRAINED, "AUG.NUM_SAMPLE", 2], "AUG.NUM_SAMPLE: 2, but PROTOCOL is 'episodic'; allowed: 1"),
        (
            ["EPISODES.BENCHMARK", "/elsewhere"],
            "EPISODES.BENCHMARK: '/elsewhere' is an absolute path; allowed: a name inside SPLITS.LABEL_DB",
        ),
        ([*TESTED, "EPISODES.WAY", 1], "EPISODES.WAY: 1 is out of range; allowed: at least 2"),
        ([*TESTED, "SPLITS.DATASET", ""], "SPLITS.DATASET: is empty, but PROTOCOL is 'episodic'"),
    ],
)
def test_episodes_refused(overrides, message):
    with pytest.raises(ConfigError) as caught:
        check(*overrides)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["../x", "a/../../b"])
def test_a_benchmark_lies_inside_its_dataset(name):
    with pytest.raises(ConfigError, match=r"^EPISODES\.BENCHMARK: .*; allowed: a name inside SPLITS\.LABEL_DB$"):
        check(*TESTED, "EPISODES.BENCHMARK", name)
