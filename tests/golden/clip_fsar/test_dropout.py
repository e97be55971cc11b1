"""A training step with dropout: the recorded masks in place of drawn ones."""

import torch
from torch import nn


def test_step(
    golden_clip_fsar, kept, build_head, sorted_episode, recorded_texts, recorded_episode, near, near_norms, precision
):
    """Queries pass first, then supports; recorded in one precision, the other agrees as far as that goes."""
    case = {**golden_clip_fsar["train_dropout"], "training": True, "objective": "both"}
    head = build_head(case, precision.dtype, dropout=True)
    episode, meta = sorted_episode(case["episode"], precision.dtype), golden_clip_fsar["meta"]
    half = len(kept) // 2
    masks = iter([(mask, episode.query_order) for mask in kept[:half]] + [(mask, None) for mask in kept[half:]])

    def replay(module, args, _):
        mask, order = next(masks)  # merged supports are recorded class by class, as ours
        assert module.p == mask.probability
        assert args[0].shape == mask.shape
        keep = mask.keep if order is None else mask.keep[order]
        return args[0] * keep / (1 - module.p)

    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(replay)
    texts = recorded_texts(case, precision.dtype)
    logits, terms = head.losses(episode.support, episode.query, episode.class_number, texts)
    assert next(masks, None) is None
    near(episode.query_rows(logits[0]), case["logits"], 2e-5)
    loss = sum(terms.values()) / meta["batch_size"]
    near(loss, case["loss"], 1e-5)
    flat, _, _ = recorded_episode(case["episode"], precision.dtype)
    near(head.video_text_logits(torch.cat((flat.support, flat.query)), texts), case["class_logits"], 2e-5)

    loss.backward()
    loose = type(precision)(**{**vars(precision), "gradients": 1e-4, "noise": 1e-6})
    near_norms(dict(head.named_parameters()), case["grad_norms"], [], loose)
