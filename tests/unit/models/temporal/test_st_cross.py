"""STDD's block against a naive reading of its definition, and the promises of its implementation."""

import math
import re

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from slowfast.models.clip.arch import ClipSizes
from slowfast.models.temporal.st_cross import SpaceTimeCrossBlock, StCrossOptions, mask_table, mix_channels
from slowfast.utils import distributed

WIDTH, HEAD = 128, 64


def make_block(grid=4, *, train=False, width=WIDTH, **options):
    sizes = ClipSizes(
        image_size=8 * grid,
        patch_size=8,
        vision_width=width,
        vision_layers=1,
        embed_dim=32,
        text_width=64,
        text_layers=1,
    )
    torch.manual_seed(11)
    block = SpaceTimeCrossBlock(sizes, StCrossOptions(**{"channel_fold": 16, **options})).train(train)
    for parameter in block.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return block


# --- the oracle: one loop per video, frame, cell, head; fp64 ---


def oracle_kept(block, num_videos, num_frames, grid):
    """Raster numbers of the kept patches of every video and frame, in window order, as nested lists."""
    o = block.options
    _, down, across = o.mask_stride
    q, num_cells = down * across, (grid // down) * (grid // across)
    masked = math.floor(math.floor(o.mask_rate * num_frames * grid * grid) / (num_frames * num_cells))
    phase = torch.zeros(num_videos, 1, dtype=torch.long)
    if block.training:
        phase = torch.randint(q, (num_videos, 1 if o.spatial_repeat else num_cells))
    order = torch.arange(num_frames).expand(num_videos, -1)
    if o.temporal_shuffle and (block.training or o.temporal_shuffle_eval):
        order = torch.rand(num_videos, num_frames).argsort(dim=1)
    kept = []
    for b in range(num_videos):
        kept.append([])
        for t in range(num_frames):
            patches = []
            for cell in range(num_cells):
                top, left = down * (cell // (grid // across)), across * (cell % (grid // across))
                turn = (int(order[b, t]) + int(phase[b, cell % phase.shape[1]])) % q
                base = [1] * masked + [0] * (q - masked)
                row = base[q - turn :] + base[: q - turn]
                patches += [(top + slot // across) * grid + left + slot % across for slot in range(q) if row[slot] == 0]
            kept[b].append(patches)
    return kept


def oracle_attention(p, tokens):
    """Self-attention of one sequence, (L, D), with parameters by name."""
    width = tokens.shape[1]
    weights, biases = p["attn.in_proj_weight"].split(width), p["attn.in_proj_bias"].split(width)
    q, k, v = (tokens @ weight.T + bias for weight, bias in zip(weights, biases, strict=True))
    heads = []
    for start in range(0, width, HEAD):
        part = slice(start, start + HEAD)
        scores = q[:, part] @ k[:, part].T / math.sqrt(HEAD)
        heads.append(scores.softmax(dim=-1) @ v[:, part])
    return torch.cat(heads, dim=1) @ p["attn.out_proj.weight"].T + p["attn.out_proj.bias"]


def oracle_norm(p, name, tokens):
    return F.layer_norm(tokens, (tokens.shape[-1],), p[f"{name}.weight"], p[f"{name}.bias"])


def oracle_mlp(p, tokens):
    hidden = tokens @ p["mlp.c_fc.weight"].T + p["mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return hidden @ p["mlp.c_proj.weight"].T + p["mlp.c_proj.bias"]


def oracle_mix(frames, reach, c):
    """Channel mixing of the kept patches of one video: list over frames of (L, D)."""
    mixed = [frame.clone() for frame in frames]
    for t in range(len(frames)):
        mixed[t][:, : 2 * c] = 0
        for i in range(1, reach + 1):
            count = c >> (i - 1)
            if t - i >= 0:
                mixed[t][:, :count] = frames[t - i][:, :count]
            if t + i < len(frames):
                mixed[t][:, 2 * c - count : 2 * c] = frames[t + i][:, 2 * c - count : 2 * c]
    return mixed


def oracle(block, x):
    num_videos, num_frames, length, width = x.shape
    o = block.options
    kept = oracle_kept(block, num_videos, num_frames, math.isqrt(length - 1))
    c = width // o.channel_fold
    x = x.double()
    p = {name: parameter.double() for name, parameter in block.named_parameters()}
    videos = []
    for b in range(num_videos):
        patches = [x[b, t, [1 + patch for patch in kept[b][t]]] for t in range(num_frames)]
        temporal = [0.0] * num_frames
        for reach in o.temporal_scale:
            for t, mixed in enumerate(oracle_mix(patches, reach, c)):
                z = torch.cat((x[b, t, :1], mixed))
                z = z + oracle_attention(p, oracle_norm(p, "ln_1", z))
                temporal[t] = temporal[t] + z / len(o.temporal_scale)
        frames = []
        for t in range(num_frames):
            full = x[b, t] + oracle_attention(p, oracle_norm(p, "ln_1", x[b, t]))
            merged = full.clone()
            merged[0] = temporal[t][0]
            for slot, patch in enumerate(kept[b][t]):
                merged[1 + patch] = temporal[t][1 + slot]
            read = merged if o.stcross_mlp_input == "merged" else full
            frames.append(merged + oracle_mlp(p, oracle_norm(p, "ln_2", read)))
        videos.append(torch.stack(frames))
    return torch.stack(videos)


CASES = {
    "defaults": {},
    "rate 0 sends every patch": {"mask_rate": 0.0},
    "rate 1 leaves the class token": {"mask_rate": 1.0},
    "a rate between": {"mask_rate": 0.3},
    "one patch per cell": {"mask_stride": [1, 1, 1]},
    "wide cells": {"mask_stride": [1, 1, 2]},
    "tall cells": {"mask_stride": [1, 4, 1]},
    "scale 2": {"temporal_scale": [2]},
    "two scales": {"temporal_scale": [1, 3]},
    "the same scale twice": {"temporal_scale": [2, 2]},
    "odd number of borrowed channels": {"temporal_scale": [1, 3], "channel_fold": 24},
    "scale beyond the narrowest slice": {"temporal_scale": [4], "channel_fold": 64, "num_frames": 6},
    "half of the channels": {"channel_fold": 2},
    "no channel": {"channel_fold": 1000},
    "a phase per cell": {"spatial_repeat": False},
    "no shuffle": {"temporal_shuffle": False},
    "shuffle in evaluation": {"temporal_shuffle_eval": True},
    "merged": {"stcross_mlp_input": "merged", "temporal_scale": [1, 2]},
    "one frame": {"num_frames": 1, "temporal_scale": [1, 2]},
    "scale longer than the clip": {"num_frames": 3, "temporal_scale": [5]},
    "odd grid": {"grid": 3, "mask_stride": [1, 3, 1]},
}


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CASES)
def test_block_and_gradients_agree_with_the_naive_loops(name, train):
    options = dict(CASES[name])
    grid, num_frames = options.pop("grid", 4), options.pop("num_frames", 5)
    block = make_block(grid, train=train, **options)
    x = torch.randn(2, num_frames, 1 + grid * grid, WIDTH)
    pull = torch.randn(x.shape)

    results = []
    for function in (block, lambda tokens: oracle(block, tokens)):
        torch.manual_seed(3)
        tokens = x.clone().requires_grad_()
        block.zero_grad()
        output = function(tokens)
        (output * pull).sum().backward()
        gradients = {"input": tokens.grad, **{n: p.grad.clone() for n, p in block.named_parameters()}}
        results.append((output.detach(), gradients))
    (found, found_gradients), (expected, expected_gradients) = results

    assert torch.allclose(found.double(), expected, atol=2e-5, rtol=0)
    for key, gradient in expected_gradients.items():
        error = (found_gradients[key] - gradient).abs().max().item()
        assert error <= 2e-5 * max(1.0, gradient.abs().max().item()), key


def test_merged_and_unmerged_input_differ():
    x = torch.randn(1, 4, 17, WIDTH)
    assert not torch.allclose(make_block()(x), make_block(stcross_mlp_input="merged")(x), atol=1e-4)


def test_documented_cycle_of_kept_positions():
    """Half of each 2 x 2 cell is kept; positions TL TR BL BR = 0..3 cycle with period 4."""
    block = make_block(temporal_shuffle=False)
    first_cell = [0, 1, 4, 5]
    kept = block.kept(1, 8)[0, :, 1:3] - 1
    assert [[first_cell.index(int(p)) for p in row] for row in kept] == [[2, 3], [0, 3], [0, 1], [1, 2]] * 2


def test_tokens_of_the_temporal_branch_have_the_documented_number():
    assert make_block(14).kept(1, 8).shape == (1, 8, 99)
    assert make_block(16).kept(1, 8).shape == (1, 8, 129)
    assert make_block(4, mask_rate=1.0).kept(2, 3).shape == (2, 3, 1)


def test_evaluation_is_deterministic_by_default():
    block = make_block()
    x = torch.randn(3, 4, 17, WIDTH)
    state = torch.get_rng_state()
    first = block(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(block(x), first)
    assert torch.allclose(block(x[1:2]), first[1:2], atol=1e-6)


def test_published_evaluation_depends_on_the_random_state():
    block = make_block(temporal_shuffle_eval=True)
    drawn = set()
    for seed in range(5):
        torch.manual_seed(seed)
        drawn.add(tuple(block.kept(2, 8).flatten().tolist()))
    assert len(drawn) == 5


def test_shuffle_off_wins_over_shuffle_in_evaluation():
    block = make_block(temporal_shuffle=False, temporal_shuffle_eval=True)
    assert torch.equal(block.kept(2, 8)[0], block.kept(2, 8)[1])


def test_state_dict_is_that_of_a_clip_block():
    names = set(make_block().state_dict())
    parts = ("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
    assert len(names) == 12
    assert all(name.startswith(parts) for name in names)


def test_ranks_share_the_draw_of_one_rank(monkeypatch):
    """Two ranks with two videos each see the masks of one rank with four, block after block."""
    blocks = [make_block(train=True, spatial_repeat=False) for _ in range(2)]
    torch.manual_seed(9)
    whole = [block.kept(4, 6) for block in blocks]
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        torch.manual_seed(9)
        for block, expected in zip(blocks, whole, strict=True):
            assert torch.equal(block.kept(2, 6), expected[2 * rank : 2 * rank + 2])


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operators = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operators.add(function.overloadpacket._qualified_op_name)
        if function.overloadpacket is torch.ops.aten.index:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.operators.add("boolean indexing")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_forward_and_backward_never_wait_for_the_device(train):
    block = make_block(train=train, spatial_repeat=False, temporal_shuffle_eval=True, temporal_scale=[1, 2])
    x = torch.randn(2, 4, 17, WIDTH, requires_grad=True)
    with Recorder() as recorder:
        block(x).sum().backward()
    waiting = {"nonzero", "_local_scalar_dense", "masked_select", "index_put", "index_put_", "_index_put_impl_"}
    assert "aten::index_select" in recorder.operators
    assert not {f"aten::{name}" for name in waiting} & recorder.operators
    assert "boolean indexing" not in recorder.operators


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_number_of_operations_does_not_grow_with_the_frames(train):
    """No Python loop over frames: 4 and 16 frames run the same number of operations."""

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += 1
            return function(*args, **(kwargs or {}))

    block = make_block(train=train, temporal_scale=[1, 2])
    counts = []
    for num_frames in (4, 16):
        with Counter() as counter:
            block(torch.zeros(1, num_frames, 17, WIDTH))
        counts.append(counter.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_runs_without_data(train):
    """On the meta device there are no values to look at, so nothing in the forward may depend on them."""
    block = make_block(train=train, temporal_shuffle_eval=True).to("meta")
    assert block(torch.empty(2, 4, 17, WIDTH, device="meta")).shape == (2, 4, 17, WIDTH)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_compiles_as_one_graph(train):
    torch._dynamo.reset()
    block = make_block(train=train, temporal_scale=[1, 2])
    x = torch.randn(2, 4, 17, WIDTH)
    compiled = torch.compile(block, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.manual_seed(4)
    found = compiled(x)
    torch.manual_seed(4)
    assert torch.allclose(found, block(x), atol=1e-5)
    found.sum().backward()
    assert block.attn.in_proj_weight.grad is not None


def test_autocast_keeps_the_dtype_of_the_residual():
    block = make_block(temporal_scale=[1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block(torch.randn(1, 4, 17, WIDTH, dtype=torch.bfloat16)).dtype == torch.bfloat16
        assert block(torch.randn(1, 4, 17, WIDTH)).dtype == torch.float32


def test_mix_channels_leaves_the_input_alone():
    patches = torch.randn(1, 4, 3, 8)
    before = patches.clone()
    mix_channels(patches, reach=2, width=4)
    assert torch.equal(patches, before)


def test_mask_table_lists_raster_numbers_by_phase_and_cell():
    table = mask_table(StCrossOptions(mask_stride=[1, 1, 2]), grid_size=2)
    assert table.tolist() == [[[2], [4]], [[1], [3]]]


def test_masked_number_is_the_published_one_for_any_number_of_frames():
    for hundredths in range(101):
        options = StCrossOptions(mask_rate=hundredths / 100)
        for grid in (4, 14):
            cells = grid * grid // 4
            kept = mask_table(options, grid_size=grid).shape[2]
            for frames in (1, 3, 8, 32):
                published = math.floor(math.floor(options.mask_rate * frames * grid * grid) / (frames * cells))
                assert kept == 4 - published


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_rate": 1.5}, "MODEL.MASK_RATE: 1.5 is outside [0, 1]"),
        ({"mask_stride": [2, 2, 2]}, "MODEL.MASK_STRIDE: [2, 2, 2]; expected [1, s1, s2] with s1, s2 >= 1"),
        ({"mask_stride": [1, 2]}, "MODEL.MASK_STRIDE: [1, 2]; expected [1, s1, s2] with s1, s2 >= 1"),
        ({"channel_fold": 1}, "MODEL.CHANNEL_FOLD: 1; it must be at least 2"),
        ({"temporal_scale": 2}, "MODEL.TEMPORAL_SCALE: 2; expected a list of frame counts >= 1"),
        ({"temporal_scale": []}, "MODEL.TEMPORAL_SCALE: []; expected a list of frame counts >= 1"),
        ({"temporal_scale": [0]}, "MODEL.TEMPORAL_SCALE: [0]; expected a list of frame counts >= 1"),
        ({"stcross_qkv": "thin"}, "MODEL.STCROSS_QKV: unknown value 'thin'; allowed: auto, own, shared"),
        ({"stcross_mlp_input": "both"}, "MODEL.STCROSS_MLP_INPUT: unknown value 'both'; allowed: unmerged, merged"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        StCrossOptions(**options)


def test_grid_that_the_cells_do_not_divide():
    with pytest.raises(ValueError, match=r"^MODEL.MASK_STRIDE: \[1, 2, 2\] does not divide the grid of 7 x 7 patches$"):
        make_block(7, mask_stride=[1, 2, 2])
