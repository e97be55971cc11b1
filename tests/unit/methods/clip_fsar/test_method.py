"""Training from episodes and from single videos; running statistics; optimiser groups; the share of a process."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from slowfast.datasets.label_set import LabelSet
from slowfast.engine.build import build_optimizer
from slowfast.methods.build import build_method
from slowfast.methods.clip_fsar.head import FsarHead
from slowfast.methods.clip_fsar.method import ClipFsar
from slowfast.models.clip.arch import PUBLISHED
from slowfast.models.clip.model import CLIP
from slowfast.models.losses import soft_cross_entropy
from slowfast.utils import distributed

OBJECTIVES = {
    "both": ({}, {"few_shot", "video_text"}),
    "few-shot": ({"USE_CLASSIFICATION": False}, {"few_shot"}),
    "names": ({"USE_CLASSIFICATION_ONLY": True, "HEAD": "otam"}, {"video_text"}),
}


def quiet(method):
    """Without dropout."""
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return method


# ------------------------------------------------------------------------------------------------------------- episodes


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("shot", [1, 2])
def test_episodes(make, make_episodes, tower_weights, objective, shot):
    keys, names = OBJECTIVES[objective]
    method = make(TRANSFORMER_DEPTH=2, **keys, **{"MODEL.CLIP_WEIGHTS": str(tower_weights)}).train()
    output = method(make_episodes(shot=shot))
    assert output.logits.shape == (12, 3)
    assert set(output.losses) == names
    assert all(term.shape == () and term.isfinite() for term in output.losses.values())
    assert output.log.keys() == {"scale"}
    assert output.log["scale"].item() == 1.0
    assert not output.log["scale"].requires_grad

    sum(output.losses.values()).backward()
    trainable = dict(method.trainable_parameters())
    assert [name for name, parameter in trainable.items() if parameter.grad is None] == []
    assert all(p.grad is None for name, p in method.named_parameters() if name not in trainable)
    without_a_gradient = {name for name, parameter in trainable.items() if not parameter.grad.any()}
    assert not any("context2" in name or name == "head.scale" for name in without_a_gradient)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_are_the_head_s(make, make_episodes, objective):
    keys, _ = OBJECTIVES[objective]
    method, batch = quiet(make(USE_CLASSIFICATION_VALUE=1.5, **keys)).train(), make_episodes(shot=2)
    output = method(batch)
    head, texts = method.head, method.texts
    support, query = (method.frame_features(part) for part in (batch.support, batch.query))
    with torch.no_grad():
        distances = head.distances(
            head.query_tokens(query.unflatten(0, (2, 6))),
            head.prototypes(support.unflatten(0, (2, 3, 2)), texts[batch.classes]),
        )
        assert torch.allclose(output.logits, -distances.flatten(0, 1), atol=1e-6)
        expected = {"few_shot": F.cross_entropy(-distances.flatten(0, 1), batch.target)}
        videos, labels = torch.cat((support, query)), torch.cat((batch.support.label, batch.query.label))
        expected["video_text"] = 1.5 * F.cross_entropy(head.video_text_logits(videos, texts), labels)
    for name, term in output.losses.items():
        assert torch.allclose(term, expected[name], atol=1e-5), name


def test_dropout_draws_for_queries_first(make, make_episodes):
    """Then for supports; three times each."""
    method, sizes = make().train(), []
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda _, args, out: sizes.append(tuple(args[0].shape)))
    method(make_episodes(query=3))
    width = 32
    passes = [[(rows, tokens, d) for d in (width, 2048, width)] for rows, tokens in ((18, 2), (6, 3))]
    assert sizes == passes[0] + passes[1]


def test_dropout_against_replayed_draws(make, make_episodes, oracle):
    """The plain head with the masks of the same generator state, in the same order."""
    method, batch = make().train(), make_episodes(classes=((4, 0, 2),))
    features = [method.frame_features(part).detach() for part in (batch.support, batch.query)]
    torch.manual_seed(11)
    logits, losses, _ = method(batch)
    torch.manual_seed(11)
    draws = []

    def drop(x, probability):
        draws.append(probability)
        return x * F.dropout(torch.ones_like(x), probability)

    plain = oracle.PlainClipFsar(dict(method.head.named_parameters()), drop=drop)
    episode = oracle.Episode(
        support=features[0], support_labels=torch.arange(3), query=features[1], query_labels=batch.target
    )
    few_shot, video_text = plain.losses(episode, batch.support.label, batch.query.label, method.texts)
    assert draws == [0.2, 0.05, 0.05] * 2
    assert torch.allclose(losses["few_shot"], few_shot, atol=1e-5)
    assert torch.allclose(losses["video_text"], video_text, atol=1e-5)
    assert not torch.allclose(logits, quiet(method)(batch).logits, atol=1e-3)


def test_half_precision(make, make_episodes):
    method, batch = quiet(make()).train(), make_episodes()
    logits = method(batch).logits.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch)
    sum(output.losses.values()).backward()
    assert all(term.dtype == torch.float32 for term in output.losses.values())
    assert (output.logits - logits).abs().max() < 0.1 * logits.abs().max()
    assert all(parameter.grad.isfinite().all() for _, parameter in method.trainable_parameters())


@pytest.mark.parametrize("combine", [False, True])
def test_a_test_scores_what_training_scored(make, make_episodes, combine):
    """The head of a test gives training's scores where its classes are those of training; it draws no dropout."""
    method, batch = make(COMBINE=combine), make_episodes(shot=2)
    head = method.eval().episode_head(LabelSet.from_names(["surfing", "pouring tea", "draw_sword", "Blow DryHair",
        "hurling (sport)", "Putting [something] on a surface"]))  # fmt: skip
    with torch.inference_mode():
        described = [head.describe(method.frame_features(part), part.label) for part in (batch.support, batch.query)]
        support = {name: rows.unflatten(0, (2, 3, 2)) for name, rows in described[0].items()}
        query = {name: rows.unflatten(0, (2, 6)) for name, rows in described[1].items()}
        found = head.score(support, query, batch.classes)
        assert torch.equal(found, head.score(support, query, batch.classes))
    expected = quiet(method.train())(batch).logits.view(2, 6, 3)
    if combine:
        assert found.shape == expected.shape
    else:
        assert torch.allclose(found, expected, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- batch norms


def test_running_statistics_are_of_supports_then_of_queries(make, make_episodes, resnet_weights):
    """Two batches a step: one tenth of the supports' statistics goes in, then one tenth of the queries'."""
    method, batch = make(**{"MODEL.CLIP_WEIGHTS": str(resnet_weights)}).train(), make_episodes()
    norm, weight = method.head.backbone.bn1, method.head.backbone.conv1.weight
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    method(batch)
    for part in (batch.support, batch.query):
        images = method.normalise(part.frames).transpose(1, 2).flatten(0, 1)
        found = F.conv2d(images, weight, stride=2, padding=1)
        mean = 0.9 * mean + 0.1 * found.mean((0, 2, 3))
        var = 0.9 * var + 0.1 * found.var((0, 2, 3), correction=1)
    assert torch.allclose(norm.running_mean, mean, atol=1e-6)
    assert torch.allclose(norm.running_var, var, rtol=1e-5)
    assert norm.num_batches_tracked == 2


def test_scores_of_queries_do_not_depend_on_supports_by_their_batch_norms(make, make_episodes, resnet_weights):
    method, batch = make(**{"MODEL.CLIP_WEIGHTS": str(resnet_weights)}).train(), make_episodes()
    other = make_episodes(seed=7).support
    seen = []
    method.head.context2.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for each in (batch, replace(batch, support=other)):
        method(each)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[1], seen[3])


