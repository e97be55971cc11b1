"""CLIP with a ResNet image tower: the tower against functions of PyTorch, its files, and what it refuses."""

import re
import warnings

import pytest
import torch
from torch.nn import functional as F

from slowfast.config.defaults import get_cfg
from slowfast.engine.complexity import count_gflops
from slowfast.engine.interpolated_step import clip_parameters, clip_tensors
from slowfast.methods.build import build_method
from slowfast.models.build import ExpertOptions, build_clip, freeze
from slowfast.models.clip.arch import PUBLISHED, ClipSizes, ResNetSizes, read_sizes
from slowfast.models.clip.convert import Rules, convert, target_state, write_weights
from slowfast.models.clip.model import CLIP
from slowfast.models.clip.resnet import ModifiedResNet
from slowfast.models.clip.weights import clip_entries, random_clip_state_dict, read_clip

SIZES = ResNetSizes(
    image_size=64,
    vision_width=4,
    vision_layers=(1, 2, 1, 1),
    embed_dim=16,
    text_width=64,
    text_layers=1,
    context_length=16,
    vocab_size=50,
)
SMALLEST = {
    **{"image_size": 32, "vision_width": 4, "vision_layers": (1, 1, 1, 1)},
    **{"embed_dim": 32, "text_width": 64, "text_layers": 1},
}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def lively(sizes, seed=0):
    """Random weights whose batch norms all do something."""
    state = random_clip_state_dict(sizes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.startswith("visual.") and tensor.ndim == 1:
            noise = torch.rand(tensor.shape, generator=generator)
            state[name] = 0.5 + noise if name.endswith(("weight", "running_var")) else 0.4 * noise - 0.2
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
    return state


@pytest.fixture(scope="module")
def state():
    return lively(SIZES)


@pytest.fixture(scope="module")
def whole_state():
    """For 32 pixels and the tokenizer's vocabulary, which methods need."""
    return lively(ResNetSizes(**SMALLEST))


@pytest.fixture
def frames():
    """(2, 3, 3, 64, 64)."""
    return torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def build(whole_state, tmp_path, tiny_labels, descriptor_keys):
    """Builds a method with the ResNet as a file: build(METHOD="ost")."""
    torch.save(whole_state, tmp_path / "resnet.pt")

    def make(**keys):
        cfg = get_cfg()
        keys = {"MODEL.ARCH": "custom", "MODEL.CLIP_WEIGHTS": str(tmp_path / "resnet.pt"), **descriptor_keys, **keys}
        cfg.merge_from_list([item for pair in keys.items() for item in pair])
        return build_method(cfg, tiny_labels)

    return make


def plain_tower(state, images, *, train):
    """The tower by functions of PyTorch and names alone, images (N, 3, H, W) -> (N, E)."""
    own = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}

    def conv(x, name, **options):
        return F.conv2d(x, own[f"{name}.weight"], **options)

    def norm(x, name):
        weight, bias, mean, var = (own[f"{name}.{part}"] for part in NORM[:4])
        return F.batch_norm(x, mean.clone(), var.clone(), weight, bias, training=train)

    x = F.relu(norm(conv(images, "conv1", stride=2, padding=1), "bn1"))
    x = F.relu(norm(conv(x, "conv2", padding=1), "bn2"))
    x = F.avg_pool2d(F.relu(norm(conv(x, "conv3", padding=1), "bn3")), 2)
    blocks = sorted({name.rsplit(".conv1.", 1)[0] for name in own if ".conv1." in name})
    for block in blocks:
        y = F.relu(norm(conv(x, f"{block}.conv1"), f"{block}.bn1"))
        y = F.relu(norm(conv(y, f"{block}.conv2", padding=1), f"{block}.bn2"))
        if block.endswith(".0") and block != "layer1.0":
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        y = norm(conv(y, f"{block}.conv3"), f"{block}.bn3")
        if f"{block}.downsample.0.weight" in own:
            x = norm(conv(x, f"{block}.downsample.0"), f"{block}.downsample.1")
        x = F.relu(x + y)
    tokens = x.flatten(2).permute(2, 0, 1)  # (places, N, D)
    tokens = torch.cat((tokens.mean(0, keepdim=True), tokens)) + own["attnpool.positional_embedding"][:, None]
    projections = {f"{letter}_proj_weight": own[f"attnpool.{letter}_proj.weight"] for letter in "qkv"}
    bias = torch.cat([own[f"attnpool.{letter}_proj.bias"] for letter in "qkv"])
    width = tokens.shape[-1]
    pooled, _ = F.multi_head_attention_forward(
        tokens, tokens, tokens, width, width // 64, None, bias, None, None, False, 0.0,
        own["attnpool.c_proj.weight"], own["attnpool.c_proj.bias"],
        training=train, need_weights=False, use_separate_proj_weight=True, **projections,
    )  # fmt: skip
    return pooled[0]


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_features_and_gradients(state, frames, train):
    clip = build_clip(state).double().train(train)
    own = {name: tensor.double() for name, tensor in state.items() if name.startswith("visual.")}
    images = frames.transpose(1, 2).flatten(0, 1).double()
    for name, _ in clip.visual.named_parameters():
        own[f"visual.{name}"].requires_grad_()
    found = clip.encode_video(frames.double())
    expected = plain_tower(own, images, train=train)
    assert found.shape == (2, 3, SIZES.embed_dim)
    assert torch.allclose(found.flatten(0, 1), expected, rtol=0, atol=1e-12)

    (found * found).sum().backward()
    (expected * expected).sum().backward()
    for name, parameter in clip.visual.named_parameters():
        assert torch.allclose(parameter.grad, own[f"visual.{name}"].grad, rtol=1e-9, atol=1e-9), name


