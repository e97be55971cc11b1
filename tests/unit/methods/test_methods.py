"""What every method promises to the engine."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slowfast.config.defaults import get_cfg
from slowfast.config.node import CfgNode
from slowfast.datasets.label_set import LabelSet
from slowfast.engine.build import build_episode_head
from slowfast.methods import METHODS
from slowfast.methods.base import Method, MethodOutput
from slowfast.methods.build import build_method
from slowfast.methods.explanation import Explanation
from slowfast.models.episode_heads import EpisodeHead, OtamHead, PrototypeHead

# What brings all parts of a method into play with the tiny CLIP.
IN_FULL = {
    "stdd": {"MODEL.KEEP_RAW_MODEL": True, "MODEL.RAW_MODEL_DISTILLATION": True},
    "tc_clip": {"TC_CLIP.CONTEXT_TOKEN_K": 5, "TC_CLIP.TOME_R": 4, "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL": [-2, -1]},
    "ost": {},
    "vifi_clip": {
        "VIFI_CLIP.N_CTX_VISION": 3,
        "VIFI_CLIP.PROMPT_DEPTH_VISION": 2,
        "VIFI_CLIP.N_CTX_TEXT": 4,
        "VIFI_CLIP.PROMPT_DEPTH_TEXT": 2,
    },
    "clip_fsar": {},
}


@pytest.fixture(params=METHODS)
def build(request, tiny_cfg, tiny_labels):
    def make(**keys):
        return build_method(tiny_cfg(METHOD=request.param, **{**IN_FULL[request.param], **keys}), tiny_labels)

    return make


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_one_return_type(build, make_batch, train):
    method = build().train(train)
    assert isinstance(method, Method)
    output = method(make_batch(num_videos=3))
    assert type(output) is MethodOutput
    assert output.logits.shape == (3, 3)
    assert output.logits.dtype == torch.float32
    assert bool(output.losses) is train
    for value in output.losses.values():
        assert value.ndim == 0
        assert torch.isfinite(value)
    for value in output.log.values():
        assert value.ndim == 0
        assert not value.requires_grad


def test_every_loss_term_reaches_a_parameter(build, make_batch):
    method = build().train()
    output = method(make_batch())
    parameters = [parameter for _, parameter in method.trainable_parameters()]
    for name, loss in output.losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.any() for g in gradients), name


def test_every_trainable_parameter_gets_a_gradient(build, make_batch):
    """Otherwise DistributedDataParallel would have to search for unused parameters in each step."""
    method = build().train()
    sum(method(make_batch()).losses.values()).backward()
    assert [name for name, parameter in method.trainable_parameters() if parameter.grad is None] == []


def test_frozen_parameters_get_none(build, make_batch):
    method = build().train()
    sum(method(make_batch()).losses.values()).backward()
    trainable = {name for name, _ in method.trainable_parameters()}
    assert all(p.grad is None for name, p in method.named_parameters() if name not in trainable)


def test_evaluation_is_deterministic_and_sees_each_video_alone(build, make_batch):
    method, batch = build().eval(), make_batch(num_videos=3)
    last = replace(
        batch, frames=batch.frames[2:], label=batch.label[2:], video_id=batch.video_id[2:], view=batch.view[2:]
    )
    with torch.no_grad():
        logits = method(batch).logits
        assert torch.equal(method(batch).logits, logits)
        assert torch.allclose(method(last).logits[0], logits[2], atol=1e-5)


def one_of(batch, number):
    """A batch of one of its videos."""
    own = slice(number, number + 1)
    rows = {name: getattr(batch, name)[own] for name in ("frames", "label", "video_id", "view")}
    return replace(batch, **rows)


def test_frame_features(build, make_batch):
    """One embedding per frame in the joint space, not of unit length; other videos do not count."""
    method, batch = build().eval(), make_batch(num_videos=3)
    with torch.no_grad():
        features = method.frame_features(batch)
        assert features.shape == (3, 4, 32)
        assert torch.equal(method.frame_features(batch), features)
        for number in range(3):
            assert torch.allclose(method.frame_features(one_of(batch, number))[0], features[number], atol=1e-5)
    assert not torch.allclose(features.norm(dim=-1), torch.ones(3, 4), atol=1e-2)


def scores_from(method, features, batch):
    """Scores of a method as its paper makes them of frame embeddings, written with loops over classes."""
    frames, mean = F.normalize(features, dim=-1), F.normalize(features.mean(dim=1), dim=-1)
    kind = type(method).__name__
    if kind == "ClipFsar":
        return method.head.video_text_logits(features, method.texts)
    scale = method.model.logit_scale.exp()
    if kind == "STDD":
        return scale * torch.stack([(frames @ text).mean(dim=1) for text in method.text(method.model).features], dim=1)
    if kind == "ViFiCLIP":
        return scale * torch.stack([mean @ text for text in method.text(method.model)], dim=1)
    if kind == "TCCLIP":
        context = method.model.run_visual(method.normalise(batch.frames)).context
        texts = method.text(method.model, context).expand(len(mean), -1, -1)
        return scale * torch.stack([(mean * texts[:, number]).sum(dim=-1) for number in range(3)], dim=1)
    raise AssertionError(kind)


def test_scores_are_made_of_frame_features(build, make_batch):
    method, batch = build().eval(), make_batch(num_videos=3)
    with torch.no_grad():
        features = method.frame_features(batch)
        expected = method(batch).logits
        if type(method).__name__ == "OST":  # a transport plan: given the features, it needs the frames no more
            method.model.encode_video = lambda frames: features
            found = method(replace(batch, frames=torch.zeros_like(batch.frames))).logits
        else:
            found = scores_from(method, features, batch)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_frame_features_of_a_temporal_block(tiny_cfg, tiny_labels, make_batch):
    """A frame's depend on the other frames of its video, and on no other video."""
    keys = {"MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend", "MODEL.TEMPORAL_SCALE": [1, 2]}
    method, batch = build_method(tiny_cfg(**keys), tiny_labels).eval(), make_batch(num_videos=3)
    changed = batch.frames.clone()
    changed[1, :, 3] = 0
    with torch.no_grad():
        features, found = method.frame_features(batch), method.frame_features(replace(batch, frames=changed))
        texts = method.text(method.model).features
        logits = method.model.logit_scale.exp() * (F.normalize(features, dim=-1) @ texts.T).mean(dim=1)
        assert torch.allclose(method(batch).logits, logits, rtol=1e-5, atol=1e-4)
    assert features.shape == (3, 4, 32)
    assert torch.allclose(found[[0, 2]], features[[0, 2]], atol=1e-5)
    assert not torch.allclose(found[1, 2], features[1, 2], atol=1e-5)


