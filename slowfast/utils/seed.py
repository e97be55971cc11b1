"""Seeds that depend only on what they are for."""

from __future__ import annotations

import hashlib
import os
import random


def derive_seed(*parts: int | str) -> int:
    """Mix numbers and names into a seed that is the same on every machine and in every process.

    Args:
        parts: for instance (run seed, epoch, index) or (run seed, "sampler"); the order matters.

    Returns: an integer in [0, 2**63).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = f"{'s' if isinstance(part, str) else 'i'}{part}".encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's legacy generator and torch.

    Args:
        seed: any non-negative integer; NumPy receives its lowest 32 bits.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries below us draw from the legacy generator)
    torch.manual_seed(seed)


def make_deterministic(enable: bool) -> None:
    """Let PyTorch use only algorithms that give the same bits in every run, and refuse operations that have none.

    Args:
        enable: False restores PyTorch's default.
    """
    import torch

    if enable:
        # cuBLAS reads this before its first product; the fixed workspace is what makes it repeatable.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enable)
    torch.backends.cudnn.deterministic = enable
    # Filling fresh memory would only hide reads of memory that nothing has written, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = not enable  # type: ignore[attr-defined]
