"""Every switch of the method, built from its configuration keys: what it computes and what it trains."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slowfast.datasets.label_set import LabelSet
from slowfast.methods.build import build_method
from slowfast.models.clip.experts import ExpertMixture
from slowfast.models.clip.layers import activation_of
from slowfast.models.temporal import TEMPORAL_BLOCKS
from slowfast.text.text_bank import rephrased_bank
from slowfast.text.tokenizer import Tokenizer

FROZEN = {"MODEL.KEEP_RAW_MODEL": True}
DISTIL = {**FROZEN, "MODEL.RAW_MODEL_DISTILLATION": True, "MODEL.DISTILLATION_RATIO": 2.0}
EXPERTS = {"MODEL.NUM_EXPERTS": 2, "MODEL.EXPERT_INSERT_LAYERS": [0, 1]}
ROUTING = {**EXPERTS, "MODEL.RECORD_ROUTING": True, "MODEL.ROUTING_FREQ_CONS_FACTOR": 0.5}
SWITCHES = {
    "plain": {},
    "tune_head": {"TUNE_HEAD": True},
    "text_prompt": {"MODEL.TEXT_PROMPT": True, "MODEL.PROMPT_NUM": 4},
    "experts": EXPERTS,
    "routing": ROUTING,
    "routing_hinge": {**ROUTING, "MODEL.LOSS_FREQ_TYPE": "hinge", "MODEL.ROUTING_TYPE": "image-level"},
    "recompute": {"MODEL.USE_CHECKPOINT": True},
    "intended": {**DISTIL, "MODEL.DISTILLATION_MODE": "intended"},
    "published": {**DISTIL, "MODEL.DISTILLATION_MODE": "published"},
    "froster": {**DISTIL, "MODEL.DISTILLATION_MODE": "froster"},
    "kl": {**DISTIL, "MODEL.DISTILLATION_MODE": "kl"},
    "ensemble": {**FROZEN, "MODEL.ENSEMBLE_PRED": True, "MODEL.ENSEMBLE_RAWMODEL_RATIO": 0.3},
    "bce_logit": {"MODEL.LOSS_FUNC": "bce_logit"},
    "mse": {"MODEL.LOSS_FUNC": "mse"},
    "nce_loss": {"MODEL.LOSS_FUNC": "nce_loss"},
    "gelu": {"MODEL.CLIP_ACTIVATION": "gelu"},
}
TERMS = {
    "routing": {"classification", "routing"},
    "routing_hinge": {"classification", "routing"},
    "intended": {"classification", "distillation"},
    "froster": {"classification", "distillation", "text_distillation"},
    "kl": {"classification", "distillation"},
}


@pytest.fixture
def build(tiny_cfg, tiny_labels):
    def make(*, training=True, **keys):
        torch.manual_seed(3)
        return build_method(tiny_cfg(**keys), tiny_labels, training=training)

    return make


def moved(method):
    """Off the starting point, where distances to frozen CLIP have no gradient."""
    with torch.no_grad():
        for _, parameter in method.trainable_parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return method


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("kind", [None, "stcross_attend"])
def test_every_term_is_finite_and_reaches_a_parameter(build, make_batch, switch, kind):
    method = moved(build(**SWITCHES[switch], **{"MODEL.TEMPORAL_MODELING_TYPE": kind}).train())
    output = method(make_batch())
    assert set(output.losses) == TERMS.get(switch, {"classification"})
    parameters = [parameter for _, parameter in method.trainable_parameters()]
    for term in output.losses.values():
        assert torch.isfinite(term)
        found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in found)


@pytest.mark.parametrize("switch", SWITCHES)
def test_all_that_trains_gets_a_gradient(build, make_batch, switch):
    """DistributedDataParallel waits for every parameter that requires a gradient."""
    method = build(**SWITCHES[switch]).train()
    sum(method(make_batch()).losses.values()).backward()
    assert [name for name, parameter in method.trainable_parameters() if parameter.grad is None] == []


class MixedDevices(TorchDispatchMode):
    """Names the operations that see tensors of two devices, copies among them."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.found.append(str(func))
        return result


