"""The head against the one that is written straightforwardly, see tests/oracles: equal scores, losses, gradients."""

import itertools

import pytest
import torch

from slowfast.methods.clip_fsar.head import FsarEpisodes
from slowfast.models.episode_heads import EpisodeHead

FLAGS = (False, True)
COMPARED = [
    {"merge_before": merge, "single_direct": single, "depth": depth, "shot": shot}
    for merge, single, depth, shot in itertools.product(FLAGS, FLAGS, (1, 2), (1, 2))
]
OBJECTIVES = {
    "both": {"use_classification": True, "classification_value": 1.5},
    "few_shot": {"use_classification": False},
    "video_text": {"classification_only": True, "classification_value": 0.7},
    "video_text, alone": {"use_classification": False, "classification_only": True},
}
MODES = {
    "alignments": {},
    "names": {"eval_text": True},
    "both": {"combine": True},
    "both, equal": {"combine": True, "text_coff": 0.5},
    "both, names count nothing": {"combine": True, "text_coff": 0.0},
    "both, names count alone": {"combine": True, "text_coff": 1.0},
    "names before both": {"eval_text": True, "combine": True},
}


def ids(options):
    return ", ".join(f"{name} {value}" for name, value in options.items())


def near(found, expected, tolerance=1e-10):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


def centred(scores):
    """Scores of a query up to a constant, which decides nothing."""
    return scores - scores.mean(dim=-1, keepdim=True)


@pytest.mark.parametrize("compared", COMPARED, ids=ids)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_and_gradients(make_head, make_plain, make_features, compared, objective):
    shot = compared["shot"]
    options = {name: value for name, value in compared.items() if name != "shot"}
    head = make_head(**options, **OBJECTIVES[objective])
    features = make_features(episodes=2, shot=shot)
    logits, terms = head.losses(features.support, features.query, features.classes, features.texts)
    plain, expected, rows = make_plain(head), [], []
    for number in range(len(features)):
        episode, support_rows, query_rows, order = features.plain(number)
        rows.append((-plain.distances(episode, features.texts[support_rows]), order))
        expected.append(plain.losses(episode, support_rows, query_rows, features.texts))
    for found, (row, order) in zip(logits, rows, strict=True):
        near(found[order], row)
    few_shot, video_text = (torch.stack(term).mean() for term in zip(*expected, strict=True))
    wanted = {"few_shot": few_shot, "video_text": head.options.classification_value * video_text}
    if head.options.classification_only:
        del wanted["few_shot"]
    elif not head.options.use_classification:
        del wanted["video_text"]
    assert terms.keys() == wanted.keys()
    for name, term in terms.items():
        near(term, wanted[name])

    leaves = {**dict(head.named_parameters()), "support": features.support, "query": features.query}
    leaves["texts"] = features.texts
    found, plainly = (
        torch.autograd.grad(sum(losses.values()), list(leaves.values()), allow_unused=True)
        for losses in (terms, wanted)
    )
    for name, gradient, other in zip(leaves, found, plainly, strict=True):
        if gradient is None or other is None:
            assert all(missing is None or not missing.any() for missing in (gradient, other)), name
        else:
            near(gradient, other, 1e-9)


@pytest.mark.parametrize("compared", COMPARED, ids=ids)
@pytest.mark.parametrize("mode", MODES)
def test_scores(make_head, make_plain, make_features, compared, mode):
    shot = compared["shot"]
    options = {name: value for name, value in compared.items() if name != "shot"}
    head = make_head(**options, **MODES[mode]).eval()
    # T = 8: the published visual probabilities divide by eight, ours by the number of frames.
    features = make_features(episodes=2, shot=shot, num_frames=8)
    plain = make_plain(head)
    with torch.no_grad():
        found = head.episode_logits(features.support, features.query, features.texts[features.classes])
        for number in range(len(features)):
            episode, support_rows, _, order = features.plain(number)
            texts = features.texts[support_rows]
            if head.options.eval_text:
                expected = plain.text_probabilities(episode, texts).log()
            elif head.options.combine:
                expected = plain.combined(episode, texts, head.options.text_coff).log()
            else:
                expected = -plain.distances(episode, texts)
            near(found[number][order], expected)
            assert torch.equal(found[number][order].argmax(dim=1), expected.argmax(dim=1))


@pytest.mark.parametrize("merge", FLAGS)
@pytest.mark.parametrize("shot", [1, 2])
def test_episodes_do_not_see_each_other(make_head, make_features, merge, shot):
    head = make_head(merge_before=merge, combine=True).eval()
    features = make_features(episodes=3, shot=shot)
    texts = features.texts[features.classes]
    with torch.no_grad():
        together = head.episode_logits(features.support, features.query, texts)
        for number in range(3):
            own = slice(number, number + 1)
            near(together[own], head.episode_logits(features.support[own], features.query[own], texts[own]), 1e-12)
        logits, terms = head.losses(features.support, features.query, features.classes, features.texts)
        alone = [
            head.losses(features.support[i : i + 1], features.query[i : i + 1], features.classes[i : i + 1],
                        features.texts)
            for i in range(3)
        ]  # fmt: skip
    near(logits, torch.cat([scores for scores, _ in alone]), 1e-12)
    for name, term in terms.items():
        near(term, torch.stack([losses[name] for _, losses in alone]).mean(), 1e-12)


