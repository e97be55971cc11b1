"""The image tower as a program: torch.compile, recomputed blocks, autocast, and the count of operations."""

import pytest
import torch

from slowfast.engine.complexity import count_gflops, count_parameters
from slowfast.methods.tc_clip.context_tokens import seeds_per_frame
from slowfast.methods.tc_clip.token_merge import merge_schedule

LEVELS = "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL"
COMPILED = {
    "default": {},
    "joined": {"TC_CLIP.CONTEXT_ATTENTION": "joined"},
    "two levels, gradient": {LEVELS: [2, 3], "TC_CLIP.IM_STOP_GRAD": False},
    "no bias": {"TC_CLIP.LOCAL_GLOBAL_BIAS": False},
    "no context": {"TC_CLIP.TEMPORAL_CONTEXT": False},
    "no level": {LEVELS: []},
    "recomputed": {"MODEL.USE_CHECKPOINT": True},
}


def train(method, batch):
    method.train().zero_grad()
    output = method(batch)
    output.losses["classification"].backward()
    return output.logits.detach(), {name: p.grad.clone() for name, p in method.trainable_parameters()}


@pytest.fixture
def compile_with(monkeypatch):
    """Compiles with a backend that takes no minutes; lists the programs."""
    compile_module = torch.nn.Module.compile

    def use(backend):
        programs = []

        def count(graph, inputs):
            programs.append(graph)
            return backend(graph, inputs)

        def with_backend(module, **options):
            assert options == {"fullgraph": True, "dynamic": False, "options": {"fallback_random": True}}
            compile_module(module, backend=count, fullgraph=True, dynamic=False)

        monkeypatch.setattr(torch.nn.Module, "compile", with_backend)
        torch._dynamo.reset()
        return programs

    return use


def assert_same_training(build, make_clips, name, sizes):
    """Compiled and not; returns both."""
    eager, compiled = (build(torch.float32, **COMPILED[name], **{"TRAIN.COMPILE": on}) for on in (False, True))
    assert list(eager.checkpoint_state()) == list(compiled.checkpoint_state())
    for size in sizes:
        logits, gradients = train(compiled, make_clips(size))
        expected, expected_gradients = train(eager, make_clips(size))
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        for key, gradient in expected_gradients.items():
            assert (gradients[key] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-6, key
    return eager, compiled


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_tower(build, make_clips, compile_with, name):
    """One graph without a break, whatever the options."""
    programs = compile_with(lambda graph, _: graph.forward)
    assert_same_training(build, make_clips, name, [2])
    assert len(programs) == 1


def test_compiled_tower_takes_any_number_of_videos(build, make_clips, compile_with):
    programs = compile_with(lambda graph, _: graph.forward)
    eager, compiled = assert_same_training(build, make_clips, "default", [3, 2, 1, 3])
    assert len(programs) == 2
    eager.eval()
    compiled.eval()
    with torch.inference_mode():
        torch.testing.assert_close(compiled(make_clips()).logits, eager(make_clips()).logits, rtol=1e-5, atol=1e-5)
    assert len(programs) == 3


@pytest.mark.slow
def test_compiled_tower_with_its_backward_pass(build, make_clips, compile_with):
    programs = compile_with(torch._dynamo.lookup_backend("aot_eager"))
    assert_same_training(build, make_clips, "default", [2])
    assert len(programs) == 1


@pytest.mark.parametrize("name", ["default", "two levels, gradient", "joined", "no context"])
def test_recomputed_blocks_have_the_same_gradients(build, make_clips, name):
    kept, recomputed = (build(**COMPILED[name], **{"MODEL.USE_CHECKPOINT": on}) for on in (False, True))
    calls = []
    for tower in (recomputed.model.visual, recomputed.model):
        assert tower.transformer.recompute
        tower.transformer.resblocks[0].ln_2.register_forward_hook(lambda *_: calls.append(0))
    logits, gradients = train(recomputed, make_clips())
    ran, calls[:] = len(calls), []
    expected, expected_gradients = train(kept, make_clips())
    assert torch.equal(logits, expected)
    assert all(torch.equal(gradients[key], gradient) for key, gradient in expected_gradients.items())
    with torch.no_grad():
        recomputed(make_clips())
    assert ran == 2 * len(calls) > 0


@pytest.mark.parametrize("way", ["parts", "joined"])
def test_half_precision(build, make_clips, way):
    """Seeds are those of fp32: which patches are taken is not continuous."""
    keys = {"TC_CLIP.CONTEXT_ATTENTION": way, "TC_CLIP.CONTEXT_TOKEN_K": 100}
    method, batch = build(torch.float32, **keys).train(), make_clips()
    logits, gradients = train(method, batch)
    traced = method.model.visual.trace(method.normalise(batch.frames))
    for block, seeds in zip(method.model.visual.transformer.resblocks, traced, strict=True):
        block._choose_seeds = lambda *_, seeds=seeds: (seeds.scores, seeds.patches)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.zero_grad()
        output = method(batch)
    output.losses["classification"].backward()
    assert output.logits.dtype == torch.float32
    assert (output.logits - logits).abs().max() < 0.05 * logits.abs().max()
    for name, parameter in method.trainable_parameters():
        assert parameter.grad.dtype == torch.float32
        if not name.endswith("in_proj_bias"):  # a third of it is zero but for rounding
            found, expected = parameter.grad.flatten(), gradients[name].flatten()
            assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.9, name


@pytest.mark.parametrize("way", ["parts", "joined"])
def test_half_precision_with_its_own_seeds(build, make_clips, way):
    method = build(torch.float32, **{"TC_CLIP.CONTEXT_ATTENTION": way}).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(make_clips(3))
        sum(output.losses.values()).backward()
        with torch.no_grad():
            assert method.eval()(make_clips(3)).logits.isfinite().all()
    assert output.logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for _, parameter in method.trainable_parameters())


