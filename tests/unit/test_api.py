import dataclasses
import re

import pytest
import torch

from slowfast.api import VideoClip, load_model
from slowfast.config.defaults import get_cfg
from slowfast.models.build import ExpertOptions, block_option_names, build_clip
from slowfast.models.similarity import class_logits, unit_norm


def same_weights(model, state):
    own = model.clip.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name].float()) for name in own)


def test_state_dict(tiny_state):
    model = load_model(tiny_state)
    assert isinstance(model, VideoClip)
    assert same_weights(model, tiny_state)


@pytest.mark.parametrize("wrap", [str, lambda path: path], ids=["str", "Path"])
def test_file(tiny_weights, tiny_state, wrap):
    assert same_weights(load_model(wrap(tiny_weights)), tiny_state)


def test_checkpoint(tiny_state, tmp_path):
    state = {f"model.{name}": tensor for name, tensor in tiny_state.items()}
    state |= {"projector_v.0.weight": torch.zeros(32, 32), "raw_model.logit_scale": torch.zeros(())}
    path = tmp_path / "checkpoint_epoch_00001.pyth"
    torch.save({"epoch": 0, "model_state": state}, path)
    assert same_weights(load_model(path, temporal_modeling_type="stcross_attend"), tiny_state)
    assert same_weights(load_model(state), tiny_state)


def test_half_precision_weights_run_in_fp32(tiny_state, tiny_frames):
    model = load_model({name: tensor.half() for name, tensor in tiny_state.items()})
    assert model.encode_video(tiny_frames).dtype == torch.float32


def test_model_is_in_evaluation_mode(tiny_state):
    model = load_model(tiny_state, temporal_modeling_type="stcross_attend", num_frames=4)
    assert not any(module.training for module in model.modules())
    assert model.num_frames == 4


@pytest.mark.parametrize("kind", ["stcross_attend", "expand_temporal_view_step2"])
def test_defaults_are_those_of_the_configuration(tiny_state, tiny_frames, kind):
    configured = {name: getattr(get_cfg().MODEL, name.upper()) for name in block_option_names()}
    default = load_model(tiny_state, temporal_modeling_type=kind)
    explicit = load_model(tiny_state, temporal_modeling_type=kind, **configured)
    assert torch.equal(default.encode_video(tiny_frames), explicit.encode_video(tiny_frames))
    options = default.clip.visual.transformer.resblocks[0].options_class()
    for name in (field.name for field in dataclasses.fields(options)):
        found = getattr(options, name)
        assert (list(found) if isinstance(found, tuple) else found) == configured[name]


def test_experts_of_a_file(tiny_state, tiny_frames, tmp_path):
    experts = ExpertOptions(count=1, layers=[1])
    trained = build_clip(tiny_state, experts=experts).eval()
    torch.nn.init.normal_(trained.visual.transformer.resblocks[1].mixture.experts_tail[0].c_proj.weight)
    torch.save({"model_state": {f"model.{name}": t for name, t in trained.state_dict().items()}}, tmp_path / "a.pyth")
    with torch.no_grad():
        loaded = load_model(tmp_path / "a.pyth", experts=experts).encode_video(tiny_frames)
        assert torch.equal(loaded, trained.encode_video(tiny_frames))
    with pytest.raises(ValueError, match="unexpected"):
        load_model(tmp_path / "a.pyth")


def test_an_activation_that_clip_does_not_have(tiny_state):
    with pytest.raises(ValueError, match=r"^activation: activation 'relu' is not one .*: quick_gelu, gelu$"):
        load_model(tiny_state, activation="relu")


def test_activation_is_what_the_file_says_unless_given(tiny_state, tiny_frames, tmp_path):
    torch.save(tiny_state, tmp_path / "clip.pt")
    with torch.no_grad():
        default, exact = (
            load_model(tmp_path / "clip.pt", activation=name).encode_video(tiny_frames) for name in (None, "gelu")
        )
        assert torch.equal(default, load_model(tiny_state).encode_video(tiny_frames))
    assert not torch.allclose(default, exact, atol=1e-5)


