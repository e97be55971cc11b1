"""OST written straightforwardly: an oracle for numbers, and what speed is measured against.

Every batch embeds the prompts of all classes again, at full length; a training batch embeds those of each video, though
classes repeat. Frames and descriptors are repeated for every pair of video and class, kind by kind, and the transport
plan is a loop that looks at a number after each iteration.

Source: OST (CVPR 2024), from its description.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

HEAD_WIDTH = 64


def plan_by_loop(cosines: Tensor, *, eps: float, limit: int, tolerance: float) -> tuple[Tensor, int]:
    """Plans of problems that end together, (P, T, N), and after how many iterations."""
    num_problems, num_frames, num_texts = cosines.shape
    kernel = torch.exp(-(1 - cosines) / eps)
    u = cosines.new_full((num_problems, num_frames), 1 / num_frames)
    v = cosines.new_full((num_problems, num_texts), 1 / num_texts)
    r, c = torch.ones_like(u), torch.ones_like(v)
    number, changed = 0, True
    while changed and number < limit:
        before, number = r, number + 1
        r = u / torch.matmul(kernel, c.unsqueeze(-1)).squeeze(-1)
        c = v / torch.matmul(kernel.permute(0, 2, 1).contiguous(), r.unsqueeze(-1)).squeeze(-1)
        changed = not (r - before).abs().mean().item() < tolerance
    return torch.matmul(torch.matmul(torch.diag_embed(r), kernel), torch.diag_embed(c)), number


class PlainOst:
    """Scores videos with the parameters of a method, whose gradients it therefore fills.

    Args:
        method: `OST`, with its classes set; later changes of its parameters count, those of its classes do not.
    """

    def __init__(self, method) -> None:
        clip = method.model
        self.weights = dict(clip.named_parameters())
        self.normalise, self.options = method.normalise, method._plan_options
        self.layers = len(clip.visual.transformer.resblocks), len(clip.transformer.resblocks)
        self.patch_size, self.text_trains = clip.sizes.patch_size, method.text.trains
        length = clip.sizes.context_length
        self.tokens = F.pad(method.text.tokens, (0, length - method.text.tokens.shape[-1]))  # (S, K, N, 77)

    def __call__(self, frames: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) -> logits (B, K)."""
        return self.logits(self.encode_videos(frames), [self.encode_texts(tokens) for tokens in self.tokens])

    def losses(self, frames: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, T, H, W), classes (B,) -> from videos to texts and back."""
        texts = []
        for tokens in self.tokens:
            own = torch.stack([tokens[number] for number in label.tolist()])
            texts.append(self.encode_texts(own) if self.text_trains else self.encode_texts(own).detach())
        logits = self.logits(self.encode_videos(frames), texts)
        same = torch.zeros(len(label), len(label), dtype=logits.dtype)
        for row, one in enumerate(label.tolist()):
            for column, other in enumerate(label.tolist()):
                same[row, column] = float(one == other)
        wanted = F.softmax(10 * same.to(logits.device), dim=1)
        forth, back = (
            F.kl_div(F.log_softmax(scores, dim=1), wanted, reduction="none").mean() * len(label)
            for scores in (logits, logits.T)
        )
        return forth, back

    # ---------------------------------------------------------------------------------------------------------- scores

    def logits(self, video: Tensor, texts: list[Tensor]) -> Tensor:
        """Frames (B, T, E), descriptors of each kind (K, N, E), unit norm -> (B, K)."""
        scale = self.weights["logit_scale"].exp()
        kinds = []
        for text in texts:
            num_videos, num_classes = len(video), len(text)
            frames = video[:, None].repeat(1, num_classes, 1, 1).flatten(0, 1)  # (B K, T, E)
            descriptors = text[None].repeat(num_videos, 1, 1, 1).flatten(0, 1)  # (B K, N, E)
            cosines = torch.einsum("pte,pne->ptn", frames, descriptors)
            transported = (self.plans(cosines.detach()) * cosines).sum(dim=(1, 2)).view(num_videos, num_classes)
            pooled = video.mean(dim=1) @ text.mean(dim=1).T
            kinds.append(scale * pooled + scale * transported)
        return sum(kinds) / len(kinds)

    def plans(self, cosines: Tensor) -> Tensor:
        rule = {
            "eps": self.options.eps,
            "limit": self.options.max_iterations,
            "tolerance": self.options.tolerance,
        }
        if self.options.stop == "batch":
            return plan_by_loop(cosines, **rule)[0]
        return torch.cat([plan_by_loop(one[None], **rule)[0] for one in cosines])

    # ---------------------------------------------------------------------------------------------------------- towers

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def blocks(self, x: Tensor, name: str, count: int, *, causal: bool) -> Tensor:
        """All blocks of a tower, (M, L, D) -> (M, L, D)."""
        for number in range(count):
            block = f"{name}.resblocks.{number}"
            parts = F.linear(
                self.norm(x, f"{block}.ln_1"),
                self.weights[f"{block}.attn.in_proj_weight"],
                self.weights[f"{block}.attn.in_proj_bias"],
            )
            q, k, v = (part.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for part in parts.chunk(3, dim=-1))
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
            x = x + self.linear(seen, f"{block}.attn.out_proj")
            hidden = self.linear(self.norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            x = x + self.linear(hidden * torch.sigmoid(1.702 * hidden), f"{block}.mlp.c_proj")
        return x

    def encode_videos(self, frames: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) -> frames, each of unit norm, (B, T, E)."""
        frames = self.normalise(frames)
        images = frames.transpose(1, 2).flatten(0, 1)
        patches = F.conv2d(images, self.weights["visual.conv1.weight"], stride=self.patch_size)
        patches = patches.flatten(2).transpose(1, 2)
        class_token = self.weights["visual.class_embedding"].expand(len(patches), 1, -1)
        x = torch.cat((class_token, patches), dim=1) + self.weights["visual.positional_embedding"]
        x = self.blocks(self.norm(x, "visual.ln_pre"), "visual.transformer", self.layers[0], causal=False)
        features = self.norm(x[:, 0], "visual.ln_post") @ self.weights["visual.proj"]
        return F.normalize(features, dim=-1).unflatten(0, (frames.shape[0], frames.shape[2]))

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Tokens (K, N, 77) -> descriptors, each of unit norm, (K, N, E)."""
        flat = tokens.flatten(0, 1)
        x = F.embedding(flat, self.weights["token_embedding.weight"]) + self.weights["positional_embedding"]
        x = self.norm(self.blocks(x, "transformer", self.layers[1], causal=True), "ln_final")
        ends = torch.stack([row[int(own.argmax())] for row, own in zip(x, flat, strict=True)])
        return F.normalize(ends @ self.weights["text_projection"], dim=-1).unflatten(0, tokens.shape[:2])
