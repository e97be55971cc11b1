"""Scores of the whole method over all classes, and every stage on the way."""

import pytest
import torch

from slowfast.engine.average import patch_state
from slowfast.methods.ost.scores import descriptor_logits, make_matcher
from slowfast.models.alignment import sinkhorn
from slowfast.models.similarity import unit_norm


@pytest.fixture
def scored(golden_ost, build_ost, precision):
    return build_ost(precision.dtype).eval(), golden_ost["inference"][precision.name]


def test_features(scored, ost_batch, official, precision, near):
    method, recorded = scored
    with torch.no_grad():
        frames = unit_norm(method.model.encode_video(method.normalise(ost_batch.frames)))
        texts = method.text.all(method.model)
    near(frames, recorded["frame_features"], relative=precision.values)
    assert len(texts) == len(official.kinds)
    for kind, features in zip(official.kinds, texts, strict=True):
        near(features, recorded[f"{kind}_features"], relative=precision.values)


def test_stages(scored, ost_batch, official, precision, sinkhorn_options, near):
    method, recorded = scored
    with torch.no_grad():
        cosines, scale = method._cosines(ost_batch), method.model.logit_scale.exp()
        plans, iterations, _ = sinkhorn(cosines, sinkhorn_options())
        for place, kind in enumerate(official.kinds):
            expected, own = recorded[kind], cosines[place : place + 1]
            near(own[0], expected["cos"], relative=precision.values)
            near(plans[place], expected["plan"], relative=precision.values)
            assert set(iterations[place].flatten().tolist()) == {expected["iterations"]}
            pool = descriptor_logits(own, scale, make_matcher("none", sinkhorn_options()))
            both = descriptor_logits(own, scale, make_matcher("sinkhorn", sinkhorn_options()))
            near(pool, expected["pool"], relative=precision.values, absolute=precision.values)
            near(both - pool, expected["ot"], relative=precision.values, absolute=precision.values)


def test_logits(scored, ost_batch, precision, near):
    method, recorded = scored
    with torch.no_grad():
        logits = method(ost_batch).logits
    near(logits, recorded["logits"], relative=precision.values)
    near(logits.softmax(dim=1), recorded["softmax"], absolute=10 * precision.values)


def test_default_rule_of_stopping(golden_ost, build_ost, ost_batch, precision, near):
    with torch.no_grad():
        logits = build_ost(precision.dtype, **{"OST.STOP": "each"}).eval()(ost_batch).logits
    near(logits, golden_ost["inference"][precision.name]["logits"], absolute=1e-3)


def test_shown_plans_are_those_of_the_best_class(scored, ost_batch, official, precision, near):
    method, recorded = scored
    for number, explanation in enumerate(method.explain(ost_batch)):
        best = int(recorded["logits"][number].argmax())
        assert [view.kind for view in explanation.matches] == list(official.kinds)
        for view in explanation.matches:
            assert view.class_name == method.text.names[best]
            # Fewer problems share the decision to stop, which comes sooner or later.
            near(view.plan, recorded[view.kind]["plan"][number, best], relative=2e-3)
            near(view.cosines, recorded[view.kind]["cos"][number, best], absolute=2e-5)


def test_weights_mixed_with_those_of_clip(golden_ost, build_ost, ost_batch, official, dense, near):
    recorded, clip = golden_ost["weight_mixing"], dense(golden_ost["clip_sd"])
    method = build_ost().eval()
    factors = {official.own_name(name): factor for name, factor in recorded["tuned_factor"].items()}
    assert set(factors) == {f"model.{name}" for name in clip}
    tuned = {name: value * factors[name] for name, value in method.checkpoint_state().items()}
    with torch.no_grad():
        for state, name in (
            (tuned, "logits_tuned"),
            (patch_state(clip, tuned, ratio=recorded["weight_for_original"]), "logits_mixed"),
        ):
            method.load_state_dict(state)
            near(method(ost_batch).logits, recorded[name], relative=2e-5)
    near(method.model.logit_scale, recorded["logit_scale_mixed"], relative=1e-6)
