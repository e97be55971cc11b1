import logging
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.engine.build import (
    build_lr_schedule,
    build_optimizer,
    load_test_weights,
    read_test_weights,
)
from slowfast.engine.licenses import tell_licenses
from slowfast.engine.lr_policy import learning_rate
from slowfast.models.build import build_clip
from slowfast.models.clip.weights import random_clip_state_dict


def published():
    """SOLVER keys of the published training script."""
    cfg = get_cfg()
    cfg.merge_from_list([
        "SOLVER.BASE_LR", 3.33e-6, "SOLVER.COSINE_END_LR", 3.33e-8, "SOLVER.WARMUP_START_LR", 3.33e-8,
        "SOLVER.WARMUP_EPOCHS", 2.0, "SOLVER.COSINE_AFTER_WARMUP", True, "SOLVER.MAX_EPOCH", 22,
        "SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.WEIGHT_DECAY", 0.01, "SOLVER.ZERO_WD_1D_PARAM", True,
    ])  # fmt: skip
    return cfg


class Parts(nn.ModuleDict):
    """Stands in for a method."""

    learning_rate_factors = {}  # noqa: RUF012
    undecayed_names = ()


def network():
    return Parts({"mlp": nn.Linear(2, 3), "head": nn.Linear(3, 2)})


def test_published_schedule():
    schedule = build_lr_schedule(published())
    assert learning_rate(0, schedule) == pytest.approx(3.33e-8)
    assert learning_rate(2, schedule) == pytest.approx(3.33e-6)
    assert learning_rate(12, schedule) == pytest.approx((3.33e-6 + 3.33e-8) / 2)
    assert learning_rate(22, schedule) == pytest.approx(3.33e-8)


def test_step_schedule():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.LR_POLICY", "steps_with_relative_lrs", "SOLVER.STEPS", [0, 4], "SOLVER.LRS", [1, 0.1]])
    assert learning_rate(5, build_lr_schedule(cfg)) == pytest.approx(cfg.SOLVER.BASE_LR / 10)


@pytest.mark.parametrize("name", ["adamw", "mt_adamw"])
def test_published_optimizer(name):
    cfg = published()
    cfg.SOLVER.OPTIMIZING_METHOD = name
    optimizer = build_optimizer(cfg, network())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(g["weight_decay"], g["lr"], g["betas"], g["eps"]) for g in optimizer.param_groups] == [
        (0.01, 3.33e-6, (0.9, 0.999), 1e-8),
        (0.0, 3.33e-6, (0.9, 0.999), 1e-8),
    ]


def test_factors_from_the_model_keys():
    cfg, net = published(), network()
    cfg.MODEL.MLP_FINETUNE_FACTOR, cfg.MODEL.DEFAULT_FINETUNE_FACTOR = 2.0, 0.0
    optimizer = build_optimizer(cfg, net)
    assert [g["names"] for g in optimizer.param_groups] == [["mlp.weight"], ["mlp.bias"]]
    assert {g["lr_factor"] for g in optimizer.param_groups} == {2.0}
    assert not net["head"].weight.requires_grad


def test_factors_of_the_method_multiply_those_of_the_model_keys():
    cfg, net = published(), network()
    net.learning_rate_factors = {"head.": 10.0}
    cfg.SOLVER.ZERO_WD_1D_PARAM = False
    found = [(g["names"], g["lr_factor"], g["lr"]) for g in build_optimizer(cfg, net).param_groups]
    assert found == [
        (["mlp.weight", "mlp.bias"], 1.0, 3.33e-6),
        (["head.weight", "head.bias"], 10.0, pytest.approx(3.33e-5)),
    ]
    cfg.MODEL.DEFAULT_FINETUNE_FACTOR = 0.5
    assert [g["lr_factor"] for g in build_optimizer(cfg, net).param_groups] == [1.0, 5.0]
    cfg.MODEL.DEFAULT_FINETUNE_FACTOR = 0.0
    assert [g["names"] for g in build_optimizer(cfg, net).param_groups] == [["mlp.weight", "mlp.bias"]]


def test_a_method_asks_for_no_factors_unless_it_says_so(make_method):
    assert make_method().learning_rate_factors == {}


