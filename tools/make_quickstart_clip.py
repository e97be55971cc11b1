"""Pre-train the small CLIP of the quickstart on captioned still pictures of MotionShapes.

Contrastive learning as in CLIP's paper, against all captions that the pictures can have instead of those of one batch
alone. The pictures are single photographs: sharp ones ("a red star"), and long exposures whose trail shows the motion
("a red star moving left"). The model never sees two frames in order.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast.datasets.synthetic import COLOURS, MOTIONS, PHRASINGS, SHAPES, class_name, render_stills
from slowfast.models.build import build_clip
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.text import trim_tokens
from slowfast.models.clip.weights import random_clip_state_dict
from slowfast.text.tokenizer import Tokenizer

SIZES = ClipSizes(
    image_size=48, patch_size=12, vision_width=128, vision_layers=3, embed_dim=64, text_width=64, text_layers=2
)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def captions() -> list[str]:
    """Every caption that a still can have."""
    plain = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS]
    return plain + [class_name(s, m, colour=c) for s in SHAPES for m in MOTIONS for c in COLOURS]


def _render(job: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    count, seed = job
    images, texts = zip(*render_stills(count, seed=seed, motion_fraction=0.75), strict=True)
    return np.stack(images), list(texts)


def render(count: int, *, seed: int, num_workers: int) -> tuple[Tensor, Tensor]:
    """Render pictures (N, 3, H, W) uint8 and the numbers of their captions (N,)."""
    number = {text: i for i, text in enumerate(captions())}
    jobs = [(500, seed * 1000 + i) for i in range(math.ceil(count / 500))]
    with ProcessPoolExecutor(num_workers) as pool:
        parts = list(pool.map(_render, jobs))
    images = torch.from_numpy(np.concatenate([p[0] for p in parts])).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([number[text] for p in parts for text in p[1]])


def normalise(images: Tensor) -> Tensor:
    """Bring uint8 pictures to CLIP's mean and deviation."""
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (MEAN, STD))
    return (images.float() - mean) / std


def pretrain(images: Tensor, labels: Tensor, *, steps: int, seed: int, batch: int = 128, lr: float = 1e-3, log=print):
    torch.manual_seed(seed)
    clip = build_clip(random_clip_state_dict(SIZES, seed=seed))
    tokenizer = Tokenizer()
    tokens = [trim_tokens(tokenizer([t.format(c) for c in captions()])) for t in PHRASINGS]
    matrices = [p for n, p in clip.named_parameters() if p.ndim == 2 and "resblocks" in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in clip.parameters() if id(p) not in chosen]
    optimizers = [
        torch.optim.AdamW(rest, lr, weight_decay=0.0, betas=(0.9, 0.98)),
        torch.optim.Muon(matrices, lr=15 * lr, weight_decay=0.01),
    ]
    base = [lr, 15 * lr]
    generator = torch.Generator().manual_seed(seed)
    start, c0 = time.perf_counter(), time.process_time()
    for step in range(steps):
        for optimizer, rate in zip(optimizers, base, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))
        pick = torch.randint(len(images), (batch,), generator=generator)
        video = F.normalize(clip.visual(normalise(images[pick])), dim=-1)
        text = F.normalize(clip.encode_text(tokens[step % len(tokens)]), dim=-1)
        logits = clip.logit_scale.exp().clamp(max=100) * video @ text.T
        loss = F.cross_entropy(logits, labels[pick])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 100 == 99 or step + 1 == steps:
            print(f"step {step + 1} loss {loss.item():.3f} acc {(logits.argmax(1) == labels[pick]).float().mean():.2f} {time.perf_counter() - start:.0f} s cpu {time.process_time()-c0:.0f}", flush=True)
    return clip


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--steps", type=int, default=3000)
    p.add_argument("--count", type=int, default=30000)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", default="")
    a = p.parse_args()
    images, labels = render(a.count, seed=a.seed, num_workers=2)
    print("rendered", len(images))
    clip = pretrain(images, labels, steps=a.steps, seed=a.seed, lr=a.lr)
    if a.out:
        torch.save(clip.state_dict(), a.out)
    images, labels = render(1000, seed=77, num_workers=2)
    caps = captions()
    with torch.no_grad():
        t = trim_tokens(Tokenizer()(caps))
        pr = (F.normalize(clip.visual(normalise(images)), dim=-1) @ F.normalize(clip.encode_text(t), dim=-1).T).argmax(1)
    w = [c.split() for c in caps]
    for k, f in (("colour", lambda c: c[1]), ("shape", lambda c: c[2]), ("motion", lambda c: tuple(c[3:]))):
        print(k, np.mean([f(w[i]) == f(w[j]) for i, j in zip(pr.tolist(), labels.tolist(), strict=True)]))
