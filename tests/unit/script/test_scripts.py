"""Every script starts a valid run; launchers hand scripts on; what is missing is said in one line."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from slowfast.config.defaults import assert_and_infer_cfg
from slowfast.datasets.label_set import LabelSet
from slowfast.utils.parser import load_config

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted((ROOT / "script").rglob("*.sh"))
RUNS = [path for path in SCRIPTS if path.parents[1].name in {"training", "testing"}]
LAUNCHERS = sorted((ROOT / "script" / "launch").glob("*.sh"))

PATHS = {"DATA_DIR": "data dir", "VIDEO_ROOT": "videos"}
FILES = {"WEIGHTS": "weights.pyth", "INIT": "init.pyth"}
HALVES = ("k400", "hmdb51", "ucf101", "ssv2")
FEW_SHOT = ("hmdb51", "ucf101", "ssv2")
ONE_CLIP = ("ost", "vifi")
"""Families with files for ViT-B/16 only."""
BENCHMARKS = ("hmdb51", "ucf101", "kinetics100", "ssv2_small", "ssv2_full")

# Program -> what its stand-in does: print its own name and its arguments, each ended by a null character.
RECORD = '#!/usr/bin/env bash\nprintf "%s\\0" "${0##*/}" "$@"\n'


def name(path):
    return str(path.relative_to(ROOT))


def arguments_of(script):
    """All (arguments, ARCH) that a script is made for."""
    is_large = script.parent.name not in ONE_CLIP
    kind = script.name.removesuffix(".sh").removesuffix("_prompts")
    if kind == "train_base_to_novel":
        return [((dataset,), "vitb16") for dataset in HALVES]
    if kind == "test_base_to_novel":
        return [((dataset, half), "vitb16") for dataset in HALVES for half in ("base", "novel")]
    if kind == "test_zero_shot":
        every = [((dataset,), "vitb16") for dataset in ("ucf101", "hmdb51", "k600", "k400")]
        return every + [(("k600",), "vitl14")] * is_large
    if kind in {"train_episodic", "test_episodic"}:
        return [((name, shots), arch) for name in BENCHMARKS for shots in ("1", "5") for arch in ("rn50", "vitb16")]
    if kind in {"train_few_shot", "test_few_shot"}:
        return [((dataset, shots), "vitb16") for dataset in FEW_SHOT for shots in ("2", "16")]
    return [((), "vitb16")] + [((), "vitl14")] * (is_large and kind == "train_k400")


def views_of(script):
    """Temporal clips and crops per video that a script tests with."""
    if "fully_supervised" in script.name:
        return (4, 3)
    return {"tcclip": (2, 1), "ost": (1, 1), "vifi": (1, 1), "clipfsar": (1, 1)}.get(script.parent.name, (3, 1))


CASES = [
    pytest.param(script, arguments, arch, id=" ".join([name(script), *arguments, arch]))
    for script in RUNS
    for arguments, arch in arguments_of(script)
]


@pytest.fixture
def programs(tmp_path):
    """Folder of stand-ins for the programs that scripts start."""
    for program in ("python", "torchrun"):
        write_program(tmp_path / program, RECORD)
    return tmp_path


def write_program(path, text):
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def start(command, programs, **environment):
    """Run a command of bash; return its words or, where it fails, its exit status and error lines."""
    path = os.pathsep.join([str(programs), os.defpath])
    done = subprocess.run(
        ["bash", *map(str, command)], cwd=ROOT, env={"PATH": path, **environment}, capture_output=True, text=True
    )
    return done.stdout.split("\0")[:-1] if done.returncode == 0 else (done.returncode, done.stderr.splitlines())


def resolve(words):
    """The configuration of a recorded command line."""
    program, flag, config, opts, *overrides = words
    assert (program, flag, opts) == ("tools/run_net.py", "--cfg", "--opts")
    return assert_and_infer_cfg(load_config(argparse.Namespace(opts=overrides), str(ROOT / config)))


def values(cfg, *keys):
    leaves = cfg.leaves()
    return tuple(leaves[key] for key in keys)


def environment_of(script, **more):
    """What a script needs, and nothing else: an unneeded variable could hide that it is read."""
    text = script.read_text(encoding="utf-8")
    needed = {key: value for key, value in FILES.items() if key == "WEIGHTS" or f"{key}:?" in text}
    tclip = {"TEXT_FEATURES": "features.pt"} if "TEXT_FEATURES:?" in text else {}
    return {**PATHS, **needed, **tclip, **more}


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_every_script_is_valid_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert text.startswith(("#!/usr/bin/env bash\n#", "# shellcheck shell=bash\n#"))
    if script in RUNS:
        assert len(text.splitlines()) <= 15


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    subprocess.run(["shellcheck", "-x", "-P", "SCRIPTDIR", *SCRIPTS], cwd=ROOT, check=True)


@pytest.mark.parametrize(("script", "arguments", "arch"), CASES)
def test_every_script_resolves_to_a_valid_run(script, arguments, arch, programs):
    environment = environment_of(script, ARCH=arch, NUM_GPUS="2")
    program, *words = start([script, *arguments, "LOG_PERIOD", "3"], programs, **environment)
    cfg = resolve(words)
    testing = script.parents[1].name == "testing"
    assert program == "python"
    assert values(cfg, "LOG_PERIOD", "NUM_GPUS") == (3, 2)
    assert values(cfg, "DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX") == ("data dir", "videos")
    assert values(cfg, "MODEL.ARCH") == ("vitl14" if "vitl14" in script.name else arch,)
    assert values(cfg, "TEST.NUM_ENSEMBLE_VIEWS", "TEST.NUM_SPATIAL_CROPS") == views_of(script)
    assert values(cfg, "TRAIN.ENABLE", "TEST.CUSTOM_LOAD") == (not testing, testing)
    assert values(cfg, "TEST.CUSTOM_LOAD_FILE") == ("weights.pyth" if testing else None,)
    names = LabelSet.from_json(ROOT / cfg.DATA.INDEX_LABEL_MAPPING_FILE).names
    assert len(names) == cfg.MODEL.NUM_CLASSES
    assert all(": " in name for name in names) == ("froster" in script.parts)


def test_froster_takes_other_class_names_too(programs):
    script = ROOT / "script/testing/froster/test_zero_shot.sh"
    environment = {**PATHS, **FILES, "REPHRASED_LABELS": "my names.json"}
    cfg = resolve(start([script, "ucf101"], programs, **environment)[1:])
    assert cfg.DATA.INDEX_LABEL_MAPPING_FILE == "my names.json"


def test_no_two_runs_share_their_folder(programs):
    folders = {}
    for case in CASES:
        script, arguments, arch = case.values
        if not re.search(
            r"^(train|train_shots|train_episodes|test_all|test_half|test_shots|test_episodes) |^launch tclip",
            script.read_text(encoding="utf-8"),
            re.M,
        ):
            continue  # another name of one of the others
        folder = resolve(start([script, *arguments], programs, **environment_of(script, ARCH=arch))[1:]).OUTPUT_DIR
        assert folders.setdefault(folder, case.id) == case.id
    assert len(folders) > 90


RENAMED = [
    (script, arguments)
    for script in RUNS
    if "tcclip" in script.parts and "fully_supervised" not in script.name
    for arguments, arch in arguments_of(script)
    if arch == "vitb16"
]


@pytest.mark.parametrize(("script", "arguments"), RENAMED)
def test_rephrased_names_come_with_their_recipe(script, arguments, programs):
    environment = environment_of(script, NAMES="rephrased")
    cfg = resolve(start([script, *arguments], programs, **environment)[1:])
    names = LabelSet.from_json(ROOT / cfg.DATA.INDEX_LABEL_MAPPING_FILE).names
    assert len(names) == cfg.MODEL.NUM_CLASSES
    assert all(": " in name for name in names)
    assert cfg.SPLITS.NAMES == "rephrased"
    assert "_llm" in cfg.OUTPUT_DIR


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("training/tcclip/train_k400.sh", "typo"),
        ("training/tcclip/train_fully_supervised.sh", "rephrased"),
        ("testing/tcclip/test_fully_supervised.sh", "rephrased"),
    ],
)
def test_names_without_a_recipe_are_refused(script, names, programs):
    status, lines = start([ROOT / "script" / script], programs, **environment_of(ROOT / "script" / script, NAMES=names))
    assert (status, len(lines)) == (2, 1)
    assert f"no such file (ARCH is vitb16, NAMES is {names})" in lines[0]


def test_a_share_of_the_environment_replaces_those_of_the_file(programs):
    script = ROOT / "script/testing/tcclip/test_zero_shot.sh"
    cfg = resolve(start([script, "ucf101"], programs, **PATHS, **FILES)[1:])
    assert values(cfg, "TEST.PATCHING_RATIOS", "TEST.PATCHING_MODEL") == ([0.0, 0.3], False)
    cfg = resolve(start([script, "ucf101"], programs, **PATHS, **FILES, PATCHING="0.5")[1:])
    keys = ("TEST.PATCHING_RATIOS", "TEST.PATCHING_MODEL", "TEST.PATCHING_RATIO", "TEST.CLIP_ORI_PATH")
    assert values(cfg, *keys) == ([], True, 0.5, "vitb16")


def test_few_shot_scripts_read_prepared_lists(programs):
    train, test = (ROOT / f"script/{part}_few_shot.sh" for part in ("training/tcclip/train", "testing/tcclip/test"))
    environment = PATHS | FILES
    for script in (train, test):
        cfg = resolve(start([script, "hmdb51", "4"], programs, **environment)[1:])
        assert values(cfg, "TRAIN_FILE", "TEST_FILE", "VAL_FILE") == (
            *("few_shot/4/train.csv", "split1/test.csv", "split1/test.csv"),
        )
        assert cfg.DATA.RANDOM_FLIP
        cfg = resolve(start([script, "ssv2", "16"], programs, **environment)[1:])
        assert values(cfg, "TRAIN_FILE", "TEST_FILE", "DATA.RANDOM_FLIP") == (
            *("few_shot/16/train.csv", "full/val.csv", False),
        )


@pytest.mark.parametrize(
    ("dataset", "shots", "rate"),
    [
        ("hmdb51", "2", 5e-6),
        ("hmdb51", "4", 3.5e-6),
        ("ucf101", "4", 5e-6),
        ("ssv2", "8", 5e-6),
        ("ssv2", "16", 2.5e-6),
    ],
)
def test_ost_has_rates_of_its_own_for_two_cases(dataset, shots, rate, programs):
    script = ROOT / "script/training/ost/train_few_shot.sh"
    cfg = resolve(start([script, dataset, shots], programs, **PATHS)[1:])
    assert rate == cfg.SOLVER.BASE_LR
    assert pytest.approx(rate / 100) == cfg.SOLVER.COSINE_END_LR
    assert (dataset != "ssv2") == cfg.DATA.RANDOM_FLIP
    command = [script, dataset, shots, "DATA.RANDOM_FLIP", "True", "SOLVER.BASE_LR", "1e-5"]
    cfg = resolve(start(command, programs, **PATHS)[1:])
    assert values(cfg, "DATA.RANDOM_FLIP", "SOLVER.BASE_LR") == (True, 1e-5)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("ost/train_few_shot.sh", ["hmdb51", "2"]),
        ("vifi/train_base_to_novel_prompts.sh", ["ucf101"]),
        ("tcclip/train_k400.sh", []),
    ],
)
def test_a_training_starts_from_other_weights_in_a_folder_of_its_own(script, arguments, programs, tmp_path):
    command = [ROOT / "script/training" / script, *arguments]
    folders = []
    for content in ("one", "other", "one"):
        weights = tmp_path / "k400 tuned.pyth"
        weights.write_text(content, encoding="utf-8")
        cfg = resolve(start(command, programs, **PATHS, INIT=weights)[1:])
        folders.append(cfg.OUTPUT_DIR)
    assert values(cfg, "TRAIN.CUSTOM_LOAD", "TRAIN.CUSTOM_LOAD_FILE") == (True, str(weights))
    # neither an epoch nor an optimiser comes along
    assert values(cfg, "TRAIN.CHECKPOINT_FILE_PATH", "TRAIN.FORCE_RESUME") == ("", False)
    assert re.search(r"_init\d+$", cfg.OUTPUT_DIR)
    assert folders[0] == folders[2] != folders[1]  # other weights are another run


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("training/vifi/train_k400.sh", []), ("testing/vifi/test_fully_supervised.sh", [])],
)
def test_one_tower_has_a_file_of_its_own(script, arguments, programs):
    command = [ROOT / "script" / script, *arguments]
    folders = set()
    for tower in ("both", "image", "text"):
        cfg = resolve(start(command, programs, **PATHS, **FILES, TOWER=tower)[1:])
        assert tower == cfg.VIFI_CLIP.USE
        folders.add(cfg.OUTPUT_DIR)
    assert len(folders) == 3


def test_a_tower_without_a_recipe_is_refused(programs):
    command = [ROOT / "script/training/vifi/train_few_shot.sh", "hmdb51", "2"]
    status, (line,) = start(command, programs, **PATHS, TOWER="image")
    assert status == 2
    assert "few_shot_image.yaml: no such file (ARCH is vitb16, TOWER is image)" in line


def test_the_number_of_gpus_is_that_of_the_file_unless_the_environment_says_more(programs):
    script = ROOT / "script/training/openvclip/train_k400.sh"
    assert resolve(start([script], programs, **PATHS)[1:]).NUM_GPUS == 8
    assert resolve(start([script, "NUM_GPUS", "4"], programs, **PATHS, NUM_GPUS="2")[1:]).NUM_GPUS == 4


def test_text_features_and_output_folder_come_from_the_environment(programs):
    script = ROOT / "script/testing/stdd/ucf101.sh"
    environment = {**PATHS, **FILES, "TEXT_FEATURES": "features.pt", "OUTPUT_DIR": "runs/here"}
    cfg = resolve(start([script], programs, **environment)[1:])
    assert (cfg.DATA.TEXT_AUG, cfg.DATA.TEXT_AUG_FEATURE_FILE) == (True, "features.pt")
    assert cfg.OUTPUT_DIR == "runs/here"


@pytest.mark.parametrize(
    ("arch", "patching", "expected"),
    [
        ("vitb16", None, (True, 0.5)),
        ("vitl14", None, (True, 0.6)),
        ("vitb16", "0.3", (True, 0.3)),
        ("vitb16", "", (False, 0.5)),
    ],
)
def test_open_vclip_mixes_raw_clip_in(arch, patching, expected, programs):
    script = ROOT / "script/testing/openvclip/test_zero_shot.sh"
    given = {} if patching is None else {"PATCHING": patching}
    cfg = resolve(start([script, "ucf101"], programs, **PATHS, **FILES, ARCH=arch, **given)[1:])
    assert values(cfg, "TEST.PATCHING_MODEL", "TEST.PATCHING_RATIO") == expected
    assert values(cfg, "TEST.CLIP_ORI_PATH") == (arch if expected[0] else None,)


def test_raw_clip_is_tested_without_a_file(programs, tmp_path):
    script = ROOT / "script/testing/clip/test_zero_shot.sh"
    cfg = resolve(start([script, "hmdb51"], programs, **PATHS, WEIGHTS="clip")[1:])
    assert (cfg.TRAIN.ENABLE, cfg.TEST.CUSTOM_LOAD, cfg.MODEL.TEMPORAL_MODELING_TYPE) == (False, False, None)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "checkpoint_epoch_00001.pyth").touch()
    used = {**PATHS, "WEIGHTS": "clip", "OUTPUT_DIR": str(tmp_path / "run")}
    status, (line,) = start([script, "hmdb51"], programs, **used)
    assert (status, "holds a run" in line) == (2, True)


def test_kinetics_600_has_three_splits(programs):
    script = ROOT / "script/testing/stdd/k600.sh"
    cfg = resolve(start([script], programs, **PATHS, **FILES, SPLIT="3")[1:])
    assert cfg.DATA.INDEX_LABEL_MAPPING_FILE == "label_db/k600/zero_shot_split3_index2cls.json"
    assert cfg.OUTPUT_DIR.endswith("_k600_split3")


def test_novel_classes_are_in_the_test_file_and_ssv2_is_not_mirrored(programs):
    test, train = (
        ROOT / f"script/{part}_base_to_novel.sh" for part in ("testing/froster/test", "training/froster/train")
    )
    environment = PATHS | FILES
    files = {
        half: resolve(start([test, "ssv2", half], programs, **environment)[1:]).TEST_FILE for half in ("base", "novel")
    }
    assert files == {"base": "val.csv", "novel": "test.csv"}
    cfg = resolve(start([train, "ssv2"], programs, **environment)[1:])
    assert (cfg.DATA.RANDOM_FLIP, cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.MAX_EPOCH) == (False, 32, 12)
    assert resolve(start([train, "k400"], programs, **environment)[1:]).TRAIN.BATCH_SIZE == 64


@pytest.mark.parametrize("script", RUNS, ids=name)
def test_a_script_says_which_variable_is_missing(script, programs):
    (arguments, arch), *_ = arguments_of(script)
    environment = environment_of(script, ARCH=arch)
    needed = set(environment) - {"ARCH"} - ({"WEIGHTS"} if script.parents[1].name == "training" else set())
    for variable in needed:
        given = {key: value for key, value in environment.items() if key != variable}
        status, (line,) = start([script, *arguments], programs, **given)
        assert status != 0
        assert f"{variable}: set it to" in line


@pytest.mark.parametrize(("gpus", "steps"), [(None, 4), ("0", 16), ("1", 16), ("2", 8), ("8", 2)])
def test_a_gpu_computes_one_episode_at_a_time(gpus, steps, programs):
    given = {"ARCH": "rn50"} | ({} if gpus is None else {"NUM_GPUS": gpus})
    for benchmark, dataset in (("hmdb51", "hmdb51"), ("kinetics100", "k400"), ("ssv2_small", "ssv2")):
        command = [ROOT / "script/training/clipfsar/train_episodic.sh", benchmark, "5"]
        cfg = resolve(start(command, programs, **PATHS, **given)[1:])
        assert values(cfg, "TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS") == (16, steps)
        keys = ("SPLITS.LABEL_DB", "SPLITS.DATASET", "EPISODES.BENCHMARK", "EPISODES.SHOT_TEST")
        assert values(cfg, *keys) == ("data dir", dataset, benchmark, 5)


@pytest.mark.parametrize("opts", [[], ["--opts", "NUM_GPUS", "1"]])
def test_any_recipe_is_scored_in_episodes(opts, programs):
    config = "configs/Kinetics/STDD_vitb16_8x16_zeroshot.yaml"
    command = [ROOT / "script/testing/episodic.sh", config, "--datasets", "hmdb51", *opts]
    program, tool, *words = start(command, programs, WEIGHTS="file.pyth")
    assert (program, tool) == ("python", "tools/run_protocol.py")
    at = words.index("--opts")
    assert words[:at] == [
        *("--cfg", config, "--protocol", "episodic", "--weights", "file.pyth", "--datasets", "hmdb51")
    ]
    overrides = [*words[at + 1 :], "PROTOCOL", "episodic", "SPLITS.DATASET", "hmdb51"]
    cfg = assert_and_infer_cfg(load_config(argparse.Namespace(opts=overrides), str(ROOT / config)))
    assert values(cfg, "EPISODES.HEAD", "TEST.NUM_ENSEMBLE_VIEWS", "OUTPUT_DIR") == (
        *("otam", 1, "runs/STDD_vitb16_8x16_zeroshot_episodes"),
    )
    assert values(cfg, "NUM_GPUS") == ((1,) if opts else (4,))


def test_scoring_in_episodes_needs_weights(programs):
    status, (line,) = start([ROOT / "script/testing/episodic.sh", "configs/a.yaml"], programs)
    assert status != 0
    assert "WEIGHTS: set it to" in line


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("testing/stdd/test_zero_shot.sh", ["ucf"], "dataset 'ucf': unknown; allowed: ucf101"),
        ("testing/froster/test_zero_shot.sh", [], "dataset '': unknown"),
        ("testing/clip/test_base_to_novel.sh", ["k400", "both"], "'k400 both': unknown; allowed"),
        ("training/froster/train_base_to_novel.sh", [], "' base': unknown; allowed: k400"),
        ("training/tcclip/train_few_shot.sh", ["hmdb51", "3"], "'hmdb51 3': unknown; allowed: ucf101, hmdb51 or ssv2"),
        ("training/tcclip/train_few_shot.sh", ["k400", "2"], "'k400 2': unknown"),
        ("testing/tcclip/test_few_shot.sh", [], "' ': unknown"),
        ("training/clip/train_base_to_novel.sh", ["k600"], "'k600 base': unknown; allowed: k400"),
        ("training/clipfsar/train_episodic.sh", ["hmdb51", "2"], "'hmdb51 2': unknown; allowed: hmdb51, ucf101, kin"),
        ("testing/clipfsar/test_episodic.sh", [], "' ': unknown"),
        ("run.sh", ["configs/absent.yaml"], "configs/absent.yaml: no such file"),
    ],
)
def test_a_wrong_argument_is_one_line(script, arguments, expected, programs):
    status, (line,) = start([ROOT / "script" / script, *arguments], programs, **PATHS, **FILES)
    assert (status, expected in line) == (2, True)


def test_an_architecture_without_a_file_is_named(programs):
    script = ROOT / "script/training/xclip/train_k400.sh"
    status, (line,) = start([script], programs, **PATHS, ARCH="vitb32")
    assert status == 2
    assert "XCLIP_vitb32_8x16_zeroshot.yaml: no such file (ARCH is vitb32)" in line


MEETING = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "host0", "NUM_GPUS": "4"}


@pytest.mark.parametrize(
    "command", ["script/training/clip/train_k400.sh", "configs/Kinetics/CLIP_vitb16_8x16_zeroshot.yaml"]
)
def test_torchrun_starts_a_script_or_a_file(command, programs):
    launcher = ROOT / "script/launch/multi_node.sh"
    program, *words = start([launcher, command, "LOG_PERIOD", "3"], programs, **PATHS, **MEETING)
    at = words.index("tools/run_net.py")
    assert [program, *words[:at]] == [
        *("torchrun", "--nnodes", "2", "--node_rank", "1", "--nproc_per_node", "4"),
        *("--master_addr", "host0", "--master_port", "29500"),
    ]
    cfg = resolve(words[at:])
    assert (cfg.NUM_GPUS, cfg.LOG_PERIOD, cfg.DATA.PATH_TO_DATA_DIR) == (4, 3, "data dir")


@pytest.mark.parametrize("variable", MEETING)
def test_torchrun_needs_to_know_the_machines(variable, programs):
    given = {key: value for key, value in (PATHS | MEETING).items() if key != variable}
    status, (line,) = start([ROOT / "script/launch/multi_node.sh", "script/run.sh"], programs, **given)
    assert status != 0
    assert f"{variable}: set it to" in line


SLURM = {
    **PATHS,
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "host[0-1]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "16",
}
SCONTROL = (
    '#!/usr/bin/env bash\ncase "$1" in show) printf "host0\\nhost1\\n" ;; *) echo "$*" >"${0%/*}/requeued" ;; esac\n'
)
# Runs its command as the second of two machines.
SRUN = '#!/usr/bin/env bash\nwhile [[ "$1" == --* ]]; do shift; done\nSLURM_NODEID=1 exec "$@"\n'
# Saves and ends when it is told to, or when the test lets it.
SLOW_SRUN = """#!/usr/bin/env bash
trap 'touch "${0%/*}/saved"; exit 143' TERM
touch "${0%/*}/started"
until [ -e "${0%/*}/requeued" ]; do sleep 0.05; done
"""


def test_a_slurm_job_starts_torchrun_on_every_machine(programs):
    write_program(programs / "scontrol", SCONTROL)
    write_program(programs / "srun", SRUN)
    command = [ROOT / "script/launch/slurm.sh", "script/training/clip/train_k400.sh", "LOG_PERIOD", "3"]
    program, *words = start(command, programs, **SLURM)
    at = words.index("tools/run_net.py")
    assert [program, *words[:at]] == [
        *("torchrun", "--nnodes", "2", "--node_rank", "1", "--nproc_per_node", "8"),
        *("--master_addr", "host0", "--master_port", "20077"),
    ]
    assert resolve(words[at:]).NUM_GPUS == 8


def test_a_slurm_job_ends_with_the_status_of_its_run(programs):
    write_program(programs / "scontrol", SCONTROL)
    write_program(programs / "srun", "#!/usr/bin/env bash\nexit 3\n")
    status, lines = start([ROOT / "script/launch/slurm.sh", "script/run.sh"], programs, **SLURM)
    assert (status, lines) == (3, [])


@pytest.mark.parametrize(("restarts", "expected"), [("0", True), ("20", False)])
def test_a_slurm_job_queues_itself_again_before_its_time_is_up(restarts, expected, programs):
    write_program(programs / "scontrol", SCONTROL)
    write_program(programs / "srun", SLOW_SRUN)
    path = os.pathsep.join([str(programs), os.defpath])
    environment = {"PATH": path, **SLURM, "SLURM_RESTART_COUNT": restarts}
    command = ["bash", str(ROOT / "script/launch/slurm.sh"), "script/run.sh"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as job:
        while not (programs / "started").exists():
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        assert job.stdout.readline().startswith("time is nearly up")
        if not expected:
            assert not (programs / "requeued").exists()
            (programs / "requeued").touch()
        job.wait()
    assert (programs / "requeued").read_text(encoding="utf-8") == ("requeue 77\n" if expected else "")
    assert (programs / "saved").exists() == expected


def test_slurm_options_stand_where_sbatch_reads_them():
    lines = (ROOT / "script/launch/slurm.sh").read_text(encoding="utf-8").splitlines()
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert lines[1 : 1 + len(options)] == options
    assert {"#SBATCH --requeue", "#SBATCH --signal=B:USR1@120", "#SBATCH --open-mode=append"} <= set(options)


def test_a_slurm_script_is_for_sbatch(programs):
    status, (line,) = start([ROOT / "script/launch/slurm.sh", "script/run.sh"], programs, **PATHS)
    assert status != 0
    assert "SLURM_JOB_ID: start this file with sbatch" in line


def test_submitit_gets_its_options_and_the_script(programs):
    words = start([ROOT / "script/launch/submitit.sh", "--nodes", "2", "script/run.sh"], programs)
    assert words == ["python", "tools/submit.py", "--nodes", "2", "script/run.sh"]
