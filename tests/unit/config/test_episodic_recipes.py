"""CLIP-FSAR's recipes have the published schedule, place by place; any encoder has a file for episodes."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from slowfast.config.defaults import assert_and_infer_cfg
from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.sampler import TrainBatchSampler
from slowfast.engine.build import build_episode_head, build_lr_schedule
from slowfast.engine.checkpoint_files import is_checkpoint_due
from slowfast.engine.lr_policy import learning_rate
from slowfast.methods.build import build_method
from slowfast.methods.clip_fsar.config import ClipFsarConfig
from slowfast.models.episode_heads import OtamHead
from slowfast.utils.parser import load_config

ROOT = Path(__file__).resolve().parents[3]
ITERATIONS_PER_STEP = 4
"""Published iterations, of one episode on each of 4 GPUs, between two updates."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the official file of a benchmark says, and what its code makes of it."""

    file: str
    dataset: str
    base_lr: float
    start_lr: float
    period: int
    """SOLVER.STEPS_ITER: the schedule counts an epoch twice in so many iterations."""
    steps: tuple[int, ...] = (0, 4, 6)
    iterations: int
    validation_period: int
    num_validations: int
    weight: float
    seed: int = 0
    num_classes: int

    def lr(self, iteration):
        """The rate of an iteration, as published."""
        epoch = iteration // self.period + iteration / self.period
        if epoch < 1:
            return self.start_lr + epoch * (self.base_lr - self.start_lr)
        stage = sum(step <= epoch for step in self.steps) - 1
        return self.base_lr * (1, 0.1, 0.01)[stage]


SSV2 = {
    "dataset": "ssv2", "base_lr": 5e-5, "iterations": 30000, "validation_period": 1000, "num_validations": 30,
    "weight": 3.0, "num_classes": 64,
}  # fmt: skip
PUBLISHED = {
    "ssv2_full": Published(file="SSv2/CLIPFSAR_{}_8f_full_{}shot", start_lr=1e-5, period=4000, **SSV2),
    "ssv2_small": Published(file="SSv2/CLIPFSAR_{}_8f_small_{}shot", start_lr=2e-5, period=2000, **SSV2),
    "hmdb51": Published(
        file="HMDB51/CLIPFSAR_{}_8f_{}shot", dataset="hmdb51", base_lr=1e-5, start_lr=1e-6, period=700,
        iterations=5000, validation_period=300, num_validations=16, weight=1.2, num_classes=31,
    ),
    "ucf101": Published(
        file="UCF101/CLIPFSAR_{}_8f_{}shot", dataset="ucf101", base_lr=2e-6, start_lr=1e-7, period=600,
        iterations=3000, validation_period=100, num_validations=30, weight=1.5, num_classes=70,
    ),
    "kinetics100": Published(
        file="Kinetics/CLIPFSAR_{}_8f_{}shot", dataset="k400", base_lr=1e-5, start_lr=5e-6, period=250, steps=(0, 6, 9),
        iterations=5000, validation_period=100, num_validations=50, weight=1.5, seed=18, num_classes=64,
    ),
}  # fmt: skip
RATES_OF_VIT = {"ssv2_full": (1e-5, 1e-5), "ssv2_small": (1e-5, 4e-6)}
PLAIN = sorted((ROOT / "configs" / "HMDB51").glob("*_episodic.yaml"))


def load(path, **opts):
    words = [word for pair in opts.items() for word in pair]
    return assert_and_infer_cfg(load_config(argparse.Namespace(opts=words), str(path)))


def recipe(benchmark, arch="rn50", shots=1):
    return load(ROOT / "configs" / f"{PUBLISHED[benchmark].file.format(arch, shots)}.yaml")


