import pytest
import torch


def test_shape(build_tiny, tiny_frames):
    assert build_tiny().encode_video(tiny_frames).shape == (2, 4, 32)


def test_patches_are_cut_in_raster_order(build_tiny, tiny_frames):
    """The convolution as a loop over patches."""
    visual = build_tiny().visual
    inputs = []
    visual.ln_pre.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    visual(tiny_frames)
    image = tiny_frames[1, :, 2]
    kernel = visual.conv1.weight.flatten(1)
    patches = [image[:, r : r + 8, c : c + 8].flatten() for r in range(0, 32, 8) for c in range(0, 32, 8)]
    tokens = torch.stack([visual.class_embedding, *(kernel @ patch for patch in patches)])
    assert torch.allclose(inputs[0][1, 2], tokens + visual.positional_embedding, atol=1e-5)


def test_without_temporal_module_every_frame_is_on_its_own(build_tiny, tiny_frames):
    clip = build_tiny()
    whole = clip.encode_video(tiny_frames)
    for t in range(4):
        assert torch.allclose(clip.encode_video(tiny_frames[:, :, t : t + 1])[:, 0], whole[:, t], atol=1e-5)


def test_with_temporal_module_frames_see_their_neighbours(build_tiny, tiny_frames):
    clip = build_tiny("stcross_attend", channel_fold=16).eval()
    changed = tiny_frames.clone()
    changed[:, :, 0] = 0
    before, after = clip.encode_video(tiny_frames), clip.encode_video(changed)
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-4)


def test_reversed_frames_change_the_result(build_tiny, tiny_frames):
    clip = build_tiny("stcross_attend", channel_fold=16).eval()
    forwards, backwards = clip.encode_video(tiny_frames), clip.encode_video(tiny_frames.flip(2))
    assert not torch.allclose(forwards.mean(1), backwards.mean(1), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 4, 32, 40), (2, 4, 3, 32, 32), (2, 3, 32, 32), (2, 3, 4, 16, 16)])
def test_wrong_shape(build_tiny, shape):
    with pytest.raises(ValueError, match=r"^frames have shape \(2, .*\); expected \(B, 3, T, 32, 32\)$"):
        build_tiny().encode_video(torch.zeros(shape))


def test_half_precision_tower(build_tiny, tiny_frames):
    """Frames come in fp32; the tower's own precision decides."""
    clip = build_tiny("stcross_attend").eval().bfloat16()
    exact = build_tiny("stcross_attend").eval().encode_video(tiny_frames)
    found = clip.encode_video(tiny_frames)
    assert found.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(found.float(), exact, dim=-1).min() > 0.99
