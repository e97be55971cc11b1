"""The temporal transformer alone, and what its dropout draws in training."""

import torch

from slowfast.methods.clip_fsar.prototype import TemporalTransformer

PREFIX = "context2."


def build(golden_clip_fsar, recorded_weights, depth, dtype, **options):
    dims = golden_clip_fsar["meta"]["dims"]
    transformer = TemporalTransformer(dims["d"], depth=depth, num_heads=dims["heads"], hidden=dims["ffn"], **options)
    weights = recorded_weights(depth, dtype)
    transformer.to(dtype).load_state_dict(
        {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
    )
    return transformer


def test_evaluation(golden_clip_fsar, transformer_case, recorded_weights, precision, near):
    recorded = golden_clip_fsar["temporal_transformer"][transformer_case]
    depth = int(transformer_case.removeprefix("depth")[0])
    transformer = build(golden_clip_fsar, recorded_weights, depth, precision.dtype).eval()
    with torch.no_grad():
        found = transformer(recorded["x"].to(precision.dtype))
    near(found, recorded["y64" if precision.exact else "y"], precision.values)


def test_defaults(golden_clip_fsar):
    """Only the width must be said."""
    dims = golden_clip_fsar["meta"]["dims"]
    found = {name: tuple(value.shape) for name, value in TemporalTransformer(dims["d"]).state_dict().items()}
    recorded = {name.removeprefix("head."): value for name, value in golden_clip_fsar["weights"].items()}
    assert found == {
        name.removeprefix(PREFIX): tuple(value.shape) for name, value in recorded.items() if name.startswith(PREFIX)
    }


def test_recorded_masks_are_those_of_the_seed(golden_clip_fsar, kept):
    torch.manual_seed(golden_clip_fsar["train_dropout"]["seed"])
    for mask in kept:
        drawn = torch.nn.functional.dropout(torch.ones(mask.shape), mask.probability, training=True)
        assert torch.equal(drawn != 0, mask.keep)


def test_dropout(golden_clip_fsar, recorded_weights, recorded_episode, recorded_texts, near):
    """The generator is used as published: queries first, then supports, with the default probabilities."""
    case = golden_clip_fsar["train_dropout"]
    episode, support_numbers, _ = recorded_episode(case["episode"])
    order = episode.support_labels.argsort()
    texts = recorded_texts({"training": True})[support_numbers]
    support = torch.cat((episode.support, texts[:, None]), dim=1)[order]
    transformer = build(golden_clip_fsar, recorded_weights, 1, torch.float32).train()
    torch.manual_seed(case["seed"])
    near(transformer(episode.query), case["query_tokens"], 2e-5)
    near(transformer(support), case["support_tokens_all"], 2e-5)


def test_no_dropout_in_evaluation(golden_clip_fsar, recorded_weights):
    transformer = build(golden_clip_fsar, recorded_weights, 1, torch.float32)
    x = golden_clip_fsar["temporal_transformer"]["depth1_len8"]["x"].float()
    assert torch.equal(transformer.eval()(x), transformer(x))
    assert not torch.equal(transformer.train()(x), transformer(x))
    silent = build(golden_clip_fsar, recorded_weights, 1, torch.float32, dropout=(0.0, 0.0))
    torch.testing.assert_close(silent.train()(x), transformer.eval()(x))
