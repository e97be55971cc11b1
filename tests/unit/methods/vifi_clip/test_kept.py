"""Texts of the classes: what is kept of them and when that is renewed."""

import copy

import pytest
import torch

IMAGE = {"USE": "image"}
VISION = {"PROMPT_MODEL": True, "N_CTX_VISION": 2, "PROMPT_DEPTH_VISION": 2}
TEXT = {"PROMPT_MODEL": True, "N_CTX_TEXT": 5, "PROMPT_DEPTH_TEXT": 3}


@pytest.fixture
def reads(build):
    """A method, and how often its first text block ran."""

    def make(**keys):
        method, calls = build(torch.float32, **keys), []
        method.model.transformer.resblocks[0].ln_1.register_forward_hook(lambda *_: calls.append(0))
        return method, calls

    return make


def evaluate(method, batch):
    with torch.no_grad():
        return method.eval()(batch).logits


def fresh(method):
    """A copy that has kept nothing."""
    twin = copy.deepcopy(method)
    twin.text.forget()
    return twin


@pytest.mark.parametrize("keys", [{}, IMAGE, VISION, TEXT])
def test_texts_are_read_once_in_evaluation(reads, make_clips, keys):
    method, calls = reads(**keys)
    first = evaluate(method, make_clips())
    count = len(calls)
    assert count > 0
    assert torch.equal(evaluate(method, make_clips()), first)
    evaluate(method, make_clips(3))
    assert len(calls) == count


@pytest.mark.parametrize(("keys", "learns"), [({}, True), (TEXT, True), (IMAGE, False), (VISION, False)])
def test_texts_are_read_in_every_step_where_they_learn(reads, make_clips, keys, learns):
    method, calls = reads(**keys)
    optimizer = torch.optim.SGD([parameter for _, parameter in method.trainable_parameters()], lr=0.1)
    evaluate(method, make_clips())
    count = len(calls)
    for _ in range(2):
        optimizer.zero_grad()
        method.train()(make_clips()).losses["classification"].backward()
        optimizer.step()
    assert len(calls) == (3 if learns else 1) * count
    assert torch.equal(evaluate(method, make_clips()), evaluate(fresh(method), make_clips()))
    assert len(calls) > (3 if learns else 1) * count  # the copy notes what it reads in the same list


def change_by_loading(method):
    method.load_state_dict({name: tensor + 0.01 for name, tensor in method.state_dict().items()})


def change_a_block(method):
    with torch.no_grad():
        method.model.transformer.resblocks[1].mlp.c_fc.weight.mul_(1.5)


def replace_a_parameter(method):
    block = method.model.transformer.resblocks[0]
    block.ln_1.weight = torch.nn.Parameter(block.ln_1.weight.detach() * 2)


def change_the_context(method):
    with torch.no_grad():
        method.text.prompt_learner.ctx.mul_(1.5)


def change_deep_vectors(method):
    with torch.no_grad():
        method.model.transformer.resblocks[2].VPT_shallow.mul_(1.5)


CHANGES = (change_by_loading, change_a_block, replace_a_parameter)


@pytest.mark.parametrize(
    ("keys", "change"),
    [*((keys, change) for keys in (IMAGE, TEXT) for change in CHANGES), (TEXT, change_the_context),
     (TEXT, change_deep_vectors)],
)  # fmt: skip
def test_kept_texts_are_renewed_with_the_weights(reads, make_clips, keys, change):
    method, calls = reads(**keys)
    before = evaluate(method, make_clips())
    count = len(calls)
    change(method)
    after = evaluate(method, make_clips())
    assert len(calls) == 2 * count
    assert not torch.allclose(after, before, rtol=1e-4)
    assert torch.equal(after, evaluate(fresh(method), make_clips()))


def test_a_change_of_the_image_tower_renews_nothing(reads, make_clips):
    method, calls = reads(**IMAGE)
    evaluate(method, make_clips())
    count = len(calls)
    with torch.no_grad():
        for parameter in method.model.visual.parameters():
            parameter.mul_(1.01)
    evaluate(method, make_clips())
    assert len(calls) == count


def test_kept_texts_follow_the_classes(reads, make_clips, make, labels):
    method, _ = reads()
    before = evaluate(method, make_clips())
    tokens = method.text.tokens
    bank = type("Bank", (), {"tokens": tokens.flip(0)[:, None], "__len__": lambda self: len(tokens)})()
    method.set_label_set(labels(), bank)
    assert torch.allclose(evaluate(method, make_clips()), before.flip(1), atol=1e-5)


def test_texts_are_kept_in_full_precision_under_autocast(reads, make_clips):
    method, _ = reads(**IMAGE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.train()(make_clips())
    kept = method.text._kept
    method.text.forget()
    evaluate(method, make_clips())
    assert kept.dtype == torch.float32
    assert torch.equal(kept, method.text._kept)


def test_training_goes_on_after_inference_mode(reads, make_clips):
    method, _ = reads(**IMAGE)
    with torch.inference_mode():
        method.eval()(make_clips())
    method.train()(make_clips()).losses["classification"].backward()
    assert all(parameter.grad is not None for _, parameter in method.trainable_parameters())
