"""Tokens and the classifier made from templates."""

import torch

from slowfast.models.clip.text import trim_tokens
from slowfast.text.templates import ACTION_TEMPLATES
from slowfast.text.text_bank import encode_texts, template_bank
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
    bank = template_bank(
        label_set.names, encode=lambda tokens: clip.encode_text(trim_tokens(tokens)), tokenizer=Tokenizer()
    )
    assert_close(bank.features, golden["text"]["csf_matrix"])


def test_dropping_the_padding_changes_no_feature(label_set, build_tower, assert_close):
    clip = build_tower(None)
    texts = list(label_set.names)
    padded = encode_texts(texts, encode=clip.encode_text, tokenizer=Tokenizer())
    trimmed = encode_texts(texts, encode=lambda tokens: clip.encode_text(trim_tokens(tokens)), tokenizer=Tokenizer())
    assert_close(trimmed, padded)
