"""Tokens and the classifier made from templates."""

import torch

from slowfast.models.clip.text import trim_tokens
from slowfast.text.templates import ACTION_TEMPLATES
from slowfast.text.text_bank import encode_tokens, mean_features, template_bank
from slowfast.text.tokenizer import Tokenizer


def test_tokens(golden, label_set):
    recorded = golden["text"]["tokens"]
    tokenizer = Tokenizer()
    templates = ACTION_TEMPLATES[: len(recorded)]
    assert len(templates) == len(recorded)
    for template, expected in zip(templates, recorded, strict=True):
        found = tokenizer([template.format(name) for name in label_set.names], context_length=recorded.shape[-1])
        assert torch.equal(found, expected.long())


def test_classifier(golden, label_set, build_tower, assert_close):
    clip = build_tower(None)
    bank = template_bank(label_set.names, tokenizer=Tokenizer())
    features = mean_features(bank.tokens, encode=lambda tokens: clip.encode_text(trim_tokens(tokens)))
    assert_close(features, golden["text"]["csf_matrix"])


def test_dropping_the_padding_changes_no_feature(label_set, build_tower, assert_close):
    clip, tokens = build_tower(None), Tokenizer()(label_set.names)
    padded = encode_tokens(tokens, encode=clip.encode_text)
    trimmed = encode_tokens(tokens, encode=lambda tokens: clip.encode_text(trim_tokens(tokens)))
    assert_close(trimmed, padded)
