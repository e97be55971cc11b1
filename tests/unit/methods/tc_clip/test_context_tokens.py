"""The image tower: which patches become seeds, what is read of the last block, what a frame sees of its video."""

import copy
import dataclasses

import pytest
import torch

from slowfast.methods.tc_clip.context_tokens import (
    ContextOptions,
    ContextTower,
    LastTokens,
    Tokens,
    seeds_per_frame,
)
from slowfast.models.clip.model import CLIP

OPTIONS = ContextOptions(num_tokens=6, merge_step=5)


@pytest.fixture
def make_tower(small_sizes):
    """Makes a tower in fp64 whose parameters are all random."""

    def make(options=OPTIONS, *, levels=None, sizes=small_sizes, **others):
        torch.manual_seed(8)
        levels = (sizes.vision_layers - 1,) if levels is None else levels
        tower = ContextTower(sizes, options, levels=levels, **others).double()
        with torch.no_grad():
            for parameter in tower.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return tower

    return make


def make_frames(num_videos=2, num_frames=4, side=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_videos, 3, num_frames, side, side, generator=generator, dtype=torch.float64)


def probabilities(block, tokens):
    """Of every frame and head, (B, T, heads, L, L + K), as a matrix of its own."""
    attn, width = block.attn, tokens.frames.shape[-1]
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    normed = block.ln_1(tokens.frames)
    context = tokens.frames.new_zeros(len(normed), 0, width) if tokens.context is None else block.ln_1(tokens.context)
    matrices = []
    for frame in normed.unbind(1):  # (B, L, D)
        seen = torch.cat((frame, context), dim=1)
        q = (frame @ weight[:width].T + bias[:width]).unflatten(-1, (-1, 64)).transpose(1, 2)
        k = (seen @ weight[width : 2 * width].T + bias[width : 2 * width]).unflatten(-1, (-1, 64)).transpose(1, 2)
        scores = q @ k.transpose(-1, -2) / 8
        if attn.local_global_bias_table is not None:
            own, shared = attn.local_global_bias_table.unbind(-1)
            scores[..., : frame.shape[1]] += own[..., None]
            scores[..., frame.shape[1] :] += shared[..., None]
        matrices.append(scores.softmax(dim=-1))
    return torch.stack(matrices, dim=1)


@pytest.mark.parametrize("options", [OPTIONS, dataclasses.replace(OPTIONS, bias=False, seed_share=1.0)])
def test_seeds_are_what_class_tokens_attend_to(make_tower, options):
    tower = make_tower(options)
    with torch.no_grad():
        tokens = Tokens(tower.embed(make_frames()), None)
        for block in tower.transformer.resblocks:
            expected = probabilities(block, tokens)[:, :, :, 0, 1:26].mean(dim=2)
            tokens, seeds = block.run(tokens)
            assert torch.allclose(seeds.scores, expected, rtol=1e-10)
            count = seeds_per_frame(25, options.seed_share)
            best = expected.sort(dim=-1, descending=True)
            assert torch.equal(seeds.patches, best.indices[..., :count])
            assert torch.allclose(seeds.scores.gather(2, seeds.patches), best.values[..., :count], rtol=1e-10)
            assert seeds.group.shape == (2, 4 * count)


def test_equal_scores_are_taken_in_the_order_of_patches(make_tower):
    block = make_tower().transformer.resblocks[0]
    scores, patches = block._choose_seeds(torch.zeros(1, 2, 2, 64), torch.zeros(1, 2, 26, 2, 64), None)
    assert torch.allclose(scores, torch.full_like(scores, 1 / 26))
    assert torch.equal(patches, torch.arange(7).expand(1, 2, 7))


