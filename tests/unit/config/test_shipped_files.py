"""Every YAML file and class list of the repository fits the code."""

import argparse
import json
import re
from pathlib import Path

import pytest
import yaml

from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.legacy import REMOVED
from slowfast.datasets.label_set import LabelSet
from slowfast.methods.ost.config import OstConfig
from slowfast.methods.vifi_clip.config import VifiClipConfig
from slowfast.utils.parser import load_config

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs").rglob("*.y*ml"))
RUNS = [path for path in CONFIGS if path.parent.name != "_base_"]
CLASS_LISTS = sorted((ROOT / "label_db").rglob("*index2cls.json"))
# Two classes that the community's list cuts to the same words: label_db/README.md.
REPEATED = {"label_db/ssv2/base_to_novel/novel_index2cls.json": 1}


def name(path):
    return str(path.relative_to(ROOT))


def load(path):
    return load_config(argparse.Namespace(), str(path))


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_every_file_loads(path):
    load(path)


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_every_run_is_valid(path):
    assert_and_infer_cfg(load(path))


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_every_run_is_short_and_says_what_it_takes(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    header = "\n".join(line for line in lines if line.startswith("#"))
    for word in ("command:", "hardware:", "hours:", "paper:", "ours:"):
        assert word in header
    for mentioned in re.findall(r"configs/\S+\.yaml", header):
        assert (ROOT / mentioned).is_file()


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_class_list_has_as_many_classes_as_the_run(path):
    cfg = load(path)
    if any(path.startswith("runs/") for path in (cfg.DATA.INDEX_LABEL_MAPPING_FILE, cfg.SPLITS.LABEL_DB)):
        return  # written by a run; tests/unit/datasets/test_synthetic.py counts the classes of the rendered one
    label_set = LabelSet.from_json(ROOT / cfg.DATA.INDEX_LABEL_MAPPING_FILE)
    assert len(label_set) == cfg.MODEL.NUM_CLASSES


@pytest.mark.parametrize("path", CLASS_LISTS, ids=name)
def test_class_lists_have_keys_without_gaps_and_unique_names(path):
    names = json.loads(path.read_text(encoding="utf-8"))
    assert list(names) == [str(index) for index in range(len(names))]
    assert len(set(names.values())) == len(names) - REPEATED.get(name(path), 0)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_no_value_is_an_absolute_path(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert not re.search(r"""['"]/\w""", repr(values))


def test_the_official_file_turns_on_what_the_published_code_computes():
    official = load(ROOT / "configs/Kinetics/STDD_vitb16_8x16_official.yaml")
    ours = load(ROOT / "configs/Kinetics/STDD_vitb16_8x16_zeroshot.yaml")
    differing = {key for key, value in official.leaves().items() if value != ours.leaves()[key]}
    assert differing == {
        "MODEL.DISTILLATION_MODE",
        "MODEL.TEMPORAL_SHUFFLE_EVAL",
        "DATA.FRAME_SAMPLING",
        "DATA.CLIP_DTYPE",
        "TRAIN.AMP_DTYPE",
    }
    assert official.MODEL.STCROSS_MLP_INPUT == "unmerged"


# Key values that the papers and official scripts give, by the family's part of the file name.
RECIPES = {
    "STDD": {
        "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend",
        "MODEL.CHANNEL_FOLD": 32,
        "MODEL.TEMPORAL_SCALE": [1, 2],
    },
    "OpenVCLIP": {
        "MODEL.TEMPORAL_MODELING_TYPE": "expand_temporal_view",
        "TRAIN.LINEAR_CONNECT_CLIMB": True,
        "TRAIN.LINEAR_CONNECT_LOSS_RATIO": 0.5,
        "TRAIN.LINEAR_CONNECT_SAMPLE_L": 0.0,
        "TRAIN.LINEAR_CONNECT_SAMPLE_R": 0.6,
        "MODEL.RAW_MODEL_DISTILLATION": False,
    },
    "FROSTER": {
        "MODEL.TEMPORAL_MODELING_TYPE": "expand_temporal_view",
        "MODEL.RAW_MODEL_DISTILLATION": True,
        "MODEL.DISTILLATION_MODE": "froster",
        "MODEL.DISTILLATION_RATIO": 2.0,
        "TRAIN.LINEAR_CONNECT_CLIMB": False,
    },
    "XCLIP": {"MODEL.TEMPORAL_MODELING_TYPE": "cross_frame_attend"},
    "STAdapter": {"MODEL.TEMPORAL_MODELING_TYPE": "stadapt_zeroinit", "MODEL.DEFAULT_FINETUNE_FACTOR": 0.0},
    "CLIP": {"MODEL.TEMPORAL_MODELING_TYPE": None},
}


@pytest.mark.parametrize("family", RECIPES)
@pytest.mark.parametrize(
    ("ending", "epochs"),
    [("vitb16_8x16_zeroshot", 22), ("vitl14_8x16_zeroshot", 22), ("vitb16_8x16_base_to_novel", 12)],
)
def test_every_family_has_its_recipe(family, ending, epochs):
    cfg = load(ROOT / "configs" / "Kinetics" / f"{family}_{ending}.yaml")
    expected = RECIPES[family] | {
        "MODEL.ARCH": ending[:6],
        "SOLVER.MAX_EPOCH": epochs,
        "SOLVER.WARMUP_EPOCHS": 2.0,
        "SOLVER.WEIGHT_DECAY": 0.01,
        "SOLVER.CLIP_GRAD_L2NORM": 1.0,
        "DATA.NUM_FRAMES": 8,
        "DATA.SAMPLING_RATE": 16,
        "TEST.NUM_ENSEMBLE_VIEWS": 3,
        "TEST.NUM_SPATIAL_CROPS": 1,
    }
    if family != "STAdapter":  # its rate is that of untrained weights
        expected |= {"SOLVER.BASE_LR": 3.33e-6, "SOLVER.COSINE_END_LR": 3.33e-8}
    leaves = cfg.leaves()
    assert {key: leaves[key] for key in expected} == expected


# What ViFi-CLIP trains with, and those after it.
VIFI_RECIPE = {
    "RNG_SEED": 1024,
    "DATA.FRAME_SAMPLING": "uniform",
    "DATA.MEAN": [0.485, 0.456, 0.406],  # ImageNet's
    "DATA.STD": [0.229, 0.224, 0.225],
    "DATA.TRAIN_JITTER_SCALES": [256, 256],
    "DATA.TRAIN_CROP_SCALES": [1, 0.875, 0.75, 0.66],
    "DATA.TRAIN_CROP_SIZE": 224,
    "DATA.TEST_CROP_SIZE": 224,
    "DATA.RANDOM_FLIP": True,
    "AUG.ENABLE": True,
    "AUG.FRAME_JITTER_PROB": 0.8,
    "AUG.FRAME_JITTER": [0.4, 0.4, 0.2, 0.1],
    "AUG.GRAY_PROB": 0.2,
    "AUG.AA_TYPE": "",
    "AUG.COLOR_JITTER": 0.0,
    "AUG.RE_PROB": 0.0,
    "SOLVER.OPTIMIZING_METHOD": "adamw",
    "SOLVER.BETAS": (0.9, 0.98),
    "SOLVER.WEIGHT_DECAY": 0.001,
    "SOLVER.ZERO_WD_1D_PARAM": False,
    "SOLVER.CLIP_GRAD_L2NORM": None,
    "SOLVER.LR_POLICY": "cosine_shared_end",
    "SOLVER.WARMUP_START_LR": 0.0,
    "TRAIN.MIXED_PRECISION": True,
}

VIFI_MIXUP = {
    "MIXUP.ENABLE": True,
    "MIXUP.ALPHA": 0.8,
    "MIXUP.CUTMIX_ALPHA": 1.0,
    "MIXUP.PROB": 1.0,
    "MIXUP.SWITCH_PROB": 0.5,
    "MIXUP.LABEL_SMOOTH_VALUE": 0.1,
    "MIXUP.PARTNER": "permuted",
}

TC_CLIP = {"METHOD": "tc_clip", "DATA.NUM_FRAMES": 16, **VIFI_RECIPE, **VIFI_MIXUP}

# Protocol -> epochs, warm-up, rate, videos per step, clips of a GPU at a time, views, crops.
TC_CLIP_PROTOCOLS = {
    "zeroshot": (10, 5.0, 8e-6, 256, 4, 2, 1),
    "zeroshot_llm": (10, 5.0, 8e-6, 256, 2, 2, 1),
    "few_shot": (50, 5.0, 2e-6, 64, 4, 2, 1),
    "few_shot_llm": (50, 5.0, 2e-6, 64, 4, 2, 1),
    "base_to_novel": (12, 2.0, 3.33e-6, 64, 4, 2, 1),
    "base_to_novel_llm": (12, 2.0, 3.33e-6, 64, 4, 2, 1),
    "fully_supervised": (30, 5.0, 2.2e-5, 512, 4, 4, 3),
}


@pytest.mark.parametrize("protocol", TC_CLIP_PROTOCOLS)
def test_tc_clip_has_its_recipes(protocol):
    cfg = load(ROOT / "configs" / "Kinetics" / f"TCCLIP_vitb16_16f_{protocol}.yaml")
    epochs, warmup, rate, batch, clips, views, crops = TC_CLIP_PROTOCOLS[protocol]
    expected = TC_CLIP | {
        "SOLVER.MAX_EPOCH": epochs,
        "SOLVER.WARMUP_EPOCHS": warmup,
        "SOLVER.BASE_LR": rate,
        "TRAIN.BATCH_SIZE": batch,
        "MIXUP.GROUP_SIZE": clips,
        "TEST.NUM_ENSEMBLE_VIEWS": views,
        "TEST.NUM_SPATIAL_CROPS": crops,
        "SPLITS.NAMES": "rephrased" if protocol.endswith("_llm") else "index2cls",
    }
    leaves = cfg.leaves()
    assert {key: leaves[key] for key in expected} == expected
    assert pytest.approx(rate / 100) == cfg.SOLVER.COSINE_END_LR


# File -> epochs, rate, videos per step, frames, views, crops; 8 GPUs with 4 clips each, warm-up of 5 epochs.
VIFI_CLIP_FILES = {
    "32f_zeroshot": (10, 8e-6, 256, 32, 1, 1),
    "32f_zeroshot_image": (10, 8e-6, 256, 32, 1, 1),
    "32f_zeroshot_text": (10, 8e-6, 256, 32, 1, 1),
    "32f_few_shot": (50, 2e-6, 64, 32, 1, 1),
    "32f_few_shot_prompts": (50, 8e-3, 64, 32, 1, 1),
    "32f_base_to_novel": (11, 2e-6, 64, 32, 1, 1),
    "32f_base_to_novel_prompts": (11, 4e-2, 64, 32, 1, 1),
    "16f_fully_supervised": (30, 2.2e-5, 512, 16, 4, 3),
    "16f_fully_supervised_image": (30, 8e-6, 256, 16, 4, 3),
    "16f_fully_supervised_text": (30, 8e-6, 256, 16, 4, 3),
}
OST_FILES = {
    "32f_zeroshot": (10, 8e-6, 256, 32, 1, 1),
    "32f_few_shot": (50, 5e-6, 64, 32, 1, 1),
    "32f_base_to_novel": (11, 2e-6, 64, 32, 1, 1),
    "16f_fully_supervised": (30, 2.2e-5, 512, 16, 4, 3),
}
PROMPTS = {"few_shot_prompts": (10, 10, 12, 12), "base_to_novel_prompts": (16, 16, 9, 9)}


def check_vifi_recipe(cfg, epochs, rate, batch, frames, views, crops):
    expected = VIFI_RECIPE | {
        "NUM_GPUS": 8,
        "SOLVER.MAX_EPOCH": epochs,
        "SOLVER.WARMUP_EPOCHS": 5.0,
        "SOLVER.BASE_LR": rate,
        "TRAIN.BATCH_SIZE": batch,
        "DATA.NUM_FRAMES": frames,
        "TEST.NUM_ENSEMBLE_VIEWS": views,
        "TEST.NUM_SPATIAL_CROPS": crops,
    }
    leaves = cfg.leaves()
    assert {key: leaves[key] for key in expected} == expected
    assert pytest.approx(rate / 100) == cfg.SOLVER.COSINE_END_LR
    assert cfg.TRAIN.BATCH_SIZE == cfg.NUM_GPUS * cfg.TRAIN.ACCUMULATION_STEPS * 4


@pytest.mark.parametrize("file", VIFI_CLIP_FILES)
def test_vifi_clip_has_its_recipes(file):
    cfg = load(ROOT / "configs" / "Kinetics" / f"ViFiCLIP_vitb16_{file}.yaml")
    check_vifi_recipe(cfg, *VIFI_CLIP_FILES[file])
    leaves = cfg.leaves()
    assert {key: leaves[key] for key in VIFI_MIXUP} == VIFI_MIXUP
    assert (cfg.METHOD, cfg.MIXUP.GROUP_SIZE, cfg.TEST.PATCHING_RATIOS) == ("vifi_clip", 4, [])
    own = VifiClipConfig.from_cfg(cfg)
    prompts = PROMPTS.get(file.removeprefix("32f_"))
    assert own.use == (file.rpartition("_")[2] if file.endswith(("_image", "_text")) else "both")
    assert own.prompts_only == (prompts is not None)
    if prompts:
        assert prompts == (own.num_vision_prompts, own.num_text_prompts, own.vision_depth, own.text_depth)


@pytest.mark.parametrize("file", OST_FILES)
def test_ost_has_its_recipes(file):
    cfg = load(ROOT / "configs" / "Kinetics" / f"OST_vitb16_{file}.yaml")
    check_vifi_recipe(cfg, *OST_FILES[file])
    own = OstConfig.from_cfg(cfg)  # refuses mixing
    assert (cfg.METHOD, own.num_descriptors, own.kinds, own.use) == ("ost", 4, ("spatial", "temporal"), "both")
    assert ([0.2, 0.0] if "zeroshot" in file else []) == cfg.TEST.PATCHING_RATIOS


@pytest.mark.parametrize(
    "path", [path for path in RUNS if path.name.startswith(("TCCLIP_vit", "ViFiCLIP_vit"))], ids=name
)
def test_a_group_of_mixup_is_a_part_of_the_accumulation(path):
    cfg = load(path)
    assert cfg.TRAIN.BATCH_SIZE == cfg.NUM_GPUS * cfg.TRAIN.ACCUMULATION_STEPS * cfg.MIXUP.GROUP_SIZE


def keys_in(path):
    """Keys that a page names in full, such as `TRAIN.BATCH_SIZE`; `MODEL.*_FACTOR` stands for several."""
    return set(re.findall(r"`([A-Z][A-Z0-9_]*(?:\.[A-Z][A-Z0-9_]*)+)(?: [^`]*)?`", path.read_text(encoding="utf-8")))


def test_the_page_for_users_of_the_official_code_names_existing_keys_and_all_refused_ones():
    mentioned = keys_in(ROOT / "docs" / "compat.md")
    assert mentioned - set(get_cfg().leaves()) == set()
    assert set(REMOVED) - mentioned == {"IMAGENET_SIMPLELABEL_PATH"}  # has no section, so it looks like a variable
