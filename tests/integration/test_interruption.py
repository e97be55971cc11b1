"""Runs that are killed, told to end, or lose a process or the disk: nothing is lost, and the same command goes on."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from slowfast.methods import METHODS

LAST = "checkpoint_epoch_00014.pyth"
# 3 steps an epoch, 42 in all; a checkpoint every 4 steps, so that 17 steps reach into the sixth epoch.
OPTIONS = {
    "SOLVER.MAX_EPOCH": 14,
    "TRAIN.CHECKPOINT_PERIOD": 5,
    "TRAIN.CHECKPOINT_STEPS": 4,
    "TRAIN.EVAL_PERIOD": 4,
    "TEST.ENABLE": False,
}
GLOO_PAIR = {"NUM_GPUS": 2, "DIST_BACKEND": "gloo"}
TORCHRUN = ("-m", "torch.distributed.run")
LOST = (
    "error: rank 0 lost contact with rank 1, which ended or does not answer; its log, stdout_rank1.log, may say why ("
)


class Run:
    """The command in a process group of its own, and what it says."""

    def __init__(self, command, environment, **more):
        self.process = subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, **more,
        )  # fmt: skip
        self.lines, self.errors = [], []
        self.readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self.readers:
            reader.start()

    def _read(self, source, target):
        for line in source:
            target.append(line)

    @property
    def err(self):
        return "".join(self.errors)

    def told(self):
        """What our own program says of an error; PyTorch's C++ and Python's multiprocessing add theirs."""
        assert f"{os.sep}slowfast{os.sep}" not in self.err
        return [line.rstrip("\n") for line in self.errors if line.startswith("error: ")]

    def steps(self):
        """The figures of every step so far."""
        found = [json.loads(line.partition("json_stats: ")[2]) for line in list(self.lines) if '"train_iter_"' in line]
        clock = {"dt", "dt_data", "dt_net", "eta", "gpu_mem"}
        return [{key: value for key, value in line.items() if key not in clock} for line in found]

    def wait_for_steps(self, count):
        self.wait_for(lambda: len(self.steps()) >= count)

    def wait_for(self, condition):
        for _ in range(12000):
            if condition():
                return
            assert self.process.poll() is None, "".join(self.lines[-5:]) + self.err
            time.sleep(0.01)
        raise AssertionError("it took too long")

    def end(self):
        """Wait for the end; returns the exit status."""
        status = self.process.wait(timeout=240)
        for reader in self.readers:
            reader.join(timeout=30)
        return status

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.end()

    def is_gone(self):
        """Whether every process of the group is gone, within some seconds."""
        for _ in range(200):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.1)
        return False


@pytest.fixture
def start(recipe, environment, repository):
    """Starts the command: start({KEY: value}, launcher=()) -> Run; whatever is left is killed in the end."""
    runs = []

    def run(options, *, launcher=(), arguments=(), **more):
        words = [word for pair in options.items() for word in pair]
        command = [sys.executable, *launcher, repository / "tools" / "run_net.py", "--cfg", recipe, *arguments]
        runs.append(Run([*command, "--opts", *words], environment, **more))
        return runs[-1]

    yield run
    for left in runs:
        left.kill()


@pytest.fixture(scope="module")
def straight(shell, tmp_path_factory):
    """Undisturbed runs by number of processes: straight(world) -> (folder, figures of all steps)."""
    done = {}

    def run(world):
        if world not in done:
            folder = tmp_path_factory.mktemp(f"straight{world}") / "out"
            result = shell({"OUTPUT_DIR": folder, **OPTIONS, **(GLOO_PAIR if world == 2 else {})})
            assert result.returncode == 0, result.stderr
            finished = Run(["cat", folder / "stdout.log"], os.environ)
            finished.end()
            done[world] = folder, finished.steps()
        return done[world]

    return run


def load(folder, name=LAST):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def assert_same(a, b):
    """Compare nested containers of tensors bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


def assert_same_end(a, b):
    left, right = load(a), load(b)
    for content in (left, right):
        content.pop("cfg")  # names the folder
    assert_same(left, right)
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (a, b)]
    assert names[0] == names[1]
    assert "checkpoint_within" not in "".join(names[1])


def place(step):
    """A step, counted from 1, as the log names it."""
    return f"{(step - 1) // 3 + 1}/14", f"{(step - 1) % 3 + 1}/3"


# ------------------------------------------------------------------------------------------------------------- kill -9


# CLIP-FSAR is interrupted in test_episodic.py.
OTHERS = [name for name in METHODS if name not in ("stdd", "clip_fsar")]