def test_few_shot_schedule_of_tc_clip():
    cfg = get_cfg()
    cfg.merge_from_list([
        "SOLVER.BASE_LR", 2e-6, "SOLVER.COSINE_END_LR", 2e-8, "SOLVER.WARMUP_START_LR", 0.0,
        "SOLVER.WARMUP_EPOCHS", 5.0, "SOLVER.MAX_EPOCH", 50, "SOLVER.LR_POLICY", "cosine_shared_end",
    ])  # fmt: skip
    schedule = build_lr_schedule(cfg)
    assert [learning_rate(epoch, schedule) for epoch in (0, 2.5, 5)] == pytest.approx([0, 1e-6, 1.952e-6], rel=1e-3)
    assert [learning_rate(50, schedule, factor) for factor in (1.0, 10.0)] == pytest.approx([2e-8, 2e-8])


def test_routing_factor_alone_changes_nothing():
    cfg = published()
    cfg.MODEL.ROUTING_FINETUNE_FACTOR = 0.0
    net = Parts({"routing": nn.Linear(2, 2, bias=False)})
    (group,) = build_optimizer(cfg, net).param_groups
    assert group["lr_factor"] == 1.0


def test_layer_decay_is_refused():
    cfg = published()
    cfg.SOLVER.LAYER_DECAY = 0.5
    with pytest.raises(ValueError, match=r"SOLVER\.LAYER_DECAY: 0\.5"):
        build_optimizer(cfg, network())


class Untrained(nn.Identity):
    """What a test needs of a method that has no weights."""

    needs_weights = ""