def test_options_change_the_result(tiny_state, tiny_frames):
    default = load_model(tiny_state, temporal_modeling_type="stcross_attend")
    other = load_model(tiny_state, temporal_modeling_type="stcross_attend", mask_rate=0.0, channel_fold=8)
    assert not torch.allclose(default.encode_video(tiny_frames), other.encode_video(tiny_frames), atol=1e-4)


def test_documented_options_exist():
    documented = set(
        re.findall(r"[a-z]+(?:_[a-z]+)+", load_model.__doc__.split("block_options:")[1].split("Returns")[0])
    )
    assert block_option_names() <= documented


@pytest.mark.parametrize("num_frames", [1, 3, 8])
def test_encode_video_takes_any_number_of_frames(tiny_state, num_frames):
    model = load_model(tiny_state, temporal_modeling_type="stcross_attend")
    assert model.encode_video(torch.zeros(2, 3, num_frames, 32, 32)).shape == (2, num_frames, 32)


def test_encode_video_is_not_normalised(tiny_state, tiny_frames):
    norms = load_model(tiny_state).encode_video(tiny_frames).norm(dim=-1)
    assert not torch.allclose(norms, torch.ones_like(norms), atol=1e-2)


def test_encode_text(tiny_state):
    model = load_model(tiny_state)
    features = model.encode_text(["surfing", "pouring tea"])
    assert features.shape == (2, 32)
    assert torch.allclose(model.encode_text(["pouring tea"])[0], features[1], atol=1e-6)


def test_one_string_is_refused(tiny_state):
    with pytest.raises(ValueError, match=r"^texts: found the single string 'surfing'; expected a list of strings$"):
        load_model(tiny_state).encode_text("surfing")


@pytest.mark.parametrize("shape", [(5, 32), (5, 4, 32)])
def test_classify(tiny_state, tiny_frames, shape):
    model = load_model(tiny_state, temporal_modeling_type="stcross_attend")
    text = torch.randn(shape)
    logits = model.classify(tiny_frames, text)
    assert logits.shape == (2, 5)
    video = unit_norm(model.encode_video(tiny_frames))
    assert torch.allclose(logits, class_logits(video, unit_norm(text), model.clip.logit_scale.exp()), atol=1e-5)
    assert torch.allclose(model.classify(tiny_frames, 7 * text), logits, atol=1e-4)


def test_classify_with_a_misfit(tiny_state, tiny_frames):
    with pytest.raises(ValueError, match=r"^video embeddings have width 32, text embeddings 16$"):
        load_model(tiny_state).classify(tiny_frames, torch.ones(5, 16))


def test_unknown_names(tiny_state):
    with pytest.raises(ValueError, match=r"^unknown block option 'temporal_scales'; did you mean 'temporal_scale'\?"):
        load_model(tiny_state, temporal_scales=[1])
    with pytest.raises(ValueError, match=r"^MODEL.TEMPORAL_MODELING_TYPE: unknown value 'stcross_attention'; did"):
        load_model(tiny_state, temporal_modeling_type="stcross_attention")
    with pytest.raises(ValueError, match=r"^CLIP weights 'ViT-Z': no such file; allowed: a file or one of vitb32"):
        load_model("ViT-Z")


def test_weights_that_are_no_clip():
    with pytest.raises(ValueError, match=r"^weights: not a CLIP state dict"):
        load_model({"a": torch.zeros(1)})


def test_gradients_flow(tiny_state, tiny_frames):
    """Notebooks may fine-tune."""
    model = load_model(tiny_state, temporal_modeling_type="stcross_attend")
    model.classify(tiny_frames, model.encode_text(["a", "b"])).sum().backward()
    assert model.clip.visual.proj.grad.any()
    assert model.clip.text_projection.grad.any()


def test_classify_leaves_out_what_the_mask_does(tiny_state, tiny_frames):
    model = load_model(tiny_state)
    text = torch.randn(2, 3, 32)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    with torch.no_grad():
        masked, whole = model.classify(tiny_frames, text, mask), model.classify(tiny_frames, text)
        assert torch.allclose(masked[:, 0], model.classify(tiny_frames, text[:, :2])[:, 0], atol=1e-5)
    assert torch.allclose(masked[:, 1], whole[:, 1], atol=1e-5)
    assert not torch.allclose(masked[:, 0], whole[:, 0], atol=1e-4)