@pytest.mark.parametrize(
    ("recipe", "workers"), [("stdd", 0), ("stdd", 2), *((name, 0) for name in OTHERS)],
    indirect=["recipe"],
)  # fmt: skip
@pytest.mark.parametrize("world", [1, 2])
def test_killed_after_17_steps(start, straight, json_lines, tmp_path, workers, world):
    folder, steps = straight(world)
    options = {"OUTPUT_DIR": tmp_path / "out", **OPTIONS, **(GLOO_PAIR if world == 2 else {})}
    options["DATA_LOADER.NUM_WORKERS"] = workers
    first = start(options)
    first.wait_for_steps(17)
    assert first.kill() == -signal.SIGKILL
    assert first.is_gone()
    second = start(options)
    assert (second.end(), second.err) == (0, "")
    (behind,) = [line for line in second.lines if "Continuing from" in line]
    resumed = second.steps()
    done = len(steps) - len(resumed)
    assert done in (16, 20), behind  # the fourth checkpoint, or the fifth if the end came late
    assert first.steps()[:done] == steps[:done]
    assert resumed == steps[done:]
    assert (resumed[0]["epoch"], resumed[0]["iter"]) == place(done + 1)
    assert_same_end(folder, tmp_path / "out")
    logs = [json_lines(path / "json_stats.log") for path in (folder, tmp_path / "out")]
    by_name = [{(line["_type"], line["epoch"]): line for line in log} for log in logs]
    assert by_name[0] == by_name[1]


def test_another_number_of_processes_keeps_the_order_of_the_videos(start, net, tmp_path):
    # Not AdamW, which blows rounding errors up to full steps.
    sgd = {"SOLVER.OPTIMIZING_METHOD": "sgd", "SOLVER.BASE_LR": 0.1, "SOLVER.WARMUP_START_LR": 0.01}
    options = {**OPTIONS, **sgd}
    status, _, err = net({"OUTPUT_DIR": tmp_path / "one", **options})
    assert (status, err) == (0, "")
    first = start({"OUTPUT_DIR": tmp_path / "out", **options})
    first.wait_for_steps(17)
    first.kill()
    second = start({"OUTPUT_DIR": tmp_path / "out", **options, **GLOO_PAIR})
    assert (second.end(), second.err) == (0, "")
    one, two = load(tmp_path / "one")["model_state"], load(tmp_path / "out")["model_state"]
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- asked to end


@pytest.mark.parametrize(
    ("signum", "status", "more"),
    [
        (signal.SIGTERM, 143, {"DATA_LOADER.NUM_WORKERS": 2}),
        (signal.SIGUSR1, 143, {}),
        (signal.SIGINT, 130, {"DATA_LOADER.NUM_WORKERS": 1}),
        (signal.SIGTERM, 143, GLOO_PAIR),
        (signal.SIGINT, 130, {**GLOO_PAIR, "DATA_LOADER.NUM_WORKERS": 1}),
    ],
    ids=["TERM", "USR1", "INT", "TERM, two ranks", "INT, two ranks"],
)
def test_a_signal_to_all_processes(start, straight, tmp_path, signum, status, more):
    folder, steps = straight(2 if "DIST_BACKEND" in more else 1)
    options = {"OUTPUT_DIR": tmp_path / "out", **OPTIONS, **more, "TRAIN.CHECKPOINT_STEPS": 0}
    first = start(options)
    first.wait_for_steps(7)
    os.killpg(first.process.pid, signum)
    assert first.end() == status, first.err
    assert first.is_gone()
    assert first.err.startswith(f"ended by {signal.Signals(signum).name}")
    assert first.err.count("\n") == 1
    done = len(first.steps())
    second = start(options)
    assert (second.end(), second.err) == (0, "")
    assert first.steps() + second.steps() == steps
    assert done >= 7
    assert_same_end(folder, tmp_path / "out")


def test_a_signal_to_one_rank_ends_all_at_the_same_step(start, straight, tmp_path):
    folder, steps = straight(2)
    options = {"OUTPUT_DIR": tmp_path / "out", **OPTIONS, **GLOO_PAIR, "TRAIN.CHECKPOINT_STEPS": 0}
    first = start(options)
    first.wait_for_steps(7)
    os.kill(ranks_of(first)[1], signal.SIGTERM)
    assert first.end() == 143, first.err
    second = start(options)
    assert second.end() == 0
    assert first.steps() + second.steps() == steps
    assert_same_end(folder, tmp_path / "out")


def ranks_of(run):
    """Process ids of the ranks that a run has started."""
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text(encoding="ascii").split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_signal_during_a_test_ends_it_at_once(start, net, recipe, tmp_path):
    options = {"OUTPUT_DIR": tmp_path / "out", "TRAIN.ENABLE": False, "TEST.BATCH_SIZE": 2, "LOG_PERIOD": 1}
    run = start(options)
    run.wait_for(lambda: any("test_iter" in line for line in run.lines))
    run.process.send_signal(signal.SIGTERM)
    assert run.end() in (143, 0)  # 0: it was through already
    status, _, err = net(options)
    assert (status, err) == (0, "")