def test_running_statistics(state, frames):
    """One tenth of the new, the deviation unbiased, counted; evaluation moves nothing."""
    clip = build_clip(state).train()
    clip.encode_video(frames)
    images = frames.transpose(1, 2).flatten(0, 1)
    x = F.conv2d(images, state["visual.conv1.weight"], stride=2, padding=1)
    norm = clip.visual.bn1
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=1)
    assert torch.allclose(norm.running_mean, 0.9 * state["visual.bn1.running_mean"] + 0.1 * mean, atol=1e-6)
    assert torch.allclose(norm.running_var, 0.9 * state["visual.bn1.running_var"] + 0.1 * var, atol=1e-6)
    assert norm.num_batches_tracked == 8
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    clip.eval().encode_video(frames)
    assert all(torch.equal(before[name], tensor) for name, tensor in clip.state_dict().items())


def test_evaluation_sees_each_frame_alone(state, frames):
    clip = build_clip(state).eval()
    with torch.no_grad():
        assert torch.allclose(clip.encode_video(frames)[1:, 2:], clip.encode_video(frames[1:, :, 2:]), atol=1e-6)


def test_only_the_mean_asks(state, frames):
    clip, seen = build_clip(state).eval(), []
    for letter in "qkv":
        getattr(clip.visual.attnpool, f"{letter}_proj").register_forward_hook(lambda *args: seen.append(args[2].shape))
    clip.encode_video(frames)
    assert [tuple(shape) for shape in seen] == [(6, 1, 128), (6, 5, 128), (6, 5, 128)]


