"""The text tower: what is kept of it and when that is renewed, and its prompt generation."""

import copy

import pytest
import torch
from torch.nn import functional as F

from slowfast.methods.tc_clip.build import text_bank
from slowfast.methods.tc_clip.config import TcClipConfig
from slowfast.methods.tc_clip.prompts import PromptGenerationLayer

LEVELS = "TC_CLIP.PROMPT_GENERATION_LAYER_LEVEL"
WIDTH = 128


@pytest.fixture
def reads(build):
    """A method in evaluation, and how often its first text block ran."""

    def make(dtype=torch.float32, **keys):
        method, calls = build(dtype, **keys).eval(), []
        method.model.transformer.resblocks[0].ln_1.register_forward_hook(lambda *_: calls.append(0))
        return method, calls

    return make


def evaluate(method, batch):
    with torch.no_grad():
        return method.eval()(batch).logits


def fresh(method):
    """A copy that has kept nothing."""
    twin = copy.deepcopy(method)
    twin.text._kept_for = ()
    return twin


def test_text_is_read_once_in_evaluation(reads, make_clips):
    method, calls = reads()
    first = evaluate(method, make_clips())
    count = len(calls)
    assert count > 0
    assert torch.equal(evaluate(method, make_clips()), first)
    evaluate(method, make_clips(3))
    assert len(calls) == count
    assert not method.text._kept.rest.requires_grad


def change_by_loading(method):
    state = {name: tensor + 0.01 for name, tensor in method.state_dict().items()}
    method.load_state_dict(state)


def change_by_a_step(method):
    optimizer = torch.optim.SGD([p for _, p in method.trainable_parameters()], lr=0.1)
    for _, parameter in method.trainable_parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def change_the_words(method):
    with torch.no_grad():
        method.text.prompt_learner.ctx.mul_(1.5)


def replace_a_parameter(method):
    block = method.model.transformer.resblocks[0]
    block.ln_1.weight = torch.nn.Parameter(block.ln_1.weight.detach() * 2)


def swap_data(method):
    weight = method.model.transformer.resblocks[1].mlp.c_fc.weight
    weight.data = weight.data * 1.5


CHANGES = (change_by_loading, change_by_a_step, change_the_words, replace_a_parameter, swap_data)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("levels", [[-1], []])
def test_kept_text_is_renewed_with_the_weights(reads, make_clips, change, levels):
    method, calls = reads(**{LEVELS: levels})
    before = evaluate(method, make_clips())
    count = len(calls)
    change(method)
    after = evaluate(method, make_clips())
    assert len(calls) == 2 * count
    assert not torch.allclose(after, before, rtol=1e-4)
    assert torch.equal(after, evaluate(fresh(method), make_clips()))


def test_kept_text_is_renewed_with_the_precision(reads, make_clips):
    method, _ = reads()
    evaluate(method, make_clips())
    method.to(torch.float64)
    normalise = method.normalise
    method.normalise = lambda frames: normalise(frames).double()
    assert torch.equal(evaluate(method, make_clips()), evaluate(fresh(method), make_clips()))
    assert method.text._kept.rest.dtype == torch.float64


def test_kept_text_is_renewed_after_a_detour_over_half_precision(reads, make_clips):
    """Rounded weights may lie where the exact ones lay."""
    method, _ = reads()
    before = evaluate(method, make_clips())
    method.text.bfloat16().float()
    assert method.text._kept is None
    after = evaluate(method, make_clips())
    assert not torch.equal(after, before)
    assert torch.equal(after, evaluate(fresh(method), make_clips()))


def test_kept_text_is_renewed_with_the_classes(reads, make_clips, small_cfg, labels):
    method, _ = reads()
    evaluate(method, make_clips())
    method.set_label_set(labels(3), text_bank(TcClipConfig.from_cfg(small_cfg()), labels(3)))
    found = evaluate(method, make_clips())
    assert found.shape == (2, 3)
    assert torch.equal(found, evaluate(fresh(method), make_clips()))


@pytest.mark.parametrize("train", [False, True])
def test_kept_text_is_never_used_with_a_gradient(reads, make_clips, train):
    method, calls = reads()
    evaluate(method, make_clips())
    count = len(calls)
    logits = method.train(train)(make_clips()).logits
    assert len(calls) == 2 * count
    (gradient,) = torch.autograd.grad(logits.square().sum(), method.text.prompt_learner.ctx)
    assert gradient.any()


