"""What turns the recording of CLIP-FSAR into ours: names, options, episodes in our order, a head with its weights.

The recipe, as far as it leaves no trace in the file:

- Videos of an episode are shuffled. Ours come class by class, in ascending order of the labels of the episode.
- The recorded loss is divided by the batch size, ours is not.
- Recorded probabilities are ours in logarithms; those of COMBINE do not add up to one in either.
- A coefficient of zero counted as none given, and so as 0.9, which `beta` says.
"""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

PREFIX = "head."
ORACLE = Path(__file__).resolve().parents[2] / "oracles" / "plain_clip_fsar.py"


@pytest.fixture(scope="session")
def oracle():
    """The module of the plain head."""
    spec = importlib.util.spec_from_file_location("plain_clip_fsar", ORACLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """A dtype, where values of it are recorded, and what values, probabilities and gradients may be off by."""
    exact = request.param == "float64"

    def of(recorded, name):
        """A value of a case in this precision, None if it has none."""
        return (recorded["float64"] if exact else recorded).get(name)

    return SimpleNamespace(
        dtype=getattr(torch, request.param),
        of=of,
        values=1e-10 if exact else 2e-5,
        probabilities=1e-10 if exact else 1e-6,
        gradients=1e-9 if exact else 1e-4,
        noise=1e-13 if exact else 1e-6,
        exact=exact,
    )


@pytest.fixture(scope="session")
def near():
    """Compares within a tolerance, which is relative where the largest expected value is above 1."""

    def check(found, expected, tolerance, what=""):
        expected = torch.as_tensor(expected, dtype=torch.float64)
        found = found.detach().double()
        assert found.shape == expected.shape, what
        error = (found - expected).abs().max().item()
        assert error <= tolerance * max(1.0, expected.abs().max().item()), (what, error)

    return check


@pytest.fixture(scope="session")
def near_norms():
    """Compares norms of gradients, by name, with recorded ones; those recorded as absent must be None or zero."""

    def check(parameters, norms, absent, precision):
        assert set(norms) | set(absent) == set(parameters)
        for name, expected in norms.items():
            found = parameters[name].grad.double().norm().item()
            assert abs(found - expected) <= precision.gradients * expected + precision.noise, (name, found, expected)
        for name in absent:
            assert parameters[name].grad is None or not parameters[name].grad.any(), name

    return check


# ----------------------------------------------------------------------------------------------------- the recording


@pytest.fixture(scope="session")
def recorded_weights(golden_clip_fsar):
    """Makes `scale` and `context2.*` of a depth, as an own copy in a precision."""

    def make(depth=1, dtype=torch.float32):
        found = dict(golden_clip_fsar["weights"])
        if depth == 2:
            found |= golden_clip_fsar["weights_layer1"]
        return {name.removeprefix(PREFIX): value.to(dtype, copy=True) for name, value in found.items()}

    return make


@pytest.fixture(scope="session")
def recorded_episode(golden_clip_fsar, oracle):
    """Makes an episode as recorded, and rows of the lists of texts that its videos belong to."""

    def make(name, dtype=torch.float32):
        found = golden_clip_fsar["episodes"][name]
        episode = oracle.Episode(
            support=found["support_set"].to(dtype, copy=True),
            support_labels=found["support_labels"],
            query=found["target_set"].to(dtype, copy=True),
            query_labels=found["target_labels"],
        )
        return episode, found["real_support_labels"], found["real_target_labels"]

    return make


@pytest.fixture(scope="session")
def recorded_texts(golden_clip_fsar):
    """Makes the texts of a case, (B, D), in a precision: those of training classes or those of a test."""

    def make(case, dtype=torch.float32):
        return golden_clip_fsar["text"]["train" if case["training"] else "test"].to(dtype)

    return make


def check_options(overrides):
    known = {"USE_CLASSIFICATION", "MERGE_BEFORE", "SINGLE_DIRECT", "TRANSFORMER_DEPTH", "EVAL_TEXT", "COMBINE"}
    assert set(overrides) <= known | {"TEXT_COFF"}, overrides


@pytest.fixture(scope="session")
def depth_of():
    def read(case):
        check_options(case["overrides"])
        return case["overrides"].get("TRANSFORMER_DEPTH", 1)

    return read


# ---------------------------------------------------------------------------------------------------------- our head


@pytest.fixture(scope="session")
def head_options(golden_clip_fsar):
    """Makes options of the head from official ones."""
    from slowfast.methods.clip_fsar.head import HeadOptions

    meta = golden_clip_fsar["meta"]

    def make(case, **changed):
        overrides = case["overrides"]
        check_options(overrides)
        found = {
            "merge_before": overrides.get("MERGE_BEFORE", False),
            "single_direct": overrides.get("SINGLE_DIRECT", False),
            "use_classification": overrides.get("USE_CLASSIFICATION", False),
            "classification_only": case.get("objective") == "video_text",
            "classification_value": meta["text_weight"],
            "eval_text": overrides.get("EVAL_TEXT", False),
            "combine": overrides.get("COMBINE", False),
            "text_coff": case.get("beta", 0.9),
            "smoothing": meta["lambda"],
        }
        return HeadOptions(**{**found, **changed})

    return make


@pytest.fixture(scope="session")
def build_head(golden_clip_fsar, recorded_weights, head_options, depth_of):
    """Builds the head of a case with its weights, in its mode, without dropout unless that is asked for."""
    from slowfast.methods.clip_fsar.head import FsarHead

    dims = golden_clip_fsar["meta"]["dims"]

    def build(case, dtype=torch.float32, *, backbone=None, dropout=False, **changed):
        depth = depth_of(case)
        head = FsarHead(
            nn.Identity() if backbone is None else backbone,
            width=dims["d"],
            depth=depth,
            num_heads=dims["heads"],
            hidden=dims["ffn"],
            options=head_options(case, **changed),
        )
        kept = {name: value for name, value in head.state_dict().items() if name.startswith("backbone.")}
        head.load_state_dict({**kept, **recorded_weights(depth)})
        if not dropout:
            for module in head.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        return head.to(dtype).train(case["training"])

    return build


class SortedEpisode:
    """A recorded episode in our order, one of a batch of one, and the way back.

    Attributes:
        support: (1, W, K, T, D), requires a gradient.
        query: (1, Q, T, D), requires a gradient.
        class_number: rows of the list of texts that the classes belong to, (1, W).
    """

    def __init__(self, episode, support_numbers, query_numbers):
        num_classes = len(episode.classes)
        self.support_order = episode.support_labels.argsort(stable=True)
        self.query_order = episode.query_labels.argsort(stable=True)
        self.support = episode.support[self.support_order].unflatten(0, (1, num_classes, -1)).requires_grad_()
        self.query = episode.query[self.query_order][None].requires_grad_()
        self.class_number = support_numbers[self.support_order].view(num_classes, -1)[None, :, 0]
        counts = episode.query_labels.bincount(minlength=num_classes)
        assert (counts == counts[0]).all()
        assert torch.equal(self.class_number[0][episode.support_labels], support_numbers)
        assert torch.equal(self.class_number[0][episode.query_labels], query_numbers)

    def query_rows(self, found):
        """Rows of queries, (Q, ...), in recorded order."""
        return self._back(found, self.query_order)

    def support_rows(self, found):
        """Rows of support videos, (W, K, ...), in recorded order."""
        return self._back(found.flatten(0, 1), self.support_order)

    @staticmethod
    def _back(found, order):
        back = torch.empty_like(found)
        back[order] = found
        return back


@pytest.fixture(scope="session")
def sorted_episode(recorded_episode):
    def make(name, dtype=torch.float32):
        return SortedEpisode(*recorded_episode(name, dtype))

    return make


# ----------------------------------------------------------------------------------------------------------- dropout


@pytest.fixture(scope="session")
def kept(golden_clip_fsar):
    """What each call of dropout keeps, in their order: a mask (`keep`), its `shape` and the `probability` to drop."""
    case, dropout = golden_clip_fsar["train_dropout"], golden_clip_fsar["meta"]["dropout"]
    found = []
    for name, mask in zip(case["order"], case["keep_masks"], strict=True):
        shape = torch.Size(mask["shape"])
        bits = torch.from_numpy(np.unpackbits(mask["bits"].numpy())).bool()
        probability = dropout["attention_out" if name.endswith("fn.to_out.1") else "ffn"]
        found.append(SimpleNamespace(keep=bits[: shape.numel()].view(shape), shape=shape, probability=probability))
    return found