def steps_per_epoch(cfg):
    return len(TrainBatchSampler(cfg.EPISODES.NUM_TRAIN, batch_size=cfg.TRAIN.BATCH_SIZE))


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_every_step_has_the_rate_of_its_first_published_iteration(benchmark):
    cfg, published = recipe(benchmark), PUBLISHED[benchmark]
    per_epoch, schedule = steps_per_epoch(cfg), build_lr_schedule(cfg)
    total = per_epoch * cfg.SOLVER.MAX_EPOCH
    assert total * ITERATIONS_PER_STEP == published.iterations
    ours = [learning_rate(step // per_epoch + step % per_epoch / per_epoch, schedule) for step in range(total)]
    assert ours == pytest.approx([published.lr(ITERATIONS_PER_STEP * step) for step in range(total)], rel=1e-9)


def test_places_of_the_published_schedule():
    def rate(benchmark, iteration):
        cfg = recipe(benchmark)
        return learning_rate(iteration / ITERATIONS_PER_STEP / steps_per_epoch(cfg), build_lr_schedule(cfg))

    assert [steps_per_epoch(recipe(name)) * recipe(name).SOLVER.MAX_EPOCH for name in PUBLISHED] == [
        *(7500, 7500, 1250, 750, 1250)
    ]
    for name, (end, second, third) in {
        "ssv2_full": (4000, 8000, 12000), "ssv2_small": (2000, 4000, 6000), "hmdb51": (700, 1400, 2100),
        "ucf101": (600, 1200, 1800), "kinetics100": (250, 750, 1250),
    }.items():  # fmt: skip
        base = PUBLISHED[name].base_lr
        assert rate(name, 0) == pytest.approx(PUBLISHED[name].start_lr)
        assert [rate(name, place) for place in (end, second, third)] == pytest.approx([base, 0.1 * base, 0.01 * base])
        assert rate(name, end - 1) < base
        assert [rate(name, place - 1) for place in (second, third)] == pytest.approx([base, 0.1 * base])
    assert rate("hmdb51", 350) == pytest.approx(5.5e-6)
    assert rate("kinetics100", 125) == pytest.approx(7.5e-6)


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_the_published_recipe(benchmark):
    cfg, published = recipe(benchmark), PUBLISHED[benchmark]
    is_kinetics = benchmark == "kinetics100"
    expected = {
        "METHOD": "clip_fsar", "PROTOCOL": "episodic", "RNG_SEED": published.seed, "NUM_GPUS": 4,
        "SPLITS.DATASET": published.dataset, "EPISODES.BENCHMARK": benchmark, "EPISODES.TRAIN": True,
        "EPISODES.WAY": 5, "EPISODES.SHOT": 1, "EPISODES.SHOT_TEST": 0, "EPISODES.QUERY": 5, "EPISODES.QUERY_TEST": 1,
        "EPISODES.NUM_VAL": 10000, "EPISODES.NUM_TEST": 10000,
        "EPISODES.HEAD": "own", "EPISODES.SMOOTHING": 0.5, "EPISODES.VAL": "val",
        "EPISODES.PLAIN_SUPPORT": is_kinetics,
        "TRAIN.BATCH_SIZE": 16, "TRAIN.ACCUMULATION_STEPS": 4, "TRAIN.MIXED_PRECISION": False, "TRAIN.KEEP_BEST": True,
        "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1,
        "DATA.NUM_FRAMES": 8, "DATA.SQUASH": True, "DATA.TRAIN_JITTER_SCALES": [256, 256], "DATA.TRAIN_CROP_SIZE": 224,
        "DATA.TEST_CROP_SIZE": 224, "DATA.RANDOM_FLIP": is_kinetics, "DATA.MEAN": [0.48145466, 0.4578275, 0.40821073],
        "DATA.FRAME_SAMPLING": "interval" if is_kinetics else "uniform", "AUG.ENABLE": is_kinetics,
        "SOLVER.OPTIMIZING_METHOD": "adam", "SOLVER.WEIGHT_DECAY": 1e-3, "SOLVER.BETAS": (0.9, 0.999),
        "SOLVER.ZERO_WD_1D_PARAM": False, "BN.WEIGHT_DECAY": 0.0, "SOLVER.CLIP_GRAD_L2NORM": None,
        "SOLVER.CLIP_GRAD_VAL": None, "MODEL.ARCH": "rn50", "MODEL.NUM_CLASSES": published.num_classes,
        "CLIP_FSAR.USE_CLASSIFICATION_VALUE": published.weight, "CLIP_FSAR.MERGE_BEFORE": True,
    }  # fmt: skip
    if is_kinetics:
        expected |= {
            "DATA.SAMPLING_RATE": 35, "DATA.TARGET_FPS": 12, "AUG.AA_TYPE": "", "AUG.COLOR_JITTER": 0.0,
            "AUG.RE_PROB": 0.0, "AUG.FRAME_JITTER_PROB": 1.0, "AUG.FRAME_JITTER": [0.5, 0.5, 0.5, 0.25],
            "AUG.JITTER_PER": "clip", "AUG.GRAY_PROB": 0.3,
        }  # fmt: skip
    leaves = cfg.leaves()
    assert {key: leaves[key] for key in expected} == expected
    ClipFsarConfig.from_cfg(cfg)  # refuses what the method does not have


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_validations_are_where_they_were_and_behind_the_last_epoch(benchmark):
    cfg, published = recipe(benchmark), PUBLISHED[benchmark]
    last = cfg.SOLVER.MAX_EPOCH
    per_epoch = steps_per_epoch(cfg) * ITERATIONS_PER_STEP
    due = [
        (epoch + 1) * per_epoch
        for epoch in range(last)
        if is_checkpoint_due(epoch, period=cfg.TRAIN.EVAL_PERIOD, max_epoch=last)
    ]
    wanted = [published.validation_period * (number + 1) for number in range(published.num_validations)]
    assert due == sorted({*wanted, published.iterations})


@pytest.mark.parametrize("benchmark", PUBLISHED)
@pytest.mark.parametrize("arch", ["rn50", "vitb16"])
def test_five_supports_are_a_matter_of_the_test(benchmark, arch):
    one, five = recipe(benchmark, arch).leaves(), recipe(benchmark, arch, 5).leaves()
    assert {key: value for key, value in five.items() if value != one[key]} == {
        "EPISODES.SHOT_TEST": 5,
    }


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_the_vit_has_the_recipe_of_the_resnet_but_for_large_rates(benchmark):
    resnet, vit = recipe(benchmark).leaves(), recipe(benchmark, "vitb16").leaves()
    differing = {key: value for key, value in vit.items() if value != resnet[key]}
    assert differing.pop("MODEL.ARCH") == "vitb16"
    base, start = vit["SOLVER.BASE_LR"], vit["SOLVER.WARMUP_START_LR"]
    assert set(differing) <= {"SOLVER.BASE_LR", "SOLVER.WARMUP_START_LR"}
    assert (base, start) == RATES_OF_VIT.get(benchmark, (resnet["SOLVER.BASE_LR"], resnet["SOLVER.WARMUP_START_LR"]))


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.stem)
def test_any_encoder_has_a_file_for_episodes(path, tiny_weights):
    small = {"TC_CLIP.CONTEXT_TOKEN_K": 5, "TC_CLIP.TOME_R": 4, "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL": [-2, -1]}
    cfg = load(
        path,
        **{"MODEL.ARCH": "custom", "MODEL.CLIP_WEIGHTS": str(tiny_weights)},
        **(small if path.stem.startswith("TCCLIP") else {}),
    )
    leaves, recipe_ = cfg.leaves(), load_config(argparse.Namespace(), str(path)).leaves()
    expected = {
        "PROTOCOL": "episodic", "EPISODES.HEAD": "otam", "EPISODES.TRAIN": False, "TRAIN.ENABLE": False,
        "TEST.NUM_ENSEMBLE_VIEWS": 1, "TEST.NUM_SPATIAL_CROPS": 1, "TEST.PATCHING_RATIOS": [],
        "TEST.CUSTOM_LOAD": not path.stem.startswith("CLIP"),
    }  # fmt: skip
    assert {key: leaves[key] for key in expected} == expected
    frames = 32 if "32f" in path.stem else 16 if "16f" in path.stem else 8
    assert recipe_["DATA.NUM_FRAMES"] == frames
    for classes in ROOT.glob("label_db/*/episodic/*/test_index2cls.json"):
        label_set = LabelSet.from_json(classes)
        method = build_method(cfg, label_set, training=False)
        assert isinstance(build_episode_head(cfg, method, label_set), OtamHead)


def test_five_encoders_meet():
    assert [path.stem for path in PLAIN] == [
        "CLIP_vitb16_8x16_episodic",
        "OST_vitb16_32f_episodic",
        "STDD_vitb16_8x16_episodic",
        "TCCLIP_vitb16_16f_episodic",
        "ViFiCLIP_vitb16_32f_episodic",
    ]
