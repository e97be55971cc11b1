import math

import pytest
import torch
from torch import nn

from slowfast.engine.optim import (
    DEFAULT_KEYWORD,
    OptimizerConfig,
    clip_gradients,
    make_optimizer,
    parameter_groups,
    set_learning_rate,
)

SHAPES = [
    ("logit_scale", ()),
    ("proj", (4, 2)),
    ("class_embedding", (4,)),
    ("blocks.0.mlp.fc.weight", (4, 4)),
    ("blocks.0.mlp.fc.bias", (1, 4)),
    ("blocks.0.stadapt.down.weight", (2, 4)),
    ("bn.weight", (4,)),
]
BASE = {"base_lr": 0.5, "weight_decay": 0.1, "zero_wd_1d": True}


def summary(groups):
    return {group.names: (group.lr, group.weight_decay, group.lr_factor) for group in groups}


def test_default_groups():
    assert summary(parameter_groups(SHAPES, **BASE, batch_norm_names=["bn.weight"], bn_weight_decay=0.3)) == {
        ("bn.weight",): (0.5, 0.3, 1.0),
        ("logit_scale", "proj", "blocks.0.mlp.fc.weight", "blocks.0.stadapt.down.weight"): (0.5, 0.1, 1.0),
        ("class_embedding", "blocks.0.mlp.fc.bias"): (0.5, 0.0, 1.0),
    }


def test_everything_is_decayed_when_asked():
    (group,) = parameter_groups(SHAPES, **{**BASE, "zero_wd_1d": False})
    assert group.names == tuple(name for name, _ in SHAPES)


def test_factor_groups():
    factors = {"stadapt": 10.0, "mlp": 0.0, DEFAULT_KEYWORD: 0.5}
    assert summary(parameter_groups(SHAPES, **BASE, factors=factors)) == {
        ("blocks.0.stadapt.down.weight",): (5.0, 0.1, 10.0),
        ("logit_scale", "proj"): (0.25, 0.1, 0.5),
        ("class_embedding", "bn.weight"): (0.25, 0.0, 0.5),
    }


