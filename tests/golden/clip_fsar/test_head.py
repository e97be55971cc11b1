"""The head on recorded features: tokens, prototypes, distances, logits, losses, gradients, modes of evaluation."""

import torch

from slowfast.models.alignment import otam
from slowfast.models.similarity import offset_cosine


def test_parts(golden_clip_fsar, fsar_case, precision, build_head, sorted_episode, recorded_texts, near):
    case = golden_clip_fsar["cases"][fsar_case]
    head, episode = build_head(case, precision.dtype), sorted_episode(case["episode"], precision.dtype)
    texts = recorded_texts(case, precision.dtype)[episode.class_number]  # (1, W, D)
    smoothing = golden_clip_fsar["meta"]["lambda"]
    with torch.no_grad():
        queries, prototypes = head.query_tokens(episode.query), head.prototypes(episode.support, texts)
        costs = 1 - offset_cosine(queries[0][:, None], prototypes[0][None])
        lengths = {"otam_q2s": costs, "otam_s2q": costs.transpose(-2, -1)}
        parts = {
            "query_tokens": episode.query_rows(queries[0]),
            "prototypes": prototypes[0],
            "frame_dists": episode.query_rows(costs),
        }
        distances = episode.query_rows(head.distances(queries, prototypes)[0])
    for name, found in parts.items():
        if name in case:
            near(found, case[name], 2e-5, name)
    directions = {}
    for name, cost in lengths.items():
        expected = precision.of(case, name)
        if expected is not None:  # the text alone needs none
            directions[name] = episode.query_rows(otam(cost, smoothing=smoothing))
            near(directions[name], expected, precision.values, name)
    assert set(directions) in ({"otam_q2s"}, {"otam_q2s", "otam_s2q"}, set())
    if directions:
        assert len(directions) == (1 if case["overrides"].get("SINGLE_DIRECT") else 2)
        near(distances, sum(precision.of(case, name) for name in directions), precision.values)
    if "distance" in case:
        near(distances, case["distance"], 2e-5)


def test_tokens_of_supports(golden_clip_fsar, fsar_case, precision, build_head, sorted_episode, recorded_texts, near):
    """With the text as the last token, which prototypes leave out."""
    case = golden_clip_fsar["cases"][fsar_case]
    if "support_tokens_all" not in case:
        return
    head, episode = build_head(case, precision.dtype), sorted_episode(case["episode"], precision.dtype)
    texts = recorded_texts(case, precision.dtype)[episode.class_number[0]]  # (W, D)
    merged = case["overrides"].get("MERGE_BEFORE")
    frames = episode.support[0].mean(dim=1, keepdim=True) if merged else episode.support[0]  # (W, K, T, D)
    words = texts[:, None, None].expand(-1, frames.shape[1], 1, -1)
    with torch.no_grad():
        found = head.context2(torch.cat((frames, words), dim=2).flatten(0, 1)).unflatten(0, frames.shape[:2])
    near(found[:, 0] if merged else episode.support_rows(found), case["support_tokens_all"], 2e-5)


def test_training(
    golden_clip_fsar, fsar_train_case, precision, build_head, sorted_episode, recorded_texts, near, near_norms
):
    case, meta = golden_clip_fsar["cases"][fsar_train_case], golden_clip_fsar["meta"]
    head, episode = build_head(case, precision.dtype), sorted_episode(case["episode"], precision.dtype)
    texts = recorded_texts(case, precision.dtype)
    logits, terms = head.losses(episode.support, episode.query, episode.class_number, texts)
    near(episode.query_rows(logits[0]), precision.of(case, "logits"), precision.values)
    wanted = {"both": {"few_shot", "video_text"}, "few_shot": {"few_shot"}, "video_text": {"video_text"}}
    assert set(terms) == wanted[case["objective"]]
    if "few_shot" in terms:
        near(terms["few_shot"], precision.of(case, "ce_few_shot"), precision.values)
    if "video_text" in terms:
        near(terms["video_text"] / meta["text_weight"], precision.of(case, "ce_video_text"), precision.values)
    loss = sum(terms.values()) / meta["batch_size"]
    near(loss, precision.of(case, "loss"), precision.values)

    loss.backward()
    own = dict(head.named_parameters())
    near_norms(own, precision.of(case, "grad_norms"), case["grad_none"], precision)
    for name, expected in case["grad_small"].items():
        near(own[name].grad, expected, 1e-5, name)
    if "grad_scale" in case["float64"]:
        near(own["scale"].grad, case["float64"]["grad_scale"], precision.gradients)
    if "grad_support_set" in case:
        near(episode.support_rows(episode.support.grad[0]), case["grad_support_set"], 1e-5)
        near(episode.query_rows(episode.query.grad[0]), case["grad_target_set"], 1e-5)


def test_class_logits(golden_clip_fsar, fsar_train_case, precision, build_head, recorded_episode, recorded_texts, near):
    case = golden_clip_fsar["cases"][fsar_train_case]
    if "class_logits" not in case:
        return
    episode, _, _ = recorded_episode(case["episode"], precision.dtype)
    videos = torch.cat((episode.support, episode.query))
    found = build_head(case, precision.dtype).video_text_logits(videos, recorded_texts(case, precision.dtype))
    near(found, precision.of(case, "class_logits"), precision.values)


def test_evaluation(golden_clip_fsar, fsar_eval_case, precision, build_head, sorted_episode, recorded_texts, near):
    case = golden_clip_fsar["cases"][fsar_eval_case]
    head, episode = build_head(case, precision.dtype), sorted_episode(case["episode"], precision.dtype)
    texts = recorded_texts(case, precision.dtype)[episode.class_number]
    with torch.no_grad():
        logits = head.episode_logits(episode.support, episode.query, texts)
    found, expected = episode.query_rows(logits[0]), precision.of(case, "logits")
    if case["overrides"].get("EVAL_TEXT") or case["overrides"].get("COMBINE"):
        near(found.exp(), expected, precision.probabilities)
        assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))
    else:
        near(found, expected, precision.values)
    if "p_text" in case:
        for name, changed in {"p_text": {"eval_text": True}, "p_visual": {"text_coff": 1e-12}}.items():
            other = build_head(case, precision.dtype, **changed)
            with torch.no_grad():
                logits = other.episode_logits(episode.support, episode.query, texts)
            near(episode.query_rows(logits[0]).exp(), case[name], 1e-6, name)


def test_several_episodes_at_once(
    golden_clip_fsar, fsar_eval_case, precision, build_head, sorted_episode, recorded_texts, near
):
    """One beside itself with its classes in another order: the same columns, in that order."""
    case = golden_clip_fsar["cases"][fsar_eval_case]
    head, episode = build_head(case, precision.dtype), sorted_episode(case["episode"], precision.dtype)
    texts = recorded_texts(case, precision.dtype)[episode.class_number]
    order = torch.tensor([3, 1, 4, 0, 2])
    both = (torch.cat((episode.support, episode.support[:, order])), episode.query.expand(2, -1, -1, -1))
    with torch.no_grad():
        alone = head.episode_logits(episode.support, episode.query, texts)
        found = head.episode_logits(*both, torch.cat((texts, texts[:, order])))
    near(found[0], alone[0], precision.values)
    near(found[1], alone[0][:, order], precision.values)
