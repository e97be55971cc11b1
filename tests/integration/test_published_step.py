"""A whole training step against the one that is written as published, see tests/oracles."""

import importlib.util
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.engine.build import build_optimizer, build_step
from slowfast.methods.build import build_method

ORACLES = Path(__file__).resolve().parents[1] / "oracles"
STEPS, RATE = 3, 1e-4


def load(name):
    spec = importlib.util.spec_from_file_location(name, ORACLES / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def oracle():
    return load("published_step")


@pytest.fixture
def build(tiny_weights, tiny_labels):
    """Builds our method and its step."""

    def make(kind, **keys):
        cfg = get_cfg()
        cfg.merge_from_list(["MODEL.ARCH", "custom", "MODEL.CLIP_WEIGHTS", str(tiny_weights)])
        cfg.merge_from_list(["MODEL.KEEP_RAW_MODEL", True, "MODEL.RAW_MODEL_DISTILLATION", True])
        cfg.merge_from_list(["MODEL.DISTILLATION_RATIO", 2.0, "MODEL.LOSS_FUNC", "soft_cross_entropy"])
        cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.WEIGHT_DECAY", 0.01])
        cfg.merge_from_list(["SOLVER.BASE_LR", RATE, "SOLVER.CLIP_GRAD_L2NORM", 1.0, "SOLVER.ZERO_WD_1D_PARAM", True])
        for key, value in keys.items():
            cfg.merge_from_list([key, value])
        cfg.MODEL.TEMPORAL_MODELING_TYPE = kind
        method = build_method(cfg, tiny_labels).train()
        step, _ = build_step(cfg, method, build_optimizer(cfg, method), device=torch.device("cpu"))
        return method, step

    return make


def published(oracle, method, state, make_block, **recipe):
    """The published step from the same starting point."""
    student = oracle.Student(oracle.Tower(state, make_block), state["logit_scale"])
    student.projector_v.load_state_dict(method.projector_v.state_dict())
    with torch.no_grad():
        text = method.text(method.model).features.clone()
    return oracle.PublishedStep(student.train(), oracle.Tower(state), text, oracle.Recipe(lr=RATE, **recipe))


def compare_steps(method, step, other, make_batch):
    """Figures of some steps, gradients of the first: after it Adam makes much of gradients that are nearly zero."""
    trained = {name.removeprefix("model."): parameter for name, parameter in method.trainable_parameters()}
    twins = dict(other.student.named_parameters())
    assert trained.keys() == twins.keys()
    for number in range(STEPS):
        batch = make_batch(3, num_frames=4, seed=number)
        torch.manual_seed(number)
        figures = other(method.normalise(batch.frames), batch.label)
        torch.manual_seed(number)
        result = step(batch)
        for name in ("loss", "grad_norm", "top1_err", "top5_err"):
            assert getattr(result, name).item() == pytest.approx(figures[name], rel=1e-5 if number == 0 else 1e-3)
        if number == 0:
            for name, parameter in trained.items():
                norm, found = twins[name].grad.norm(), (parameter.grad - twins[name].grad).norm()
                assert found <= 1e-5 * norm + 1e-9, name


def test_plain_clip(oracle, build, tiny_state, make_batch):
    method, step = build(None)
    other = published(oracle, method, tiny_state, oracle.PlainBlock)
    compare_steps(method, step, other, make_batch)


def test_stdd(oracle, build, tiny_state, make_batch):
    options = {"channel_fold": 8, "temporal_scale": [1, 2]}
    method, step = build("stcross_attend", **{f"MODEL.{name.upper()}": value for name, value in options.items()})
    make_block = partial(load("published_stdd").PublishedBlock, num_frames=4, mask_stride=(1, 2, 2), **options)
    other = published(oracle, method, tiny_state, make_block)
    compare_steps(method, step, other, make_batch)
    batch = make_batch(3, num_frames=4)
    with torch.no_grad():
        expected = other.score(method.normalise(batch.frames))
        torch.testing.assert_close(method.eval()(batch).logits, expected, rtol=1e-3, atol=1e-3)


def test_without_its_gradient_the_distillation_trains_nothing(oracle, build, tiny_state, make_batch):
    """As published: the term is a constant, which ours leaves out together with the teacher."""
    method, step = build(None, **{"MODEL.DISTILLATION_MODE": "published"})
    other = published(oracle, method, tiny_state, oracle.PlainBlock, distillation_gradient=False)
    batch = make_batch(3, num_frames=4)
    other(method.normalise(batch.frames), batch.label)
    step(batch)
    twins = dict(other.student.named_parameters())
    for name, parameter in method.trainable_parameters():
        expected = twins[name.removeprefix("model.")].grad
        assert (parameter.grad - expected).norm() <= 1e-5 * expected.norm() + 1e-9, name
    assert twins["projector_v.0.weight"].grad is None