def test_a_tower_that_does_not_train_keeps_its_statistics(state, frames):
    clip = build_clip(state)
    clip.visual.requires_grad_(requires_grad=False)
    clip.train().encode_video(frames)
    assert clip.training
    assert all(torch.equal(state[name], tensor) for name, tensor in clip.state_dict().items())
    clip.visual.bn1.weight.requires_grad = True
    assert clip.train().visual.training
    freeze(clip)
    assert not clip.visual.training


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 4, 3, 64, 64), (2, 3, 3, 32, 32), (2, 3, 3, 64, 32)])
def test_other_shapes_are_refused(state, shape):
    message = f"frames have shape {shape}; expected (B, 3, T, 64, 64)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_clip(state).encode_video(torch.zeros(shape))


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_compiled_in_one_piece(state, frames, train):
    results = []
    for compiled in (False, True):
        clip = build_clip(state).train(train)
        if compiled:
            torch.compiler.reset()
            clip.visual.compile(fullgraph=True, backend="aot_eager")
        features = clip.encode_video(frames)
        features.square().sum().backward()
        results.append((features.detach(), clip.visual.conv1.weight.grad, clip.visual.layer4[0].bn3.running_var))
    for eager, program in zip(*results, strict=True):
        assert torch.allclose(eager, program, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(state, frames, dtype):
    clip = build_clip(state).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        mixed = clip.encode_video(frames)
    with torch.no_grad():
        expected = clip.encode_video(frames)
    assert (mixed.float() - expected).abs().max() < 0.05 * expected.abs().max()


# --- names, sizes, files ---


def test_names_are_openais(state):
    expected = {"positional_embedding", "text_projection", "logit_scale", "token_embedding.weight"}
    expected |= {f"ln_final.{part}" for part in NORM[:2]}
    for name in ("attn.in_proj_", "attn.out_proj.", "ln_1.", "mlp.c_fc.", "mlp.c_proj.", "ln_2."):
        expected |= {f"transformer.resblocks.0.{name}{part}" for part in NORM[:2]}
    blocks = ["visual", *(f"visual.layer{block}" for block in ("1.0", "2.0", "2.1", "3.0", "4.0"))]
    for block in blocks:
        for number in "123":
            expected |= {f"{block}.conv{number}.weight", *(f"{block}.bn{number}.{part}" for part in NORM)}
        if block.endswith(".0"):
            expected |= {f"{block}.downsample.0.weight", *(f"{block}.downsample.1.{part}" for part in NORM)}
    expected |= {f"visual.attnpool.{letter}_proj.{part}" for letter in "qkvc" for part in NORM[:2]}
    expected.add("visual.attnpool.positional_embedding")
    assert set(build_clip(state).state_dict()) == set(state) == expected


def test_published_model():
    """Parameters as CLIP-FSAR counts them, without its temporal layer of width 1024 and its scale."""
    with torch.device("meta"):
        tower = CLIP(PUBLISHED["rn50"].sizes).visual
    layer = 3 * 1024**2 + (1024**2 + 1024) + 2 * 2048 * 1024 + 2048 + 1024 + 2 * 1024
    assert sum(parameter.numel() for parameter in tower.parameters()) == 46_711_649 - layer - 1
    assert tuple(tower.attnpool.positional_embedding.shape) == (50, 2048)
    assert tower.attnpool.num_heads == 32
    assert len(tower.state_dict()) == 351 - 12
    assert PUBLISHED["rn50"].url.endswith(f"/{PUBLISHED['rn50'].sha256}/RN50.pt")


def test_sizes_are_read_off_the_state_dict(state):
    assert read_sizes(state) == SIZES
    with pytest.raises(ValueError, match=r"^a\.pt: holds a CLIP with a ResNet .* are supported by METHOD x$"):
        ClipSizes.from_state_dict(state, source="a.pt", taker="METHOD x")


@pytest.mark.parametrize(
    ("gone", "what"),
    [
        ("visual.layer3.", "visual.layer3 is missing"),
        ("visual.attnpool.", "visual.attnpool.positional_embedding is missing (found "),
        ("text_projection", "text_projection is missing (found "),
    ],
)
def test_state_dict_without_a_size(state, gone, what):
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(gone)}
    with pytest.raises(ValueError, match=f"^a\\.pt: not a CLIP state dict: {re.escape(what)}"):
        read_sizes(rest, source="a.pt")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vision_width", 5, "CLIP vision_width is 5; of a ResNet it must be an even number"),
        ("vision_layers", (1, 0, 1, 1), "CLIP vision_layers is (1, 0, 1, 1); a ResNet has 4 stages of some blocks"),
        ("vision_layers", (1, 1), "CLIP vision_layers is (1, 1); a ResNet has 4 stages of some blocks"),
        ("image_size", 48, "CLIP image_size 48 is not a multiple of 32, as of a ResNet"),
        ("text_width", 65, "CLIP text_width is 65; it must be a multiple of 64"),
    ],
)
def test_impossible_sizes(name, value, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ResNetSizes(**{**SMALLEST, name: value})


def test_odd_width_names_the_file(state):
    with pytest.raises(ValueError, match=r"^a\.pt: vision width 5 of a ResNet is not an even number$"):
        read_sizes({**state, "visual.layer1.0.conv1.weight": torch.zeros(5, 5, 1, 1)}, source="a.pt")


def test_random_weights(state):
    first, again = (random_clip_state_dict(SIZES, seed=3) for _ in range(2))
    assert first.keys() == state.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not first["visual.layer2.1.bn3.weight"].any()
    assert first["visual.bn3.weight"].all()
    assert first["visual.layer1.0.bn1.num_batches_tracked"].dtype == torch.long


def test_openais_archive(state, frames, tmp_path):
    """TorchScript with half-precision matrices, counters, and the sizes that OpenAI keeps beside the weights."""

    class Traceable(CLIP):
        def forward(self, frames, tokens):
            return self.logit_scale * self.encode_video(frames).mean(), self.encode_text(tokens)

    clip = Traceable(SIZES)
    clip.load_state_dict(state)
    for name, value in (("input_resolution", 64), ("context_length", 16), ("vocab_size", 50)):
        clip.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(clip.eval(), (frames, torch.tensor([[48, 5, 49]])), check_trace=False)
        for parameter in traced.parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.half()
        traced.save(str(tmp_path / "RN.pt"))
    with pytest.raises(ValueError, match="which is none of the published CLIPs"):
        read_clip(tmp_path / "RN.pt")
    found, activation = read_clip(tmp_path / "RN.pt", allow_torchscript=True)
    assert activation == "quick_gelu"
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor.half() if tensor.ndim > 1 else tensor), name
    assert build_clip(found).visual.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("to", "suffix"), [("ours", ".pyth"), ("openai", ".pt"), ("openai", ".safetensors"), ("ost", ".pth")]
)
def test_converted_and_back(state, tmp_path, to, suffix):
    result = convert(state, Rules(to=to), source="a.pt")
    assert not result.faults
    path = tmp_path / f"converted{suffix}"
    write_weights(result, path, to=to, activation="quick_gelu")
    found, activation = read_clip(path)
    assert activation == "quick_gelu"
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_a_checkpoint_of_a_training(state):
    prefixed = {f"module.model.{name}": tensor for name, tensor in state.items()}
    prefixed["module.projector_v.0.weight"] = torch.zeros(3)
    assert clip_entries(prefixed, source="a.pyth").keys() == state.keys()
    assert target_state(convert(prefixed, Rules(to="openai"), source="a.pyth"), "openai").keys() == state.keys()


