"""Logits, losses and gradients of the whole method."""

import pytest
import torch
from torch.nn import functional as F

from slowfast.datasets.label_set import LabelSet
from slowfast.methods.tc_clip.build import text_bank
from slowfast.methods.tc_clip.config import TcClipConfig

PRECISIONS = {"fp32": (torch.float32, ""), "fp64": (torch.float64, "64")}


@pytest.fixture(params=PRECISIONS)
def precision(request):
    """A dtype, and what entries of the file that belong to it end in."""
    return PRECISIONS[request.param]


@pytest.fixture
def near_logits(near):
    return lambda found, expected, exact: near(found, expected, exact=exact, relative=2e-5, absolute=0)


def train(method, batch):
    method.train().zero_grad()
    output = method(batch)
    output.losses["classification"].backward()
    return output.logits, output.losses["classification"]


@pytest.mark.parametrize("way", ["auto", "parts", "joined"])
@pytest.mark.parametrize("loss", ["cross_entropy", "soft_cross_entropy"])
def test_base(golden_tc_clip, build_tc, tc_batch, precision, near, near_logits, check_gradients, way, loss):
    dtype, end = precision
    base, exact = golden_tc_clip["base"], bool(end)
    method = build_tc("", dtype, **{"TC_CLIP.CONTEXT_ATTENTION": way, "MODEL.LOSS_FUNC": loss})
    with torch.no_grad():
        near_logits(method.eval()(tc_batch()).logits, base[f"eval{end}"]["logits"], exact)
    expected = base[f"train{end}"]
    logits, value = train(method, tc_batch())
    near_logits(logits, expected["logits"], exact)
    near(value, expected["loss"], exact=exact, absolute=0)
    assert expected["grad_none"] == []
    check_gradients(method, expected["grad_norms"], dtype)


def test_whole_gradients(golden_tc_clip, build_tc, tc_batch, precision, near, official):
    dtype, _ = precision
    recorded = golden_tc_clip["base"]["train"]["grad_full"]
    method = build_tc("", dtype)
    train(method, tc_batch())
    own = dict(method.named_parameters())
    assert recorded
    for name, expected in recorded.items():
        ours, part = official.own_name(name)
        near(official.pick(own[ours].grad, part), expected)


def test_losses(golden_tc_clip, build_tc, tc_batch, precision, near):
    dtype, _ = precision
    base, inputs = golden_tc_clip["base"], golden_tc_clip["inputs"]
    method = build_tc("", dtype).train()
    with torch.no_grad():
        output = method(tc_batch(weights=None))
    near(output.losses["classification"], base["loss_hard_labels"], absolute=0)
    smoothing, classes = golden_tc_clip["meta"]["label_smoothing"], output.logits.shape[-1]
    smoothed = F.one_hot(inputs["labels"], classes) * (1 - smoothing) + smoothing / classes
    near(smoothed, inputs["soft_targets"], absolute=1e-6)
    loss = method.loss(output.logits, smoothed.to(dtype))
    near(loss, base["loss_label_smoothing"], absolute=0)
    near(loss, F.cross_entropy(output.logits, inputs["labels"], label_smoothing=smoothing), absolute=1e-6)


def test_mixed_videos(golden_tc_clip, build_tc, tc_batch, precision, near, near_logits, check_gradients):
    dtype, end = precision
    case, video = golden_tc_clip["mixup"], golden_tc_clip["inputs"]["video"].float()  # mixed in fp32
    mixed = case["lambda"] * video + (1 - case["lambda"]) * video[case["permutation"]]
    method = build_tc("", dtype)
    batch = tc_batch(frames=mixed, weights=case["soft_targets"])
    for seeds, expected in zip(method.model.visual.trace(batch.frames.to(dtype)), case["seed_index"], strict=True):
        assert torch.equal(seeds.patches, expected.long())
    logits, loss = train(method, batch)
    near_logits(logits, case[f"logits{end}"], bool(end))
    near(loss, case["loss"], absolute=0)
    check_gradients(method, case["grad_norms"], torch.float32)  # the only precision of the recording


def test_variants(golden_tc_clip, tc_variant, build_tc, tc_batch, precision, near, near_logits, check_gradients):
    dtype, end = precision
    case = golden_tc_clip["variants"][tc_variant]
    method = build_tc(tc_variant, dtype)
    with torch.no_grad():
        near_logits(method.eval()(tc_batch()).logits, case[f"logits{end}"], bool(end))
    logits, loss = train(method, tc_batch())
    near_logits(logits, case[f"logits{end}"], bool(end))
    near(loss, case[f"loss{end}"], exact=bool(end), absolute=0)
    assert case["grad_none"] == []
    check_gradients(method, case[f"grad_norms{end}"], dtype)


def test_other_classes_for_the_same_method(golden_tc_clip, make_cfg, build_tc, tc_batch, precision, near_logits):
    dtype, _ = precision
    case, labels = golden_tc_clip["rebuilt_classes"], LabelSet.from_names(golden_tc_clip["text"]["classes2"])
    method, batch = build_tc("", dtype).eval(), tc_batch(weights=None)
    first = golden_tc_clip["base"]["eval"]["logits"]
    bank = text_bank(TcClipConfig.from_cfg(make_cfg()), labels)
    assert torch.equal(bank.tokens[:, 0, : case["tokens"].shape[1]], case["tokens"].long())
    assert not bank.tokens[:, 0, case["tokens"].shape[1] :].any()
    with torch.no_grad():
        near_logits(method(batch).logits, first, False)
        method.set_label_set(labels, bank)
        near_logits(method(batch).logits, case["logits"], False)
