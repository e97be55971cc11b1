"""Recomputed activations and the choice of the activation function."""

import pytest
import torch

from slowfast.models.build import ExpertOptions, build_clip
from slowfast.models.clip.experts import record_routing, take_routing
from slowfast.models.clip.layers import use_activation
from slowfast.models.temporal import TEMPORAL_BLOCKS

TYPES = [None if name == "None" else name for name in TEMPORAL_BLOCKS]


def gradients(clip, frames):
    torch.manual_seed(0)  # the masks of a block are random, and must be the same the second time
    features = clip.encode_video(frames)
    features.square().sum().backward()
    return features.detach(), {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", TYPES)
def test_recomputation_changes_no_number(build_tiny, tiny_frames, kind):
    torch.manual_seed(1)
    kept = build_tiny(kind).train()
    recomputed = build_tiny(kind).train()
    recomputed.load_state_dict(kept.state_dict())
    recomputed.visual.transformer.recompute = True
    (features, expected), (again, found) = gradients(kept, tiny_frames), gradients(recomputed, tiny_frames)
    assert torch.equal(features, again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_recomputation_runs_each_block_twice_in_training_only(build_tiny, tiny_frames):
    clip, calls = build_tiny(), []
    clip.visual.transformer.recompute = True
    clip.visual.transformer.resblocks[0].register_forward_pre_hook(lambda *_: calls.append(0))
    clip.eval().encode_video(tiny_frames)
    with torch.no_grad():
        clip.train().encode_video(tiny_frames)
    assert len(calls) == 2
    clip.encode_video(tiny_frames).sum().backward()
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("name", "function"),
    [("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)), ("gelu", torch.nn.functional.gelu)],
)
def test_activation_of_both_towers(tiny_state, name, function):
    clip = build_clip(tiny_state, temporal_modeling_type="stcross_attend", activation=name)
    x = torch.linspace(-3, 3, 50)
    for tower in (clip.visual, clip):
        for block in tower.transformer.resblocks:
            assert torch.allclose(block.mlp.gelu(x), function(x), atol=1e-6)


def test_activation_changes_the_features(tiny_state, tiny_frames):
    clip = build_clip(tiny_state).eval()
    with torch.no_grad():
        quick = clip.encode_video(tiny_frames)
        use_activation(clip, "gelu")
        exact = clip.encode_video(tiny_frames)
    assert 1e-4 < (quick - exact).abs().max() < 1


@pytest.mark.parametrize("kind", [None, "stcross_attend"])
def test_recomputed_blocks_and_experts_compile(tiny_state, tiny_frames, kind):
    """Shares of experts leave a block beside its output; a compiled graph must allow for that."""
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        experts = ExpertOptions(count=2, layers=[1])
        clip = build_clip(tiny_state, temporal_modeling_type=kind, experts=experts).train()
        clip.visual.transformer.recompute = True
        record_routing(clip)
        if compiled:
            torch.compiler.reset()
            clip.visual.compile(fullgraph=True, backend="aot_eager")
        torch.manual_seed(1)
        features = clip.encode_video(tiny_frames)
        loss = features.square().mean() + sum(share[..., 0].square().mean() for share in take_routing(clip))
        loss.backward()
        results.append((loss.item(), clip.visual.conv1.weight.grad.norm().item()))
    assert results[0] == pytest.approx(results[1], rel=1e-5)