def test_learned_vectors_without_weights_are_no_clip(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    method = Untrained()
    method.needs_weights = "SOME.KEY: something is random"
    with pytest.raises(ValueError, match=r"^SOME\.KEY: something is random where no weights are named, and OUTPUT_DIR"):
        load_test_weights(cfg, method)


def test_patching_without_a_file_to_patch_is_said(tmp_path, caplog):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.PATCHING_MODEL = True
    with caplog.at_level(logging.WARNING):
        assert load_test_weights(cfg, Untrained()) is None
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("TEST.PATCHING_MODEL has no effect without TEST.CUSTOM_LOAD")


FACTORS = {
    "FINETUNE_FACTOR": ("message_", 2.0),
    "ADAPT_FINETUNE_FACTOR": ("stadapt_", 3.0),
    "MLP_FINETUNE_FACTOR": ("mlp", 4.0),
    "EXPERT_FINETUNE_FACTOR": ("experts_", 5.0),
    "ROUTING_FINETUNE_FACTOR": ("routing", 6.0),
    "DEFAULT_FINETUNE_FACTOR": ("", 0.5),
}
"""MODEL key -> how the modules are called whose learning rate it scales, and a factor."""


def key_of(name):
    """The MODEL key that decides about a parameter, found by the names of its modules."""
    modules = name.split(".")[:-1]
    return next(
        key for key, (start, _) in FACTORS.items() if not start or any(part.startswith(start) for part in modules)
    )


@pytest.fixture(params=["cross_frame_attend", "stadapt_zeroinit"])
def adapted(request, build_tiny):
    """A CLIP whose blocks have an adapter and experts, as the part `model` of a method."""
    clip = build_tiny(request.param)
    for block in clip.visual.transformer.resblocks:
        block.add_experts(2)
    return Parts({"model": clip})


def test_every_keyword_has_its_factor(adapted):
    cfg = published()
    for key, (_, factor) in FACTORS.items():
        setattr(cfg.MODEL, key, factor)
    optimizer = build_optimizer(cfg, adapted)
    found = {name: (group["lr_factor"], group["lr"]) for group in optimizer.param_groups for name in group["names"]}
    rates = {key: (factor, cfg.SOLVER.BASE_LR * factor) for key, (_, factor) in FACTORS.items()}
    assert found == {name: rates[key_of(name)] for name, _ in adapted.named_parameters()}
    adapter = {key_of(name) for name in found} & {"FINETUNE_FACTOR", "ADAPT_FINETUNE_FACTOR"}
    assert len(adapter) == 1
    assert {key_of(name) for name in found} - adapter == FACTORS.keys() - {"FINETUNE_FACTOR", "ADAPT_FINETUNE_FACTOR"}
    modules = {part for name in found for part in name.split(".")}
    assert {"experts_head", "experts_tail", "routing1", "routing2"} < modules


@pytest.mark.parametrize("frozen", FACTORS)
def test_factor_zero_freezes_its_modules_only(adapted, frozen):
    cfg = published()
    cfg.MODEL.MLP_FINETUNE_FACTOR = 4.0  # the routing's factor alone asks for no groups, as published
    setattr(cfg.MODEL, frozen, 0.0)
    optimizer = build_optimizer(cfg, adapted)
    kept = {name for group in optimizer.param_groups for name in group["names"]}
    assert kept == {name for name, _ in adapted.named_parameters() if key_of(name) != frozen}
    assert kept == {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}


@pytest.fixture
def method(tiny_state):
    """A method as far as loading goes."""
    holder = Untrained()
    holder.model = build_clip(tiny_state)
    holder.optional_prefixes, holder.transient_prefixes = ("projector_v.",), ("raw_model.",)
    return holder


def custom_load(**keys):
    """A configuration that tests one file."""
    cfg = get_cfg()
    cfg.TEST.CUSTOM_LOAD = True
    for name, value in keys.items():
        cfg.TEST[name] = value
    return cfg


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_weights_to_test(method, tiny_sizes, tmp_path, suffix):
    state = random_clip_state_dict(tiny_sizes, seed=77)
    path = tmp_path / f"x{suffix}"
    named = {f"model.{name}": tensor for name, tensor in state.items()}
    if suffix == ".pyth":
        torch.save({"model_state": named}, path)
    else:
        save_file(named, path)
    assert load_test_weights(custom_load(CUSTOM_LOAD_FILE=str(path)), method) == path
    assert all(torch.equal(tensor, state[name]) for name, tensor in method.model.state_dict().items())


def test_a_wrong_prefix_does_not_test_vanilla_clip(method, tiny_state, tmp_path):
    path = tmp_path / "x.pyth"
    torch.save({"model_state": {f"net.{name}": tensor for name, tensor in tiny_state.items()}}, path)
    with pytest.raises(
        ValueError, match=rf"x\.pyth: weights do not fit the model: {len(tiny_state)} missing .*unexpected"
    ):
        load_test_weights(custom_load(CUSTOM_LOAD_FILE=str(path)), method)


def test_raw_clip_is_mixed_in_with_its_share_experts_too(build_tiny, tiny_state, tmp_path):
    """To an expert, raw CLIP is its own feed-forward part; what it lacks stays as it is."""
    holder = nn.Module()
    holder.model = build_tiny("stadapt_zeroinit")
    for block in holder.model.visual.transformer.resblocks:
        block.add_experts(1)
    holder.optional_prefixes = holder.transient_prefixes = ()
    tuned = {name: torch.randn_like(tensor) for name, tensor in holder.state_dict().items()}
    torch.save({"model_state": tuned}, tmp_path / "x.pyth")
    torch.save(tiny_state, tmp_path / "clip.pt")
    keys = {"PATCHING_MODEL": True, "PATCHING_RATIO": 0.25, "CLIP_ORI_PATH": str(tmp_path / "clip.pt")}
    load_test_weights(custom_load(CUSTOM_LOAD_FILE=str(tmp_path / "x.pyth"), **keys), holder)
    for name, found in holder.state_dict().items():
        raw = tiny_state.get(re.sub(r"experts_(head|tail)\.0\.", "mlp.", name.removeprefix("model.")))
        expected = tuned[name] if raw is None else 0.25 * raw + 0.75 * tuned[name]
        assert torch.allclose(found, expected, atol=1e-6), name


def test_weights_of_another_activation_are_not_tested(method, tiny_state, tmp_path):
    named = {f"model.{name}": tensor for name, tensor in tiny_state.items()}
    torch.save({"model_state": named, "clip_activation": "gelu"}, tmp_path / "x.pyth")
    with pytest.raises(
        ValueError, match=r"x\.pyth: was trained with the activation gelu, but the model has quick_gelu"
    ):
        load_test_weights(custom_load(CUSTOM_LOAD_FILE=str(tmp_path / "x.pyth")), method)
    torch.save({"model_state": named}, tmp_path / "x.pyth")
    torch.save({"state_dict": tiny_state, "clip_activation": "gelu"}, tmp_path / "clip.pt")
    keys = {"PATCHING_MODEL": True, "PATCHING_RATIO": 0.5, "CLIP_ORI_PATH": str(tmp_path / "clip.pt")}
    with pytest.raises(
        ValueError, match=r"^TEST\.CLIP_ORI_PATH: .*clip\.pt: was trained with the activation gelu, but"
    ):
        load_test_weights(custom_load(CUSTOM_LOAD_FILE=str(tmp_path / "x.pyth"), **keys), method)


def test_shares_of_the_clip_that_the_model_was_built_from(build_tiny, tiny_state, tmp_path):
    """Raw CLIP is what the method held before; adapters and what lies beside CLIP stay as the file has them."""
    holder = nn.Module()
    holder.model = build_tiny("stadapt_zeroinit")
    for block in holder.model.visual.transformer.resblocks:
        block.add_experts(1)
    holder.projector_v = nn.Linear(2, 2)
    holder.optional_prefixes = holder.transient_prefixes = ()
    raw = {name: tensor.clone() for name, tensor in holder.state_dict().items()}
    tuned = {name: torch.randn_like(tensor) for name, tensor in raw.items()}
    torch.save({"model_state": tuned}, tmp_path / "x.pyth")
    cfg = get_cfg()
    cfg.TEST.CHECKPOINT_FILE_PATH, cfg.TEST.PATCHING_RATIOS = str(tmp_path / "x.pyth"), [0.25, 0.0, 1.0]
    weights = read_test_weights(cfg, holder)
    assert (weights.path, weights.ratios) == (tmp_path / "x.pyth", (0.25, 0.0, 1.0))
    assert all(torch.equal(tensor, raw[name]) for name, tensor in holder.state_dict().items())
    for ratio in (*weights.ratios, 0.25):
        weights.load(ratio)
        for name, found in holder.state_dict().items():
            clip = tiny_state.get(re.sub(r"experts_(head|tail)\.0\.", "mlp.", name.removeprefix("model.")))
            expected = tuned[name] if clip is None else ratio * clip + (1 - ratio) * tuned[name]
            assert torch.allclose(found, expected, atol=1e-6), name
            assert ratio or torch.equal(found, tuned[name])
    assert load_test_weights(cfg, holder) == tmp_path / "x.pyth"  # the first share, for predictions on one's own videos


def test_shares_of_another_clip(method, tiny_sizes, tiny_state, tmp_path):
    other = random_clip_state_dict(tiny_sizes, seed=5)
    torch.save({"model_state": {f"model.{name}": tensor for name, tensor in tiny_state.items()}}, tmp_path / "x.pyth")
    torch.save(other, tmp_path / "clip.pt")
    keys = {"PATCHING_RATIOS": [1.0], "CLIP_ORI_PATH": str(tmp_path / "clip.pt")}
    load_test_weights(custom_load(CUSTOM_LOAD_FILE=str(tmp_path / "x.pyth"), **keys), method)
    assert all(torch.equal(tensor, other[name]) for name, tensor in method.model.state_dict().items())


def test_shares_without_weights_are_said(method, tmp_path, caplog):
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.TEST.PATCHING_RATIOS = str(tmp_path), [0.0, 0.3]
    with caplog.at_level(logging.WARNING):
        assert read_test_weights(cfg, method).ratios == ()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == "TEST.PATCHING_RATIOS has no effect: there are no weights to mix raw CLIP into"


def test_a_named_file_that_is_not_read_is_said(method, tmp_path, caplog):
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.TEST.CUSTOM_LOAD_FILE = str(tmp_path), str(tmp_path / "x.pyth")
    with caplog.at_level(logging.WARNING):
        assert read_test_weights(cfg, method).path is None
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == "TEST.CUSTOM_LOAD_FILE has no effect without TEST.CUSTOM_LOAD True: it is not read"


def test_one_line_about_licences(method, tiny_state, tmp_path, caplog):
    named = {f"model.{name}": tensor for name, tensor in tiny_state.items()}
    torch.save({"model_state": named, "license": "CC-BY-NC-4.0"}, tmp_path / "x.pyth")
    torch.save({"model_state": named, "license": "Apache-2.0"}, tmp_path / "clip.pyth")
    cfg = custom_load(CUSTOM_LOAD_FILE=str(tmp_path / "x.pyth"))
    cfg.MODEL.CLIP_WEIGHTS = str(tmp_path / "clip.pyth")
    with caplog.at_level(logging.WARNING):
        load_test_weights(cfg, method)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.endswith(f": {tmp_path / 'x.pyth'}: CC-BY-NC-4.0; {tmp_path / 'clip.pyth'}: Apache-2.0")
    assert tell_licenses({"a": "CC-BY-NC-4.0", "b": "", "c": "Apache-2.0 AND CC-BY-NC-4.0"}) == (
        "Apache-2.0 AND CC-BY-NC-4.0"
    )
    caplog.clear()
    assert tell_licenses({"a": ""}) == ""
    assert not caplog.records
