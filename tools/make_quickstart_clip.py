"""Make the small CLIP of the quickstart, `assets/quickstart_clip.safetensors`.

1. Text alone: the text tower learns to embed a caption as the normalised sum of one random direction per word that
   carries meaning (shape, colour, motion), whatever the phrasing.
2. Pictures against locked text: the image tower learns, with CLIP's loss over all captions, from captioned stills.
   Sharp ones are called "a red star"; long exposures, whose trail shows the motion, "a red cross moving left".

The model never sees two frames in order, nor a long exposure of a class of the zero-shot test. In OpenAI's layout; the
file keeps 16-bit numbers and only the token embeddings in use, `slowfast.models.clip.weights` needs them all: see
`expand` in quickstart.py. About six minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from slowfast.datasets.synthetic import (
    COLOURS,
    COLUMNS,
    MOTIONS,
    PHRASINGS,
    ROWS,
    SHAPES,
    SIZES,
    class_name,
    place_name,
    render_stills,
)
from slowfast.models.build import build_clip
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.text import trim_tokens
from slowfast.models.clip.weights import random_clip_state_dict
from slowfast.text.tokenizer import Tokenizer

CLIP_SIZES = ClipSizes(
    image_size=48, patch_size=12, vision_width=128, vision_layers=3, embed_dim=64, text_width=64, text_layers=2
)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
STILLS_PER_JOB = 500


def captions() -> dict[str, tuple[str, ...]]:
    """Every caption and the words of it that carry meaning; a place is not the direction of the same word."""
    table: dict[str, tuple[str, ...]] = {}
    for shape, colour in itertools.product(SHAPES, ("", *COLOURS)):
        for motion in MOTIONS:
            table[class_name(shape, motion, colour=colour)] = (colour, shape, motion)
        for size, row, column in itertools.product(SIZES, ROWS, COLUMNS):
            table[place_name(shape, size=size, colour=colour, at=(row, column))] = (colour, shape, size, row, column)
    return {text: tuple(word for word in words if word) for text, words in table.items()}


def _render(job: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    count, seed = job
    images, texts = zip(*render_stills(count, seed=seed, motion_fraction=0.6), strict=True)
    return np.stack(images), list(texts)


def render(count: int, *, seed: int, num_workers: int) -> tuple[Tensor, Tensor]:
    """Render pictures (N, 3, H, W), uint8, and the numbers of their captions (N,)."""
    number = {text: i for i, text in enumerate(captions())}
    jobs = [(STILLS_PER_JOB, seed * 1000 + i) for i in range(math.ceil(count / STILLS_PER_JOB))]
    with ProcessPoolExecutor(num_workers) as pool:
        parts = list(pool.map(_render, jobs))
    images = torch.from_numpy(np.concatenate([part[0] for part in parts])).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([number[text] for part in parts for text in part[1]])


def normalise(images: Tensor) -> Tensor:
    """Bring uint8 pictures to CLIP's mean and deviation, with one frame: (N, 3, 1, H, W)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (MEAN, STD))
    return ((images.float() - mean) / std).unsqueeze(2)


