"""CLIP weights: find, download, read, make."""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from slowfast.models.clip.arch import (
    PUBLISHED,
    AnyClipSizes,
    ClipSizes,
    PublishedClip,
    ResNetSizes,
    published_clip,
    read_sizes,
)
from slowfast.models.clip.files import TORCHSCRIPT, read_weight_file
from slowfast.models.clip.layers import Activation
from slowfast.models.clip.layouts import PROMPT_CONTEXT, PROMPT_GENERATION, Renamed, clip_names, require_token_embedding
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.resnet import ModifiedResNet
from slowfast.models.clip.torchscript import is_torchscript
from slowfast.models.clip.vifi_entries import is_vifi_entry
from slowfast.utils.io import expanded, sha256_file
from slowfast.utils.logging import get_logger

logger = get_logger(__name__)

DEFAULT_CACHE = Path("~/.cache/clip")
"""Where OpenAI's own package keeps its downloads, so that existing files are found."""

_CHUNK_BYTES = 1 << 20


TORCHSCRIPT_FLAGS = (
    "MODEL.CLIP_ALLOW_TORCHSCRIPT True (runs), --allow-torchscript (tools) or allow_torchscript=True (load_model)"
)


class ClipWeights(NamedTuple):
    """A CLIP as its file has it: tensors under OpenAI's names, and the activation if the file says it."""

    state: dict[str, Tensor]
    activation: Activation | None


def read_clip(
    source: str | Path, *, cache_dir: str | Path | None = None, allow_torchscript: bool = False
) -> ClipWeights:
    """Read a CLIP state dict, and which activation it was trained with.

    OpenAI's TorchScript archives, state dicts and safetensors in every layout of `layouts.LAYOUTS` are read, and
    checkpoints, of which the tuned CLIP is taken.

    Args:
        source: a file, a MODEL.ARCH name ("vitb16") or OpenAI's name ("ViT-B/16"); a name is downloaded once.
        cache_dir: folder of downloads; None means ``~/.cache/clip``.
        allow_torchscript: whether a TorchScript archive is read that is none of the published CLIPs.

    Returns:
        Tensors in the file's dtypes, on the CPU, and the activation; None where neither the file nor a configuration
        beside it says.

    Raises:
        ValueError: if the file is absent, unreadable or not a CLIP, or a download fails or has the wrong hash.
    """
    # What came as a download has been compared with its hash already.
    is_download = not expanded(source).is_file()
    path = find_weights(source, cache_dir=cache_dir)
    file = read_weight_file(
        path, allow_torchscript=allow_torchscript or is_download, torchscript_flag=TORCHSCRIPT_FLAGS
    )
    if file.container == TORCHSCRIPT:
        state = _parameters_of_archive(file.tensors(), source=str(path))
    else:
        state = clip_entries(file.tensors(), source=str(path))
    # Refuses what a configuration beside the file says of a model that ours is not.
    return ClipWeights(state, file.activation())


def load_clip_state_dict(
    source: str | Path, *, cache_dir: str | Path | None = None, allow_torchscript: bool = False
) -> dict[str, Tensor]:
    """Read the tensors of a CLIP alone, as `read_clip` does.

    Raises:
        ValueError: if the file is absent, unreadable or not a CLIP, or a download fails or has the wrong hash.
    """
    return read_clip(source, cache_dir=cache_dir, allow_torchscript=allow_torchscript).state


def find_weights(source: str | Path, *, cache_dir: str | Path | None = None) -> Path:
    """Find the file of a CLIP; a published one is downloaded unless it is in the cache.

    Raises:
        ValueError: if there is neither a file nor a published model of this name, or the download fails.
    """
    path = expanded(source)
    if path.is_file():
        return path
    if path.is_dir():
        # Repositories have the same weights in several containers; safetensors holds nothing that could be unsafe.
        inside = next((f", such as {file}" for file in sorted(path.glob("*.safetensors"))), "")
        raise ValueError(f"CLIP weights {str(source)!r}: is a folder; expected a file{inside}")
    published = published_clip(str(source))
    if published is None:
        raise _not_found(source)
    return download(published, cache_dir=cache_dir)


def clip_activation(
    source: str | Path, *, cache_dir: str | Path | None = None, allow_torchscript: bool = False
) -> Activation | None:
    """Find out which activation the weights of a CLIP were trained with, without loading them.

    Args:
        source: as for `read_clip`.
        cache_dir: as for `read_clip`; nothing is downloaded.
        allow_torchscript: as for `read_clip`.

    Returns:
        "quick_gelu" or "gelu", None where neither the file nor a configuration beside it says.

    Raises:
        ValueError: if the file is absent, unreadable or contradicts a configuration beside it.
    """
    del cache_dir  # the published models all have QuickGELU
    path = expanded(source)
    if path.is_file():
        file = read_weight_file(
            path, allow_torchscript=allow_torchscript, torchscript_flag=TORCHSCRIPT_FLAGS, memory_map=True
        )
        return file.activation()
    if published_clip(str(source)) is None:
        raise _not_found(source)
    return "quick_gelu"


