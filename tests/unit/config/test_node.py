"""Merging YAML files and overrides into a tree, and every way in which it can fail."""

import pickle

import pytest
import yaml

from slowfast.config.defaults import get_cfg
from slowfast.config.node import CfgNode, ConfigError


@pytest.fixture
def cfg():
    return get_cfg()


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_base_files_are_overridden_by_the_file_that_names_them(cfg, tmp_path):
    write(tmp_path, "base/a.yaml", "TRAIN: {BATCH_SIZE: 8, ENABLE: False}\nSOLVER: {MAX_EPOCH: 7}\n")
    write(tmp_path, "base/b.yaml", "_BASE_: a.yaml\nTRAIN: {BATCH_SIZE: 16}\n")
    top = write(tmp_path, "x/top.yaml", "_BASE_: [../base/b.yaml]\nSOLVER: {MAX_EPOCH: 9}\n")
    cfg.merge_from_file(str(top))
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.ENABLE, cfg.SOLVER.MAX_EPOCH) == (16, False, 9)


def test_later_base_wins(cfg, tmp_path):
    write(tmp_path, "a.yaml", "LOG_PERIOD: 1\n")
    write(tmp_path, "b.yaml", "LOG_PERIOD: 2\n")
    cfg.merge_from_file(write(tmp_path, "top.yaml", "_BASE_: [a.yaml, b.yaml]\n"))
    assert cfg.LOG_PERIOD == 2


def test_one_base_may_be_reached_twice(cfg, tmp_path):
    write(tmp_path, "a.yaml", "LOG_PERIOD: 1\n")
    write(tmp_path, "b.yaml", "_BASE_: a.yaml\n")
    cfg.merge_from_file(write(tmp_path, "top.yaml", "_BASE_: [a.yaml, b.yaml]\n"))
    assert cfg.LOG_PERIOD == 1


def test_content_with_bases_can_be_read_without_a_tree(tmp_path):
    write(tmp_path, "a.yaml", "TRAIN: {ANY: 1, OTHER: 2}\n")
    top = write(tmp_path, "top.yaml", "_BASE_: a.yaml\nTRAIN: {ANY: 3}\n")
    assert CfgNode.load_yaml_with_base(str(top)) == {"TRAIN": {"ANY": 3, "OTHER": 2}}


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("SOLVER.BASE_LR", "1e-5", 1e-5),
        ("SOLVER.BASE_LR", 1, 1.0),
        ("SOLVER.WARMUP_EPOCHS", "2", 2.0),
        ("SOLVER.BETAS", "[0.9, 0.98]", (0.9, 0.98)),
        ("MODEL.TEMPORAL_SCALE", "(1, 2)", [1, 2]),
        ("MODEL.TEMPORAL_SCALE", "[1,2]", [1, 2]),
        ("SOLVER.CLIP_GRAD_L2NORM", "1.0", 1.0),
        ("SOLVER.CLIP_GRAD_L2NORM", None, None),
        ("MODEL.TEMPORAL_MODELING_TYPE", "stcross_attend", "stcross_attend"),
        ("MODEL.TEMPORAL_MODELING_TYPE", "None", None),
        ("DATA.PATH_LABEL_SEPARATOR", ",", ","),
        ("DATA.DECODING_BACKEND", "'pyav'", "pyav"),
        ("OUTPUT_DIR", "2024", "2024"),
        ("OUTPUT_DIR", None, ""),
        ("TRAIN.ENABLE", "False", False),
    ],
)
def test_values_are_read_as_yacs_reads_them(cfg, key, given, expected):
    cfg.merge_from_list([key, given])
    value = cfg.leaves()[key]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "value"), [("SOLVER.CLIP_GRAD_L2NORM", 1.0), ("MODEL.TEMPORAL_MODELING_TYPE", "stcross_attend")]
)
def test_a_key_whose_default_is_none_can_be_set_back(cfg, key, value):
    cfg.merge_from_list([key, value])
    copy = cfg.clone()
    copy.merge_from_list([key, "None"])
    assert copy.leaves()[key] is None
    assert cfg.leaves()[key] == value


