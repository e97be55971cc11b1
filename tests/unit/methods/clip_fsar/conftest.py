"""CLIP-FSAR on a tiny CLIP, and its head alone beside the one that is written straightforwardly, see tests/oracles."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from slowfast.datasets.label_set import LabelSet
from slowfast.datasets.types import EpisodeBatch, VideoBatch
from slowfast.methods.build import build_method
from slowfast.methods.clip_fsar.head import FsarHead, HeadOptions
from slowfast.models.clip.arch import ResNetSizes
from slowfast.models.clip.weights import random_clip_state_dict

NAMES = ("surfing", "pouring tea", "draw_sword", "Blow DryHair", "hurling (sport)", "Putting [something] on a surface")
ORACLE = Path(__file__).resolve().parents[3] / "oracles" / "plain_clip_fsar.py"
WIDTH, HEADS, HIDDEN = 16, 4, 12
PLAIN_OPTIONS = HeadOptions(
    merge_before=False,
    single_direct=False,
    use_classification=True,
    classification_only=False,
    classification_value=1.0,
    eval_text=False,
    combine=False,
    text_coff=0.9,
    smoothing=0.5,
)


@pytest.fixture(scope="session")
def oracle():
    """The module of the plain head."""
    spec = importlib.util.spec_from_file_location("plain_clip_fsar", ORACLE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------- the head, in float64


@pytest.fixture
def make_head():
    """Builds the head without a tower and without dropout: make_head(depth=1, **options)."""

    def make(*, depth=1, **options):
        torch.manual_seed(3)
        head = FsarHead(
            nn.Identity(),
            width=WIDTH,
            depth=depth,
            num_heads=HEADS,
            hidden=HIDDEN,
            options=replace(PLAIN_OPTIONS, **options),
        ).double()
        with torch.no_grad():
            for parameter in head.parameters():  # norms and the scale would be all ones
                parameter.add_(0.2 * torch.randn_like(parameter))
        for module in head.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return head

    return make


@pytest.fixture
def make_plain(oracle):
    """Builds the plain head of a head, on the same parameters: make_plain(head)."""

    def make(head):
        options = head.options
        return oracle.PlainClipFsar(
            dict(head.named_parameters()),
            num_heads=HEADS,
            smoothing=options.smoothing,
            merge_before=options.merge_before,
            single_direct=options.single_direct,
        )

    return make


class Features:
    """Features of episodes as our head takes them, and one by one as the plain one does, its videos shuffled."""

    def __init__(self, oracle, *, episodes, shot, way=3, query=2, num_classes=5, num_frames=3, seed=0):
        self.oracle, self.way, self.shot, self.per_class = oracle, way, shot, query
        self.generator = torch.Generator().manual_seed(seed)
        self.support = self._noise(episodes, way, shot, num_frames, WIDTH)
        self.query = self._noise(episodes, way * query, num_frames, WIDTH)
        self.texts = self._noise(num_classes, WIDTH)
        draws = [torch.randperm(num_classes, generator=self.generator)[:way] for _ in range(episodes)]
        self.classes = torch.stack(draws)

    def _noise(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).requires_grad_()

    def __len__(self):
        return len(self.support)

    def plain(self, number):
        """The episode, rows of the texts of its supports and of its queries, and where its queries stand in ours."""
        labels = torch.arange(self.way)
        support_order = torch.randperm(self.way * self.shot, generator=self.generator)
        query_order = torch.randperm(self.way * self.per_class, generator=self.generator)
        episode = self.oracle.Episode(
            support=self.support[number].flatten(0, 1)[support_order],
            support_labels=labels.repeat_interleave(self.shot)[support_order],
            query=self.query[number][query_order],
            query_labels=labels.repeat_interleave(self.per_class)[query_order],
        )
        rows = [self.classes[number][own] for own in (episode.support_labels, episode.query_labels)]
        return episode, *rows, query_order


@pytest.fixture
def make_features(oracle):
    """Makes noise for episodes: make_features(episodes=1, shot=1, ...)."""

    def make(*, episodes=1, shot=1, **sizes):
        return Features(oracle, episodes=episodes, shot=shot, **sizes)

    return make


# ----------------------------------------------------------------------------------------------------- the whole method


@pytest.fixture(scope="session")
def labels():
    return LabelSet.from_names(NAMES)


@pytest.fixture(scope="session")
def resnet_weights(tmp_path_factory):
    """A CLIP with a ResNet, for 32 pixels."""
    sizes = ResNetSizes(
        image_size=32, vision_width=4, vision_layers=(1, 1, 1, 1), embed_dim=32, text_width=64, text_layers=1
    )
    path = tmp_path_factory.mktemp("clip") / "resnet.pt"
    torch.save(random_clip_state_dict(sizes, seed=8), path)
    return path


@pytest.fixture(params=["vit", "resnet"])
def tower_weights(request, tiny_weights, resnet_weights):
    return {"vit": tiny_weights, "resnet": resnet_weights}[request.param]


@pytest.fixture
def fsar_cfg(tiny_cfg):
    """Makes a configuration that trains in episodes; keys of CLIP_FSAR and EPISODES go without their section."""

    def make(**keys):
        cfg = {"METHOD": "clip_fsar", "PROTOCOL": "episodic", "SPLITS.DATASET": "hmdb51", "EPISODES.TRAIN": True}
        own, episodes = tiny_cfg().CLIP_FSAR, tiny_cfg().EPISODES
        for key, value in keys.items():
            section = "CLIP_FSAR." if key in own else "EPISODES." if key in episodes else ""
            cfg[f"{section}{key}"] = value
        return tiny_cfg(**cfg)

    return make


@pytest.fixture
def make(fsar_cfg, labels):
    """Builds the method: make(**keys)."""

    def build(*, training=True, **keys):
        return build_method(fsar_cfg(**keys), labels, training=training)

    return build


@pytest.fixture
def make_clips(tiny_sizes):
    """Makes a batch of uint8 noise with labels: make_clips([label, ...])."""

    def make(label, *, num_frames=2, seed=0):
        generator, side = torch.Generator().manual_seed(seed), tiny_sizes.image_size
        return VideoBatch(
            frames=torch.randint(256, (len(label), 3, num_frames, side, side), generator=generator, dtype=torch.uint8),
            label=torch.as_tensor(label),
            video_id=torch.arange(len(label)),
            view=torch.zeros(len(label), dtype=torch.long),
        )

    return make


@pytest.fixture
def make_episodes(make_clips):
    """Makes a batch of episodes of noise."""

    def make(classes=((4, 0, 2), (1, 5, 0)), *, shot=1, query=2, seed=0):
        numbers = torch.tensor(classes).flatten()
        return EpisodeBatch(
            support=make_clips(numbers.repeat_interleave(shot), seed=seed),
            query=make_clips(numbers.repeat_interleave(query), seed=seed + 1),
            way=len(classes[0]),
            shot=shot,
            query_per_class=query,
        )

    return make