def test_block_is_attention_and_feed_forward(make_tower):
    """The frames' tokens, with the whole matrix of probabilities."""
    tower = make_tower()
    first, second, _ = tower.transformer.resblocks
    with torch.no_grad():
        tokens = first(Tokens(tower.embed(make_frames()), None))
        normed = second.ln_1(torch.cat((tokens.frames, tokens.context[:, None].expand(-1, 4, -1, -1)), dim=2))
        values = normed @ second.attn.in_proj_weight[256:].T + second.attn.in_proj_bias[256:]
        values = values.unflatten(-1, (-1, 64)).transpose(2, 3)
        attended = (probabilities(second, tokens) @ values).transpose(2, 3).flatten(3)
        y = tokens.frames + second.attn.out_proj(attended)
        assert torch.allclose(second(tokens).frames, y + second.mlp(second.ln_2(y)), rtol=1e-10)


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("wants_context", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("first", [False, True], ids=["with context", "first block"])
def test_last_block(make_tower, wants_context, detached, enabled, first):
    tower = make_tower(dataclasses.replace(OPTIONS, enabled=enabled))
    one, two, *_ = tower.transformer.resblocks
    with torch.no_grad():
        tokens = Tokens(tower.embed(make_frames()), None)
        tokens, block = (tokens, one) if first else (one(tokens), two)
    given = Tokens(*(None if x is None else x.clone().requires_grad_() for x in tokens))
    (frames, context), seeds = block.run(given)
    found = block.run_last(given, wants_context=wants_context, detached=detached)
    assert torch.allclose(found.classes, frames[:, :, 0], rtol=1e-10)
    if not (wants_context and enabled):
        assert found == LastTokens(found.classes, None, None)
        expected = frames[:, :, 0].square().sum()
        total = found.classes.square().sum()
    else:
        assert torch.allclose(found.context, context, rtol=1e-10)
        assert found.context.requires_grad is not detached
        assert torch.equal(found.seeds.patches, seeds.patches)
        assert torch.equal(found.seeds.group, seeds.group)
        assert torch.allclose(found.seeds.scores, seeds.scores)
        expected = frames[:, :, 0].square().sum() + (0 if detached else context.pow(3).sum())
        total = found.classes.square().sum() + (0 if detached else found.context.pow(3).sum())
    parameters = [x for x in given if x is not None] + list(block.parameters())
    pairs = zip(
        torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, parameters, allow_unused=True, materialize_grads=True),
        strict=True,
    )
    for gradient, other in pairs:
        assert (gradient - other).abs().max() <= 1e-10 * max(1, other.abs().max())


def test_last_block_computes_no_more_than_is_read(make_tower):
    """Of 4 x 26 tokens, 4 class tokens and 28 seeds; with one seed less to feed forward than there are."""
    tower = make_tower()
    rows = []
    last = tower.transformer.resblocks[-1]
    last.mlp.register_forward_hook(lambda _, inputs, output: rows.append(output[..., 0].numel()))
    with torch.no_grad():
        tower(make_frames(1))
    assert sorted(rows) == [4, 6]


@pytest.mark.parametrize("num_frames", [1, 3])
@pytest.mark.parametrize(("side", "patch", "grid"), [(28, 4, 7), (24, 8, 3), (8, 8, 1), (56, 4, 14)])
def test_any_grid_and_number_of_frames(make_tower, small_sizes, num_frames, side, patch, grid):
    sizes = dataclasses.replace(small_sizes, image_size=side, patch_size=patch)
    tower = make_tower(sizes=sizes)
    seeds = seeds_per_frame(grid**2, OPTIONS.seed_share)
    assert seeds == max(1, int(0.3 * grid**2))
    count = min(6, seeds * num_frames)
    found = tower(make_frames(2, num_frames, side=side))
    assert found.frames.shape == (2, num_frames, 64)
    assert [x.shape for x in found.context] == [(2, count, 64)]
    for layer in tower.trace(make_frames(2, num_frames, side=side)):
        assert layer.scores.shape == (2, num_frames, grid**2)
        assert layer.patches.shape == (2, num_frames, seeds)
        assert layer.patches.max() < grid**2
        assert layer.group.unique().tolist() == list(range(count))


def test_published_number_of_seeds():
    assert seeds_per_frame(196, 0.3) == 58
    assert seeds_per_frame(196, 0.0) == 1
    assert seeds_per_frame(196, 1.0) == 196


@pytest.mark.parametrize("levels", [(), (0,), (2,), (0, 1, 2)])
def test_wanted_levels(make_tower, levels):
    tower, frames = make_tower(levels=levels), make_frames()
    found = tower(frames)
    tokens, expected = Tokens(tower.embed(frames), None), []
    for layer, block in enumerate(tower.transformer.resblocks):
        tokens = block(tokens)
        if layer in levels:
            expected.append(tower.project(tokens.context))
    assert len(found.context) == len(levels)
    for context, other in zip(found.context, expected, strict=True):
        assert torch.allclose(context, other, rtol=1e-10)
        assert not context.requires_grad
    assert torch.allclose(found.frames, tower.project(tokens.frames[:, :, 0]), rtol=1e-10)