def test_an_empty_yaml_value_leaves_a_text_key_empty(cfg, tmp_path):
    cfg.merge_from_file(write(tmp_path, "a.yaml", "DATA:\n  PATH_PREFIX:\n"))
    assert cfg.DATA.PATH_PREFIX == ""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.TEMPORAL_SCAL", "[1]"], "unknown key (found '[1]'); nearest key: MODEL.TEMPORAL_SCALE"),
        (["TRAIN.MAX_EPOCH", "3"], "unknown key (found '3'); nearest key: SOLVER.MAX_EPOCH"),
        (["BATCH_SIZE", "3"], "unknown key (found '3'); nearest key: TRAIN.BATCH_SIZE"),
        (["train.batch_size", "3"], "unknown key (found '3'); nearest key: TRAIN.BATCH_SIZE"),
        (["SOLVER.MAX_EPOCH", "ten"], "expected int, found 'ten' (str)"),
        (["SOLVER.MAX_EPOCH", "2.5"], "expected int, found 2.5 (float)"),
        (["SOLVER.MAX_EPOCH", "None"], "expected int, found None (NoneType)"),
        (["MODEL.TEMPORAL_SCALE", "2"], "expected list, found 2 (int)"),
        (["TRAIN.ENABLE", "1"], "expected bool, found 1 (int)"),
        (["NUM_GPUS", "True"], "expected int, found True (bool)"),
        (["TRAIN.CUSTOM_LOAD_FILE", "{1, 2}"], "expected NoneType, found {1, 2} (set)"),
    ],
)
def test_an_override_that_does_not_fit_is_named(cfg, overrides, message):
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_list(overrides)
    assert str(caught.value) == f"--opts: {overrides[0]}: {message}"


def test_a_section_cannot_be_overwritten(cfg):
    with pytest.raises(ConfigError, match=r"^--opts: TRAIN: expected a section with keys below it, found '5'$"):
        cfg.merge_from_list(["TRAIN", "5"])


def test_a_value_has_no_keys_below_it(cfg):
    with pytest.raises(ConfigError, match=r"^--opts: NUM_GPUS: expected int, found \{'X': '1'\} \(dict\)$"):
        cfg.merge_from_list(["NUM_GPUS.X", "1"])


