"""A small head with weights and features by formula: what the published code gave for it, in six digits."""

import pytest
import torch
from torch import nn

WIDTH, NUM_HEADS, HIDDEN, SHOTS = 8, 2, 16, 2
NUMBER_OF_CLASS = (0, 2, 3)
SUPPORT_LABELS, QUERY_LABELS, QUERY_NUMBERS = (2, 0, 1, 1, 0, 2), (1, 2, 0), (2, 3, 0)
TEXT_WEIGHT, BATCH_SIZE = 1.5, 4
SHAPES = {
    "layers.0.0.fn.to_k.weight": (WIDTH, WIDTH),
    "layers.0.0.fn.to_out.0.bias": (WIDTH,),
    "layers.0.0.fn.to_out.0.weight": (WIDTH, WIDTH),
    "layers.0.0.fn.to_q.weight": (WIDTH, WIDTH),
    "layers.0.0.fn.to_v.weight": (WIDTH, WIDTH),
    "layers.0.0.norm.bias": (WIDTH,),
    "layers.0.0.norm.weight": (WIDTH,),
    "layers.0.1.net.0.bias": (HIDDEN,),
    "layers.0.1.net.0.weight": (HIDDEN, WIDTH),
    "layers.0.1.net.3.bias": (WIDTH,),
    "layers.0.1.net.3.weight": (WIDTH, HIDDEN),
}

TRAINING = {
    "": [
        (-4.013709, -7.846712, -0.832786), (-0.816803, -3.190347, -8.157558), (-6.415786, 4.950896, -4.951006)
    ],
    "merge_before": [
        (-3.844239, -7.867337, -0.994411), (-1.481652, -3.247702, -8.120610), (-6.628589, 4.924693, -5.162635)
    ],
    "single_direct": [
        (-2.127988, -3.845761, -0.555095), (-0.443558, -1.365945, -3.376598), (-3.016572, 2.440150, -2.399810)
    ],
}  # fmt: skip
EVALUATION = {
    "": [
        (-4.016847, -7.922825, -0.766185), (-0.833896, -2.759841, -8.768385), (-6.396992, 4.934894, -5.268222)
    ],
    "merge_before": [
        (-3.848477, -7.960309, -0.912404), (-1.506611, -2.758705, -8.722899), (-6.608919, 4.905901, -5.462861)
    ],
}  # fmt: skip
BY_TEXT = [(0.328304, 0.184810, 0.486886), (0.485595, 0.283487, 0.230917), (0.347090, 0.394226, 0.258685)]
COMBINED = {
    0.9: [(0.328352, 0.185961, 0.485640), (0.481083, 0.291780, 0.225169), (0.320605, 0.415196, 0.249625)],
    0.5: [(0.328543, 0.190637, 0.480688), (0.463447, 0.327449, 0.203571), (0.233391, 0.510842, 0.216449)],
}
"""By the weight of the text; they do not add up to one."""
FIRST_SUPPORT_CLASSES = (0.065220, -0.547002, -0.658218, 0.229588)
LAST_QUERY_CLASSES = (0.028569, 0.040560, 0.241424, 0.125677)
LOSSES = {"": (8.617551, 1.461470, 2.702439), "merge_before": (8.427140, 1.461470, 2.654836)}
"""Of few shots, of videos and texts, of both."""
GRADIENT_NORMS = {
    "layers.0.0.fn.to_q.weight": 0.488962,
    "layers.0.0.fn.to_k.weight": 0.564801,
    "layers.0.0.fn.to_v.weight": 2.292260,
    "layers.0.0.fn.to_out.0.weight": 2.018453,
    "layers.0.1.net.0.weight": 0.972300,
    "layers.0.1.net.3.weight": 1.285310,
    "layers.0.0.norm.weight": 0.087761,
}
GRADIENT_NORMS_OF_INPUTS, GRADIENT_OF_SCALE = (0.387957, 0.418230), 0.040123


def weights(dtype=torch.float64):
    found = {"scale": torch.ones(1, dtype=dtype)}
    assert sorted(SHAPES) == list(SHAPES)
    for number, (name, shape) in enumerate(SHAPES.items()):
        places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        base = 1.0 if name.endswith("norm.weight") else 0.0
        found[f"context2.{name}"] = (base + 0.3 * torch.sin(places + number + 1)).view(shape).to(dtype)
    return found


def features(count, offset):
    """Of frames, (count, 8, 8)."""
    video, frame, channel = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in (count, 8, 8)), indexing="ij"
    )
    return torch.sin(0.37 * (video + 1) * (channel + 1) + 0.21 * frame * (channel - 3) + offset)


def texts(count, offset):
    row, channel = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (count, 8)), indexing="ij")
    return torch.cos(0.9 * (row + 1) * (channel + 1) / 3 + offset)


SUPPORT, QUERY = features(6, 0.1), features(3, 0.8)
TEXTS_TRAIN, TEXTS_TEST = texts(4, 0.2), texts(5, 1.1)


