import pytest
import torch

from slowfast.models.clip.prefix import encode_continuations
from slowfast.text.tokenizer import Tokenizer

STARTS = ["a video of a cat,", "the man is a tall"]
ENDS = ["where", "which sits on a mat in the sun", "starting with a jump then a very long run over hill and dale"]


@pytest.fixture
def parts():
    """Tokens of every start with every end, and the same as beginnings of 7 and 6 tokens and their rests."""
    tokens = Tokenizer()([f"{start} {end}." for start in STARTS for end in ENDS])
    return tokens, tokens[[0, 3], :6], torch.tensor([0, 0, 0, 1, 1, 1]), tokens[:, 6:]


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_joined_texts_have_the_same_features(build_tiny, parts, batch_size):
    clip = build_tiny()
    tokens, prefixes, group, tails = parts
    found = encode_continuations(clip, prefixes, group, tails, batch_size=batch_size)
    assert not found.requires_grad
    assert torch.allclose(found, clip.encode_text(tokens), atol=1e-5)


def test_order_of_texts_does_not_matter(build_tiny, parts):
    clip = build_tiny()
    _, prefixes, group, tails = parts
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    found = encode_continuations(clip, prefixes, group[order], tails[order])
    assert torch.allclose(found, encode_continuations(clip, prefixes, group, tails)[order], atol=1e-6)


def test_autocast_outside_changes_nothing(build_tiny, parts):
    clip = build_tiny()
    _, prefixes, group, tails = parts
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encode_continuations(clip, prefixes, group, tails)
    assert torch.equal(found, encode_continuations(clip, prefixes, group, tails))


def test_text_beyond_the_context(build_tiny):
    tails = torch.zeros(1, 80, dtype=torch.long)
    tails[0, 75] = 49407
    with pytest.raises(ValueError, match=r"^texts have 78 tokens; the context holds 77$"):
        encode_continuations(build_tiny(), torch.tensor([[49406, 320]]), torch.tensor([0]), tails)
