"""Features of the image tower, outputs of its blocks, and the inside of STDD's first block."""

import torch
from einops import rearrange
from torch.nn import functional as F

from slowfast.models.temporal.st_cross import mix_channels

RUN_OF_THE_REFERENCE = 8  # frames that its channel shift takes for one clip


def run_with_block_outputs(clip, frames, seed):
    """Frame features (B * T, E) and every block's output in the layout of the recording, (L, B * T, D).

    A tower computes only the class token of its last block, so that block is applied once more, with the same masks.
    """
    outputs = []
    *_, last = clip.visual.transformer.resblocks
    class_token = last.class_token

    def keep(module, inputs, output):
        outputs.append(rearrange(output, "B T L D -> L (B T) D"))

    hooks = [block.register_forward_hook(keep) for block in clip.visual.transformer.resblocks]

    def apply_twice(x):
        state = torch.get_rng_state()
        last(x)
        torch.set_rng_state(state)
        return class_token(x)

    last.class_token = apply_twice
    torch.manual_seed(seed)
    with torch.no_grad():
        features = clip.encode_video(frames).flatten(0, 1)
    del last.class_token
    for hook in hooks:
        hook.remove()
    return features, outputs


def assert_blocks_close(found, recorded, assert_close):
    assert len(recorded) <= len(found)
    for output, expected in zip(found, recorded, strict=False):
        assert_close(output[..., : expected.shape[-1]], expected)


def test_temporal_types(vision_case, vision_recording, golden, build_tower, assert_close):
    kind, case = vision_recording(vision_case)
    clip = build_tower(None if kind == "None" else kind, extra_params=case["extra_params"])
    frames = golden["inputs"][case["input"]].float()
    features, outputs = run_with_block_outputs(clip, frames, seed=0)
    assert_close(features, case["image_features"])
    assert_blocks_close(outputs, case["block_out"], assert_close)


def test_channel_shift_with_the_published_defect(golden, build_tower, monkeypatch, assert_close):
    case = golden["vision"].get("channel_shift")
    if case is None or case["T"] != RUN_OF_THE_REFERENCE:
        return  # the recorded shift crossed or cut clips, which ours cannot
    attend = F.scaled_dot_product_attention

    def misread(tokens):
        """The memory of every head, channels before tokens, taken for tokens before channels."""
        return tokens.transpose(-2, -1).reshape(tokens.shape)

    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: attend(q, misread(k), misread(v)))
    frames = golden["inputs"][case["input"]].float()
    features, outputs = run_with_block_outputs(build_tower("channel_shift"), frames, seed=0)
    assert_close(features, case["image_features"])
    assert_blocks_close(outputs, case["block_out"], assert_close)


def test_stdd(stdd_case, stdd_recording, golden, build_tower, assert_close):
    case = stdd_recording(stdd_case)
    clip = build_tower("stcross_attend", train=case["train_mode"], **case["kwargs"])
    frames = golden["inputs"][case["input"]].float()
    features, outputs = run_with_block_outputs(clip, frames, case["seed"])
    assert_close(features, case["image_features"])
    assert_blocks_close(outputs, case["block_out"], assert_close)


def test_one_file_records_the_inside_of_a_block(golden):
    assert any("block0" in case for case in golden["stdd"].values())


def test_tokens_and_channel_mixing_of_the_first_block(stdd_case, stdd_recording, build_tower, golden, assert_close):
    case = stdd_recording(stdd_case)
    if "block0" not in golden["stdd"][stdd_case]:
        return  # only some cases record the inside
    inside = case["block0"]
    block = build_tower("stcross_attend", train=case["train_mode"], **case["kwargs"]).visual.transformer.resblocks[0]
    num_videos, _, num_frames = golden["inputs"][case["input"]].shape[:3]

    def per_video(tokens):
        return rearrange(tokens, "L (B T) D -> B T L D", B=num_videos)

    torch.manual_seed(case["seed"])
    kept = block.kept(num_videos, num_frames)
    x = per_video(inside["x_in"])
    chosen = x.gather(2, kept[..., None].expand(-1, -1, -1, x.shape[-1]))
    assert torch.equal(chosen, per_video(inside["x_mask"]))

    borrowed = 2 * block.borrowed
    for reach, recorded in zip(block.options.temporal_scale, inside["x_mix"], strict=True):
        expected = per_video(recorded)
        mixed = mix_channels(chosen[:, :, 1:, :borrowed], reach=reach, width=block.borrowed)
        assert torch.equal(mixed, expected[:, :, 1:, :borrowed])
        assert torch.equal(chosen[..., borrowed:], expected[..., borrowed:])
        assert torch.equal(chosen[:, :, 0], expected[:, :, 0])