def whitened_patches(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Patch embedding that gives all frequencies equal weight, (D, 3, P, P): edges are faint in raw pixels."""
    size = CLIP_SIZES.patch_size
    patches = normalise(images).squeeze(2).unfold(2, size, size // 2).unfold(3, size, size // 2)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * size * size)
    patches = patches[torch.randperm(len(patches), generator=generator)[:20000]]
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    values, vectors = values.flip(0)[: CLIP_SIZES.vision_width], vectors.flip(1)[:, : CLIP_SIZES.vision_width]
    # Deal strong and faint filters evenly to all quarters of the channels, of which STDD borrows some in time.
    order = torch.arange(CLIP_SIZES.vision_width).view(-1, 4).T.flatten()
    return 0.5 * (vectors / (values + 0.02).sqrt()).T[order].reshape(-1, 3, size, size)


def learn_text(clip: CLIP, tokens: list[Tensor], *, generator: torch.Generator, steps: int = 250) -> None:
    """Stage 1: regress every phrasing of every caption onto the sum of its words' directions."""
    words = [w for w in (*SHAPES, *COLOURS, *MOTIONS, *SIZES, *ROWS, *COLUMNS) if w]
    direction = torch.linalg.qr(torch.randn(CLIP_SIZES.embed_dim, len(words), generator=generator))[0].T
    target = F.normalize(
        torch.stack([sum(direction[words.index(w)] for w in used) for used in captions().values()]), dim=-1
    )
    optimizer = torch.optim.AdamW(clip.text_parameters(), 3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        pick = torch.randint(len(target), (96,), generator=generator)
        cosine = F.cosine_similarity(clip.encode_text(tokens[step % len(tokens)][pick]), target[pick])
        loss = (1 - cosine).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            print(f"text: step {step + 1}, cosine with the targets {cosine.mean().item():.3f}", flush=True)
    print(f"text: cosine with the targets {cosine.mean().item():.3f} (least {cosine.min().item():.3f})", flush=True)


def learn_pictures(
    clip: CLIP, images: Tensor, labels: Tensor, text: Tensor, *, steps: int, generator: torch.Generator
) -> None:
    """Stage 2: CLIP's image-to-text loss over all captions; the text tower stays as it is."""
    trained = [*clip.visual.parameters(), clip.logit_scale]
    matrices = [p for n, p in clip.visual.named_parameters() if p.ndim == 2 and "resblocks" in n]
    chosen = {id(parameter) for parameter in matrices}
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([p for p in trained if id(p) not in chosen], 1.5e-3, weight_decay=0.0, betas=(0.9, 0.98)),
        torch.optim.Muon(matrices, lr=0.0225, weight_decay=0.01),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda s: min(1.0, (s + 1) / 20) * (1 - s / steps)) for o in optimizers
    ]
    start = time.perf_counter()
    for step in range(steps):
        pick = torch.randint(len(images), (128,), generator=generator)
        video = F.normalize(clip.encode_video(normalise(images[pick]))[:, 0], dim=-1)
        logits = clip.logit_scale.exp() * video @ text.T
        loss = F.cross_entropy(logits, labels[pick])
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        if (step + 1) % 100 == 0:
            right = (logits.argmax(1) == labels[pick]).float().mean().item()
            print(
                f"pictures: step {step + 1}/{steps}, loss {loss.item():.3f}, accuracy {right:.2f}, "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )


def write_slim(clip: CLIP, tokens: list[Tensor], path: Path) -> None:
    """Write 16-bit numbers, and of the token embeddings only the rows in use with their numbers."""
    state = {name: tensor.half().contiguous() for name, tensor in clip.state_dict().items()}
    rows = torch.cat([t.flatten() for t in tokens]).unique()
    state["token_embedding.rows"] = rows.to(torch.int32)
    state["token_embedding.values"] = state.pop("token_embedding.weight")[rows].contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path))


def main() -> None:
    """Render, train both stages, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("assets/quickstart_clip.safetensors"))
    parser.add_argument("--stills", type=int, default=40000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    images, labels = render(args.stills, seed=args.seed, num_workers=2)
    state = random_clip_state_dict(CLIP_SIZES, seed=args.seed)
    state["visual.conv1.weight"] = whitened_patches(images[:600], generator=generator)
    clip = build_clip(state)
    tokenizer = Tokenizer()
    tokens = [trim_tokens(tokenizer([t.format(caption) for caption in captions()])) for t in PHRASINGS]
    learn_text(clip, tokens, generator=generator)
    with torch.no_grad():
        text = F.normalize(clip.encode_text(tokens[0]), dim=-1)
    learn_pictures(clip, images, labels, text, steps=args.steps, generator=generator)
    write_slim(clip, tokens, args.out)


if __name__ == "__main__":
    main()