# -------------------------------------------------------------------------------------------------------- single videos


def test_single_videos_are_compared_with_names(tiny_cfg, labels, make_clips):
    """Scale times the cosine of the mean of the frames, with 0.01 added to the product of the lengths."""
    method = build_method(tiny_cfg(METHOD="clip_fsar"), labels)
    with torch.no_grad():
        method.head.scale.fill_(1.25)
    batch = make_clips([3, 0, 5])
    found = method.eval()(batch).logits
    videos, texts = method.frame_features(batch).mean(dim=1), method.texts
    for row, video in enumerate(videos):
        for column, text in enumerate(texts):
            expected = 1.25 * (video @ text) / (video.norm() * text.norm() + 0.01)
            assert torch.allclose(found[row, column], expected, atol=1e-5)
    output = method.train()(batch)
    assert torch.allclose(output.losses["video_text"], F.cross_entropy(found, batch.label), atol=1e-5)
    weights = torch.rand(3, 6).softmax(dim=1)
    soft = build_method(tiny_cfg(METHOD="clip_fsar", **{"MODEL.LOSS_FUNC": "soft_cross_entropy"}), labels).train()
    output = soft(replace(batch, weights=weights))
    assert torch.allclose(output.losses["video_text"], soft_cross_entropy(output.logits, weights))