def test_keyword_is_sought_in_the_module_path_only():
    (group,) = parameter_groups([("net.mlp", (2, 2))], **BASE, factors={"mlp": 3.0})
    assert group.lr_factor == 1.0


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("method", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizers_update_only_what_trains(method, kind):
    net = model()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = make_optimizer(net.named_parameters(), OptimizerConfig(method=method, **BASE))
    assert type(optimizer) is kind
    assert [group["names"] for group in optimizer.param_groups] == [["1.weight"], ["1.bias"]]
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.weight", "1.bias"}


SETTINGS = {
    "adamw": {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-8},
    "adam": {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-8},
    "sgd": {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9, "nesterov": True},
}


@pytest.mark.parametrize("method", SETTINGS)
def test_fused_updates_are_those_of_one_operation_after_the_other(method):
    config = OptimizerConfig(method=method, base_lr=0.01, weight_decay=0.1)
    slow_class = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[method]
    net, twin = (nn.Sequential(nn.Linear(7, 40), nn.Linear(40, 3)) for _ in range(2))
    twin.load_state_dict(net.state_dict())
    fast = make_optimizer(net.named_parameters(), config)
    slow = slow_class(twin.parameters(), foreach=False, fused=False, **SETTINGS[method])
    assert all(group["fused"] for group in fast.param_groups)
    for number in range(6):
        for optimizer in (fast, slow):
            set_learning_rate(optimizer, lambda factor, rate=0.01 / (1 + number): factor * rate)
        for parameter, other in zip(net.parameters(), twin.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
        fast.step()
        slow.step()
    for parameter, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", SETTINGS)
def test_fused_updates_leave_out_steps_that_overflowed(method):
    net = model()
    optimizer = make_optimizer(net.named_parameters(), OptimizerConfig(method=method, **BASE))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = net[1].weight.detach().clone()
    scaler.scale(net(torch.full((2, 3), torch.inf)).sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(net[1].weight, before)
    assert scaler.get_scale() == 4.0


def test_devices_without_fused_kernels():
    optimizer = make_optimizer(model().to("meta").named_parameters(), OptimizerConfig(method="adamw", **BASE))
    assert all(group["foreach"] and not group["fused"] for group in optimizer.param_groups)


def test_factor_zero_freezes():
    net = nn.ModuleDict({"mlp": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    config = OptimizerConfig(method="adamw", factors={"mlp": 1.0, DEFAULT_KEYWORD: 0.0}, **BASE)
    make_optimizer(net.named_parameters(), config)
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["mlp.weight", "mlp.bias"]


def test_set_learning_rate_keeps_factors():
    net = nn.ModuleDict({"mlp": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optimizer = make_optimizer(net.named_parameters(), OptimizerConfig(method="sgd", factors={"mlp": 4.0}, **BASE))
    set_learning_rate(optimizer, lambda factor: 0.01 * factor)
    assert {tuple(g["names"]): g["lr"] for g in optimizer.param_groups}[("mlp.weight",)] == pytest.approx(0.04)


def test_set_learning_rate_asks_for_the_rate_of_each_factor():
    net = nn.ModuleDict({"mlp": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optimizer = make_optimizer(net.named_parameters(), OptimizerConfig(method="sgd", factors={"mlp": 4.0}, **BASE))
    set_learning_rate(optimizer, {1.0: 0.3, 4.0: 0.3}.__getitem__)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3] * 4


def test_names_with_a_factor_of_their_own_stand_behind_the_rest():
    factors, prefixes = {"mlp": 3.0, DEFAULT_KEYWORD: 1.0}, {"blocks.0.": 10.0, "blocks.0.mlp": 100.0, "absent": 2.0}
    assert list(summary(parameter_groups(SHAPES, **BASE, factors=factors, prefix_factors=prefixes)).items()) == [
        (("logit_scale", "proj"), (0.5, 0.1, 1.0)),
        (("class_embedding", "bn.weight"), (0.5, 0.0, 1.0)),
        (("blocks.0.stadapt.down.weight",), (5.0, 0.1, 10.0)),
        (("blocks.0.mlp.fc.weight",), (15.0, 0.1, 30.0)),  # the first beginning counts
        (("blocks.0.mlp.fc.bias",), (15.0, 0.0, 30.0)),
    ]
    kept = parameter_groups(SHAPES, **BASE, prefix_factors={"blocks.": 0.0})
    assert {name for group in kept for name in group.names} == {n for n, _ in SHAPES if not n.startswith("blocks.")}


def test_nothing_to_train():
    with pytest.raises(ValueError, match="no parameter is left to train"):
        make_optimizer(model()[0].named_parameters(), OptimizerConfig(method="sgd", **BASE))


def test_unknown_method_and_impossible_nesterov():
    with pytest.raises(ValueError, match=r"SOLVER\.OPTIMIZING_METHOD: unknown value 'lion'"):
        OptimizerConfig(method="lion", **BASE)
    with pytest.raises(ValueError, match=r"SOLVER\.NESTEROV"):
        OptimizerConfig(method="sgd", momentum=0.0, **BASE)


def gradients():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.tensor([3.0, 0.0])
    parameters[1].grad = torch.tensor([0.0, -4.0, 0.0])
    return parameters


def test_only_measuring_changes_nothing():
    parameters = gradients()
    assert clip_gradients(iter(parameters)).item() == pytest.approx(5.0)
    assert parameters[1].grad.tolist() == [0.0, -4.0, 0.0]


def test_measuring_infinite_gradients_makes_no_nan():
    parameters = gradients()
    parameters[0].grad[0] = math.inf
    assert clip_gradients(parameters).item() == math.inf
    assert parameters[1].grad.tolist() == [0.0, -4.0, 0.0]


def test_clip_by_norm():
    parameters = gradients()
    assert clip_gradients(parameters, max_norm=1.0).item() == pytest.approx(5.0)
    total = torch.cat([p.grad for p in parameters if p.grad is not None]).norm()
    assert total.item() == pytest.approx(1.0, abs=1e-5)
    assert parameters[2].grad is None


def test_clip_by_value_wins_over_norm():
    parameters = gradients()
    assert clip_gradients(parameters, max_norm=1.0, max_value=3.5).item() == pytest.approx(5.0)
    assert parameters[0].grad.tolist() == [3.0, 0.0]
    assert parameters[1].grad.tolist() == [0.0, -3.5, 0.0]


def test_no_gradient_at_all():
    assert clip_gradients([nn.Parameter(torch.zeros(1))], max_norm=1.0).item() == 0.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_step_is_fused_and_never_waits():
    net = model().cuda()
    optimizer = make_optimizer(net.named_parameters(), OptimizerConfig(method="adamw", **BASE))
    assert all(group["fused"] for group in optimizer.param_groups)
    net(torch.ones(2, 3, device="cuda")).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        norm = clip_gradients(net.parameters(), max_norm=1.0)
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert norm.is_cuda
