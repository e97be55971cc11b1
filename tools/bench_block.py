"""One STDD block and the whole image tower: published-style, plain CLIP, ours, and compiled."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench_common import CLOCKS, TINY, by_turns, hardware
from step_ways import ARCHS, load_oracle

from slowfast.report.table import format_table

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PUBLISHED, PLAIN = "published-style", "plain CLIP"
WAYS = (PUBLISHED, PLAIN, "STDD, own", "STDD, shared")
"""Own and shared are the values of MODEL.STCROSS_QKV."""
_COLUMNS = ["", "forward", "to plain", "forward + backward", "to plain", "published-style", "GMAC"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured, and on what."""

    part: str
    arch: str
    frames: int
    batch: int
    scales: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        where = f"{self.arch}, {self.frames} frames, batch {self.batch}, {self.dtype}"
        return f"{'One block' if self.part == 'block' else 'Image tower'}: {where}, scales {list(self.scales)}"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A module and its input."""

    module: Any
    x: Tensor
    autocast: Callable[[], contextlib.AbstractContextManager[Any]]
    gmac: float

    def forward(self) -> None:
        """Score."""
        import torch

        self.module.eval()
        with torch.no_grad(), self.autocast():
            self.module(self.x)

    def train(self) -> None:
        """Forward and backward in training mode."""
        self.module.train()
        with self.autocast():
            y = self.module(self.x)
        y.backward(y.detach())
        self.module.zero_grad(set_to_none=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="default: bf16 on a GPU, else fp32")
    parser.add_argument("--arch", nargs="+", default=["vitb16"], choices=sorted(ARCHS), help="default vitb16")
    parser.add_argument("--frames", type=int, nargs="+", default=[8], help="per clip (default 8)")
    parser.add_argument("--batch", type=int, nargs="+", help="clips (default 1, on a GPU 8 and 32)")
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 2], help="of the temporal branch (default 1 2)")
    parser.add_argument("--parts", nargs="+", default=["block", "tower"], choices=["block", "tower"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY", help="; ".join(WAYS))
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--repeat", type=int, default=7, help="turns of each way (default 7)")
    parser.add_argument("--calls", type=int, help="calls of a turn (default 1, on a GPU 10)")
    parser.add_argument("--threads", type=int, help="of a CPU (default: what OMP_NUM_THREADS says, else its cores)")
    parser.add_argument("--clock", default="wall", choices=sorted(CLOCKS), help="cpu for a loaded machine, one thread")


def run(args: argparse.Namespace) -> None:
    """Measure every setting and print a table for each."""
    import torch

    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: this machine has no GPU that PyTorch can use")
    if args.threads:
        torch.set_num_threads(args.threads)
    on_gpu = device.type == "cuda"
    dtype, calls = args.dtype or ("bf16" if on_gpu else "fp32"), args.calls or (10 if on_gpu else 1)
    print(
        f"{hardware(device)}; PyTorch {torch.__version__}; {args.clock} time, median of {args.repeat} turns of {calls} "
        f"call{'s' if calls > 1 else ''}; random weights; published-style computes in float16 under autocast where "
        "the others compute in bfloat16 on a GPU. Ratios are to plain CLIP as it is run, eager or compiled.\n",
        flush=True,
    )
    settings = itertools.product(args.parts, args.arch, args.frames, args.batch or ([8, 32] if on_gpu else [1]))
    for part, arch, frames, batch in settings:
        scales = tuple(args.scales)
        subject = Subject(part=part, arch=arch, frames=frames, batch=batch, scales=scales, dtype=dtype)
        print(f"{subject}\n", flush=True)
        print(_measure(subject, args, device=device, calls=calls) + "\n", flush=True)


def _measure(subject: Subject, args: argparse.Namespace, *, device: torch.device, calls: int) -> str:
    import torch

    torch.manual_seed(0)
    ways = {name: way for name in args.ways for name, way in _build(name, subject, device, eager=args.eager).items()}

    def several(function: Callable[[], None]) -> Callable[[], None]:
        def turn() -> None:
            for _ in range(calls):
                function()

        return turn

    turns = []
    for functions in ([way.forward for way in ways.values()], [way.train for way in ways.values()]):
        seconds = by_turns(list(map(several, functions)), repeat=args.repeat, device=device, clock=CLOCKS[args.clock])
        turns.append(dict(zip(ways, seconds, strict=True)))
    forward, both = turns
    lines = []
    for name, way in ways.items():
        plain = f"{PLAIN}, compiled" if name.endswith("compiled") else PLAIN
        times = [f"{1e3 * statistics.median(seconds[name]) / calls:.4g} ms" for seconds in turns]
        faster = _ratio(both, name, PUBLISHED)
        lines.append(
            [name, times[0], _ratio(forward, plain, name), times[1], _ratio(both, plain, name), faster, way.gmac]
        )
    return format_table(_COLUMNS, lines)


def _ratio(seconds: Mapping[str, Sequence[float]], base: str, name: str) -> str:
    """How many times as long as the base a way takes, median over the turns."""
    if base not in seconds:
        return ""
    return f"{statistics.median(b / a for a, b in zip(seconds[base], seconds[name], strict=True)):.2f}x"


def _build(name: str, subject: Subject, device: torch.device, *, eager: bool) -> dict[str, Way]:
    """A way, eager and compiled; the published one is not compiled."""
    import torch

    half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[subject.dtype]
    if name == PUBLISHED and half and device.type == "cuda":
        half = torch.float16
    autocast = partial(torch.autocast, device.type, dtype=half, enabled=half is not None)
    module, x = _published(subject) if name == PUBLISHED else _ours(name, subject)
    gmac = _counted(module, x[: len(x) // subject.batch] if subject.part == "tower" else x, subject)
    module, x = module.to(device), x.to(device)
    ways = {name: Way(module=module, x=x, autocast=autocast, gmac=gmac)}
    if name != PUBLISHED and not eager:
        compiled = torch.compile(module, fullgraph=True, dynamic=False)
        ways[f"{name}, compiled"] = Way(module=compiled, x=x, autocast=autocast, gmac=gmac)
    return ways


def _state(subject: Subject) -> dict[str, Tensor]:
    from slowfast.models.clip.arch import ClipSizes, published_clip
    from slowfast.models.clip.weights import random_clip_state_dict

    published = published_clip(subject.arch)
    assert published is not None or subject.arch == TINY
    tiny = ClipSizes(
        image_size=32, patch_size=8, vision_width=64, vision_layers=3, embed_dim=64, text_width=64, text_layers=1
    )
    return random_clip_state_dict(tiny if published is None else published.sizes, seed=0)


def _ours(name: str, subject: Subject) -> tuple[nn.Module, Tensor]:
    """Module and input of our code."""
    import torch

    from slowfast.models.build import build_clip
    from slowfast.models.clip.vision import VisionTransformer

    options = {"channel_fold": 32, "temporal_scale": list(subject.scales), "mask_stride": ARCHS[subject.arch]}
    stdd = {} if name == PLAIN else {"stcross_qkv": name.rpartition(" ")[2]}
    clip = build_clip(
        _state(subject),
        temporal_modeling_type=None if name == PLAIN else "stcross_attend",
        block_options={**options, **stdd},
    )
    if subject.part == "block":
        width, grid = clip.sizes.vision_width, clip.sizes.grid_size
        x = torch.randn(subject.batch, subject.frames, 1 + grid**2, width, requires_grad=True)
        assert isinstance(clip.visual, VisionTransformer)
        return clip.visual.transformer.resblocks[0], x
    return clip.visual, _frames(subject, clip.sizes.image_size)


def _published(subject: Subject) -> tuple[nn.Module, Tensor]:
    """Module and input of the oracles in tests; a block has CLIP's layout."""
    import torch

    oracle, step = load_oracle("published_stdd"), load_oracle("published_step")

    def make_block(width: int) -> nn.Module:
        return oracle.PublishedBlock(
            width,
            num_frames=subject.frames,
            channel_fold=32,
            temporal_scale=subject.scales,
            mask_stride=ARCHS[subject.arch],
        )

    state = _state(subject)
    tower = step.Tower(state, make_block)
    if subject.part == "tower":
        side = tower.conv1.kernel_size[0] * round((len(tower.positional_embedding) - 1) ** 0.5)
        return tower, _frames(subject, side)
    length, width = tower.positional_embedding.shape
    x = torch.randn(length, subject.batch * subject.frames, width, requires_grad=True)
    return tower.transformer["resblocks"][0], x


def _frames(subject: Subject, side: int) -> Tensor:
    import torch

    return torch.randn(subject.batch, 3, subject.frames, side, side)


def _counted(module: nn.Module, x: Tensor, subject: Subject) -> float:
    """Products of matrices in a forward of one clip, in units of 1e9 multiplications with their addition."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    module.eval()
    # The math kernel takes attention apart, since what a fused one does is not always counted.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        module(x)
    clips = subject.batch if subject.part == "block" else 1
    return counter.get_total_flops() / 2e9 / clips