class ByOracle:
    """The plain head on the toy episode."""

    def __init__(self, oracle, *, merge_before=False, single_direct=False, text_coff=0.9, **_):
        self.parameters = {name: value.requires_grad_() for name, value in weights().items()}
        self.head = oracle.PlainClipFsar(
            self.parameters, num_heads=NUM_HEADS, merge_before=merge_before, single_direct=single_direct
        )
        self.support, self.query, self.beta = SUPPORT.clone(), QUERY.clone(), text_coff
        self.episode = oracle.Episode(
            support=self.support.requires_grad_(),
            support_labels=torch.tensor(SUPPORT_LABELS),
            query=self.query.requires_grad_(),
            query_labels=torch.tensor(QUERY_LABELS),
        )
        self.numbers = torch.tensor(NUMBER_OF_CLASS)[self.episode.support_labels]

    def logits(self, all_texts):
        return -self.head.distances(self.episode, all_texts[self.numbers])

    def losses(self):
        few_shot, video_text = self.head.losses(self.episode, self.numbers, torch.tensor(QUERY_NUMBERS), TEXTS_TRAIN)
        return few_shot, TEXT_WEIGHT * video_text

    def by_text(self):
        return self.head.text_probabilities(self.episode, TEXTS_TEST[self.numbers])

    def combined(self):
        return self.head.combined(self.episode, TEXTS_TEST[self.numbers], self.beta)

    def class_logits(self, videos):
        return self.head.video_text_logits(videos, TEXTS_TRAIN)

    def transformer(self, x):
        return self.head.transformer(x)


class ByOurs:
    """Our head on it: videos class by class, and queries back in their order."""

    def __init__(self, _, **options):
        from slowfast.methods.clip_fsar.head import FsarHead, HeadOptions

        given = {
            "merge_before": False,
            "single_direct": False,
            "use_classification": True,
            "classification_only": False,
            "classification_value": TEXT_WEIGHT,
            "eval_text": False,
            "combine": False,
            "text_coff": 0.9,
            "smoothing": 0.5,
        }
        self.head = FsarHead(
            nn.Identity(),
            width=WIDTH,
            depth=1,
            num_heads=NUM_HEADS,
            hidden=HIDDEN,
            options=HeadOptions(**{**given, **options}),
        ).double()
        self.head.load_state_dict(weights())
        self.head.eval()  # no dropout
        self.parameters = dict(self.head.named_parameters())
        self.support, self.query = SUPPORT.clone().requires_grad_(), QUERY.clone().requires_grad_()
        self.query_order = torch.tensor(QUERY_LABELS).argsort(stable=True)
        order = torch.tensor(SUPPORT_LABELS).argsort(stable=True)
        self.inputs = self.support[order].view(1, 3, SHOTS, 8, WIDTH), self.query[self.query_order][None]
        self.class_number = torch.tensor([NUMBER_OF_CLASS])

    def in_order(self, found):
        return found[0][self.query_order.argsort()]

    def logits(self, all_texts):
        return self.in_order(self.head.episode_logits(*self.inputs, all_texts[self.class_number]))

    def losses(self):
        _, terms = self.head.losses(*self.inputs, self.class_number, TEXTS_TRAIN)
        return terms["few_shot"], terms["video_text"]

    def by_text(self):
        return self.logits(TEXTS_TEST).exp()

    def combined(self):
        return self.logits(TEXTS_TEST).exp()

    def class_logits(self, videos):
        return self.head.video_text_logits(videos, TEXTS_TRAIN)

    def transformer(self, x):
        return self.head.context2(x)


@pytest.fixture(params=[ByOracle, ByOurs])
def build(request, oracle):
    """Builds either head with options."""
    return lambda **options: request.param(oracle, **options)


def test_formulas(near):
    near(weights()["context2.layers.0.0.fn.to_q.weight"][0, :3], (-0.227041, -0.287677, -0.083825), 1e-6)
    near(SUPPORT[0, 0, :2], (0.452886, 0.744643), 1e-6)


def test_transformer(build, near):
    found = build().transformer(features(2, 0.0))
    near(found.sum(), 0.308915, 1e-5)
    first = (0.230854, 0.709236, 0.105645, 1.152355, 1.095718, 1.143782, 0.735712, -0.015899)
    near(found[0, 0], first, 1e-6)
    last = (0.543594, -1.018829, -0.255840, 0.437692, -0.645671, 1.106692, -0.039141, -0.725109)
    near(found[1, 7], last, 1e-6)


@pytest.mark.parametrize("option", TRAINING)
def test_logits_with_training_texts(build, option, near):
    near(build(**({option: True} if option else {})).logits(TEXTS_TRAIN), TRAINING[option], 1e-6)


@pytest.mark.parametrize("option", EVALUATION)
def test_logits_with_test_texts(build, option, near):
    near(build(**({option: True} if option else {})).logits(TEXTS_TEST), EVALUATION[option], 1e-6)


def test_probabilities_by_text(build, near):
    near(build(eval_text=True).by_text(), BY_TEXT, 2e-6)


@pytest.mark.parametrize("beta", COMBINED)
def test_combined_probabilities(build, beta, near):
    found = build(combine=True, merge_before=True, text_coff=beta).combined()
    near(found, COMBINED[beta], 2e-6)


def test_class_logits(build, near):
    found = build().class_logits(torch.cat((SUPPORT, QUERY)))
    near(found[0], FIRST_SUPPORT_CLASSES, 1e-6)
    near(found[-1], LAST_QUERY_CLASSES, 1e-6)


@pytest.mark.parametrize("option", LOSSES)
def test_losses(build, option, near):
    few_shot, video_text = build(**({option: True} if option else {})).losses()
    expected = LOSSES[option]
    near(few_shot, expected[0], 1e-6)
    near(video_text / TEXT_WEIGHT, expected[1], 1e-6)
    near((few_shot + video_text) / BATCH_SIZE, expected[2], 1e-6)


def test_gradients(build, near):
    toy = build()
    (sum(toy.losses()) / BATCH_SIZE).backward()
    near(toy.parameters["scale"].grad, [GRADIENT_OF_SCALE], 1e-6)
    for name, expected in GRADIENT_NORMS.items():
        near(toy.parameters[f"context2.{name}"].grad.norm(), expected, 2e-6, name)
    for own, expected in zip((toy.support, toy.query), GRADIENT_NORMS_OF_INPUTS, strict=True):
        near(own.grad.norm(), expected, 2e-6)