def test_who_learns_from_episodes(tiny_cfg, tiny_labels):
    for name in METHODS:
        keys = {"METHOD": name, "PROTOCOL": "episodic", "SPLITS.DATASET": "hmdb51"}
        learner = build_method(tiny_cfg(**keys, **{"EPISODES.HEAD": "otam"}), tiny_labels)
        if learner.learns_from_episodes:
            assert name == "clip_fsar"
            build_method(tiny_cfg(**keys, **{"EPISODES.TRAIN": True}), tiny_labels)
            continue
        message = rf"^EPISODES\.TRAIN: True, but METHOD '{name}' learns from videos one by one; allowed: False$"
        with pytest.raises(ValueError, match=message):
            build_method(tiny_cfg(**keys, **{"EPISODES.TRAIN": True}), tiny_labels)
        assert build_method(tiny_cfg(**keys, **{"EPISODES.TRAIN": True}), tiny_labels, training=False) is not None


def test_who_compares_episodes_by_itself(tiny_cfg, tiny_labels):
    for name in METHODS:
        keys = {"METHOD": name, "PROTOCOL": "episodic", "SPLITS.DATASET": "hmdb51"}
        for head, expected in (("prototype", PrototypeHead), ("otam", OtamHead)):
            cfg = tiny_cfg(**keys, **{"EPISODES.HEAD": head})
            method = build_method(cfg, tiny_labels, training=False)
            assert type(build_episode_head(cfg, method, tiny_labels)) is expected
        cfg = tiny_cfg(**keys)
        method = build_method(cfg, tiny_labels, training=False)
        if name == "clip_fsar":
            assert isinstance(build_episode_head(cfg, method, tiny_labels), EpisodeHead)
            continue
        kind = type(method).__name__
        message = rf"^EPISODES\.HEAD: 'own', but {kind} has none of its own; allowed: prototype, otam$"
        with pytest.raises(ValueError, match=message):
            build_episode_head(cfg, method, tiny_labels)


def test_the_score_of_a_class_does_not_depend_on_the_others(tiny_cfg, make_batch):
    names = ["surfing", "pouring tea", "climbing stairs", "archery"]
    for method in METHODS:
        cfg = tiny_cfg(METHOD=method)
        with torch.no_grad():
            full = build_method(cfg, LabelSet.from_names(names)).eval()(make_batch()).logits
            part = build_method(cfg, LabelSet.from_names([names[3], names[1]])).eval()(make_batch()).logits
        assert torch.allclose(full[:, [3, 1]], part, rtol=1e-6, atol=1e-5)


def test_checkpoint_restores_the_method(build, make_batch):
    trained, fresh = build(), build()
    with torch.no_grad():
        for _, parameter in trained.trainable_parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    state = trained.checkpoint_state()
    result = fresh.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(name.startswith(trained.transient_prefixes) for name in result.missing_keys)
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(fresh.eval()(batch).logits, trained.eval()(batch).logits)


