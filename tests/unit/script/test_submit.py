"""The submitit command, with a stand-in for submitit."""

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = "script/training/stdd/train_k400.sh"


@pytest.fixture
def submit():
    spec = importlib.util.spec_from_file_location("submit_tool", ROOT / "tools" / "submit.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Executor:
    """Keeps what it is told."""

    made = None

    def __init__(self, **options):
        self.options, Executor.made = options, self

    def update_parameters(self, **parameters):
        self.parameters = parameters

    def submit(self, job):
        self.job = job
        return types.SimpleNamespace(job_id="7", paths=types.SimpleNamespace(stdout="7.out"))


@pytest.fixture
def submitit(monkeypatch):
    job = types.SimpleNamespace(num_nodes=2, node=1, hostnames=["host0", "host1"], raw_job_id="77")
    fake = types.ModuleType("submitit")
    fake.AutoExecutor, fake.JobEnvironment = Executor, lambda: job
    helpers = types.ModuleType("submitit.helpers")
    helpers.DelayedSubmission = lambda job: ("again", job)
    monkeypatch.setitem(sys.modules, "submitit", fake)
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)
    monkeypatch.delenv("MASTER_PORT", raising=False)


@pytest.mark.usefixtures("submitit")
def test_options_reach_the_executor(submit, capsys):
    options = ["--nodes", "2", "--gpus", "4", "--hours", "0.5", "--partition", "gpu", "--sbatch", "qos=long"]
    assert submit.main([*options, SCRIPT, "NUM_GPUS", "4"]) == 0
    made = Executor.made
    assert made.parameters == {
        "name": "train_k400",
        "nodes": 2,
        "tasks_per_node": 1,
        "gpus_per_node": 4,
        "cpus_per_task": 64,
        "timeout_min": 30,
        "slurm_additional_parameters": {"qos": "long"},
        "slurm_partition": "gpu",
    }
    assert (made.options["cluster"], made.options["slurm_max_num_timeout"]) == (None, 20)
    assert made.job == submit.ScriptJob(command=(SCRIPT, "NUM_GPUS", "4"), num_gpus=4)
    assert capsys.readouterr().out == "job 7, log 7.out\n"


@pytest.fixture
def job(submit, tmp_path):
    """A job whose launcher writes down what it gets."""
    launcher = tmp_path / "script" / "launch" / "multi_node.sh"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(
        f'{sys.executable} -c \'import json, os, sys; json.dump([dict(os.environ), sys.argv[1:]], open("got", "w"))\' '
        '"$@"\n[ "$1" != fails ] || exit 3\n'
    )
    return lambda *command: submit.ScriptJob(command=command, num_gpus=4, root=tmp_path)


@pytest.mark.usefixtures("submitit")
def test_a_job_tells_its_machine_where_the_others_are(job, tmp_path):
    job(SCRIPT, "OUTPUT_DIR", "a b")()
    environment, arguments = json.loads((tmp_path / "got").read_text())
    assert arguments == [SCRIPT, "OUTPUT_DIR", "a b"]
    expected = {"NNODES": "2", "NODE_RANK": "1", "NUM_GPUS": "4", "MASTER_ADDR": "host0", "MASTER_PORT": "20077"}
    assert {name: environment[name] for name in expected} == expected


@pytest.mark.usefixtures("submitit")
def test_a_job_fails_with_its_run(job):
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        job("fails")()


@pytest.mark.usefixtures("submitit")
def test_a_preempted_job_queues_the_same_again(job):
    again = job(SCRIPT)
    assert again.checkpoint() == ("again", again)


def test_a_missing_package_is_one_line(submit, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert submit.main([SCRIPT]) == 1
    assert capsys.readouterr().err == "error: submitit: not installed; pip install -e '.[submitit]'\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "command: expected a script or a YAML file of this checkout, found nothing"),
        (["script/absent.sh"], "found 'script/absent.sh'"),
        (["--sbatch", "long", SCRIPT], "--sbatch: expected KEY=VALUE, found 'long'"),
    ],
)
def test_a_wrong_command_line_is_refused(submit, arguments, expected, capsys):
    with pytest.raises(SystemExit):
        submit.main(arguments)
    assert expected in capsys.readouterr().err
