"""What each block of the image tower makes of its tokens, and what the tower gives."""

import pytest
import torch
from torch.nn import functional as F

from slowfast.methods.tc_clip.context_tokens import Tokens
from slowfast.methods.tc_clip.token_merge import group_sizes, merge_schedule
from slowfast.models.similarity import unit_norm


@pytest.fixture(params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def dtype(request):
    return request.param


def walk(tower, frames):
    """Run all of every block: tokens, seeds, and the context before its feed-forward part."""
    steps, merged = [], []
    tokens = Tokens(tower.embed(frames), None)
    for block in tower.transformer.resblocks:
        summarise = block._summarise

        def keep(seeds, summarise=summarise):
            context, group = summarise(seeds)
            merged.append(context)
            return context, group

        block._summarise = keep
        with torch.no_grad():
            tokens, seeds = block.run(tokens)
        del block._summarise
        steps.append((block, tokens, seeds, merged[-1]))
    return steps


def removals(block, seeds):
    return merge_schedule(seeds.group.shape[1], block.options.num_tokens, block.merge_step)


def one_hot_patches(seeds, num_context):
    """Which patches of the video each context token was made of, (B, K, T P)."""
    num_frames, num_patches = seeds.scores.shape[1:]
    places = (seeds.patches + num_patches * torch.arange(num_frames)[:, None]).flatten(1)
    found = torch.zeros(len(places), num_context, num_frames * num_patches, dtype=torch.bool)
    return found.index_put((torch.arange(len(places))[:, None], seeds.group, places), torch.tensor(True))


def test_blocks(golden_tc_clip, build_tc, tc_batch, dtype, near):
    base = golden_tc_clip["base"]
    tower = build_tc("", dtype).model.visual
    for number, ((block, tokens, seeds, merged), expected) in enumerate(
        zip(walk(tower, tc_batch().frames.to(dtype)), base["blocks"], strict=True)
    ):
        assert torch.equal(seeds.patches, expected["seed_index"].long())
        assert seeds.patches.shape[-1] == golden_tc_clip["meta"]["seeds_per_frame"]
        assert removals(block, seeds) == expected["removed"]
        num_context = tokens.context.shape[1]
        assert torch.equal(group_sizes(seeds.group, num_context), expected["group_size"].long())
        assert torch.equal(one_hot_patches(seeds, num_context), base["membership"][number])
        near(seeds.scores, expected["cls_score"])
        near(merged, expected["context_pre_mlp"])
        near(tokens.context, expected["context"])
        near(tokens.frames[:, :, 0], expected["cls"])
        near(tokens.frames.flatten(1, 2)[..., :4], expected["frame_tokens_first4"])


def test_tower(golden_tc_clip, build_tc, tc_batch, dtype, near):
    base, frames = golden_tc_clip["base"], tc_batch().frames.to(dtype)
    tower = build_tc("", dtype).model.visual
    with torch.no_grad():
        found = tower(frames)
        steps = walk(tower, frames)
        collected = sorted({*tower.levels, len(steps) - 1})
        classes = torch.stack([tower.project(steps[layer][1].frames[:, :, 0]) for layer in collected], dim=1)
    near(classes, base["cls_projected"])
    near(found.frames, base["cls_projected"][:, -1])
    near(torch.stack(found.context, dim=1), base["context_projected"])
    near(unit_norm(found.frames.mean(dim=1)), base["video_features"])


def test_traces(golden_tc_clip, build_tc, tc_batch, dtype):
    tower = build_tc("", dtype).model.visual
    for seeds, block in zip(tower.trace(tc_batch().frames.to(dtype)), golden_tc_clip["base"]["blocks"], strict=True):
        assert torch.equal(seeds.patches, block["seed_index"].long())


def test_blocks_of_variants(golden_tc_clip, tc_variant, build_tc, tc_batch, dtype, near):
    case = golden_tc_clip["variants"][tc_variant]
    tower, frames = build_tc(tc_variant, dtype).model.visual, tc_batch().frames.to(dtype)
    steps, traced = walk(tower, frames), tower.trace(frames)
    assert case["collected_layers"] == sorted({*tower.levels, len(steps) - 1})
    assert len(steps) == len(case["seed_index"]) == len(case["removed"])
    for (block, _, seeds, _), again, expected, removed in zip(
        steps, traced, case["seed_index"], case["removed"], strict=True
    ):
        assert torch.equal(seeds.patches, expected.long())
        assert torch.equal(again.patches, expected.long())
        assert torch.equal(again.group, seeds.group)
        assert removals(block, seeds) == removed
    for (_, tokens, _, _), expected in zip(steps, case.get("context", []), strict=False):
        near(tokens.context[..., : expected.shape[-1]], expected)
    assert len(case.get("context", steps)) == len(steps)


def test_seeds_do_not_depend_on_the_way_of_attending(golden_tc_clip, build_tc, tc_batch, dtype):
    frames = tc_batch().frames.to(dtype)
    traces = [
        build_tc("", dtype, **{"TC_CLIP.CONTEXT_ATTENTION": way}).model.visual.trace(frames)
        for way in ("joined", "parts")
    ]
    for joined, parts in zip(*traces, strict=True):
        assert torch.equal(joined.patches, parts.patches)
        assert torch.equal(joined.group, parts.group)
        assert F.mse_loss(joined.scores, parts.scores) < 1e-12
