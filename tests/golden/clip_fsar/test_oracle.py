"""The plain head that other tests and the benchmarks compare with: it computes all that is recorded."""

import pytest
import torch


@pytest.fixture
def build(golden_clip_fsar, oracle, recorded_weights, depth_of):
    """Builds the plain head of a case, its weights with gradients, and returns both."""
    meta = golden_clip_fsar["meta"]

    def make(case, dtype, **options):
        weights = {name: value.requires_grad_() for name, value in recorded_weights(depth_of(case), dtype).items()}
        head = oracle.PlainClipFsar(
            weights,
            num_heads=meta["dims"]["heads"],
            smoothing=meta["lambda"],
            merge_before=case["overrides"].get("MERGE_BEFORE", False),
            single_direct=case["overrides"].get("SINGLE_DIRECT", False),
            **options,
        )
        return head, weights

    return make


def objective(case, few_shot, video_text, meta):
    weighted = meta["text_weight"] * video_text
    return {"both": few_shot + weighted, "few_shot": few_shot, "video_text": weighted}[case["objective"]] / meta[
        "batch_size"
    ]


def test_constants(golden_clip_fsar, oracle):
    meta = golden_clip_fsar["meta"]
    assert meta["cos_eps"] == oracle.OFFSET
    ffn = meta["dropout"]["ffn"]
    assert (meta["dropout"]["attention_out"], ffn, ffn) == oracle.PLACES_OF_DROPOUT


def test_parts(golden_clip_fsar, fsar_case, precision, build, recorded_episode, recorded_texts, near):
    case = golden_clip_fsar["cases"][fsar_case]
    head, _ = build(case, precision.dtype)
    episode, support_numbers, _ = recorded_episode(case["episode"], precision.dtype)
    texts = recorded_texts(case, precision.dtype)[support_numbers]
    with torch.no_grad():
        queries, prototypes = head.query_tokens(episode), head.prototypes(episode, texts)
        costs = head.frame_distances(queries, prototypes)
        directions = head.directions(costs)
        parts = {
            "query_tokens": queries,
            "support_tokens_all": head.support_tokens(episode, texts),
            "prototypes": prototypes,
            "frame_dists": costs,
        }
    for name, found in parts.items():
        if name in case:
            near(found, case[name], 2e-5, name)
    for name, found in zip(("otam_q2s", "otam_s2q"), directions, strict=False):
        expected = precision.of(case, name)
        if expected is not None:  # the text alone needs none
            near(found, expected, precision.values, name)
    if "distance" in case:
        near(sum(directions), case["distance"], 2e-5)


def test_training(
    golden_clip_fsar, fsar_train_case, precision, build, recorded_episode, recorded_texts, near, near_norms
):
    case, meta = golden_clip_fsar["cases"][fsar_train_case], golden_clip_fsar["meta"]
    head, weights = build(case, precision.dtype)
    episode, support_numbers, query_numbers = recorded_episode(case["episode"], precision.dtype)
    inputs = {"grad_support_set": episode.support.requires_grad_(), "grad_target_set": episode.query.requires_grad_()}
    texts = recorded_texts(case, precision.dtype)
    few_shot, video_text = head.losses(episode, support_numbers, query_numbers, texts)
    loss = objective(case, few_shot, video_text, meta)
    for name, found in {"ce_few_shot": few_shot, "ce_video_text": video_text, "loss": loss}.items():
        if name in case:
            near(found, precision.of(case, name), precision.values, name)
    near(-head.distances(episode, texts[support_numbers]), precision.of(case, "logits"), precision.values)
    if "class_logits" in case:
        videos = torch.cat((episode.support, episode.query))
        near(head.video_text_logits(videos, texts), precision.of(case, "class_logits"), precision.values)

    loss.backward()
    near_norms(weights, precision.of(case, "grad_norms"), case["grad_none"], precision)
    for name, expected in case["grad_small"].items():
        near(weights[name].grad, expected, 1e-5, name)
    if "grad_scale" in case["float64"]:
        near(weights["scale"].grad, case["float64"]["grad_scale"], precision.gradients)
    for name, own in inputs.items():
        if name in case:
            near(own.grad, case[name], 1e-5, name)


def test_evaluation(golden_clip_fsar, fsar_eval_case, precision, build, recorded_episode, recorded_texts, near):
    case = golden_clip_fsar["cases"][fsar_eval_case]
    head, _ = build(case, precision.dtype)
    episode, support_numbers, _ = recorded_episode(case["episode"], precision.dtype)
    texts = recorded_texts(case, precision.dtype)[support_numbers]
    expected = precision.of(case, "logits")
    with torch.no_grad():
        if case["overrides"].get("EVAL_TEXT"):
            near(head.text_probabilities(episode, texts), expected, precision.probabilities)
        elif case["overrides"].get("COMBINE"):
            assert case["beta"] == (case["overrides"].get("TEXT_COFF") or 0.9)
            near(head.text_probabilities(episode, texts), case["p_text"], 1e-6)
            near(head.visual_probabilities(episode, texts), case["p_visual"], 1e-6)
            near(head.combined(episode, texts, case["beta"]), expected, precision.probabilities)
        else:
            near(-head.distances(episode, texts), expected, precision.values)


def test_dropout(golden_clip_fsar, build, kept, recorded_episode, recorded_texts, near, near_norms, precision):
    """Recorded in one precision; the other agrees as far as that goes."""
    case, meta = golden_clip_fsar["train_dropout"], golden_clip_fsar["meta"]
    masks = iter(kept)

    def drop(x, probability):
        mask = next(masks)
        assert (mask.shape, mask.probability) == (x.shape, probability)
        return x * mask.keep / (1 - probability)

    head, weights = build(case, precision.dtype, drop=drop)
    episode, support_numbers, query_numbers = recorded_episode(case["episode"], precision.dtype)
    texts = recorded_texts({"training": True}, precision.dtype)
    few_shot, video_text = head.losses(episode, support_numbers, query_numbers, texts)
    assert next(masks, None) is None
    loss = objective({"objective": "both"}, few_shot, video_text, meta)
    near(loss, case["loss"], 1e-5)
    loss.backward()
    loose = type(precision)(**{**vars(precision), "gradients": 1e-4, "noise": 1e-6})
    near_norms(weights, case["grad_norms"], [], loose)


def test_whole_transformer(golden_clip_fsar, transformer_case, precision, build, near):
    recorded = golden_clip_fsar["temporal_transformer"][transformer_case]
    depth = int(transformer_case.removeprefix("depth")[0])
    head, _ = build({"overrides": {"TRANSFORMER_DEPTH": depth}}, precision.dtype)
    with torch.no_grad():
        found = head.transformer(recorded["x"].to(precision.dtype))
    near(found, recorded["y64" if precision.exact else "y"], precision.values)
