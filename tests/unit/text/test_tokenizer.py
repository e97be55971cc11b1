import re

import pytest
import torch

from slowfast.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer()


def decode(tokenizer, tokens):
    """Turn token numbers back into text, words apart by one space."""
    words = {number: word for word, number in tokenizer._vocabulary.items()}
    to_byte = {symbol: byte for byte, symbol in enumerate(tokenizer._byte_symbols)}
    text = "".join(words[token] for token in tokens).replace("</w>", " ")
    return b"".join(b" " if c == " " else bytes([to_byte[c]]) for c in text).decode().strip()


def test_vocabulary(tokenizer):
    assert len(tokenizer) == 49408
    assert (tokenizer.start, tokenizer.end) == (49406, 49407)
    assert sorted(tokenizer._vocabulary.values()) == list(range(49408))


def test_known_tokens(tokenizer):
    """The example of CLIP's own documentation."""
    assert tokenizer.encode("hello world!") == [3306, 1002, 256]
    assert tokenizer.encode("a photo of a cat.") == [320, 1125, 539, 320, 2368, 269]
    assert tokenizer.encode("!") == [256]


def test_rows_are_start_text_end_and_zeros(tokenizer):
    rows = tokenizer(["a cat", ""])
    assert rows.shape == (2, 77)
    assert rows.dtype == torch.long
    assert rows[0, :5].tolist() == [49406, 320, 2368, 49407, 0]
    assert rows[1, :3].tolist() == [49406, 49407, 0]
    assert not rows[0, 4:].any()
    assert torch.equal(rows.argmax(dim=-1), torch.tensor([3, 1]))


def test_no_text(tokenizer):
    assert tokenizer([]).shape == (0, 77)


@pytest.mark.parametrize(
    "text",
    [
        "playing the trumpet",
        "petting animal (not cat)",
        "shooting basketball 3 pointers",
        "naïve café über straße",
        "日本語 и русский",
        "🏄 surfing",
        "x² ≠ y",
    ],
)
def test_round_trip(tokenizer, text):
    found = decode(tokenizer, tokenizer.encode(text))
    assert found.replace(" ", "") == text.lower().replace(" ", "")


def test_numbers_are_spelled_digit_by_digit(tokenizer):
    assert len(tokenizer.encode("1234567")) == 7
    assert tokenizer.encode("42") == tokenizer.encode("4 2")


def test_case_and_spacing_are_folded(tokenizer):
    assert tokenizer.encode("  Playing\n\tYoyo ") == tokenizer.encode("playing yoyo")


def test_broken_text_is_repaired(tokenizer):
    assert tokenizer.encode("caf\u00c3\u00a9") == tokenizer.encode("café")
    assert tokenizer.encode("salt &amp;amp; pepper") == tokenizer.encode("salt & pepper")


def test_contractions_are_split(tokenizer):
    assert tokenizer.encode("it's") == [*tokenizer.encode("it"), *tokenizer.encode("'s")]


def test_special_tokens_in_the_text(tokenizer):
    assert tokenizer.encode("<|startoftext|> cat <|endoftext|>") == [49406, 2368, 49407]


def test_text_that_is_too_long(tokenizer):
    text = "cat " * 76
    with pytest.raises(
        ValueError, match=f"^{re.escape(f'text {text[:60] + chr(46) * 3!r} has 78 tokens; the context holds 77')}$"
    ):
        tokenizer(["fine", text])
    assert tokenizer(["cat " * 75])[0, -1] == tokenizer.end


def test_truncation_keeps_the_end(tokenizer):
    row = tokenizer(["cat " * 100], truncate=True)[0]
    assert row.tolist() == [tokenizer.start, *[2368] * 75, tokenizer.end]


def test_other_context_length(tokenizer):
    assert tokenizer(["a cat"], context_length=4).tolist() == [[49406, 320, 2368, 49407]]


def test_two_tokenizers_agree(tokenizer):
    assert torch.equal(Tokenizer()(["juggling balls"]), tokenizer(["juggling balls"]))