def weights_license(source: str | Path) -> str:
    """Find out under which licence the file of a CLIP, or a checkpoint, may be used, without loading it.

    Args:
        source: as for `read_clip`; nothing is downloaded.

    Returns:
        What the file records, or its layout implies; "" where nothing says so, for the published CLIPs, and for
        TorchScript archives, which have no place for it.

    Raises:
        ValueError: if the file is unreadable.
    """
    path = expanded(source)
    if not path.is_file() or is_torchscript(path):
        return ""
    return read_weight_file(path, memory_map=True).license()


def _not_found(source: str | Path) -> ValueError:
    names = ", ".join([*PUBLISHED, *(entry.name for entry in PUBLISHED.values())])
    return ValueError(f"CLIP weights {str(source)!r}: no such file; allowed: a file or one of {names}")


def clip_entries(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Select CLIP's own tensors under OpenAI's names from a state dict of any known layout.

    Args:
        state: names as in the file; parts of a checkpoint outside CLIP (teacher, projector) are left behind.
        source: what to call the state dict in an error.

    Returns:
        CLIP's tensors, and those of a temporal module in its towers.

    Raises:
        ValueError: if there is no CLIP inside, or one whose text tower is not complete without what is beside it.
    """
    renamed = clip_names(state, source=source)
    _refuse_prompts(renamed, source=source)
    require_token_embedding(renamed, source=source)
    read_sizes(renamed.clip, source=source)
    return renamed.clip


def _refuse_prompts(renamed: Renamed, *, source: str) -> None:
    """Refuse a model whose learned prompts would be dropped without a word if it were taken for a CLIP."""
    prompts = [name for name in (*renamed.beside, *renamed.clip) if is_vifi_entry(name)]
    if not prompts:
        return
    if renamed.layout == "tc_clip" or any(name.startswith(PROMPT_GENERATION) for name in renamed.beside):
        what, method = "a TC-CLIP", "tc_clip"
    elif renamed.layout == "vifi" or prompts != [PROMPT_CONTEXT]:
        what, method = "a ViFi-CLIP with learned prompts", "vifi_clip"
    else:  # in our layout, a TC-CLIP without its options and a ViFi-CLIP with prompts for texts alone are the same
        what, method = "a TC-CLIP or a ViFi-CLIP with learned prompts", "tc_clip or vifi_clip"
    raise ValueError(
        f"{source}: holds {what}, which is more than a CLIP; as weights of METHOD {method} it is loaded by "
        "TRAIN.CUSTOM_LOAD or TEST.CUSTOM_LOAD True with CUSTOM_LOAD_FILE"
    )


def _parameters_of_archive(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Drop what an archive holds besides parameters, such as attention masks; its pickle does not tell them apart."""
    state = clip_entries(tensors, source=source)
    with torch.device("meta"):
        names = CLIP(read_sizes(state, source=source)).state_dict().keys()
    return {name: tensor for name, tensor in state.items() if name in names}


def cached_archive(published: PublishedClip, *, cache_dir: str | Path | None = None) -> Path:
    """Where a published archive lies once it is downloaded; None stands for the default cache."""
    return expanded(cache_dir or DEFAULT_CACHE) / Path(published.url).name


def download(published: PublishedClip, *, cache_dir: str | Path | None = None) -> Path:
    """Fetch a published archive into the cache unless it is there already; its hash is checked either way.

    Returns:
        The verified file.

    Raises:
        ValueError: if there is no network or the content has the wrong hash; nothing is left under the final name.
    """
    target = cached_archive(published, cache_dir=cache_dir)
    if target.is_file():
        found = sha256_file(target)
        if found != published.sha256:
            raise ValueError(
                f"{target}: sha256 is {found}, expected {published.sha256}; delete the file to fetch it anew"
            )
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: the ranks of a first run all come here, and must not write into one file.
    partial = target.with_name(f"{target.name}.{socket.gethostname()}.{os.getpid()}.part")
    logger.info("Downloading %s to %s", published.url, target)
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(published.url, timeout=60) as response, partial.open("wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    except (http.client.HTTPException, OSError) as error:
        partial.unlink(missing_ok=True)
        raise ValueError(
            f"cannot download {published.name} from {published.url} ({error}); "
            f"put the file at {target} or set MODEL.CLIP_WEIGHTS to a local file"
        ) from error
    if digest.hexdigest() != published.sha256:
        partial.unlink()
        raise ValueError(
            f"{published.url}: sha256 is {digest.hexdigest()}, expected {published.sha256}; nothing was kept"
        )
    partial.replace(target)
    return target


def random_clip_state_dict(sizes: AnyClipSizes, *, seed: int) -> dict[str, Tensor]:
    """Make an untrained CLIP with the initialisation of its paper.

    Args:
        sizes: sizes of both towers.
        seed: the same seed gives the same weights.

    Returns:
        Tensors under OpenAI's names, fp32; counters of a ResNet's batch norms int64.

    Source: Radford et al. (2021), section 2.4; standard deviations as in OpenAI's release, but for the convolutions of
        a ResNet, which have He's.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    text, embed = sizes.text_width, sizes.embed_dim
    state = {
        "positional_embedding": normal(sizes.context_length, text, std=0.01),
        "text_projection": normal(text, embed, std=text**-0.5),
        "logit_scale": torch.tensor(math.log(1 / 0.07)),
        **(_random_ends(sizes, normal) if isinstance(sizes, ClipSizes) else _random_resnet(sizes, normal)),
        "token_embedding.weight": normal(sizes.vocab_size, text, std=0.02),
        "ln_final.weight": torch.ones(text),
        "ln_final.bias": torch.zeros(text),
    }
    if isinstance(sizes, ClipSizes):
        state |= _random_blocks("visual.transformer", sizes.vision_width, sizes.vision_layers, normal)
    return state | _random_blocks("transformer", text, sizes.text_layers, normal)


class _Normal(Protocol):
    """Draws normal numbers of mean 0."""

    def __call__(self, *shape: int, std: float) -> Tensor: ...


def _random_ends(sizes: ClipSizes, normal: _Normal) -> dict[str, Tensor]:
    """What a ViT has before and behind its blocks."""
    width, patch = sizes.vision_width, sizes.patch_size
    state = {
        "visual.class_embedding": normal(width, std=width**-0.5),
        "visual.positional_embedding": normal(sizes.grid_size**2 + 1, width, std=width**-0.5),
        "visual.proj": normal(width, sizes.embed_dim, std=width**-0.5),
        "visual.conv1.weight": normal(width, 3, patch, patch, std=(3 * patch**2) ** -0.5),
    }
    for norm in ("visual.ln_pre", "visual.ln_post"):
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.ones(width), torch.zeros(width)
    return state


def _random_blocks(tower: str, width: int, layers: int, normal: _Normal) -> dict[str, Tensor]:
    """The blocks of a transformer."""
    state = {}
    shrink = (2 * layers) ** -0.5  # residual branches add up over the depth
    for layer in range(layers):
        block = f"{tower}.resblocks.{layer}"
        state[f"{block}.attn.in_proj_weight"] = normal(3 * width, width, std=width**-0.5)
        state[f"{block}.attn.out_proj.weight"] = normal(width, width, std=width**-0.5 * shrink)
        state[f"{block}.mlp.c_fc.weight"] = normal(4 * width, width, std=(2 * width) ** -0.5)
        state[f"{block}.mlp.c_proj.weight"] = normal(width, 4 * width, std=width**-0.5 * shrink)
        biases = (("attn.in_proj", 3), ("attn.out_proj", 1), ("mlp.c_fc", 4), ("mlp.c_proj", 1))
        for name, factor in biases:
            separator = "_" if name == "attn.in_proj" else "."
            state[f"{block}.{name}{separator}bias"] = torch.zeros(factor * width)
        for norm in ("ln_1", "ln_2"):
            state[f"{block}.{norm}.weight"], state[f"{block}.{norm}.bias"] = torch.ones(width), torch.zeros(width)
    return state


def _random_resnet(sizes: ResNetSizes, normal: _Normal) -> dict[str, Tensor]:
    """A ResNet image tower whose blocks start as the identity: the last norm of each gives 0."""
    with torch.device("meta"):
        shapes = {f"visual.{name}": tensor.shape for name, tensor in ModifiedResNet(sizes).state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        kind = name.rsplit(".", 1)[-1]
        if len(shape) == 4:
            state[name] = normal(*shape, std=(2 / shape[1:].numel()) ** 0.5)
        elif len(shape) == 2:  # of the attention pooling
            state[name] = normal(*shape, std=sizes.pool_width**-0.5)
        elif kind == "num_batches_tracked":
            state[name] = torch.zeros((), dtype=torch.long)
        else:
            is_last = name.startswith("visual.layer") and name.endswith("bn3.weight")
            state[name] = torch.ones(shape) if kind in ("weight", "running_var") and not is_last else torch.zeros(shape)
    return state
