"""Every YAML file, script and class list of the repository fits the code."""

import argparse
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.datasets.label_set import LabelSet
from slowfast.utils.parser import load_config

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs").rglob("*.y*ml"))
RUNS = [path for path in CONFIGS if path.parent.name != "_base_"]
SCRIPTS = sorted((ROOT / "script").rglob("*.sh"))
CLASS_LISTS = sorted((ROOT / "label_db").rglob("*index2cls.json"))


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
    if cfg.DATA.INDEX_LABEL_MAPPING_FILE.startswith("runs/"):
        return  # written by a run; tests/unit/datasets/test_synthetic.py counts the classes of the rendered one
    label_set = LabelSet.from_json(ROOT / cfg.DATA.INDEX_LABEL_MAPPING_FILE)
    assert len(label_set) == cfg.MODEL.NUM_CLASSES


@pytest.mark.parametrize("path", CLASS_LISTS, ids=name)
def test_class_lists_have_keys_without_gaps_and_unique_names(path):
    names = json.loads(path.read_text(encoding="utf-8"))
    assert list(names) == [str(index) for index in range(len(names))]
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_no_value_is_an_absolute_path(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert not re.search(r"""['"]/\w""", repr(values))


def overrides_in(script):
    """Keys and values that a script passes after --opts, and the config file it names."""
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    words = [
        word for line in text.splitlines() if "--cfg" in line or "_OPTS=(" in line for word in shlex.split(line, True)
    ]
    keys = [word for word in words if re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*", word)]
    files = [word for word in words if word.startswith("configs/")]
    return keys, files


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_every_option_of_a_script_exists(script):
    text = script.read_text(encoding="utf-8")
    keys, files = overrides_in(script)
    assert set(keys) <= set(get_cfg().leaves())
    assert all((ROOT / file).is_file() for file in files)
    assert script.name == "env.sh" or (keys and files)
    assert len(text.splitlines()) <= 15


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.name != "env.sh"], ids=name)
def test_every_script_resolves_to_a_valid_run(script, tmp_path):
    fake = tmp_path / "python"
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@"\n')
    fake.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "DATA_DIR": "data dir",
        "VIDEO_ROOT": "videos",
        "WEIGHTS": "weights.pyth",
        "TEXT_FEATURES": "features.pt",
    }
    done = subprocess.run(["bash", str(script), "LOG_PERIOD", "3"], env=environment, capture_output=True, check=True)
    program, flag, config, opts, *overrides = done.stdout.decode().split("\0")[:-1]
    assert (program, flag, opts) == ("tools/run_net.py", "--cfg", "--opts")
    cfg = assert_and_infer_cfg(load_config(argparse.Namespace(opts=overrides), str(ROOT / config)))
    assert (cfg.LOG_PERIOD, cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.TEXT_AUG) == (3, "data dir", True)


def test_a_script_says_which_path_is_missing():
    done = subprocess.run(
        ["bash", str(ROOT / "script/testing/stdd/ucf101.sh")], env={"PATH": "/usr/bin:/bin"}, capture_output=True
    )
    assert done.returncode != 0
    assert b"VIDEO_ROOT: set it to" in done.stderr


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