@pytest.mark.parametrize(
    ("switch", "kind"), [*((switch, None) for switch in SWITCHES), *(("recompute", kind) for kind in TEMPORAL_BLOCKS)]
)
def test_a_step_stays_on_its_device(build, make_batch, switch, kind):
    """The meta device stands in for a GPU: it has no values to hand to the host."""
    keys = {**SWITCHES[switch], "MODEL.TEMPORAL_MODELING_TYPE": None if kind == "None" else kind}
    method, batch = build(**keys).to("meta").train(), make_batch().to("meta")
    with MixedDevices() as mixed:
        sum(method(batch).losses.values()).backward()
        with torch.no_grad():
            logits = method.eval()(batch).logits
    assert mixed.found == []
    assert logits.is_meta


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_checkpoint_of_training_fits_the_test(build, make_batch, switch):
    trained = moved(build(**SWITCHES[switch]).train())
    tested = build(**SWITCHES[switch], training=False)
    report = tested.load_state_dict(trained.checkpoint_state(), strict=False)
    assert all(name.startswith("raw_model.") for name in report.missing_keys)
    assert all(name.startswith("projector_t.") for name in report.unexpected_keys)
    with torch.no_grad():
        assert torch.equal(tested.eval()(make_batch()).logits, trained.eval()(make_batch()).logits)


@pytest.mark.parametrize(
    ("switch", "names"),
    [
        ("tune_head", {"head"}),
        ("text_prompt", {"prompt_embed"}),
        ("froster", {"projector_t.0.weight", "projector_t.2.weight"}),
    ],
)
def test_published_names(build, switch, names):
    assert set(build(**SWITCHES[switch]).checkpoint_state()) - set(build().checkpoint_state()) == names


@pytest.mark.parametrize("prompts", [None, 4])
def test_tuned_head_starts_as_the_fixed_text(build, make_batch, tmp_path, prompts):
    keys = {}
    if prompts is not None:
        torch.save(torch.randn(3, prompts, 32), tmp_path / "features.pt")
        keys = {"DATA.TEXT_AUG": True, "DATA.TEXT_AUG_FEATURE_FILE": str(tmp_path / "features.pt")}
    fixed, tuned = build(**keys).eval(), build(TUNE_HEAD=True, **keys).eval()
    with torch.no_grad():
        assert torch.allclose(fixed(make_batch()).logits, tuned(make_batch()).logits, atol=1e-4)
    assert tuned.state_dict()["head"].shape == ((3, 32) if prompts is None else (3, prompts, 32))


@pytest.mark.parametrize("training", [True, False])
def test_ensemble_mixes_the_scores_of_frozen_clip(build, make_batch, training):
    keys = {**SWITCHES["ensemble"], "MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend"}
    mixed = build(**keys, training=training)
    tuned = build(**{"MODEL.TEMPORAL_MODELING_TYPE": "stcross_attend"}, training=False)
    raw, batch = build(training=False).eval(), make_batch()
    with torch.no_grad():
        expected = 0.3 * raw(batch).logits + 0.7 * tuned.eval()(batch).logits
        assert torch.allclose(mixed.eval()(batch).logits, expected, atol=1e-5)
    assert not any(name.startswith("raw_model.") for name in mixed.checkpoint_state())


def test_routing_loss_by_hand(build, make_batch):
    method = build(**ROUTING, **{"MODEL.CLS_LOSS_RATIO": 0.25}).train()
    shares = []
    for module in method.modules():
        if isinstance(module, ExpertMixture):
            for layer in (module.routing1, module.routing2):
                layer.register_forward_hook(lambda _module, _input, output: shares.append(output.softmax(dim=-1)))
    output = method(make_batch())
    assert len(shares) == 4
    mean = sum(((0.5 - share[..., 0]) ** 2).mean() for share in shares) / 4
    assert output.losses["routing"].item() == pytest.approx(0.5 * mean.item(), rel=1e-5)
    plain = build(**EXPERTS).train()
    plain.load_state_dict(method.state_dict())
    expected = plain(make_batch()).losses["classification"]
    assert output.losses["classification"].item() == pytest.approx(0.25 * expected.item(), rel=1e-5)