# ----------------------------------------------------------------------------------------------------- lost processes


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_and_is_named(start, tmp_path, rank):
    run = start({"OUTPUT_DIR": tmp_path / "out", **OPTIONS, **GLOO_PAIR, "DATA_LOADER.NUM_WORKERS": 1})
    run.wait_for_steps(5)
    os.kill(ranks_of(run)[rank], signal.SIGKILL)
    assert run.end() == 1
    assert run.told() == [f"error: rank {rank} was killed by SIGKILL; the run has ended"]
    assert run.is_gone()
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_rank_that_hangs_ends_the_run_within_the_time_out_and_is_named(start, tmp_path):
    options = {"OUTPUT_DIR": tmp_path / "out", **OPTIONS, **GLOO_PAIR, "DIST_TIMEOUT_MINUTES": 0.05}
    run = start(options)
    run.wait_for_steps(5)
    os.kill(ranks_of(run)[1], signal.SIGSTOP)
    assert run.end() == 1
    (line,) = run.told()
    assert line.startswith(LOST)
    assert run.is_gone()


def test_torchrun_restarts_and_the_run_goes_on(start, straight, tmp_path):
    folder, _ = straight(2)
    launcher = (*TORCHRUN, "--standalone", "--nproc_per_node", "2", "--max-restarts", "1")
    run = start({"OUTPUT_DIR": tmp_path / "out", **OPTIONS}, launcher=launcher)
    run.wait_for_steps(9)
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text(encoding="ascii").split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert run.end() == 0, run.err
    assert run.is_gone()
    assert sum("Continuing from" in line for line in run.lines) == 1
    assert_same_end(folder, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------- two machines


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start_two(start, options, way):
    """The command on two machines, both of which are this one."""
    port, runs = free_port(), []
    for number in range(2):
        if way == "torchrun":
            launcher = (*TORCHRUN, "--nnodes", 2, "--node_rank", number, "--nproc_per_node", 1,
                        "--master_addr", "127.0.0.1", "--master_port", port)  # fmt: skip
            runs.append(start(options, launcher=launcher))
        else:
            meeting = f"tcp://127.0.0.1:{port}"
            arguments = ("--num_shards", 2, "--shard_id", number, "--init_method", meeting)
            runs.append(start(options, arguments=arguments))
    return runs


@pytest.mark.parametrize("way", ["torchrun", "num_shards"])
def test_two_machines(start, straight, json_lines, tmp_path, way):
    folder, steps = straight(2)
    # Batch sizes are per machine.
    options = {**OPTIONS, "TRAIN.BATCH_SIZE": 2, "OUTPUT_DIR": tmp_path / "out", "TEST.ENABLE": True}
    runs = start_two(start, options, way)
    assert [run.end() for run in runs] == [0, 0], runs[0].err + runs[1].err
    assert runs[0].steps() == steps
    assert_same(load(folder)["model_state"], load(tmp_path / "out")["model_state"])
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["num_scored"] == 5


def test_a_machine_that_is_lost_is_named(start, tmp_path):
    runs = start_two(start, {**OPTIONS, "TRAIN.BATCH_SIZE": 2, "OUTPUT_DIR": tmp_path / "out"}, "num_shards")
    runs[0].wait_for_steps(5)
    runs[1].kill()
    assert runs[0].end() == 1
    (line,) = runs[0].told()
    assert line.startswith(LOST)


# --------------------------------------------------------------------------------------------------------------- files


def test_two_runs_in_one_folder(start, straight, tmp_path):
    folder, _ = straight(1)
    options = {"OUTPUT_DIR": tmp_path / "out", **OPTIONS}
    first = start(options)
    first.wait_for_steps(2)
    first.process.send_signal(signal.SIGSTOP)
    second = start(options)
    assert second.end() == 1
    assert second.err.startswith(f"error: OUTPUT_DIR: {tmp_path / 'out'} is in use by process {first.process.pid} on ")
    first.process.send_signal(signal.SIGCONT)
    assert first.end() == 0
    assert_same_end(folder, tmp_path / "out")


def test_a_full_disk_stops_the_run_and_leaves_the_last_good_state(start, straight, tmp_path):
    """The limit of a file's size stands in for a full disk: writing fails in the middle of a file."""
    folder, _ = straight(1)
    options = {"OUTPUT_DIR": tmp_path / "out", **OPTIONS}
    first = start(options)
    first.wait_for_steps(6)
    first.kill()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out" / "checkpoints").glob("*.pyth")}
    assert kept
    half = min(map(len, kept.values())) // 2
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))  # noqa: E731
    second = start(options, preexec_fn=limit)
    assert second.end() == 1
    assert second.err.count("\n") == 1
    assert second.err.startswith("error: ")
    assert "File too large" in second.err
    assert str(tmp_path / "out" / "checkpoints") in second.err
    after = {path.name: path.read_bytes() for path in (tmp_path / "out" / "checkpoints").glob("*.pyth*")}
    assert after == kept
    third = start(options)
    assert (third.end(), third.err) == (0, "")
    assert_same_end(folder, tmp_path / "out")
