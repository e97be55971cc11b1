"""The implementations of a training step that `tools/benchmark.py step` measures, all on the same weights and clips."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from slowfast.config.node import CfgNode
    from slowfast.datasets.types import VideoBatch

ORACLES = Path(__file__).resolve().parents[1] / "tests" / "oracles"
PUBLISHED, PLAIN, PLAIN_COMPILED, EAGER, COMPILED = (
    "published-style",
    "plain CLIP, our step",
    "plain CLIP, compiled",
    "ours",
    "ours, compiled",
)
WAYS = (PUBLISHED, PLAIN, PLAIN_COMPILED, EAGER, COMPILED)
ARCHS = {"vitb16": [1, 2, 2], "vitl14": [1, 2, 2], "vitb32": [1, 7, 1], "tiny": [1, 2, 2]}
"""MODEL.ARCH -> cells of the mask; a grid of 7 x 7 patches does not divide into cells of 2 x 2."""
_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained."""

    arch: str
    batch: int
    frames: int
    dtype: str
    """fp32, bf16 or fp16."""
    device: str
    distillation: str
    """MODEL.DISTILLATION_MODE, or "none"."""
    classes: int = 400
    scales: tuple[int, ...] = (1, 2)

    def __str__(self) -> str:
        return f"{self.arch}, {self.frames} frames, batch {self.batch}, {self.dtype}"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One implementation, ready to run."""

    train: Callable[[], Tensor | float]
    """One step, from a batch on the host; the loss, on the device if nobody asked for it."""
    score: Callable[[], Tensor]
    """One evaluation forward; scores (B, K), on the device."""
    train_gflops: float
    """Operations of a step per clip, forward and backward, as this implementation does them."""
    score_gflops: float


def build(name: str, setting: Setting) -> Way:
    """Make an implementation of WAYS.

    Raises:
        ValueError: if the setting is not possible.
    """
    if name == PUBLISHED:
        return _published(setting)
    block = None if name in (PLAIN, PLAIN_COMPILED) else "stcross_attend"
    return _ours(setting, block=block, compiled=name in (PLAIN_COMPILED, COMPILED))


def configuration(setting: Setting, *, block: str | None, compiled: bool, folder: Path) -> CfgNode:
    """The configuration of a published recipe, with random weights."""
    import torch

    from slowfast.config.defaults import get_cfg
    from slowfast.methods.stdd.config import StddConfig
    from slowfast.models.clip.arch import ClipSizes
    from slowfast.models.clip.weights import random_clip_state_dict
    from slowfast.models.initial import clip_weights

    cfg = get_cfg()
    distils = setting.distillation != "none"
    keys: dict[str, Any] = {
        "MODEL.ARCH": setting.arch,
        "MODEL.CLIP_WEIGHTS": "random",
        "MODEL.TEMPORAL_MODELING_TYPE": block,
        "MODEL.CHANNEL_FOLD": 32,
        "MODEL.TEMPORAL_SCALE": list(setting.scales),
        "MODEL.MASK_STRIDE": ARCHS[setting.arch],
        "MODEL.LOSS_FUNC": "soft_cross_entropy",
        "MODEL.KEEP_RAW_MODEL": distils,
        "MODEL.RAW_MODEL_DISTILLATION": distils,
        "MODEL.DISTILLATION_MODE": setting.distillation if distils else "intended",
        "MODEL.DISTILLATION_RATIO": 2.0,
        "DATA.NUM_FRAMES": setting.frames,
        "TRAIN.COMPILE": compiled,
        "TRAIN.MIXED_PRECISION": setting.dtype != "fp32",
        "TRAIN.AMP_DTYPE": {"bf16": "bfloat16", "fp16": "float16", "fp32": "auto"}[setting.dtype],
        "SOLVER.OPTIMIZING_METHOD": "adamw",
        "SOLVER.BASE_LR": 3.33e-6,
        "SOLVER.WEIGHT_DECAY": 0.01,
        "SOLVER.ZERO_WD_1D_PARAM": True,
        "SOLVER.CLIP_GRAD_L2NORM": 1.0,
    }
    if setting.arch == "tiny":
        sizes = ClipSizes(
            image_size=32, patch_size=8, vision_width=64, vision_layers=3, embed_dim=64, text_width=64, text_layers=1
        )
        torch.save(random_clip_state_dict(sizes, seed=_SEED), folder / "tiny.pt")
        keys |= {"MODEL.ARCH": "custom", "MODEL.CLIP_WEIGHTS": str(folder / "tiny.pt"), "MODEL.CHANNEL_FOLD": 8}
        cfg.merge_from_list(["MODEL.CLIP_ACTIVATION", "quick_gelu"])
    for key, value in keys.items():
        cfg.merge_from_list([key, value])
    cfg.DATA.TRAIN_CROP_SIZE = ClipSizes.from_state_dict(clip_weights(StddConfig.from_cfg(cfg))[0].state).image_size
    cfg.freeze()
    return cfg


def class_embeddings(setting: Setting, *, width: int) -> Tensor:
    """Random text, unit norm, (K, E)."""
    import torch

    text = torch.randn(setting.classes, width, generator=torch.Generator().manual_seed(_SEED))
    return text / text.norm(dim=1, keepdim=True)


def clips(setting: Setting, *, side: int) -> VideoBatch:
    """A batch as a loader delivers it: uint8 noise on the host, pinned if a GPU reads it."""
    import torch

    from slowfast.datasets.types import VideoBatch

    generator = torch.Generator().manual_seed(_SEED)
    shape = (setting.batch, 3, setting.frames, side, side)
    number = torch.arange(setting.batch)
    batch = VideoBatch(
        torch.randint(256, shape, generator=generator, dtype=torch.uint8),
        label=number % setting.classes,
        video_id=number,
        view=torch.zeros_like(number),
    )
    return batch.pin_memory() if setting.device.startswith("cuda") else batch


def _ours(setting: Setting, *, block: str | None, compiled: bool) -> Way:
    import torch

    from slowfast.datasets.label_set import LabelSet
    from slowfast.engine.build import build_optimizer, build_step
    from slowfast.engine.complexity import count_gflops, synthetic_clip
    from slowfast.engine.precision import choose_precision
    from slowfast.methods.build import build_method
    from slowfast.methods.stdd.text_head import EncodedText
    from slowfast.models.clip.model import CLIP
    from slowfast.utils.seed import seed_everything

    device = torch.device(setting.device)
    with tempfile.TemporaryDirectory() as folder:
        cfg = configuration(setting, block=block, compiled=compiled, folder=Path(folder))
        method = build_method(cfg, LabelSet.from_names(["a class"]), device=device)
    # Text that a frozen tower embeds is computed once, before the first step: random embeddings cost the same after it,
    # and the memory of that tower is what every implementation would need beside its step.
    (text,) = (head for head in method.modules() if isinstance(head, EncodedText))
    text.features = class_embeddings(setting, width=text.features.shape[1]).to(device)
    for clip in [module for module in method.modules() if isinstance(module, CLIP)]:
        del clip.transformer, clip.token_embedding
    optimizer = build_optimizer(cfg, method)
    step, _ = build_step(cfg, method, optimizer, device=device)
    precision = choose_precision(device, mixed=cfg.TRAIN.MIXED_PRECISION, amp_dtype=cfg.TRAIN.AMP_DTYPE)
    batch = clips(setting, side=cfg.DATA.TRAIN_CROP_SIZE)
    one = synthetic_clip(num_frames=setting.frames, side=cfg.DATA.TRAIN_CROP_SIZE)

    def train() -> Tensor:
        if not method.training:
            method.train()
        seed_everything(_SEED)
        return step(batch.to(device, non_blocking=True)).loss

    def score() -> Tensor:
        if method.training:
            method.eval()
        with torch.inference_mode(), precision.autocast():
            return method(batch.to(device, non_blocking=True)).logits

    return Way(
        train=train,
        score=score,
        train_gflops=count_gflops(method, one, training=True),
        score_gflops=count_gflops(method, one),
    )


def peak_of_a_process(name: str, setting: Setting, threads: int) -> int:
    """Bytes that a process takes at most in a step, beyond what Python and the libraries take; Linux only."""
    import torch

    from slowfast.methods import build as _  # noqa: F401 (what is imported later counts as the step's)

    torch.set_num_threads(threads)
    before = _memory("VmRSS")
    way = build(name, setting)
    float(way.train())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    float(way.train())
    return _memory("VmHWM") - before


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _published(setting: Setting) -> Way:
    """What is published, on the same weights; its loader delivers normalised float32 frames."""
    import torch

    from slowfast.methods.stdd.config import StddConfig
    from slowfast.models.initial import clip_weights
    from slowfast.utils.seed import seed_everything

    oracle, device = load_oracle("published_step"), torch.device(setting.device)
    with tempfile.TemporaryDirectory() as folder:
        cfg = configuration(setting, block="stcross_attend", compiled=False, folder=Path(folder))
        (state, _), _ = clip_weights(StddConfig.from_cfg(cfg))
    text = class_embeddings(setting, width=state["visual.proj"].shape[1]).to(device)
    make_block = partial(
        load_oracle("published_stdd").PublishedBlock,
        num_frames=setting.frames,
        channel_fold=cfg.MODEL.CHANNEL_FOLD,
        temporal_scale=setting.scales,
        mask_stride=cfg.MODEL.MASK_STRIDE,
    )
    student = oracle.Student(oracle.Tower(state, make_block), state["logit_scale"]).to(device)
    distils = setting.distillation != "none"
    teacher = oracle.Tower(state).to(device) if distils else None
    half = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[setting.dtype]
    recipe = oracle.Recipe(
        lr=cfg.SOLVER.BASE_LR,
        distillation_gradient=setting.distillation != "published",
        dtype=torch.float16 if half and device.type == "cuda" else half,
    )
    step = oracle.PublishedStep(student.train(), teacher, text, recipe)
    batch = clips(setting, side=cfg.DATA.TRAIN_CROP_SIZE)
    frames = (batch.frames.float() / 255 - 0.45) / 0.225
    frames = frames.pin_memory() if device.type == "cuda" else frames

    def train() -> float:
        seed_everything(_SEED)
        figures = step(frames.to(device, non_blocking=True), batch.label.to(device, non_blocking=True))
        return float(figures["loss"])

    return Way(
        train=train,
        score=lambda: step.score(frames.to(device, non_blocking=True)),
        train_gflops=_counted(lambda: step.loss(frames[:1].to(device), batch.label[:1].to(device))[0].backward()),
        score_gflops=_counted(lambda: step.score(frames[:1].to(device))),
    )


def _counted(run: Callable[[], object]) -> float:
    """GFLOPs of a call; attention is taken apart, since what a fused kernel does is not always counted."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() / 1e9


def load_oracle(name: str) -> ModuleType:
    """A module of tests/oracles.

    Raises:
        ValueError: if this is not a checkout with its tests.
    """
    path = ORACLES / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the published-style step is part of the tests of a checkout")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
