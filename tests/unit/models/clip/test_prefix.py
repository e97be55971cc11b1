import pytest
import torch

from slowfast.models.clip.layers import ResidualBlock
from slowfast.models.clip.prefix import Prompts, encode_continuations, end_of_text, read_block
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


# ------------------------------------------------------------------------------------------------- prompts of a video

WIDTH = 128


def make_block(dtype=torch.float64):
    torch.manual_seed(3)
    block = ResidualBlock(WIDTH, causal=True).to(dtype)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return block


def make_prompts(start_videos, rest_videos, *, classes=3, start=5, rest=4):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()

    return Prompts(draw(start_videos, start), draw(rest_videos, classes, rest))


def whole(prompts):
    """All prompts of all videos as CLIP's text tower takes them, (B K, L, D)."""
    videos, (classes, rest) = max(len(prompts.start), len(prompts.rest)), prompts.rest.shape[1:3]
    start = prompts.start[:, None].expand(videos, classes, -1, -1)
    return torch.cat((start, prompts.rest.expand(videos, classes, rest, -1)), dim=2).flatten(0, 1)


VIDEOS = [(1, 1), (2, 1), (2, 2)]


def assert_same_gradients(found, expected, leaves):
    pairs = zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True)
    for gradient, other in pairs:
        assert (gradient - other).abs().max() <= 1e-10 * max(1.0, other.abs().max().item())


@pytest.mark.parametrize("videos", VIDEOS)
@pytest.mark.parametrize("rest", [1, 4])
def test_read_block_is_the_block_of_the_tower(videos, rest):
    block, prompts = make_block(), make_prompts(*videos, rest=rest)
    found = read_block(block, prompts)
    expected = block(whole(prompts))
    assert torch.allclose(whole(found), expected, rtol=1e-10, atol=1e-12)
    assert len(found.start) == videos[0]
    leaves = [*prompts, *block.parameters()]
    assert_same_gradients(whole(found).pow(3).sum(), expected.pow(3).sum(), leaves)


@pytest.mark.parametrize("going_on", [1, 3, 5])
def test_only_the_beginning_of_the_start_goes_on(going_on):
    block, prompts = make_block(), make_prompts(1, 1)
    found, whole_output = read_block(block, prompts, going_on=going_on), read_block(block, prompts)
    expected = Prompts(whole_output.start[:, :going_on], whole_output.rest)
    for part, other in zip(found, expected, strict=True):
        assert torch.allclose(part, other, rtol=1e-10, atol=1e-12)
    leaves = [*prompts, *block.parameters()]
    sums = (sum(part.pow(3).sum() for part in output) for output in (found, expected))
    assert_same_gradients(*sums, leaves)


@pytest.mark.parametrize("videos", VIDEOS)
@pytest.mark.parametrize("ends", [[1, 3, 2], [0, 0, 0], [3, 3, 3]])
def test_end_of_text_is_that_token_of_the_block(videos, ends):
    block, prompts, ends = make_block(), make_prompts(*videos), torch.tensor(ends)
    found = end_of_text(block, prompts, ends=ends)
    everything = block(whole(prompts)).unflatten(0, (-1, 3))
    expected = everything[:, torch.arange(3), 5 + ends]
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert found.shape == (max(videos), 3, WIDTH)
    leaves = [*prompts, *block.parameters()]
    assert_same_gradients(found.pow(3).sum(), expected.pow(3).sum(), leaves)


def test_what_follows_the_end_does_not_matter():
    block, prompts, ends = make_block(), make_prompts(1, 1), torch.tensor([1, 0, 2])
    before = end_of_text(block, prompts, ends=ends)
    with torch.no_grad():
        for number, end in enumerate(ends.tolist()):
            prompts.rest[:, number, end + 1 :] = 100
    assert torch.equal(end_of_text(block, prompts, ends=ends), before)
