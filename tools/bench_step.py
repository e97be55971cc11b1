"""A training step and an evaluation forward: published-style, plain CLIP, ours, and compiled."""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import step_ways
from bench_common import CLOCKS, by_turns, hardware, matmul_peak
from step_ways import ARCHS, PLAIN_COMPILED, PUBLISHED, WAYS, Setting, Way

from slowfast.report.table import format_table

if TYPE_CHECKING:
    import torch

DTYPES = ("fp32", "bf16", "fp16")
_GIB = 1024**3
_COLUMNS = [
    "", "step, clips/s", "over published-style", "GFLOPs/clip", "of the peak", "memory",
    "forward, clips/s", "time over plain, compiled", "GFLOPs/clip",
]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="of ours; published-style is fp16 for bf16 (default by device)")
    parser.add_argument("--arch", nargs="+", default=["vitb16"], choices=sorted(ARCHS), help="default vitb16")
    parser.add_argument("--frames", type=int, nargs="+", default=[8], help="per clip (default 8)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="clips per step (default 1)")
    parser.add_argument("--distillation", default="intended", choices=["intended", "published", "none"])
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY", help="; ".join(WAYS))
    parser.add_argument("--repeat", type=int, default=5, help="turns of each way (default 5)")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn; several on a GPU (default 1)")
    parser.add_argument("--threads", type=int, help="of a CPU (default: what OMP_NUM_THREADS says, else its cores)")
    parser.add_argument("--clock", default="wall", choices=sorted(CLOCKS), help="cpu for a loaded machine, one thread")
    parser.add_argument("--memory", action="store_true", help="on a CPU: each way once more, in a process of its own")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write where the time of a step goes")
    parser.add_argument(
        "--sweep", action="store_true", help="all that docs/benchmarks.md says of a GPU, instead of the options above"
    )


def run(args: argparse.Namespace) -> None:
    """Measure every setting and print a table for each."""
    import torch

    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: this machine has no GPU that PyTorch can use")
    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = args.dtype or ("bf16" if device.type == "cuda" else "fp32")
    clock = CLOCKS[args.clock]
    wide = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    peak = matmul_peak(device, wide, clock=clock)
    print(
        f"{hardware(device)}; PyTorch {torch.__version__}; distillation: {args.distillation}; {args.clock} time, "
        f"median of {args.repeat} turns of {args.steps} step{'s' if args.steps > 1 else ''}; "
        f"matrix product in {dtype}: {peak / 1e12:.3g} TFLOP/s\n",
        flush=True,
    )
    if args.profile is not None:
        args.profile.write_text("", encoding="utf-8")
    for setting in _settings(args, dtype=dtype):
        print(f"{setting}\n", flush=True)
        print(_measure(setting, args, device=device, clock=clock, peak=peak), flush=True)
        _forget(device)


def _settings(args: argparse.Namespace, *, dtype: str) -> Iterator[Setting]:
    named = {"dtype": dtype, "device": args.device, "distillation": args.distillation, "classes": args.classes}
    if not args.sweep:
        for arch, frames, batch in itertools.product(args.arch, args.frames, args.batch):
            yield Setting(arch=arch, frames=frames, batch=batch, **named)
        return
    # The first is what the targets are about, in case that the machine is not lent for longer.
    for batch in (32, 8, 16, 64, 128):
        yield Setting(arch="vitb16", frames=8, batch=batch, **named)
    for frames in (16, 32):
        yield Setting(arch="vitb16", frames=frames, batch=256 // frames, **named)
    for batch in (8, 32):
        yield Setting(arch="vitl14", frames=8, batch=batch, **named)


def _measure(
    setting: Setting, args: argparse.Namespace, *, device: torch.device, clock: Callable[[], float], peak: float
) -> str:
    """The table of a setting, and a line for each way that did not fit."""
    ways, memory, notes = _build(setting, args, device=device)
    if not ways:
        return "\n".join(notes) + "\n"

    def steps(way: Way) -> Callable[[], object]:
        return lambda: float([way.train() for _ in range(args.steps)][-1])

    def forwards(way: Way) -> Callable[[], object]:
        return lambda: [way.score() for _ in range(args.steps)][-1]

    turns = []
    for make in (steps, forwards):
        functions = [make(way) for way in ways.values()]
        seconds = by_turns(functions, repeat=args.repeat, device=device, clock=clock)
        turns.append(dict(zip(ways, seconds, strict=True)))
    if args.profile is not None:
        _profile(ways, args.profile, setting, device=device)
    return "\n\n".join([_table(setting, ways, turns, memory, steps=args.steps, peak=peak), *notes]) + "\n"


def _build(
    setting: Setting, args: argparse.Namespace, *, device: torch.device
) -> tuple[dict[str, Way], dict[str, int], list[str]]:
    """Build and run each way once; what each takes at most in a step, bytes; what did not fit."""
    import torch

    ways: dict[str, Way] = {}
    memory: dict[str, int] = {}
    notes, losses = [], {}
    for name in args.ways:
        try:
            if args.memory and device.type == "cpu":
                memory[name] = _in_a_process(name, setting)
            way, losses[name], taken = _warmed_up(name, setting, device=device)
            ways[name] = way
            if taken is not None:
                memory[name] = taken
        except torch.OutOfMemoryError:
            notes.append(f"{name}: out of memory")
        _forget(device)
    own = [loss for name, loss in losses.items() if not name.startswith("plain")]
    if len(own) > 1:
        print(f"Loss of the first step: {own[0]:.4f}, largest difference {max(own) - min(own):.1e}\n", file=sys.stderr)
    return ways, memory, notes


def _warmed_up(name: str, setting: Setting, *, device: torch.device) -> tuple[Way, float, int | None]:
    """Build a way, compile what it compiles; its first loss, and what it takes on a GPU, bytes."""
    import torch

    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_gpu else 0
    way = step_ways.build(name, setting)
    loss = float(way.train())
    taken = None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        float(way.train())
        taken = torch.cuda.max_memory_allocated(device) - before
    way.score()
    return way, loss, taken


def _in_a_process(name: str, setting: Setting) -> int:
    import torch

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(step_ways.peak_of_a_process, name, setting, torch.get_num_threads()).result()


def _forget(device: torch.device) -> None:
    """Give back what an implementation left behind, after an error too."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _table(
    setting: Setting,
    ways: dict[str, Way],
    turns: Sequence[dict[str, list[float]]],
    memory: dict[str, int],
    *,
    steps: int,
    peak: float,
) -> str:
    clips = setting.batch * steps

    def over(longer: list[float] | None, shorter: list[float] | None) -> str:
        if longer is None or shorter is None:
            return ""
        return f"{statistics.median(a / b for a, b in zip(longer, shorter, strict=True)):.2f}x"

    lines = []
    for name, way in ways.items():
        step, forward = (clips / statistics.median(seconds[name]) for seconds in turns)
        lines.append([
            name, f"{step:.3g}", over(turns[0].get(PUBLISHED), turns[0][name]), f"{way.train_gflops:.4g}",
            f"{100 * step * way.train_gflops * 1e9 / peak:.0f} %",
            f"{memory[name] / _GIB:.2f} GiB" if name in memory else "",
            f"{forward:.3g}", over(turns[1][name], turns[1].get(PLAIN_COMPILED)), f"{way.score_gflops:.4g}",
        ])  # fmt: skip
    used = [column for column in range(len(_COLUMNS)) if any(line[column] for line in lines)]
    return format_table([_COLUMNS[column] for column in used], [[line[column] for column in used] for line in lines])


def _profile(ways: dict[str, Way], path: Path, setting: Setting, *, device: torch.device) -> None:
    """Append where the time of one step goes, for each way."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with path.open("a", encoding="utf-8") as file:
        for name, way in ways.items():
            with profile(activities=activities) as profiled:
                float(way.train())
            order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
            file.write(f"{setting}: {name}\n{profiled.key_averages().table(sort_by=order, row_limit=40)}\n")
