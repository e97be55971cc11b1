"""What the parts of tools/benchmark.py share: ways that take turns, random models, rendered videos."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from slowfast.models.clip.model import CLIP

TINY = "tiny"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def random_clip(model: str) -> CLIP:
    """A CLIP of a published model's sizes, or a small one, with random weights."""
    from slowfast.models.build import build_clip
    from slowfast.models.clip.arch import ClipSizes, published_clip
    from slowfast.models.clip.weights import random_clip_state_dict

    published = published_clip(model)
    if published is None and model != TINY:
        raise ValueError(f"--model: unknown value {model!r}; allowed: {TINY}, ViT-B/32, ViT-B/16, ViT-L/14")
    sizes = (
        ClipSizes(
            image_size=32, patch_size=8, vision_width=64, vision_layers=1, embed_dim=64, text_width=128, text_layers=4
        )
        if published is None
        else published.sizes
    )
    return build_clip(random_clip_state_dict(sizes, seed=0)).eval()


def by_turns(
    ways: Sequence[Callable[[], object]],
    *,
    repeat: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Seconds of each call, the ways taking turns after one round that does not count."""
    import torch

    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(repeat + 1):
        for way, taken in zip(ways, seconds, strict=True):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = clock()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                taken.append(clock() - start)
    return seconds


def hardware(device: torch.device) -> str:
    """The processor that computes, and how many threads of it do."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else 'CPU'}, {threads} thread{'s' if threads > 1 else ''}"


def matmul_peak(device: torch.device, dtype: torch.dtype, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Operations per second of the best of some large square matrix products, an addition and a product being two."""
    import torch

    side, products = (8192, 20) if device.type == "cuda" else (1536, 2)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(products):
            torch.mm(a, b)

    (seconds,) = by_turns([multiply], repeat=7, device=device, clock=clock)
    return 2.0 * side**3 * products / min(seconds)


def render_video(path: Path, *, seconds: float, fps: int = 30) -> None:
    """Write a video of the size of Kinetics copies: a window that moves over a soft random picture, with grain."""
    import numpy as np

    from slowfast.datasets.synthetic import write_video

    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (40, 60, 3)).repeat(16, axis=0).repeat(16, axis=1)  # (640, 960, 3)
    picture = np.mean([np.roll(coarse, (y, x), (0, 1)) for y in range(0, 16, 4) for x in range(0, 16, 4)], axis=0)
    frames = np.empty((round(seconds * fps), 256, 340, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = (round(180 + 150 * wave(number / 40)) for wave in (np.sin, np.cos))
        grain = rng.normal(0, 4, frame.shape)
        frame[:] = (picture[top : top + 256, left : left + 340] + grain).clip(0, 255)
    write_video(path, frames, fps=fps)
