"""Switches of training, several at a time, on the command line: they train, continue bit-equal, and are tested."""

import json
import math
import shutil

import pytest
import torch

CHECKPOINTS = ("checkpoint_epoch_00001.pyth", "checkpoint_epoch_00002.pyth")
COMBINATIONS = {
    "froster": (
        {
            "DATA.TEXT_AUG": False,
            "MODEL.TEMPORAL_MODELING_TYPE": "expand_temporal_view",
            "MODEL.DISTILLATION_MODE": "froster",
            "MODEL.NUM_EXPERTS": 2,
            "MODEL.EXPERT_INSERT_LAYERS": [1],
            "MODEL.RECORD_ROUTING": True,
            "MODEL.USE_CHECKPOINT": True,
            "TRAIN.LINEAR_CONNECT_CLIMB": True,
            "TRAIN.ACCUMULATION_STEPS": 2,
            "MIXUP.ENABLE": True,
            "AUG.ENABLE": True,
        },
        {"classification", "distillation", "text_distillation", "routing", "interpolated"},
        {"projector_t.2.weight", "model.visual.transformer.resblocks.1.experts_head.1.c_fc.weight"},
    ),
    "kl_text_prompt": (
        {
            "DATA.TEXT_AUG": False,
            "MODEL.TEMPORAL_MODELING_TYPE": "cross_frame_attend",
            "MODEL.DISTILLATION_MODE": "kl",
            "MODEL.TEXT_PROMPT": True,
            "MODEL.PROMPT_NUM": 2,
            "MODEL.ENSEMBLE_PRED": True,
            "MODEL.ENSEMBLE_RAWMODEL_RATIO": 0.3,
            "TRAIN.LINEAR_CONNECT_CLIMB": True,
        },
        {"classification", "distillation", "interpolated"},
        {"prompt_embed", "model.visual.transformer.resblocks.0.message_attn.in_proj_weight"},
    ),
    "tuned_head_and_adapter": (
        {
            "MODEL.TEMPORAL_MODELING_TYPE": "stadapt_zeroinit",
            "MODEL.RAW_MODEL_DISTILLATION": False,
            "TUNE_HEAD": True,
            "MODEL.DEFAULT_FINETUNE_FACTOR": 0.5,
            "MODEL.MLP_FINETUNE_FACTOR": 0,
            "MODEL.ADAPT_FINETUNE_FACTOR": 3.0,
            "MODEL.LOSS_FUNC": "bce_logit",
            "AUG.ENABLE": True,
            "AUG.AA_TYPE": "",
        },
        {"classification"},
        {"head", "model.visual.transformer.resblocks.1.stadapt_up_1.weight"},
    ),
    "recipe_of_tc_clip": (
        {
            "DATA.TEXT_AUG": False,
            "DATA.FRAME_SAMPLING": "uniform",
            "DATA.TRAIN_CROP_SCALES": "[1,0.875,0.75]",
            "AUG.ENABLE": True,
            "AUG.AA_TYPE": "",
            "AUG.COLOR_JITTER": 0,
            "AUG.RE_PROB": 0,
            "AUG.FRAME_JITTER_PROB": 0.8,
            "AUG.GRAY_PROB": 0.2,
            "MIXUP.ENABLE": True,
            "MIXUP.PARTNER": "permuted",
            "MIXUP.GROUP_SIZE": 2,
            "TRAIN.ACCUMULATION_STEPS": 2,
            "MODEL.TEMPORAL_MODELING_TYPE": None,
            "MODEL.RAW_MODEL_DISTILLATION": False,
            "MODEL.MLP_FINETUNE_FACTOR": 10.0,
            "SOLVER.LR_POLICY": "cosine_shared_end",
            "SOLVER.COSINE_AFTER_WARMUP": False,
        },
        {"classification"},
        {"model.visual.transformer.resblocks.1.mlp.c_fc.weight"},
    ),
}


@pytest.fixture
def rephrased(dataset, tmp_path):
    """The class list with a sentence behind each name."""
    names = json.loads((dataset / "classes.json").read_text(encoding="utf-8"))
    path = tmp_path / "rephrased.json"
    path.write_text(json.dumps({key: f"{name}: a bar is {name}" for key, name in names.items()}), encoding="utf-8")
    return path


def states(folder, name):
    content = torch.load(folder / "checkpoints" / name, weights_only=True)
    momenta = content["optimizer_state"]["state"]
    tensors = {f"{slot}.{key}": value for slot, entry in momenta.items() for key, value in entry.items()}
    return content["model_state"], content["model_state"] | tensors


@pytest.mark.parametrize("name", COMBINATIONS)
def test_combination_trains_continues_and_is_tested(net, rephrased, tmp_path, json_lines, name):
    options, terms, entries = COMBINATIONS[name]
    options = {**options, "DATA.INDEX_LABEL_MAPPING_FILE": rephrased}
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    status, _, err = net({"OUTPUT_DIR": straight, **options})
    assert (status, err) == (0, "")
    lines = json_lines(straight / "json_stats.log")
    epochs = [line for line in lines if line.get("_type") == "train_epoch"]
    assert len(epochs) == 2
    for line in epochs:
        assert {key.removeprefix("loss_") for key in line if key.startswith("loss_")} == terms
        assert all(math.isfinite(value) for key, value in line.items() if key.startswith("loss"))
    assert json.loads((straight / "results.json").read_text(encoding="utf-8"))["num_scored"] == 5

    (resumed / "checkpoints").mkdir(parents=True)
    shutil.copy(straight / "checkpoints" / CHECKPOINTS[0], resumed / "checkpoints")
    assert net({"OUTPUT_DIR": resumed, "TEST.ENABLE": False, **options})[0] == 0
    (_, first), (model, second) = states(straight, CHECKPOINTS[0]), states(straight, CHECKPOINTS[1])
    _, again = states(resumed, CHECKPOINTS[1])
    assert entries <= set(model)
    assert not any(key.startswith("raw_model.") for key in model)
    assert second.keys() == again.keys()
    assert all(torch.equal(second[key], again[key]) for key in second)
    assert all(not torch.equal(first[key], second[key]) for key in entries)
