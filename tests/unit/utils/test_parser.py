"""The command line: arguments, resolution of a config, errors on one line with exit status 2."""

import argparse
import re
import subprocess
import sys

import pytest
import yaml

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigError
from slowfast.utils.parser import (
    build_parser,
    cfg_hash,
    cfg_to_yaml,
    console_errors,
    load_config,
    numbers_hash,
    parse_args,
)


def test_files_and_overrides():
    args = parse_args(["--cfg", "a.yaml", "b.yaml", "--opts", "NUM_GPUS", "2", "SOLVER.BASE_LR", "-1"])
    assert args.cfg_files == ["a.yaml", "b.yaml"]
    assert args.opts == ["NUM_GPUS", "2", "SOLVER.BASE_LR", "-1"]
    assert (args.num_shards, args.shard_id, args.print_config, args.dry_run) == (1, 0, False, False)


@pytest.mark.parametrize("switch", ["--print-config", "--dry-run"])
@pytest.mark.parametrize("last", [False, True])
def test_switches_are_seen_before_and_after_the_overrides(switch, last):
    opts = ["--opts", "NUM_GPUS", "2"]
    args = parse_args(["--cfg", "a.yaml", *([*opts, switch] if last else [switch, *opts])])
    assert vars(args)[switch[2:].replace("-", "_")] is True
    assert args.opts == ["NUM_GPUS", "2"]


def test_each_run_gets_a_port_of_its_own():
    first, second = (parse_args(["--cfg", "a.yaml"]).init_method for _ in range(2))
    assert re.fullmatch(r"tcp://localhost:\d+", first)
    assert re.fullmatch(r"tcp://localhost:\d+", second)


def test_a_given_meeting_point_is_kept():
    args = parse_args(["--cfg", "a.yaml", "--init_method", "tcp://localhost:9998"])
    assert args.init_method == "tcp://localhost:9998"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--opts", "NUM_GPUS", "1"], "--cfg: name at least one config file"),
        (
            ["--cfg", "a.yaml", "--num_shards", "2"],
            "--init_method: several machines need the first one's address, such as tcp://host:9998",
        ),
        (
            ["--cfg", "a.yaml", "--opts", "NUM_GPUS", "1", "--shard_id", "0"],
            "--shard_id: --opts takes the rest of the line, write --shard_id before it",
        ),
    ],
)
def test_a_wrong_command_line_exits_with_2(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {message}")


def test_no_argument_prints_the_help(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args([])
    assert caught.value.code == 0
    assert "--print-config" in capsys.readouterr().out


def test_a_tool_adds_options_of_its_own():
    parser = build_parser("Predict.")
    parser.add_argument("--video", nargs="+")
    args = parse_args(["--cfg", "a.yaml", "--video", "x.mp4", "--opts", "NUM_GPUS", "0"], parser=parser)
    assert args.video == ["x.mp4"]


def test_overrides_come_last(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SOLVER: {MAX_EPOCH: 5, BASE_LR: 0.5}\n")
    cfg = load_config(parse_args(["--cfg", str(path), "--opts", "SOLVER.MAX_EPOCH", "6"]), str(path))
    assert (cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.BASE_LR, cfg.TRAIN.BATCH_SIZE) == (6, 0.5, 64)


def test_loading_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_config(argparse.Namespace(opts=["OUTPUT_DIR", str(tmp_path / "out")]))
    assert list(tmp_path.iterdir()) == []


def test_machines_come_from_the_command_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("NUM_SHARDS: 8\n")
    assert load_config(argparse.Namespace(num_shards=1, shard_id=0), str(path)).NUM_SHARDS == 1
    cfg = load_config(argparse.Namespace(num_shards=4, shard_id=3), str(path))
    assert (cfg.NUM_SHARDS, cfg.SHARD_ID) == (4, 3)
    assert load_config(argparse.Namespace(), str(path)).NUM_SHARDS == 8


def test_contradicting_machines_are_refused():
    with pytest.raises(ConfigError) as caught:
        load_config(argparse.Namespace(num_shards=1, shard_id=0, opts=["NUM_SHARDS", "2"]))
    assert str(caught.value) == "--opts: NUM_SHARDS: is set by --num_shards, which is 1, found 2"


def test_yaml_text_gives_the_same_config_again(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["SOLVER.BASE_LR", "3.33e-6", "OUTPUT_DIR", "1e-5", "DATA.PATH_PREFIX", "ü: #x", "SOLVER.CLIP_GRAD_VAL", "2"]
    )
    cfg.merge_from_list(["MODEL.TEMPORAL_SCALE", [1, 2], "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN", ("a", "b")])
    path = tmp_path / "config.yaml"
    path.write_text(cfg_to_yaml(cfg), encoding="utf-8")
    again = load_config(argparse.Namespace(), str(path))
    assert again == cfg
    assert again.leaves() == cfg.leaves()
    assert cfg_hash(again) == cfg_hash(cfg)


def test_text_has_a_line_for_each_key():
    cfg = get_cfg()
    text = cfg_to_yaml(cfg)
    assert "  MASK_STRIDE: [1, 2, 2]\n" in text
    sections = sum(line.endswith(":") for line in text.splitlines())
    assert len(text.splitlines()) == len(cfg.leaves()) + sections
    assert yaml.safe_load(text)["SOLVER"]["BETAS"] == [0.9, 0.999]


def test_hash_tells_configs_apart():
    cfg, other = get_cfg(), get_cfg()
    assert cfg_hash(cfg) == cfg_hash(other)
    other.RNG_SEED = 2
    assert cfg_hash(cfg) != cfg_hash(other)
    assert re.fullmatch(r"[0-9a-f]{64}", cfg_hash(cfg))


def test_a_config_error_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as caught, console_errors():
        load_config(argparse.Namespace(opts=["SOLVER.MAX_EPOCHS", "1"]))
    assert caught.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: --opts: SOLVER.MAX_EPOCHS: unknown key (found '1'); nearest key: SOLVER.MAX_EPOCH\n"
    )


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), console_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize("module", ["slowfast.config.defaults", "slowfast.utils.parser"])
def test_import_and_use_need_no_torch(module):
    code = (
        f"import sys, {module} as module; module.get_cfg(); "
        "sys.exit(bool({'torch', 'numpy', 'av'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_and_how_fast_it_runs_changes_no_numbers():
    cfg = get_cfg()
    before = numbers_hash(cfg)
    elsewhere = {
        "OUTPUT_DIR": "elsewhere",
        "NUM_GPUS": 4,
        "DATA_LOADER.NUM_WORKERS": 3,
        "DATA.CACHE_DIR": "frames",
        "DATA.CACHE_GB": 7.0,
        "SPLITS.LABEL_DB": "lists",
        "DATA.TEXT_AUG_FEATURE_FILE": "text.pt",
        "TEST.CUSTOM_LOAD_FILE": "swa.pth",
    }
    for key, value in elsewhere.items():
        cfg.merge_from_list([key, value])
    assert numbers_hash(cfg) == before
    cfg.merge_from_list(["DATA.SAMPLING_RATE", 5])
    assert numbers_hash(cfg) != before
