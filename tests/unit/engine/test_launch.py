import logging
import re

import pytest
import torch
import torch.distributed as dist

from slowfast.engine.launch import LaunchPlan, ProcessContext, is_first_process, launch
from slowfast.utils.distributed import all_gather_objects, barrier


@pytest.fixture(autouse=True)
def no_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("num_gpus", "found", "backend"), [(0, 0, "nccl"), (1, 0, "nccl"), (2, 0, "gloo"), (4, 4, "nccl"), (1, 4, "gloo")]
)
def test_plans_that_fit(monkeypatch, num_gpus, found, backend):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    assert LaunchPlan(num_gpus=num_gpus, backend=backend).local_world_size == max(1, num_gpus)


@pytest.mark.parametrize(("num_gpus", "found", "backend"), [(2, 0, "nccl"), (8, 4, "nccl"), (8, 4, "gloo")])
def test_plans_that_do_not_fit(monkeypatch, num_gpus, found, backend):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    with pytest.raises(ValueError, match="NUM_GPUS") as caught:
        LaunchPlan(num_gpus=num_gpus, backend=backend)
    assert str(caught.value) == (
        f"NUM_GPUS: is {num_gpus}, but this machine has {found} CUDA devices; allowed: at most {max(found, 1)}, "
        "or any number with DIST_BACKEND gloo on a machine without CUDA"
    )


def test_first_process(monkeypatch):
    assert is_first_process(shard_id=0)
    assert not is_first_process(shard_id=1)
    monkeypatch.setenv("RANK", "3")
    assert not is_first_process(shard_id=0)
    monkeypatch.setenv("RANK", "0")
    assert is_first_process(shard_id=1)


def test_fp32_means_fp32_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    before, seen = torch.backends.cudnn.allow_tf32, []
    try:
        launch(LaunchPlan(num_gpus=1), lambda context: seen.append(context.device))
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert seen == [torch.device("cuda", 0)]


def test_one_process_runs_here():
    seen = []
    launch(LaunchPlan(num_gpus=0), lambda context, *args: seen.append((context, args)), 1, "two")
    assert seen == [(ProcessContext(), (1, "two"))]
    assert not dist.is_initialized()


def test_missing_gpu_is_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        launch(LaunchPlan(num_gpus=1), lambda context: None)
    (record,) = caplog.records
    assert record.getMessage() == "NUM_GPUS is 1, but this machine has no CUDA device: running on the CPU"


def test_torchrun_variables_decide(monkeypatch):
    for name, value in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)):
        monkeypatch.setenv(name, str(value))
    seen = []
    launch(LaunchPlan(num_gpus=0), seen.append)
    assert seen == [ProcessContext()]


# --------------------------------------------------------------------------------- functions of the spawned processes


def report(context, folder):
    everyone = all_gather_objects((context.rank, context.world_size, context.local_rank, context.local_world_size))
    (folder / f"{context.rank}.txt").write_text(repr(everyone), encoding="utf-8")


def fail_on_rank_1(context, folder):
    if context.rank == 1:
        raise FileNotFoundError(2, "No such file or directory", str(folder / "absent.csv"))
    barrier()


def have_a_defect(context):
    raise KeyError("a defect")


@pytest.fixture
def gloo_pair():
    """Two processes on this machine, meeting at a free port."""
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return LaunchPlan(num_gpus=2, backend="gloo", init_method=f"tcp://localhost:{port}")


@pytest.fixture
def here(monkeypatch):
    """This file as a module that spawned processes can import."""
    import importlib
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module(Path(__file__).stem)


def test_two_spawned_processes(gloo_pair, here, tmp_path):
    launch(gloo_pair, here.report, tmp_path)
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert texts == dict.fromkeys(("0.txt", "1.txt"), repr([(0, 2, 0, 2), (1, 2, 1, 2)]))


def test_error_of_one_process_is_the_error_of_the_run(gloo_pair, here, tmp_path):
    message = f"{tmp_path / 'absent.csv'}: No such file or directory"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        launch(gloo_pair, here.fail_on_rank_1, tmp_path)


def test_defect_keeps_its_traceback(gloo_pair, here):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="have_a_defect"):
        launch(gloo_pair, here.have_a_defect)
