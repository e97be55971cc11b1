"""A part of a store that only the processes of one start use, although the store has outlived others."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import torch.distributed as dist

_POLL_SECONDS = 0.01


def agree_on_store(store: dist.Store, *, rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """Agree on a prefix that no earlier start has used.

    torchrun keeps its store over restarts. Under the same keys, processes would find the addresses of those before
    them, and wait for processes that are gone. Counting starts does not help: one may have died before it counted, and
    the machines of a run count restarts each for itself. So every process brings a name that is new, and rank 0 tells
    each new name the prefix, until all have confirmed it.

    Args:
        store: what all processes see, with whatever earlier starts left in it.
        rank: this process.
        world_size: number of processes.
        timeout: longest wait for the others.

    Returns: the store under the new prefix.

    Raises:
        RuntimeError: if others do not come in time; its text is that of a lost contact.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    name = uuid.uuid4().hex
    if rank > 0:
        store.set(f"here/{rank}", name)
        _wait(store, f"welcome/{name}", deadline)
        prefix = store.get(f"welcome/{name}").decode()
        store.set(f"{prefix}/confirmed/{rank}", "")
        return dist.PrefixStore(prefix, store)
    missing = set(range(1, world_size))
    while missing:
        for other in sorted(missing):
            if store.check([f"{name}/confirmed/{other}"]):
                missing.discard(other)
            elif store.check([f"here/{other}"]):
                # Perhaps the name of an earlier start, whom nobody hears; the new one comes later under the same key.
                store.set(f"welcome/{store.get(f'here/{other}').decode()}", name)
        _sleep(deadline)
    return dist.PrefixStore(name, store)


def _wait(store: dist.Store, key: str, deadline: float) -> None:
    while not store.check([key]):
        _sleep(deadline)


def _sleep(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError("timed out waiting for the other processes to start (DIST_TIMEOUT_MINUTES)")
    time.sleep(_POLL_SECONDS)
