"""Processes of one start find each other in a store full of earlier ones."""

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from slowfast.engine.lost_contact import is_lost_contact
from slowfast.engine.rendezvous import agree_on_store

SOON = timedelta(seconds=20)


def start(store, world_size, *, leave_out=()):
    """Let all ranks agree; returns their stores by rank."""
    found = {}

    def run(rank):
        found[rank] = agree_on_store(store, rank=rank, world_size=world_size, timeout=SOON)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size) if rank not in leave_out]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return found


@pytest.mark.parametrize("world_size", [2, 4])
def test_one_place_per_start(world_size):
    store = dist.HashStore()
    for number in range(3):
        found = start(store, world_size)
        assert len(found) == world_size
        assert not any(part.check(["address"]) for part in found.values())
        found[0].set("address", str(number))
        assert all(part.get("address") == str(number).encode() for part in found.values())


def test_a_start_that_never_came_together_is_no_obstacle():
    store = dist.HashStore()
    store.set("here/1", "an earlier rank 1")  # it died before it was welcomed
    store.set("here/2", "an earlier rank 2")
    found = start(store, 3)
    found[0].set("x", "new")
    assert all(part.get("x") == b"new" for part in found.values())


@pytest.mark.parametrize("rank", [0, 1])
def test_others_that_do_not_come(rank):
    with pytest.raises(RuntimeError, match="timed out waiting for the other processes to start") as caught:
        agree_on_store(dist.HashStore(), rank=rank, world_size=2, timeout=timedelta(seconds=0.1))
    assert is_lost_contact(caught.value)
