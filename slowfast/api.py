"""A small programming interface for notebooks: load a model, embed videos and texts, classify.

Example:
    >>> model = load_model("ViT-B/16", temporal_modeling_type="stcross_attend", temporal_scale=[1, 2])
    >>> logits = model.classify(frames, model.encode_text(["surfing", "pouring tea"]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slowfast.models.build import ExpertOptions, build_clip
from slowfast.models.clip.config_files import checked_activation
from slowfast.models.clip.layers import Activation
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.text import trim_tokens
from slowfast.models.clip.weights import clip_entries, read_clip
from slowfast.models.similarity import class_logits, unit_norm
from slowfast.text.tokenizer import Tokenizer


class VideoClip(nn.Module):
    """CLIP with a temporal module and its tokenizer.

    Args:
        clip: the model.
        num_frames: frames per clip that the model is meant for; any number is accepted.
    """

    def __init__(self, clip: CLIP, *, num_frames: int) -> None:
        super().__init__()
        self.clip = clip
        self.num_frames = num_frames
        self.tokenizer = Tokenizer()

    def encode_video(self, frames: Tensor) -> Tensor:
        """Embed the frames of videos.

        Args:
            frames: frames normalised with CLIP's mean and deviation, (B, 3, T, H, W).

        Returns:
            Frame embeddings as CLIP's image tower gives them, not normalised, (B, T, E).

        Raises:
            ValueError: if the frames have another shape.
        """
        return self.clip.encode_video(frames)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.

        Args:
            texts: N texts of at most 75 tokens each.

        Returns:
            Text embeddings, not normalised, (N, E).

        Raises:
            ValueError: if a text is too long, or ``texts`` is a single string.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts: found the single string {texts!r}; expected a list of strings")
        tokens = trim_tokens(self.tokenizer(list(texts), context_length=self.clip.sizes.context_length))
        return self.clip.encode_text(tokens.to(self.clip.logit_scale.device))

    def classify(self, frames: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score classes.

        Args:
            frames: normalised frames, (B, 3, T, H, W).
            text: one embedding per class, (K, E), scored by the mean over frames; or several per class, (K, n, E),
                scored by STDD's two-way best matches. Any length.
            mask: which of several embeddings a class has, (K, n) bool; None for all.

        Returns:
            Logits, (B, K).

        Raises:
            ValueError: if a shape does not fit.
        """
        video = unit_norm(self.encode_video(frames))
        mask = None if mask is None else mask.to(video.device)
        return class_logits(video, unit_norm(text.to(video.device)), self.clip.logit_scale.exp(), mask)


def load_model(
    weights: str | Path | Mapping[str, Tensor],
    *,
    temporal_modeling_type: str | None = None,
    num_frames: int = 8,
    activation: Activation | None = None,
    experts: ExpertOptions | None = None,
    allow_torchscript: bool = False,
    device: str | torch.device = "cpu",
    **block_options: Any,  # noqa: ANN401 - the options of the temporal module, checked by name
) -> VideoClip:
    """Load a CLIP with a temporal module.

    Args:
        weights: a state dict in CLIP's layout, a file (OpenAI archive, state dict, safetensors, checkpoint of this
            project), or a name such as "ViT-B/16", which is downloaded once.
        temporal_modeling_type: MODEL.TEMPORAL_MODELING_TYPE; None for plain CLIP on every frame.
        num_frames: frames per clip, T.
        activation: "quick_gelu" or "gelu"; None takes what the file says, and QuickGELU where it says nothing.
        experts: mixtures of experts, for weights that have them.
        allow_torchscript: whether to read a TorchScript archive that is none of the published CLIPs.
        device: where the model goes.
        **block_options: options of the temporal module under the lower-case names of the MODEL keys, with the
            configuration's defaults: of stcross_attend mask_rate, mask_stride, spatial_repeat, temporal_shuffle,
            temporal_shuffle_eval, channel_fold, temporal_scale, stcross_mlp_input, stcross_qkv; of
            expand_temporal_view expand_view_masked.

    Returns:
        The model in evaluation mode, fp32.

    Raises:
        ValueError: if the weights, the type, the activation or an option are not usable.
    """
    if activation is not None:
        checked_activation(activation, source="activation")
    if isinstance(weights, Mapping):
        source = "weights"
        state = clip_entries(weights, source=source)
    else:
        source = str(weights)
        state, recorded = read_clip(weights, allow_torchscript=allow_torchscript)
        activation = activation or recorded
    clip = build_clip(
        state,
        temporal_modeling_type=temporal_modeling_type,
        block_options=block_options,
        experts=experts,
        activation=activation or "quick_gelu",
        source=source,
    )
    return VideoClip(clip, num_frames=num_frames).to(device).eval()