def test_checkpoint_has_no_transient_entries(build):
    method = build()
    left_out = set(method.state_dict()) - set(method.checkpoint_state())
    assert left_out == {name for name in method.state_dict() if name.startswith(method.transient_prefixes)}


def test_pixels_may_be_bytes_or_floats(build, make_batch):
    method = build().eval()
    batch = make_batch()
    with torch.no_grad():
        floats = method(replace(batch, frames=batch.frames.float())).logits
        assert torch.equal(floats, method(batch).logits)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_every_method_explains_each_clip(build, make_batch, tiny_sizes, train):
    method, batch, size = build().train(train), make_batch(num_videos=3), tiny_sizes.grid_size
    explanations = method.explain(batch)
    assert method.training is train
    assert [type(explanation) for explanation in explanations] == [Explanation] * 3
    for explanation in explanations:
        for view in explanation.patches:
            assert 1 <= view.layer <= tiny_sizes.vision_layers
            assert view.attention.shape == (4, size, size)
            assert view.attention.device.type == "cpu"
            assert not view.attention.requires_grad
            assert view.attention.min() >= 0
            assert view.attention.sum(dim=(1, 2)).max() <= 1 + 1e-5
            assert view.what or not view.chosen.any()
            if view.group is not None:
                assert view.group.min() >= -1
                assert not (view.group[~view.chosen] >= 0).any()
        assert explanation.patches or explanation.matches
        for match in explanation.matches:
            assert match.plan.shape[0] == 4
            for tensor in (match.plan, match.cosines):
                assert tensor.device.type == "cpu"
                assert not tensor.requires_grad
            assert match.cosines.abs().max() <= 1 + 1e-5


def test_explanation_of_a_clip_does_not_depend_on_the_others(build, make_batch):
    method, batch = build(), make_batch(num_videos=3)
    last = replace(
        batch, frames=batch.frames[2:], label=batch.label[2:], video_id=batch.video_id[2:], view=batch.view[2:]
    )
    (alone,), (*_, beside) = method.explain(last), method.explain(batch)
    assert len(alone.patches) == len(beside.patches)
    for one, other in zip(alone.patches, beside.patches, strict=True):
        assert (one.layer, one.what) == (other.layer, other.what)
        assert torch.allclose(one.attention, other.attention, atol=1e-5)
        assert torch.equal(one.chosen, other.chosen)
    assert len(alone.matches) == len(beside.matches)
    for match, same in zip(alone.matches, beside.matches, strict=True):
        assert (match.kind, match.class_name, match.texts) == (same.kind, same.class_name, same.texts)
        assert torch.allclose(match.plan, same.plan, atol=1e-5)
        assert torch.allclose(match.cosines, same.cosines, atol=1e-5)


def test_explaining_leaves_no_trace(build, make_batch):
    method, batch = build().eval(), make_batch()
    with torch.no_grad():
        before = method(batch).logits
        state = torch.get_rng_state()
        method.explain(batch)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(method(batch).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in method.modules())
    assert all(parameter.grad is None for parameter in method.parameters())
    sum(method.train()(batch).losses.values()).backward()


def test_configuration_is_not_kept(build):
    """Configuration stops at the door."""
    for module in build().modules():
        assert not any(isinstance(value, CfgNode) for value in vars(module).values())


def test_default_method_is_in_the_table():
    assert get_cfg().METHOD in METHODS


def test_unknown_method(tiny_cfg, tiny_labels):
    with pytest.raises(ValueError, match=r"^METHOD: unknown value 'std'; did you mean 'stdd'\? allowed: \["):
        build_method(tiny_cfg(METHOD="std"), tiny_labels)


class Pixels(Method):
    """The smallest method: returns what it sees."""

    def set_label_set(self, label_set, bank):
        pass

    def training_forward(self, batch):
        return MethodOutput(self.normalise(batch.frames), {"a": torch.zeros(())}, {})

    def eval_forward(self, batch):
        return MethodOutput(self.normalise(batch.frames), {}, {})

    def frame_features(self, batch):
        return self.normalise(batch.frames).mean(dim=(3, 4)).transpose(1, 2)


def test_normalisation_against_a_loop(make_batch):
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    batch = make_batch()
    found = Pixels(pixel_mean=mean, pixel_std=std)(batch).logits
    for channel in range(3):
        expected = (batch.frames[:, channel].double() / 255 - mean[channel]) / std[channel]
        assert torch.allclose(found[:, channel].double(), expected, atol=1e-6)


def test_forward_dispatches_on_the_mode(make_batch):
    method = Pixels(pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)
    assert list(method.train()(make_batch()).losses) == ["a"]
    assert method.eval()(make_batch()).losses == {}
    assert isinstance(method, nn.Module)
    assert method.state_dict() == {}


def test_a_method_without_an_explanation_says_so(make_batch):
    with pytest.raises(ValueError, match=r"^METHOD: Pixels has nothing to explain; allowed: "):
        Pixels(pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3).explain(make_batch())