@pytest.mark.parametrize("levels", [(2,), (0, 2)])
def test_gradient_goes_into_the_context_on_request(make_tower, levels):
    tower = make_tower(levels=levels, stop_gradient=False)
    for context in tower(make_frames()).context:
        assert context.requires_grad
        (gradient,) = torch.autograd.grad(context.square().sum(), tower.conv1.weight, retain_graph=True)
        assert gradient.any()


def test_trace(make_tower):
    tower, frames = make_tower(), make_frames()
    tokens, expected = Tokens(tower.embed(frames), None), []
    for block in tower.transformer.resblocks:
        tokens, seeds = block.run(tokens)
        expected.append(seeds)
    traced = tower.trace(frames)
    for found, seeds in zip(traced, expected, strict=True):
        assert torch.equal(found.patches, seeds.patches)
        assert torch.equal(found.group, seeds.group)
        assert not found.scores.requires_grad
        assert found.scores.dtype == torch.float64
    for seeds in make_tower(dataclasses.replace(OPTIONS, enabled=False)).trace(frames):
        assert (seeds.scores.shape, seeds.patches.numel(), seeds.group.numel()) == (found.scores.shape, 0, 0)
    assert all(seeds.patches.numel() for seeds in make_tower(levels=()).trace(frames))


def test_without_context_it_is_clip(make_tower, small_sizes):
    tower, frames = make_tower(dataclasses.replace(OPTIONS, enabled=False), levels=(1, 2)), make_frames()
    clip = CLIP(small_sizes).double()
    clip.visual.load_state_dict(tower.state_dict())
    found = tower(frames)
    assert torch.allclose(found.frames, clip.encode_video(frames), rtol=1e-10)
    assert [context.shape for context in found.context] == [(2, 4, 64)] * 2
    assert torch.equal(found.context[1], found.frames)
    assert not any("bias_table" in name for name, _ in tower.named_parameters())


def test_frames_see_the_others_through_the_context(make_tower):
    tower, frames = make_tower(), make_frames()
    changed = frames.clone()
    changed[0, :, 3] = 0
    before, after = tower(frames), tower(changed)
    assert not torch.allclose(before.frames[0, :3], after.frames[0, :3], rtol=1e-4)
    assert torch.allclose(before.frames[1], after.frames[1], rtol=1e-10)  # another video
    alone = make_tower(dataclasses.replace(OPTIONS, enabled=False))
    assert torch.allclose(alone(frames).frames[0, :3], alone(changed).frames[0, :3], rtol=1e-10)


def test_only_the_difference_of_the_biases_counts(make_tower):
    tower, frames = make_tower(), make_frames()
    moved = copy.deepcopy(tower)
    with torch.no_grad():
        for block in moved.transformer.resblocks[1:]:
            block.attn.local_global_bias_table += 3
    assert tower.transformer.resblocks[0].attn.local_global_bias_table is None
    assert torch.allclose(tower(frames).frames, moved(frames).frames, rtol=1e-10)
    with torch.no_grad():
        moved.transformer.resblocks[1].attn.local_global_bias_table[..., 1] += 3
    assert not torch.allclose(tower(frames).frames, moved(frames).frames, rtol=1e-3)


def test_positions_of_every_frame(make_tower, small_sizes):
    tower, plain = make_tower(position_frames=4), ContextTower(small_sizes, OPTIONS, levels=(2,)).double()
    assert tower.positional_embedding.shape == (4, 26, 128)
    state = tower.state_dict() | {"positional_embedding": tower.positional_embedding[0]}
    plain.load_state_dict(state)
    with torch.no_grad():
        tower.positional_embedding.copy_(tower.positional_embedding[0].expand(4, -1, -1).clone())
    frames = make_frames()
    assert torch.allclose(tower(frames).frames, plain(frames).frames, rtol=1e-10)
    message = (
        r"^TC_CLIP.POSITIONAL_EMBEDDING_TYPE: 'joint' has positions of 4 frames, but a clip has 3; "
        r"DATA.NUM_FRAMES must be that of training$"
    )
    for function in (tower, tower.trace):
        with pytest.raises(ValueError, match=message):
            function(make_frames(num_frames=3))


@pytest.mark.parametrize("shape", [(2, 3, 4, 32, 40), (2, 4, 4, 40, 40), (2, 3, 40, 40)])
def test_wrong_shape(make_tower, shape):
    for tower in (make_tower(), make_tower(position_frames=4)):
        with pytest.raises(ValueError, match=r"^frames have shape \(2, .*\); expected \(B, 3, T, 40, 40\)$"):
            tower(torch.zeros(shape))
