"""One process has nothing to average; what several do is in test_two_ranks.py."""

import torch
import torch.distributed as dist
from torch import nn

from slowfast.engine import running_statistics
from slowfast.engine.running_statistics import average_running_statistics


def refuse(*_, **__):
    raise AssertionError("nothing is exchanged")


def test_one_process_keeps_its_statistics_bit_for_bit():
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1)))
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    average_running_statistics(norm)
    assert all(torch.equal(before[name], tensor) for name, tensor in norm.state_dict().items())


def test_modules_without_moving_statistics_exchange_nothing(monkeypatch):
    monkeypatch.setattr(running_statistics, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", refuse)
    plain = nn.BatchNorm1d(3, track_running_stats=False)
    average_running_statistics(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), plain, nn.BatchNorm1d(3).eval()))
