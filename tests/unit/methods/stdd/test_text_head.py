import copy

import pytest
import torch

from slowfast.methods.stdd.text_head import ContextText, EncodedText, FixedText, TunedHead, TunedText
from slowfast.models.similarity import class_logits, unit_norm
from slowfast.text.templates import ACTION_TEMPLATES
from slowfast.text.text_bank import TextBank, context_bank, mean_features, rephrased_bank, template_bank
from slowfast.text.tokenizer import Tokenizer

NAMES = ["surfing", "pouring tea", "climbing stairs"]
REPHRASED = ["Surfing: riding a wave", "Tea: pouring tea into a cup", "Stairs"]


@pytest.fixture
def clip(build_tiny):
    return build_tiny()


@pytest.fixture
def templates():
    return template_bank(NAMES, tokenizer=Tokenizer())


@pytest.fixture
def rephrased():
    return rephrased_bank(REPHRASED, tokenizer=Tokenizer())


def shift_text_tower(clip):
    """Change the text tower by loading other weights, as a checkpoint would."""
    state = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    state["text_projection"] += 0.3 * torch.randn(state["text_projection"].shape)
    clip.load_state_dict(state)


@pytest.mark.parametrize("shape", [(3, 32), (3, 4, 32)])
def test_fixed_features(clip, shape):
    head, features = FixedText(32), unit_norm(torch.randn(shape))
    head.set_bank(TextBank(features=features), clip)
    assert torch.equal(head(clip).features, features)
    assert not head.state_dict()


@pytest.mark.parametrize("shape", [(3, 32), (3, 4, 32)])
def test_tuned_head_starts_from_the_features_and_stays_at_unit_norm(clip, shape):
    head, features = TunedHead(32), unit_norm(torch.randn(shape))
    head.set_bank(TextBank(features=features), clip)
    assert torch.allclose(head(clip).features, features, atol=1e-6)
    assert list(head.state_dict()) == ["head"]
    with torch.no_grad():
        head.head.mul_(3.0)
    assert torch.allclose(head(clip).features, features, atol=1e-6)
    head(clip).features[..., 0].sum().backward()
    assert head.head.grad.any()


def change_in_place(head):
    with torch.no_grad():
        head.head[0] += 1


def change_by_loading(head):
    head.load_state_dict({"head": head.head.detach() + torch.randn(3, 4, 32)})


def change_by_an_optimizer(head):
    head.head.grad = torch.randn(3, 4, 32)
    torch.optim.AdamW([head.head], lr=0.1).step()


def change_by_moving(head):
    head.double().float().head.data.mul_(torch.rand(3, 4, 1)).add_(0.1)


def change_the_bank(head):
    head.set_bank(TextBank(features=unit_norm(torch.randn(2, 4, 32))), None)


@pytest.mark.parametrize(
    "change", [change_in_place, change_by_loading, change_by_an_optimizer, change_by_moving, change_the_bank]
)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_tuned_head_is_normalised_once_for_all_videos_but_anew_after_a_change(clip, change, context):
    head = TunedHead(32).eval()
    head.set_bank(TextBank(features=torch.randn(3, 4, 32)), clip)
    with context():
        before = head(clip).features
        assert head(clip).features is before
        assert torch.equal(before, unit_norm(head.head))
        assert not before.is_inference()
    assert head(clip).features.requires_grad  # outside, a gradient may be asked for
    change(head)
    with context():
        found = head(clip).features
        assert torch.equal(found, unit_norm(head.head))
        assert not torch.equal(found[:2], before[:2])
    head.train()
    assert head(clip).features.requires_grad
    assert not [name for name in head.state_dict() if name != "head"]


@pytest.mark.parametrize("make", [FixedText, TunedHead])
def test_features_bring_their_mask_and_the_next_bank_takes_it_away(clip, make):
    head, features = make(32), unit_norm(torch.randn(3, 4, 32))
    mask = torch.tensor([[True] * 4, [True, False, False, True], [False, True, False, False]])
    head.set_bank(TextBank(features=features, mask=mask), clip)
    assert torch.equal(head(clip).mask, mask)
    assert not [name for name in head.state_dict() if name != "head"]
    head.set_bank(TextBank(features=features), clip)
    assert head(clip).mask is None


