"""Image tower as a program: torch.compile, recomputed blocks; and what learned vectors cost."""

import pytest
import torch

from slowfast.engine.complexity import count_gflops

BOTH = {"N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 3, "N_CTX_TEXT": 5, "PROMPT_DEPTH_TEXT": 3}
COMPILED = {
    "full": {},
    "vectors alone": {**BOTH, "PROMPT_MODEL": True},
    "all blocks": {"N_CTX_VISION": 2, "PROMPT_DEPTH_VISION": 4, "PROMPT_MODEL": True},
    "recomputed": {**BOTH, "MODEL.USE_CHECKPOINT": True},
}


def train(method, batch):
    method.train().zero_grad()
    output = method(batch)
    output.losses["classification"].backward()
    return output.logits.detach(), {name: p.grad.clone() for name, p in method.trainable_parameters()}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_tower(build, make_clips, monkeypatch, name):
    """One graph without a break, with a backend that takes no minutes."""
    compile_module, programs = torch.nn.Module.compile, []

    def with_backend(module, **options):
        assert options["fullgraph"]
        backend = lambda graph, _: programs.append(graph) or graph.forward  # noqa: E731
        compile_module(module, backend=backend, fullgraph=True, dynamic=False)

    monkeypatch.setattr(torch.nn.Module, "compile", with_backend)
    torch._dynamo.reset()
    eager, compiled = (build(torch.float32, **COMPILED[name], **{"TRAIN.COMPILE": on}) for on in (False, True))
    assert list(eager.checkpoint_state()) == list(compiled.checkpoint_state())
    logits, gradients = train(compiled, make_clips())
    expected, expected_gradients = train(eager, make_clips())
    assert len(programs) == 1
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for key, gradient in expected_gradients.items():
        assert (gradients[key] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-6, key


@pytest.mark.parametrize("name", ["full", "vectors alone", "all blocks"])
def test_recomputed_blocks_have_the_same_gradients(build, make_clips, name):
    kept, recomputed = (build(**COMPILED[name], **{"MODEL.USE_CHECKPOINT": on}) for on in (False, True))
    calls = []
    recomputed.model.visual.transformer.resblocks[0].ln_2.register_forward_hook(lambda *_: calls.append(0))
    logits, gradients = train(recomputed, make_clips())
    assert len(calls) == 2
    expected, expected_gradients = train(kept, make_clips())
    assert torch.equal(logits, expected)
    assert all(torch.equal(gradients[key], gradient) for key, gradient in expected_gradients.items())


def image_gflops(sizes, *, num_frames, num_prompts, depth):
    """Multiplications and additions of the image tower: vectors cost keys and values, and attention to them."""
    T, L, D, n = num_frames, sizes.grid_size**2 + 1, sizes.vision_width, num_prompts
    found = T * (L - 1) * 3 * sizes.patch_size**2 * D + T * D * sizes.embed_dim
    for layer in range(sizes.vision_layers - 1):
        if layer + 1 < depth:  # once for all frames
            found += T * (12 * L * D**2 + 2 * L * (L + n) * D) + 2 * n * D**2
        else:
            found += T * (12 * (L + n) * D**2 + 2 * (L + n) ** 2 * D)
    heads = D // 64
    return 2 * (found + T * (12 * D**2 + 2 * heads * (L + n) * D)) / 1e9


@pytest.mark.parametrize(("number", "depth"), [(0, 0), (3, 1), (3, 3), (2, 4)])
def test_operations_against_a_formula(build, make_clips, small_sizes, number, depth):
    method = build(torch.float32, N_CTX_VISION=number, PROMPT_DEPTH_VISION=depth)
    expected = image_gflops(small_sizes, num_frames=3, num_prompts=number, depth=depth)
    logits = 2 * 5 * small_sizes.embed_dim / 1e9  # texts are kept
    assert count_gflops(method, make_clips(1)) == pytest.approx(expected + logits, rel=1e-6)
