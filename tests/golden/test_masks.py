"""Masks of STDD's blocks, bit by bit."""

import torch
from einops import rearrange


def window_order_mask(kept, *, grid_size, stride):
    """True where a patch is masked, in window order, (B, T, P * P)."""
    _, down, across = stride
    num_videos, num_frames, _ = kept.shape
    masked = torch.ones(num_videos, num_frames, 1 + grid_size**2, dtype=torch.bool)
    masked.scatter_(2, kept, value=False)
    return rearrange(masked[:, :, 1:], "B T (h i w j) -> B T (h w i j)", i=down, j=across, w=grid_size // across)


def test_masks_are_the_recorded_ones(stdd_case, stdd_recording, golden, build_tower):
    case = stdd_recording(stdd_case)
    clip = build_tower("stcross_attend", train=case["train_mode"], **case["kwargs"])
    num_videos, _, num_frames = golden["inputs"][case["input"]].shape[:3]
    torch.manual_seed(case["seed"])
    # Blocks draw in the order of the forward and nothing else draws in between.
    drawn = [(b.kept(num_videos, num_frames), b.options.mask_stride) for b in clip.visual.transformer.resblocks]
    for (kept, stride), recorded in zip(drawn, case["masks"], strict=False):
        assert torch.equal(window_order_mask(kept, grid_size=clip.sizes.grid_size, stride=stride), recorded)


def test_some_case_has_masks_of_every_block(golden, build_tower):
    depth = len(build_tower(None).visual.transformer.resblocks)
    assert any(len(case.get("masks", ())) == depth for case in golden["stdd"].values())


def test_class_token_leads_and_kept_patches_keep_window_order(stdd_recording, golden, build_tower):
    case = stdd_recording(next(iter(golden["stdd"])))
    block = build_tower("stcross_attend", train=True, **case["kwargs"]).visual.transformer.resblocks[0]
    kept = block.kept(3, 5)
    assert kept[..., 0].eq(0).all()
    table = block.kept_tokens
    position = torch.zeros(int(table.max()) + 1, dtype=torch.long)
    cells = table.transpose(0, 1).flatten(1)
    for number, cell in enumerate(cells):
        position[cell] = number
    assert position[kept[..., 1:]].diff(dim=-1).ge(0).all()