def test_faults_of_a_conversion(state):
    name, counter = "visual.layer2.1.bn2.running_var", "visual.bn1.num_batches_tracked"
    rest = {key: tensor for key, tensor in state.items() if key != name}
    assert convert(rest, Rules(), source="a.pt").faults == {"missing": [name]}
    prompts = {"visual.VPT": torch.zeros(2, 4)}
    assert convert({**state, **prompts}, Rules(), source="a.pt").faults == {"unexpected": ["visual.VPT"]}
    wrong = convert({**state, counter: torch.tensor(1.0)}, Rules(), source="a.pt").wrong
    assert wrong == [f"{counter} is torch.float32 instead of an integer type"]
    with pytest.raises(ValueError, match=r"^a\.pt: .* only ViT image towers are supported by TC-CLIP$"):
        convert(state, Rules(to="tc_clip"), source="a.pt")


# --- what needs a ViT, and what does not ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"temporal_modeling_type": "stcross_attend"},
            "MODEL.TEMPORAL_MODELING_TYPE: 'stcross_attend' needs a ViT image tower, and a.pt holds a ResNet; "
            "allowed: None",
        ),
        (
            {"experts": ExpertOptions(count=2)},
            "MODEL.NUM_EXPERTS: 2 needs a ViT image tower, and a.pt holds a ResNet; allowed: 0",
        ),
    ],
)
def test_blocks_are_refused(state, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_clip(state, source="a.pt", **options)


def test_recomputation_is_refused(state):
    clip = build_clip(state)
    clip.recompute_blocks(on=False)
    message = "MODEL.USE_CHECKPOINT: True, but a ResNet image tower cannot recompute; allowed: False"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clip.recompute_blocks(on=True)
    assert not clip.transformer.recompute


@pytest.mark.parametrize("method", ["tc_clip", "vifi_clip"])
def test_methods_that_need_a_vit(build, method):
    with pytest.raises(ValueError, match=rf"only ViT image towers are supported by METHOD {method}$"):
        build(METHOD=method)


@pytest.mark.parametrize(
    "keys",
    [
        {"METHOD": "stdd", "MODEL.KEEP_RAW_MODEL": True, "MODEL.RAW_MODEL_DISTILLATION": True},
        {"METHOD": "ost"},
    ],
    ids=["stdd", "ost"],
)
def test_methods_that_take_any_clip(build, make_batch, keys):
    method, batch = build(**keys), make_batch(num_videos=3)
    assert isinstance(method.model.visual, ModifiedResNet)
    assert count_gflops(method, batch, training=True) > 0
    method.train()
    sum(method(batch).losses.values()).backward()
    assert [name for name, parameter in method.trainable_parameters() if parameter.grad is None] == []
    assert method.model.visual.bn1.num_batches_tracked == 8
    fresh = build(**keys).eval()
    fresh.load_state_dict(method.checkpoint_state(), strict=False)
    with torch.no_grad():
        assert torch.equal(fresh(batch).logits, method.eval()(batch).logits)
    if "MODEL.KEEP_RAW_MODEL" in keys:
        assert method.raw_model.visual.bn1.num_batches_tracked == 7  # frozen, whatever the mode of the method


def test_a_frozen_tower_of_ost_keeps_its_statistics(build, make_batch):
    method = build(**{"METHOD": "ost", "OST.USE": "text"}).train()
    method(make_batch(num_videos=3))
    assert method.model.visual.bn1.num_batches_tracked == 7


def test_explanations(build, make_batch):
    message = "DEMO.EXPLAIN: True, but a ResNet image tower has no patches to show; allowed: False"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build().explain(make_batch())
    assert build(METHOD="ost").explain(make_batch())[0].matches


def test_interpolated_weights_are_refused(build):
    message = "TRAIN.LINEAR_CONNECT_CLIMB: needs a ViT image tower, and this CLIP has a ResNet; allowed: False"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clip_parameters(build())


def test_raw_clip_of_a_method_has_its_statistics(build, whole_state):
    """So that shares of raw CLIP are the same from a file and from the CLIP that a run built."""
    found = clip_tensors(build(), source="TEST.PATCHING_RATIOS")
    assert found.keys() == whole_state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in whole_state.items())