def test_training_without_gradient_reads_its_own_text(reads, make_clips):
    method, calls = reads()
    evaluate(method, make_clips())
    count = len(calls)
    with torch.no_grad():
        method.train()(make_clips())
    assert len(calls) == 2 * count


def test_training_goes_on_after_inference_mode(reads, make_clips):
    method, _ = reads()
    with torch.inference_mode():
        inferred = method.eval()(make_clips()).logits
    assert not method.text._kept.rest.is_inference()
    output = method.train()(make_clips())
    output.losses["classification"].backward()
    assert torch.allclose(inferred, output.logits, rtol=1e-4, atol=1e-6)
    assert torch.equal(evaluate(method, make_clips()), inferred.clone())


def test_autocast_does_not_round_what_is_kept(reads, make_clips):
    method, _ = reads()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evaluate(method, make_clips())
    rounded = method.text._kept.rest
    method.text._kept_for = ()
    evaluate(method, make_clips())
    assert torch.equal(rounded, method.text._kept.rest)


def test_what_is_kept_is_not_saved(reads, make_clips):
    method, _ = reads()
    names = list(method.state_dict())
    evaluate(method, make_clips())
    assert list(method.state_dict()) == names
    assert not any("kept" in name or name.endswith("tokens") for name in names)


def test_copies_keep_their_own(reads, make_clips):
    method, _ = reads()
    before = evaluate(method, make_clips())
    twin = copy.deepcopy(method)
    change_by_loading(twin)
    assert not torch.allclose(evaluate(twin, make_clips()), before, rtol=1e-4)
    assert torch.equal(evaluate(method, make_clips()), before)


@pytest.mark.parametrize("num_videos", [1, 3])
def test_prompt_generation_is_attention_of_pytorch(num_videos):
    torch.manual_seed(0)
    layer = PromptGenerationLayer(WIDTH).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    reference = torch.nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True).double()
    reference.load_state_dict(layer.attn.state_dict())
    words, context = torch.randn(1, 4, WIDTH).double(), torch.randn(num_videos, 9, WIDTH).double()
    q, read = layer.ln_1(words).expand(num_videos, -1, -1), layer.ln_1_kv(context)
    hidden = words + reference(q, read, read, need_weights=False)[0]
    expected = hidden + layer.mlp(layer.ln_2(hidden))
    assert torch.allclose(layer(words, context), expected, rtol=1e-10)
    assert torch.allclose(layer(words.expand(num_videos, -1, -1), context), expected, rtol=1e-10)


def test_without_levels_it_is_clips_text_tower(build):
    """Learned words that say what tokens say."""
    method = build(**{LEVELS: []})
    clip, tokens = method.model, method.text.tokens
    with torch.no_grad():
        method.text.prompt_learner.ctx.copy_(clip.token_embedding.weight[tokens[0, 1:5]])
        expected = F.normalize(clip.encode_text(tokens), dim=-1)
        assert torch.allclose(method.text(clip, ())[0], expected, rtol=1e-10)
        assert torch.allclose(method.eval().text(clip, ())[0], expected, rtol=1e-10)


def test_a_video_changes_its_own_prompts_only(build, make_clips):
    method = build().eval()
    context = torch.randn(3, 6, 64, dtype=torch.float64)
    other = context.clone()
    other[1] = torch.randn(6, 64)
    with torch.no_grad():
        before, after = method.text(method.model, [context]), method.text(method.model, [other])
    assert before.shape == (3, 5, 64)
    assert torch.allclose(before.norm(dim=-1), torch.ones(3, 5, dtype=torch.float64))
    assert torch.allclose(before[[0, 2]], after[[0, 2]], rtol=1e-10)
    assert not torch.allclose(before[1], after[1], rtol=1e-3)


def test_order_of_context_tokens_does_not_matter(build):
    method = build().eval()
    context = torch.randn(2, 6, 64, dtype=torch.float64)
    with torch.no_grad():
        found = method.text(method.model, [context]), method.text(method.model, [context.flip(1)])
    assert torch.allclose(*found, rtol=1e-10)


def test_columns_behind_the_longest_prompt_are_dropped(build):
    tokens = build().text.tokens
    assert tokens.shape[1] == int(tokens.argmax(dim=-1).max()) + 1 < 20
    assert (tokens[:, -1] == 49407).sum() >= 1
