"""TC-CLIP written straightforwardly: an oracle for numbers, and what speed is measured against.

Context tokens are joined to the keys and values of every frame, attention is a matrix of probabilities, tokens are
merged step by step with their sizes, and every video runs the whole text tower over all classes at full length.

Source: TC-CLIP (ECCV 2024), from its description.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

HEAD_WIDTH = 64


class PlainTcClip:
    """Scores videos with the parameters of a method, whose gradients it therefore fills.

    Args:
        method: `TCCLIP`, with its classes set; later changes of its parameters count, those of its classes do not.
        context_length: tokens of a text, those of CLIP's text tower if None.
    """

    def __init__(self, method, *, context_length: int | None = None) -> None:
        clip, tower, text = method.model, method.model.visual, method.text
        self.weights = dict(method.named_parameters())
        self.normalise = method.normalise
        self.options, self.stop_gradient = tower.options, tower.stop_gradient
        self.vision_layers, self.text_layers = len(tower.transformer.resblocks), len(clip.transformer.resblocks)
        self.vision_levels, self.text_levels = list(tower.levels), list(text.levels)
        self.patch_size, self.to_text = clip.sizes.patch_size, clip.sizes.embed_dim != clip.sizes.text_width
        self.exact_gelu = isinstance(clip.transformer.resblocks[0].mlp.gelu, torch.nn.GELU)
        length = context_length or clip.sizes.context_length
        self.tokens = F.pad(text.tokens, (0, length - text.tokens.shape[1]))

    def __call__(self, frames: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) -> logits (B, K)."""
        classes, contexts = self.encode_videos(self.normalise(frames))
        video = F.normalize(classes.mean(dim=1), dim=-1)
        logits = []
        for number in range(len(video)):  # one video after the other
            features = F.normalize(self.encode_classes([context[number] for context in contexts]), dim=-1)
            logits.append(self.weights["model.logit_scale"].exp() * video[number] @ features.T)
        return torch.stack(logits)

    # -------------------------------------------------------------------------------------------------------- building

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def project(self, x: Tensor, name: str, part: int) -> Tensor:
        """Queries (0), keys (1) or values (2) of an attention, (..., L, D) -> (..., heads, L, 64)."""
        weight = self.weights[f"{name}.in_proj_weight"].chunk(3)[part]
        bias = self.weights[f"{name}.in_proj_bias"].chunk(3)[part]
        return F.linear(x, weight, bias).unflatten(-1, (-1, HEAD_WIDTH)).transpose(-3, -2)

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        """With its norm and its residual."""
        hidden = self.linear(self.norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        hidden = F.gelu(hidden) if self.exact_gelu else hidden * torch.sigmoid(1.702 * hidden)
        return x + self.linear(hidden, f"{name}.mlp.c_proj")

    # ---------------------------------------------------------------------------------------------------------- videos

    def encode_videos(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Class tokens (B, T, E) of the last layer, and what the prompts of each level read, (B, K, E)."""
        num_videos, _, num_frames = frames.shape[:3]
        images = frames.transpose(1, 2).flatten(0, 1)
        patches = F.conv2d(images, self.weights["model.visual.conv1.weight"], stride=self.patch_size)
        patches = patches.flatten(2).transpose(1, 2)
        class_token = self.weights["model.visual.class_embedding"].expand(len(patches), 1, -1)
        x = torch.cat((class_token, patches), dim=1)
        length = x.shape[1]
        x = x.unflatten(0, (num_videos, num_frames)) + self.weights["model.visual.positional_embedding"]
        x = self.norm(x.flatten(1, 2), "model.visual.ln_pre")  # (B, T N, D)
        context, kept = None, {}
        for layer in range(self.vision_layers):
            x, context = self.vision_block(x, context, layer, num_frames)
            classes = x[:, ::length]
            kept[layer] = classes if context is None else context
        contexts = [self.to_joint_space(kept[layer]) for layer in self.vision_levels]
        return self.to_joint_space(classes), [c.detach() if self.stop_gradient else c for c in contexts]

    def to_joint_space(self, x: Tensor) -> Tensor:
        return self.norm(x, "model.visual.ln_post") @ self.weights["model.visual.proj"]

    def vision_block(self, x: Tensor, context: Tensor | None, layer: int, num_frames: int):
        """Frame tokens (B, T N, D) and context (B, K, D) -> the same behind a layer."""
        name = f"model.visual.transformer.resblocks.{layer}"
        num_tokens = x.shape[1]
        together = x if context is None else torch.cat((x, context), dim=1)
        attended, scores = self.vision_attention(self.norm(together, f"{name}.ln_1"), num_tokens, name, num_frames)
        y = x + attended
        if not self.options.enabled:
            return self.feed_forward(y, name), None
        count = max(1, int(scores.shape[-1] * self.options.seed_share))
        seeds = scores.topk(count, dim=-1).indices[..., None].expand(-1, -1, -1, y.shape[-1])  # (B, T, m, D)
        patches = y.unflatten(1, (num_frames, -1))[:, :, 1:]
        new_context = merge(patches.gather(2, seeds).flatten(1, 2), self.removals(count * num_frames, layer))
        both = self.feed_forward(torch.cat((y, new_context), dim=1), name)
        return both[:, :num_tokens], both[:, num_tokens:]

    def vision_attention(self, normed: Tensor, num_tokens: int, name: str, num_frames: int) -> tuple[Tensor, Tensor]:
        """Every frame attends to itself and the context; also how much class tokens look at patches, (B, T, P)."""

        def per_frame(part: int) -> Tensor:
            every = self.project(normed, f"{name}.attn", part)  # (B, heads, T N + K, 64)
            own = every[:, :, :num_tokens].unflatten(2, (num_frames, -1)).transpose(1, 2)  # (B, T, heads, N, 64)
            if part == 0:
                return own
            shared = every[:, None, :, num_tokens:].expand(-1, num_frames, -1, -1, -1)
            return torch.cat((own, shared), dim=3)

        q, k, v = (per_frame(part) for part in range(3))
        length = q.shape[3]
        scores = q * HEAD_WIDTH**-0.5 @ k.transpose(-1, -2)  # (B, T, heads, N, N + K)
        table = self.weights.get(f"{name}.attn.local_global_bias_table")
        if table is not None:
            num_context = scores.shape[-1] - length
            bias = torch.cat(
                (table[..., :1].expand(-1, -1, length), table[..., 1:].expand(-1, -1, num_context)), dim=-1
            )
            scores = scores + bias
        probabilities = scores.softmax(dim=-1)
        attended = (probabilities @ v).transpose(2, 3).flatten(3).flatten(1, 2)
        from_class = probabilities[:, :, :, 0, 1:length].mean(dim=2)
        return self.linear(attended, f"{name}.attn.out_proj"), from_class.detach()

    def removals(self, count: int, layer: int) -> list[int]:
        """Tokens that each step of merging removes in a layer."""
        first = int(self.options.merge_step * (1 - self.options.merge_inflection))
        last = 2 * self.options.merge_step - first
        step = int(first + (last - first) * layer / max(1, self.vision_layers - 1))
        target, found = self.options.num_tokens, []
        for _ in range(int((count - target) / step) if count > target and step else 0):
            found.append(min(step, count // 2))
            count -= found[-1]
        while count > target:
            found.append(min(count - target, count // 2))
            count -= found[-1]
        return found

    # ----------------------------------------------------------------------------------------------------------- texts

    def encode_classes(self, contexts: list[Tensor]) -> Tensor:
        """Embed all classes for one video, given its context (K, E) for each level; (classes, E)."""
        words = self.weights["text.prompt_learner.ctx"]
        places = slice(1, 1 + len(words))
        x = F.embedding(self.tokens, self.weights["model.token_embedding.weight"])
        x = torch.cat((x[:, :1], words.expand(len(x), -1, -1), x[:, places.stop :]), dim=1)
        x = x + self.weights["model.positional_embedding"][: x.shape[1]]
        mask = torch.full((x.shape[1],) * 2, -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        for layer in range(self.text_layers):
            if layer in self.text_levels:
                level = self.text_levels.index(layer)
                prompted = self.generate_prompts(x[:, places], contexts[level], level)
                x = torch.cat((x[:, :1], prompted, x[:, places.stop :]), dim=1)
            name = f"model.transformer.resblocks.{layer}"
            normed = self.norm(x, f"{name}.ln_1")
            x = self.feed_forward(x + self.attention(normed, normed, f"{name}.attn", mask), name)
        ends = self.norm(x, "model.ln_final")[torch.arange(len(x)), self.tokens.argmax(dim=-1)]
        return ends @ self.weights["model.text_projection"]

    def generate_prompts(self, words: Tensor, context: Tensor, level: int) -> Tensor:
        """Learned words of all classes (classes, n, D) read the context of a video, (K, E)."""
        name = f"text.prompt_generation_layer.{level}"
        if self.to_text:  # where the joint space is not as wide as the text tower
            context = context @ self.weights["model.text_projection"].T
        normed = self.norm(context, f"{name}.ln_1_kv").expand(len(words), -1, -1)
        words = words + self.attention(self.norm(words, f"{name}.ln_1"), normed, f"{name}.attn")
        return self.feed_forward(words, name)

    def attention(self, x: Tensor, read: Tensor, name: str, mask: Tensor | None = None) -> Tensor:
        """(N, L, D) attend to (N, M, D)."""
        scores = self.project(x, name, 0) * HEAD_WIDTH**-0.5 @ self.project(read, name, 1).transpose(-1, -2)
        probabilities = (scores if mask is None else scores + mask).softmax(dim=-1)
        attended = probabilities @ self.project(read, name, 2)
        return self.linear(attended.transpose(1, 2).flatten(2), f"{name}.out_proj")


def merge(tokens: Tensor, removals: list[int]) -> Tensor:
    """Merge tokens (B, n, D) step by step: every token is the mean of those it was made of, and knows their number."""
    sizes = torch.ones_like(tokens[..., :1])
    for removed in removals:
        even, odd = tokens[:, 0::2], tokens[:, 1::2]
        with torch.no_grad():
            similarity = F.normalize(even, dim=-1) @ F.normalize(odd, dim=-1).transpose(1, 2)
            best, partner = similarity.max(dim=-1)
            order = best.argsort(dim=-1, descending=True, stable=True)
            leaving, staying = order[:, :removed, None], order[:, removed:, None]
            target = partner[..., None].gather(1, leaving)

        def pick(x: Tensor, rows: Tensor) -> Tensor:
            return x.gather(1, rows.expand(-1, -1, x.shape[-1]))

        def join(even: Tensor, odd: Tensor, leaving: Tensor = leaving, target: Tensor = target) -> Tensor:
            return odd.scatter_add(1, target.expand(-1, -1, odd.shape[-1]), pick(even, leaving))

        sizes_even, sizes_odd = sizes[:, 0::2], sizes[:, 1::2]
        joined_sizes = join(sizes_even, sizes_odd)
        joined = join(even * sizes_even, odd * sizes_odd) / joined_sizes
        tokens = torch.cat((pick(even, staying), joined), dim=1)
        sizes = torch.cat((pick(sizes_even, staying), joined_sizes), dim=1)
    return tokens