def test_gradients_by_differences(make_head, make_features):
    """Of the whole loss, with respect to features and names, and to the scale and a norm of the transformer."""
    head = make_head(single_direct=False)
    features = make_features(shot=2, way=2, query=1, num_frames=2)
    norm = head.context2.layers[0][0].norm.weight

    def loss(support, query, texts, scale, weight):
        del scale, weight  # parameters of the head: gradcheck moves them in place
        return sum(head.losses(support, query, features.classes, texts)[1].values())

    inputs = (features.support, features.query, features.texts, head.scale, norm)
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_the_score_of_a_class_follows_its_place(make_head, make_features):
    head, features = make_head(combine=True).eval(), make_features(way=3)
    texts, order = features.texts[features.classes], torch.tensor([2, 0, 1])
    with torch.no_grad():
        found = head.episode_logits(features.support, features.query, texts)
        moved = head.episode_logits(features.support[:, order], features.query, texts[:, order])
    near(moved, found[..., order], 1e-12)


def test_tokens_of_supports_read_the_name_and_do_not_give_it_back(make_head, make_features):
    head, features = make_head().eval(), make_features(shot=2)
    texts = features.texts[features.classes][:, :, None].expand(-1, -1, 2, -1)
    with torch.no_grad():
        found, other = (head.support_tokens(features.support, names) for names in (texts, texts.flip(-1)))
    assert found.shape == features.support.shape
    assert (found - other).abs().max() > 1e-3


def test_probabilities_of_names_add_up_to_one(make_head, make_features):
    head, features = make_head(eval_text=True).eval(), make_features()
    found = head.episode_logits(features.support, features.query, features.texts[features.classes])
    near(found.exp().sum(dim=-1), torch.ones(1, 6, dtype=torch.float64), 1e-12)


def test_a_coefficient_of_nought_and_of_one(make_head, make_features):
    """It leaves one of the two probabilities out; the published code takes nought for none given."""
    features = make_features()
    texts = features.texts[features.classes]

    def score(**options):
        with torch.no_grad():
            return make_head(**options).eval().episode_logits(features.support, features.query, texts)

    near(centred(score(combine=True, text_coff=0.0)), centred(score()) / features.query.shape[2], 1e-12)
    near(score(combine=True, text_coff=1.0), score(eval_text=True), 1e-12)


# -------------------------------------------------------------------------------------------------------- in two steps


@pytest.mark.parametrize("merge", FLAGS)
@pytest.mark.parametrize("shot", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_in_two_steps(make_head, make_features, merge, shot, mode):
    """What depends on one video alone, then the rest: the scores of the whole computation."""
    head = make_head(merge_before=merge, **MODES[mode]).eval()
    features = make_features(episodes=2, shot=shot, num_classes=4)
    texts = features.texts.detach()
    with torch.inference_mode():
        expected = head.episode_logits(features.support, features.query, texts[features.classes])
        episodes = FsarEpisodes(head, texts)
        assert isinstance(episodes, EpisodeHead)
        support = describe(episodes, features.support, features.classes)
        # What a query is described with, its true class, is no part of its score.
        queries = [describe(episodes, features.query, torch.full((2, 6), label)) for label in (0, 3)]
        found = [episodes.score(support, query, features.classes) for query in queries]
    near(found[0], expected, 1e-12)
    assert torch.equal(found[0], found[1])


def describe(episodes, features, label):
    """Describe videos one by one, (..., T, D) and classes (E, N) or labels (E, Q) -> name -> (..., ...)."""
    shape = features.shape[:-2]
    labels = label[..., None].expand(shape) if len(shape) == 3 else label
    rows = [
        episodes.describe(video[None], number[None])
        for video, number in zip(features.flatten(0, -3), labels.flatten(), strict=True)
    ]
    return {name: torch.cat([row[name] for row in rows]).unflatten(0, shape) for name in rows[0]}


def test_what_is_kept_of_a_video(make_head, make_features):
    """Names alone need the mean; averages of supports need the frames as they come; nothing else is kept."""
    features, label = make_features().query[0], torch.zeros(6, dtype=torch.long)
    texts = torch.randn(5, features.shape[-1], dtype=torch.float64)
    kept = {
        name: sorted(FsarEpisodes(make_head(**options).eval(), texts).describe(features, label))
        for name, options in {"plain": {}, "merged": {"merge_before": True}, "names": {"eval_text": True}}.items()
    }
    assert kept == {
        "plain": ["query", "support", "video"],
        "merged": ["features", "query", "support", "video"],
        "names": ["video"],
    }