def test_an_override_without_value_is_named(cfg):
    with pytest.raises(ConfigError, match=r"^--opts: expected KEY VALUE pairs, but 'TRAIN.ENABLE' has no value$"):
        cfg.merge_from_list(["NUM_GPUS", "1", "TRAIN.ENABLE"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a config must be a YAML mapping of keys to values, found an empty file"),
        ("- 1\n- 2\n", "a config must be a YAML mapping of keys to values, found list"),
        ("hello\n", "a config must be a YAML mapping of keys to values, found str"),
        ("TRAIN: {\n", "line 2, column 1: expected the node content, but found '<stream end>'"),
        (
            "OUTPUT_DIR: !!python/object/apply:os.getcwd []\n",
            "line 1, column 13: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
        ("TRAIN:\n", "TRAIN: expected a section with keys below it, found None"),
        ("TRAIN: {BATCH: {A: 1}}\n", "TRAIN.BATCH.A: unknown key (found 1); nearest key: TRAIN.BATCH_SIZE"),
        ("1: 2\n", "1: unknown key (found 2)"),
        ("SOLVER: {MAX_EPOCH: x}\n", "SOLVER.MAX_EPOCH: expected int, found 'x' (str)"),
        ("_BASE_: 3\n", "_BASE_ must be a file name or a list of file names, found 3"),
    ],
)
def test_a_file_that_does_not_fit_is_named(cfg, tmp_path, text, message):
    path = write(tmp_path, "bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(path)
    assert str(caught.value) == f"{path}: {message}"


def test_the_error_names_the_base_file_that_is_wrong(cfg, tmp_path):
    base = write(tmp_path, "base.yaml", "LOG_PERIODS: 1\n")
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(write(tmp_path, "top.yaml", "_BASE_: base.yaml\n"))
    assert str(caught.value) == f"{base}: LOG_PERIODS: unknown key (found 1); nearest key: LOG_PERIOD"


def test_missing_file(cfg, tmp_path):
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(tmp_path / "none.yaml")
    assert str(caught.value) == f"--cfg: file not found: {tmp_path / 'none.yaml'}"


def test_folder_instead_of_file(cfg, tmp_path):
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(tmp_path)
    assert str(caught.value) == f"--cfg: cannot read {tmp_path}: Is a directory"


def test_binary_file(cfg, tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"a\.yaml: not a text file in UTF-8$"):
        cfg.merge_from_file(tmp_path / "a.yaml")


def test_missing_base(cfg, tmp_path):
    top = write(tmp_path, "top.yaml", "_BASE_: none.yaml\n")
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(top)
    assert str(caught.value) == f"{top.resolve()}: _BASE_: file not found: {tmp_path / 'none.yaml'}"


def test_cyclic_base(cfg, tmp_path):
    top = write(tmp_path, "top.yaml", "_BASE_: other.yaml\n")
    write(tmp_path, "other.yaml", "_BASE_: top.yaml\n")
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(top)
    assert str(caught.value) == f"{top.resolve()}: _BASE_ is cyclic: top.yaml -> other.yaml -> top.yaml"


def test_unsafe_yaml_stays_off(cfg, tmp_path):
    with pytest.raises(ConfigError, match="unsafe YAML is not supported"):
        cfg.merge_from_file(write(tmp_path, "a.yaml", "LOG_PERIOD: 1\n"), allow_unsafe=True)


def bomb(levels, start, repeat):
    """YAML of a few lines whose aliases stand for a million values."""
    lines = [f"a0: &a0 {start}"]
    lines += [f"a{n}: &a{n} {repeat.format(f'*a{n - 1}')}" for n in range(1, levels + 1)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(6, "[x, x]", "[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]"), "more than 100000 values"),
        (bomb(20, "{x: 1}", "{{p: {0}, q: {0}}}"), "more than 100000 values"),
        ("MODEL: &m [*m]\n", "an alias (*name) stands inside what it stands for"),
        ("TRAIN: &t {ENABLE: *t}\n", "an alias (*name) stands inside what it stands for"),
        ("A: " + "[" * 5000 + "]" * 5000 + "\n", "nested too deeply"),
    ],
    ids=["lists", "mappings", "list in itself", "mapping in itself", "deep"],
)
def test_a_file_that_unfolds_is_refused(cfg, tmp_path, text, reason):
    path = write(tmp_path, "bomb.yaml", text)
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(reason)


def test_aliases_are_welcome(cfg, tmp_path):
    cfg.merge_from_file(write(tmp_path, "a.yaml", "TRAIN: &phase {BATCH_SIZE: 3}\nTEST: *phase\n"))
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TEST.BATCH_SIZE) == (3, 3)


def test_a_frozen_tree_is_not_merged_into(cfg):
    cfg.freeze()
    with pytest.raises(AttributeError, match="frozen"):
        cfg.merge_from_list(["LOG_PERIOD", "1"])


def test_leaves_and_plain_dictionaries_hold_every_value(cfg):
    assert cfg.leaves()["TENSORBOARD.MODEL_VIS.GRAD_CAM.ENABLE"] is True
    assert yaml.safe_load(yaml.safe_dump(cfg.to_dict()))["SOLVER"]["MAX_EPOCH"] == 300


def test_a_frozen_tree_travels_to_another_process(cfg):
    cfg.freeze()
    again = pickle.loads(pickle.dumps(cfg))
    assert again == cfg
    assert again.is_frozen()
    assert again.TRAIN.is_frozen()