def test_routing_loss_with_recomputed_activations(build, make_batch):
    gradients = []
    for recompute in (False, True):
        method = build(**ROUTING, **{"MODEL.USE_CHECKPOINT": recompute}).train()
        for _ in range(2):  # nothing of the first step may leak into the second
            method.zero_grad()
            sum(method(make_batch()).losses.values()).backward()
        gradients.append({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_froster_trains_the_text_tower_towards_frozen_text(build, make_batch):
    method = build(**SWITCHES["froster"]).train()
    trained = {name for name, _ in method.trainable_parameters()}
    assert {"model.text_projection", "model.token_embedding.weight", "projector_t.2.weight"} <= trained
    torch.manual_seed(0)
    losses = method(make_batch()).losses
    assert losses["text_distillation"].item() == pytest.approx(0, abs=1e-5)  # it starts there
    moved(method)
    torch.manual_seed(0)
    assert method(make_batch()).losses["text_distillation"] > 1e-3


@pytest.mark.parametrize("training", [True, False])
def test_froster_reads_rephrased_names(tiny_cfg, training):
    names = ["Surfing: riding a wave", "Tea: pouring tea into a cup", "Stairs"]
    method = build_method(tiny_cfg(**SWITCHES["froster"]), LabelSet.from_names(names), training=training)
    assert torch.equal(method.text.tokens, rephrased_bank(names, tokenizer=Tokenizer()).tokens)


def test_froster_without_distillation_still_trains_the_text_tower(build, make_batch):
    method = build(**{**SWITCHES["froster"], "MODEL.DISTILLATION_RATIO": 0.0}).train()
    assert method.raw_model is None
    output = method(make_batch())
    assert list(output.losses) == ["classification"]
    output.losses["classification"].backward()
    assert method.model.text_projection.grad.any()
    assert [name for name, parameter in method.trainable_parameters() if parameter.grad is None] == []


def test_froster_weights_are_scored_with_froster_text_where_distillation_is_off(build, make_batch):
    """The official code could not test with distillation on, so its users turn it off."""
    trained = moved(build(**SWITCHES["froster"]).train())
    tested = build(**{"MODEL.DISTILLATION_MODE": "froster"}, training=False)
    tested.load_state_dict(trained.checkpoint_state(), strict=False)
    with torch.no_grad():
        assert torch.equal(tested.eval()(make_batch()).logits, trained.eval()(make_batch()).logits)


def test_text_is_not_embedded_again_for_another_logit_scale(build):
    """Every checkpoint has another one."""
    method = build(training=False).eval()
    state = method.state_dict()
    state["model.logit_scale"] = state["model.logit_scale"] + 1
    before = method.text(method.model).features
    method.load_state_dict(state)
    assert method.text(method.model).features is before


def test_a_tuned_text_tower_is_scored_with_its_own_text(build, make_batch):
    """Also where the test does not know that the text tower was tuned."""
    trained = moved(build(**SWITCHES["froster"]).train())
    tested = build(training=False).eval()
    with torch.no_grad():
        before = tested.text(tested.model).features
        tested.load_state_dict(trained.checkpoint_state(), strict=False)
        after = tested.text(tested.model).features
    assert not torch.allclose(before, after, atol=1e-3)


def test_kl_trains_the_scale_and_no_projector(build, make_batch):
    method = moved(build(**SWITCHES["kl"]).train())
    output = method(make_batch())
    assert not any(parameter.requires_grad for parameter in method.raw_model.parameters())
    output.losses["distillation"].backward()
    assert method.model.logit_scale.grad is not None  # through the student's scores
    assert method.projector_v[0].weight.grad is None


def test_recomputation_reaches_both_towers(build):
    method = build(**DISTIL, **{"MODEL.USE_CHECKPOINT": True})
    assert method.model.visual.transformer.recompute
    assert method.model.transformer.recompute
    assert not build().model.visual.transformer.recompute


def test_frozen_clip_has_the_activation_of_the_tuned_one(build):
    method = build(**DISTIL, **{"MODEL.CLIP_ACTIVATION": "gelu"})
    assert activation_of(method.raw_model) == activation_of(method.model) == "gelu"


def test_mixed_samples_are_scored_against_their_shares(build, make_batch):
    method, batch = build().train(), make_batch()
    weights = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6]])
    output = method(replace(batch, label=weights.argmax(dim=1), weights=weights))
    expected = -(weights * output.logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert output.losses["classification"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_activation_that_contradicts_the_file(build, tiny_state, tmp_path):
    path = tmp_path / "clip.pt"
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    torch.save({**tiny_state, **{name: torch.tensor(value) for name, value in sizes.items()}}, path)
    message = f"^MODEL.CLIP_ACTIVATION: is gelu, but {path} was trained with quick_gelu; allowed: auto$"
    with pytest.raises(ValueError, match=message):
        build(**{"MODEL.CLIP_WEIGHTS": str(path), "MODEL.CLIP_ACTIVATION": "gelu"})
