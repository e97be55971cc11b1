import pytest
import torch

from slowfast.models.clip.text import trim_tokens
from slowfast.text.tokenizer import Tokenizer

TEXTS = ["surfing", "a video of a person pouring tea.", ""]


def test_trimmed_tokens_end_at_the_longest_text():
    tokens = Tokenizer()(TEXTS)
    trimmed = trim_tokens(tokens)
    assert trimmed.shape == (3, int((tokens != 0).sum(dim=1).max()))
    assert torch.equal(tokens[:, : trimmed.shape[1]], trimmed)
    assert not tokens[:, trimmed.shape[1] :].any()


def test_trimming_nothing():
    assert trim_tokens(torch.zeros(0, 77, dtype=torch.long)).shape == (0, 77)
    full = Tokenizer()(["word " * 100], truncate=True)
    assert torch.equal(trim_tokens(full), full)


def test_trimming_changes_no_feature(build_tiny):
    clip = build_tiny()
    tokens = Tokenizer()(TEXTS)
    assert torch.allclose(clip.encode_text(trim_tokens(tokens)), clip.encode_text(tokens), atol=1e-6)


def test_tokens_behind_the_end_do_not_matter(build_tiny):
    clip = build_tiny()
    tokens = Tokenizer()(["surfing"])
    noisy = tokens.clone()
    noisy[0, 5:] = 7
    assert torch.allclose(clip.encode_text(noisy), clip.encode_text(tokens), atol=1e-6)


def test_text_longer_than_the_context(build_tiny):
    with pytest.raises(ValueError, match=r"^texts have 80 tokens; the context holds 77$"):
        build_tiny().encode_text(torch.ones(1, 80, dtype=torch.long))