# ------------------------------------------------------------------------------------------------------------ optimiser

GROUPS = {"rn50": ((104, 47_616), 82, 46_711_649), "vitb16": ((2, 1024), 162, 89_342_465)}


class NoText:
    """In the place of the text tower."""


@pytest.mark.parametrize("arch", GROUPS)
def test_groups_of_the_optimiser(fsar_cfg, arch):
    """As published: names with "bn" or "norm" are not decayed, all else is, the norms of a ViT among it."""
    (num_free, elements), num_decayed, total = GROUPS[arch]
    cfg = fsar_cfg(**{"SOLVER.OPTIMIZING_METHOD": "adam", "SOLVER.WEIGHT_DECAY": 1e-3})
    sizes = PUBLISHED[arch].sizes
    with torch.device("meta"):
        head = FsarHead(CLIP(sizes).visual, width=sizes.embed_dim, options=_options(cfg))
    method = ClipFsar(head, text=NoText(), loss=F.cross_entropy, pixel_mean=[0.5] * 3, pixel_std=[0.5] * 3)
    groups = build_optimizer(cfg, method).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.0, num_free), (1e-3, num_decayed)]
    assert [sum(p.numel() for p in group["params"]) for group in groups] == [elements, total - elements]
    free, decayed = (group["names"] for group in groups)
    assert all("bn" in name or "norm" in name for name in free)
    assert not any("bn" in name or "norm" in name for name in decayed)
    assert "head.scale" in decayed
    assert set(method.undecayed_names) == set(free)
    kept = {"rn50": "head.backbone.layer1.0.downsample.1.weight", "vitb16": "head.backbone.ln_pre.weight"}[arch]
    assert kept in decayed


def _options(cfg):
    from slowfast.methods.clip_fsar.build import head_options
    from slowfast.methods.clip_fsar.config import ClipFsarConfig

    return head_options(ClipFsarConfig.from_cfg(cfg))


# -------------------------------------------------------------------------------------------------------- two processes


def step_of(method, batch):
    """Scores and gradients of a step, which draws dropout."""
    torch.manual_seed(21)
    method.train().zero_grad()
    output = method(batch)
    sum(output.losses.values()).backward()
    return output.logits.detach(), {name: p.grad.clone() for name, p in method.trainable_parameters()}


def test_dropout_on_two_processes_is_that_of_one(make, make_episodes, monkeypatch):
    """Each draws its share of the numbers that one process would draw; their gradients are averaged."""
    method, batch = make(), make_episodes(shot=2)
    logits, gradients = step_of(method, batch)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    parts = []
    for rank, part in enumerate(batch.split(2)):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        parts.append(step_of(method, part))
    assert torch.allclose(torch.cat([found for found, _ in parts]), logits, atol=1e-5)
    for name, gradient in gradients.items():
        found = torch.stack([own[name] for _, own in parts]).mean(dim=0)
        assert torch.allclose(found, gradient, rtol=1e-4, atol=1e-6), name
