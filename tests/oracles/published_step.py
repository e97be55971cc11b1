"""A training step written straightforwardly, as published: an oracle for numbers, and what speed is measured against.

CLIP's own layout (tokens first, frames of all videos in one batch axis), PyTorch's MultiheadAttention, eager code under
float16 autocast with a gradient scaler or in float32, optimiser and clipping with their default kernels, and figures
that the host asks for in every iteration.

Source: STDD (AAAI 2025) and PySlowFast, from their description.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64


class LayerNorm(nn.LayerNorm):
    """Computes in float32 whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class PlainBlock(nn.Module):
    """CLIP's block, (L, N, D) -> (L, N, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH)
        self.ln_1 = LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """CLIP's image tower over frames, (B, 3, T, H, W) -> (B, T, E).

    Args:
        state: a CLIP under OpenAI's names.
        make_block: width -> block that maps (L, B * T, D) to the same.
    """

    def __init__(self, state: Mapping[str, Tensor], make_block: Callable[[int], nn.Module] = PlainBlock) -> None:
        super().__init__()
        own = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
        width, _, patch, _ = own["conv1.weight"].shape
        num_blocks = sum(name.endswith("attn.in_proj_weight") for name in own)
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty_like(own["positional_embedding"]))
        self.ln_pre = LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*(make_block(width) for _ in range(num_blocks)))})
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty_like(own["proj"]))
        missing, unexpected = self.load_state_dict(own, strict=False)
        assert not unexpected
        assert not set(missing) & set(own)

    def forward(self, frames: Tensor) -> Tensor:
        num_videos, _, num_frames = frames.shape[:3]
        x = self.conv1(frames.transpose(1, 2).flatten(0, 1))
        x = x.flatten(2).transpose(1, 2)  # (B T, P*P, D)
        start = self.class_embedding.to(x.dtype) + torch.zeros(len(x), 1, x.shape[-1], dtype=x.dtype, device=x.device)
        x = torch.cat([start, x], dim=1) + self.positional_embedding.to(x.dtype)
        x = self.ln_pre(x).transpose(0, 1)  # (L, B T, D)
        x = self.transformer["resblocks"](x).transpose(0, 1)
        return (self.ln_post(x[:, 0]) @ self.proj).view(num_videos, num_frames, -1)


class Student(nn.Module):
    """All that trains: image tower, temperature, projector of the distillation."""

    def __init__(self, tower: Tower, logit_scale: Tensor) -> None:
        super().__init__()
        width = tower.proj.shape[1]
        self.visual = tower
        self.logit_scale = nn.Parameter(logit_scale.clone())
        self.projector_v = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.GELU(), nn.Linear(width, width, bias=False)
        )
        nn.init.zeros_(self.projector_v[2].weight)

    def forward(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, K), embeddings (B, T, E), and what is distilled into."""
        video = self.visual(frames)
        video = video / video.norm(dim=-1, keepdim=True)
        scores = (self.logit_scale.exp() * video @ text.T).mean(dim=1)
        return scores, video, video + 0.1 * self.projector_v(video)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numbers of the step."""

    lr: float
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    distillation_ratio: float = 2.0
    distillation_gradient: bool = True
    """False as in the published code, whose term is a constant."""
    dtype: torch.dtype | None = None
    """Of autocast; None computes in float32. float16 scales the loss."""


class PublishedStep:
    """One iteration: forward of both models, loss, backward, clipping, update, figures.

    Args:
        student: on its device, in training mode.
        teacher: frozen, in evaluation mode; None leaves the distillation out.
        text: class embeddings, unit norm, (K, E).
        recipe: numbers.
    """

    def __init__(self, student: Student, teacher: Tower | None, text: Tensor, recipe: Recipe) -> None:
        self.student, self.teacher, self.text, self.recipe = student, teacher, text, recipe
        device = text.device.type
        if teacher is not None:
            teacher.requires_grad_(False).eval()
        decayed, others = [], []
        for name, parameter in student.named_parameters():
            (others if parameter.ndim == 1 or name.endswith(".bias") else decayed).append(parameter)
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr)
        self.scaler = torch.amp.GradScaler(device, enabled=recipe.dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.text.device.type, dtype=self.recipe.dtype, enabled=self.recipe.dtype is not None)

    def loss(self, frames: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the terms, and the scores."""
        with self.autocast():
            scores, _, projected = self.student(frames, self.text)
            target = F.one_hot(label, scores.shape[1]).float()
            loss = -(target * torch.log_softmax(scores.float(), dim=-1)).sum(dim=-1).mean()
            if self.teacher is not None:
                with torch.no_grad():
                    raw = self.teacher(frames)
                    raw = raw / raw.norm(dim=-1, keepdim=True)
                projected = projected if self.recipe.distillation_gradient else projected.detach()
                cosine = F.cosine_similarity(projected.float(), raw.float(), dim=-1).mean()
                loss = loss + self.recipe.distillation_ratio * (1 - cosine)
        return loss, scores

    def __call__(self, frames: Tensor, label: Tensor) -> dict[str, float]:
        """Learn from normalised frames (B, 3, T, H, W) and class numbers (B,)."""
        self.optimizer.zero_grad()
        loss, scores = self.loss(frames, label)
        if math.isnan(loss.item()):
            raise RuntimeError("got a loss that is not a number")
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        best = scores.topk(min(5, scores.shape[1]), dim=1).indices == label[:, None]
        top1, top5 = (100.0 * (1.0 - best[:, :k].any(dim=1).float().mean()) for k in (1, 5))
        figures = {"loss": loss.item(), "grad_norm": norm.item(), "top1_err": top1.item(), "top5_err": top5.item()}
        if frames.is_cuda:
            torch.cuda.synchronize()
        return figures

    @torch.no_grad()
    def score(self, frames: Tensor) -> Tensor:
        """Scores (B, K) in evaluation."""
        self.student.eval()
        with self.autocast():
            scores = self.student(frames, self.text)[0]
        self.student.train()
        return scores
