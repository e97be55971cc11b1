"""ViFi-CLIP written straightforwardly: an oracle for numbers, and what speed is measured against.

Learned vectors are tokens like all others, which the next block's replace; every class runs the whole text tower at
full length, and attention is a matrix of probabilities.

Source: ViFi-CLIP (CVPR 2023), from its description.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from slowfast.text.tokenizer import Tokenizer

HEAD_WIDTH = 64


class PlainVifiClip:
    """Scores videos with the parameters of a method, whose gradients it therefore fills.

    Args:
        method: `ViFiCLIP`; later changes of its parameters count.
        texts: what stands for each class, K strings; with learned words "X" in their places.
    """

    def __init__(self, method, texts: list[str]) -> None:
        self.weights = dict(method.named_parameters())
        self.normalise = method.normalise
        self.tokens = Tokenizer()(texts)
        sizes = method.model.sizes
        self.patch_size, self.vision_layers, self.text_layers = sizes.patch_size, sizes.vision_layers, sizes.text_layers
        self.class_attention: list[Tensor] = []
        """Attention of the class tokens to all tokens, (B T, L), of every block of the last call."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) -> logits (B, K)."""
        normalised = self.normalise(frames)
        images = normalised.transpose(1, 2).flatten(0, 1)
        video = self.encode_images(images).unflatten(0, (len(frames), -1)).mean(dim=1)
        text = self.encode_texts()
        cosines = F.normalize(video, dim=-1) @ F.normalize(text, dim=-1).T
        return self.weights["model.logit_scale"].exp() * cosines

    def encode_images(self, images: Tensor) -> Tensor:
        patches = F.conv2d(images, self.weights["model.visual.conv1.weight"], stride=self.patch_size)
        patches = patches.flatten(2).transpose(1, 2)
        class_token = self.weights["model.visual.class_embedding"].expand(len(patches), 1, -1)
        x = torch.cat((class_token, patches), dim=1) + self.weights["model.visual.positional_embedding"]
        vectors = self.weights.get("model.visual.VPT")
        if vectors is not None:
            x = torch.cat((x, vectors.expand(len(x), -1, -1)), dim=1)
        x = self.norm(x, "model.visual.ln_pre")
        self.class_attention = []
        for layer in range(self.vision_layers):
            name = f"model.visual.transformer.resblocks.{layer}"
            vectors = self.weights.get(f"{name}.VPT_shallow")
            if vectors is not None:
                x = torch.cat((x[:, : -len(vectors)], vectors.expand(len(x), -1, -1)), dim=1)
            x, probabilities = self.block(x, name)
            self.class_attention.append(probabilities[:, :, 0].mean(dim=1).detach())
        return self.norm(x[:, 0], "model.visual.ln_post") @ self.weights["model.visual.proj"]

    def encode_texts(self) -> Tensor:
        x = F.embedding(self.tokens, self.weights["model.token_embedding.weight"])
        words = self.weights.get("text.prompt_learner.ctx")
        if words is not None:
            x = torch.cat((x[:, :1], words.expand(len(x), -1, -1), x[:, 1 + len(words) :]), dim=1)
        x = x + self.weights["model.positional_embedding"]
        mask = torch.full((x.shape[1],) * 2, -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        for layer in range(self.text_layers):
            name = f"model.transformer.resblocks.{layer}"
            vectors = self.weights.get(f"{name}.VPT_shallow")
            if vectors is not None:
                x = torch.cat((x[:, :1], vectors.expand(len(x), -1, -1), x[:, 1 + len(vectors) :]), dim=1)
            x, _ = self.block(x, name, mask)
        ends = self.norm(x, "model.ln_final")[torch.arange(len(x)), self.tokens.argmax(dim=-1)]
        return ends @ self.weights["model.text_projection"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def block(self, x: Tensor, name: str, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (N, L, D) behind a block, and its probabilities, (N, heads, L, L)."""
        weight, bias = self.weights[f"{name}.attn.in_proj_weight"], self.weights[f"{name}.attn.in_proj_bias"]
        projected = F.linear(self.norm(x, f"{name}.ln_1"), weight, bias)
        q, k, v = (part.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for part in projected.chunk(3, dim=-1))
        scores = q * HEAD_WIDTH**-0.5 @ k.transpose(-1, -2)
        probabilities = (scores if mask is None else scores + mask).softmax(dim=-1)
        x = x + self.linear((probabilities @ v).transpose(1, 2).flatten(2), f"{name}.attn.out_proj")
        hidden = self.linear(self.norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        return x + self.linear(hidden * torch.sigmoid(1.702 * hidden), f"{name}.mlp.c_proj"), probabilities