def test_autocast_does_not_round_what_seeds_and_groups_are_chosen_by(build):
    method = build(torch.float32)
    block = method.model.visual.transformer.resblocks[1]
    q, k = torch.randn(2, 4, 2, 64), torch.randn(2, 4, 26, 2, 64)
    shared = block.attn.read_context(torch.randn(2, 6, 128))
    tokens = torch.randn(2, 4, 7, 128)
    scores, patches = block._choose_seeds(q, k, shared)
    _, group = block._summarise(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block._choose_seeds(q, k, shared)
        assert torch.equal(found[0], scores)
        assert torch.equal(found[1], patches)
        assert torch.equal(block._summarise(tokens)[1], group)


def naive_gflops(method, num_frames):
    """Multiplications and additions of one video: the image tower, what its text adds, and the logits."""
    sizes, options = method.model.sizes, method.model.visual.options
    T, N, D, E, W = num_frames, sizes.grid_size**2 + 1, sizes.vision_width, sizes.embed_dim, sizes.text_width
    seeds = T * seeds_per_frame(N - 1, options.seed_share)
    K = min(seeds, options.num_tokens)

    def merging():
        count, found = seeds, 0
        for removed in merge_schedule(seeds, options.num_tokens, options.merge_step):
            found += ((count + 1) // 2) * (count // 2) * D
            count -= removed
        return found

    def block(context):
        return (
            3 * T * N * D**2 + 2 * context * D**2  # queries, keys, values
            + 2 * T * N * (N + context) * D  # attention
            + T * N * D**2 + 8 * (T * N + K) * D**2
            + T * (N + context) * D + merging()
        )  # fmt: skip

    rows = T + seeds  # of the last block
    last = (
        2 * (T * N + K) * D**2
        + (rows + T) * D**2  # queries; those of the class tokens again for the seeds
        + 2 * rows * (N + K) * D
        + rows * D**2 + 8 * (T + K) * D**2
        + T * (N + K) * D + merging()
    )  # fmt: skip
    vision = T * (N - 1) * 3 * sizes.patch_size**2 * D + block(0) + (sizes.vision_layers - 2) * block(K) + last
    vision += (T + K) * D * E

    n, (C, length) = len(method.text.prompt_learner.ctx), method.text.tokens.shape
    S, M, heads = 1 + n, length - 1 - n, W // 64
    prompts = 2 * K * W**2 + n * W**2 + 2 * n * K * W + n * W**2 + 8 * n * W**2
    # The end-of-text token: query, through the keys' weights, tokens as keys and values, through the values' weights.
    ends = C * (W**2 + W**2 + 2 * heads * M * W + W**2) + 2 * S * W**2 + 2 * C * S * W + C * W**2 + 8 * C * W**2
    text = prompts + ends + C * W * E
    return 2 * (vision + text + C * E) / 1e9


def test_operations_against_a_formula(build, make_clips):
    """Of the text only what depends on the video counts in evaluation: the rest is kept."""
    method, batch = build(torch.float32), make_clips(1)
    found = count_gflops(method, batch)
    assert found == pytest.approx(naive_gflops(method, 4), rel=1e-6)
    assert count_gflops(method, batch, training=True) > 2.5 * found


def test_counting_leaves_everything_as_it_was(build, make_clips):
    method, batch = build(torch.float32), make_clips(1)
    with torch.no_grad():
        logits = method.eval()(batch).logits
        before = {name: value.clone() for name, value in method.state_dict().items()}
        for training in (False, True):
            count_gflops(method, batch, training=training)
        assert torch.equal(method(batch).logits, logits)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_text_that_does_not_depend_on_the_video_counts_nothing_but_its_logits(build, make_clips):
    """Without a level all blocks but the last are kept, and the last costs its end-of-text tokens."""
    one, five = (
        count_gflops(build(torch.float32, num_classes=number, **{LEVELS: []}), make_clips(1)) for number in (1, 5)
    )
    assert five - one < 1e-3
    total, trained = count_parameters(build(torch.float32))
    assert total - trained == 49408 * 64
