"""A method small enough to follow by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.datasets.types import VideoBatch
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.build import build_method

CLASSES = 7


class LinearMethod(Method):
    """Scores 7 classes from all pixels of a clip; keeps the random numbers and batch sizes that it saw."""

    transient_prefixes = ("raw_model.",)

    def __init__(self, *, noise=0.0):
        super().__init__(pixel_mean=(0.5,) * 3, pixel_std=(0.25,) * 3)
        self.head = nn.Linear(3 * 2 * 4 * 4, CLASSES)
        self.raw_model = nn.Linear(2, 2).requires_grad_(False)
        self.noise = noise
        self.draws, self.sizes = [], []

    def set_label_set(self, label_set, bank):
        pass

    def scores(self, batch):
        self.sizes.append(len(batch))
        return self.head(self.normalise(batch.frames).flatten(1))

    def training_forward(self, batch):
        logits = self.scores(batch)
        self.draws.append(torch.rand(()).item())
        losses = {"classification": F.cross_entropy(logits, batch.label), "size": 0.01 * logits.square().mean()}
        return MethodOutput(logits, losses, {"spread": logits.detach().std()})

    def eval_forward(self, batch):
        return MethodOutput(self.scores(batch), {}, {})

    def frame_features(self, batch):
        return self.normalise(batch.frames).transpose(1, 2).flatten(2)


@pytest.fixture
def make_method():
    """Makes a method; the same one every time."""

    def make():
        torch.manual_seed(3)
        return LinearMethod()

    return make


@pytest.fixture
def make_clips():
    """Makes a batch of noise clips (N, 3, 2, 4, 4): ids count from `first`, labels follow from ids."""

    def make(count, *, first=0, views=1, seed=0, bad=()):
        ids = torch.arange(first, first + count).repeat_interleave(views)
        frames = torch.stack([
            torch.randint(
                256, (3, 2, 4, 4), generator=torch.Generator().manual_seed(seed + 100 * int(i) + n % views),
                dtype=torch.uint8,
            )
            for n, i in enumerate(ids)
        ]) if count else torch.empty(0, 3, 2, 4, 4, dtype=torch.uint8)  # fmt: skip
        return VideoBatch(frames, label=ids % CLASSES, video_id=ids, view=torch.arange(views).repeat(count), bad=bad)

    return make


@pytest.fixture
def stdd(tiny_weights, tiny_labels):
    """Builds STDD on the tiny CLIP with a temporal module."""

    def make(temporal_type):
        cfg = get_cfg()
        cfg.merge_from_list(["MODEL.ARCH", "custom", "MODEL.CLIP_WEIGHTS", str(tiny_weights)])
        cfg.MODEL.TEMPORAL_MODELING_TYPE = temporal_type
        cfg.freeze()
        return build_method(cfg, tiny_labels)

    return make