def test_rows_of_a_tuned_head_outside_the_mask_stay_as_they_are(clip):
    head = TunedHead(32)
    mask = torch.tensor([[True] * 4, [True, False, False, True], [False, True, False, False]])
    head.set_bank(TextBank(features=unit_norm(torch.randn(3, 4, 32)), mask=mask), clip)
    start = head.head.detach().clone()
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(3):
        text = head(clip)
        logits = class_logits(unit_norm(torch.randn(2, 3, 32)), text.features, torch.tensor(10.0), text.mask)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
        optimizer.step()
    assert torch.equal(head.head[~mask], start[~mask])
    assert (head.head - start)[mask].norm(dim=-1).min() > 0


def test_tuned_head_keeps_its_parameter_for_as_many_classes(clip):
    head, features = TunedHead(32), unit_norm(torch.randn(3, 32))
    head.set_bank(TextBank(features=unit_norm(torch.randn(3, 32))), clip)
    parameter = head.head
    head.set_bank(TextBank(features=features), clip)
    assert head.head is parameter
    assert torch.equal(parameter.detach(), features)


def test_tuned_head_starts_from_templates(clip, templates):
    head = TunedHead(32)
    head.set_bank(templates, clip)
    assert torch.allclose(head(clip).features, mean_features(templates.tokens, encode=clip.encode_text), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_templates_are_embedded_once_and_again_after_loading_another_text_tower(clip, templates, training, monkeypatch):
    head = EncodedText(32).train(training)
    head.set_bank(templates, clip)
    first = head(clip).features
    assert torch.allclose(first, mean_features(templates.tokens, encode=clip.encode_text), atol=1e-6)

    calls = []
    embed = head.embed
    monkeypatch.setattr(head, "embed", lambda clip: calls.append(0) or embed(clip))
    head.train(training)
    head.load_state_dict({})  # what loading a checkpoint into the method does
    assert head(clip).features is first
    assert not calls  # the same weights: nothing to embed

    shift_text_tower(clip)
    assert head(clip).features is first  # nothing was loaded into the method yet
    head.load_state_dict({})
    second = head(clip).features
    assert len(calls) == 1
    assert torch.allclose(second, mean_features(templates.tokens, encode=clip.encode_text), atol=1e-6)
    assert not torch.allclose(second, first, atol=1e-3)


def test_text_is_embedded_in_full_precision_under_autocast(clip, templates):
    head = EncodedText(32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head.set_bank(templates, clip)
        features = head(clip).features
    assert torch.allclose(features, mean_features(templates.tokens, encode=clip.encode_text), atol=1e-6)


def test_templates_need_texts(clip):
    with pytest.raises(ValueError, match=r"^the text tower needs texts to embed, but the text bank holds features"):
        EncodedText(32).set_bank(TextBank(features=torch.ones(3, 32)), clip)


def naive_context(clip, context, name):
    """Learned context by hand: one text, token by token."""
    tokens = Tokenizer()([" ".join(["X"] * len(context)) + f" {name}."])
    x = clip.token_embedding(tokens)[0]
    rows = [context[i - 1] if 1 <= i <= len(context) else x[i] for i in range(len(x))]
    x = torch.stack(rows)[None] + clip.positional_embedding
    x = clip.ln_final(clip.transformer(x))[0, int(tokens.argmax())]
    return unit_norm(x @ clip.text_projection)


def test_learned_context_against_a_loop(clip):
    head = ContextText(32, num_context=3, width=64)
    assert head.prompt_embed.std().item() == pytest.approx(0.01, rel=0.3)
    with torch.no_grad():
        head.prompt_embed.normal_()
    head.set_bank(context_bank(NAMES, num_context=3, tokenizer=Tokenizer()), clip)
    expected = torch.stack([naive_context(clip, head.prompt_embed, name) for name in NAMES])
    for mode in (True, False):
        assert torch.allclose(head.train(mode)(clip).features, expected, atol=1e-5)
    assert list(head.state_dict()) == ["prompt_embed"]


def test_learned_context_gets_gradients_and_the_frozen_tower_none(clip):
    head = ContextText(32, num_context=2, width=64).train()
    clip.requires_grad_(requires_grad=False)
    head.set_bank(context_bank(NAMES, num_context=2, tokenizer=Tokenizer()), clip)
    head(clip).features[:, 0].sum().backward()
    assert head.prompt_embed.grad.any()
    assert not any(parameter.grad is not None for parameter in clip.parameters())


def test_scores_follow_the_learned_context(clip):
    head = ContextText(32, num_context=2, width=64)
    head.set_bank(context_bank(NAMES, num_context=2, tokenizer=Tokenizer()), clip)
    before = head.eval()(clip).features
    assert not before.requires_grad
    head.train()
    with torch.no_grad():
        head.prompt_embed.normal_()
    after = head.eval()(clip).features
    assert not torch.allclose(before, after, atol=1e-3)
    assert head(clip).features is after  # kept until something changes


def test_tuned_text_scores_with_all_templates_and_the_bare_string(clip, rephrased):
    head = TunedText(32)
    head.set_bank(rephrased, clip)
    assert rephrased.tokens.shape == (3, len(ACTION_TEMPLATES) + 1, 77)
    expected = mean_features(rephrased.tokens, encode=clip.encode_text)
    assert torch.allclose(head.eval()(clip).features, expected, atol=1e-6)


def test_tuned_text_trains_on_one_template_and_the_bare_string(clip, rephrased):
    head = TunedText(32).train()
    head.set_bank(rephrased, clip)
    drawn = set()
    for seed in range(6):
        torch.manual_seed(seed)
        template = int(torch.randint(28, ()))
        drawn.add(template)
        torch.manual_seed(seed)
        found = head(clip)
        pair = rephrased.tokens[:, [template, -1]]
        expected = mean_features(pair, encode=clip.encode_text)
        assert torch.allclose(found.features, expected, atol=1e-6)
        assert torch.allclose(found.raw, expected, atol=1e-6)  # the tower has not moved yet
    assert len(drawn) > 2
    found.features[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in clip.text_parameters())
    assert not found.raw.requires_grad


def test_raw_text_stays_that_of_the_initial_tower(clip, rephrased):
    head = TunedText(32).train()
    head.set_bank(rephrased, clip)
    initial = copy.deepcopy(clip)
    shift_text_tower(clip)
    torch.manual_seed(0)
    found = head(clip)
    torch.manual_seed(0)
    expected = head(initial)
    assert torch.allclose(found.raw, expected.features, atol=1e-6)
    assert not torch.allclose(found.features, found.raw, atol=1e-3)
    head.eval()
    assert torch.allclose(head(clip).features, mean_features(rephrased.tokens, encode=clip.encode_text), atol=1e-6)
    assert torch.allclose(head.raw[0, 0], unit_norm(initial.encode_text(rephrased.tokens[0, :1]))[0], atol=1e-6)


def test_raw_text_follows_the_classes(clip, rephrased):
    head, fresh = TunedText(32), TunedText(32)
    head.set_bank(rephrased, clip)
    others = rephrased_bank(["Eating: with a fork", "Running fast", "Sleeping: at night"], tokenizer=Tokenizer())
    head.set_bank(others, clip)
    fresh.set_bank(others, clip)
    assert torch.equal(head.raw, fresh.raw)


def test_training_goes_on_with_text_that_an_evaluation_embedded(clip, templates):
    head = EncodedText(32)
    head.set_bank(templates, clip)
    shift_text_tower(clip)
    head.load_state_dict({})
    with torch.inference_mode():
        head.eval()(clip)
    video = torch.randn(2, 32, requires_grad=True)
    (video @ head.train()(clip).features.T).sum().backward()
    assert video.grad.any()
