"""Image tower as a program, recomputed blocks, parts of a batch: what changes no number."""

import pytest
import torch

from slowfast.engine.build import build_optimizer, build_step


def quiet(method):
    """Without dropout."""
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return method.train()


def train(method, batch):
    """Scores and gradients of a step."""
    method.zero_grad()
    output = method(batch)
    sum(output.losses.values()).backward()
    return output.logits.detach(), {name: p.grad.clone() for name, p in method.trainable_parameters()}


@pytest.fixture
def programs(monkeypatch):
    """Compiles with a backend that takes no minutes, and lists the programs."""
    compile_module, found = torch.nn.Module.compile, []

    def with_backend(module, **options):
        assert options["fullgraph"]
        backend = lambda graph, _: found.append(graph) or graph.forward  # noqa: E731
        compile_module(module, backend=backend, fullgraph=True, dynamic=False)

    monkeypatch.setattr(torch.nn.Module, "compile", with_backend)
    torch._dynamo.reset()
    return found


def test_compiled_tower(make, make_episodes, programs):
    """One program for supports and one for queries."""
    eager, compiled = (quiet(make(**{"TRAIN.COMPILE": on})) for on in (False, True))
    assert list(eager.checkpoint_state()) == list(compiled.checkpoint_state())
    logits, gradients = train(compiled, make_episodes())
    expected, expected_gradients = train(eager, make_episodes())
    assert len(programs) == 2
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    for key, gradient in expected_gradients.items():
        assert (gradients[key] - gradient).abs().max() <= 1e-3 * gradient.abs().max() + 1e-5, key
    train(compiled, make_episodes(seed=3))
    assert len(programs) == 2


def test_recomputed_blocks_have_the_same_gradients(make, make_episodes):
    kept, recomputed = (quiet(make(**{"MODEL.USE_CHECKPOINT": on})) for on in (False, True))
    calls = []
    recomputed.head.backbone.transformer.resblocks[0].ln_2.register_forward_hook(lambda *_: calls.append(0))
    logits, gradients = train(recomputed, make_episodes())
    assert len(calls) == 4  # supports and queries, twice each
    expected, expected_gradients = train(kept, make_episodes())
    assert torch.equal(logits, expected)
    assert all(torch.equal(gradients[key], gradient) for key, gradient in expected_gradients.items())


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_is_the_same_step(fsar_cfg, make, make_episodes, parts):
    """Every episode counts as much, whatever part it is in."""
    batch, results = make_episodes(classes=((4, 0, 2), (1, 5, 0), (2, 3, 4))), []
    for number in (1, parts):
        keys = {
            "TRAIN.ACCUMULATION_STEPS": number, "SOLVER.OPTIMIZING_METHOD": "sgd", "SOLVER.BASE_LR": 1e-2,
            "SOLVER.CLIP_GRAD_L2NORM": 1.0,
        }  # fmt: skip
        cfg, method = fsar_cfg(**keys), quiet(make())
        step, _ = build_step(cfg, method, build_optimizer(cfg, method), device=torch.device("cpu"))
        results.append((step(batch), method.state_dict()))
    (whole, expected), (cut, found) = results
    for name in ("loss", "top1_err", "top5_err", "grad_norm"):
        assert getattr(cut, name).item() == pytest.approx(getattr(whole, name).item(), rel=1e-4), name
    assert cut.terms.keys() == whole.terms.keys() == {"loss_few_shot", "loss_video_text", "scale"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
